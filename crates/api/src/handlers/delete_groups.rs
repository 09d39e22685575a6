//! DeleteGroups, key 42, versions 0 to 2. KIP-229.

use forebay_coordinator::machine::group::{Reply as GroupReply, Request};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::delete_groups_response::DeletableGroupResult;
use forebay_wire::kafka::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::handlers::in_order;
use crate::lookup::text;

/// Groups of one request that are asked at once.
const GROUPS_IN_FLIGHT_MAX: usize = 16;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DeleteGroupsRequest = call.decode()?;
    let one = |group: String| async move {
        let code = match context.coordinators.group(Request::DeleteGroup { group: group.clone() }).await {
            Ok(GroupReply::DeleteGroup(Ok(()))) => ErrorCode::None,
            Ok(GroupReply::DeleteGroup(Err(error))) => errors::coordinator::group(error),
            Ok(other) => unreachable!("a deletion is answered as one, not with {other:?}"),
            Err(error) => errors::coordinator::coordinator(error),
        };
        DeletableGroupResult::default().with_group_id(text(group).into()).with_error_code(code.code())
    };
    let groups = request.groups_names.iter().map(|id| one(id.as_str().to_owned())).collect();
    call.answer(&DeleteGroupsResponse::default().with_results(in_order(groups, GROUPS_IN_FLIGHT_MAX).await))
}
