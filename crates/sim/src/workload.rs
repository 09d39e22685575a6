//! What the clients do. Each runs on a host of its own, writes down what it sees, and goes on until its time is over.

mod group;
mod idempotent;
mod reader;
mod transactional;

use std::time::Duration;

use forebay_client::{Admin, Client, ClientConfig, NewTopic, Partition};
use forebay_env::simulated::SimRandom;
use forebay_env::{Env, Instant};
use forebay_types::{PartitionIndex, TopicName};

use crate::history::{History, Place};

pub use group::group_member;
pub use idempotent::idempotent_producer;
pub use reader::{Audit, audit, reader};
pub use transactional::transactional_producer;

/// Where clients find the broker.
pub const BOOTSTRAP: &str = "broker:9092";

/// Partitions of each topic: enough that transactions span some, few enough that they meet.
pub const PARTITIONS: u32 = 3;

/// One client's tools.
pub struct Worker {
    pub env: Env,
    pub client: Client,
    pub history: History,
    pub random: SimRandom,
    /// When to stop.
    pub until: Instant,
}

impl Worker {
    pub fn new(env: Env, history: History, seed: u64, lasts: Duration) -> Self {
        let client = Client::new(env.clone(), ClientConfig::new(BOOTSTRAP));
        let until = env.monotonic() + lasts;
        Self { env, client, history, random: SimRandom::new(seed), until }
    }

    pub fn is_over(&self) -> bool {
        self.env.monotonic() >= self.until
    }

    /// A pause of up to `millis`.
    pub async fn pause(&self, millis: u64) {
        self.env.sleep(Duration::from_millis(1 + self.random.below(millis))).await;
    }

    /// Sees to it that a topic exists, however long that takes.
    pub async fn topic(&self, name: &str) -> TopicName {
        let name = TopicName::new(name).expect("a legal name");
        let admin = Admin::new(&self.client);
        loop {
            let topic = NewTopic::new(name.clone(), PARTITIONS);
            // Whoever comes first creates it; the others are told that it is there.
            let _ = admin.create_topic(&topic).await;
            if self.client.partitions(&name).await.is_ok_and(|found| found.len() == PARTITIONS as usize) {
                return name;
            }
            self.pause(200).await;
        }
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
