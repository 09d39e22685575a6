//! Brokers that clients and benchmarks run against: ours from the release binary, Apache Kafka from its jars.

mod broker;
mod kafka;

pub use broker::{Broker, End, Wal};
pub use kafka::Jars;
