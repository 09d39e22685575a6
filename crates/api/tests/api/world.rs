//! One broker's APIs over a bucket and a WAL in memory, which outlive a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use forebay_api::config::BrokerConfig;
use forebay_api::counters::Counters;
use forebay_api::memory::Memory;
use forebay_api::sessions::FetchSessions;
use forebay_api::{CallError, Connection, Context, HostPort, Reply, handle};
use forebay_coordinator::Coordinators;
use forebay_coordinator::host::{HostConfig, HostParts, LocalMarkers};
use forebay_env::simulated::{SimDisk, Trace, parts};
use forebay_env::{Env, Shutdown};
use forebay_log::{LogConfig, Owner, OwnerParts, Partition, Recovery, Sealers, read_footer};
use forebay_metadata::state::WalKind;
use forebay_metadata::store::Host;
use forebay_metadata::{BrokerLife, Command, Extent, Metadata};
use forebay_store::memory::MemoryStore;
use forebay_store::{Body, Bucket, Key, Purpose, Store};
use forebay_types::{BrokerId, Offset, PartitionIndex, TopicName};
use forebay_wal::providers::memory::MemoryWal;
use forebay_wal::{Sealer, WalOwner};
use forebay_wire::kafka::protocol::Request;
use forebay_wire::{decode_response, encode_request};

const BROKER: i32 = 1;

/// What survives a restart, and the life that runs.
pub struct World {
    bucket: Arc<MemoryStore>,
    wal: MemoryWal,
    config: BrokerConfig,
    starts: u64,
    life: Option<Life>,
}

struct Life {
    context: Arc<Context>,
    owner: Owner,
    _host: Host,
}

impl World {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A world whose broker has these configured.
    pub async fn with(config: &[(&str, &str)]) -> Self {
        let given = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config = BrokerConfig::parse(&given).expect("legal");
        let bucket = Arc::new(MemoryStore::new(&env(0)));
        let mut world = Self { bucket, wal: MemoryWal::default(), config, starts: 0, life: None };
        world.restart().await;
        world
    }

    /// Ends the life that runs as a crash does, and starts another, which takes over from it.
    pub async fn restart(&mut self) {
        drop(self.life.take());
        tokio::task::yield_now().await;
        self.starts += 1;
        let env = env(self.starts);
        let bucket = Bucket::over(&env, Arc::clone(&self.bucket) as Arc<dyn Store>);
        let host = Host::open(&env, bucket.store(Purpose::Metadata), None).await.expect("the metadata opens");
        let metadata: Arc<dyn Metadata> = host.metadata();
        let cluster = metadata.cluster().clone();
        let broker = BrokerId::new(BROKER).expect("not negative");
        let register = Command::RegisterBroker { broker, incarnation: u128::from(self.starts), wal: WalKind::Memory };
        let registered = metadata.submit(register).await.expect("a broker registers").into_registered();
        let life = BrokerLife::new(broker, registered.epoch);
        let config = LogConfig::default();
        let store = bucket.store(Purpose::Wal);
        let recovery = Recovery {
            env: env.clone(),
            store: Arc::clone(&store),
            metadata: Arc::clone(&metadata),
            cluster: cluster.clone(),
            life,
            size_target: config.upload.size_target,
        };
        let recovered =
            recovery.run(&registered, &OneSealer(self.wal.clone())).await.expect("earlier lives are closed");
        let wal_owner = WalOwner { cluster: cluster.clone(), broker, epoch: registered.epoch };
        let owner = Owner::start(OwnerParts {
            env: env.clone(),
            store: Arc::clone(&store),
            metadata: Arc::clone(&metadata),
            cluster: cluster.clone(),
            life,
            provider: Box::new(self.wal.provider(&env, &wal_owner)),
            next_sequence: recovered.next_sequence,
            topic_defaults: self.config.topic_defaults(),
            config,
        })
        .await;
        let coordinators = Coordinators::start(HostParts {
            env: env.clone(),
            store: bucket.store(Purpose::Snapshot),
            metadata: Arc::clone(&metadata),
            life,
            partitions: Arc::clone(&owner.partitions),
            wal: owner.wal.clone(),
            markers: Arc::new(LocalMarkers::new(env.clone(), Arc::clone(&owner.partitions), owner.wal.clone())),
            config: HostConfig { offsets_partitions: 2, txn_partitions: 2, ..HostConfig::default() },
        });
        let context = Context {
            env: env.clone(),
            cluster,
            life,
            advertised: HostPort { host: "broker.test".to_owned(), port: 9092 },
            metadata: Arc::clone(&metadata),
            partitions: Arc::clone(&owner.partitions),
            coordinators,
            wal: owner.wal.clone(),
            config: Arc::new(self.config.clone()),
            counters: Counters::default(),
            memory: Memory::new(&self.config),
            sessions: FetchSessions::new(self.config.fetch_session_cache_slots()),
            sabotage_cut_too_far: false,
        };
        self.life = Some(Life { context: Arc::new(context), owner, _host: host });
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.life.as_ref().expect("a life runs").context
    }

