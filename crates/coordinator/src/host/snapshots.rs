//! A machine's snapshots: written while it goes on, referenced once durable, and the log start moved up behind them.
//!
//! The log keeps what lies behind the snapshot before the newest: so tools that read an internal topic see at least the
//! last [`super::HostConfig::records_per_snapshot`] records, and the topic does not grow for ever.
//!
//! Crash: a snapshot that is not referenced is garbage, and the log still holds all that it held.

use std::sync::Arc;

use bytes::Bytes;
use forebay_env::Task;
use forebay_format::{CoordinatorKind, CoordinatorSnapshot, ObjectName};
use forebay_log::Partition;
use forebay_metadata::command::{AdvanceReason, SnapshotAt};
use forebay_metadata::{Command, SubmitError};
use forebay_store::{Body, CreateError, Key, create_exact};
use forebay_types::{Offset, WalPosition};
use forebay_wal::WalEnded;

use super::Shared;

/// A machine's state, encoded.
pub(super) struct Taken {
    /// The first offset that is not in it.
    pub at: Offset,
    /// What to wait for so that all that is in it is durable.
    pub position: WalPosition,
    pub payload: Bytes,
}

/// Writes one machine's snapshots, one after the other.
pub(super) struct Snapshots {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    kind: CoordinatorKind,
    /// The newest that is referenced.
    newest: Option<Offset>,
    writing: Option<Task<Option<Offset>>>,
}

/// Why a snapshot was not written. The next one will be as good.
#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    #[error(transparent)]
    Wal(#[from] WalEnded),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Metadata(#[from] SubmitError),
}

impl Snapshots {
    pub fn new(shared: Arc<Shared>, partition: Arc<Partition>, kind: CoordinatorKind, newest: Option<Offset>) -> Self {
        Self { shared, partition, kind, newest, writing: None }
    }

    /// Whether a snapshot may be taken now: none is being written.
    pub fn is_idle(&self) -> bool {
        self.writing.as_ref().is_none_or(Task::is_finished)
    }

    /// Writes a snapshot in the background.
    pub async fn write(&mut self, taken: Taken) {
        self.finish().await;
        if self.newest.is_some_and(|newest| newest >= taken.at) {
            return;
        }
        let (shared, partition) = (Arc::clone(&self.shared), Arc::clone(&self.partition));
        let (kind, before) = (self.kind, self.newest);
        self.writing = Some(self.shared.env.spawn("coordinator-snapshot", async move {
            let at = taken.at;
            match write(&shared, &partition, kind, taken, before).await {
                Ok(()) => Some(at),
                Err(error) => {
                    tracing::warn!(partition = %partition.id(), error = &error as &dyn std::error::Error,
                        "a coordinator's snapshot could not be written; the next one will be");
                    None
                }
            }
        }));
    }

    /// Returns when nothing is being written.
    pub async fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.newest = writing.await.flatten().or(self.newest);
        }
    }
}

async fn write(
    shared: &Shared,
    partition: &Partition,
    kind: CoordinatorKind,
    taken: Taken,
    before: Option<Offset>,
) -> Result<(), SnapshotError> {
    let Taken { at, position, payload } = taken;
    shared.wal.durable(position).await?;
    let (id, leader_epoch) = (partition.id(), partition.leader_epoch());
    let snapshot = CoordinatorSnapshot {
        cluster: shared.metadata.cluster().clone(),
        kind,
        partition: id,
        leader_epoch,
        at,
        written_at: shared.env.now(),
        payload,
    };
    let bytes = shared.env.blocking("coordinator-snapshot", move || snapshot.encode()).await;
    let size = bytes.len() as u64;
    let object = ObjectName::CoordinatorSnapshot { partition: id, leader_epoch, at }.to_string();
    let key = Key::new(&object).expect("our own names are keys");
    create_exact(&shared.env, &*shared.store, &key, Body::new(vec![bytes])).await?;
    let at = SnapshotAt { partition: id, leader_epoch, at };
    shared.metadata.submit(Command::PutCoordinatorSnapshot { life: shared.life, object, size, partition: at }).await?;
    let Some(to) = before else { return Ok(()) };
    let command = Command::AdvanceLogStart {
        life: shared.life,
        partition: id,
        leader_epoch,
        to,
        reason: AdvanceReason::Request,
        now: shared.env.now(),
    };
    match shared.metadata.submit(command).await {
        // A pin holds the topic's history: it grows until that is released.
        Ok(_) | Err(SubmitError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
