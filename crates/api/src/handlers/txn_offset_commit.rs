//! TxnOffsetCommit, key 28, versions 0 to 4. KIP-98, KIP-447 (fenced by member and generation), KIP-890 part 1.
//!
//! The offsets are there once the transaction has committed. They are taken only while the group's partition of the
//! offsets topic is in the producer's transaction, which its coordinator is asked once.

use forebay_coordinator::machine::Producer;
use forebay_coordinator::machine::group::{Caller, Commit, CommitPartition, TopicResults};
use forebay_types::{ProducerEpoch, ProducerId};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
use forebay_wire::kafka::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use forebay_wire::kafka::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::handlers::committed::Sorted;
use crate::lookup::text;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: TxnOffsetCommitRequest = call.decode()?;
    let topics = request.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions.iter().map(partition)));
    let sorted = Sorted::new(context, topics);
    let outcome =
        if sorted.known.is_empty() { Ok(Vec::new()) } else { commit(context, &request, &sorted, call.version()).await };
    let topics = sorted.answer(&outcome).into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, code)| {
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code.code())
        });
        TxnOffsetCommitResponseTopic::default().with_name(text(name).into()).with_partitions(partitions.collect())
    });
    call.answer(&TxnOffsetCommitResponse::default().with_topics(topics.collect()))
}

async fn commit(
    context: &Context,
    request: &TxnOffsetCommitRequest,
    sorted: &Sorted,
    version: i16,
) -> Result<Vec<TopicResults>, ErrorCode> {
    let id = ProducerId::new(request.producer_id.0).map_err(|_| ErrorCode::InvalidProducerIdMapping)?;
    let epoch = ProducerEpoch::new(request.producer_epoch).map_err(|_| ErrorCode::InvalidProducerIdMapping)?;
    let commit = Commit {
        group: request.group_id.as_str().to_owned(),
        caller: Caller {
            member_id: request.member_id.as_str().to_owned(),
            instance_id: request.group_instance_id.as_deref().map(str::to_owned),
            generation: request.generation_id,
        },
        retention_ms: None,
        topics: sorted.known.clone(),
    };
    let producer = Producer { id, epoch };
    match context.coordinators.commit_in_transaction(request.transactional_id.as_str(), producer, commit).await {
        Ok(result) => result.map_err(errors::coordinator::group),
        Err(error) => Err(errors::coordinator::txn_offset_commit(error, version)),
    }
}

fn partition(asked: &TxnOffsetCommitRequestPartition) -> CommitPartition {
    CommitPartition {
        index: asked.partition_index,
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: asked.committed_metadata.as_deref().unwrap_or_default().to_owned(),
    }
}
