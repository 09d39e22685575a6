//! The coordinators at work: one task for each partition of `__consumer_offsets` and `__transaction_state` that somebody
//! has asked for, around the machine that decides (D14).
//!
//! ```text
//!  request ─▶ inputs ─▶ machine ─▶ records ─▶ partition ─▶ WAL
//!            (bounded)     │                               │ durable
//!                          └──▶ replies held ◀─────────────┘──▶ caller
//!                          └──▶ markers, after Prepare is durable ─▶ partitions
//! ```
//!
//! Owns: opening machines from snapshot and log, the order of input, append and reply, timers, markers and their
//! retries, snapshots and the log start behind them, producer ids, and the internal topics themselves. Leaves to others:
//! every decision (`machine`), durability (`wal`), Kafka's codes and versions (`api`).
//!
//! Invariants:
//! 1. A machine has one task; what it hands out is appended before its next input, and nobody else appends to its
//!    partition. Markers in `__consumer_offsets` go through the group machine's task, so it sees them in log order.
//! 2. No answer, reads included, leaves before the WAL is durable up to what the machine's state rested on (D1). The
//!    task does not wait for that: another one holds the replies.
//! 3. An append that fails ends the machine. It is opened again from what is durable, never rolled back.
//! 4. No marker is written before its Prepare record is durable; each is repeated until it is durable or its topic gone
//!    for good. A topic in the trash gets its markers, and one created since under the same name does not.
//! 5. A snapshot is referenced only once all that is in it is durable.
//! 6. Every queue is bounded; who finds one full is told to try again.
//!
//! Cancellation: dropping a request's future drops its answer only, what it asked for may be done.
//!
//! Sources: Kafka's `GroupCoordinator`, `TransactionCoordinator`, `TransactionMarkerChannelManager`; KIP-98, KIP-890; D1, D8, D14.

mod follow;
mod groups;
mod held;
mod internal;
mod ledger;
mod load;
mod markers;
mod place;
mod producer_ids;
mod seats;
mod snapshots;
mod txns;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use forebay_env::{Env, Instant, Shutdown, Task};
use forebay_format::NO_SEQUENCE;
use forebay_log::{LogError, OpenTopic, Partition, Partitions, Verification};
use forebay_metadata::{BrokerLife, Metadata};
use forebay_store::Store;
use forebay_types::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicPartition};
use forebay_wal::Wal;
use futures::StreamExt;
use tokio::sync::{oneshot, watch};

pub use forebay_format::CoordinatorKind;
pub use markers::{LocalMarkers, MarkerError, MarkerSink};

use self::groups::GroupInput;
use self::internal::InternalTopics;
use self::producer_ids::ProducerIds;
use self::seats::{Inputs, Seats};
use self::txns::TxnInput;
use crate::machine::group::{self, GroupConfig, GroupError, TopicResults};
use crate::machine::txn::{self, Refusal, TxnConfig, TxnPartition, Verified};
use crate::machine::{Now, Producer};

/// How long a request waits for its partition to open before it is told to come back: most open in a few milliseconds,
/// and a client that comes back waits a tenth of a second.
const LOADING_PATIENCE: Duration = Duration::from_millis(250);

/// Partitions asked at once for a listing, each of which may have to be opened.
const LISTS_IN_FLIGHT_MAX: usize = 16;

/// Partitions opened at once when the host starts. Each reads a few megabytes of its log at a time.
const OPENS_IN_FLIGHT_MAX: usize = 8;

/// How long one of them has before the next is begun: a partition that cannot be read holds up nobody's time-outs.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Between looks at a clock that stands still.
const STALLED_LOOK: Duration = Duration::from_millis(100);

/// What an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    pub groups: GroupConfig,
    pub txns: TxnConfig,
    /// `offsets.topic.num.partitions`, when the topic is created.
    pub offsets_partitions: i32,
    /// `transaction.state.log.num.partitions`, when the topic is created.
    pub txn_partitions: i32,
    /// Records of one machine between two snapshots: opening replays so many at most, a matter of a tenth of a second.
    pub records_per_snapshot: u64,
    /// A planted bug: of each transaction only the first partition gets its marker.
    pub sabotage_half_markers: bool,
}