    pub fn shutdown(&self) -> &Shutdown {
        self.context().env.shutdown()
    }

    /// Moves everything to the bucket and ends the log, as a stopping broker does.
    pub async fn drain(&self) {
        self.context().coordinators.stop().await;
        self.life.as_ref().expect("a life runs").owner.drain().await.expect("nothing fails");
    }

    pub fn partition(&self, topic: &str, index: i32) -> Arc<Partition> {
        let name = TopicName::new(topic).expect("a topic's name");
        let topic = self.context().partitions.by_name(&name).expect("an open topic");
        Arc::clone(topic.partition(PartitionIndex::new(index).expect("not negative")).expect("an open partition"))
    }

    /// Turns a bit over in the block of the bucket that holds an offset.
    pub async fn damage(&self, topic: &str, index: i32, at: Offset) {
        let partition = self.partition(topic, index);
        let extents = self.context().metadata.extents(partition.log(), at, 1).await.expect("the metadata answers");
        let Extent { object, size, footer_position, .. } = &extents[0];
        let footer = read_footer(&*self.bucket, object, *size, *footer_position).await.expect("sound so far");
        let section = footer.sections_of(partition.id(), partition.log()).next().expect("its records are in there");
        let block = section.blocks_from(at).first().expect("the offset is in a block");
        let key = Key::new(object).expect("a key");
        let mut bytes = self.bucket.get(&key).await.expect("it is there").to_vec();
        bytes[usize::try_from(block.position).expect("in memory") + 100] ^= 4;
        self.bucket.put(&key, Body::from(bytes)).await.expect("in memory");
    }

    /// Sends a frame without its size, and gives the answer's, or why there is none.
    pub async fn send(&self, frame: BytesMut) -> Result<Option<Bytes>, CallError> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 4242));
        let pieces = match handle(self.context(), &Connection { peer }, frame).await? {
            Reply::Now(pieces) | Reply::Records(pieces, _) => pieces,
            Reply::Later(pieces) => pieces.await?,
            Reply::Nothing => return Ok(None),
        };
        let mut whole = Bytes::from(pieces.concat());
        let size = usize::try_from(whole.get_i32()).expect("a size");
        assert_eq!(size, whole.len(), "a frame is as long as it says");
        Ok(Some(whole))
    }

    /// One request and its answer.
    pub async fn call<R: Request>(&self, version: i16, request: &R) -> Result<R::Response, String> {
        match self.send(frame(version, request)).await {
            Ok(Some(answer)) => {
                let (correlation_id, response) = decode_response(answer, version).expect("an answer of the version");
                assert_eq!(correlation_id, CORRELATION_ID);
                Ok(response)
            }
            Ok(None) => Err("no answer".to_owned()),
            Err(error) => Err(format!("closed: {error}")),
        }
    }
}

const CORRELATION_ID: i32 = 77;

/// A request's frame without its size. One of a version that is not coded has the body of one that is.
pub fn frame<R: Request>(version: i16, request: &R) -> BytesMut {
    let coded = version.clamp(R::VERSIONS.min, R::VERSIONS.max);
    let mut frame = encode_request(CORRELATION_ID, Some("test"), coded, request).expect("a request of the version");
    frame.advance(4);
    frame[2..4].copy_from_slice(&version.to_be_bytes());
    frame
}

fn env(seed: u64) -> Env {
    Env::new(parts(seed, &SimDisk::new(seed, Trace::default())))
}

struct OneSealer(MemoryWal);

impl Sealers for OneSealer {
    fn sealer(&self, _: WalKind) -> Option<Arc<dyn Sealer>> {
        Some(Arc::new(self.0.clone()))
    }
}
