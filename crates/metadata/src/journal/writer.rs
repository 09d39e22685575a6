//! Writing the journal, in step with the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::Env;
use forebay_format::ObjectName;
use forebay_store::{Body, CreateError, Key as StoreKey, Store, StoreError, StoreErrorKind, create_exact};
use forebay_types::ClusterId;
use futures::future::join_all;

use super::ENTRIES_PER_FULL;
use super::entry::{Entry, Extent};
use crate::codec;
use crate::state::{CommitNumber, JournalPosition, Key, Row, Tables};

/// Rows of a full entry in one part, at about 200 bytes each.
const ROWS_PER_PART: usize = 16_384;
/// Numbers that another writer may have taken before ours: one entry per term that never got to commit.
const STRAYS_MAX: u64 = 1_024;
/// Old entries deleted behind one commit.
const DELETES_PER_COMMIT: usize = 8;
/// Between two rounds of attempts on a store that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The journal cannot go on. Nothing that the store says of itself is among these: a refusal may end as an outage does,
/// when somebody has put the keys or the policy right.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("a newer controller writes the journal: entry {number} is of term {theirs}, ours is {ours}")]
    Fenced { number: u64, theirs: u64, ours: u64 },
    #[error("the journal's entry {number} has the name of an object that is not one: {what}")]
    Foreign { number: u64, what: String },
}

/// Waiting for a store that does not do what it is asked, told once for each way in which it does not.
#[derive(Default)]
struct Patience {
    told: Option<StoreErrorKind>,
}

impl Patience {
    async fn wait(&mut self, env: &Env, number: u64, error: &StoreError) {
        if self.told.replace(error.kind()) != Some(error.kind()) {
            let error = error as &dyn std::error::Error;
            if matches!(self.told, Some(StoreErrorKind::DidNotHappen | StoreErrorKind::MayHaveHappened)) {
                tracing::warn!(error, number, "the metadata's journal waits for the store");
            } else {
                tracing::error!(error, number, "no change of the metadata is done until the store takes its journal");
            }
        }
        env.sleep(PAUSE).await;
    }

    fn over(&self, number: u64) {
        if self.told.is_some() {
            tracing::info!(number, "the store takes the metadata's journal again");
        }
    }
}

pub(crate) struct JournalWriter {
    env: Env,
    store: Arc<dyn Store>,
    cluster: ClusterId,
    term: u64,
    position: JournalPosition,
    /// The next entry has to be a full one: an entry of unknown standing lies before it.
    full_due: bool,
}

pub(crate) fn entry_key(number: u64) -> StoreKey {
    let name = ObjectName::Journal { number }.to_string();
    StoreKey::new(&name).expect("the names of our objects are legal keys")
}

impl JournalWriter {
    /// Goes on behind `position`, which is what the database knows. An entry that lies there was never committed.
    pub(crate) async fn open(
        env: &Env,
        store: Arc<dyn Store>,
        cluster: ClusterId,
        term: u64,
        position: JournalPosition,
    ) -> Result<Self, WriteError> {
        let mut writer = Self { env: env.clone(), store, cluster, term, position, full_due: false };
        while writer.is_taken(writer.position.next).await {
            tracing::info!(number = writer.position.next, "a journal entry was never committed; a full one follows it");
            writer.skip(writer.position.next)?;
        }
        Ok(writer)
    }

    async fn is_taken(&self, number: u64) -> bool {
        let mut patience = Patience::default();
        loop {
            match self.store.head(&entry_key(number)).await {
                Ok(_) => return true,
                Err(error) if error.kind() == StoreErrorKind::NotFound => return false,
                Err(error) => patience.wait(&self.env, number, &error).await,
            }
        }
    }

    fn skip(&mut self, number: u64) -> Result<(), WriteError> {
        self.full_due = true;
        self.position.next = number + 1;
        if self.position.next - self.position.full > ENTRIES_PER_FULL + STRAYS_MAX {
            return Err(WriteError::Foreign { number, what: "too many entries of unknown standing".to_owned() });
        }
        Ok(())
    }

