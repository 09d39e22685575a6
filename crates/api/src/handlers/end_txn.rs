//! EndTxn, key 26, versions 0 to 4. KIP-98, KIP-588 (PRODUCER_FENCED), KIP-890 part 1.
//!
//! Answered once the decision is durable; the markers follow, so what was committed becomes visible a little later.

use forebay_coordinator::machine::Producer;
use forebay_coordinator::machine::txn::{Answer, EndTxn, Outcome, Request};
use forebay_types::{ProducerEpoch, ProducerId};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{EndTxnRequest, EndTxnResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: EndTxnRequest = call.decode()?;
    let code = end(context, &request, call.version()).await;
    call.answer(&EndTxnResponse::default().with_error_code(code.code()))
}

async fn end(context: &Context, request: &EndTxnRequest, version: i16) -> ErrorCode {
    let (Ok(id), Ok(epoch)) = (ProducerId::new(request.producer_id.0), ProducerEpoch::new(request.producer_epoch))
    else {
        return ErrorCode::InvalidProducerIdMapping;
    };
    let end = EndTxn {
        transactional_id: request.transactional_id.as_str().to_owned(),
        producer: Producer { id, epoch },
        outcome: if request.committed { Outcome::Commit } else { Outcome::Abort },
        version,
    };
    match context.coordinators.txn(Request::EndTxn(end)).await {
        Ok(Answer::EndTxn(result)) => result.map_or_else(errors::coordinator::txn, |()| ErrorCode::None),
        Ok(other) => unreachable!("it is answered as itself, not with {other:?}"),
        Err(error) => errors::coordinator::coordinator(error),
    }
}
