//! DeleteTopics, key 20, versions 1 to 6. KIP-516 (by id), KIP-599 (messages).
//!
//! A deleted topic is gone for clients at once, and stays in the trash for `forebay.topic.trash.ms`. A topic whose
//! history a pin holds is not deleted: POLICY_VIOLATION (D10).
//!
//! Differs from Kafka: the coordinators' topics are not deleted on request.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_metadata::Command;
use forebay_metadata::service::TopicRow;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::delete_topics_request::DeleteTopicState;
use forebay_wire::kafka::messages::delete_topics_response::DeletableTopicResult;
use forebay_wire::kafka::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors::Refused;
use crate::handlers::create_topics::SUBMITS_IN_FLIGHT_MAX;
use crate::handlers::in_order;
use crate::lookup::{self, text};

/// The first version that names topics by state: a name or an id.
const STATE_VERSION: i16 = 6;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DeleteTopicsRequest = call.decode()?;
    let asked: Vec<DeleteTopicState> = if call.version() >= STATE_VERSION {
        request.topics
    } else {
        let named = |name| DeleteTopicState::default().with_name(Some(name));
        request.topic_names.into_iter().map(named).collect()
    };
    let mut times = BTreeMap::new();
    for topic in &asked {
        *times.entry(key(topic)).or_insert(0) += 1;
    }
    let delete = |topic: DeleteTopicState| {
        let once = times[&key(&topic)] == 1;
        async move {
            let deleted =
                if once { delete_one(context, &topic).await } else { Err(Refused::invalid("Duplicate topic.")) };
            answer(context, &topic, deleted)
        }
    };
    let responses = in_order(asked.iter().cloned().map(delete).collect(), SUBMITS_IN_FLIGHT_MAX).await;
    context.caught_up().await;
    call.answer(&DeleteTopicsResponse::default().with_responses(responses))
}

fn key(topic: &DeleteTopicState) -> (Option<String>, uuid::Uuid) {
    (topic.name.as_ref().map(|name| name.to_string()), topic.topic_id)
}

fn find(context: &Context, asked: &DeleteTopicState) -> Result<Arc<TopicRow>, Refused> {
    match &asked.name {
        Some(_) if !asked.topic_id.is_nil() => {
            Err(Refused::invalid("You may not specify both topic name and topic id."))
        }
        Some(name) => lookup::row(context, name).ok_or_else(Refused::unknown_topic),
        None if asked.topic_id.is_nil() => Err(Refused::invalid("Neither topic name nor id were specified.")),
        None => lookup::row_by_id(context, asked.topic_id)
            .ok_or_else(|| Refused::new(ErrorCode::UnknownTopicId, "This server does not host this topic ID.")),
    }
}

async fn delete_one(context: &Context, asked: &DeleteTopicState) -> Result<Arc<TopicRow>, Refused> {
    let row = find(context, asked)?;
    if row.internal {
        let message = format!("{} belongs to the coordinators and is not deleted", row.name);
        return Err(Refused::new(ErrorCode::PolicyViolation, message));
    }
    let command =
        Command::DeleteTopic { topic: row.id, now: context.env.now(), trash_ms: context.config.topic_trash_ms() };
    let deleted = context.metadata.submit(command).await?.into_topic_deleted();
    tracing::info!(topic = %row.name, id = %row.id, purge_at = %deleted.purge_at, "a topic was deleted, to the trash");
    Ok(row)
}

/// Name and id are both told where both are known.
fn answer(
    context: &Context,
    asked: &DeleteTopicState,
    deleted: Result<Arc<TopicRow>, Refused>,
) -> DeletableTopicResult {
    let response = DeletableTopicResult::default().with_error_message(None);
    match deleted {
        Ok(row) => response.with_name(Some(text(row.name.as_str()).into())).with_topic_id(row.id.get()),
        Err(Refused { code, message }) => {
            let by_id = || lookup::row_by_id(context, asked.topic_id).map(|row| text(row.name.as_str()).into());
            let name = asked.name.clone().or_else(by_id);
            response
                .with_name(name)
                .with_topic_id(asked.topic_id)
                .with_error_code(code.code())
                .with_error_message(Some(text(message)))
        }
    }
}
