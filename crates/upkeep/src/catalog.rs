//! The whole metadata of a bucket in memory, for tools: who names which object, and for which records.
//!
//! Owns: reading the rows, and putting extents and unfolded uploads of a log in one order. Leaves to others: judging any
//! of it (`fsck`, `metadata::invariants`), showing it (`ls`).
//!
//! Bound: a few hundred bytes per extent.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use forebay_env::Env;
use forebay_metadata::reader::Reader;
use forebay_metadata::state::{
    Garbage, JournalPosition, Key, LogTail, Partition, Row, SnapshotRef, Snapshots, Topic, Upload, WalEpoch,
};
use forebay_metadata::{BrokerLife, Extent, LookupError};
use forebay_store::Store;
use forebay_types::{
    ClusterId, LogId, Offset, OffsetRange, PartitionIndex, Timestamp, TopicId, TopicPartition, WalSequence,
};

use crate::ToolError;
use crate::fsck::Place;

/// Rows read at once.
const ROWS_PER_PAGE: usize = 4_096;

/// Attempts at reading all rows between two steps of the reader, ten seconds apart: the second one begins right behind
/// a step.
const READS_MAX: usize = 3;

/// What the metadata says, row by row.
pub(crate) struct Catalog {
    pub cluster: ClusterId,
    pub journal: JournalPosition,
    pub wal_epochs: BTreeMap<BrokerLife, WalEpoch>,
    /// The last WAL write of each life whose records are all in committed objects.
    pub committed_through: BTreeMap<BrokerLife, WalSequence>,
    /// Those in the trash and those being purged included.
    pub topics: BTreeMap<TopicId, Topic>,
    pub partitions: BTreeMap<TopicPartition, Partition>,
    pub snapshots: BTreeMap<TopicPartition, Snapshots>,
    pub tails: BTreeMap<LogId, LogTail>,
    /// Objects that something names.
    pub objects: BTreeMap<Arc<str>, Named>,
    pub garbage: BTreeMap<String, Garbage>,
    pieces: BTreeMap<LogId, Vec<Piece>>,
    of_log: BTreeMap<LogId, TopicPartition>,
}

/// Where a range of a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub range: OffsetRange,
    pub object: Arc<str>,
    pub bytes: u64,
    pub max_timestamp: Timestamp,
}

/// An object that something names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub size: u64,
    /// Where a data object's footer begins.
    pub footer_position: Option<u64>,
    pub uses: Vec<Use>,
}

/// What in an object is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Range { partition: TopicPartition, log: LogId, range: OffsetRange, bytes: u64 },
    Producers { partition: TopicPartition, at: Offset },
    Coordinator { partition: TopicPartition, at: Offset },
}

impl Use {
    pub const fn partition(&self) -> TopicPartition {
        match self {
            Self::Range { partition, .. } | Self::Producers { partition, .. } | Self::Coordinator { partition, .. } => {
                *partition
            }
        }
    }
}

/// Every key of one topic's partitions.
pub(crate) fn partitions_of(topic: TopicId) -> RangeInclusive<TopicPartition> {
    let at = |partition| TopicPartition { topic, partition };
    at(PartitionIndex::ZERO)..=at(PartitionIndex::MAX)
}

/// Reads all rows of a bucket's metadata, as of one commit. The reader follows a running broker in steps of some
/// seconds; where it took one between two pages, rows of two commits would seem to contradict each other.
///
/// # Errors
/// Reading failed, or the metadata went on under each of a few attempts.
pub(crate) async fn read_rows(env: &Env, store: &Arc<dyn Store>) -> Result<BTreeMap<Key, Row>, ToolError> {
    let reader = Reader::open(env, Arc::clone(store)).await?;
    let rows = rows_of_one_commit(async |after: Option<&Key>, limit| reader.rows(after, limit).await).await;
    reader.close().await;
    rows
}

/// `page` gives up to so many rows after a key, and does not change between two steps of the reader.
async fn rows_of_one_commit(
    page: impl AsyncFn(Option<&Key>, usize) -> Result<Vec<(Key, Row)>, LookupError>,
) -> Result<BTreeMap<Key, Row>, ToolError> {
    for _ in 0..READS_MAX {
        let rows = all_rows(&page).await?;
        // The number of the last commit is the first of all rows.
        let first = page(None, 1).await?;
        if first.first().map(|(_, row)| row) == rows.get(&Key::Commit) {
            return Ok(rows);
        }
    }
    Err(ToolError::Moved)
}