impl Default for HostConfig {
    /// As in Kafka.
    fn default() -> Self {
        Self {
            groups: GroupConfig::default(),
            txns: TxnConfig::default(),
            offsets_partitions: 50,
            txn_partitions: 50,
            records_per_snapshot: 10_000,
            sabotage_half_markers: false,
        }
    }
}

/// What coordinators are made of: one broker epoch.
pub struct HostParts {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub metadata: Arc<dyn Metadata>,
    pub life: BrokerLife,
    pub partitions: Arc<Partitions>,
    pub wal: Wal,
    pub markers: Arc<dyn MarkerSink>,
    pub config: HostConfig,
}

/// Why a coordinator did not answer. All of these may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// COORDINATOR_LOAD_IN_PROGRESS
    #[error("the coordinator is being opened")]
    Loading,
    /// COORDINATOR_NOT_AVAILABLE
    #[error("the coordinator has too much to do, or its topic cannot be created now")]
    Unavailable,
    /// NOT_COORDINATOR. What was asked for may have been done all the same.
    #[error("this broker epoch is over, or the coordinator was closed")]
    NotCoordinator,
}

/// Why a partition must not take a producer's first transactional batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// INVALID_TXN_STATE, or TRANSACTION_ABORTABLE where the request knows that.
    #[error("the partition is not in the producer's transaction")]
    NotInTransaction,
}

impl VerifyError {
    /// Whether the coordinator may confirm the same transaction when it is asked again.
    pub fn is_retriable(self) -> bool {
        match self {
            Self::Coordinator(_) | Self::Refused(Refusal::Concurrent | Refusal::NoProducerId) => true,
            Self::Refused(
                Refusal::TransactionalId
                | Refusal::Timeout
                | Refusal::Mapping
                | Refusal::Fenced
                | Refusal::Epoch
                | Refusal::State
                | Refusal::NotFound,
            )
            | Self::NotInTransaction => false,
        }
    }
}

/// What all tasks of the host work with.
struct Shared {
    env: Env,
    store: Arc<dyn Store>,
    metadata: Arc<dyn Metadata>,
    life: BrokerLife,
    partitions: Arc<Partitions>,
    wal: Wal,
    markers: Arc<dyn MarkerSink>,
    config: HostConfig,
    /// Before any machine.
    started: Instant,
    stopping: Shutdown,
    ids: ProducerIds,
}

impl Shared {
    fn now(&self) -> Now {
        let at = self.env.monotonic();
        let stalled = self.wal.time_stalled(at);
        Now { wall: self.env.now(), uptime: at.duration_since(self.started).saturating_sub(stalled) }
    }

    /// Whether the wall clock may be acted on (D10).
    fn clocks_agree(&self, now: Now) -> bool {
        let agree = forebay_store::clocks_agree(now.wall, self.store.now());
        if let Err(why) = &agree {
            tracing::warn!(%why, "no offset or transactional id expires");
        }
        agree.is_ok()
    }

    /// Until [`Now::uptime`] is that.
    async fn sleep_until(&self, uptime: Duration) {
        let mut least = Duration::ZERO;
        loop {
            let left = uptime.saturating_sub(self.now().uptime);
            if left.is_zero() {
                return;
            }
            self.env.sleep(left.max(least)).await;
            // Time that is left after the sleep stood still with the WAL: look again soon.
            least = STALLED_LOOK;
        }
    }

    fn is_over(&self) -> bool {
        self.stopping.is_triggered() || self.partitions.ended().is_some() || self.wal.has_ended().is_some()
    }

    /// The internal topic, open here.
    fn topic(&self, kind: CoordinatorKind) -> Option<Arc<OpenTopic>> {
        self.partitions.by_name(internal::name(kind)).ok()
    }

    fn partition(&self, kind: CoordinatorKind, index: PartitionIndex) -> Option<Arc<Partition>> {
        self.topic(kind)?.partition(index).ok().cloned()
    }
}

/// The group and transaction coordinators of one broker epoch.
pub struct Coordinators {
    shared: Arc<Shared>,
    internal: InternalTopics,
    groups: Seats<GroupInput>,
    txns: Seats<TxnInput>,
    /// For the tasks of seats, which must not keep their owner.
    myself: Weak<Self>,
    tasks: OnceLock<[Task<()>; 3]>,
}

