//! Feeds the events, in the file's order, and keeps the ledger of their acknowledgements.
//!
//! The feed goes as far as the director allows; the schedule's positions are in acknowledged events, so that a seed's
//! kills fall at the same events in every run. One idempotent producer lives through all restarts of the broker.
//!
//! Bounds: [`WINDOW`] batches wait for their acknowledgement; a step of [`STEP`] events goes out every [`PACE`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_client::{Client, ClientError, Delivery, Partition, Producer, ProducerConfig, Record, partition_for_key};
use forebay_env::{Env, Task};
use forebay_types::TopicName;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::DEPARTURES_PARTITIONS;
use super::checks::ROW_HEADER;
use super::departures::Departure;
use super::ledger::{Acknowledged, Ledger};

const STEP: usize = 40;
const PACE: Duration = Duration::from_millis(20);
const WINDOW: usize = 64;

/// The running feed.
pub struct Feed {
    allowed: watch::Sender<usize>,
    acknowledged: watch::Receiver<usize>,
    ledger: Arc<Mutex<Ledger>>,
    failed: Arc<Mutex<Option<ClientError>>>,
    _task: Task<()>,
}

impl Feed {
    pub fn start(env: &Env, client: &Client, topic: TopicName, rows: Arc<Vec<Departure>>) -> Self {
        let (allowed, limit) = watch::channel(0);
        let (progress, acknowledged) = watch::channel(0);
        let ledger = Arc::<Mutex<Ledger>>::default();
        let failed = Arc::<Mutex<Option<ClientError>>>::default();
        let feeder = Feeder {
            env: env.clone(),
            topic,
            rows,
            limit,
            progress,
            ledger: Arc::clone(&ledger),
            waiting: VecDeque::new(),
        };
        let (client, failure) = (client.clone(), Arc::clone(&failed));
        let task = env.spawn("demo-feed", async move {
            if let Err(error) = feeder.run(&client).await {
                *failure.lock() = Some(error);
            }
        });
        Self { allowed, acknowledged, ledger, failed, _task: task }
    }

    /// Lets the feed go on up to so many events.
    pub fn allow(&self, events: usize) {
        self.allowed.send_replace(events);
    }

    /// Events acknowledged.
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// The acknowledgements so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger.lock().clone()
    }

    /// Why the feed has ended, where it has.
    pub fn failure(&self) -> Option<ClientError> {
        self.failed.lock().clone()
    }
}

struct Feeder {
    env: Env,
    topic: TopicName,
    rows: Arc<Vec<Departure>>,
    limit: watch::Receiver<usize>,
    progress: watch::Sender<usize>,
    ledger: Arc<Mutex<Ledger>>,
    waiting: VecDeque<(Vec<u32>, Delivery)>,
}

impl Feeder {
    async fn run(mut self, client: &Client) -> Result<(), ClientError> {
        let mut producer = Producer::new(client, ProducerConfig::default()).await?;
        let mut next = 0;
        while next < self.rows.len() {
            let allowed = *self.limit.borrow_and_update();
            if next >= allowed {
                self.settle(0).await?;
                if self.limit.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let end = (next + STEP).min(allowed).min(self.rows.len());
            self.send(&mut producer, next..end).await?;
            next = end;
            self.settle(WINDOW).await?;
            self.env.sleep(PACE).await;
        }
        self.settle(0).await
    }

    /// Sends rows, one batch for each partition.
    async fn send(&mut self, producer: &mut Producer, rows: std::ops::Range<usize>) -> Result<(), ClientError> {
        let mut batches: BTreeMap<_, (Vec<u32>, Vec<Record>)> = BTreeMap::new();
        for number in rows {
            let departure = &self.rows[number];
            let row = u32::try_from(number).expect("rows fit");
            let header = (Bytes::from_static(ROW_HEADER.as_bytes()), Some(Bytes::from(row.to_string())));
            let record = Record {
                headers: vec![header],
                ..Record::new(Some(departure.carrier.clone()), departure.line.clone())
            };
            let batch = batches.entry(partition_for_key(&departure.carrier, DEPARTURES_PARTITIONS)).or_default();
            batch.0.push(row);
            batch.1.push(record);
        }
        for (index, (rows, records)) in batches {
            let partition = Partition { topic: self.topic.clone(), index };
            let delivery = producer.send_to(&partition, records).await?;
            self.waiting.push_back((rows, delivery));
        }
        Ok(())
    }

    /// Takes the acknowledgements that are here, and waits for those that exceed `open_max`.
    async fn settle(&mut self, open_max: usize) -> Result<(), ClientError> {
        while let Some((_, delivery)) = self.waiting.front_mut() {
            let answer = match delivery.now_or_never() {
                Some(answer) => answer,
                None if self.waiting.len() <= open_max => break,
                None => {
                    let (_, delivery) = self.waiting.front_mut().expect("just seen");
                    delivery.await
                }
            };
            let ack = answer?;
            let (rows, _) = self.waiting.pop_front().expect("just answered");
            let count = rows.len();
            self.ledger.lock().add(Acknowledged::new(&ack, rows));
            self.progress.send_modify(|acknowledged| *acknowledged += count);
        }
        Ok(())
    }
}
