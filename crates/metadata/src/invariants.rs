//! What must hold of all rows together, whatever commands came before: checked after every command in tests, and by
//! `bucket fsck` on a real database.
//!
//! The rows are read as they stand in the database, so that a bug in the indexes of [`Tables`] is found too.

use std::collections::BTreeMap;
use std::fmt;

use forebay_types::{LogId, Offset};

use crate::state::{Extent, Holds, Key, Partition, Row, Tables, TopicState, Upload, WalEpochState, collision_key};

/// Something that must never be. Each is a bug or a damaged database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is wrong with these rows, in a fixed order; empty when all is well.
pub fn check(rows: &BTreeMap<Key, Row>) -> Vec<Violation> {
    let mut checker = Checker { rows, tables: Tables::default(), found: Vec::new() };
    checker.topics_and_names();
    if checker.found.is_empty() {
        // Two live topics of one name would stop the tables from being filled.
        for (key, row) in rows {
            checker.tables.put(key, Some(row.clone()));
        }
        checker.partitions();
        checker.logs();
        checker.objects();
        checker.pins();
        checker.epochs();
    }
    checker.found
}

struct Checker<'a> {
    rows: &'a BTreeMap<Key, Row>,
    tables: Tables,
    found: Vec<Violation>,
}

/// A part of a log that some row says where to find.
struct Piece {
    start: Offset,
    end: Offset,
}

