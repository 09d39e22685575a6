//! Every partition that this broker owns, found by topic, and what moves them all: the WAL's publications, the
//! metadata's changes, the end of the broker epoch.
//!
//! Owns: which partitions are open, and following the metadata: topics created, grown, changed, deleted. Leaves to
//! others: the commands that change topics (`api`), opening itself (`open`), uploads (`upload`).
//!
//! Invariants:
//! 1. A partition is found here only while this broker epoch may serve it; after the WAL has ended none is.
//! 2. A partition is opened once in a broker epoch and stays open until its topic is purged, so that nothing of it is
//!    under way when it is opened. While its topic is in the trash it takes markers only, and its name is free.
//! 3. Publications reach a partition in offset order, from the WAL's one task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay_env::{Env, Instant, Task};
use forebay_metadata::config::TopicConfig;
use forebay_metadata::service::TopicRow;
use forebay_metadata::{CommitNumber, Metadata};
use forebay_types::{PartitionIndex, TopicId, TopicName, TopicPartition};
use forebay_wal::{DurableGroup, Publisher, WalError};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::open::Opener;
use crate::partition::{Partition, Service};
use crate::snapshot::Snapshots;
use crate::upload::Pending;

/// Between tries to open partitions whose state could not be read: somebody may put right what is in the way. It doubles up
/// to the second, as each try reads and tells of it again.
const REOPEN_WAIT_MIN: Duration = Duration::from_millis(200);
const REOPEN_WAIT_MAX: Duration = Duration::from_mins(1);

/// Why a partition cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no such topic or partition.
    #[error("there is no such topic or partition")]
    Unknown,
    /// It is being opened, or this broker epoch has ended: try again, here or elsewhere.
    #[error("the partition has no leader at the moment")]
    NoLeader,
}

/// A topic whose partitions are open here, live unless its row says otherwise.
pub struct OpenTopic {
    pub row: Arc<TopicRow>,
    pub config: Arc<TopicConfig>,
    /// By their numbers; `None` for one that is being opened, or whose state cannot be read.
    partitions: Vec<Option<Arc<Partition>>>,
}

impl OpenTopic {
    pub fn partition(&self, index: PartitionIndex) -> Result<&Arc<Partition>, Unavailable> {
        let at = usize::try_from(index.get()).expect("partitions are counted from 0");
        match self.partitions.get(at) {
            Some(partition) => partition.as_ref().ok_or(Unavailable::NoLeader),
            None => Err(Unavailable::Unknown),
        }
    }

    /// Those that are open, in order of their numbers.
    pub fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().flatten()
    }
}

#[derive(Default)]
struct Topics {
    /// Live ones.
    by_id: BTreeMap<TopicId, Arc<OpenTopic>>,
    by_name: BTreeMap<TopicName, TopicId>,
    trash: BTreeMap<TopicId, Arc<OpenTopic>>,
    /// Why nothing is served any more.
    ended: Option<Arc<str>>,
}

/// The partitions of this broker epoch. Made before its WAL, which publishes to it.
pub struct Partitions {
    env: Env,
    /// Of topic configurations, under the topic's names for them.
    topic_defaults: BTreeMap<String, String>,
    topics: RwLock<Topics>,
    pending: Arc<Pending>,
    snapshots: Arc<Snapshots>,
    /// What the metadata had said when it was last followed.
    followed: watch::Sender<CommitNumber>,
    placed: watch::Sender<()>,
    follower: OnceLock<Task<()>>,
}

impl Partitions {
    pub(crate) fn new(env: Env, topic_defaults: BTreeMap<String, String>, snapshots: Arc<Snapshots>) -> Arc<Self> {
        let (followed, placed) = (watch::Sender::new(CommitNumber::ZERO), watch::Sender::new(()));
        let (topics, pending) = (RwLock::default(), Arc::default());
        Arc::new(Self { env, topic_defaults, topics, pending, snapshots, followed, placed, follower: OnceLock::new() })
    }

    /// The live topic of that name, open here.
    pub fn by_name(&self, name: &TopicName) -> Result<Arc<OpenTopic>, Unavailable> {
        let topics = self.topics.read();
        let id = topics.by_name.get(name);
        id.and_then(|id| topics.by_id.get(id)).cloned().ok_or(topics.absent())
    }

