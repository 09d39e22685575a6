//! ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use forebay_wire::kafka::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use forebay_wire::kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use forebay_wire::kafka::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use forebay_wire::kafka::messages::{DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use forebay_wire::kafka::protocol::StrBytes;

use crate::script::{Step, check, code};
use crate::world::World;

pub async fn offsets(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (topic, index) = step.partition();
    let version = step.version(9);
    let mut partition = ListOffsetsPartition::default()
        .with_partition_index(index)
        .with_timestamp(step.word(2).parse().expect("a timestamp"));
    if version >= 4 {
        partition.current_leader_epoch = step.number("epoch", -1);
    }
    let partitions = vec![partition; if step.has("twice") { 2 } else { 1 }];
    let topic = ListOffsetsTopic::default()
        .with_name(StrBytes::from_string(topic.to_owned()).into())
        .with_partitions(partitions);
    let mut request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    if version >= 2 {
        request.isolation_level = i8::from(step.has("committed"));
    }
    let response = world.call(version, &request).await?;
    let shown = response.topics[0].partitions.iter().map(|found| match found.error_code {
        0 => format!("offset={} time={} epoch={}", found.offset, found.timestamp, found.leader_epoch),
        error => {
            assert_eq!((found.offset, found.timestamp), (-1, -1), "no offset is told with an error");
            code(error).to_owned()
        }
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

pub async fn epoch(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (topic, index) = step.partition();
    let partition = OffsetForLeaderPartition::default()
        .with_partition(index)
        .with_current_leader_epoch(step.number("current", -1))
        .with_leader_epoch(step.word(2).parse().expect("an epoch"));
    let topic = OffsetForLeaderTopic::default()
        .with_topic(StrBytes::from_string(topic.to_owned()).into())
        .with_partitions(vec![partition]);
    let response =
        world.call(step.version(4), &OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await?;
    let found = &response.topics[0].partitions[0];
    Ok(match found.error_code {
        0 => format!("epoch={} end={}", found.leader_epoch, found.end_offset),
        error => code(error).to_owned(),
    })
}

pub async fn trim(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (topic, index) = step.partition();
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(index)
        .with_offset(step.word(2).parse().expect("an offset"));
    let topic = DeleteRecordsTopic::default()
        .with_name(StrBytes::from_string(topic.to_owned()).into())
        .with_partitions(vec![partition]);
    let response = world.call(step.version(2), &DeleteRecordsRequest::default().with_topics(vec![topic])).await?;
    let deleted = &response.topics[0].partitions[0];
    Ok(match deleted.error_code {
        0 => format!("low={}", deleted.low_watermark),
        error => code(error).to_owned(),
    })
}

/// Ends, starts and records by time, each with its own time; nothing found is no error and not offset 0 (16, 17).
#[tokio::test(start_paused = true)]
async fn offsets_by_time() {
    check(
        "create a -> NONE
         offsets a/0 -1 -> offset=0 time=-1 epoch=0
         offsets a/0 -3 -> offset=-1 time=-1 epoch=-1
         offsets a/0 0 -> offset=-1 time=-1 epoch=-1
         produce a/0 p,q,r time=10,30,20 -> base=0
         produce a/0 s,t time=25,40 -> base=3
         offsets a/0 -1 -> offset=5 time=-1 epoch=0
         offsets a/0 -2 -> offset=0 time=-1 epoch=0
         offsets a/0 -3 -> offset=4 time=40 epoch=0
         offsets a/0 -4 -> offset=0 time=-1 epoch=0
         offsets a/0 -5 -> offset=-1 time=-1 epoch=-1
         offsets a/0 0 -> offset=0 time=10 epoch=0
         offsets a/0 11 -> offset=1 time=30 epoch=0
         offsets a/0 31 v=1 -> offset=4 time=40 epoch=-1
         offsets a/0 41 -> offset=-1 time=-1 epoch=-1
         # what a version does not know
         offsets a/0 -3 v=6 -> UNSUPPORTED_VERSION
         offsets a/0 -4 v=7 -> UNSUPPORTED_VERSION
         offsets a/0 -5 v=8 -> UNSUPPORTED_VERSION
         offsets a/0 -6 -> UNSUPPORTED_VERSION
         offsets a/0 -1 twice -> offset=5 time=-1 epoch=0, INVALID_REQUEST
         offsets a/1 -1 -> UNKNOWN_TOPIC_OR_PARTITION
         offsets nowhere/0 -1 -> UNKNOWN_TOPIC_OR_PARTITION
         # below the log start there is nothing, wherever the records are
         trim a/0 2 -> low=2
         offsets a/0 0 -> offset=2 time=20 epoch=0
         offsets a/0 -2 -> offset=2 time=-1 epoch=0
         restart -> started
         offsets a/0 0 -> offset=2 time=20 epoch=0
         offsets a/0 -3 -> offset=4 time=40 epoch=0
         offsets a/0 -1 -> offset=5 time=-1 epoch=1",
    )
    .await;
}

/// `read_committed` sees as far as the first open transaction.
#[tokio::test(start_paused = true)]
async fn offsets_by_isolation() {
    check(
        "create a -> NONE
         produce a/0 x time=10 -> base=0
         init good -> id=0 epoch=0
         enlist good a/0 id=0 -> NONE
         produce a/0 y id=0 seq=0 txn=good time=20 -> base=1
         offsets a/0 -1 -> offset=2 time=-1 epoch=0
         offsets a/0 -1 committed -> offset=1 time=-1 epoch=0
         offsets a/0 15 committed -> offset=-1 time=-1 epoch=-1
         offsets a/0 15 -> offset=1 time=20 epoch=0
         marker a/0 commit id=0 -> base=2
         offsets a/0 15 committed -> offset=1 time=20 epoch=0
         offsets a/0 -1 committed -> offset=3 time=-1 epoch=0",
    )
    .await;
}

/// Each restart is a new leader epoch; an epoch ends where the next begins, or at the end; a future one is unknown (19).
#[tokio::test(start_paused = true)]
async fn leader_epochs_end_where_the_next_begins() {
    check(
        "create a -> NONE
         produce a/0 x,y -> base=0
         epoch a/0 0 -> epoch=0 end=2
         restart -> started
         produce a/0 z -> base=2
         restart -> started
         epoch a/0 0 current=2 -> epoch=0 end=2
         epoch a/0 1 -> epoch=1 end=3
         epoch a/0 2 v=2 -> epoch=2 end=3
         epoch a/0 3 -> epoch=-1 end=-1
         epoch a/0 -1 -> epoch=-1 end=-1
         epoch a/0 0 current=1 -> FENCED_LEADER_EPOCH
         epoch a/0 0 current=3 -> UNKNOWN_LEADER_EPOCH
         epoch a/9 0 -> UNKNOWN_TOPIC_OR_PARTITION
         offsets a/0 -1 epoch=1 -> FENCED_LEADER_EPOCH
         offsets a/0 -1 epoch=3 -> UNKNOWN_LEADER_EPOCH
         offsets a/0 -1 epoch=2 -> offset=3 time=-1 epoch=2
         offsets a/0 -2 -> offset=0 time=-1 epoch=0",
    )
    .await;
}

/// The log start only rises, to the high watermark at most, by records that may be deleted, and survives (18, D10).
#[tokio::test(start_paused = true)]
async fn records_are_deleted_up_to_what_may_go() {
    check(
        "create a -> NONE
         create compacted cleanup.policy=compact -> NONE
         produce a/0 x,y,z -> base=0
         trim a/0 4 -> OFFSET_OUT_OF_RANGE
         trim a/0 -2 -> OFFSET_OUT_OF_RANGE
         trim a/0 1 v=0 -> low=1
         trim a/0 0 -> low=1
         pin a/0 2 -> pin 1
         trim a/0 -1 -> POLICY_VIOLATION
         trim a/0 2 -> low=2
         restart -> started
         offsets a/0 -2 -> offset=2 time=-1 epoch=0
         trim compacted/0 0 -> POLICY_VIOLATION
         trim nowhere/0 0 -> UNKNOWN_TOPIC_OR_PARTITION
         create b -> NONE
         produce b/0 x,y -> base=0
         trim b/0 -1 -> low=2
         fetch b/0 2 -> hw=2 lso=2 start=2
         # a pinned topic is not deleted
         delete a -> POLICY_VIOLATION: pin 1 holds ID-0 from offset 2",
    )
    .await;
}
