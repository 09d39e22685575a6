//! The task around one group machine.
//!
//! Invariants:
//! 1. A marker is appended by this task and told to the machine at once, so the machine sees commits in a transaction
//!    and its end in log order.
//! 2. A commit in a transaction is appended only while no marker has come past since it was verified (KIP-890).
//! 3. Offsets expire only while this clock and the store's agree (D10). Members go by a clock that never jumps and that
//!    stands still with the WAL; what waits in line is taken before time is up for anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use forebay_format::{CoordinatorKind, MarkerKind, MarkerSummary, NO_SEQUENCE};
use forebay_log::{LogError, Verification, VerificationGuard};
use forebay_metadata::TopicsView;
use forebay_types::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicName};
use tokio::sync::{mpsc, oneshot, watch};

use super::Shared;
use super::held::Held;
use super::ledger::{Ended, Ledger};
use super::load::{Entry, LoadError, Loaded, Loader, load};
use super::markers::{MARKER_BYTES, MarkerError, refused};
use super::seats::{Progress, in_line};
use super::snapshots::{Snapshots, Taken};
use crate::machine::group::{Commit, Fetch, GroupMachine, List, Loading, Replayed, Reply, Request, TOPIC_ID_HEADER};
use crate::machine::{Now, Output, Producer, Token};

/// Between two parts of a sweep over many groups.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// One thing that happens to a group machine.
pub(super) enum GroupInput {
    Request {
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    /// A commit whose transaction was verified with this guard; without one the transaction was open here then.
    InTransaction {
        producer: Producer,
        guard: Option<VerificationGuard>,
        commit: Commit,
        /// `None`: the transaction has ended meanwhile.
        reply: oneshot::Sender<Option<Reply>>,
    },
    /// A transaction that is in this partition ends. Answered once that is durable.
    Marker {
        producer: (ProducerId, ProducerEpoch),
        marker: MarkerSummary,
        reply: oneshot::Sender<Result<(), MarkerError>>,
    },
    /// A topic is gone for good.
    TopicGone {
        name: TopicName,
        id: TopicId,
    },
}

/// The group that a request is about.
pub(super) fn group_of(request: &Request) -> &str {
    match request {
        Request::Join(join) => &join.group,
        Request::Sync(sync) => &sync.group,
        Request::Heartbeat(heartbeat) => &heartbeat.group,
        Request::Leave(leave) => &leave.group,
        Request::Commit(commit) => &commit.group,
        Request::Fetch(fetch) => &fetch.group,
        Request::DeleteOffsets(delete) => &delete.group,
        Request::DeleteGroup { group } | Request::Describe { group } => group,
        Request::CommitInTransaction(..) => panic!("a commit in a transaction is verified first"),
        Request::List(_) => panic!("a listing is about all groups"),
    }
}

struct GroupLoader(Loading);

impl Loader for GroupLoader {
    const KIND: CoordinatorKind = CoordinatorKind::Group;

    fn new(shared: &Shared) -> Self {
        Self(Loading::new(shared.config.groups.clone()))
    }

    fn restore(shared: &Shared, payload: &[u8]) -> Result<Self, LoadError> {
        Loading::restore(shared.config.groups.clone(), payload).map(Self).map_err(LoadError::Groups)
    }

