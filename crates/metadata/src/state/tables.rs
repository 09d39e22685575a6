//! The resident rows in memory, and what follows from them.
//!
//! Owns: finding a row, and the indexes that no row holds: names of live topics, committed ends, names of unfolded
//! uploads, pins by partition. Leaves to others: cold rows, and every decision.
//!
//! Invariants:
//! 1. The indexes follow from the rows alone: tables filled from the same rows in key order are equal.
//! 2. A log's committed end is the end of its last unfolded upload, else of its extent rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use forebay_types::{BrokerId, LogId, Offset, PartitionIndex, TopicId, TopicName, TopicPartition, WalSequence};

use super::{
    Broker, BrokerLife, Cluster, CommitNumber, ConfigScope, JournalPosition, Key, LogTail, Partition, Pin, PinId, Row,
    Snapshots, Topic, TopicState, Upload, WalEpoch, collision_key,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    commit: CommitNumber,
    journal: JournalPosition,
    cluster: Option<Cluster>,
    brokers: BTreeMap<BrokerId, Broker>,
    wal_epochs: BTreeMap<BrokerLife, WalEpoch>,
    broker_configs: BTreeMap<ConfigScope, BTreeMap<String, String>>,
    topics: BTreeMap<TopicId, Topic>,
    partitions: BTreeMap<TopicPartition, Partition>,
    snapshots: BTreeMap<TopicPartition, Snapshots>,
    tails: BTreeMap<LogId, LogTail>,
    pins: BTreeMap<PinId, Pin>,
    uploads: BTreeMap<CommitNumber, Upload>,

    live_names: BTreeMap<String, TopicId>,
    committed_ends: BTreeMap<LogId, Offset>,
    committed_through: BTreeMap<BrokerLife, WalSequence>,
    upload_objects: BTreeSet<String>,
    pins_of: BTreeMap<TopicPartition, BTreeSet<PinId>>,
}

