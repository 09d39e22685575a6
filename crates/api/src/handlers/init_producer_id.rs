//! InitProducerId, key 22, versions 0 to 5. KIP-98, KIP-360 (a producer bumps its own epoch), KIP-588 (PRODUCER_FENCED),
//! KIP-890 part 1.
//!
//! Flink probes with it: an id that nobody used begins at epoch 0, one that is known goes on under its producer id.

use forebay_coordinator::machine::Producer;
use forebay_coordinator::machine::txn::{Answer, InitProducerId, Request};
use forebay_types::{ProducerEpoch, ProducerId};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;

const NONE: i64 = -1;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: InitProducerIdRequest = call.decode()?;
    let response = match init(context, &request, call.version()).await {
        Ok(producer) => InitProducerIdResponse::default()
            .with_producer_id(producer.id.get().into())
            .with_producer_epoch(producer.epoch.get()),
        Err(code) => InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(NONE.into())
            .with_producer_epoch(-1),
    };
    call.answer(&response)
}

async fn init(context: &Context, request: &InitProducerIdRequest, version: i16) -> Result<Producer, ErrorCode> {
    let Some(transactional_id) = &request.transactional_id else {
        // Without transactions there is nothing to look up: a producer that cannot have an id now only asks again.
        let id = context.coordinators.next_producer_id().await;
        let id = id.map_err(|_| ErrorCode::CoordinatorLoadInProgress)?;
        return Ok(Producer { id, epoch: ProducerEpoch::ZERO });
    };
    let expected = match (request.producer_id.0, request.producer_epoch) {
        (NONE, -1) => None,
        (id, epoch) => {
            let id = ProducerId::new(id).map_err(|_| ErrorCode::InvalidRequest)?;
            let epoch = ProducerEpoch::new(epoch).map_err(|_| ErrorCode::InvalidRequest)?;
            Some(Producer { id, epoch })
        }
    };
    let init = InitProducerId {
        transactional_id: transactional_id.as_str().to_owned(),
        timeout_ms: request.transaction_timeout_ms,
        expected,
        fresh: None,
        version,
    };
    match context.coordinators.txn(Request::InitProducerId(init)).await {
        Ok(Answer::InitProducerId(result)) => result.map_err(errors::coordinator::txn),
        Ok(other) => unreachable!("it is answered as itself, not with {other:?}"),
        Err(error) => Err(errors::coordinator::coordinator(error)),
    }
}
