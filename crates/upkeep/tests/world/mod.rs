//! One broker's log with its upkeep, over a simulated disk and a bucket in memory.

#![allow(dead_code)] // Each test file uses its part of the world.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::simulated::{SimClock, SimDisk, Trace, parts};
use forebay_env::{Disk, Env, OpenMode, Parts};
use forebay_format::{DiskId, FolderMarker, ObjectName};
use forebay_log::{
    Isolation, LogConfig, Owner, OwnerParts, Partition, ReadRequest, Recovery, Sealers, UploadConfig, validate,
};
use forebay_metadata::state::WalKind;
use forebay_metadata::store::Host;
use forebay_metadata::{BrokerLife, Command, Metadata, Reply};
use forebay_store::memory::MemoryStore;
use forebay_store::{Body, Bucket, Key, Prefix, Purpose, Store};
use forebay_types::{BrokerId, ByteSize, ClusterId, Offset, PartitionIndex, TopicId, TopicName, TopicPartition};
use forebay_upkeep::fsck::{CheckOptions, Report, WalFolder, check};
use forebay_upkeep::{Round, Upkeep, UpkeepConfig, UpkeepParts};
use forebay_wal::providers::disk::{DiskConfig, DiskProvider, DiskSealer};
use forebay_wal::providers::object::{ObjectConfig, ObjectProvider, ObjectSealer};
use forebay_wal::{Provider, Sealer, WalOwner};
use forebay_wire::BatchBuilder;

pub const KINDS: [Kind; 2] = [Kind::Disk, Kind::Object];

/// Writes in flight of an `object` WAL.
const IN_FLIGHT: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Disk,
    Object,
}

/// What survives a crash: the disk and the bucket.
pub struct World {
    pub disk: SimDisk,
    pub bucket: Arc<dyn Store>,
    pub clock: SimClock,
    kind: Kind,
    starts: u64,
}

/// One running life.
pub struct Life {
    pub env: Env,
    pub host: Host,
    pub metadata: Arc<dyn Metadata>,
    pub me: BrokerLife,
    pub owner: Owner,
    pub upkeep: Upkeep,
    store: Arc<dyn Store>,
}

pub fn wal_folder() -> PathBuf {
    PathBuf::from("/data/wal")
}

/// The disk that a `disk` WAL is written to.
pub const DISK: u8 = 1;

/// What upkeep forgets an idle producer after.
pub const PRODUCER_EXPIRATION_MS: i64 = 600_000;

impl World {
    pub fn new(kind: Kind) -> Self {
        let disk = SimDisk::new(7, Trace::default());
        let bucket = Arc::new(MemoryStore::new(&Env::new(parts(7, &disk))));
        Self { disk, bucket, clock: SimClock::default(), kind, starts: 0 }
    }

    pub fn env(&self, seed: u64) -> Env {
        Env::new(Parts { clock: Box::new(self.clock.clone()), ..parts(seed, &self.disk) })
    }

    pub async fn start(&mut self) -> Life {
        self.starts += 1;
        let env = self.env(self.starts);
        let bucket = Bucket::over(&env, Arc::clone(&self.bucket));
        let host = Host::open(&env, bucket.store(Purpose::Metadata), None).await.expect("the metadata opens");
        let metadata: Arc<dyn Metadata> = host.metadata();
        let cluster = metadata.cluster().clone();
        let broker = BrokerId::ZERO;
        let wal = match self.kind {
            Kind::Disk => WalKind::Disk { disk: u128::from(DISK) },
            Kind::Object => WalKind::Object { in_flight_max: IN_FLIGHT },
        };
        let register = Command::RegisterBroker { broker, incarnation: u128::from(self.starts), wal };
        let Ok(Reply::Registered(registered)) = metadata.submit(register).await else { panic!("a broker registers") };
        let life = BrokerLife::new(broker, registered.epoch);
        let by = WalOwner { cluster: cluster.clone(), broker, epoch: registered.epoch };
        let store = bucket.store(Purpose::Wal);
        let config = LogConfig {
            upload: UploadConfig { size_target: ByteSize::new(20_000), ..UploadConfig::default() },
            warm_budget: ByteSize::new(0),
            cache_budget: ByteSize::new(0),
            ..LogConfig::default()
        };
        let sealers = TestSealers { env: env.clone(), store: Arc::clone(&store), by: by.clone() };
        let recovery = Recovery {
            env: env.clone(),
            store: Arc::clone(&store),
            metadata: Arc::clone(&metadata),
            cluster: cluster.clone(),
            life,
            size_target: config.upload.size_target,
        };
        let recovered = recovery.run(&registered, &sealers).await.expect("earlier lives are closed");
        let provider: Box<dyn Provider> = match self.kind {
            Kind::Disk => {
                let config = DiskConfig { folder: wal_folder(), segment: ByteSize::mib(1), total: ByteSize::mib(8) };
                let closed = move |_: &ClusterId, _, epoch| epoch < life.epoch;
                Box::new(DiskProvider::open(&env, config, by, closed).await.expect("the WAL opens"))
            }
            Kind::Object => Box::new(ObjectProvider::new(&env, Arc::clone(&store), by, ObjectConfig::default())),
        };
        let owner = Owner::start(OwnerParts {
            env: env.clone(),
            store,
            metadata: Arc::clone(&metadata),
            cluster,
            life,
            provider,
            next_sequence: recovered.next_sequence,
            topic_defaults: BTreeMap::new(),
            config,
        })
        .await;
        let store = bucket.store(Purpose::Collect);
        let upkeep = Upkeep::new(upkeep_parts(&env, &store, &metadata, &owner, life));
        Life { env, host, metadata, me: life, owner, upkeep, store }
    }

