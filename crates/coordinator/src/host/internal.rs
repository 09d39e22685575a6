//! The internal topics: created when a coordinator is first needed, as in Kafka.
//!
//! Source: Kafka's `AutoTopicCreationManager`, `TransactionStateManager.transactionTopicConfigs`.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use forebay_format::CoordinatorKind;
use forebay_metadata::{Command, Refusal, SubmitError};
use forebay_types::{TopicId, TopicName};

use super::{CoordinatorError, HostConfig, Shared};

static OFFSETS: LazyLock<TopicName> = LazyLock::new(|| topic("__consumer_offsets"));
static TRANSACTIONS: LazyLock<TopicName> = LazyLock::new(|| topic("__transaction_state"));

/// How long a request waits for a new topic's partitions.
const OPEN_TIME_MAX: Duration = Duration::from_secs(10);

/// What Kafka sets on them; all else is the broker's default.
const CONFIG: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")];

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("Kafka's own names are legal")
}

pub(super) fn name(kind: CoordinatorKind) -> &'static TopicName {
    match kind {
        CoordinatorKind::Group => &OFFSETS,
        CoordinatorKind::Transaction => &TRANSACTIONS,
    }
}

/// How many partitions the topic is created with.
pub(super) fn partitions(kind: CoordinatorKind, config: &HostConfig) -> i32 {
    match kind {
        CoordinatorKind::Group => config.offsets_partitions,
        CoordinatorKind::Transaction => config.txn_partitions,
    }
}

/// Sees to it that the topics are there.
#[derive(Default)]
pub(super) struct InternalTopics {
    /// One creates, the others wait for it.
    creating: tokio::sync::Mutex<()>,
}

impl InternalTopics {
    pub async fn ensure(&self, shared: &Arc<Shared>, kind: CoordinatorKind) -> Result<(), CoordinatorError> {
        if shared.topic(kind).is_some() {
            return Ok(());
        }
        let _creating = self.creating.lock().await;
        if shared.metadata.topics().by_name(name(kind)).is_none() {
            create(shared, kind).await?;
        }
        shared.env.timeout(OPEN_TIME_MAX, shared.partitions.caught_up(&*shared.metadata)).await;
        if shared.topic(kind).is_some() { Ok(()) } else { Err(CoordinatorError::Unavailable) }
    }
}

async fn create(shared: &Shared, kind: CoordinatorKind) -> Result<(), CoordinatorError> {
    let mut id = [0; 16];
    shared.env.fill_random(&mut id);
    let command = Command::CreateTopic {
        name: name(kind).clone(),
        id: TopicId::from_random(id),
        partitions: partitions(kind, &shared.config),
        config: CONFIG.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        now: shared.env.now(),
    };
    match shared.metadata.submit(command).await {
        Ok(_) | Err(SubmitError::Refused(Refusal::TopicExists { .. })) => Ok(()),
        Err(error) => {
            tracing::warn!(topic = %name(kind), error = &error as &dyn std::error::Error, "could not create a coordinators' topic");
            Err(CoordinatorError::Unavailable)
        }
    }
}