async fn all_rows(
    page: &impl AsyncFn(Option<&Key>, usize) -> Result<Vec<(Key, Row)>, LookupError>,
) -> Result<BTreeMap<Key, Row>, ToolError> {
    let mut rows = BTreeMap::new();
    let mut after: Option<Key> = None;
    loop {
        let found = page(after.as_ref(), ROWS_PER_PAGE).await?;
        let Some((last, _)) = found.last() else { return Ok(rows) };
        after = Some(last.clone());
        rows.extend(found);
    }
}

impl Catalog {
    /// Sorts rows out. Rows that contradict each other are left out where they must be: `metadata::invariants` names them.
    ///
    /// # Errors
    /// No cluster ever began here.
    pub fn of(rows: &BTreeMap<Key, Row>) -> Result<Self, ToolError> {
        let Some(Row::Cluster(cluster)) = rows.get(&Key::Cluster) else { return Err(ToolError::NoCluster) };
        let mut catalog = Self::empty(cluster.id.clone());
        for (key, row) in rows {
            match (key, row) {
                (_, Row::Journal(position)) => catalog.journal = *position,
                (Key::WalEpoch(life), Row::WalEpoch(epoch)) => {
                    catalog.committed(*life, epoch.indexed_through);
                    catalog.wal_epochs.insert(*life, epoch.clone());
                }
                (Key::Topic(id), Row::Topic(topic)) => drop(catalog.topics.insert(*id, topic.clone())),
                (Key::Partition(id), Row::Partition(partition)) => {
                    catalog.of_log.insert(partition.log, *id);
                    catalog.partitions.insert(*id, partition.clone());
                }
                (Key::Snapshots(id), Row::Snapshots(snapshots)) => {
                    catalog.snapshots.insert(*id, snapshots.clone());
                }
                (Key::LogTail(log), Row::LogTail(tail)) => drop(catalog.tails.insert(*log, *tail)),
                (Key::Garbage(name), Row::Garbage(garbage)) => drop(catalog.garbage.insert(name.clone(), *garbage)),
                // Nothing in the bucket hangs on the others, but extents, uploads and objects, which come below.
                _ => {}
            }
        }
        catalog.places(rows);
        Ok(catalog)
    }

    /// What names which object, once all partitions are known.
    fn places(&mut self, rows: &BTreeMap<Key, Row>) {
        for (key, row) in rows {
            match (key, row) {
                (Key::Extent(at), Row::Extent(extent)) => self.extent(at.log, extent),
                (Key::Object(name), Row::Object(object)) => drop(self.named(name, object.size)),
                (Key::Snapshots(id), Row::Snapshots(snapshots)) => {
                    if let Some(snapshot) = &snapshots.producer {
                        self.snapshot(snapshot, Use::Producers { partition: *id, at: snapshot.at });
                    }
                    if let Some(snapshot) = &snapshots.coordinator {
                        self.snapshot(snapshot, Use::Coordinator { partition: *id, at: snapshot.at });
                    }
                }
                _ => {}
            }
        }
        for row in rows.values() {
            if let Row::Upload(upload) = row {
                self.upload(upload);
            }
        }
        for pieces in self.pieces.values_mut() {
            pieces.sort_by_key(|piece| (piece.range.start(), piece.range.end()));
        }
    }

    /// The pieces of a log, in offset order.
    pub fn pieces(&self, log: LogId) -> &[Piece] {
        self.pieces.get(&log).map_or(&[], Vec::as_slice)
    }

    /// The offset after the last committed record.
    pub fn committed_end(&self, log: LogId) -> Offset {
        let indexed = self.tails.get(&log).map_or(Offset::ZERO, |tail| tail.indexed_end);
        self.pieces(log).last().map_or(indexed, |piece| piece.range.end().max(indexed))
    }

    pub fn partition_of(&self, log: LogId) -> Option<TopicPartition> {
        self.of_log.get(&log).copied()
    }

    /// The partition by its topic's name; `None` where the topic is gone.
    pub fn place(&self, partition: TopicPartition) -> Option<Place> {
        let topic = self.topics.get(&partition.topic)?;
        Some(Place { topic: topic.name.clone(), partition: partition.partition })
    }