    /// Ends a life as a power cut does.
    pub async fn crash(&mut self, life: Life) {
        drop(life);
        tokio::task::yield_now().await;
        self.disk.crash();
    }

    /// Checks the bucket and the disk, deeply.
    pub async fn fsck(&self) -> Report {
        self.fsck_with(Some(self.held(DISK))).await
    }

    /// Checks the bucket, deeply, and what is given of the disk.
    pub async fn fsck_with(&self, wal_folder: Option<WalFolder>) -> Report {
        let store = Bucket::over(&self.env(99), Arc::clone(&self.bucket)).store(Purpose::Check);
        let options = CheckOptions { deep: true, wal_folder };
        check(&self.env(99), &store, options, &|_| {}).await.expect("the metadata can be read")
    }

    /// The data folder, marked as that of `disk`, and its lock.
    pub fn held(&self, disk: u8) -> WalFolder {
        let data = PathBuf::from("/data");
        let mut bits = [0; 16];
        bits[15] = disk;
        let marker = FolderMarker { cluster: ClusterId::from_random([1; 16]), disk: DiskId::from_random(bits) };
        self.disk.create_dir_all(&data).expect("made");
        let path = data.join(FolderMarker::FILE_NAME);
        if self.disk.open(&path, OpenMode::Read).is_ok() {
            self.disk.remove(&path).expect("it is there");
        }
        let file = self.disk.open(&path, OpenMode::CreateNew).expect("made");
        file.write_all_at(marker.encode().as_bytes(), 0).expect("written");
        let lock = self.disk.lock(&data.join("lock")).expect("nobody else holds it");
        WalFolder::Held { data, wal: wal_folder(), lock }
    }

    /// The errors and warnings of a check, in words.
    pub async fn complaints(&self) -> Vec<String> {
        let report = self.fsck().await;
        let bad = report.findings.iter().filter(|finding| finding.severity > forebay_upkeep::fsck::Severity::Note);
        bad.map(ToString::to_string).collect()
    }

    /// Everything in the bucket but the database: names, in order.
    pub async fn objects(&self) -> Vec<ObjectName> {
        let all = self.bucket.list(&Prefix::all(), None, usize::MAX).await.expect("in memory");
        all.iter().filter_map(|meta| meta.key.as_str().parse().ok()).collect()
    }

    /// How many objects hold records: the fences of an `object` WAL are no such.
    pub async fn data_objects(&self) -> usize {
        let mut count = 0;
        for name in self.objects().await {
            if matches!(name, ObjectName::Data { .. } | ObjectName::Wal { .. }) {
                let bytes = self.bucket.get(&key(name)).await.expect("just listed");
                count += usize::from(!forebay_format::Fence::is_fence(&bytes));
            }
        }
        count
    }

    /// Puts changed bytes in an object's place.
    pub async fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let key = Key::new(name).expect("a key");
        let mut bytes = self.bucket.get(&key).await.expect("it is there").to_vec();
        change(&mut bytes);
        self.bucket.put(&key, Body::from(bytes)).await.expect("in memory");
    }
}

pub fn key(name: ObjectName) -> Key {
    Key::new(&name.to_string()).expect("names of ours are keys")
}

fn upkeep_parts(
    env: &Env,
    store: &Arc<dyn Store>,
    metadata: &Arc<dyn Metadata>,
    owner: &Owner,
    life: BrokerLife,
) -> UpkeepParts {
    UpkeepParts {
        env: env.clone(),
        store: Arc::clone(store),
        metadata: Arc::clone(metadata),
        partitions: Arc::clone(&owner.partitions),
        life,
        config: UpkeepConfig { producer_expiration_ms: PRODUCER_EXPIRATION_MS, ..UpkeepConfig::default() },
    }
}

struct TestSealers {
    env: Env,
    store: Arc<dyn Store>,
    by: WalOwner,
}

