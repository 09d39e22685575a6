//! Bringing a topic back from the trash. Kafka has no request for it, so it is asked for over the admin address.

use std::time::Duration;

use axum::http::StatusCode;
use forebay_api::Context;
use forebay_metadata::service::{ErrorKind, TopicRow};
use forebay_metadata::state::TopicState;
use forebay_metadata::{Command, SubmitError};
use forebay_types::{Timestamp, TopicName};

/// Names of the trash that an answer shows.
const SHOWN_MAX: usize = 20;

/// How long the answer waits for the topic to be served again.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);

/// Makes the topic of that name live again; of several in the trash, the one that was deleted last. Asking again for one
/// that is live finds none in the trash.
pub(crate) async fn undelete(context: &Context, name: &str) -> (StatusCode, String) {
    let Ok(name) = TopicName::new(name) else { return (StatusCode::NOT_FOUND, format!("{name:?} is no topic name")) };
    let trash = context.metadata.topics().trash();
    let Some(topic) = trash.iter().filter(|row| row.name == name).max_by_key(|row| deleted_at(row)) else {
        let mut names: Vec<&str> = trash.iter().map(|row| row.name.as_str()).take(SHOWN_MAX).collect();
        names.sort_unstable();
        let holds = if names.is_empty() { "it is empty".to_owned() } else { format!("it has {}", names.join(", ")) };
        return (StatusCode::NOT_FOUND, holds);
    };
    match context.metadata.submit(Command::UndeleteTopic { topic: topic.id }).await {
        Ok(_) => {
            tracing::info!(topic = %name, id = %topic.id, "brought back from the trash");
            // Clients meet a topic that is still being opened with patience, so this need not be certain.
            context.env.timeout(OPEN_TIME_MAX, context.partitions.caught_up(&*context.metadata)).await;
            (StatusCode::OK, String::new())
        }
        Err(SubmitError::Refused(refusal)) => (StatusCode::CONFLICT, refusal.to_string()),
        Err(error) => {
            let again = if error.kind() == ErrorKind::Retry { "; ask again" } else { "" };
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}{again}"))
        }
    }
}

fn deleted_at(row: &TopicRow) -> Option<Timestamp> {
    match row.state {
        TopicState::Trash { deleted_at, .. } => Some(deleted_at),
        TopicState::Live | TopicState::Purging => None,
    }
}
