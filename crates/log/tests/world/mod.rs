//! One broker's log over a simulated disk and a bucket in memory, started, crashed at will, and started again.

#![allow(dead_code)] // Each test file uses its part of the world.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use forebay_env::simulated::{ArmedFailPoints, CrashedAt, SimClock, SimDisk, Trace, parts};
use forebay_env::{Env, FailPoint, Parts};
use forebay_log::{
    Appended, Isolation, LogConfig, LogError, Owner, OwnerParts, Partition, ReadBatches, ReadRequest, Recovered,
    Recovery, Sealers, UploadConfig, Verification, validate,
};
use forebay_metadata::state::WalKind;
use forebay_metadata::store::Host;
use forebay_metadata::{BrokerLife, Command, Metadata, Reply};
use forebay_store::memory::MemoryStore;
use forebay_store::{Bucket, Faulty, Purpose, Store};
use forebay_types::{
    BrokerId, ByteSize, ClusterId, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicName,
};
use forebay_wal::providers::disk::{DiskConfig, DiskProvider, DiskSealer};
use forebay_wal::providers::object::{ObjectConfig, ObjectProvider, ObjectSealer};
use forebay_wal::{Provider, Sealer, WalOwner};
use forebay_wire::BatchBuilder;
use futures::FutureExt;

/// Bytes of a `disk` WAL.
pub const WAL_ROOM: u64 = 8 << 20;

/// What survives a crash: the disk and the bucket. And what the test knows.
pub struct World {
    pub disk: SimDisk,
    /// The way to the bucket, which can go wrong.
    pub faults: Arc<Faulty>,
    /// The bucket itself.
    pub bucket: Arc<dyn Store>,
    pub fail_points: ArmedFailPoints,
    clock: SimClock,
    pub wal: Kind,
    pub config: LogConfig,
    starts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Disk,
    Object,
}

/// One running life.
pub struct Life {
    pub env: Env,
    pub host: Host,
    pub metadata: Arc<dyn Metadata>,
    pub owned_by: BrokerLife,
    pub owner: Owner,
    pub recovered: Recovered,
}

impl World {
    pub fn new(wal: Kind) -> Self {
        Self::seeded(wal, 7)
    }

    /// What the disk keeps of unsynced writes follows from the seed.
    pub fn seeded(wal: Kind, seed: u64) -> Self {
        let disk = SimDisk::new(seed, Trace::default());
        let env = Env::new(parts(seed, &disk));
        let config = LogConfig {
            upload: UploadConfig { size_target: ByteSize::new(20_000), ..UploadConfig::default() },
            warm_budget: ByteSize::new(0),
            ..LogConfig::default()
        };
        let bucket: Arc<dyn Store> = Arc::new(MemoryStore::new(&env));
        let faults = Arc::new(Faulty::with_seed(&env, Arc::clone(&bucket), seed));
        let fail_points = ArmedFailPoints::default();
        Self { disk, faults, bucket, fail_points, clock: SimClock::default(), wal, config, starts: 0 }
    }

    /// Puts something on the way to the bucket; a test reads and writes through it too.
    pub fn lead_through(&mut self, way: Arc<dyn Store>) {
        let env = Env::new(parts(7, &self.disk));
        self.faults = Arc::new(Faulty::with_seed(&env, Arc::clone(&way), 7));
        self.bucket = way;
    }

    /// The machine loses power at the next passage of `point`: its disk forgets what was not synced, and nothing that it
    /// still does reaches the bucket.
    pub fn cut_power_at(&self, point: FailPoint) {
        let (disk, faults) = (self.disk.clone(), Arc::clone(&self.faults));
        self.fail_points.arm(point, 0, move || {
            disk.crash();
            faults.set_outage(true);
        });
    }

    /// Starts a life whose power is cut while it takes over. Gives the point that it came to.
    ///
    /// # Panics
    /// It was not cut, or something else went wrong.
    pub async fn start_and_fail(&mut self) -> FailPoint {
        let start = std::panic::AssertUnwindSafe(self.start()).catch_unwind();
        let Err(panic) = start.await else { panic!("the start came through") };
        let CrashedAt(point) = *panic.downcast().expect("no other panic than at the point");
        self.power_is_back().await;
        point
    }