impl Checker<'_> {
    fn wrong(&mut self, what: String) {
        self.found.push(Violation(what));
    }

    fn topics_and_names(&mut self) {
        let mut names = BTreeMap::new();
        for (key, row) in self.rows {
            let (Key::Topic(id), Row::Topic(topic)) = (key, row) else { continue };
            if topic.state != TopicState::Live {
                continue;
            }
            if let Some(other) = names.insert(collision_key(&topic.name), id) {
                self.wrong(format!("live topics {other} and {id} share the name {}", topic.name));
            }
        }
    }

    fn partitions(&mut self) {
        let mut logs: BTreeMap<LogId, &Key> = BTreeMap::new();
        for (key, row) in self.rows {
            let (Key::Partition(id), Row::Partition(partition)) = (key, row) else { continue };
            if let Some(other) = logs.insert(partition.log, key) {
                self.wrong(format!("{other:?} and {key:?} share log {}", partition.log));
            }
            match self.tables.topic(id.topic) {
                None => self.wrong(format!("{id} has no topic")),
                Some(topic) if id.partition.get() >= topic.partitions => {
                    self.wrong(format!("{id} lies past its topic's {} partitions", topic.partitions));
                }
                Some(_) => {}
            }
            let rising = partition.epochs.windows(2).all(|e| e[0].epoch < e[1].epoch && e[0].start < e[1].start);
            if !rising || partition.owner.is_some() == partition.epochs.is_empty() {
                self.wrong(format!("{id} has the epochs {:?}", partition.epochs));
            }
        }
        for (id, topic) in self.tables.topics() {
            let count = self.tables.partitions(*id).count();
            let whole = i32::try_from(count).is_ok_and(|count| count == topic.partitions);
            if topic.state != TopicState::Purging && !whole {
                self.found.push(Violation(format!("topic {id} has {count} of {} partitions", topic.partitions)));
            }
        }
    }

    /// Extents, then uploads, leave no gap from the log start to the committed end.
    fn logs(&mut self) {
        let mut logs: BTreeMap<LogId, Vec<Piece>> = BTreeMap::new();
        let mut indexed: BTreeMap<LogId, u64> = BTreeMap::new();
        for (key, row) in self.rows {
            if let (Key::Extent(at), Row::Extent(extent)) = (key, row) {
                if at.end != extent.range.end() {
                    self.wrong(format!("{key:?} holds {}", extent.range));
                }
                *indexed.entry(at.log).or_default() += extent.bytes;
                let (start, end) = (extent.range.start(), extent.range.end());
                logs.entry(at.log).or_default().push(Piece { start, end });
            }
        }
        for (_, upload) in self.uploads() {
            for range in upload.ranges.iter().skip(usize::try_from(upload.folded).unwrap_or(usize::MAX)) {
                let (start, end) = (range.range.start(), range.range.end());
                logs.entry(range.log).or_default().push(Piece { start, end });
            }
        }
        for (key, row) in self.rows {
            let (Key::Partition(id), Row::Partition(partition)) = (key, row) else { continue };
            let pieces = logs.remove(&partition.log).unwrap_or_default();
            // Of a topic that is being purged, uploads may be folded to nothing.
            if self.tables.topic(id.topic).is_some_and(|t| t.state != TopicState::Purging) {
                self.contiguous(partition, &pieces);
            }
            let tail = self.tables.tail(partition.log);
            if tail.bytes != indexed.remove(&partition.log).unwrap_or_default() {
                self.wrong(format!("log {} counts {} bytes of extents", partition.log, tail.bytes));
            }
        }
        for log in indexed.keys() {
            self.wrong(format!("log {log} has extents and no partition"));
        }
    }

    fn contiguous(&mut self, partition: &Partition, pieces: &[Piece]) {
        let log = partition.log;
        for pair in pieces.windows(2) {
            // A gap is legal only where the log start was above all that was committed when an epoch began.
            let gap_ok = pair[0].end < pair[1].start && pair[1].start <= partition.log_start;
            if pair[0].end != pair[1].start && !gap_ok {
                self.wrong(format!("log {log} goes on at {} after {}", pair[1].start, pair[0].end));
            }
        }
        let committed = self.tables.committed_end(log);
        match (pieces.first(), pieces.last()) {
            (Some(first), Some(last)) => {
                if first.start > partition.log_start {
                    self.wrong(format!(
                        "log {log} begins at {}, its log start is {}",
                        first.start, partition.log_start
                    ));
                }
                if last.end != committed {
                    self.wrong(format!("log {log} ends at {}, its committed end is {committed}", last.end));
                }
            }
            _ if committed > partition.log_start => {
                self.wrong(format!("log {log} has nothing from {} to {committed}", partition.log_start));
            }
            _ => {}
        }
    }

    fn uploads(&self) -> Vec<(&Key, &Upload)> {
        self.rows
            .iter()
            .filter_map(|(key, row)| match row {
                Row::Upload(upload) => Some((key, upload)),
                _ => None,
            })
            .collect()
    }

    /// References are counted right, and nothing that is reached is garbage.
    fn objects(&mut self) {
        let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
        for row in self.rows.values() {
            match row {
                Row::Extent(Extent { object, .. }) => *counted.entry(object).or_default() += 1,
                Row::Snapshots(snapshots) => {
                    for snapshot in [&snapshots.producer, &snapshots.coordinator].into_iter().flatten() {
                        *counted.entry(&snapshot.object).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        for (key, row) in self.rows {
            let (Key::Object(name), Row::Object(object)) = (key, row) else { continue };
            let references = counted.remove(name.as_str()).unwrap_or_default();
            if object.references != references {
                found.push(format!("object {name} counts {} references of {references}", object.references));
            }
            if references == 0 && !self.tables.has_upload_in(name) {
                found.push(format!("object {name} is reached by nothing and not garbage"));
            }
            if self.rows.contains_key(&Key::Garbage(name.clone())) {
                found.push(format!("object {name} is reached and garbage"));
            }
        }
        for name in counted.keys() {
            found.push(format!("object {name} is named and unknown"));
        }
        for (_, upload) in self.uploads() {
            if self.rows.contains_key(&Key::Garbage(upload.object.clone())) {
                found.push(format!("object {} is uploaded and garbage", upload.object));
            }
        }
        self.found.extend(found.into_iter().map(Violation));
    }

    /// What a standing pin holds is there.
    fn pins(&mut self) {
        let mut found = Vec::new();
        for (id, pin) in self.tables.pins() {
            for (at, from) in &pin.scope {
                let Some(partition) = self.tables.partition(*at) else {
                    found.push(format!("pin {id} holds {at}, which is gone"));
                    continue;
                };
                if pin.holds == Holds::History && *from < partition.log_start {
                    found.push(format!("pin {id} holds {at} from {from} below its log start {}", partition.log_start));
                }
            }
        }
        for (id, topic) in self.tables.topics() {
            if let TopicState::Trash { pin, .. } = topic.state
                && self.tables.pin(pin).is_none()
            {
                found.push(format!("topic {id} is in the trash without its pin {pin}"));
            }
        }
        self.found.extend(found.into_iter().map(Violation));
    }

    /// Counters lie above everything minted, and owners are lives that were.
    fn epochs(&mut self) {
        let mut found = Vec::new();
        for (life, epoch) in self.tables.wal_epochs() {
            match self.tables.broker(life.broker) {
                Some(broker) if broker.epoch >= life.epoch => {}
                _ => found.push(format!("{life} lies above its broker's epoch")),
            }
            if let WalEpochState::Closed { end } = epoch.state
                && self.tables.committed_through(*life).is_some_and(|through| through >= end)
            {
                found.push(format!("{life} is closed at {end} and committed beyond"));
            }
        }
        for topic in self.tables.topics().keys() {
            for (id, partition) in self.tables.partitions(*topic) {
                if partition.owner.is_some_and(|owner| self.tables.wal_epoch(owner).is_none()) {
                    found.push(format!("{id} is owned by a life that never was"));
                }
                if self.tables.cluster().is_none_or(|cluster| partition.log >= cluster.next_log) {
                    found.push(format!("{id} has log {}, which was never minted", partition.log));
                }
            }
        }
        self.found.extend(found.into_iter().map(Violation));
    }
}
