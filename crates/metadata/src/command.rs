//! What may be asked of the metadata, and what comes back.
//!
//! Owns: the commands, their replies, and every reason to refuse one. Leaves to others: what they do (`apply`), their
//! way to the one writer (`service`), Kafka's error codes for a refusal (`api`).
//!
//! Invariants:
//! 1. Every command may be sent again after an unknown outcome: a repetition changes nothing and gives the same answer,
//!    or a refusal that shows it was done (a topic created twice "exists" under the caller's own id).
//! 2. A command that depends on time carries `now`; none reads a clock.
//!
//! Sources: D1 (epochs), D6 (sealing), D7 (commands), D10 (pins), D12 (garbage).

mod reply;

use std::collections::BTreeMap;

use forebay_format::ObjectRange;
use forebay_types::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, Offset, Timestamp, TopicId, TopicName, TopicPartition, WalSequence,
};

use crate::state::{BrokerLife, ConfigScope, Holds, PinId, PinKind, WalKind};

pub use crate::refusal::Refusal;
pub use reply::{Committed, LogStart, Opened, Registered, Reply, Sealed, TopicCreated, TopicDeleted, Unclosed};

/// Most rows one command writes (D7).
pub const ENTITIES_PER_COMMAND_MAX: usize = 4_096;

/// Most partitions of one topic: creating, deleting and opening it each stay one command, with the topic, the cluster
/// and a pin beside the partitions.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 4_000;

/// Most partitions in one `OpenPartitions`.
pub const PARTITIONS_PER_OPEN_MAX: usize = 4_000;

/// Most ranges in one upload: they are packed in one row, a little over 60 bytes each.
pub const RANGES_PER_UPLOAD_MAX: usize = 65_536;

/// Most partitions in one `PutProducerSnapshot`; each may also release an older object.
pub const SNAPSHOTS_PER_COMMAND_MAX: usize = 1_000;

/// Producer ids handed out at once, as in Kafka (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A process opened the metadata for writing. Sent by the host itself, first of all.
    BeginTerm {
        cluster: ClusterId,
        now: Timestamp,
    },

    /// A broker process starts: it gets an epoch, and learns which of its earlier lives still have to be sealed.
    RegisterBroker {
        broker: BrokerId,
        incarnation: u128,
        wal: WalKind,
    },
    /// From here on only `by` commits for that life's WAL.
    SealEpoch {
        life: BrokerLife,
        by: BrokerLife,
    },
    /// The sealer has committed everything below `end`.
    CloseEpoch {
        life: BrokerLife,
        end: WalSequence,
        by: BrokerLife,
    },
    /// The next block of producer ids.
    AllocateProducerIds {
        life: BrokerLife,
    },
    /// Dynamic configuration of one broker or all. Values are checked by the caller, who knows the broker's keys.
    AlterBrokerConfig {
        scope: ConfigScope,
        change: ConfigChange,
    },

    CreateTopic {
        name: TopicName,
        id: TopicId,
        partitions: i32,
        config: BTreeMap<String, String>,
        now: Timestamp,
    },
    /// Raises the number of partitions to `partitions`.
    CreatePartitions {
        topic: TopicId,
        partitions: i32,
    },
    AlterTopicConfig {
        topic: TopicId,
        change: ConfigChange,
    },
    /// To the trash, for `trash_ms`. Refused while a pin holds the topic's history.
    DeleteTopic {
        topic: TopicId,
        now: Timestamp,
        trash_ms: i64,
    },
    UndeleteTopic {
        topic: TopicId,
    },
    /// After the trash window. Refused while a pin holds any of it. Partitions then go by [`Command::DropExtents`].
    PurgeTopic {
        topic: TopicId,
        now: Timestamp,
    },

    /// Makes `life` the owner of the partitions, under the next leader epoch. Repeating it changes nothing. Partitions in
    /// the trash have an owner too, who writes the markers of transactions that end meanwhile.
    OpenPartitions {
        life: BrokerLife,
        partitions: Vec<TopicPartition>,
    },
    /// Raises the log start. The caller's epochs are the proof that `to` is durable: it may lie above the committed end.
    AdvanceLogStart {
        life: BrokerLife,
        partition: TopicPartition,
        leader_epoch: LeaderEpoch,
        to: Offset,
        reason: AdvanceReason,
        now: Timestamp,
    },
    PutProducerSnapshot {
        life: BrokerLife,
        object: String,
        size: u64,
        partitions: Vec<SnapshotAt>,
    },
    PutCoordinatorSnapshot {
        life: BrokerLife,
        object: String,
        size: u64,
        partition: SnapshotAt,
    },

    CommitUpload(CommitUpload),
    /// Turns the oldest uploads' ranges into extent rows, as many as one command may.
    IndexUploads,
    /// Removes extent rows below a log's start, its pins and its last producer snapshot, or of a topic that is being
    /// purged; in steps.
    DropExtents {
        partition: TopicPartition,
        now: Timestamp,
    },

    CreatePin {
        kind: PinKind,
        holds: Holds,
        owner: String,
        reason: String,
        scope: BTreeMap<TopicPartition, Offset>,
        renewal_ms: i64,
        now: Timestamp,
    },
    /// Holds for another renewal period from `now`.
    RenewPin {
        pin: PinId,
        now: Timestamp,
    },
    /// Releasing a pin that is gone is fine.
    ReleasePin {
        pin: PinId,
    },

    /// First step of deletion (D12): refused while anything reaches the object or might.
    CondemnObject {
        object: String,
        size: u64,
        now: Timestamp,
    },
    /// Second step: the object has been deleted from the bucket.
    ForgetObject {
        object: String,
    },
}

/// A data object is in the bucket: its ranges become readable, and its WAL may be trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitUpload {
    /// Whose WAL the records were in.
    pub life: BrokerLife,
    /// Who commits for a sealed life.
    pub sealer: Option<BrokerLife>,
    /// With this upload, every write of that WAL up to and including this one is in the bucket; `None` where not even
    /// the first is. Never goes back.
    pub through: Option<WalSequence>,
    /// The object's key. It carries the life that wrote it: `life` or `sealer`.
    pub object: String,
    pub size: u64,
    pub footer_position: u64,
    /// At most one per log, each beginning at the log's committed end.
    pub ranges: Vec<ObjectRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdvanceReason {
    /// By time or size: goes as far as the pins let it.
    Retention,
    /// A client's DeleteRecords, or a coordinator behind its snapshot: all the way, or refused.
    Request,
}

/// A snapshot of one partition, taken by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAt {
    pub partition: TopicPartition,
    pub leader_epoch: LeaderEpoch,
    /// The state is that after the last record below this offset.
    pub at: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Everything not named goes back to its default (AlterConfigs).
    Replace(BTreeMap<String, String>),
    /// In order (IncrementalAlterConfigs).
    Incremental(Vec<(String, ConfigOp)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    Set(String),
    Delete,
    /// Adds items to a list.
    Append(String),
    /// Takes items out of a list.
    Subtract(String),
}

impl BrokerLife {
    pub const fn new(broker: BrokerId, epoch: BrokerEpoch) -> Self {
        Self { broker, epoch }
    }
}
