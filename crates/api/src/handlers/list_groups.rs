//! ListGroups, key 16, versions 0 to 5. KIP-518 (states), KIP-848 (types: every group here is `classic`).

use forebay_coordinator::machine::group::List;
use forebay_wire::kafka::messages::list_groups_response::ListedGroup;
use forebay_wire::kafka::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::text;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: ListGroupsRequest = call.decode()?;
    let list = List {
        states: request.states_filter.iter().map(|state| state.as_str().to_owned()).collect(),
        types: request.types_filter.iter().map(|kind| kind.as_str().to_owned()).collect(),
    };
    let response = match context.coordinators.list_groups(list).await {
        Ok(listed) => {
            let groups = listed.into_iter().map(|group| {
                ListedGroup::default()
                    .with_group_id(text(group.group).into())
                    .with_protocol_type(text(group.protocol_type))
                    .with_group_state(text(group.state.name()))
                    .with_group_type(text(List::TYPE))
            });
            ListGroupsResponse::default().with_groups(groups.collect())
        }
        Err(error) => ListGroupsResponse::default().with_error_code(errors::coordinator::coordinator(error).code()),
    };
    call.answer(&response)
}
