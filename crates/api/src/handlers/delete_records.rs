//! DeleteRecords, key 21, versions 0 to 2. KIP-107.
//!
//! The low watermark is answered once the new log start is durable in the metadata. Records that a pin holds are not
//! deleted: POLICY_VIOLATION (D10).
//!
//! Differs from Kafka: there are no replicas to wait for, so `timeout.ms` is not looked at.

use forebay_log::{OpenTopic, Partition};
use forebay_metadata::Command;
use forebay_metadata::command::AdvanceReason;
use forebay_types::Offset;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::delete_records_request::DeleteRecordsPartition;
use forebay_wire::kafka::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use forebay_wire::kafka::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::counters::OffsetApi;
use crate::errors::{self, Refused};
use crate::handlers::create_topics::SUBMITS_IN_FLIGHT_MAX;
use crate::handlers::in_order;
use crate::lookup::{self, Topic};
use crate::out_of_range::Asker;

/// Everything that readers may see.
const HIGH_WATERMARK: i64 = -1;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DeleteRecordsRequest = call.decode()?;
    let asker = Asker::new(context, &call, OffsetApi::DeleteRecords);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let open = lookup::by_name(context, &topic.name);
        let each = topic.partitions.iter().map(|asked| answer(asker, &open, asked));
        let partitions = in_order(each.collect(), SUBMITS_IN_FLIGHT_MAX).await;
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    call.answer(&DeleteRecordsResponse::default().with_topics(topics))
}

async fn answer(asker: Asker<'_>, topic: &Topic, asked: &DeleteRecordsPartition) -> DeleteRecordsPartitionResult {
    let response = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
    match delete(asker, topic, asked).await {
        Ok(low_watermark) => response.with_low_watermark(low_watermark.get()),
        Err(code) => response.with_error_code(code.code()).with_low_watermark(-1),
    }
}

async fn delete(asker: Asker<'_>, topic: &Topic, asked: &DeleteRecordsPartition) -> Result<Offset, ErrorCode> {
    let partition = lookup::partition(topic, asked.partition_index)?;
    let topic = topic.as_ref().map_err(|code| *code)?;
    check_topic(topic)?;
    let offsets = partition.offsets().map_err(|error| errors::log(&error))?;
    let to = match asked.offset {
        HIGH_WATERMARK => Some(offsets.high_watermark),
        offset => Offset::new(offset).ok().filter(|to| *to <= offsets.high_watermark),
    };
    let Some(to) = to else {
        let held = offsets.log_start..=offsets.high_watermark;
        return Err(asker.out_of_range(topic, &partition, asked.offset, held));
    };
    if to <= offsets.log_start {
        return Ok(offsets.log_start);
    }
    let to = if asker.context().sabotage_cut_too_far { offsets.high_watermark } else { to };
    advance(asker.context(), &partition, to).await
}

fn check_topic(topic: &OpenTopic) -> Result<(), ErrorCode> {
    if topic.row.internal {
        return Err(ErrorCode::InvalidTopicException);
    }
    if topic.config.cleanup.delete { Ok(()) } else { Err(ErrorCode::PolicyViolation) }
}

async fn advance(context: &Context, partition: &Partition, to: Offset) -> Result<Offset, ErrorCode> {
    let command = Command::AdvanceLogStart {
        life: context.life,
        partition: partition.id(),
        leader_epoch: partition.leader_epoch(),
        to,
        reason: AdvanceReason::Request,
        now: context.env.now(),
    };
    let reply = context.metadata.submit(command).await.map_err(|error| {
        let refused = Refused::from(error);
        tracing::info!(partition = %partition.id(), %to, error = refused.message, "records were not deleted");
        refused.code
    })?;
    let log_start = reply.into_log_start().log_start;
    partition.advance_log_start(log_start);
    Ok(log_start)
}
