//! A bucket of data objects, what metadata knows of them, and a reader over both, with every GET written down.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_env::Env;
use forebay_env::simulated::{SimDisk, Trace, parts};
use forebay_format::{BatchSummary, ObjectName, ObjectWriter, SectionHead};
use forebay_metadata::service::{LogSize, Standing, TopicsView};
use forebay_metadata::state::{ConfigScope, Garbage, Pin, PinId, WalEpoch};
use forebay_metadata::{BrokerLife, Command, CommitNumber, Extent, LookupError, Metadata, Reply, SubmitError};
use forebay_store::memory::MemoryStore;
use forebay_store::{Body, Key, Object, ObjectMeta, Prefix, Span, Store, StoreError, Version};
use forebay_types::{
    BrokerEpoch, BrokerId, ByteSize, ClusterId, LeaderEpoch, LogId, Offset, PartitionIndex, Timestamp, TopicId,
    TopicPartition, WalSequence,
};
use forebay_wire::{BatchBuilder, BatchHeader};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cold::{ColdError, ColdRead, ColdReader, ReadPattern, Source};
use crate::upload::object_head;

pub(super) struct Rig {
    pub env: Env,
    pub store: Arc<Watched>,
    pub metadata: Arc<Known>,
    pub reader: Arc<ColdReader>,
    next_object: u64,
    ends: BTreeMap<i32, i64>,
}

/// What one partition has in an object: batches of this many records, of about this many bytes each.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub partition: i32,
    pub batches: usize,
    pub batch_size: usize,
}

impl Rig {
    pub fn new(cache: ByteSize) -> Self {
        let env = Env::new(parts(3, &SimDisk::new(3, Trace::default())));
        let inner = MemoryStore::new(&env);
        let store = Arc::new(Watched { env: env.clone(), inner, state: Mutex::default() });
        let metadata = Arc::new(Known { cluster: cluster(), extents: Mutex::default(), lookups: AtomicU64::new(0) });
        let reader = ColdReader::new(env.clone(), Arc::clone(&store) as _, Arc::clone(&metadata) as _, cache);
        Self { env, store, metadata, reader, next_object: 0, ends: BTreeMap::new() }
    }

    /// Writes the next object; every partition in it goes on where its last object ended, two records to a batch, with the
    /// time of the offset in seconds. Gives the object's name.
    pub async fn write(&mut self, parts: &[Part]) -> String {
        let life = BrokerLife::new(BrokerId::ZERO, BrokerEpoch::new(1).expect("an epoch"));
        let sequence = WalSequence::new(self.next_object);
        self.next_object += 1;
        let mut writer = ObjectWriter::new(object_head(cluster(), life, sequence, Timestamp::default()));
        for part in parts {
            let source = source(part.partition);
            writer.section(SectionHead {
                partition: source.partition,
                log: source.log,
                leader_epoch: LeaderEpoch::ZERO,
                epoch_start: Offset::ZERO,
                producer_snapshot: None,
            });
            let next = self.ends.entry(part.partition).or_default();
            for _ in 0..part.batches {
                let records = batch(*next, part.batch_size);
                let header = BatchHeader::parse(&records).expect("just built");
                let summary = BatchSummary {
                    base_offset: offset(*next),
                    last_offset: offset(header.last_offset()),
                    max_timestamp: Timestamp::from_millis(header.max_timestamp),
                    records: 2,
                    producer: None,
                    transactional: false,
                    marker: None,
                };
                writer.push(&summary, None, &records);
                *next = header.last_offset() + 1;
            }
        }
        let object = writer.finish();
        let name = ObjectName::Data { broker: life.broker, epoch: life.epoch, sequence }.to_string();
        let key = Key::new(&name).expect("a name of ours");
        self.store.inner.create(&key, Body::from(object.chunks)).await.expect("a bucket in memory");
        let mut extents = self.metadata.extents.lock();
        for range in object.ranges {
            extents.entry(range.log).or_default().push(Extent {
                range: range.range,
                object: name.clone(),
                size: object.size,
                footer_position: object.footer_position,
                bytes: range.bytes,
                max_timestamp: range.max_timestamp,
            });
        }
        name
    }

    pub fn end(&self, partition: i32) -> i64 {
        self.ends[&partition]
    }

    /// One read, as a fetch makes it: the offsets of the batches that it gave.
    pub async fn read(
        &self,
        partition: i32,
        from: i64,
        bytes_max: usize,
        pattern: &ReadPattern,
    ) -> Result<Vec<i64>, ColdError> {
        let runs = self.runs(partition, from, bytes_max, pattern).await?;
        Ok(runs.iter().flat_map(offsets_of).collect())
    }

    /// The same as it is handed out.
    pub async fn runs(
        &self,
        partition: i32,
        from: i64,
        bytes_max: usize,
        pattern: &ReadPattern,
    ) -> Result<Vec<Bytes>, ColdError> {
        let read = ColdRead {
            from: offset(from),
            end: offset(self.end(partition)),
            bytes_max,
            at_least_one: true,
            of_any_partition: false,
        };
        self.reader.read(source(partition), read, pattern).await
    }
}

/// The base offsets of a run of batches, each of which must be what was written there.
fn offsets_of(run: &Bytes) -> Vec<i64> {
    let batches = forebay_wire::Batches::new(run).map(|found| {
        let found = found.expect("whole batches");
        let base = found.header.base_offset;
        assert_eq!(found.bytes, batch(base, found.bytes.len()), "the batch at {base} is as it was written");
        base
    });
    batches.collect()
}