/// Every key of one topic's partitions.
fn partitions_of(topic: TopicId) -> std::ops::RangeInclusive<TopicPartition> {
    let at = |partition| TopicPartition { topic, partition };
    at(PartitionIndex::ZERO)..=at(PartitionIndex::MAX)
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

/// The value for a table out of a row.
macro_rules! of_kind {
    ($row:expr, $variant:ident, $key:expr) => {
        $row.map(|row| match row {
            Row::$variant(value) => value,
            other => panic!("row {:?} holds {other:?}", $key),
        })
    };
}

/// Adds to `$rows` those of a table after the key `$after`, as far as there is room.
macro_rules! take_rows {
    ($rows:ident, $after:expr, $limit:expr, $map:expr, $variant:ident) => {
        let from = match $after {
            Some(Key::$variant(key)) => Bound::Excluded(*key),
            _ => Bound::Unbounded,
        };
        let rest = $limit.saturating_sub($rows.len());
        // A key of a table before this one is below all of them, one of a table behind it above.
        let passed = $map.keys().next().is_none_or(|first| $after.is_some_and(|after| *after > Key::$variant(*first)));
        let passed = passed && matches!(from, Bound::Unbounded);
        let found = $map.range((from, Bound::Unbounded)).take(if passed { 0 } else { rest });
        $rows.extend(found.map(|(key, row)| (Key::$variant(*key), Row::$variant(row.clone()))));
    };
}

impl Tables {
    /// Sets or removes one row. Cold rows pass without effect.
    ///
    /// # Panics
    /// Where the row is of another kind than its key: only a bug of `apply` or the codec makes such a pair.
    pub fn put(&mut self, key: &Key, row: Option<Row>) {
        match key {
            Key::Commit => self.put_commit(of_kind!(row, Commit, key)),
            Key::Journal => self.journal = of_kind!(row, Journal, key).unwrap_or_default(),
            Key::Cluster => self.cluster = of_kind!(row, Cluster, key),
            Key::Broker(id) => drop(set(&mut self.brokers, *id, of_kind!(row, Broker, key))),
            Key::WalEpoch(life) => self.put_wal_epoch(*life, of_kind!(row, WalEpoch, key)),
            Key::BrokerConfig(scope) => drop(set(&mut self.broker_configs, *scope, of_kind!(row, BrokerConfig, key))),
            Key::Topic(id) => self.put_topic(*id, of_kind!(row, Topic, key)),
            Key::Partition(id) => self.put_partition(*id, of_kind!(row, Partition, key)),
            Key::Snapshots(id) => drop(set(&mut self.snapshots, *id, of_kind!(row, Snapshots, key))),
            Key::LogTail(log) => self.put_tail(*log, of_kind!(row, LogTail, key)),
            Key::Pin(id) => self.put_pin(*id, of_kind!(row, Pin, key)),
            Key::Upload(number) => self.put_upload(*number, of_kind!(row, Upload, key)),
            Key::Extent(_) | Key::Object(_) | Key::Garbage(_) => {}
        }
    }

    fn put_commit(&mut self, commit: Option<CommitNumber>) {
        let commit = commit.expect("the commit row is never removed");
        assert!(commit >= self.commit, "commit number {commit} after {}", self.commit);
        self.commit = commit;
    }

    fn put_wal_epoch(&mut self, life: BrokerLife, epoch: Option<WalEpoch>) {
        if let Some(through) = epoch.as_ref().and_then(|e| e.indexed_through) {
            let known = self.committed_through.entry(life).or_insert(through);
            *known = through.max(*known);
        }
        set(&mut self.wal_epochs, life, epoch);
    }

    fn put_topic(&mut self, id: TopicId, topic: Option<Topic>) {
        let named = topic.as_ref().filter(|t| t.state == TopicState::Live).map(|t| collision_key(&t.name));
        let before = set(&mut self.topics, id, topic);
        if let Some(before) = before.filter(|t| t.state == TopicState::Live) {
            self.live_names.remove(&collision_key(&before.name));
        }
        if let Some(name) = named {
            let other = self.live_names.insert(name, id);
            assert!(other.is_none(), "two live topics of one name: {id} and {other:?}");
        }
    }

    fn put_partition(&mut self, id: TopicPartition, partition: Option<Partition>) {
        let kept = partition.as_ref().map(|p| p.log);
        let before = set(&mut self.partitions, id, partition);
        if let Some(before) = before.filter(|b| Some(b.log) != kept) {
            self.committed_ends.remove(&before.log);
        }
    }

    fn put_tail(&mut self, log: LogId, tail: Option<LogTail>) {
        if let Some(tail) = &tail {
            let end = self.committed_ends.entry(log).or_insert(tail.indexed_end);
            *end = tail.indexed_end.max(*end);
        }
        set(&mut self.tails, log, tail);
    }

    fn put_pin(&mut self, id: PinId, pin: Option<Pin>) {
        if let Some(before) = self.pins.remove(&id) {
            for partition in before.scope.keys() {
                let pins = self.pins_of.get_mut(partition).expect("a pin is indexed by every partition it names");
                pins.remove(&id);
                if pins.is_empty() {
                    self.pins_of.remove(partition);
                }
            }
        }
        if let Some(pin) = pin {
            for partition in pin.scope.keys() {
                self.pins_of.entry(*partition).or_default().insert(id);
            }
            self.pins.insert(id, pin);
        }
    }

    fn put_upload(&mut self, number: CommitNumber, upload: Option<Upload>) {
        if let Some(before) = self.uploads.remove(&number) {
            self.upload_objects.remove(&before.object);
        }
        let Some(upload) = upload else { return };
        for range in &upload.ranges {
            // The log may have gone after the commit; its id is not used again.
            if self.partitions.get(&range.partition).is_some_and(|p| p.log == range.log) {
                let end = self.committed_ends.entry(range.log).or_default();
                *end = range.range.end().max(*end);
            }
        }
        if let Some(through) = upload.through {
            let known = self.committed_through.entry(upload.life).or_insert(through);
            *known = through.max(*known);
        }
        self.upload_objects.insert(upload.object.clone());
        self.uploads.insert(number, upload);
    }

    pub fn commit(&self) -> CommitNumber {
        self.commit
    }

    pub fn journal(&self) -> JournalPosition {
        self.journal
    }

    /// `None` before the first term began.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id)
    }

    pub fn brokers(&self) -> &BTreeMap<BrokerId, Broker> {
        &self.brokers
    }

    pub fn wal_epoch(&self, life: BrokerLife) -> Option<&WalEpoch> {
        self.wal_epochs.get(&life)
    }

    pub fn wal_epochs(&self) -> &BTreeMap<BrokerLife, WalEpoch> {
        &self.wal_epochs
    }

    /// The last WAL write of that life whose records are all committed, unfolded uploads included.
    pub fn committed_through(&self, life: BrokerLife) -> Option<WalSequence> {
        self.committed_through.get(&life).copied()
    }

    pub fn broker_config(&self, scope: ConfigScope) -> Option<&BTreeMap<String, String>> {
        self.broker_configs.get(&scope)
    }

    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    pub fn topics(&self) -> &BTreeMap<TopicId, Topic> {
        &self.topics
    }

    /// The live topic of that name, or the one whose name collides with it.
    pub fn live_topic_like(&self, name: &TopicName) -> Option<(TopicId, &Topic)> {
        let id = *self.live_names.get(&collision_key(name))?;
        Some((id, self.topics.get(&id).expect("a name is indexed only for a topic that is there")))
    }

    pub fn partition(&self, id: TopicPartition) -> Option<&Partition> {
        self.partitions.get(&id)
    }

    /// The partition rows of a topic, in order.
    pub fn partitions(&self, topic: TopicId) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.partitions.range(partitions_of(topic)).map(|(id, p)| (*id, p))
    }

    pub fn snapshots(&self, id: TopicPartition) -> Option<&Snapshots> {
        self.snapshots.get(&id)
    }

    pub fn tail(&self, log: LogId) -> LogTail {
        self.tails.get(&log).copied().unwrap_or_default()
    }

    /// The offset after the last committed record.
    pub fn committed_end(&self, log: LogId) -> Offset {
        self.committed_ends.get(&log).copied().unwrap_or_default()
    }

    pub fn pin(&self, id: PinId) -> Option<&Pin> {
        self.pins.get(&id)
    }

    pub fn pins(&self) -> &BTreeMap<PinId, Pin> {
        &self.pins
    }

    /// The pins that name a partition, in order of their ids.
    pub fn pins_of(&self, partition: TopicPartition) -> impl Iterator<Item = (PinId, &Pin)> {
        let ids = self.pins_of.get(&partition).into_iter().flatten();
        ids.map(|id| (*id, self.pins.get(id).expect("only pins that are there are indexed")))
    }

    /// Uploads whose ranges are not yet all extent rows, oldest first.
    pub fn uploads(&self) -> &BTreeMap<CommitNumber, Upload> {
        &self.uploads
    }

    /// Whether an unfolded upload is in that object.
    pub fn has_upload_in(&self, object: &str) -> bool {
        self.upload_objects.contains(object)
    }

    /// The resident rows that the journal keeps, in key order: the first `limit` after the key `after`.
    pub fn journaled_rows(&self, after: Option<&Key>, limit: usize) -> Vec<(Key, Row)> {
        let mut rows = Vec::new();
        rows.extend(self.cluster.iter().filter(|_| after.is_none()).map(|c| (Key::Cluster, Row::Cluster(c.clone()))));
        take_rows!(rows, after, limit, self.brokers, Broker);
        take_rows!(rows, after, limit, self.wal_epochs, WalEpoch);
        take_rows!(rows, after, limit, self.broker_configs, BrokerConfig);
        take_rows!(rows, after, limit, self.topics, Topic);
        take_rows!(rows, after, limit, self.partitions, Partition);
        take_rows!(rows, after, limit, self.snapshots, Snapshots);
        take_rows!(rows, after, limit, self.pins, Pin);
        debug_assert!(rows.iter().all(|(key, _)| key.is_journaled()) && rows.is_sorted_by(|a, b| a.0 < b.0));
        rows
    }
}

