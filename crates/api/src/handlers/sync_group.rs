//! SyncGroup, key 14, versions 0 to 5. KIP-345 (static members), KIP-559 (protocol in request and answer).
//!
//! Waits until the leader has assigned.

use forebay_coordinator::machine::group::{Caller, Reply as GroupReply, Request, Sync};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::text;

/// The first version that must name the group's protocol.
const PROTOCOL_VERSION: i16 = 5;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: SyncGroupRequest = call.decode()?;
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if call.version() >= PROTOCOL_VERSION && !names_protocol {
        return call.answer(&refuse(ErrorCode::InconsistentGroupProtocol));
    }
    let sync = Sync {
        group: request.group_id.as_str().to_owned(),
        caller: Caller {
            member_id: request.member_id.as_str().to_owned(),
            instance_id: request.group_instance_id.as_deref().map(str::to_owned),
            generation: request.generation_id,
        },
        protocol_type: request.protocol_type.as_deref().map(str::to_owned),
        protocol: request.protocol_name.as_deref().map(str::to_owned),
        assignments: request
            .assignments
            .iter()
            .map(|a| (a.member_id.as_str().to_owned(), a.assignment.clone()))
            .collect(),
    };
    drop(request);
    let response = match context.coordinators.group(Request::Sync(sync)).await {
        Ok(GroupReply::Sync(Ok(synced))) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.map(text))
            .with_protocol_name(synced.protocol.map(text))
            .with_assignment(synced.assignment),
        Ok(GroupReply::Sync(Err(error))) => refuse(errors::coordinator::group(error)),
        Ok(other) => unreachable!("a sync is answered as one, not with {other:?}"),
        Err(error) => refuse(errors::coordinator::coordinator(error)),
    };
    call.answer(&response)
}

fn refuse(code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(code.code()).with_protocol_type(None).with_protocol_name(None)
}
