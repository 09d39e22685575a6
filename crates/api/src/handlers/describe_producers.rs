//! DescribeProducers, key 61, version 0. KIP-664. Finds hanging transactions; Flink looks for its own by it.

use std::collections::BTreeSet;

use forebay_log::ProducerDescription;
use forebay_types::Offset;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use forebay_wire::kafka::messages::{DescribeProducersRequest, DescribeProducersResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::{self, Topic, text};

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DescribeProducersRequest = call.decode()?;
    let mut seen = BTreeSet::new();
    let topics = request.topics.iter().map(|topic| {
        let open = lookup::by_name(context, &topic.name);
        let partitions = topic.partition_indexes.iter().map(|index| {
            // Answers may be much longer than questions: each is given once.
            answer(&open, *index, seen.insert((topic.name.as_str(), *index)))
        });
        TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    call.answer(&DescribeProducersResponse::default().with_topics(topics.collect()))
}

fn answer(topic: &Topic, index: i32, once: bool) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index).with_error_message(None);
    let described = if once { describe(topic, index) } else { Err(ErrorCode::InvalidRequest) };
    match described {
        Ok(producers) => response.with_active_producers(producers.iter().map(producer).collect()),
        Err(code) => response.with_error_code(code.code()).with_error_message(Some(text(code.name()))),
    }
}

fn describe(topic: &Topic, index: i32) -> Result<Vec<ProducerDescription>, ErrorCode> {
    lookup::partition(topic, index)?.describe_producers().map_err(|error| errors::log(&error))
}

fn producer(described: &ProducerDescription) -> ProducerState {
    ProducerState::default()
        .with_producer_id(described.id.get().into())
        .with_producer_epoch(i32::from(described.epoch.get()))
        .with_last_sequence(described.last_sequence)
        .with_last_timestamp(described.last_timestamp.as_millis())
        .with_coordinator_epoch(described.coordinator_epoch.unwrap_or(-1))
        .with_current_txn_start_offset(described.open_txn.map_or(-1, Offset::get))
}