    /// Makes the journaled ones of `rows` durable as the next entry. `tables` hold them already. Gives the position
    /// that belongs into the same commit; `None` where nothing of it is journaled.
    pub(crate) async fn write(
        &mut self,
        rows: &BTreeMap<Key, Option<Row>>,
        tables: &Tables,
    ) -> Result<Option<JournalPosition>, WriteError> {
        let delta: BTreeMap<Key, Option<Row>> =
            rows.iter().filter(|(key, _)| key.is_journaled()).map(|(key, row)| (key.clone(), row.clone())).collect();
        if delta.is_empty() {
            return Ok(None);
        }
        let commit = tables.commit();
        let grown = self.position.next - self.position.full >= ENTRIES_PER_FULL;
        if !self.full_due && !grown && self.create(Extent::Delta, commit, delta).await? {
            return Ok(Some(self.position));
        }
        while !self.write_full(tables, commit).await? {}
        Ok(Some(self.position))
    }

    /// Every row, in parts of consecutive numbers; `false` where a number among them was taken.
    async fn write_full(&mut self, tables: &Tables, commit: CommitNumber) -> Result<bool, WriteError> {
        let first = self.position.next;
        let rows = tables.journaled_rows();
        let parts = rows.len().div_ceil(ROWS_PER_PART);
        let parts = u32::try_from(parts).expect("a cluster has fewer than 2^32 times 2^14 rows");
        let mut rest = rows.into_iter().map(|(key, row)| (key, Some(row)));
        for part in 0..parts {
            let rows = rest.by_ref().take(ROWS_PER_PART).collect();
            if !self.create(Extent::Full { part, parts }, commit, rows).await? {
                return Ok(false);
            }
        }
        self.position.full = first;
        self.full_due = false;
        Ok(true)
    }

    /// Creates the next entry; `false` where an older writer had its number, which makes a full entry due.
    async fn create(
        &mut self,
        extent: Extent,
        commit: CommitNumber,
        rows: BTreeMap<Key, Option<Row>>,
    ) -> Result<bool, WriteError> {
        let number = self.position.next;
        debug_assert!(rows.keys().all(|key| codec::journal_kind(key) != 0));
        let entry = Entry { number, extent, term: self.term, commit, rows };
        let body = Body::from(entry.encode(&self.cluster, self.env.now()));
        let mut patience = Patience::default();
        loop {
            match create_exact(&self.env, &*self.store, &entry_key(number), body.clone()).await {
                Ok(_) => {
                    patience.over(number);
                    self.position.next = number + 1;
                    return Ok(true);
                }
                Err(CreateError::Theirs { found, .. }) => {
                    let (_, theirs) =
                        Entry::parse(&found).map_err(|e| WriteError::Foreign { number, what: e.to_string() })?;
                    if theirs.term >= self.term {
                        return Err(WriteError::Fenced { number, theirs: theirs.term, ours: self.term });
                    }
                    self.skip(number)?;
                    return Ok(false);
                }
                Err(CreateError::Store(error)) => patience.wait(&self.env, number, &error).await,
            }
        }
    }

    /// Deletes a few entries that a full one has made superfluous, once the commit behind it is durable. The last full
    /// entry but one stays. What cannot be deleted now is found again: the position is committed with the next entry.
    pub(crate) async fn tidy(&mut self) {
        let end = self.position.full.saturating_sub(ENTRIES_PER_FULL);
        let numbers: Vec<u64> = (self.position.oldest..end).take(DELETES_PER_COMMIT).collect();
        let keys: Vec<StoreKey> = numbers.iter().map(|number| entry_key(*number)).collect();
        for (number, deleted) in numbers.iter().zip(join_all(keys.iter().map(|key| self.store.delete(key))).await) {
            match deleted {
                Ok(()) => self.position.oldest = number + 1,
                Err(error) => {
                    tracing::debug!(%error, number, "an old journal entry stays a little longer");
                    break;
                }
            }
        }
    }
}
