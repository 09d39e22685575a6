//! One broker's coordinators, and short ways to ask them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_coordinator::Coordinators;
use forebay_coordinator::host::{CoordinatorError, CoordinatorKind, HostConfig, HostParts, LocalMarkers, VerifyError};
use forebay_coordinator::machine::Producer;
use forebay_coordinator::machine::group::{
    self, Caller, Commit, CommitPartition, CommitTopic, Fetch, FetchTopic, GroupError, Reply,
};
use forebay_coordinator::machine::txn::{
    self, AddPartitions, Answer, EndTxn, InitProducerId, Outcome, Refusal, TxnPartition, TxnStatus,
};
use forebay_env::simulated::{ArmedFailPoints, SimClock, SimDisk, Trace, parts};
use forebay_env::{Env, Parts};
use forebay_log::{
    Isolation, LogConfig, LogError, Owner, OwnerParts, Partition, ReadRequest, Recovered, Recovery, Sealers,
    Verification, validate,
};
use forebay_metadata::state::WalKind;
use forebay_metadata::store::Host;
use forebay_metadata::{BrokerLife, Command, Metadata, Reply as MetadataReply};
use forebay_store::memory::MemoryStore;
use forebay_store::{Bucket, Purpose, Store};
use forebay_types::{BrokerId, Offset, PartitionIndex, ProducerId, TopicId, TopicName};
use forebay_wal::providers::memory::MemoryWal;
use forebay_wal::{Sealer, WalOwner};
use forebay_wire::{BatchBuilder, Batches};

/// What survives a crash, and what the test knows.
pub struct World {
    pub bucket: Arc<dyn Store>,
    pub fail_points: ArmedFailPoints,
    pub clock: SimClock,
    pub config: HostConfig,
    pub wal: MemoryWal,
    starts: u64,
}

/// One running life.
pub struct Life {
    pub env: Env,
    pub bucket: Bucket,
    pub host: Host,
    pub broker: BrokerLife,
    pub metadata: Arc<dyn Metadata>,
    pub owner: Owner,
    pub recovered: Recovered,
    pub coordinators: Arc<Coordinators>,
}

struct MemorySealers(MemoryWal);

impl Sealers for MemorySealers {
    fn sealer(&self, _: WalKind) -> Option<Arc<dyn Sealer>> {
        Some(Arc::new(self.0.clone()))
    }
}

impl World {
    pub fn new() -> Self {
        let env = Env::new(parts(7, &SimDisk::new(7, Trace::default())));
        Self {
            bucket: Arc::new(MemoryStore::new(&env)),
            fail_points: ArmedFailPoints::default(),
            clock: SimClock::default(),
            // Few partitions, so that opening all of them is little work.
            config: HostConfig { offsets_partitions: 4, txn_partitions: 4, ..HostConfig::default() },
            wal: MemoryWal::default(),
            starts: 0,
        }
    }

    pub async fn start(&mut self) -> Life {
        self.starts += 1;
        let disk = SimDisk::new(7, Trace::default());
        let env = Env::new(Parts {
            clock: Box::new(self.clock.clone()),
            fail_points: Box::new(self.fail_points.clone()),
            ..parts(self.starts, &disk)
        });
        let bucket = Bucket::over(&env, Arc::clone(&self.bucket));
        let host = Host::open(&env, bucket.store(Purpose::Metadata), None).await.expect("the metadata opens");
        let metadata: Arc<dyn Metadata> = host.metadata();
        let broker = BrokerId::ZERO;
        let register = Command::RegisterBroker { broker, incarnation: u128::from(self.starts), wal: WalKind::Memory };
        let Ok(MetadataReply::Registered(registered)) = metadata.submit(register).await else {
            panic!("a broker registers")
        };
        let cluster = metadata.cluster().clone();
        let life = BrokerLife::new(broker, registered.epoch);
        let config = LogConfig::default();
        let recovery = Recovery {
            env: env.clone(),
            store: bucket.store(Purpose::Wal),
            metadata: Arc::clone(&metadata),
            cluster: cluster.clone(),
            life,
            size_target: config.upload.size_target,
        };
        let sealers = MemorySealers(self.wal.clone());
        let recovered = recovery.run(&registered, &sealers).await.expect("earlier lives are closed");
        let by = WalOwner { cluster: cluster.clone(), broker, epoch: registered.epoch };
        let owner = Owner::start(OwnerParts {
            env: env.clone(),
            store: bucket.store(Purpose::Wal),
            metadata: Arc::clone(&metadata),
            cluster,
            life,
            provider: Box::new(self.wal.provider(&env, &by)),
            next_sequence: recovered.next_sequence,
            topic_defaults: BTreeMap::new(),
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
            config: self.config.clone(),
        });
        Life { env, bucket, host, broker: life, metadata, owner, recovered, coordinators }
    }

