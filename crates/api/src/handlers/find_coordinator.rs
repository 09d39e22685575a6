//! FindCoordinator, key 10, versions 0 to 6. KIP-98 (transactions), KIP-699 (many keys at once).
//!
//! Creates the coordinators' topic where it is not there yet, and answers once it is: Kafka answers
//! COORDINATOR_NOT_AVAILABLE first.
//!
//! Differs from Kafka: there are no share groups, as in Kafka where they are not enabled (INVALID_REQUEST).

use forebay_coordinator::host::CoordinatorKind;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::find_coordinator_response::Coordinator;
use forebay_wire::kafka::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use forebay_wire::kafka::protocol::StrBytes;

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::text;

/// The first version that asks for many keys.
const BATCH_VERSION: i16 = 4;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: FindCoordinatorRequest = call.decode()?;
    let version = call.version();
    let found = prepare(context, request.key_type).await;
    if version < BATCH_VERSION {
        let Coordinator { node_id, host, port, error_code, error_message, .. } = answer(context, found, &request.key);
        let response = FindCoordinatorResponse::default()
            .with_node_id(node_id)
            .with_host(host)
            .with_port(port)
            .with_error_code(error_code)
            .with_error_message(error_message);
        return call.answer(&response);
    }
    let coordinators = request.coordinator_keys.iter().map(|key| answer(context, found, key).with_key(owned(key)));
    call.answer(&FindCoordinatorResponse::default().with_coordinators(coordinators.collect()))
}

async fn prepare(context: &Context, key_type: i8) -> Result<(), ErrorCode> {
    let kind = match key_type {
        0 => CoordinatorKind::Group,
        1 => CoordinatorKind::Transaction,
        _ => return Err(ErrorCode::InvalidRequest),
    };
    context.coordinators.prepare(kind).await.map_err(errors::coordinator::coordinator)
}

/// One broker is every key's coordinator.
fn answer(context: &Context, found: Result<(), ErrorCode>, _: &str) -> Coordinator {
    match found {
        Ok(()) => Coordinator::default()
            .with_node_id(context.broker().get().into())
            .with_host(text(context.advertised.host.clone()))
            .with_port(i32::from(context.advertised.port)),
        Err(code) => Coordinator::default()
            .with_node_id((-1).into())
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(text(code.name()))),
    }
}

fn owned(key: &StrBytes) -> StrBytes {
    text(key.as_str())
}
