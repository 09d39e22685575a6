//! LeaveGroup, key 13, versions 0 to 5. KIP-345 (many at once, static members by an operator), KIP-800 (reason).

use forebay_coordinator::machine::group::{Leave, Leaver, Left, Reply as GroupReply, Request};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::leave_group_request::MemberIdentity;
use forebay_wire::kafka::messages::leave_group_response::MemberResponse;
use forebay_wire::kafka::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::text;

/// The first version that names many.
const BATCH_VERSION: i16 = 3;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: LeaveGroupRequest = call.decode()?;
    let version = call.version();
    let members = if version < BATCH_VERSION {
        vec![Leaver { member_id: request.member_id.as_str().to_owned(), instance_id: None }]
    } else {
        request.members.iter().map(leaver).collect()
    };
    let leave = Leave { group: request.group_id.as_str().to_owned(), members };
    let response = match context.coordinators.group(Request::Leave(leave)).await {
        Ok(GroupReply::Leave(Ok(left))) if version < BATCH_VERSION => {
            let code =
                left.first().map_or(0, |left| errors::coordinator::code_of(&left.result, errors::coordinator::group));
            LeaveGroupResponse::default().with_error_code(code)
        }
        Ok(GroupReply::Leave(Ok(left))) => {
            LeaveGroupResponse::default().with_members(left.into_iter().map(member).collect())
        }
        Ok(GroupReply::Leave(Err(error))) => refuse(errors::coordinator::group(error)),
        Ok(other) => unreachable!("a leave is answered as one, not with {other:?}"),
        Err(error) => refuse(errors::coordinator::coordinator(error)),
    };
    call.answer(&response)
}

fn leaver(member: &MemberIdentity) -> Leaver {
    Leaver {
        member_id: member.member_id.as_str().to_owned(),
        instance_id: member.group_instance_id.as_deref().map(str::to_owned),
    }
}

fn member(left: Left) -> MemberResponse {
    MemberResponse::default()
        .with_error_code(errors::coordinator::code_of(&left.result, errors::coordinator::group))
        .with_member_id(text(left.leaver.member_id))
        .with_group_instance_id(left.leaver.instance_id.map(text))
}

fn refuse(code: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse::default().with_error_code(code.code())
}
