//! What the clients do. Each runs on a host of its own, writes down what it sees, and goes on until its time is over.

mod group;
mod idempotent;
mod janitor;
mod reader;
mod transactional;
mod undelete;
mod watcher;

use std::time::Duration;

use forebay_client::{Admin, Client, ClientConfig, NewTopic, Partition};
use forebay_env::simulated::SimRandom;
use forebay_env::{Env, Instant};
use forebay_types::{PartitionIndex, TopicName};
use tokio::sync::watch;

use crate::broker;
use crate::history::{History, Leave, Place};
use crate::machine::BrokerClocks;
use crate::plan::Plan;

pub use group::group_member;
pub use idempotent::idempotent_producer;
pub use janitor::janitor;
pub use reader::{Audit, audit, reader};
pub use transactional::transactional_producer;
pub use watcher::watcher;

/// Partitions of each shared topic: enough that transactions span some, few enough that they meet.
pub const PARTITIONS: u32 = 3;

/// The topics that most clients share.
pub const SHARED: [&str; 2] = ["plain", "transactions"];

/// Of the topic whose records expire.
const RETENTION_MS: i64 = 1_500;

/// Clients that give an answer up soon ask again over another connection, and meet what became of their first question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(20);

/// One client's tools.
pub struct Worker {
    pub env: Env,
    pub client: Client,
    pub history: History,
    pub random: SimRandom,
    /// When to stop.
    pub until: Instant,
    /// See [`Plan::cuts`].
    pub cuts: bool,
    pub clocks: BrokerClocks,
    /// Which of [`broker::HOSTS`] shall run the broker.
    pub appointed: watch::Receiver<usize>,
}

impl Worker {
    pub fn new(
        env: Env,
        plan: &Plan,
        history: History,
        seed: u64,
        clocks: BrokerClocks,
        appointed: watch::Receiver<usize>,
    ) -> Self {
        let config = ClientConfig {
            answer_limit: ANSWER_LIMIT,
            deadline: DEADLINE,
            ..ClientConfig::new(&broker::bootstrap(plan))
        };
        let client = Client::new(env.clone(), config);
        let until = env.monotonic() + plan.lasts;
        Self { env, client, history, random: SimRandom::new(seed), until, cuts: plan.cuts, clocks, appointed }
    }

    pub fn is_over(&self) -> bool {
        self.env.monotonic() >= self.until
    }

    /// A pause of up to `millis`.
    pub async fn pause(&self, millis: u64) {
        self.env.sleep(Duration::from_millis(1 + self.random.below(millis))).await;
    }

    /// Sees to it that a shared topic exists, however long that takes.
    pub async fn topic(&self, name: &str) -> TopicName {
        let topic = NewTopic::new(TopicName::new(name).expect("a legal name"), PARTITIONS);
        while !self.create(&topic).await {}
        topic.name
    }

    /// Sees to it that the topic exists whose records expire, with one partition.
    pub async fn expiring_topic(&self) -> TopicName {
        let name = TopicName::new("expiring").expect("a legal name");
        let configs = vec![("retention.ms".to_owned(), RETENTION_MS.to_string())];
        let topic = NewTopic { configs, ..NewTopic::new(name, 1) };
        self.history.leaving(&topic.name, Leave::Older(RETENTION_MS));
        while !self.create(&topic).await {}
        topic.name
    }

    /// Tries once to see to it that a topic exists; whether it does.
    pub async fn create(&self, topic: &NewTopic) -> bool {
        // Whoever comes first creates it; the others are told that it is there.
        let _ = Admin::new(&self.client).create_topic(topic).await;
        let found = self.client.partitions(&topic.name).await;
        if found.is_ok_and(|found| Some(found.len()) == topic.partitions.map(|count| count as usize)) {
            return true;
        }
        self.pause(200).await;
        false
    }

    pub fn any_partition(&self, topic: &TopicName) -> Partition {
        partition(topic, self.random.below(u64::from(PARTITIONS)))
    }
}

pub fn partition(topic: &TopicName, index: u64) -> Partition {
    let index = i32::try_from(index).ok().and_then(|index| PartitionIndex::new(index).ok()).expect("a small number");
    Partition { topic: topic.clone(), index }
}

pub fn place(partition: &Partition) -> Place {
    (partition.topic.clone(), partition.index.get())
}
