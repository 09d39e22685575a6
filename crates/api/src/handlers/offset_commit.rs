//! OffsetCommit, key 8, versions 2 to 9. KIP-211 (retention), KIP-320 (leader epoch), KIP-345 (static members).
//!
//! A generation of -1 without a member is who keeps offsets here and no more, as Flink's source does.
//!
//! Differs from Kafka: an offset is for the topic that has the name now, not for a later one of the same name.

use forebay_coordinator::machine::group::{Caller, Commit, CommitPartition, Reply as GroupReply, Request};
use forebay_wire::kafka::messages::offset_commit_request::OffsetCommitRequestPartition;
use forebay_wire::kafka::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use forebay_wire::kafka::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::handlers::committed::Sorted;
use crate::lookup::text;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: OffsetCommitRequest = call.decode()?;
    let topics = request.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions.iter().map(partition)));
    let sorted = Sorted::new(context, topics);
    let outcome = if sorted.known.is_empty() {
        Ok(Vec::new())
    } else {
        let commit = Commit {
            group: request.group_id.as_str().to_owned(),
            caller: Caller {
                member_id: request.member_id.as_str().to_owned(),
                instance_id: request.group_instance_id.as_deref().map(str::to_owned),
                generation: request.generation_id_or_member_epoch,
            },
            retention_ms: Some(request.retention_time_ms).filter(|ms| *ms >= 0),
            topics: sorted.known.clone(),
        };
        match context.coordinators.group(Request::Commit(commit)).await {
            Ok(GroupReply::Commit(result)) => result.map_err(errors::coordinator::group),
            Ok(other) => unreachable!("a commit is answered as one, not with {other:?}"),
            Err(error) => Err(errors::coordinator::coordinator(error)),
        }
    };
    let topics = sorted.answer(&outcome).into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, code)| {
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code.code())
        });
        OffsetCommitResponseTopic::default().with_name(text(name).into()).with_partitions(partitions.collect())
    });
    call.answer(&OffsetCommitResponse::default().with_topics(topics.collect()))
}

fn partition(asked: &OffsetCommitRequestPartition) -> CommitPartition {
    CommitPartition {
        index: asked.partition_index,
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: asked.committed_metadata.as_deref().unwrap_or_default().to_owned(),
    }
}
