//! ListOffsets, key 2, versions 1 to 9. KIP-79 (timestamps), KIP-98 (isolation), KIP-207 (not available), KIP-320 (epochs),
//! KIP-734 (maximum timestamp), KIP-405 and KIP-1005 (local and tiered).
//!
//! What is not known is never answered with offset 0 (semantic 17): a partition that is not open here gives a code to
//! try again on. A timestamp's answer is the record's own time (semantic 16).
//!
//! Differs from Kafka: all history is in one place, so the earliest local offset is the earliest, and there is no last
//! tiered one (-1, as in Kafka without tiered storage).

use std::collections::BTreeSet;

use forebay_log::{Isolation, Partition, TimestampedOffset};
use forebay_types::{Offset, Timestamp};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::list_offsets_request::ListOffsetsPartition;
use forebay_wire::kafka::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use forebay_wire::kafka::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::handlers::in_order;
use crate::lookup::{self, Topic};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The first version that carries leader epochs.
const EPOCH_VERSION: i16 = 4;

/// Partitions of one request that are searched at once: each may read an object of the bucket.
const SEARCHES_IN_FLIGHT_MAX: usize = 16;

#[derive(Clone, Copy)]
struct Terms {
    version: i16,
    isolation: Isolation,
}

/// What is answered for a partition without a fault.
struct Found {
    offset: i64,
    timestamp: i64,
    epoch: i32,
}

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: ListOffsetsRequest = call.decode()?;
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let terms = Terms { version: call.version(), isolation };
    let mut seen = BTreeSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let open = lookup::by_name(context, &topic.name);
        let once: Vec<bool> =
            topic.partitions.iter().map(|p| seen.insert((topic.name.as_str(), p.partition_index))).collect();
        let each = topic.partitions.iter().zip(once).map(|(asked, once)| answer(&open, asked, once, terms));
        let partitions = in_order(each.collect(), SEARCHES_IN_FLIGHT_MAX).await;
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    call.answer(&ListOffsetsResponse::default().with_topics(topics))
}

async fn answer(topic: &Topic, asked: &ListOffsetsPartition, once: bool, terms: Terms) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    let found = if once { find(topic, asked, terms).await } else { Err(ErrorCode::InvalidRequest) };
    match found {
        Err(code) => response.with_error_code(code.code()),
        Ok(found) => response
            .with_offset(found.offset)
            .with_timestamp(found.timestamp)
            .with_leader_epoch(if terms.version >= EPOCH_VERSION { found.epoch } else { -1 }),
    }
}

async fn find(topic: &Topic, asked: &ListOffsetsPartition, terms: Terms) -> Result<Found, ErrorCode> {
    check_timestamp(asked.timestamp, terms.version)?;
    let partition = lookup::partition(topic, asked.partition_index)?;
    errors::check_leader_epoch(asked.current_leader_epoch, partition.leader_epoch())?;
    let offsets = partition.offsets().map_err(|error| errors::log(&error))?;
    let at = |offset: Offset, epoch| Found { offset: offset.get(), timestamp: -1, epoch };
    Ok(match asked.timestamp {
        LATEST => at(offsets.end(terms.isolation), partition.leader_epoch().get()),
        EARLIEST | EARLIEST_LOCAL => at(offsets.log_start, partition.epoch_of(offsets.log_start).get()),
        LATEST_TIERED => NOTHING,
        MAX_TIMESTAMP => {
            let found = partition.max_timestamp().await.map_err(|error| errors::log(&error))?;
            found.map_or(NOTHING, |found| record(&partition, found))
        }
        time => {
            let found = partition.offset_for_timestamp(Timestamp::from_millis(time), terms.isolation).await;
            found.map_err(|error| errors::log(&error))?.map_or(NOTHING, |found| record(&partition, found))
        }
    })
}

/// No record: not an error, and not offset 0.
const NOTHING: Found = Found { offset: -1, timestamp: -1, epoch: -1 };

fn record(partition: &Partition, found: TimestampedOffset) -> Found {
    let epoch = partition.epoch_of(found.offset).get();
    Found { offset: found.offset.get(), timestamp: found.timestamp.as_millis(), epoch }
}

/// Whether the version knows what a negative timestamp stands for.
fn check_timestamp(timestamp: i64, version: i16) -> Result<(), ErrorCode> {
    let since = match timestamp {
        0.. | LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    if version < since { Err(ErrorCode::UnsupportedVersion) } else { Ok(()) }
}