impl Coordinators {
    /// Opens partitions when they are first asked for; those with transactions at once, in the background: their decisions
    /// must be carried out and their time-outs must run whether anybody asks or not.
    pub fn start(parts: HostParts) -> Arc<Self> {
        let HostParts { env, store, metadata, life, partitions, wal, markers, mut config } = parts;
        // A record goes into one batch, and a batch into one entry of the WAL.
        let entry_max = wal.entry_bytes_max().saturating_sub(ledger::BATCH_HEAD_ROOM);
        config.groups.record_size_max = config.groups.record_size_max.min(entry_max);
        let shared = Arc::new(Shared {
            started: env.monotonic(),
            stopping: Shutdown::default(),
            ids: ProducerIds::default(),
            env,
            store,
            metadata,
            life,
            partitions,
            wal,
            markers,
            config,
        });
        let host = Arc::new_cyclic(|myself: &Weak<Self>| Self {
            shared: Arc::clone(&shared),
            internal: InternalTopics::default(),
            groups: Seats::default(),
            txns: Seats::default(),
            myself: Weak::clone(myself),
            tasks: OnceLock::new(),
        });
        let (env, weak) = (&shared.env, || Arc::downgrade(&host));
        let tasks = [
            env.spawn("producer-ids", producer_ids::refill(Arc::clone(&shared))),
            env.spawn("coordinators-follow", follow::follow(Arc::clone(&shared), weak())),
            env.spawn("transactions-open", Self::open_transactions(weak(), shared.partitions.placed())),
        ];
        assert!(host.tasks.set(tasks).is_ok(), "a host is started once");
        host
    }

