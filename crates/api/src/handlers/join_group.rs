//! JoinGroup, key 11, versions 0 to 9. KIP-62 (rebalance time-out), KIP-345 (static members), KIP-394 (two steps),
//! KIP-559 (protocol in the answer), KIP-800 (reason), KIP-814 (the leader may skip its assignment).
//!
//! Waits as long as the rebalance does.

use forebay_coordinator::machine::group::{Join, JoinRefused, Joined, Reply as GroupReply, Request};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::join_group_response::JoinGroupResponseMember;
use forebay_wire::kafka::messages::{JoinGroupRequest, JoinGroupResponse};
use forebay_wire::kafka::protocol::StrBytes;

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::text;

/// The first version with a rebalance time-out of its own.
const REBALANCE_TIMEOUT_VERSION: i16 = 1;

/// The first version whose answer may be without a protocol.
const NO_PROTOCOL_VERSION: i16 = 7;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: JoinGroupRequest = call.decode()?;
    let version = call.version();
    if let Some(reason) = &request.reason {
        tracing::debug!(group = request.group_id.as_str(), reason = reason.as_str(), "a member joins");
    }
    let mut random = [0; 16];
    context.env.fill_random(&mut random);
    let member_id = request.member_id.as_str().to_owned();
    let join = Join {
        group: request.group_id.as_str().to_owned(),
        member_id: member_id.clone(),
        instance_id: request.group_instance_id.as_deref().map(str::to_owned),
        client_id: call.header.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", call.connection.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version < REBALANCE_TIMEOUT_VERSION {
            request.session_timeout_ms
        } else {
            request.rebalance_timeout_ms
        },
        protocol_type: request.protocol_type.as_str().to_owned(),
        protocols: request.protocols.iter().map(|p| (p.name.as_str().to_owned(), p.metadata.clone())).collect(),
        version,
        random,
    };
    // What waits for a rebalance should not hold the request's bytes.
    drop(request);
    let response = match context.coordinators.group(Request::Join(join)).await {
        Ok(GroupReply::Join(Ok(joined))) => welcome(joined, version),
        Ok(GroupReply::Join(Err(JoinRefused { member_id, error }))) => {
            refuse(&member_id, errors::coordinator::group(error), version)
        }
        Ok(other) => unreachable!("a join is answered as one, not with {other:?}"),
        Err(error) => refuse(&member_id, errors::coordinator::coordinator(error), version),
    };
    call.answer(&response)
}

fn welcome(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(text))
        .with_protocol_name(protocol_name(joined.protocol, version))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(members.collect())
}

fn refuse(member_id: &str, code: ErrorCode, version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_generation_id(-1)
        .with_protocol_type(None)
        .with_protocol_name(protocol_name(None, version))
        .with_member_id(text(member_id))
}

fn protocol_name(name: Option<String>, version: i16) -> Option<StrBytes> {
    if version < NO_PROTOCOL_VERSION { Some(text(name.unwrap_or_default())) } else { name.map(text) }
}