#[cfg(test)]
mod tests {
    use forebay_types::{BrokerEpoch, Timestamp};

    use super::*;
    use crate::testing::{broker, name, partition, topic};

    /// Pages of every size, one after the other, are the rows that were put, and are cut where a table ends or within.
    #[test]
    fn journaled_rows_come_in_pages() {
        let mut tables = Tables::default();
        let mut expected = BTreeMap::new();
        let mut put = |key: Key, row: Row| {
            tables.put(&key, Some(row.clone()));
            expected.insert(key, row);
        };
        for number in 1..=3 {
            let epoch = BrokerEpoch::new(1).expect("an epoch");
            put(Key::Broker(broker(number)), Row::Broker(Broker { epoch, incarnation: 1 }));
        }
        for number in 1..=2 {
            let (config, created_at, state) = (BTreeMap::new(), Timestamp::default(), TopicState::Live);
            let name = name(&format!("t{number}"));
            put(Key::Topic(topic(number)), Row::Topic(Topic { name, config, partitions: 2, created_at, state }));
            for index in 0..2 {
                let id = partition(topic(number), index);
                let log = LogId::new(u64::try_from(number * 10).expect("small") + u64::from(index.unsigned_abs()));
                let row =
                    Partition { log: log.expect("a log"), owner: None, epochs: Vec::new(), log_start: Offset::ZERO };
                put(Key::Partition(id), Row::Partition(row));
                put(Key::Snapshots(id), Row::Snapshots(Snapshots::default()));
            }
        }
        let expected: Vec<(Key, Row)> = expected.into_iter().collect();
        for limit in 1..=expected.len() + 1 {
            let mut rows: Vec<(Key, Row)> = Vec::new();
            loop {
                let page = tables.journaled_rows(rows.last().map(|(key, _)| key), limit);
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                rows.extend(page);
            }
            assert_eq!(rows, expected, "in pages of {limit}");
        }
    }
}