    pub async fn start(&mut self) -> Life {
        self.starts += 1;
        let env = Env::new(Parts {
            clock: Box::new(self.clock.clone()),
            fail_points: Box::new(self.fail_points.clone()),
            ..parts(self.starts, &self.disk)
        });
        let bucket = Bucket::over(&env, Arc::<Faulty>::clone(&self.faults));
        let host = Host::open(&env, bucket.store(Purpose::Metadata), None).await.expect("the metadata opens");
        let metadata: Arc<dyn Metadata> = host.metadata();
        let cluster = metadata.cluster().clone();
        let broker = BrokerId::ZERO;
        let in_flight_max = 4;
        let wal = match self.wal {
            Kind::Disk => WalKind::Disk { disk: 1 },
            Kind::Object => WalKind::Object { in_flight_max },
        };
        let register = Command::RegisterBroker { broker, incarnation: u128::from(self.starts), wal };
        let Ok(Reply::Registered(registered)) = metadata.submit(register).await else { panic!("a broker registers") };
        let life = BrokerLife::new(broker, registered.epoch);
        let by = WalOwner { cluster: cluster.clone(), broker, epoch: registered.epoch };
        let store = bucket.store(Purpose::Wal);
        let sealers = TestSealers { env: env.clone(), store: Arc::clone(&store), by: by.clone() };
        let recovery = Recovery {
            env: env.clone(),
            store: Arc::clone(&store),
            metadata: Arc::clone(&metadata),
            cluster: cluster.clone(),
            life,
            size_target: self.config.upload.size_target,
        };
        let recovered = recovery.run(&registered, &sealers).await.expect("earlier lives are closed");
        let provider: Box<dyn Provider> = match self.wal {
            Kind::Disk => {
                let (segment, total) = (ByteSize::mib(1), ByteSize::new(WAL_ROOM));
                let config = DiskConfig { folder: folder(), segment, total };
                let closed = move |_: &ClusterId, _, epoch| epoch < life.epoch;
                Box::new(DiskProvider::open(&env, config, by, closed).await.expect("the WAL opens"))
            }
            Kind::Object => Box::new(ObjectProvider::new(&env, Arc::clone(&store), by, ObjectConfig::default())),
        };
        let owner = Owner::start(OwnerParts {
            env: env.clone(),
            store: bucket.store(Purpose::Wal),
            metadata: Arc::clone(&metadata),
            cluster,
            life,
            provider,
            next_sequence: recovered.next_sequence,
            topic_defaults: BTreeMap::new(),
            config: self.config,
        })
        .await;
        Life { env, host, metadata, owned_by: life, owner, recovered }
    }

    /// Ends a life as a power cut does: its tasks stop where they are, and what was not synced is gone.
    pub async fn crash(&mut self, life: Life) {
        drop(life);
        self.power_is_back().await;
    }

    async fn power_is_back(&mut self) {
        tokio::task::yield_now().await;
        self.disk.crash();
        self.fail_points.disarm_all();
        self.faults.set_outage(false);
    }
}

fn folder() -> PathBuf {
    PathBuf::from("/data/wal")
}

struct TestSealers {
    env: Env,
    store: Arc<dyn Store>,
    by: WalOwner,
}

impl Sealers for TestSealers {
    fn sealer(&self, wal: WalKind) -> Option<Arc<dyn Sealer>> {
        match wal {
            WalKind::Disk { .. } => Some(Arc::new(DiskSealer::new(&self.env, folder(), self.by.cluster.clone()))),
            WalKind::Object { in_flight_max } => {
                let in_flight = NonZeroUsize::new(usize::try_from(in_flight_max).ok()?)?;
                Some(Arc::new(ObjectSealer::new(&self.env, Arc::clone(&self.store), self.by.clone(), in_flight)))
            }
            WalKind::Memory => None,
        }
    }
}