    fn take(&mut self, entry: Entry<'_>) -> Result<(), LoadError> {
        match entry {
            Entry::Record { offset, producer, key, value, headers } => {
                let header = headers.iter().find(|(name, _)| name == TOPIC_ID_HEADER.as_bytes());
                let topic_id = header.and_then(|(_, value)| value.as_deref());
                let known = self.0.replay(Replayed { offset, producer, key, value, topic_id });
                let known = known.map_err(|source| LoadError::Record { at: offset, source })?;
                if !known {
                    tracing::debug!(%offset, "a record of a kind that a newer Kafka writes was passed over");
                }
            }
            Entry::Marker { producer, committed } => self.0.transaction_ended(producer, committed),
        }
        Ok(())
    }
}

enum Answer {
    Plain(oneshot::Sender<Reply>),
    InTransaction(oneshot::Sender<Option<Reply>>),
}

impl Answer {
    fn send(self, reply: Reply) {
        // Whoever asked may have gone.
        let _ = match self {
            Self::Plain(sender) => sender.send(reply).map_err(drop),
            Self::InTransaction(sender) => sender.send(Some(reply)).map_err(drop),
        };
    }
}

/// Opens the partition's machine, and runs it until the broker epoch or the host ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    index: PartitionIndex,
    inputs: mpsc::Receiver<GroupInput>,
    progress: watch::Sender<Progress>,
) {
    let Some(loaded) = load::<GroupLoader>(&shared, index).await else { return };
    let Loaded { loader, partition, snapshot_at, replayed } = loaded;
    let (now, topics) = (shared.now(), shared.metadata.topics());
    let open = move || {
        let mut machine = loader.0.open(now);
        let gone = topics_gone(&mut machine, &topics, now);
        (machine, gone)
    };
    let (machine, gone) = shared.env.blocking("coordinator-open", open).await;
    let task = GroupTask {
        ledger: Ledger::new(Arc::clone(&shared), Arc::clone(&partition), replayed),
        held: Held::start(&shared.env, &shared.wal),
        snapshots: Snapshots::new(Arc::clone(&shared), partition, CoordinatorKind::Group, snapshot_at),
        waiting: BTreeMap::new(),
        next_token: Token(0),
        next_sweep: now.uptime + shared.config.groups.sweep_interval,
        shared,
    };
    tracing::debug!(partition = %index, replayed, "group coordinator open");
    task.run(machine, gone, inputs, progress).await;
}

/// Topics that offsets were committed for, and that went for good while nobody looked.
fn topics_gone(machine: &mut GroupMachine, topics: &TopicsView, now: Now) -> BTreeSet<(TopicName, TopicId)> {
    let mut ask = |request| {
        let output = machine.handle(now, Offset::ZERO, Token(0), request);
        assert!(output.records.is_empty(), "a read has nothing to record");
        output.replies.into_iter().map(|(_, reply)| reply).next()
    };
    let mut gone = BTreeSet::new();
    let Some(Reply::List(groups)) = ask(Request::List(List::default())) else { return gone };
    for listed in groups {
        let fetch = Fetch { group: listed.group, topics: None, require_stable: false };
        let Some(Reply::Fetch(fetched)) = ask(Request::Fetch(fetch)) else { continue };
        for topic in fetched {
            let positions = topic.partitions.into_iter().filter_map(|partition| partition.position.ok().flatten());
            let ids = positions.filter_map(|position| position.topic_id);
            gone.extend(ids.filter(|id| topics.by_id(*id).is_none()).map(|id| (topic.topic.clone(), id)));
        }
    }
    gone
}

struct GroupTask {
    shared: Arc<Shared>,
    ledger: Ledger,
    held: Held,
    snapshots: Snapshots,
    /// Requests that the machine has not answered: joins and syncs, for the most part.
    waiting: BTreeMap<Token, Answer>,
    next_token: Token,
    next_sweep: Duration,
}

impl GroupTask {
    async fn run(
        mut self,
        machine: GroupMachine,
        gone: BTreeSet<(TopicName, TopicId)>,
        mut inputs: mpsc::Receiver<GroupInput>,
        progress: watch::Sender<Progress>,
    ) {
        let Ok(mut machine) = self.serve(machine, gone, &mut inputs, progress).await else { return };
        drop(inputs);
        if self.ledger.records() > 0 {
            machine = self.snapshot(machine).await;
        }
        for (token, reply) in machine.close() {
            if let Some(answer) = self.waiting.remove(&token) {
                answer.send(reply);
            }
        }
        self.held.release().await;
        self.snapshots.finish().await;
    }

    /// Gives the machine back when the host stops.
    async fn serve(
        &mut self,
        mut machine: GroupMachine,
        gone: BTreeSet<(TopicName, TopicId)>,
        inputs: &mut mpsc::Receiver<GroupInput>,
        progress: watch::Sender<Progress>,
    ) -> Result<GroupMachine, Ended> {
        for (name, id) in gone {
            self.take(&mut machine, GroupInput::TopicGone { name, id }).await?;
        }
        progress.send_replace(Progress::Open);
        loop {
            self.do_what_is_due(&mut machine, inputs).await?;
            if self.ledger.records() >= self.shared.config.records_per_snapshot && self.snapshots.is_idle() {
                machine = self.snapshot(machine).await;
            }
            let wake = machine.next_deadline().map_or(self.next_sweep, |deadline| deadline.min(self.next_sweep));
            tokio::select! {
                biased;
                () = self.shared.stopping.triggered() => return Ok(machine),
                input = inputs.recv() => match input {
                    Some(input) => self.take(&mut machine, input).await?,
                    None => return Ok(machine),
                },
                () = self.shared.sleep_until(wake) => {}
            }
        }
    }