    /// The live topic of that id, open here.
    pub fn by_id(&self, id: TopicId) -> Result<Arc<OpenTopic>, Unavailable> {
        let topics = self.topics.read();
        topics.by_id.get(&id).cloned().ok_or(topics.absent())
    }

    /// A partition of a live topic, or of one in the trash, where it takes markers only.
    pub fn get(&self, id: TopicPartition) -> Result<Arc<Partition>, Unavailable> {
        let topics = self.topics.read();
        let topic = topics.get(id.topic).ok_or(topics.absent())?;
        topic.partition(id.partition).cloned()
    }

    /// Every live topic that is open here, by id.
    pub fn all(&self) -> Vec<Arc<OpenTopic>> {
        self.topics.read().by_id.values().cloned().collect()
    }

    /// Why nothing is served any more, once the broker epoch is over.
    pub fn ended(&self) -> Option<Arc<str>> {
        self.topics.read().ended.clone()
    }

    /// Changes whenever partitions may have become open.
    pub fn placed(&self) -> watch::Receiver<()> {
        self.placed.subscribe()
    }

    /// Returns once what the metadata says now is followed here: a topic just created is open, one just deleted is gone.
    pub async fn caught_up(&self, metadata: &dyn Metadata) {
        let now = *metadata.changes().borrow();
        let mut followed = self.followed.subscribe();
        // The sender lives in `self`.
        let _ = followed.wait_for(|commit| *commit >= now).await;
    }

    /// Opens what is there and begins to follow the metadata. Returns once all live topics are open, as far as they can be;
    /// what could not be is tried again beside following, and so is what is in the trash, which nobody waits for.
    pub(crate) async fn follow(self: &Arc<Self>, opener: Opener) {
        let mut changes = opener.metadata().changes();
        let mut follower = Follower {
            partitions: Arc::clone(self),
            opener: Arc::new(opener),
            seen: BTreeMap::new(),
            trash: BTreeSet::new(),
            closed: BTreeSet::new(),
            again: Again { wait: REOPEN_WAIT_MIN, at: None },
            beside: None,
        };
        let commit = *changes.borrow_and_update();
        follower.follow().await;
        self.followed.send_replace(commit);
        let task = self.env.spawn("partitions-follow", async move {
            loop {
                tokio::select! {
                    biased;
                    () = follower.open_beside() => {}
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let commit = *changes.borrow_and_update();
                        follower.follow().await;
                        follower.partitions.followed.send_replace(commit);
                    }
                }
            }
        });
        assert!(self.follower.set(task).is_ok(), "the metadata is followed once");
    }

    pub(crate) fn pending(&self) -> Arc<Pending> {
        Arc::clone(&self.pending)
    }

    /// Snapshots the producers of these partitions at their committed ends, so that nothing below is needed to open them.
    /// Returns once it was tried: where it failed, [`Partition::opens_from`] is what it was.
    pub async fn snapshot_producers(&self, wanted: BTreeSet<TopicPartition>) {
        self.snapshots.take(self, wanted).await;
    }

    /// Live partitions of which footers would be read to open them.
    pub(crate) fn behind(&self) -> Vec<TopicPartition> {
        let topics = self.topics.read();
        let open = topics.by_id.values().flat_map(|topic| topic.partitions());
        open.filter(|partition| partition.is_behind()).map(|partition| partition.id()).collect()
    }

    pub(crate) fn producer_snapshot(&self, id: TopicPartition) -> Option<Arc<str>> {
        self.get(id).ok()?.producer_snapshot()
    }

    /// Serves nothing from here on.
    pub fn end_all(&self, why: &str) {
        let mut topics = self.topics.write();
        topics.ended.get_or_insert_with(|| why.into());
        topics.by_name.clear();
        let live = std::mem::take(&mut topics.by_id);
        let trash = std::mem::take(&mut topics.trash);
        live.into_values().chain(trash.into_values()).for_each(|topic| topic.serve(Service::Nothing));
    }

    /// Puts the topic in the place that its row says.
    fn place(&self, topic: OpenTopic) {
        let mut topics = self.topics.write();
        if topics.ended.is_some() {
            return topic.serve(Service::Nothing);
        }
        let topic = Arc::new(topic);
        let (id, name) = (topic.row.id, topic.row.name.clone());
        topics.remove(id);
        if topic.row.is_live() {
            topic.serve(Service::Everything);
            topics.by_name.insert(name, id);
            topics.by_id.insert(id, topic);
        } else {
            topic.serve(Service::Markers);
            topics.trash.insert(id, topic);
        }
        drop(topics);
        self.placed.send_replace(());
    }

    /// Closes the topics that are gone for good.
    fn retain(&self, is_there: impl Fn(TopicId) -> bool) {
        let mut topics = self.topics.write();
        let gone: Vec<TopicId> =
            topics.by_id.keys().chain(topics.trash.keys()).copied().filter(|id| !is_there(*id)).collect();
        for topic in gone.into_iter().filter_map(|id| topics.remove(id)) {
            topic.serve(Service::Nothing);
        }
    }

    /// The topic as it is open here, live or in the trash.
    fn open_topic(&self, id: TopicId) -> Option<Arc<OpenTopic>> {
        self.topics.read().get(id).cloned()
    }
}

