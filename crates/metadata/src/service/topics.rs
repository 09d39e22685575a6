//! Topics and partitions as clients of the cluster see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_types::{LeaderEpoch, LogId, Offset, PartitionIndex, Timestamp, TopicId, TopicName, TopicPartition};
use parking_lot::RwLock;

use crate::state::{BrokerLife, EpochStart, Tables, TopicState};

/// A topic as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRow {
    pub id: TopicId,
    pub name: TopicName,
    /// What was set; everything else is the broker's default.
    pub config: BTreeMap<String, String>,
    /// In order of their numbers, none left out.
    pub partitions: Vec<Arc<PartitionRow>>,
    pub created_at: Timestamp,
    /// Live or in the trash: a topic that is being purged is not shown.
    pub state: TopicState,
    /// Written by the broker itself.
    pub internal: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    pub id: TopicPartition,
    pub log: LogId,
    pub owner: Option<BrokerLife>,
    /// Where each leader epoch above the log start began, oldest first.
    pub epochs: Vec<EpochStart>,
    pub log_start: Offset,
}

impl PartitionRow {
    /// `None` until the partition was opened for the first time.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|e| e.epoch)
    }
}

impl TopicRow {
    pub fn is_live(&self) -> bool {
        self.state == TopicState::Live
    }

    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<PartitionRow>> {
        self.partitions.get(usize::try_from(index.get()).ok()?)
    }

    pub(crate) fn of(tables: &Tables, id: TopicId) -> Option<Self> {
        let topic = tables.topic(id).filter(|t| t.state != TopicState::Purging)?;
        let partitions = tables.partitions(id).map(|(id, partition)| {
            Arc::new(PartitionRow {
                id,
                log: partition.log,
                owner: partition.owner,
                epochs: partition.epochs.clone(),
                log_start: partition.log_start,
            })
        });
        Some(Self {
            id,
            name: topic.name.clone(),
            config: topic.config.clone(),
            partitions: partitions.collect(),
            created_at: topic.created_at,
            state: topic.state,
            internal: topic.name.is_internal(),
        })
    }
}

/// Lookups of topics. Clones see the same topics; a row that was handed out does not change.
#[derive(Clone, Default)]
pub struct TopicsView(Arc<RwLock<Topics>>);

#[derive(Default)]
struct Topics {
    by_id: BTreeMap<TopicId, Arc<TopicRow>>,
    live: BTreeMap<TopicName, TopicId>,
}

impl TopicsView {
    /// The live topic of that name.
    pub fn by_name(&self, name: &TopicName) -> Option<Arc<TopicRow>> {
        let topics = self.0.read();
        topics.by_id.get(topics.live.get(name)?).cloned()
    }

    /// The topic of that id, live or in the trash.
    pub fn by_id(&self, id: TopicId) -> Option<Arc<TopicRow>> {
        self.0.read().by_id.get(&id).cloned()
    }

    /// Every live topic, in order of names.
    pub fn list(&self) -> Vec<Arc<TopicRow>> {
        let topics = self.0.read();
        topics.live.values().filter_map(|id| topics.by_id.get(id)).cloned().collect()
    }

    /// Every topic in the trash, in order of ids.
    pub fn trash(&self) -> Vec<Arc<TopicRow>> {
        self.0.read().by_id.values().filter(|topic| !topic.is_live()).cloned().collect()
    }

    /// Every topic, live or in the trash, as of one moment, in order of ids. Asked for one after the other, a topic that
    /// comes back in between would be in neither.
    pub fn all(&self) -> Vec<Arc<TopicRow>> {
        self.0.read().by_id.values().cloned().collect()
    }

    pub(crate) fn set(&self, id: TopicId, row: Option<TopicRow>) {
        let mut topics = self.0.write();
        let row = row.map(Arc::new);
        let before = match &row {
            Some(row) => topics.by_id.insert(id, Arc::clone(row)),
            None => topics.by_id.remove(&id),
        };
        if let Some(before) = before.filter(|b| b.is_live() && topics.live.get(&b.name) == Some(&id)) {
            topics.live.remove(&before.name);
        }
        if let Some(row) = row.filter(|row| row.is_live()) {
            topics.live.insert(row.name.clone(), id);
        }
    }
}

impl std::fmt::Debug for TopicsView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicsView").field("topics", &self.0.read().by_id.len()).finish()
    }
}
