//! Heartbeat, key 12, versions 0 to 4. KIP-345 (static members).

use forebay_coordinator::machine::group::{self, Caller, Reply as GroupReply, Request};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: HeartbeatRequest = call.decode()?;
    let heartbeat = group::Heartbeat {
        group: request.group_id.as_str().to_owned(),
        caller: Caller {
            member_id: request.member_id.as_str().to_owned(),
            instance_id: request.group_instance_id.as_deref().map(str::to_owned),
            generation: request.generation_id,
        },
    };
    let code = match context.coordinators.group(Request::Heartbeat(heartbeat)).await {
        Ok(GroupReply::Heartbeat(Ok(()))) => ErrorCode::None,
        Ok(GroupReply::Heartbeat(Err(error))) => errors::coordinator::group(error),
        Ok(other) => unreachable!("a heartbeat is answered as one, not with {other:?}"),
        Err(error) => errors::coordinator::coordinator(error),
    };
    call.answer(&HeartbeatResponse::default().with_error_code(code.code()))
}