    /// Ends a life as a power cut does: its tasks stop where they are.
    pub async fn crash(&mut self, life: Life) {
        drop(life);
        tokio::task::yield_now().await;
    }

    /// Ends a life in order.
    pub async fn stop(&mut self, life: Life) {
        life.coordinators.stop().await;
        life.owner.drain().await.expect("everything reaches the bucket");
        drop(life.coordinators);
        drop(life.owner);
        life.host.stop().await;
    }
}

pub fn topic_name(text: &str) -> TopicName {
    TopicName::new(text).expect("legal")
}

impl Life {
    pub async fn create_topic(&self, text: &str) -> TopicId {
        let mut bits = [0; 16];
        self.env.fill_random(&mut bits);
        let id = TopicId::from_random(bits);
        let name = topic_name(text);
        let command = Command::CreateTopic { name, id, partitions: 1, config: BTreeMap::new(), now: self.env.now() };
        self.metadata.submit(command).await.expect("a new topic");
        self.owner.partitions.caught_up(&*self.metadata).await;
        id
    }

    pub fn partition(&self, topic: &str) -> Arc<Partition> {
        let topic = self.owner.partitions.by_name(&topic_name(topic)).expect("the topic is open");
        Arc::clone(topic.partition(PartitionIndex::ZERO).expect("it has a partition"))
    }

    /// The partition of an internal topic that holds `key`.
    pub fn own_partition(&self, kind: CoordinatorKind, key: &str) -> Arc<Partition> {
        let name = match kind {
            CoordinatorKind::Group => "__consumer_offsets",
            CoordinatorKind::Transaction => "__transaction_state",
        };
        let topic = self.owner.partitions.by_name(&topic_name(name)).expect("the topic is open");
        Arc::clone(topic.partition(self.coordinators.find(kind, key)).expect("it has the partition"))
    }

