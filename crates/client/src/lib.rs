//! A small Kafka client over [`forebay_env::Env`]'s network, so that it runs on a machine and in simulation alike.
//! The command line, the demo and the simulation speak through it.
//!
//! Owns: versions, connections, metadata, retries; a producer (idempotent, transactional), a consumer (assigned
//! partitions, both isolation levels), a member of a classic group, the admin calls. Leaves to others: bytes (`wire`),
//! clocks, sockets and tasks (`env`), every decision of the broker.
//!
//! Invariants:
//! 1. A request is repeated only where the broker's answer, or the lack of any byte sent, shows that it did not happen,
//!    or where repeating it changes nothing; every error says which ([`Outcome`]).
//! 2. Batches of one partition reach the broker in the order in which they were handed over.
//! 3. Nothing here grows without a bound: requests in flight, buffered bytes and answers have named limits.
//!
//! Sources: Kafka's `NetworkClient`, `Sender`, `TransactionManager`, `Fetcher`; KIP-35 (versions), KIP-98 and KIP-360
//! (producers), KIP-394 (two-step join), KIP-516 (topic ids), KIP-896 (the versions that are left).

mod admin;
mod cluster;
mod connection;
mod consumer;
mod error;
mod group;
mod kafka;
mod partitioner;
mod producer;
mod versions;

pub use admin::{
    Admin, BrokerEndpoint, ClusterDescription, CommittedOffset, ConfigChange, ConfigEntry, ConfigResource,
    ConfigSource, GroupDescription, GroupListing, GroupMember, NewTopic, OffsetAt, PartitionDescription,
    PartitionOffset, ProducerDescription, TopicDescription, TransactionListing,
};
pub use cluster::{Client, ClientConfig};
pub use consumer::{Consumer, ConsumerConfig, Fetched, FetchedRecord, Isolation, StartAt};
pub use error::{ClientError, Kind, Outcome};
pub use group::{GroupConfig, GroupConsumer};
pub use kafka::Partition;
pub use partitioner::{murmur2, partition_for_key};
pub use producer::{Ack, Delivery, GroupMembership, Producer, ProducerConfig, Record};

pub use forebay_wire::{Codec, ErrorCode};
