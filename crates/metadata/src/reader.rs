//! Reading the metadata with no broker running, or beside one, for tools: nothing is written, nobody is fenced.
//!
//! What is read is the latest durable state when the reader was opened or a little later. A reader that works long
//! beside a busy writer may lose an object to the database's own collector; it then fails and is opened again.

use std::sync::Arc;

use forebay_env::Env;
use forebay_store::{Store, slate};
use forebay_types::Timestamp;
use slatedb::{DbReader, DbReaderMode};

use crate::codec;
use crate::service::LookupError;
use crate::state::{Key, Row};
use crate::store::{Database, DatabaseError, OPEN_TIME_MAX, OpenError, PATH, READ_TIME_MAX, clock, reader_settings};

/// The metadata, for reading only.
pub struct Reader {
    env: Env,
    database: Database<DbReader>,
}

impl Reader {
    /// # Errors
    /// There is no metadata in the bucket, or it cannot be read.
    pub async fn open(env: &Env, store: Arc<dyn Store>) -> Result<Self, OpenError> {
        let database = env.timeout(OPEN_TIME_MAX, open(env, store)).await.ok_or(OpenError::Timeout)??;
        Ok(Self { env: env.clone(), database })
    }

    /// Up to `limit` rows in order of keys as the database sorts them, after the row `after`: read again with the last
    /// key until none is left.
    pub async fn rows(&self, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Row)>, LookupError> {
        let mut start = after.map(codec::encode_key).unwrap_or_default();
        // The key right after; the empty one is before all.
        start.push(0);
        let end = vec![u8::MAX];
        match self.env.timeout(READ_TIME_MAX, self.database.scan(start..end, limit)).await {
            None => Err(LookupError::Unavailable),
            Some(Ok(rows)) => Ok(rows),
            Some(Err(DatabaseError::Corrupt(error))) => Err(LookupError::Corrupt(error)),
            Some(Err(DatabaseError::Failed(failure))) => Err(LookupError::Database(failure.0)),
        }
    }

    /// Stops its background work.
    pub async fn close(self) {
        if let Err(error) = self.database.0.close().await {
            tracing::debug!(%error, "closing the metadata reader");
        }
    }
}

async fn open(env: &Env, store: Arc<dyn Store>) -> Result<Database<DbReader>, DatabaseError> {
    let reader = DbReader::builder(PATH, slate::adapter(env, store))
        .with_reader_mode(DbReaderMode::FollowLatest)
        .with_options(reader_settings())
        .with_system_clock(clock(env, Timestamp::default()))
        .with_seed(env.random_u64())
        .with_db_cache_disabled()
        .build()
        .await?;
    Ok(Database(reader))
}
