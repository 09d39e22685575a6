//! AddPartitionsToTxn, key 24, versions 0 to 3. KIP-98, KIP-588 (PRODUCER_FENCED). Version 4 and later are for brokers
//! among themselves.
//!
//! All or nothing: where one partition is not there, the others are OPERATION_NOT_ATTEMPTED.

use forebay_coordinator::machine::Producer;
use forebay_coordinator::machine::txn::{AddPartitions, Answer, Request, TxnPartition};
use forebay_types::{PartitionIndex, ProducerEpoch, ProducerId};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use forebay_wire::kafka::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: AddPartitionsToTxnRequest = call.decode()?;
    let topics = &request.v3_and_below_topics;
    let sorted: Vec<Vec<Result<TxnPartition, ErrorCode>>> = topics
        .iter()
        .map(|topic| topic.partitions.iter().map(|index| find(context, &topic.name, *index)).collect())
        .collect();
    let partitions: Result<Vec<TxnPartition>, ErrorCode> = sorted.iter().flatten().cloned().collect();
    let code = match partitions {
        Ok(partitions) => add(context, &request, partitions, call.version()).await,
        Err(_) => ErrorCode::OperationNotAttempted,
    };
    let results = topics.iter().zip(&sorted).map(|(topic, sorted)| {
        let partitions = topic.partitions.iter().zip(sorted).map(|(index, found)| {
            let code = found.as_ref().map_or_else(|code| *code, |_| code);
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(code.code())
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    call.answer(&AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect()))
}

fn find(context: &Context, name: &str, index: i32) -> Result<TxnPartition, ErrorCode> {
    let row = lookup::row(context, name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if row.internal {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let partition = PartitionIndex::new(index).ok().filter(|index| row.partition(*index).is_some());
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(TxnPartition { topic: row.name.clone(), topic_id: Some(row.id), partition })
}

async fn add(
    context: &Context,
    request: &AddPartitionsToTxnRequest,
    partitions: Vec<TxnPartition>,
    version: i16,
) -> ErrorCode {
    let (id, epoch) = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
    let (Ok(id), Ok(epoch)) = (ProducerId::new(id), ProducerEpoch::new(epoch)) else {
        return ErrorCode::InvalidProducerIdMapping;
    };
    let add = AddPartitions {
        transactional_id: request.v3_and_below_transactional_id.as_str().to_owned(),
        producer: Producer { id, epoch },
        partitions,
        version,
    };
    match context.coordinators.txn(Request::AddPartitions(add)).await {
        Ok(Answer::AddPartitions(result)) => result.map_or_else(errors::coordinator::txn, |()| ErrorCode::None),
        Ok(other) => unreachable!("it is answered as itself, not with {other:?}"),
        Err(error) => errors::coordinator::coordinator(error),
    }
}
