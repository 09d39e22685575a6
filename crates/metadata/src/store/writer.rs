//! The one task that writes: takes commands, applies them, makes them durable, shows and answers them.

use std::sync::Arc;

use forebay_env::{Env, Task};
use forebay_types::Offset;
use slatedb::Db;
use slatedb::config::{FlushOptions, FlushType};
use tokio::sync::mpsc;

use super::database::{Database, DatabaseError};
use super::group::{Answer, Group, Request};
use super::open::absorb;
use super::{GROUP_COMMANDS_MAX, GROUPS_PER_FLUSH, READ_TIME_MAX, UNFOLDED_RANGES_MAX, UNFOLDED_UPLOADS_MAX};
use crate::apply::{self, Fetched, Read, Stop, View};
use crate::codec;
use crate::command::Command;
use crate::journal::JournalWriter;
use crate::service::{End, Published, SubmitError};
use crate::state::{Extent, Key, Row, Tables, Upload};

pub(super) struct Writer {
    env: Env,
    database: Database<Db>,
    tables: Tables,
    journal: JournalWriter,
    published: Arc<Published>,
    requests: mpsc::Receiver<Request>,
    end: End,
    groups_since_flush: u32,
    /// The last flush of the memtable, under way or done.
    flushing: Option<Task<()>>,
}

/// Why the writer cannot go on.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Journal(#[from] crate::journal::WriteError),
}

/// Reading what a command needs did not work out.
enum ReadFailure {
    /// Not in time: the command is not applied.
    Slow,
    Fatal(DatabaseError),
}

impl Writer {
    pub(super) fn new(
        env: &Env,
        database: Database<Db>,
        tables: Tables,
        journal: JournalWriter,
        published: Arc<Published>,
        requests: mpsc::Receiver<Request>,
        end: End,
    ) -> Self {
        let env = env.clone();
        Self { env, database, tables, journal, published, requests, end, groups_since_flush: 0, flushing: None }
    }

