//! The answers to commands.

use std::collections::BTreeMap;

use forebay_types::{
    BrokerEpoch, LeaderEpoch, LogId, Offset, ProducerId, Timestamp, TopicId, TopicPartition, WalSequence,
};

use crate::state::{BrokerLife, EpochStart, PinId, SnapshotRef, WalEpochState, WalKind};

/// What a command answered. The `into_` functions give the answer of the command that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Registered(Registered),
    Sealed(Sealed),
    /// The first of [`crate::command::PRODUCER_IDS_PER_BLOCK`] ids.
    ProducerIds(ProducerId),
    TopicCreated(TopicCreated),
    TopicDeleted(TopicDeleted),
    /// The configuration as it now stands.
    Config(BTreeMap<String, String>),
    Opened(Vec<Opened>),
    LogStart(LogStart),
    Committed(Committed),
    /// `uploads` are finished; `remaining` still have ranges to fold.
    Indexed {
        uploads: usize,
        remaining: usize,
    },
    /// `extents` rows are gone; with `more`, send the command again.
    Dropped {
        extents: usize,
        more: bool,
    },
    Pinned(PinId),
    /// Since when the object is condemned.
    Condemned(Timestamp),
}

/// A broker's new life, and its earlier ones that are not closed: seal, replay and close them before opening partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub epoch: BrokerEpoch,
    /// Oldest first.
    pub unclosed: Vec<Unclosed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclosed {
    pub life: BrokerLife,
    pub wal: WalKind,
    /// Every write up to and including this one is committed already.
    pub committed_through: Option<WalSequence>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub wal: WalKind,
    /// Sealed by the caller, or closed by an earlier attempt.
    pub state: WalEpochState,
    pub committed_through: Option<WalSequence>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCreated {
    pub topic: TopicId,
    pub partitions: i32,
    pub config: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDeleted {
    pub purge_at: Timestamp,
}

/// A partition as its owner finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    /// Where the leader epoch begins: the committed end when it was opened.
    pub epoch_start: Offset,
    /// Every epoch above the log start, this one last.
    pub epochs: Vec<EpochStart>,
    pub log_start: Offset,
    /// The next offset to write; the log start where that lies above all that was committed.
    pub committed_end: Offset,
    pub producer_snapshot: Option<SnapshotRef>,
    pub coordinator_snapshot: Option<SnapshotRef>,
}

/// A log start as it now stands: where the pins let retention go no further, below what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    pub log_start: Offset,
    /// The pin that stopped it, if one did.
    pub stopped_by: Option<PinId>,
}

/// An upload is committed, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    New {
        /// Ranges left out because their log is gone.
        dropped: Vec<TopicPartition>,
    },
    /// Every range lies below its log's committed end: this object or another with the same records came first.
    Already,
}

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $out:ty;)*) => {
        impl Reply {
            $(
                $(#[$doc])*
                ///
                /// # Panics
                /// Where the command sent was another: `apply` answers each command with its own reply.
                pub fn $name(self) -> $out {
                    match self {
                        Self::$variant(answer) => answer,
                        other => panic!(concat!("the command answers ", stringify!($variant), ", not {:?}"), other),
                    }
                }
            )*
        }
    };
}

answers! {
    /// The answer of `RegisterBroker`.
    into_registered: Registered -> Registered;
    /// The answer of `SealEpoch`.
    into_sealed: Sealed -> Sealed;
    /// The answer of `AllocateProducerIds`.
    into_producer_ids: ProducerIds -> ProducerId;
    /// The answer of `CreateTopic` and `CreatePartitions`.
    into_topic_created: TopicCreated -> TopicCreated;
    /// The answer of `DeleteTopic`.
    into_topic_deleted: TopicDeleted -> TopicDeleted;
    /// The answer of `AlterTopicConfig` and `AlterBrokerConfig`.
    into_config: Config -> BTreeMap<String, String>;
    /// The answer of `OpenPartitions`, in the order asked.
    into_opened: Opened -> Vec<Opened>;
    /// The answer of `AdvanceLogStart`.
    into_log_start: LogStart -> LogStart;
    /// The answer of `CommitUpload`.
    into_committed: Committed -> Committed;
    /// The answer of `CreatePin`.
    into_pinned: Pinned -> PinId;
    /// The answer of `CondemnObject`.
    into_condemned: Condemned -> Timestamp;
}
