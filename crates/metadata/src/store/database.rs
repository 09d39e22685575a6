//! Typed rows on SlateDB, for the writer and for readers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use slatedb::{Db, DbReadOps, WriteBatch};

use crate::codec::{self, CodecError};
use crate::state::{Key, Row};

/// The database did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error(transparent)]
    Corrupt(#[from] CodecError),
    #[error("{0}")]
    Failed(Failure),
}

/// What SlateDB said, as text: its errors are not ours to hand on.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) Arc<str>);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<slatedb::Error> for DatabaseError {
    fn from(error: slatedb::Error) -> Self {
        if matches!(error.kind(), slatedb::ErrorKind::Closed(slatedb::CloseReason::Fenced)) {
            return Self::Failed(Failure("another process opened the metadata for writing".into()));
        }
        Self::Failed(Failure(chain(&error).into()))
    }
}

/// An error and what brought it about, as text; what only repeats the text before it is left out.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = inner.source();
    }
    text
}

/// A database that can be read: SlateDB's writer or its reader.
#[derive(Clone)]
pub(crate) struct Database<D>(pub(crate) D);

impl<D: DbReadOps + Send + Sync> Database<D> {
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Row>, DatabaseError> {
        let Some(bytes) = self.0.get(codec::encode_key(key)).await? else { return Ok(None) };
        Ok(Some(codec::decode_row(key, &bytes)?))
    }

    /// The first `limit` rows of a range of keys.
    pub(crate) async fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<(Key, Row)>, DatabaseError> {
        let mut found = Vec::new();
        let mut rows = self.0.scan(range).await?;
        while found.len() < limit
            && let Some(row) = rows.next().await?
        {
            let key = codec::decode_key(&row.key)?;
            let row = codec::decode_row(&key, &row.value)?;
            found.push((key, row));
        }
        Ok(found)
    }
}

impl Database<Db> {
    /// Makes the rows durable, all or none.
    pub(crate) async fn commit(&self, rows: &BTreeMap<Key, Option<Row>>) -> Result<(), DatabaseError> {
        let mut batch = WriteBatch::new();
        for (key, row) in rows {
            match row {
                Some(row) => batch.put(codec::encode_key(key), codec::encode_row(row)),
                None => batch.delete(codec::encode_key(key)),
            }
        }
        // Writing answers before the batch is durable, and nothing flushes but we.
        let written = self.0.write(batch).await?;
        self.0.flush().await?;
        written.await_durable().await?;
        Ok(())
    }
}