    pub(super) async fn run(mut self) {
        let reason = match self.work().await {
            Ok(()) => "it was stopped".to_owned(),
            Err(fatal) => {
                tracing::error!(error = %fatal, "the metadata's writer ends");
                fatal.to_string()
            }
        };
        // From here on submitters get the reason instead of waiting.
        self.end.set(reason.into());
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            let _ = request.answer.send(Err(self.end.error()));
        }
        drop(self.flushing.take());
        if let Err(error) = self.database.0.close().await {
            tracing::warn!(%error, "closing the metadata database");
        }
    }

    /// Until the host stops it, or something fails for good.
    async fn work(&mut self) -> Result<(), Fatal> {
        let mut batch = Vec::with_capacity(GROUP_COMMANDS_MAX);
        loop {
            let taken = tokio::select! {
                biased;
                () = self.end.stopping() => 0,
                taken = self.requests.recv_many(&mut batch, GROUP_COMMANDS_MAX) => taken,
            };
            if taken == 0 {
                // What was sent before the stop is still done.
                self.requests.close();
                while self.requests.recv_many(&mut batch, GROUP_COMMANDS_MAX).await > 0 {
                    self.group(&mut batch).await?;
                }
                return Ok(());
            }
            self.group(&mut batch).await?;
            self.fold_uploads().await?;
            // All that the tables hold is committed here, and the next commands wait for one part at most.
            self.journal.write_part(&self.tables).await?;
        }
    }

    /// Applies the commands and makes them durable, usually as one group.
    async fn group(&mut self, batch: &mut Vec<Request>) -> Result<(), Fatal> {
        let mut group = Group::default();
        for request in batch.drain(..) {
            if request.answer.is_closed() {
                continue;
            }
            let answer = self.apply(&mut group, &request.command).await?;
            group.later(request.answer, answer);
        }
        self.commit(group).await
    }

    /// Applies one command. Its rows are then in the tables and in `group`, which may have been committed and begun anew.
    async fn apply(&mut self, group: &mut Group, command: &Command) -> Result<Answer, Fatal> {
        let mut fetched = Fetched::default();
        loop {
            let reads = match apply::apply(View { tables: &self.tables, fetched: &fetched }, command) {
                Ok(changes) => {
                    absorb(&mut self.tables, &changes.rows);
                    group.rows.extend(changes.rows);
                    return Ok(Ok(changes.reply));
                }
                Err(Stop::Refused(refusal)) => return Ok(Err(refusal.into())),
                Err(Stop::Need(reads)) => reads,
            };
            if group.has_cold_rows() {
                // The database has to show what the commands before this one changed.
                self.commit(std::mem::take(group)).await?;
            }
            match self.fetch(&reads, &mut fetched).await {
                Ok(()) => {}
                Err(ReadFailure::Slow) => return Ok(Err(SubmitError::Unavailable)),
                Err(ReadFailure::Fatal(error)) => return Err(error.into()),
            }
        }
    }

    async fn fetch(&self, reads: &[Read], fetched: &mut Fetched) -> Result<(), ReadFailure> {
        for read in reads {
            let one = self.env.timeout(READ_TIME_MAX, self.fetch_one(read, fetched)).await;
            one.ok_or(ReadFailure::Slow)?.map_err(ReadFailure::Fatal)?;
        }
        Ok(())
    }

    async fn fetch_one(&self, read: &Read, fetched: &mut Fetched) -> Result<(), DatabaseError> {
        match read {
            Read::Row(key) => fetched.row(key.clone(), self.database.get(key).await?),
            Read::FirstExtents { log, limit } => {
                let rows = self.database.scan(codec::extents_from(*log, Offset::ZERO), *limit).await?;
                let extents: Vec<Extent> = rows
                    .into_iter()
                    .map(|(key, row)| match row {
                        Row::Extent(extent) => extent,
                        other => unreachable!("a row among extents is decoded as one: {key:?} {other:?}"),
                    })
                    .collect();
                fetched.first_extents(*log, *limit, extents);
            }
        }
        Ok(())
    }

    /// Journal, database, lookups, answers: in this order.
    async fn commit(&mut self, mut group: Group) -> Result<(), Fatal> {
        if !group.rows.is_empty() {
            let position = self.journal.write(&group.rows, self.tables.commit()).await?;
            if let Some(position) = position {
                self.tables.put(&Key::Journal, Some(Row::Journal(position)));
                group.rows.insert(Key::Journal, Some(Row::Journal(position)));
            }
            self.database.commit(&group.rows).await?;
            self.published.show(&self.tables, &group.rows);
            group.answer();
            if position.is_some() {
                self.journal.tidy().await;
            }
            self.flush_memtable();
            return Ok(());
        }
        group.answer();
        Ok(())
    }

    /// Every so many groups, beside the commands that go on. One at a time.
    fn flush_memtable(&mut self) {
        self.groups_since_flush += 1;
        let idle = self.flushing.as_ref().is_none_or(Task::is_finished);
        if self.groups_since_flush < GROUPS_PER_FLUSH || !idle {
            return;
        }
        self.groups_since_flush = 0;
        let database = self.database.0.clone();
        self.flushing = Some(self.env.spawn("metadata-flush", async move {
            let options = FlushOptions { flush_type: FlushType::MemTable };
            if let Err(error) = database.flush_with_options(options).await {
                tracing::warn!(%error, "flushing the metadata's memtable");
            }
        }));
    }

    /// Keeps the uploads in memory bounded, whoever else asks for it or not.
    async fn fold_uploads(&mut self) -> Result<(), Fatal> {
        let ranges = |tables: &Tables| tables.uploads().values().map(unfolded).sum::<usize>();
        if self.tables.uploads().len() <= UNFOLDED_UPLOADS_MAX && ranges(&self.tables) <= UNFOLDED_RANGES_MAX {
            return Ok(());
        }
        while self.tables.uploads().len() > UNFOLDED_UPLOADS_MAX / 2 || ranges(&self.tables) > UNFOLDED_RANGES_MAX / 2 {
            let mut group = Group::default();
            match self.apply(&mut group, &Command::IndexUploads).await? {
                Ok(_) => self.commit(group).await?,
                Err(error) => {
                    tracing::warn!(%error, "folding uploads waits");
                    break;
                }
            }
        }
        Ok(())
    }
}

fn unfolded(upload: &Upload) -> usize {
    upload.ranges.len().saturating_sub(usize::try_from(upload.folded).unwrap_or(usize::MAX))
}