/// A batch of two records at an offset, of `size` bytes, which are more than 200.
fn batch(base: i64, size: usize) -> Bytes {
    let build = |filler: usize| {
        let mut builder = BatchBuilder::new(base * 1_000);
        builder.push(base * 1_000, None, Some(&vec![u8::try_from(base % 251).expect("small"); filler]), &[]);
        builder.push((base + 1) * 1_000, None, Some(b"second"), &[]);
        let mut batch = builder.build();
        forebay_wire::batch::patch(&mut batch, base, 0);
        batch.freeze()
    };
    let short = size - build(size - 100).len();
    build(size - 100 + short)
}

fn cluster() -> ClusterId {
    ClusterId::from_random([5; 16])
}

pub(super) fn source(partition: i32) -> Source {
    let index = PartitionIndex::new(partition).expect("not negative");
    let partition = TopicPartition { topic: TopicId::from_random([1; 16]), partition: index };
    let log = u64::try_from(index.get()).expect("not negative") + 1;
    Source { partition, log: LogId::new(log).expect("a log") }
}

pub(super) fn offset(raw: i64) -> Offset {
    Offset::new(raw).expect("not negative")
}

/// A store that writes down what is read, takes its time, and flips a bit where it is told to.
pub(super) struct Watched {
    env: Env,
    pub inner: MemoryStore,
    state: Mutex<WatchedState>,
}

#[derive(Default)]
struct WatchedState {
    reads: Vec<(String, Range<u64>)>,
    latency: Duration,
    in_flight: usize,
    in_flight_max: usize,
    begun: u64,
    /// Which reads, counted from the first, get a flipped bit, and which bit.
    flips: BTreeMap<u64, u64>,
}

impl Watched {
    pub fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    /// In the read that comes after `skip` others this bit is turned over, counted from the first and around.
    pub fn flip(&self, skip: u64, bit: u64) {
        let mut state = self.state.lock();
        let read = state.begun + skip;
        state.flips.insert(read, bit);
    }

    /// What was read since this was last asked.
    pub fn take_reads(&self) -> Vec<(String, Range<u64>)> {
        std::mem::take(&mut self.state.lock().reads)
    }

    /// The most reads that were under way at once.
    pub fn in_flight_max(&self) -> usize {
        self.state.lock().in_flight_max
    }
}

#[async_trait]
impl Store for Watched {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.inner.create(key, body).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.inner.put(key, body).await
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.inner.replace(key, body, expected).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        let (latency, flip) = {
            let mut state = self.state.lock();
            state.in_flight += 1;
            state.in_flight_max = state.in_flight_max.max(state.in_flight);
            let read = state.begun;
            state.begun += 1;
            let flip = state.flips.remove(&read);
            (state.latency, flip)
        };
        if !latency.is_zero() {
            self.env.sleep(latency).await;
        }
        let mut object = self.inner.read(key, span).await?;
        let mut state = self.state.lock();
        state.in_flight -= 1;
        state.reads.push((key.to_string(), object.start..object.start + object.bytes.len() as u64));
        if let Some(bit) = flip {
            let mut bytes = object.bytes.to_vec();
            let bit = usize::try_from(bit).expect("small") % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            object.bytes = bytes.into();
        }
        Ok(object)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}

/// Metadata that knows extents and nothing else: a reader of history asks for no more.
pub(super) struct Known {
    cluster: ClusterId,
    pub extents: Mutex<BTreeMap<LogId, Vec<Extent>>>,
    pub lookups: AtomicU64,
}

impl Known {
    /// Lookups of extents since this was last asked.
    pub fn take_lookups(&self) -> u64 {
        self.lookups.swap(0, Ordering::Relaxed)
    }
}

const ASKED: &str = "a reader of history asks for extents only";

#[async_trait]
impl Metadata for Known {
    async fn submit(&self, _: Command) -> Result<Reply, SubmitError> {
        unreachable!("{ASKED}")
    }

    fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    fn topics(&self) -> TopicsView {
        TopicsView::default()
    }

    fn changes(&self) -> watch::Receiver<CommitNumber> {
        unreachable!("{ASKED}")
    }

    async fn extents(&self, log: LogId, from: Offset, limit: usize) -> Result<Vec<Extent>, LookupError> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let extents = self.extents.lock();
        let of_log = extents.get(&log).map(Vec::as_slice).unwrap_or_default();
        let first = of_log.partition_point(|extent| extent.range.end() <= from);
        Ok(of_log[first..].iter().take(limit).cloned().collect())
    }

    fn log_size(&self, _: LogId) -> LogSize {
        unreachable!("{ASKED}")
    }

    fn broker_config(&self, _: ConfigScope) -> Arc<BTreeMap<String, String>> {
        unreachable!("{ASKED}")
    }

    fn pins(&self) -> Vec<(PinId, Arc<Pin>, Timestamp)> {
        unreachable!("{ASKED}")
    }

    fn wal_epochs(&self) -> Vec<(BrokerLife, WalEpoch)> {
        unreachable!("{ASKED}")
    }

    async fn garbage(&self, _: Option<&str>, _: usize) -> Result<Vec<(String, Garbage)>, LookupError> {
        unreachable!("{ASKED}")
    }

    async fn standing(&self, _: &str) -> Result<Standing, LookupError> {
        unreachable!("{ASKED}")
    }
}
