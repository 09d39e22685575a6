//! Every partition that this broker owns, found by topic, and what moves them all: the WAL's publications, the
//! metadata's changes, the end of the broker epoch.
//!
//! Owns: which partitions are open, and following the metadata: topics created, grown, changed, deleted. Leaves to
//! others: the commands that change topics (`api`), opening itself (`open`), uploads (`upload`).
//!
//! Invariants:
//! 1. A partition is found here only while this broker epoch may serve it; after the WAL has ended none is.
//! 2. A partition that is opened again (its topic came back from the trash) begins with nothing of it under way: all
//!    that was durable before is committed first.
//! 3. Publications reach a partition in offset order, from the WAL's one task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use forebay_env::{Env, Task};
use forebay_metadata::config::TopicConfig;
use forebay_metadata::service::TopicRow;
use forebay_metadata::{CommitNumber, Metadata};
use forebay_types::{PartitionIndex, TopicId, TopicName, TopicPartition};
use forebay_wal::{DurableGroup, Publisher, WalError};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::open::Opener;
use crate::partition::Partition;
use crate::snapshot::Snapshots;
use crate::upload::Pending;

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

/// A topic whose partitions are open here.
pub struct OpenTopic {
    pub row: Arc<TopicRow>,
    pub config: Arc<TopicConfig>,
    /// In order of their numbers; fewer than the row's while new ones are being opened.
    partitions: Vec<Arc<Partition>>,
}

impl OpenTopic {
    pub fn partition(&self, index: PartitionIndex) -> Result<&Arc<Partition>, Unavailable> {
        let at = usize::try_from(index.get()).expect("partitions are counted from 0");
        match self.partitions.get(at) {
            Some(partition) => Ok(partition),
            None if at < self.row.partitions.len() => Err(Unavailable::NoLeader),
            None => Err(Unavailable::Unknown),
        }
    }

    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }
}

#[derive(Default)]
struct Topics {
    by_id: BTreeMap<TopicId, Arc<OpenTopic>>,
    by_name: BTreeMap<TopicName, TopicId>,
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
    follower: OnceLock<Task<()>>,
}

impl Partitions {
    pub(crate) fn new(env: Env, topic_defaults: BTreeMap<String, String>, snapshots: Arc<Snapshots>) -> Arc<Self> {
        let followed = watch::Sender::new(CommitNumber::ZERO);
        let (topics, pending) = (RwLock::default(), Arc::default());
        Arc::new(Self { env, topic_defaults, topics, pending, snapshots, followed, follower: OnceLock::new() })
    }

    /// The live topic of that name, open here.
    pub fn by_name(&self, name: &TopicName) -> Result<Arc<OpenTopic>, Unavailable> {
        let topics = self.topics.read();
        let id = topics.by_name.get(name);
        id.and_then(|id| topics.by_id.get(id)).cloned().ok_or(topics.absent())
    }

    pub fn by_id(&self, id: TopicId) -> Result<Arc<OpenTopic>, Unavailable> {
        let topics = self.topics.read();
        topics.by_id.get(&id).cloned().ok_or(topics.absent())
    }

    pub fn get(&self, id: TopicPartition) -> Result<Arc<Partition>, Unavailable> {
        let topics = self.topics.read();
        let topic = topics.by_id.get(&id.topic).ok_or(topics.absent())?;
        topic.partition(id.partition).cloned()
    }

    /// Every open topic, by id.
    pub fn all(&self) -> Vec<Arc<OpenTopic>> {
        self.topics.read().by_id.values().cloned().collect()
    }

    /// Why nothing is served any more, once the broker epoch is over.
    pub fn ended(&self) -> Option<Arc<str>> {
        self.topics.read().ended.clone()
    }

    /// Returns once what the metadata says now is followed here: a topic just created is open, one just deleted is gone.
    pub async fn caught_up(&self, metadata: &dyn Metadata) {
        let now = *metadata.changes().borrow();
        let mut followed = self.followed.subscribe();
        // The sender lives in `self`.
        let _ = followed.wait_for(|commit| *commit >= now).await;
    }