    pub async fn init(&self, id: &str) -> Result<Producer, Refusal> {
        let request = txn::Request::InitProducerId(InitProducerId {
            transactional_id: id.to_owned(),
            timeout_ms: 60_000,
            expected: None,
            fresh: None,
            version: 4,
        });
        match self.coordinators.txn(request).await.expect("a coordinator") {
            Answer::InitProducerId(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// As a client does: again while the last transaction is ending.
    pub async fn init_in_time(&self, id: &str) -> Producer {
        loop {
            match self.init(id).await {
                Err(Refusal::Concurrent) => self.env.sleep(std::time::Duration::from_millis(20)).await,
                other => return other.expect("a producer"),
            }
        }
    }

    pub async fn add(&self, id: &str, producer: Producer, topic: &str, index: PartitionIndex) -> Result<(), Refusal> {
        let topic = topic_name(topic);
        let topic_id = self.metadata.topics().by_name(&topic).map(|row| row.id);
        let partitions = vec![TxnPartition { topic, topic_id, partition: index }];
        let request = txn::Request::AddPartitions(AddPartitions {
            transactional_id: id.to_owned(),
            producer,
            partitions,
            version: 3,
        });
        match self.coordinators.txn(request).await.expect("a coordinator") {
            Answer::AddPartitions(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub async fn end(&self, id: &str, producer: Producer, outcome: Outcome) -> Result<(), Refusal> {
        let request = txn::Request::EndTxn(EndTxn { transactional_id: id.to_owned(), producer, outcome, version: 3 });
        match self.coordinators.txn(request).await.expect("a coordinator") {
            Answer::EndTxn(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub async fn status(&self, id: &str) -> Result<TxnStatus, Refusal> {
        let request = txn::Request::Describe { transactional_id: id.to_owned() };
        match self.coordinators.txn(request).await.expect("a coordinator") {
            Answer::Describe(result) => result.map(|described| described.status),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the id has no transaction that is ending.
    pub async fn settled(&self, id: &str) -> TxnStatus {
        loop {
            match self.status(id).await.expect("a known id") {
                TxnStatus::PrepareCommit | TxnStatus::PrepareAbort => {
                    self.env.sleep(std::time::Duration::from_millis(5)).await;
                }
                status => return status,
            }
        }
    }

    /// Produces one record in a transaction, verified as the broker does it.
    pub async fn produce(
        &self,
        id: &str,
        producer: Producer,
        topic: &str,
        sequence: i32,
        value: &str,
    ) -> Result<i64, String> {
        let partition = self.partition(topic);
        let mut batch =
            BatchBuilder::new(0).producer(producer.id.get(), producer.epoch.get(), sequence).transactional();
        batch.push(0, None, Some(value.as_bytes()), &[]);
        let config = Arc::clone(&self.owner.partitions.by_id(partition.id().topic).expect("open").config);
        let batch = validate(batch.build(), &config, 9, self.env.now()).expect("a sound batch");
        let guard = match partition.verification(producer.id, producer.epoch, sequence).expect("open") {
            Verification::Done => None,
            Verification::Needed(guard) => {
                let asked = self.coordinators.verify(id, (producer.id, producer.epoch), partition.id()).await;
                asked.map_err(|error| error.to_string())?;
                Some(guard)
            }
        };
        let mut admission = self.owner.wal.admit(batch.size()).await.expect("the WAL runs");
        let appended = partition.append(batch, guard, &mut admission).map_err(|error: LogError| error.to_string())?;
        self.owner.wal.durable(appended.position).await.expect("the WAL runs");
        Ok(appended.base_offset.get())
    }

    /// Values below what a reader may see; aborted ones are left out for one who reads committed.
    pub async fn values(&self, topic: &str, isolation: Isolation) -> Vec<String> {
        let partition = self.partition(topic);
        let end = partition.offsets().expect("open").end(isolation);
        let mut values = Vec::new();
        let mut from = Offset::ZERO;
        while from < end {
            let request = ReadRequest { from, isolation, bytes_max: 1 << 20, at_least_one: true };
            let read = partition.read(request).await.expect("readable");
            for run in &read.batches {
                for batch in Batches::new(run).map(|batch| batch.expect("whole batches")) {
                    let header = batch.header;
                    from = Offset::new(header.last_offset() + 1).expect("an offset");
                    let hidden = read.aborted.iter().any(|txn| {
                        txn.producer.get() == header.producer_id
                            && (txn.first_offset.get()..=txn.last_offset.get()).contains(&header.base_offset)
                    });
                    if header.is_control() || hidden {
                        continue;
                    }
                    let bytes = Bytes::copy_from_slice(batch.bytes);
                    for record in forebay_wire::batch::records(&bytes, 1 << 20).expect("sound") {
                        let value = record.expect("sound").value.expect("a value");
                        values.push(String::from_utf8(value.to_vec()).expect("text"));
                    }
                }
            }
        }
        values
    }

    fn commit_of(&self, group: &str, topic: &str, partitions: impl Iterator<Item = (i32, i64)>) -> Commit {
        let name = topic_name(topic);
        let topic_id = self.metadata.topics().by_name(&name).map(|row| row.id);
        let partition = |(index, offset)| CommitPartition { index, offset, leader_epoch: -1, metadata: String::new() };
        Commit {
            group: group.to_owned(),
            caller: Caller { generation: -1, ..Caller::default() },
            retention_ms: None,
            topics: vec![CommitTopic { topic: name, topic_id, partitions: partitions.map(partition).collect() }],
        }
    }

    /// A commit by nobody's member, as Flink's source does it.
    pub async fn commit(&self, group: &str, topic: &str, offset: i64) -> Result<(), CoordinatorError> {
        self.commit_many(group, topic, [(0, offset)].into_iter()).await
    }

    pub async fn commit_many(
        &self,
        group: &str,
        topic: &str,
        partitions: impl Iterator<Item = (i32, i64)>,
    ) -> Result<(), CoordinatorError> {
        let commit = self.commit_of(group, topic, partitions);
        match self.coordinators.group(group::Request::Commit(commit)).await? {
            Reply::Commit(Ok(results)) => {
                assert!(results.iter().flat_map(|topic| &topic.partitions).all(|(_, result)| result.is_ok()));
                Ok(())
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn commit_in(
        &self,
        id: &str,
        producer: Producer,
        group: &str,
        topic: &str,
        offset: i64,
    ) -> Result<(), VerifyError> {
        let commit = self.commit_of(group, topic, [(0, offset)].into_iter());
        let results = self.coordinators.commit_in_transaction(id, producer, commit).await?.expect("the group takes it");
        assert_eq!(results[0].partitions, [(0, Ok(()))]);
        Ok(())
    }

    /// The offset committed for partition 0 of a topic, of which the metadata need not know.
    pub async fn fetch(&self, group: &str, topic: &str, stable: bool) -> Result<Option<i64>, GroupError> {
        let name = topic_name(topic);
        let topic_id = self.metadata.topics().by_name(&name).map(|row| row.id);
        let fetch = Fetch {
            group: group.to_owned(),
            topics: Some(vec![FetchTopic { topic: name, topic_id, partitions: vec![0] }]),
            require_stable: stable,
        };
        match self.coordinators.group(group::Request::Fetch(fetch)).await.expect("a coordinator") {
            Reply::Fetch(topics) => {
                topics[0].partitions[0].position.clone().map(|found| found.map(|position| position.offset))
            }
            other => panic!("{other:?}"),
        }
    }
}

pub fn producer_id(raw: i64) -> ProducerId {
    ProducerId::new(raw).expect("not negative")
}