    async fn do_what_is_due(
        &mut self,
        machine: &mut GroupMachine,
        inputs: &mut mpsc::Receiver<GroupInput>,
    ) -> Result<(), Ended> {
        let is_due = |machine: &GroupMachine, now: Now| machine.next_deadline().is_some_and(|it| it <= now.uptime);
        if is_due(machine, self.shared.now()) {
            for input in in_line(inputs) {
                self.take(machine, input).await?;
            }
        }
        let now = self.shared.now();
        if is_due(machine, now) {
            let output = machine.tick(now, self.ledger.end());
            self.settle(output).await?;
        }
        if self.next_sweep <= now.uptime {
            self.next_sweep = now.uptime + self.shared.config.groups.sweep_interval;
            if self.shared.clocks_agree(now) {
                let output = machine.sweep(now, self.ledger.end());
                if machine.is_sweeping() {
                    self.next_sweep = now.uptime + SWEEP_PAUSE;
                }
                self.settle(output).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, machine: &mut GroupMachine, input: GroupInput) -> Result<(), Ended> {
        let now = self.shared.now();
        match input {
            GroupInput::Request { request, reply } => self.ask(machine, now, request, Answer::Plain(reply)).await,
            GroupInput::InTransaction { producer, guard, commit, reply } => {
                let verification = self.ledger.partition().verification(producer.id, producer.epoch, NO_SEQUENCE)?;
                let goes_on = match verification {
                    Verification::Done => true,
                    Verification::Needed(needed) => guard == Some(needed),
                };
                if !goes_on {
                    let position = self.ledger.position();
                    self.held.hold(position, move || drop(reply.send(None))).await;
                    return Ok(());
                }
                let request = Request::CommitInTransaction(producer, commit);
                self.ask(machine, now, request, Answer::InTransaction(reply)).await
            }
            GroupInput::Marker { producer, marker, reply } => {
                let mut admission = self.shared.wal.admit_own(MARKER_BYTES).await?;
                let partition = self.ledger.partition();
                let appended = match partition.append_marker(producer, marker, now.wall, &mut admission) {
                    Ok(appended) => appended,
                    Err(error @ LogError::Ended(_)) => return Err(error.into()),
                    Err(error) => {
                        let refused = refused(partition, &error);
                        // Whoever asked may have gone.
                        let _ = reply.send(Err(refused));
                        return Ok(());
                    }
                };
                if !appended.duplicate {
                    self.ledger.note(&appended);
                    machine.transaction_ended(producer.0, marker.kind == MarkerKind::Commit);
                }
                self.held
                    .hold(appended.position, move || {
                        // The transaction's coordinator may have gone.
                        let _ = reply.send(Ok(()));
                    })
                    .await;
                Ok(())
            }
            GroupInput::TopicGone { name, id } => {
                let output = machine.topic_deleted(now, self.ledger.end(), &name, id);
                self.settle(output).await
            }
        }
    }

    async fn ask(
        &mut self,
        machine: &mut GroupMachine,
        now: Now,
        request: Request,
        answer: Answer,
    ) -> Result<(), Ended> {
        let token = self.next_token;
        self.next_token = Token(token.0 + 1);
        self.waiting.insert(token, answer);
        let output = machine.handle(now, self.ledger.end(), token, request);
        self.settle(output).await
    }

    async fn settle(&mut self, output: Output<Reply>) -> Result<(), Ended> {
        self.ledger.append(&output.records, output.producer).await?;
        let position = match output.rests_on {
            Some(offset) => self.ledger.position_of(offset),
            None => self.ledger.position(),
        };
        for (token, reply) in output.replies {
            let answer = self.waiting.remove(&token).expect("a request is answered once");
            self.held.hold(position, move || answer.send(reply)).await;
        }
        Ok(())
    }

    async fn snapshot(&mut self, machine: GroupMachine) -> GroupMachine {
        let (at, position) = (self.ledger.end(), self.ledger.position());
        let work = move || {
            let payload = machine.snapshot();
            (machine, payload)
        };
        let (machine, payload) = self.shared.env.blocking("coordinator-snapshot", work).await;
        self.snapshots.write(Taken { at, position, payload }).await;
        self.ledger.begin_anew();
        machine
    }
}
