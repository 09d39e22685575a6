//! The metadata in this process: commands through a channel to the writer, lookups from what it has shown.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use forebay_env::{Env, Shutdown};
use forebay_types::{ClusterId, LogId, Offset, Timestamp};
use slatedb::Db;
use tokio::sync::{mpsc, oneshot, watch};

use super::published::LogLookup;
use super::{LogSize, LookupError, Metadata, Published, Standing, SubmitError, TopicsView};
use crate::codec;
use crate::command::{Command, Reply};
use crate::state::{BrokerLife, CommitNumber, ConfigScope, Extent, Garbage, Key, Pin, PinId, Row, WalEpoch};
use crate::store::{COMMAND_TIME_MAX, Database, DatabaseError, READ_TIME_MAX, Request};

/// How the writer is told to stop, and tells that it has.
#[derive(Clone)]
pub(crate) struct End {
    stopping: Shutdown,
    reason: Arc<OnceLock<Arc<str>>>,
    ended: Shutdown,
}

impl End {
    fn new() -> Self {
        Self { stopping: Shutdown::default(), reason: Arc::default(), ended: Shutdown::default() }
    }

    pub(crate) async fn stopping(&self) {
        self.stopping.triggered().await;
    }

    pub(crate) fn set(&self, reason: Arc<str>) {
        let _ = self.reason.set(reason);
        self.ended.trigger();
    }

    pub(crate) fn error(&self) -> SubmitError {
        SubmitError::Ended(self.reason())
    }

    fn reason(&self) -> Arc<str> {
        self.reason.get().cloned().unwrap_or_else(|| "its task was dropped".into())
    }
}

/// The writer is [`crate::Host`]'s; when that is dropped or fails, submitting ends and lookups show the last state.
pub struct LocalMetadata {
    env: Env,
    requests: mpsc::Sender<Request>,
    published: Arc<Published>,
    database: Database<Db>,
    end: End,
}

impl LocalMetadata {
    pub(crate) fn new(
        env: &Env,
        requests: mpsc::Sender<Request>,
        published: Arc<Published>,
        database: Database<Db>,
    ) -> Self {
        Self { env: env.clone(), requests, published, database, end: End::new() }
    }

    pub(crate) fn end(&self) -> End {
        self.end.clone()
    }

    pub(crate) fn stop(&self) {
        self.end.stopping.trigger();
    }

    pub(crate) async fn ended(&self) -> Arc<str> {
        self.end.ended.triggered().await;
        self.end.reason()
    }

    /// A read of the database, within its time limit.
    async fn read<T>(&self, read: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, LookupError> {
        match self.env.timeout(READ_TIME_MAX, read).await {
            None => Err(LookupError::Unavailable),
            Some(Ok(found)) => Ok(found),
            Some(Err(DatabaseError::Corrupt(error))) => Err(LookupError::Corrupt(error)),
            Some(Err(DatabaseError::Failed(failure))) => Err(LookupError::Database(failure.0)),
        }
    }
}

#[async_trait]
impl Metadata for LocalMetadata {
    async fn submit(&self, command: Command) -> Result<Reply, SubmitError> {
        let deadline = self.env.monotonic() + COMMAND_TIME_MAX;
        let (answer, answered) = oneshot::channel();
        match self.env.timeout(COMMAND_TIME_MAX, self.requests.send(Request { command, answer })).await {
            None => return Err(SubmitError::Unavailable),
            Some(Err(_)) => return Err(self.end.error()),
            Some(Ok(())) => {}
        }
        let left = deadline.saturating_duration_since(self.env.monotonic());
        match self.env.timeout(left, answered).await {
            None => Err(SubmitError::Unknown),
            Some(Err(_)) => Err(self.end.error()),
            Some(Ok(answer)) => answer,
        }
    }

    fn cluster(&self) -> &ClusterId {
        self.published.cluster()
    }

    fn topics(&self) -> TopicsView {
        self.published.topics()
    }

    fn changes(&self) -> watch::Receiver<CommitNumber> {
        self.published.changes()
    }

    async fn extents(&self, log: LogId, from: Offset, limit: usize) -> Result<Vec<Extent>, LookupError> {
        // Memory first: an upload leaves it only after its extent rows are durable, so none is missed in between.
        let LogLookup { indexed_end, unfolded } = self.published.extents(log, from, limit);
        let mut found: Vec<Extent> = Vec::new();
        if from < indexed_end {
            let rows = self.read(self.database.scan(codec::extents_from(log, from), limit)).await?;
            found.extend(rows.into_iter().filter_map(|(_, row)| match row {
                Row::Extent(extent) => Some(extent),
                _ => None,
            }));
        }
        let end = found.last().map_or(from, |last| last.range.end());
        let room = limit.saturating_sub(found.len());
        found.extend(unfolded.into_iter().filter(|extent| extent.range.end() > end).take(room));
        Ok(found)
    }

    fn log_size(&self, log: LogId) -> LogSize {
        self.published.log_size(log)
    }

    fn broker_config(&self, scope: ConfigScope) -> Arc<BTreeMap<String, String>> {
        self.published.broker_config(scope)
    }

    fn pins(&self) -> Vec<(PinId, Arc<Pin>, Timestamp)> {
        self.published.pins()
    }

    fn wal_epochs(&self) -> Vec<(BrokerLife, WalEpoch)> {
        self.published.wal_epochs()
    }

    async fn garbage(&self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Garbage)>, LookupError> {
        let rows = self.read(self.database.scan(codec::garbage_after(after), limit)).await?;
        let named = |(key, row)| match (key, row) {
            (Key::Garbage(name), Row::Garbage(garbage)) => Some((name, garbage)),
            _ => None,
        };
        Ok(rows.into_iter().filter_map(named).collect())
    }

    async fn standing(&self, object: &str) -> Result<Standing, LookupError> {
        if self.published.has_upload_in(object) {
            return Ok(Standing::Reached);
        }
        let (live, garbage) = (Key::Object(object.to_owned()), Key::Garbage(object.to_owned()));
        if self.read(self.database.get(&live)).await?.is_some() {
            return Ok(Standing::Reached);
        }
        match self.read(self.database.get(&garbage)).await? {
            Some(Row::Garbage(garbage)) => Ok(Standing::Garbage(garbage)),
            // An upload may have been committed between the two looks; unknown proves nothing to anybody.
            _ => Ok(Standing::Unknown),
        }
    }
}