    /// Opens machines of partitions with transactions, of those too that become open later than others.
    async fn open_transactions(host: Weak<Self>, mut placed: watch::Receiver<()>) {
        let open = async |index| {
            let inputs = host.upgrade().map(|host| (host.txn_inputs(index), host.shared.env.clone()));
            if let Some((inputs, env)) = inputs {
                // Where that was too short, it goes on opening.
                let _ = env.timeout(OPEN_PATIENCE, inputs.when_open()).await;
            }
        };
        loop {
            placed.mark_unchanged();
            let Some(host) = host.upgrade().filter(|host| !host.shared.is_over()) else { return };
            let mut closed = host.in_use(CoordinatorKind::Transaction, |_| false);
            closed.retain(|index| !host.txns.is_open(*index));
            drop(host);
            futures::stream::iter(closed).for_each_concurrent(OPENS_IN_FLIGHT_MAX, open).await;
            if placed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The partition that a group or a transactional id belongs to. The topic need not exist yet.
    pub fn find(&self, kind: CoordinatorKind, key: &str) -> PartitionIndex {
        let name = internal::name(kind);
        let existing = self.shared.metadata.topics().by_name(name).and_then(|row| row.partitions.len().try_into().ok());
        place::of(key, existing.unwrap_or_else(|| internal::partitions(kind, &self.shared.config)))
    }

    /// The partition that a transaction is in when it commits offsets of the group.
    pub fn offsets_of(&self, group: &str) -> TxnPartition {
        let topic = internal::name(CoordinatorKind::Group).clone();
        let topic_id = self.shared.metadata.topics().by_name(&topic).map(|row| row.id);
        TxnPartition { topic, topic_id, partition: self.find(CoordinatorKind::Group, group) }
    }

    /// Returns once the coordinators' topic is there, which it creates where need be.
    ///
    /// # Errors
    /// [`CoordinatorError::Unavailable`] where the metadata did not take it; [`CoordinatorError::NotCoordinator`].
    pub async fn prepare(&self, kind: CoordinatorKind) -> Result<(), CoordinatorError> {
        if self.shared.is_over() {
            return Err(CoordinatorError::NotCoordinator);
        }
        self.internal.ensure(&self.shared, kind).await
    }

    /// Asks the coordinator of the group that the request is about. A join or sync may wait as long as its rebalance.
    ///
    /// # Panics
    /// On [`group::Request::List`], which is about all groups: [`Coordinators::list_groups`]; and on a commit in a
    /// transaction, which must be verified: [`Coordinators::commit_in_transaction`].
    pub async fn group(&self, request: group::Request) -> Result<group::Reply, CoordinatorError> {
        let index = self.find(CoordinatorKind::Group, groups::group_of(&request));
        let inputs = self.open_group(index).await?;
        let (reply, answer) = oneshot::channel();
        inputs.offer(GroupInput::Request { request, reply })?;
        answer.await.map_err(|_| CoordinatorError::NotCoordinator)
    }

    /// Every group, in order of its id.
    pub async fn list_groups(&self, list: group::List) -> Result<Vec<group::Listed>, CoordinatorError> {
        let ask = |index| {
            let request = group::Request::List(list.clone());
            async move {
                let (reply, answer) = oneshot::channel();
                self.open_group(index).await?.offer(GroupInput::Request { request, reply })?;
                match answer.await {
                    Ok(group::Reply::List(listed)) => Ok(listed),
                    Ok(other) => unreachable!("a listing is answered with one, not with {other:?}"),
                    Err(_) => Err(CoordinatorError::NotCoordinator),
                }
            }
        };
        let indexes = self.in_use(CoordinatorKind::Group, |index| self.groups.is_open(index));
        let mut listed = gather(indexes, ask).await?.into_iter().flatten().collect::<Vec<_>>();
        listed.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(listed)
    }

    /// Commits offsets as a part of a transaction (TxnOffsetCommit), which the partition of the group must be in.
    pub async fn commit_in_transaction(
        &self,
        transactional_id: &str,
        producer: Producer,
        commit: group::Commit,
    ) -> Result<Result<Vec<TopicResults>, GroupError>, VerifyError> {
        let index = self.find(CoordinatorKind::Group, &commit.group);
        let inputs = self.open_group(index).await?;
        let partition = self.shared.partition(CoordinatorKind::Group, index).ok_or(CoordinatorError::NotCoordinator)?;
        let verification = partition.verification(producer.id, producer.epoch, NO_SEQUENCE);
        let guard = match verification.map_err(|_: LogError| CoordinatorError::NotCoordinator)? {
            Verification::Done => None,
            Verification::Needed(guard) => {
                let asked = self.verify(transactional_id, (producer.id, producer.epoch), partition.id()).await;
                // Another request may hold the same guard: only a definite no takes it away.
                asked.inspect_err(|error| {
                    if !error.is_retriable() {
                        partition.verification_failed(producer.id, guard);
                    }
                })?;
                Some(guard)
            }
        };
        let (reply, answer) = oneshot::channel();
        inputs.offer(GroupInput::InTransaction { producer, guard, commit, reply })?;
        match answer.await.map_err(|_| CoordinatorError::NotCoordinator)? {
            Some(group::Reply::Commit(result)) => Ok(result),
            Some(other) => unreachable!("a commit is answered as one, not with {other:?}"),
            None => Err(VerifyError::NotInTransaction),
        }
    }

    /// Asks the coordinator of the transactional id that the request is about. Where InitProducerId may need a fresh
    /// producer id and has none, it is given one.
    ///
    /// # Panics
    /// On [`txn::Request::List`], which is about all ids: [`Coordinators::list_transactions`].
    pub async fn txn(&self, mut request: txn::Request) -> Result<txn::Answer, CoordinatorError> {
        let index = self.find(CoordinatorKind::Transaction, txns::id_of(&request));
        let inputs = self.open_txn(index).await?;
        if let txn::Request::InitProducerId(init) = &mut request
            && init.fresh.is_none()
        {
            init.fresh = Some(self.next_producer_id().await?);
        }
        let (reply, answer) = oneshot::channel();
        inputs.offer(TxnInput { request, reply })?;
        answer.await.map_err(|_| CoordinatorError::NotCoordinator)
    }

    /// Every transactional id that passes, in order.
    pub async fn list_transactions(&self, list: txn::List) -> Result<txn::Listing, CoordinatorError> {
        let ask = |index| {
            let request = txn::Request::List(list.clone());
            async move {
                let (reply, answer) = oneshot::channel();
                self.open_txn(index).await?.offer(TxnInput { request, reply })?;
                match answer.await {
                    Ok(txn::Answer::List(listing)) => Ok(listing),
                    Ok(other) => unreachable!("a listing is answered with one, not with {other:?}"),
                    Err(_) => Err(CoordinatorError::NotCoordinator),
                }
            }
        };
        let indexes = self.in_use(CoordinatorKind::Transaction, |index| self.txns.is_open(index));
        let mut transactions = Vec::new();
        for listing in gather(indexes, ask).await? {
            transactions.extend(listing.transactions);
        }
        transactions.sort_by(|a: &txn::Listed, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(txn::Listing { transactions, unknown_states: list.unknown_states() })
    }

    /// Whether the partition is in the producer's ongoing transaction (KIP-890 part 1).
    pub async fn verify(
        &self,
        transactional_id: &str,
        (id, epoch): (ProducerId, ProducerEpoch),
        partition: TopicPartition,
    ) -> Result<(), VerifyError> {
        let TopicPartition { topic, partition: index } = partition;
        let Some(row) = self.shared.metadata.topics().by_id(topic) else {
            return Err(VerifyError::NotInTransaction);
        };
        let request = txn::Request::Verify(txn::Verify {
            transactional_id: transactional_id.to_owned(),
            producer: Producer { id, epoch },
            partitions: vec![TxnPartition { topic: row.name.clone(), topic_id: Some(row.id), partition: index }],
        });
        match self.txn(request).await? {
            txn::Answer::Verify(Ok(Verified { missing })) if missing.is_empty() => Ok(()),
            txn::Answer::Verify(Ok(_)) => Err(VerifyError::NotInTransaction),
            txn::Answer::Verify(Err(refusal)) => Err(refusal.into()),
            other => unreachable!("a verification is answered as one, not with {other:?}"),
        }
    }

    /// A producer id that nobody has had.
    pub async fn next_producer_id(&self) -> Result<ProducerId, CoordinatorError> {
        self.shared.ids.take(&self.shared.env).await
    }

    /// Answers nothing more, makes a last snapshot of every open machine, and returns when that is done. To be called
    /// while the WAL still runs.
    pub async fn stop(&self) {
        self.shared.stopping.trigger();
        self.groups.ended().await;
        self.txns.ended().await;
    }

    /// The inputs of a group machine that is open.
    async fn open_group(&self, index: PartitionIndex) -> Result<Inputs<GroupInput>, CoordinatorError> {
        self.prepare(CoordinatorKind::Group).await?;
        self.group_inputs(index).opened(&self.shared.env).await
    }

    /// The inputs of a group machine, open or not.
    fn group_inputs(&self, index: PartitionIndex) -> Inputs<GroupInput> {
        self.groups.seat(index, |inputs, progress| {
            let shared = Arc::clone(&self.shared);
            self.shared.env.spawn("group-coordinator", groups::run(shared, index, inputs, progress))
        })
    }

    async fn open_txn(&self, index: PartitionIndex) -> Result<Inputs<TxnInput>, CoordinatorError> {
        self.prepare(CoordinatorKind::Transaction).await?;
        self.txn_inputs(index).opened(&self.shared.env).await
    }

    fn txn_inputs(&self, index: PartitionIndex) -> Inputs<TxnInput> {
        self.txns.seat(index, |inputs, progress| {
            let (shared, host) = (Arc::clone(&self.shared), Weak::clone(&self.myself));
            self.shared.env.spawn("transaction-coordinator", txns::run(shared, host, index, inputs, progress))
        })
    }

    /// Partitions that may hold something: open here, or not empty.
    fn in_use(&self, kind: CoordinatorKind, is_open: impl Fn(PartitionIndex) -> bool) -> Vec<PartitionIndex> {
        let Some(topic) = self.shared.topic(kind) else { return Vec::new() };
        let used =
            |partition: &&Arc<Partition>| is_open(partition.id().partition) || partition.log_end() > Offset::ZERO;
        topic.partitions().filter(used).map(|partition| partition.id().partition).collect()
    }
}

/// Asks many partitions, some at once; all must answer.
async fn gather<T, F: Future<Output = Result<T, CoordinatorError>>>(
    indexes: Vec<PartitionIndex>,
    ask: impl Fn(PartitionIndex) -> F,
) -> Result<Vec<T>, CoordinatorError> {
    let answers = futures::stream::iter(indexes).map(ask).buffered(LISTS_IN_FLIGHT_MAX).collect::<Vec<_>>().await;
    answers.into_iter().collect()
}
