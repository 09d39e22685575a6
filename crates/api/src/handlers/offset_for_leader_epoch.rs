//! OffsetForLeaderEpoch, key 23, versions 2 to 4. KIP-101, KIP-279, KIP-320.
//!
//! A client that changes leaders asks where its last epoch ended, to see whether its position lies in a branch that was
//! cut. Nothing acknowledged is ever cut here, so a wrong answer would report a loss that is none (semantic 19).

use forebay_types::LeaderEpoch;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use forebay_wire::kafka::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use forebay_wire::kafka::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::{self, Topic};

/// An epoch that is not known: epoch and offset.
const UNDEFINED: (i32, i64) = (-1, -1);

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: OffsetForLeaderEpochRequest = call.decode()?;
    let topics = request.topics.iter().map(|topic| {
        let open = lookup::by_name(context, &topic.topic);
        let partitions = topic.partitions.iter().map(|asked| answer(&open, asked));
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect())
    });
    call.answer(&OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
}

fn answer(topic: &Topic, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let response = EpochEndOffset::default().with_partition(asked.partition);
    match end(topic, asked) {
        Ok((epoch, end)) => response.with_leader_epoch(epoch).with_end_offset(end),
        Err(code) => response.with_error_code(code.code()),
    }
}

fn end(topic: &Topic, asked: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let partition = lookup::partition(topic, asked.partition)?;
    errors::check_leader_epoch(asked.current_leader_epoch, partition.leader_epoch())?;
    let Ok(epoch) = LeaderEpoch::new(asked.leader_epoch) else { return Ok(UNDEFINED) };
    let end = partition.end_offset_for_epoch(epoch).map_err(|error| errors::log(&error))?;
    Ok(end.map_or(UNDEFINED, |(epoch, end)| (epoch.get(), end.get())))
}