impl OpenTopic {
    fn serve(&self, service: Service) {
        self.partitions().for_each(|partition| partition.serve(service));
    }
}

impl Topics {
    fn absent(&self) -> Unavailable {
        if self.ended.is_some() { Unavailable::NoLeader } else { Unavailable::Unknown }
    }

    fn get(&self, id: TopicId) -> Option<&Arc<OpenTopic>> {
        self.by_id.get(&id).or_else(|| self.trash.get(&id))
    }

    fn remove(&mut self, id: TopicId) -> Option<Arc<OpenTopic>> {
        let Some(topic) = self.by_id.remove(&id) else { return self.trash.remove(&id) };
        // The name may already be another topic's.
        if self.by_name.get(&topic.row.name) == Some(&id) {
            self.by_name.remove(&topic.row.name);
        }
        Some(topic)
    }
}

impl Publisher for Partitions {
    fn publish(&self, group: DurableGroup) {
        for entry in &group.entries {
            // Of a topic that is purged meanwhile nobody waits for anything.
            if let Ok(partition) = self.get(entry.partition) {
                partition.publish(&entry.summary);
            }
        }
        self.pending.push(group, self.env.monotonic());
    }

    fn ended(&self, error: &WalError) {
        tracing::error!(error = error as &dyn std::error::Error, "the WAL has ended: this broker epoch is over");
        self.end_all(&error.to_string());
    }
}

/// Keeps the open partitions in step with the metadata.
struct Follower {
    partitions: Arc<Partitions>,
    opener: Arc<Opener>,
    /// Each topic as it was last seen, to tell the changed ones.
    seen: BTreeMap<TopicId, Arc<TopicRow>>,
    /// Topics in the trash that nobody has tried to open yet.
    trash: BTreeSet<TopicId>,
    /// Topics of which not all could be opened.
    closed: BTreeSet<TopicId>,
    again: Again,
    beside: Option<Beside>,
}

/// When to try again what could not be opened.
struct Again {
    wait: Duration,
    at: Option<Instant>,
}

/// What is being opened beside following, which it must not hold up: it may take long to find that something cannot be read.
struct Beside {
    topics: Vec<TopicId>,
    opened: Task<BTreeMap<TopicPartition, Partition>>,
}

impl Follower {
    /// Opens what is live, closes what is purged, and moves the rest to where it belongs.
    async fn follow(&mut self) {
        let topics = self.opener.metadata().topics().all();
        let topics: BTreeMap<TopicId, Arc<TopicRow>> = topics.into_iter().map(|row| (row.id, row)).collect();
        let is_back = |id: &TopicId| !self.closed.contains(id) && topics.get(id).is_some_and(|row| row.is_live());
        if self.beside.as_ref().is_some_and(|beside| beside.topics.iter().any(is_back)) {
            // It left the trash while it is opened there; it is not opened twice.
            self.opened_beside().await;
        }
        self.partitions.retain(|id| topics.contains_key(&id));
        self.closed.retain(|id| topics.contains_key(id));
        self.trash.retain(|id| topics.contains_key(id));
        let changed: Vec<Arc<TopicRow>> = topics
            .values()
            .filter(|row| self.seen.get(&row.id).is_none_or(|seen| !Arc::ptr_eq(seen, row)))
            .cloned()
            .collect();
        let live = changed.iter().filter(|row| row.is_live());
        let missing = live.flat_map(|row| self.missing(row)).filter(|id| !self.was_closed(*id)).collect();
        self.seen = topics;
        let mut opened = self.opener.open(missing).await;
        for row in changed {
            let (id, is_live) = (row.id, row.is_live());
            self.trash.remove(&id);
            if self.place(row, &mut opened) {
                self.closed.remove(&id);
            } else if is_live {
                self.closed.insert(id);
            } else if !self.closed.contains(&id) {
                self.trash.insert(id);
            }
        }
        self.try_again_later();
    }

