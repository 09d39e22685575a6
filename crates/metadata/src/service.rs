//! The metadata as every other crate sees it: submit, look up, watch.
//!
//! Owns: the trait, and the views that lookups are answered from. Leaves to others: the writer behind it (`store`).
//!
//! Invariants:
//! 1. A view shows durable rows only, and never an older state after a newer one.
//! 2. Lookups of topics and log sizes take no I/O; lookups of extents may read the database.
//!
//! Sources: D7 ("callers see submit, watch and lookup").

mod local;
mod published;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_types::{ClusterId, LogId, Offset, Timestamp};
use tokio::sync::watch;

use crate::command::{Command, Refusal, Reply};
use crate::state::{BrokerLife, CommitNumber, ConfigScope, Extent, Garbage, Pin, PinId, WalEpoch};

pub(crate) use local::End;
pub use local::LocalMetadata;
pub(crate) use published::Published;
pub use topics::{PartitionRow, TopicRow, TopicsView};

/// The one seam to the cluster's metadata: in this process, or by RPC to the controller.
#[async_trait]
pub trait Metadata: Send + Sync {
    /// Applies a command. Durable once this returns `Ok`. Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// See [`SubmitError::kind`]: refused for good, unknown and to be repeated, or ended.
    async fn submit(&self, command: Command) -> Result<Reply, SubmitError>;

    fn cluster(&self) -> &ClusterId;

    /// Lookups of topics and partitions; cheap to clone and to ask.
    fn topics(&self) -> TopicsView;

    /// The last commit that lookups show. Changes after every command that changed something.
    fn changes(&self) -> watch::Receiver<CommitNumber>;

    /// Where the committed records of a log are, from the extent that holds `from` (or the first above it) on: in
    /// offset order, without a gap above the log start, at most `limit`. Empty at the committed end.
    async fn extents(&self, log: LogId, from: Offset, limit: usize) -> Result<Vec<Extent>, LookupError>;

    /// The committed end of a log and the bytes up to it.
    fn log_size(&self, log: LogId) -> LogSize;

    fn broker_config(&self, scope: ConfigScope) -> Arc<BTreeMap<String, String>>;

    /// Every pin that stands, with the moment from which it is not live unless renewed.
    fn pins(&self) -> Vec<(PinId, Arc<Pin>, Timestamp)>;

    /// Every life of every broker, and how its WAL stands.
    fn wal_epochs(&self) -> Vec<(BrokerLife, WalEpoch)>;

    /// Objects that nothing reaches and that are not yet forgotten, in order of their names, after `after`.
    async fn garbage(&self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Garbage)>, LookupError>;

    /// What the metadata knows of an object in the bucket.
    async fn standing(&self, object: &str) -> Result<Standing, LookupError>;
}

/// How far a log's committed records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogSize {
    /// The offset after the last committed record.
    pub committed_end: Offset,
    /// Bytes in the bucket, those below the log start that are not yet dropped included.
    pub bytes: u64,
}

/// How the metadata stands to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An upload, an extent or a snapshot reference names it.
    Reached,
    Garbage(Garbage),
    /// No row names it. It may be an orphan, or an upload that is about to be committed.
    Unknown,
}

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The rules say no: reject whatever asked for it.
    Reject,
    /// The outcome is unknown, or nothing was done: repeat the command.
    Retry,
    /// This controller is over: stop, or find the next one.
    Stop,
}

/// A command was not answered with a reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It will not be applied.
    #[error("the metadata did not take the command in time")]
    Unavailable,
    /// It may be applied, now or a little later.
    #[error("the metadata did not answer in time: the command may have been applied")]
    Unknown,
    #[error("the metadata's writer has ended: {0}")]
    Ended(Arc<str>),
}

impl SubmitError {
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) => ErrorKind::Reject,
            Self::Unavailable | Self::Unknown => ErrorKind::Retry,
            Self::Ended(_) => ErrorKind::Stop,
        }
    }
}

/// A lookup that needed the database and did not get an answer from it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    #[error("the metadata database did not answer in time")]
    Unavailable,
    #[error("the metadata database failed: {0}")]
    Database(Arc<str>),
    #[error("the metadata database holds a row that cannot be read: {0}")]
    Corrupt(crate::codec::CodecError),
}

impl LookupError {
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable => ErrorKind::Retry,
            Self::Database(_) | Self::Corrupt(_) => ErrorKind::Stop,
        }
    }
}
