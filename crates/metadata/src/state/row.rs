//! Rows and their keys, as one type each: what `apply` writes, the database stores and the journal repeats.

use std::collections::BTreeMap;

use forebay_types::{BrokerId, TopicId, TopicPartition};

use super::{
    Broker, BrokerLife, Cluster, CommitNumber, ConfigScope, Extent, ExtentKey, Garbage, JournalPosition, LogTail,
    Object, Partition, Pin, PinId, Snapshots, Topic, Upload, WalEpoch,
};
use forebay_types::LogId;

/// Where a row stands. Rows up to `Upload` are resident: the controller holds them in memory. The others are cold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Commit,
    Journal,
    Cluster,
    Broker(BrokerId),
    WalEpoch(BrokerLife),
    BrokerConfig(ConfigScope),
    Topic(TopicId),
    Partition(TopicPartition),
    Snapshots(TopicPartition),
    LogTail(LogId),
    Pin(PinId),
    Upload(CommitNumber),
    Extent(ExtentKey),
    Object(String),
    Garbage(String),
}

impl Key {
    /// Whether the row is read from the database only when a command needs it.
    pub const fn is_cold(&self) -> bool {
        matches!(self, Self::Extent(_) | Self::Object(_) | Self::Garbage(_))
    }

    /// Whether no footer in the bucket could tell the row, so that it goes to the journal (D5).
    pub const fn is_journaled(&self) -> bool {
        match self {
            Self::Cluster
            | Self::Broker(_)
            | Self::WalEpoch(_)
            | Self::BrokerConfig(_)
            | Self::Topic(_)
            | Self::Partition(_)
            | Self::Snapshots(_)
            | Self::Pin(_) => true,
            Self::Commit
            | Self::Journal
            | Self::LogTail(_)
            | Self::Upload(_)
            | Self::Extent(_)
            | Self::Object(_)
            | Self::Garbage(_) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Commit(CommitNumber),
    Journal(JournalPosition),
    Cluster(Cluster),
    Broker(Broker),
    WalEpoch(WalEpoch),
    BrokerConfig(BTreeMap<String, String>),
    Topic(Topic),
    Partition(Partition),
    Snapshots(Snapshots),
    LogTail(LogTail),
    Pin(Pin),
    Upload(Upload),
    Extent(Extent),
    Object(Object),
    Garbage(Garbage),
}