    /// Whether the partition was tried before: it is tried again by time, not whenever something of its topic changes.
    fn was_closed(&self, id: TopicPartition) -> bool {
        let seen = self.seen.get(&id.topic).filter(|_| self.closed.contains(&id.topic));
        seen.is_some_and(|row| row.partition(id.partition).is_some())
    }

    /// Opens what follows from no change: what could not be opened before, once that is due, and topics in the trash, one
    /// after the other. Where there is nothing, it does not return. Cancel safe.
    async fn open_beside(&mut self) {
        if self.beside.is_none() {
            let (env, due) = (self.partitions.env.clone(), self.again.at);
            if due.is_none_or(|due| due > env.monotonic())
                && let Some(id) = self.trash.pop_first()
            {
                self.begin_beside(vec![id]);
            } else {
                match due {
                    Some(due) => env.sleep_until(due).await,
                    None => std::future::pending().await,
                }
                self.again = Again { wait: (self.again.wait * 2).min(REOPEN_WAIT_MAX), at: None };
                self.begin_beside(self.closed.iter().copied().collect());
            }
        }
        self.opened_beside().await;
    }

    fn begin_beside(&mut self, topics: Vec<TopicId>) {
        let rows = topics.iter().filter_map(|id| self.seen.get(id));
        let missing = rows.flat_map(|row| self.missing(row)).collect();
        let opener = Arc::clone(&self.opener);
        let opened = self.partitions.env.spawn("partitions-open", async move { opener.open(missing).await });
        self.beside = Some(Beside { topics, opened });
    }

    /// Places what was opened beside, once it is.
    async fn opened_beside(&mut self) {
        let Some(beside) = &mut self.beside else { return };
        let mut opened = (&mut beside.opened).await.expect("it is aborted with its owner only");
        for id in std::mem::take(&mut beside.topics) {
            // It may be gone for good meanwhile.
            let Some(row) = self.seen.get(&id).cloned() else { continue };
            if self.place(row, &mut opened) {
                self.closed.remove(&id);
            } else {
                self.closed.insert(id);
            }
        }
        self.beside = None;
        self.try_again_later();
    }

    fn try_again_later(&mut self) {
        if self.closed.is_empty() {
            self.again = Again { wait: REOPEN_WAIT_MIN, at: None };
        } else {
            // A time that is set stays: changes of other topics do not put it off.
            self.again.at.get_or_insert(self.partitions.env.monotonic() + self.again.wait);
        }
    }

    /// Puts a topic in its place, with those of its partitions that are open or have just been `opened`; whether these
    /// are all.
    fn place(&self, row: Arc<TopicRow>, opened: &mut BTreeMap<TopicPartition, Partition>) -> bool {
        let mut partitions = self.partitions.open_topic(row.id).map_or_else(Vec::new, |topic| topic.partitions.clone());
        partitions.resize(row.partitions.len(), None);
        for (place, known) in partitions.iter_mut().zip(&row.partitions) {
            match place {
                Some(partition) => partition.advance_log_start(known.log_start),
                None => *place = opened.remove(&known.id).map(Arc::new),
            }
        }
        let is_whole = partitions.iter().all(Option::is_some);
        match TopicConfig::resolve(&row.config, &self.partitions.topic_defaults) {
            Ok(config) => self.partitions.place(OpenTopic { row, config: Arc::new(config), partitions }),
            Err(error) => {
                tracing::error!(topic = %row.name, %error, "the topic stays closed: its configuration is not legal");
            }
        }
        is_whole
    }

    fn missing(&self, row: &TopicRow) -> Vec<TopicPartition> {
        let topic = self.partitions.open_topic(row.id);
        let is_open = |at: usize| topic.as_ref().is_some_and(|topic| matches!(topic.partitions.get(at), Some(Some(_))));
        let missing = row.partitions.iter().enumerate().filter(|(at, _)| !is_open(*at));
        missing.map(|(_, partition)| partition.id).collect()
    }
}
