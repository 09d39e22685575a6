//! DescribeGroups, key 15, versions 0 to 5. KIP-345 (static members), KIP-430 (authorized operations).
//!
//! A group that is not there is `Dead`, without an error (semantic 31). Without an authorizer, everybody may do all.

use forebay_coordinator::machine::group::{Described, DescribedMember, GroupState, Reply as GroupReply, Request};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use forebay_wire::kafka::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::handlers::{in_order, once};
use crate::lookup::text;

/// READ, DELETE and DESCRIBE as bits of Kafka's `AclOperation`.
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

/// Groups of one request that are asked at once.
const GROUPS_IN_FLIGHT_MAX: usize = 16;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DescribeGroupsRequest = call.decode()?;
    let with_operations = request.include_authorized_operations;
    let one = |id: String| async move {
        let described = match context.coordinators.group(Request::Describe { group: id.clone() }).await {
            Ok(GroupReply::Describe(Some(described))) => group(described),
            Ok(GroupReply::Describe(None)) => DescribedGroup::default().with_group_state(text(GroupState::Dead.name())),
            Ok(other) => unreachable!("a description is answered as one, not with {other:?}"),
            Err(error) => refuse(errors::coordinator::coordinator(error)),
        };
        let operations = if with_operations { ALL_OPERATIONS } else { i32::MIN };
        described.with_group_id(text(id).into()).with_authorized_operations(operations)
    };
    let groups = once(request.groups.iter().map(|id| id.as_str())).into_iter().map(|id| one(id.to_owned())).collect();
    call.answer(&DescribeGroupsResponse::default().with_groups(in_order(groups, GROUPS_IN_FLIGHT_MAX).await))
}

fn group(described: Described) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_state(text(described.state.name()))
        .with_protocol_type(text(described.protocol_type))
        .with_protocol_data(text(described.protocol))
        .with_members(described.members.into_iter().map(member).collect())
}

fn member(described: DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(text(described.member_id))
        .with_group_instance_id(described.instance_id.map(text))
        .with_client_id(text(described.client_id))
        .with_client_host(text(described.client_host))
        .with_member_metadata(described.metadata)
        .with_member_assignment(described.assignment)
}

fn refuse(code: ErrorCode) -> DescribedGroup {
    DescribedGroup::default().with_error_code(code.code())
}
