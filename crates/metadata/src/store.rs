//! The database in the bucket, and the one task that writes it.
//!
//! Owns: opening SlateDB (which fences the writer before), groups of commands, flushing, time limits, and ending when
//! the database ends. Leaves to others: the rules (`apply`), lookups (`service`), electing a controller.
//!
//! Consistency: commands are applied in the order they arrive, each on the rows as the one before left them. A group is
//! one write batch; its answers, refusals too, go out once the batch is durable, because a refusal may rest on a
//! command of the same group. Lookups see a group after it is durable, never before.
//!
//! Retries: SlateDB and the journal repeat what the store does not answer, for as long as it takes. Whoever submitted
//! gives up after [`COMMAND_TIME_MAX`] and repeats the command, which changes nothing the second time.
//!
//! Cancellation: a command whose submitter has gone before it was applied is dropped.
//!
//! Crash: what is not durable never happened. A batch that failed for good ends the host: its rows are in memory and
//! may be in the bucket, so this process cannot go on from either; opening again reads what became of it.

mod clock;
mod database;
mod group;
mod open;
mod settings;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Env, Task};
use forebay_store::Store;
use forebay_types::ClusterId;

use crate::command::Refusal;
use crate::service::LocalMetadata;

pub(crate) use database::{Database, DatabaseError};
pub(crate) use group::Request;
pub(crate) use settings::{PATH, clock, reader_settings};

/// Commands that wait for the writer. Beyond it submitters wait in line, within their time limit.
pub const QUEUE_COMMANDS_MAX: usize = 1_024;
/// Commands in one write batch. Also bounds how long the first waits for the last.
pub const GROUP_COMMANDS_MAX: usize = 256;
/// Groups between two flushes of the memtable: what a takeover replays at most (D7).
pub const GROUPS_PER_FLUSH: u32 = 256;
/// How long a submitter waits for an answer.
pub const COMMAND_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a read of the database may take.
pub const READ_TIME_MAX: Duration = Duration::from_secs(10);
/// How long opening may take, with a store that answers slowly and a replay of every group since the last flush.
pub const OPEN_TIME_MAX: Duration = Duration::from_mins(1);
/// How long the objects of a database that did not open may be read through for the damaged one.
pub const DIAGNOSIS_TIME_MAX: Duration = Duration::from_mins(1);
/// Uploads whose ranges are only in memory and in their own rows; more are folded at once.
pub const UNFOLDED_UPLOADS_MAX: usize = 256;
/// Their ranges: about a hundred bytes each in memory.
pub const UNFOLDED_RANGES_MAX: usize = 65_536;

/// The metadata cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the metadata database did not open within {} s", OPEN_TIME_MAX.as_secs())]
    Timeout,
    #[error("the metadata database failed to open: {0}")]
    Database(Arc<str>),
    /// Of one of its objects something else is in the bucket than what was written there.
    #[error("the metadata database cannot be opened, an object of it is damaged: {0}")]
    Damaged(Arc<str>),
    #[error("the metadata database holds a row that cannot be read: {0}")]
    Corrupt(crate::codec::CodecError),
    #[error("the metadata is of another cluster: {0}")]
    Refused(#[from] Refusal),
    #[error("the metadata journal cannot be written: {0}")]
    Journal(Arc<str>),
}

/// The metadata's writer in this process.
#[must_use = "dropping the host ends the metadata's writer"]
pub struct Host {
    metadata: Arc<LocalMetadata>,
    writer: Task<()>,
}

impl Host {
    /// Opens the metadata for writing: from here on an earlier writer fails. A new database belongs to `cluster`, or to
    /// one of a random id; an old one keeps its own, and `cluster` must be it.
    ///
    /// # Errors
    /// See [`OpenError`]. A time-out may be tried again.
    pub async fn open(env: &Env, store: Arc<dyn Store>, cluster: Option<ClusterId>) -> Result<Self, OpenError> {
        let opened = env.timeout(OPEN_TIME_MAX, open::open(env, Arc::clone(&store), cluster)).await;
        match opened.ok_or(OpenError::Timeout)? {
            Err(OpenError::Database(failure)) => Err(open::diagnose(env, store, failure).await),
            other => other,
        }
    }

    pub fn metadata(&self) -> Arc<LocalMetadata> {
        Arc::clone(&self.metadata)
    }

    /// Takes no more commands, finishes those that were taken, and closes the database.
    pub async fn stop(self) {
        self.metadata.stop();
        self.writer.await;
    }

    /// Returns why the writer ended, once it has. Cancel safe.
    pub async fn ended(&self) -> Arc<str> {
        self.metadata.ended().await
    }
}
