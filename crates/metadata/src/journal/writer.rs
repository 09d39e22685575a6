//! Writing the journal, in step with the database: a delta before each commit, a part of a full state behind some.

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

/// Rows in one part of a full state, at about 200 bytes each: what the commands behind one commit may have to wait for,
/// and as many entities as one command may touch (D7).
pub(crate) const ROWS_PER_PART: usize = 4_096;
/// Numbers that others may have taken before ours: a delta and a part for each term that never got to commit.
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
    /// Where this term goes on: what lies from here on and is not of this term was never committed.
    begins: u64,
    position: JournalPosition,
    full: Full,
}

/// How far the next full state is written.
enum Full {
    /// Not begun.
    Idle,
    /// Parts up to the key `after` are there.
    Begun { first: u64, parts: u32, after: Key },
    /// All parts are there; the next commit says so.
    Whole { first: u64 },
}

pub(crate) fn entry_key(number: u64) -> StoreKey {
    let name = ObjectName::Journal { number }.to_string();
    StoreKey::new(&name).expect("the names of our objects are legal keys")
}

impl JournalWriter {
    /// Goes on behind `position`, which is what the database knows. What lies there was never committed, and is void as
    /// soon as this term writes.
    pub(crate) async fn open(
        env: &Env,
        store: Arc<dyn Store>,
        cluster: ClusterId,
        term: u64,
        position: JournalPosition,
    ) -> Result<Self, WriteError> {
        let (env, begins, full) = (env.clone(), position.next, Full::Idle);
        let mut writer = Self { env, store, cluster, term, begins, position, full };
        while writer.is_taken(writer.position.next).await {
            tracing::info!(number = writer.position.next, "a journal entry was never committed, and is passed over");
            writer.skip()?;
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

    /// Leaves the next number to the older writer that took it.
    fn skip(&mut self) -> Result<(), WriteError> {
        let number = self.position.next;
        self.position.next = number + 1;
        if number - self.begins >= STRAYS_MAX {
            return Err(WriteError::Foreign { number, what: "too many entries of unknown standing".to_owned() });
        }
        Ok(())
    }

    /// Makes the journaled ones of `rows` durable as the next entry. Gives the position that belongs into the same commit;
    /// `None` where nothing of it is journaled.
    pub(crate) async fn write(
        &mut self,
        rows: &BTreeMap<Key, Option<Row>>,
        commit: CommitNumber,
    ) -> Result<Option<JournalPosition>, WriteError> {
        let delta: BTreeMap<Key, Option<Row>> =
            rows.iter().filter(|(key, _)| key.is_journaled()).map(|(key, row)| (key.clone(), row.clone())).collect();
        if delta.is_empty() {
            return Ok(None);
        }
        self.create(commit, delta, |_| Extent::Delta).await?;
        // Not before its parts lie below the committed position: a part that the database does not know of is void.
        if let Full::Whole { first } = self.full {
            self.position.full = first;
            self.full = Full::Idle;
        }
        Ok(Some(self.position))
    }

    /// Writes the next part of a full state, where one is begun or due. `tables` hold what is committed and nothing else:
    /// the part tells the rows of its keys as of its own number.
    pub(crate) async fn write_part(&mut self, tables: &Tables) -> Result<(), WriteError> {
        let (first, part, after) = match &self.full {
            Full::Idle if self.position.next - self.position.full < ENTRIES_PER_FULL => return Ok(()),
            Full::Idle => (None, 0, None),
            Full::Begun { first, parts, after } => (Some(*first), *parts, Some(after.clone())),
            Full::Whole { .. } => return Ok(()),
        };
        let mut rows = tables.journaled_rows(after.as_ref(), ROWS_PER_PART + 1);
        let last = rows.len() <= ROWS_PER_PART;
        rows.truncate(ROWS_PER_PART);
        let after = rows.last().map(|(key, _)| key.clone()).or(after).expect("a cluster has rows");
        let rows = rows.into_iter().map(|(key, row)| (key, Some(row))).collect();
        let extent = |number| Extent::Part { first: first.unwrap_or(number), part, last };
        let number = self.create(tables.commit(), rows, extent).await?;
        let first = first.unwrap_or(number);
        self.full = if last { Full::Whole { first } } else { Full::Begun { first, parts: part + 1, after } };
        Ok(())
    }

    /// Creates the next entry, and gives its number.
    async fn create(
        &mut self,
        commit: CommitNumber,
        rows: BTreeMap<Key, Option<Row>>,
        extent: impl Fn(u64) -> Extent,
    ) -> Result<u64, WriteError> {
        debug_assert!(rows.keys().all(|key| codec::journal_kind(key) != 0));
        let begins = Some(self.begins);
        let mut entry = Entry { number: 0, extent: Extent::Delta, term: self.term, begins, commit, rows };
        loop {
            let number = self.position.next;
            (entry.number, entry.extent) = (number, extent(number));
            let (cluster, now) = (self.cluster.clone(), self.env.now());
            let encode = move || (entry.encode(&cluster, now), entry);
            let bytes;
            (bytes, entry) = self.env.blocking("journal-entry", encode).await;
            if self.create_object(number, Body::from(bytes)).await? {
                self.position.next = number + 1;
                return Ok(number);
            }
            self.skip()?;
        }
    }

    /// `false` where an older writer has that number.
    async fn create_object(&self, number: u64, body: Body) -> Result<bool, WriteError> {
        let mut patience = Patience::default();
        loop {
            match create_exact(&self.env, &*self.store, &entry_key(number), body.clone()).await {
                Ok(_) => {
                    patience.over(number);
                    return Ok(true);
                }
                Err(CreateError::Theirs { found, .. }) => {
                    let (_, theirs) =
                        Entry::parse(&found).map_err(|e| WriteError::Foreign { number, what: e.to_string() })?;
                    if theirs.term >= self.term {
                        return Err(WriteError::Fenced { number, theirs: theirs.term, ours: self.term });
                    }
                    return Ok(false);
                }
                Err(CreateError::Store(error)) => patience.wait(&self.env, number, &error).await,
            }
        }
    }

    /// Deletes a few entries that a full state has made superfluous, once the commit that tells of it is durable. Half an
    /// age of older ones stays. What cannot be deleted now is found again: the position is committed with the next entry.
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