impl Sealers for TestSealers {
    fn sealer(&self, wal: WalKind) -> Option<Arc<dyn Sealer>> {
        match wal {
            WalKind::Disk { .. } => Some(Arc::new(DiskSealer::new(&self.env, wal_folder(), self.by.cluster.clone()))),
            WalKind::Object { in_flight_max } => {
                let in_flight = NonZeroUsize::new(usize::try_from(in_flight_max).ok()?)?;
                Some(Arc::new(ObjectSealer::new(&self.env, Arc::clone(&self.store), self.by.clone(), in_flight)))
            }
            WalKind::Memory => None,
        }
    }
}

impl Life {
    /// Upkeep as a broker starts it.
    pub fn upkeep_parts(&self) -> UpkeepParts {
        upkeep_parts(&self.env, &self.store, &self.metadata, &self.owner, self.me)
    }

    pub async fn create_topic(&self, name: &str, config: &[(&str, &str)]) -> TopicId {
        let mut bits = [0; 16];
        self.env.fill_random(&mut bits);
        let id = TopicId::from_random(bits);
        let name = TopicName::new(name).expect("legal");
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.done(Command::CreateTopic { name, id, partitions: 1, config, now: self.env.now() }).await;
        self.owner.partitions.caught_up(&*self.metadata).await;
        id
    }

    pub async fn done(&self, command: Command) -> Reply {
        let shown = format!("{command:?}");
        self.metadata.submit(command).await.unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    pub async fn delete_topic(&self, topic: TopicId, trash_ms: i64) {
        self.done(Command::DeleteTopic { topic, now: self.env.now(), trash_ms }).await;
        self.owner.partitions.caught_up(&*self.metadata).await;
    }

    pub fn partition(&self, topic: TopicId) -> Arc<Partition> {
        let topic = self.owner.partitions.by_id(topic).expect("the topic is open");
        Arc::clone(topic.partition(PartitionIndex::ZERO).expect("it has a partition"))
    }

    /// Appends one batch of one record, `bytes` large and with the time of now, and waits until it is acknowledged.
    pub async fn produce(&self, topic: TopicId, value: &str, bytes: usize) {
        let now = self.env.now().as_millis();
        let mut builder = BatchBuilder::new(now);
        builder.push(now, Some(value.as_bytes()), Some("x".repeat(bytes).as_bytes()), &[]);
        self.append(topic, builder).await;
    }

    pub async fn append(&self, topic: TopicId, builder: BatchBuilder) {
        let config = self.owner.partitions.by_id(topic).expect("open").config.clone();
        let batch = validate(builder.build(), &config, 9, self.env.now()).expect("a sound batch");
        let mut admission = self.owner.wal.admit(batch.size()).await.expect("the WAL runs");
        let appended = self.partition(topic).append(batch, None, &mut admission).expect("taken");
        self.owner.wal.durable(appended.position).await.expect("the WAL runs");
    }

    /// Ten records in an object of their own.
    pub async fn write_extent(&self, topic: TopicId) {
        for n in 0..10 {
            self.produce(topic, &format!("value {n}"), 100).await;
        }
        self.flush().await;
    }

    /// Long enough for everything to be uploaded and committed.
    pub async fn flush(&self) {
        self.env.sleep(Duration::from_secs(6)).await;
    }

    pub async fn round(&mut self) -> Round {
        let round = self.upkeep.run_once().await.expect("the store and the metadata answer");
        self.owner.partitions.caught_up(&*self.metadata).await;
        round
    }

    /// Rounds until the grace of what is garbage now is over.
    pub async fn rounds_past_the_grace(&mut self) {
        while self.round().await.more {}
        self.env.sleep(forebay_upkeep::CONDEMNED_GRACE).await;
        while self.round().await.more {}
    }

    pub fn log_start(&self, topic: TopicId) -> i64 {
        self.partition(topic).offsets().expect("open").log_start.get()
    }

    /// How many records are there from the log start on, by reading them.
    pub async fn read_all(&self, topic: TopicId) -> Result<i64, String> {
        let partition = self.partition(topic);
        let offsets = partition.offsets().map_err(|error| error.to_string())?;
        let mut next = offsets.log_start.get();
        let mut count = 0;
        while next < offsets.high_watermark.get() {
            let request = ReadRequest {
                from: Offset::new(next).expect("an offset"),
                isolation: Isolation::ReadUncommitted,
                bytes_max: 4_000,
                at_least_one: true,
            };
            let read = partition.read(request).await.map_err(|error| format!("at {next}: {error}"))?;
            for run in read.batches {
                for batch in forebay_wire::Batches::new(&run) {
                    let header = batch.expect("whole batches").header;
                    count += header.last_offset() + 1 - header.base_offset.max(next);
                    next = header.last_offset() + 1;
                }
            }
        }
        Ok(count)
    }
}

pub fn first_partition(topic: TopicId) -> TopicPartition {
    TopicPartition { topic, partition: PartitionIndex::ZERO }
}
