//! AddOffsetsToTxn, key 25, versions 0 to 4. KIP-98, KIP-588 (PRODUCER_FENCED), KIP-890 part 1.
//!
//! Adds the group's partition of the offsets topic to the transaction.

use forebay_coordinator::host::CoordinatorKind;
use forebay_coordinator::machine::Producer;
use forebay_coordinator::machine::txn::{AddPartitions, Answer, Request};
use forebay_types::{ProducerEpoch, ProducerId};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: AddOffsetsToTxnRequest = call.decode()?;
    let code = add(context, &request, call.version()).await;
    call.answer(&AddOffsetsToTxnResponse::default().with_error_code(code.code()))
}

async fn add(context: &Context, request: &AddOffsetsToTxnRequest, version: i16) -> ErrorCode {
    let (Ok(id), Ok(epoch)) = (ProducerId::new(request.producer_id.0), ProducerEpoch::new(request.producer_epoch))
    else {
        return ErrorCode::InvalidProducerIdMapping;
    };
    if let Err(error) = context.coordinators.prepare(CoordinatorKind::Group).await {
        return errors::coordinator::coordinator(error);
    }
    let add = AddPartitions {
        transactional_id: request.transactional_id.as_str().to_owned(),
        producer: Producer { id, epoch },
        partitions: vec![context.coordinators.offsets_of(request.group_id.as_str())],
        version,
    };
    match context.coordinators.txn(Request::AddPartitions(add)).await {
        Ok(Answer::AddPartitions(result)) => result.map_or_else(errors::coordinator::txn, |()| ErrorCode::None),
        Ok(other) => unreachable!("it is answered as itself, not with {other:?}"),
        Err(error) => errors::coordinator::coordinator(error),
    }
}
