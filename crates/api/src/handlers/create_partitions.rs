//! CreatePartitions, key 37, versions 0 to 3. KIP-195, KIP-599.
//!
//! Differs from Kafka: the brokers of an assignment are not looked at; the coordinators' topics keep their number, since
//! a group is found by it.

use std::collections::BTreeMap;

use forebay_metadata::Command;
use forebay_metadata::command::PARTITIONS_PER_TOPIC_MAX;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::create_partitions_request::CreatePartitionsTopic;
use forebay_wire::kafka::messages::create_partitions_response::CreatePartitionsTopicResult;
use forebay_wire::kafka::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors::Refused;
use crate::handlers::create_topics::SUBMITS_IN_FLIGHT_MAX;
use crate::handlers::in_order;
use crate::lookup::{self, text};

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: CreatePartitionsRequest = call.decode()?;
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let grow = |topic: CreatePartitionsTopic| {
        let once = times[topic.name.as_str()] == 1;
        async move {
            let grown = if once {
                grow(context, &topic, request.validate_only).await
            } else {
                Err(Refused::invalid("Duplicate topic name."))
            };
            let response = CreatePartitionsTopicResult::default().with_name(topic.name).with_error_message(None);
            match grown {
                Ok(()) => response,
                Err(Refused { code, message }) => {
                    response.with_error_code(code.code()).with_error_message(Some(text(message)))
                }
            }
        }
    };
    let results = in_order(request.topics.iter().cloned().map(grow).collect(), SUBMITS_IN_FLIGHT_MAX).await;
    if !request.validate_only {
        context.caught_up().await;
    }
    call.answer(&CreatePartitionsResponse::default().with_results(results))
}

async fn grow(context: &Context, asked: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let row = lookup::row(context, &asked.name).ok_or_else(Refused::unknown_topic)?;
    if row.internal {
        let message = format!("{} keeps its number of partitions: groups are found by it", row.name);
        return Err(Refused::new(ErrorCode::PolicyViolation, message));
    }
    let current = i32::try_from(row.partitions.len()).unwrap_or(i32::MAX);
    if asked.count <= current || asked.count > PARTITIONS_PER_TOPIC_MAX {
        let message = format!(
            "The topic {} currently has {current} partition(s); {} would not be an increase within the limit of \
             {PARTITIONS_PER_TOPIC_MAX}.",
            row.name, asked.count
        );
        return Err(Refused::new(ErrorCode::InvalidPartitions, message));
    }
    if let Some(assignments) = &asked.assignments {
        let more = usize::try_from(asked.count - current).unwrap_or(0);
        if assignments.len() != more || assignments.iter().any(|assignment| assignment.broker_ids.is_empty()) {
            let message = format!("{more} new partitions need {more} assignments, each with a broker");
            return Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if validate_only {
        return Ok(());
    }
    let command = Command::CreatePartitions { topic: row.id, partitions: asked.count };
    context.metadata.submit(command).await?;
    Ok(())
}
