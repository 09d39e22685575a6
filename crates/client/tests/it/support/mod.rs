//! A broker for the client's tests: one node in this process, behind a network of in-memory pipes.
//!
//! It keeps real logs and checks producers' epochs and sequences as Kafka does, so that a client that repeats or
//! reorders wrongly is found out by what ends up in a log. Faults are queued by API; every request is written down.

mod answers;
mod broker;
mod state;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_client::{Client, ClientConfig, ErrorCode, Partition, Record};
use forebay_env::simulated::{SimDisk, Trace, parts};
use forebay_env::{Env, Listener, Network, Parts, Stream};
use forebay_types::{PartitionIndex, TopicName};
use forebay_wire::kafka::messages::ApiKey;
use parking_lot::Mutex;

pub use state::State;

/// What happens to the next request of an API.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Answered with this code; nothing is done.
    Refuse(ErrorCode),
    /// The connection ends; nothing is done.
    LoseRequest,
    /// Done, then the connection ends.
    LoseAnswer,
    /// Done, and never answered.
    Silence,
    /// Done, and answered under another correlation id.
    WrongId,
}

/// A broker and a client that knows it.
pub struct Rig {
    pub broker: Broker,
    pub client: Client,
}

/// Clones are one broker.
#[derive(Clone, Default)]
pub struct Broker(pub Arc<Mutex<State>>);

pub const ADDRESS: &str = "broker:9092";

impl Rig {
    /// A broker with topic `orders` of three partitions.
    pub fn new() -> Self {
        let broker = Broker::default();
        broker.0.lock().create_topic("orders", 3);
        let network = Box::new(Pipes { broker: broker.clone() });
        let env = Env::new(Parts { network, ..parts(7, &SimDisk::new(7, Trace::default())) });
        let config = ClientConfig {
            answer_limit: Duration::from_secs(5),
            deadline: Duration::from_secs(20),
            ..ClientConfig::new(ADDRESS)
        };
        Self { broker, client: Client::new(env, config) }
    }

    /// The requests of these APIs so far, in order.
    pub fn requests(&self, keys: &[ApiKey]) -> Vec<String> {
        let state = self.broker.0.lock();
        state.requests.iter().filter(|(key, _)| keys.contains(key)).map(|(_, what)| what.clone()).collect()
    }

    pub fn fault(&self, key: ApiKey, faults: &[Fault]) {
        let mut state = self.broker.0.lock();
        state.faults.entry(key as i16).or_default().extend(faults);
    }

    /// The values in a partition's log, markers as `<commit>` and `<abort>`.
    pub fn log(&self, partition: &Partition) -> String {
        self.broker.0.lock().show(partition.topic.as_str(), partition.index.get())
    }
}

pub fn topic() -> TopicName {
    TopicName::new("orders").expect("a legal name")
}

pub fn partition(index: i32) -> Partition {
    Partition { topic: topic(), index: PartitionIndex::new(index).expect("not negative") }
}

pub fn records(values: &[&str]) -> Vec<Record> {
    values.iter().map(|value| Record::new(None, Bytes::copy_from_slice(value.as_bytes()))).collect()
}

/// Every address leads to the one broker.
struct Pipes {
    broker: Broker,
}

#[async_trait]
impl Network for Pipes {
    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        {
            let mut state = self.broker.0.lock();
            if address != ADDRESS || state.refused_connections > 0 {
                state.refused_connections = state.refused_connections.saturating_sub(1);
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        // The far side is no part of what is tested: it may run on the bare runtime.
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(broker::serve(self.broker.clone(), theirs));
        Ok(Box::new(ours))
    }
}
