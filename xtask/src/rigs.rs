//! Brokers that clients and benchmarks run against: ours from the release binary, Apache Kafka from its jars; and Apache
//! Flink, whose jobs are clients.

mod broker;
pub mod flink;
mod kafka;
mod wait;

pub use broker::{Broker, Configs, End, Wal, build};
use broker::{free_port, fresh_folder};
pub use kafka::Jars;
pub use wait::wait_for;
