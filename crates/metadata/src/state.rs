//! What the cluster knows: one type per entity of D7, as `apply` reads and writes them.
//!
//! Owns: the entities and what each may hold. Leaves to others: how they are found ([`Tables`]), their bytes
//! (`codec`), who changes them (`apply`).
//!
//! Invariants (checked after every command in tests, `invariants`):
//! 1. Broker epochs and leader epochs only grow; a partition's epoch starts rise strictly.
//! 2. A log's extents and unfolded uploads, in order, leave no gap up to its committed end.
//! 3. Live topics have names that differ, also after `.` is read as `_`.
//! 4. What a live row names exists: an extent its object, an unfinished deletion its pin.
//!
//! Sources: D5, D7, D8, D10, D12; KIP-320 (leader epochs), KIP-516 (topic ids).

mod row;
mod tables;

use std::collections::BTreeMap;
use std::fmt;

use forebay_format::ObjectRange;
use forebay_types::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, LogId, Offset, OffsetRange, ProducerId, Timestamp, TopicId,
    TopicName, TopicPartition, WalSequence,
};

pub use row::{Key, Row};
pub use tables::Tables;

/// How many commands have changed the metadata since the cluster began. Never goes back, also over a change of controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommitNumber(u64);

impl CommitNumber {
    pub const ZERO: Self = Self(0);

    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// # Panics
    /// At `u64::MAX`, which no cluster lives to see.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a commit number below u64::MAX"))
    }
}

impl fmt::Display for CommitNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of one broker process: what owns partitions, writes a WAL, and is fenced by a later life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerLife {
    pub broker: BrokerId,
    pub epoch: BrokerEpoch,
}

impl fmt::Display for BrokerLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker {} in epoch {}", self.broker, self.epoch)
    }
}

/// The cluster's own row: its name, its term, its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    /// Which controller this is, counted from 1. Grows whenever a process opens the metadata for writing.
    pub term: u64,
    /// Since when this term can answer a renewal: what must be renewed has a full period from here (D10).
    pub answerable_since: Timestamp,
    pub next_log: LogId,
    pub next_pin: PinId,
    /// The first producer id of the next block.
    pub next_producer_id: ProducerId,
}

/// How far the journal is written (D5). Only the host changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct JournalPosition {
    /// The number of the next entry.
    pub next: u64,
    /// Where the last full state begins: a restore needs nothing before it.
    pub full: u64,
    /// Entries below this are deleted.
    pub oldest: u64,
}

/// A broker, and which of its lives is the current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub epoch: BrokerEpoch,
    /// Drawn at random by the process: the same process asking again gets the same epoch.
    pub incarnation: u128,
}

/// Which WAL one life of a broker writes: a sealer has to use the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalKind {
    /// Segments on the disk of this id.
    Disk { disk: u128 },
    /// Numbered objects in the bucket, at most so many in flight (K of D6).
    Object { in_flight_max: u32 },
    /// Nothing that survives; for tests.
    Memory,
}

/// The WAL of one life of a broker, from its registration to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEpoch {
    pub wal: WalKind,
    pub state: WalEpochState,
    /// The last WAL write whose records are all in indexed data objects. Uploads not yet folded are ahead of it.
    pub indexed_through: Option<WalSequence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalEpochState {
    /// Its broker writes and commits.
    Open,
    /// Only the sealer commits for it.
    Sealed { by: BrokerLife },
    /// Everything below `end` is committed; nobody commits for it again.
    Closed { end: WalSequence },
}

/// A topic. Its partitions are numbered 0 up to `partitions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: TopicName,
    /// What was set; everything else is the broker's default.
    pub config: BTreeMap<String, String>,
    pub partitions: i32,
    pub created_at: Timestamp,
    pub state: TopicState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicState {
    Live,
    /// Deleted, and kept until the window is over. The name is free again.
    Trash {
        deleted_at: Timestamp,
        purge_at: Timestamp,
        pin: PinId,
    },
    /// The window is over: partitions and extents go, step by step.
    Purging,
}

/// A partition, and who may write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub log: LogId,
    /// `None` until it is opened for the first time.
    pub owner: Option<BrokerLife>,
    /// Where each leader epoch began, oldest first; the last is the current one. Empty until opened for the first time.
    pub epochs: Vec<EpochStart>,
    pub log_start: Offset,
}

impl Partition {
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|e| e.epoch)
    }
}