    fn empty(cluster: ClusterId) -> Self {
        Self {
            cluster,
            journal: JournalPosition::default(),
            wal_epochs: BTreeMap::new(),
            committed_through: BTreeMap::new(),
            topics: BTreeMap::new(),
            partitions: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            tails: BTreeMap::new(),
            objects: BTreeMap::new(),
            garbage: BTreeMap::new(),
            pieces: BTreeMap::new(),
            of_log: BTreeMap::new(),
        }
    }

    fn named(&mut self, object: &str, size: u64) -> (Arc<str>, &mut Named) {
        let name = match self.objects.get_key_value(object) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(object),
        };
        let named = self.objects.entry(Arc::clone(&name)).or_default();
        named.size = named.size.max(size);
        (name, named)
    }

    fn committed(&mut self, life: BrokerLife, through: Option<WalSequence>) {
        let Some(through) = through else { return };
        let known = self.committed_through.entry(life).or_insert(through);
        *known = through.max(*known);
    }

    fn piece(&mut self, log: LogId, partition: TopicPartition, piece: Piece) {
        let used = Use::Range { partition, log, range: piece.range, bytes: piece.bytes };
        self.objects.get_mut(&piece.object).expect("named just before").uses.push(used);
        self.pieces.entry(log).or_default().push(piece);
    }

    fn upload(&mut self, upload: &Upload) {
        self.committed(upload.life, upload.through);
        let (name, named) = self.named(&upload.object, upload.size);
        named.footer_position = Some(upload.footer_position);
        let folded = usize::try_from(upload.folded).unwrap_or(usize::MAX);
        for range in upload.ranges.iter().skip(folded) {
            // A log that is gone: the range will be left out when the upload is folded.
            if self.of_log.get(&range.log) != Some(&range.partition) {
                continue;
            }
            let object = Arc::clone(&name);
            let piece = Piece { range: range.range, object, bytes: range.bytes, max_timestamp: range.max_timestamp };
            // A controller may have folded it between two pages of rows.
            if !self.pieces(range.log).contains(&piece) {
                self.piece(range.log, range.partition, piece);
            }
        }
    }

    fn extent(&mut self, log: LogId, extent: &Extent) {
        let Some(partition) = self.partition_of(log) else { return };
        let (object, named) = self.named(&extent.object, extent.size);
        named.footer_position = Some(extent.footer_position);
        let (range, bytes, max_timestamp) = (extent.range, extent.bytes, extent.max_timestamp);
        self.piece(log, partition, Piece { range, object, bytes, max_timestamp });
    }

    fn snapshot(&mut self, snapshot: &SnapshotRef, used: Use) {
        let (_, named) = self.named(&snapshot.object, 0);
        named.uses.push(used);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use forebay_metadata::state::CommitNumber;

    use super::*;

    /// What a reader gives that takes a step after each of the first `steps` pages: the last commit, and in a page of its
    /// own a log's tail that every commit moves.
    async fn read(steps: u64) -> Result<(Row, Row), ToolError> {
        let (calls, log) = (Cell::new(0_u64), LogId::ZERO);
        let page = async |after: Option<&Key>, _| {
            let commit = calls.get().min(steps);
            calls.set(calls.get() + 1);
            let tail = LogTail { indexed_end: Offset::ZERO, bytes: commit };
            Ok(match after {
                None => vec![(Key::Commit, Row::Commit(CommitNumber::new(commit)))],
                Some(Key::Commit) => vec![(Key::LogTail(log), Row::LogTail(tail))],
                Some(_) => Vec::new(),
            })
        };
        let mut rows = rows_of_one_commit(page).await?;
        let mut row = |key: Key| rows.remove(&key).expect("both were read");
        Ok((row(Key::Commit), row(Key::LogTail(log))))
    }

    /// Rows are of one commit, also where the metadata goes on between two pages; where it never rests, it is said.
    #[tokio::test]
    async fn rows_are_of_one_commit() {
        for steps in 0..=8 {
            let (commit, tail) = read(steps).await.expect("one of the attempts meets no step");
            assert!(
                matches!((&commit, &tail), (Row::Commit(at), Row::LogTail(tail)) if tail.bytes == at.get()),
                "{steps} steps: {commit:?}, {tail:?}"
            );
        }
        let error = read(u64::MAX).await.expect_err("it never rests");
        assert!(matches!(error, ToolError::Moved) && error.is_transient(), "{error}");
    }
}