impl Life {
    pub async fn create_topic(&self, name: &str, partitions: i32) -> TopicId {
        let mut bits = [0; 16];
        self.env.fill_random(&mut bits);
        let id = TopicId::from_random(bits);
        let name = TopicName::new(name).expect("legal");
        let command = Command::CreateTopic { name, id, partitions, config: BTreeMap::new(), now: self.env.now() };
        self.metadata.submit(command).await.expect("a new topic");
        self.owner.partitions.caught_up(&*self.metadata).await;
        id
    }

    pub fn partition(&self, topic: TopicId) -> Arc<Partition> {
        let topic = self.owner.partitions.by_id(topic).expect("the topic is open");
        Arc::clone(topic.partition(PartitionIndex::ZERO).expect("it has a partition"))
    }

    /// Appends and waits until it is acknowledged.
    pub async fn produce(&self, partition: &Partition, batch: BytesMut) -> Result<Appended, LogError> {
        Ok(self.offer(partition, batch).await?.expect("the WAL runs"))
    }

    /// Appends and waits until it is acknowledged; `None` where the WAL ended before that.
    pub async fn offer(&self, partition: &Partition, batch: BytesMut) -> Result<Option<Appended>, LogError> {
        let config = self.owner.partitions.by_id(partition.id().topic).expect("open").config.clone();
        let batch = validate(batch, &config, 9, self.env.now()).expect("a sound batch");
        let Ok(mut admission) = self.owner.wal.admit(batch.size()).await else { return Ok(None) };
        let header = *batch.header();
        let guard = match (header.is_transactional(), ProducerId::new(header.producer_id)) {
            (true, Ok(id)) => {
                let epoch = ProducerEpoch::new(header.producer_epoch).expect("an epoch");
                match partition.verification(id, epoch, header.base_sequence)? {
                    Verification::Needed(guard) => Some(guard),
                    Verification::Done => None,
                }
            }
            _ => None,
        };
        let appended = partition.append(batch, guard, &mut admission)?;
        Ok(self.owner.wal.durable(appended.position).await.is_ok().then_some(appended))
    }
}

/// A batch of `values` from a producer; `producer` is (id, epoch, first sequence).
pub fn batch(producer: Option<(i64, i16, i32)>, transactional: bool, values: &[&str]) -> BytesMut {
    let mut builder = BatchBuilder::new(0);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    if transactional {
        builder = builder.transactional();
    }
    for value in values {
        builder.push(0, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// Everything from `from` on, as (offset, value) of records that are not control records.
pub async fn read_all(partition: &Partition, from: i64, isolation: Isolation) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    let mut next = from;
    loop {
        let request = ReadRequest {
            from: Offset::new(next).expect("an offset"),
            isolation,
            bytes_max: 4_000,
            at_least_one: true,
        };
        let ReadBatches { batches, aborted, .. } = partition.read(request).await.expect("readable");
        if batches.is_empty() {
            return records;
        }
        for run in batches {
            next = take(&run, &aborted, from, &mut records);
        }
    }
}

fn take(run: &Bytes, aborted: &[forebay_format::AbortedTxn], from: i64, records: &mut Vec<(i64, String)>) -> i64 {
    let mut next = 0;
    for batch in forebay_wire::Batches::new(run) {
        let batch = batch.expect("whole batches");
        let header = batch.header;
        next = header.last_offset() + 1;
        let hidden = aborted.iter().any(|txn| {
            txn.producer.get() == header.producer_id
                && header.is_transactional()
                && (txn.first_offset.get()..=txn.last_offset.get()).contains(&header.base_offset)
        });
        if header.is_control() || hidden {
            continue;
        }
        for record in forebay_wire::batch::records(&Bytes::copy_from_slice(batch.bytes), 1 << 20).expect("sound") {
            let record = record.expect("sound");
            let offset = header.base_offset + i64::from(record.offset_delta);
            if offset >= from {
                let value = record.value.expect("a value");
                records.push((offset, String::from_utf8(value.to_vec()).expect("text")));
            }
        }
    }
    next
}
