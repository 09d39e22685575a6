//! Why a command changed nothing.

use forebay_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, LogId, Offset, Timestamp, TopicId, TopicName, TopicPartition, WalSequence,
};

use crate::config::ConfigError;
use crate::state::{BrokerLife, PinId};

/// The rules said no. Nothing was changed, and sending the same again gives the same answer until something else changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("topic {name} exists")]
    TopicExists { name: TopicName, id: TopicId },
    #[error("topic {name} collides with {with}: '.' and '_' count as the same in names")]
    TopicCollides { name: TopicName, with: TopicName },
    #[error("topic id {0} is in use")]
    TopicIdUsed(TopicId),
    #[error("no topic has the id {0}")]
    UnknownTopic(TopicId),
    #[error("topic {0} is not in the trash")]
    NotInTrash(TopicId),
    #[error("topic {topic} stays in the trash until {purge_at}")]
    TrashWindowOpen { topic: TopicId, purge_at: Timestamp },
    #[error("no partition {0}")]
    UnknownPartition(TopicPartition),
    #[error("{asked} partitions: a topic has 1 to {max}")]
    PartitionCount { asked: i32, max: i32 },
    #[error("topic {topic} has {current} partitions, {asked} are not more")]
    PartitionsNotMore { topic: TopicId, current: i32, asked: i32 },
    #[error(transparent)]
    InvalidConfig(#[from] ConfigError),

    #[error("broker {0} never registered")]
    UnknownBroker(BrokerId),
    #[error("{life} never was")]
    UnknownEpoch { life: BrokerLife },
    #[error("{life} is over, the current epoch is {current}")]
    StaleBrokerEpoch { life: BrokerLife, current: BrokerEpoch },
    #[error("the WAL of {life} is sealed by {by}")]
    EpochSealed { life: BrokerLife, by: BrokerLife },
    #[error("{life} cannot seal its own WAL")]
    SealsItself { life: BrokerLife },
    #[error("the WAL of {life} is not sealed")]
    EpochNotSealed { life: BrokerLife },
    #[error("the WAL of {life} is closed at {end}")]
    EpochClosed { life: BrokerLife, end: WalSequence },
    #[error("the WAL of {life} cannot end at {end}: writes up to {committed} are committed")]
    EndBelowCommitted { life: BrokerLife, end: WalSequence, committed: WalSequence },

    #[error("partition {partition} was written by {owner}, whose WAL is not closed")]
    OwnerNotClosed { partition: TopicPartition, owner: BrokerLife },
    #[error("{life} does not own partition {partition} in leader epoch {leader_epoch}")]
    NotOwner { partition: TopicPartition, life: BrokerLife, leader_epoch: LeaderEpoch },
    #[error("an upload for {partition} (log {log}) begins at {start}, the committed end is {committed_end}")]
    NotAtCommittedEnd { partition: TopicPartition, log: LogId, start: Offset, committed_end: Offset },
    #[error("an upload for {partition} (log {log}) has an empty range")]
    EmptyRange { partition: TopicPartition, log: LogId },
    #[error("an upload names log {log} of {partition} twice")]
    LogTwice { partition: TopicPartition, log: LogId },
    #[error("an upload of {life} does not reach WAL write {committed}, which is committed already")]
    ThroughWentBack { life: BrokerLife, through: Option<WalSequence>, committed: WalSequence },
    #[error("partition {partition} is named twice")]
    PartitionTwice { partition: TopicPartition },
    #[error("a snapshot of {partition} at {at} is older than the one at {held}")]
    SnapshotWentBack { partition: TopicPartition, at: Offset, held: Offset },

    #[error("pin {pin} holds {partition} from offset {from}")]
    Pinned { pin: PinId, partition: TopicPartition, from: Offset },
    #[error("a pin of {partition} from {from} lies below the log start {log_start}")]
    PinBelowLogStart { partition: TopicPartition, from: Offset, log_start: Offset },
    #[error("a pin must name a partition and last longer than 0 ms, and is not the trash's own")]
    PinInvalid,
    #[error("pin {0} is gone")]
    UnknownPin(PinId),
    #[error("pin {0} belongs to a topic in the trash: undelete or purge the topic")]
    PinOfTrash(PinId),

    #[error("object {object} is reached")]
    ObjectReachable { object: String },
    #[error("object {object} is condemned")]
    ObjectCondemned { object: String },
    #[error("object {object} is not condemned")]
    ObjectNotCondemned { object: String },
    #[error("object {object} cannot be proved to be an orphan: {why}")]
    NotAnOrphan { object: String, why: &'static str },
    #[error("object {object} is not of a kind that this command may name")]
    ObjectForeign { object: String },

    #[error("{count} {what} in one command, the limit is {max}")]
    TooMany { what: &'static str, count: usize, max: usize },
    #[error("the cluster is {held}, not {asked}")]
    OtherCluster { held: String, asked: String },
    #[error("no {0} is left")]
    Exhausted(&'static str),
}
