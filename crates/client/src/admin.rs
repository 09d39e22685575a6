//! The calls that look after a cluster: topics, configs, groups, offsets, transactions, brokers.
//!
//! Owns: one method for each task, its request in the version agreed on, its answer in our words. Leaves to others:
//! routing and retries (`cluster`).
//!
//! Retries: what reads or sets a state is repeated until the client's deadline; what makes or removes something
//! (topics, partitions, groups) only while it surely did not happen.

mod cluster;
mod configs;
mod groups;
pub(crate) mod offsets;
mod topics;
mod transactions;

use crate::Client;

pub use cluster::{BrokerEndpoint, ClusterDescription};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
pub use groups::{GroupDescription, GroupListing, GroupMember};
pub use offsets::{CommittedOffset, OffsetAt, PartitionOffset};
pub use topics::{NewTopic, PartitionDescription, TopicDescription};
pub use transactions::{ProducerDescription, TransactionListing};

/// A handle for admin calls. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }
}