    /// Opens what is there and begins to follow the metadata. Returns once all live topics are open.
    pub(crate) async fn follow(self: &Arc<Self>, opener: Opener) {
        let mut changes = opener.metadata().changes();
        let mut follower =
            Follower { partitions: Arc::clone(self), opener, seen: BTreeMap::new(), closed: BTreeSet::new() };
        let commit = *changes.borrow_and_update();
        follower.follow().await;
        self.followed.send_replace(commit);
        let task = self.env.spawn("partitions-follow", async move {
            while changes.changed().await.is_ok() {
                let commit = *changes.borrow_and_update();
                follower.follow().await;
                follower.partitions.followed.send_replace(commit);
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

    pub(crate) fn producer_snapshot(&self, id: TopicPartition) -> Option<Arc<str>> {
        self.get(id).ok()?.producer_snapshot()
    }

    /// Serves nothing from here on.
    pub fn end_all(&self, why: &str) {
        let mut topics = self.topics.write();
        topics.ended.get_or_insert_with(|| why.into());
        topics.by_name.clear();
        for topic in std::mem::take(&mut topics.by_id).into_values() {
            topic.partitions.iter().for_each(|partition| partition.end());
        }
    }

    fn insert(&self, topic: OpenTopic) {
        let mut topics = self.topics.write();
        if topics.ended.is_some() {
            topic.partitions.iter().for_each(|partition| partition.end());
            return;
        }
        topics.by_name.insert(topic.row.name.clone(), topic.row.id);
        topics.by_id.insert(topic.row.id, Arc::new(topic));
    }

    fn remove(&self, id: TopicId) {
        let mut topics = self.topics.write();
        let Some(topic) = topics.by_id.remove(&id) else { return };
        // The name may already be another topic's.
        if topics.by_name.get(&topic.row.name) == Some(&id) {
            topics.by_name.remove(&topic.row.name);
        }
        topic.partitions.iter().for_each(|partition| partition.end());
    }
}

impl Topics {
    fn absent(&self) -> Unavailable {
        if self.ended.is_some() { Unavailable::NoLeader } else { Unavailable::Unknown }
    }
}

impl Publisher for Partitions {
    fn publish(&self, group: DurableGroup) {
        for entry in &group.entries {
            // A deleted topic's last records are durable all the same, and are uploaded: it may come back from the trash.
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
    opener: Opener,
    /// Each live topic as it was last seen, to tell the changed ones.
    seen: BTreeMap<TopicId, Arc<TopicRow>>,
    /// Topics that were open in this broker epoch and went to the trash: they may come back.
    closed: BTreeSet<TopicId>,
}

impl Follower {
    async fn follow(&mut self) {
        let live: BTreeMap<TopicId, Arc<TopicRow>> =
            self.opener.metadata().topics().list().into_iter().map(|row| (row.id, row)).collect();
        for id in self.seen.keys().filter(|id| !live.contains_key(id)) {
            self.partitions.remove(*id);
            self.closed.insert(*id);
        }
        let changed: Vec<Arc<TopicRow>> = live
            .values()
            .filter(|row| self.seen.get(&row.id).is_none_or(|seen| !Arc::ptr_eq(seen, row)))
            .cloned()
            .collect();
        self.seen = live;
        let missing: Vec<TopicPartition> = changed.iter().flat_map(|row| self.missing(row)).collect();
        if missing.iter().any(|partition| self.closed.remove(&partition.topic)) && self.settle().await.is_none() {
            return;
        }
        let mut opened = self.opener.open(missing).await;
        for row in changed {
            let mut partitions =
                self.partitions.by_id(row.id).map_or_else(|_| Vec::new(), |open| open.partitions.clone());
            for (at, known) in row.partitions.iter().enumerate() {
                match partitions.get(at) {
                    Some(partition) => partition.advance_log_start(known.log_start),
                    // Partitions are counted without a gap: those after one that did not open wait for it.
                    None => match opened.remove(&known.id) {
                        Some(partition) => partitions.push(Arc::new(partition)),
                        None => break,
                    },
                }
            }
            if partitions.len() < row.partitions.len() {
                // Seen as unknown, so that the next change of the metadata tries again.
                self.seen.remove(&row.id);
            }
            let config = match TopicConfig::resolve(&row.config, &self.partitions.topic_defaults) {
                Ok(config) => Arc::new(config),
                Err(error) => {
                    tracing::error!(topic = %row.name, %error, "the topic stays closed: its configuration is not legal");
                    continue;
                }
            };
            self.partitions.insert(OpenTopic { row, config, partitions });
        }
    }

    /// Moves to the bucket all that was appended before now: invariant 2. `None` where this broker epoch has ended.
    async fn settle(&self) -> Option<()> {
        let wal = &self.opener.wal;
        wal.durable(wal.appended_position()).await.ok()?;
        self.partitions.pending.flush().await.ok()
    }

    fn missing(&self, row: &TopicRow) -> Vec<TopicPartition> {
        let open = self.partitions.by_id(row.id).map_or(0, |topic| topic.partitions.len());
        row.partitions.iter().skip(open).map(|partition| partition.id).collect()
    }
}
