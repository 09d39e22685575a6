//! Reads the pipeline's committed rows as they come, through every restart, and checks each at once.

use std::sync::Arc;

use forebay_client::{Client, ClientError, Consumer, ConsumerConfig, ErrorCode, Isolation, StartAt};
use forebay_env::{Env, Task};
use forebay_types::TopicName;
use parking_lot::Mutex;

use super::checks::{Broken, Check, Reading, Rows, broken, served};
use super::departures::Truth;

#[derive(Default)]
struct Watched {
    /// Every row that was read, for later readings to be held against.
    seen: Reading,
    rows: Rows,
    alarm: Option<Alarm>,
}

/// Why the watcher has stopped.
#[derive(Clone, Debug)]
pub enum Alarm {
    Broken(Broken),
    Failed(ClientError),
}

/// The running watcher.
pub struct Watcher {
    watched: Arc<Mutex<Watched>>,
    _task: Task<()>,
}

impl Watcher {
    pub fn start(env: &Env, client: &Client, topic: TopicName, isolation: Isolation, truth: Arc<Truth>) -> Self {
        let watched = Arc::<Mutex<Watched>>::default();
        let (client, shared) = (client.clone(), Arc::clone(&watched));
        let task = env.spawn("demo-watcher", async move {
            let Err(alarm) = watch(&client, &topic, isolation, &truth, &shared).await;
            shared.lock().alarm = Some(alarm);
        });
        Self { watched, _task: task }
    }

    /// Rows read so far.
    pub fn rows(&self) -> usize {
        self.watched.lock().rows.total()
    }

    /// Everything read so far.
    pub fn seen(&self) -> Reading {
        self.watched.lock().seen.clone()
    }

    pub fn alarm(&self) -> Option<Alarm> {
        self.watched.lock().alarm.clone()
    }
}

async fn watch(
    client: &Client,
    topic: &TopicName,
    isolation: Isolation,
    truth: &Truth,
    shared: &Mutex<Watched>,
) -> Result<std::convert::Infallible, Alarm> {
    let mut consumer = Consumer::new(client, ConsumerConfig { isolation, ..ConsumerConfig::default() });
    for partition in client.partitions(topic).await.map_err(Alarm::Failed)? {
        consumer.assign(partition, StartAt::Earliest);
    }
    loop {
        let fetched = consumer.poll().await.map_err(|error| match error.code() {
            // The position came from records that were read: they were there.
            Some(ErrorCode::OffsetOutOfRange) => {
                Alarm::Broken(broken(Check::Seen, format!("records that were read are gone: {error}")))
            }
            _ => Alarm::Failed(error),
        })?;
        let mut watched = shared.lock();
        for one in fetched {
            for record in &one.records {
                let at = (one.partition.index.get(), record.offset.get());
                let record = served(record);
                let checked = watched.rows.take(at, &record, truth);
                watched.seen.insert(at, record);
                checked.map_err(Alarm::Broken)?;
            }
        }
    }
}