/// A leader epoch and the first offset written in it (KIP-320).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: LeaderEpoch,
    pub start: Offset,
}

/// The full snapshots a partition opens from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Snapshots {
    pub producer: Option<SnapshotRef>,
    pub coordinator: Option<SnapshotRef>,
}

/// A snapshot object and the offset up to which (exclusive) it holds the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRef {
    pub object: String,
    pub at: Offset,
}

/// Where the extent rows of a log end, and what they weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogTail {
    /// The end of the last extent row ever made: uploads not yet folded come after it.
    pub indexed_end: Offset,
    /// Bytes of the log in its extent rows.
    pub bytes: u64,
}

/// A committed data object whose ranges are not yet all extent rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Whose WAL the records were in.
    pub life: BrokerLife,
    /// With this upload, every write of that WAL up to and including this one is in the bucket; `None` where not even
    /// the first is.
    pub through: Option<WalSequence>,
    pub object: String,
    pub size: u64,
    pub footer_position: u64,
    pub ranges: Vec<ObjectRange>,
    /// How many of `ranges`, from the front, are extent rows already.
    pub folded: u32,
}

/// Where a range of a log is: the answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub range: OffsetRange,
    /// The key of the data object in the bucket.
    pub object: String,
    /// The object's size in bytes.
    pub size: u64,
    /// Where in the object its footer begins.
    pub footer_position: u64,
    /// What the range weighs in the object.
    pub bytes: u64,
    pub max_timestamp: Timestamp,
}

/// An object that something reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    pub size: u64,
    /// How many extent rows or snapshot references name it; never 0, but while its upload is being folded.
    pub references: u32,
}

/// An object that nothing reaches any more, or never did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage {
    pub size: u64,
    /// From here no command may refer to it; it is deleted once the grace is over (D12).
    pub condemned_at: Option<Timestamp>,
}

/// The number of a pin, minted in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinId(u64);

impl PinId {
    pub const FIRST: Self = Self(1);

    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// # Panics
    /// At `u64::MAX`, which no cluster lives to see.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a pin id below u64::MAX"))
    }
}

impl fmt::Display for PinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a pin was taken for (D10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinKind {
    /// A deleted topic inside its trash window. Taken and released by the metadata itself.
    Trash,
    /// A Flink checkpoint that must stay restorable.
    Checkpoint,
    /// A fork of a topic.
    Fork,
    /// A named point for time travel.
    Snapshot,
    /// A long reader.
    Reader,
}

/// What a pin binds (D10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The log start may not pass it: readers still find the records.
    History,
    /// The objects stay, whatever the log start does.
    Bytes,
}

/// Holds records of some partitions, from an offset on, until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub kind: PinKind,
    pub holds: Holds,
    pub owner: String,
    pub reason: String,
    /// From which offset (inclusive) each partition is held.
    pub scope: BTreeMap<TopicPartition, Offset>,
    /// Not live from here on, unless the renewal period since [`Cluster::answerable_since`] still runs.
    pub expires_at: Timestamp,
    /// How long one renewal lasts, in milliseconds.
    pub renewal_ms: i64,
}

/// Whom a dynamic broker configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigScope {
    /// Every broker of the cluster (Kafka's empty resource name).
    Cluster,
    Broker(BrokerId),
}

/// The key of a topic among its peers: names that would share a metric's name are the same here (`a.b` and `a_b`).
pub(crate) fn collision_key(name: &TopicName) -> String {
    name.as_str().replace('.', "_")
}

/// Where an extent row stands: its log, then its end, so that a scan from `offset + 1` begins at the extent that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExtentKey {
    pub log: LogId,
    pub end: Offset,
}

/// A topic's partition of that number.
///
/// # Panics
/// On a negative number: the callers count from 0 up to the topic's own count.
pub(crate) fn partition_of(topic: TopicId, index: i32) -> TopicPartition {
    let partition = forebay_types::PartitionIndex::new(index).expect("partitions are counted from 0");
    TopicPartition { topic, partition }
}

impl Extent {
    /// The extent that a range of an upload is, before it has a row of its own.
    pub(crate) fn of(upload: &Upload, range: &ObjectRange) -> Self {
        Self {
            range: range.range,
            object: upload.object.clone(),
            size: upload.size,
            footer_position: upload.footer_position,
            bytes: range.bytes,
            max_timestamp: range.max_timestamp,
        }
    }
}
