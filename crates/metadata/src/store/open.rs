//! Opening: fence the writer before, read the resident rows, begin a term, go on with the journal.

use std::sync::Arc;

use forebay_env::Env;
use forebay_store::{Prefix, Store, slate};
use forebay_types::{ClusterId, Timestamp};
use slatedb::Db;
use tokio::sync::mpsc;

use super::clock::last_tick;
use super::database::{Database, DatabaseError, chain};
use super::settings::{PATH, clock, settings};
use super::writer::Writer;
use super::{DIAGNOSIS_TIME_MAX, Host, OpenError, QUEUE_COMMANDS_MAX};
use crate::apply::{self, Fetched, Stop, View};
use crate::codec;
use crate::command::Command;
use crate::journal::JournalWriter;
use crate::service::{LocalMetadata, Published};
use crate::state::{Key, Row, Tables};

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Corrupt(error) => Self::Corrupt(error),
            DatabaseError::Failed(failure) => Self::Database(failure.0),
        }
    }
}

pub(super) async fn open(env: &Env, store: Arc<dyn Store>, cluster: Option<ClusterId>) -> Result<Host, OpenError> {
    match open_at(env, Arc::clone(&store), cluster.clone(), Timestamp::default()).await {
        Err(OpenError::Database(refusal)) => match last_tick(&refusal) {
            Some(tick) => {
                tracing::warn!(%tick, now = %env.now(), "the wall clock is behind the metadata's last write");
                open_at(env, store, cluster, tick).await
            }
            None => Err(OpenError::Database(refusal)),
        },
        other => other,
    }
}

/// Why the database failed to open, by name where one of its objects is damaged. SlateDB finds most damage, but does not
/// always say where.
pub(super) async fn diagnose(env: &Env, store: Arc<dyn Store>, failure: Arc<str>) -> OpenError {
    let folder = Prefix::new(PATH).expect("the database's folder is a legal prefix");
    match env.timeout(DIAGNOSIS_TIME_MAX, slate::first_damaged(env, store, &folder)).await {
        Some(Ok(Some(damage))) => OpenError::Damaged(chain(&damage).into()),
        Some(Ok(None)) | None => OpenError::Database(failure),
        Some(Err(error)) => {
            tracing::warn!(%error, "the metadata database could not be looked through for damage");
            OpenError::Database(failure)
        }
    }
}

/// Opens with a clock that is not behind `last_write`.
async fn open_at(
    env: &Env,
    store: Arc<dyn Store>,
    cluster: Option<ClusterId>,
    last_write: Timestamp,
) -> Result<Host, OpenError> {
    let database = database(env, &store, last_write).await?;
    let mut tables = load(&database).await?;
    let rows = begin_term(env, &database, &mut tables, cluster).await?;
    let begun = tables.cluster().expect("a term has begun").clone();
    let journal = journal(env, store, &database, &mut tables, &rows).await?;

    let published = Arc::new(Published::new(begun.id.clone(), &tables));
    let (sender, requests) = mpsc::channel(QUEUE_COMMANDS_MAX);
    let metadata = Arc::new(LocalMetadata::new(env, sender, Arc::clone(&published), database.clone()));
    let writer = Writer::new(env, database, tables, journal, published, requests, metadata.end());
    let writer = env.spawn("metadata-writer", writer.run());
    tracing::info!(cluster = %begun.id, term = begun.term, "metadata open for writing");
    Ok(Host { metadata, writer })
}

async fn database(env: &Env, store: &Arc<dyn Store>, last_write: Timestamp) -> Result<Database<Db>, DatabaseError> {
    let db = Db::builder(PATH, slate::adapter(env, Arc::clone(store)))
        .with_settings(settings(store.can_replace()))
        .with_system_clock(clock(env, last_write))
        .with_seed(env.random_u64())
        // The rows that are read again and again are in the tables.
        .with_db_cache_disabled()
        .build()
        .await?;
    Ok(Database(db))
}

async fn load(database: &Database<Db>) -> Result<Tables, DatabaseError> {
    let mut tables = Tables::default();
    for (key, row) in database.scan(codec::resident_tables(), usize::MAX).await? {
        tables.put(&key, Some(row));
    }
    Ok(tables)
}

/// Commits the new term, which only the one writer can, and gives its rows.
async fn begin_term(
    env: &Env,
    database: &Database<Db>,
    tables: &mut Tables,
    cluster: Option<ClusterId>,
) -> Result<Rows, OpenError> {
    let cluster = cluster.or_else(|| tables.cluster().map(|held| held.id.clone())).unwrap_or_else(|| {
        let mut bits = [0; 16];
        env.fill_random(&mut bits);
        ClusterId::from_random(bits)
    });
    let command = Command::BeginTerm { cluster, now: env.now() };
    let changes = match apply::apply(View { tables, fetched: &Fetched::default() }, &command) {
        Ok(changes) => changes,
        Err(Stop::Refused(refusal)) => return Err(refusal.into()),
        Err(Stop::Need(reads)) => unreachable!("a term begins without cold rows: {reads:?}"),
    };
    database.commit(&changes.rows).await?;
    absorb(tables, &changes.rows);
    Ok(changes.rows)
}

type Rows = std::collections::BTreeMap<Key, Option<Row>>;

/// The journal behind what the database knows of it, with the new term as its first entry.
async fn journal(
    env: &Env,
    store: Arc<dyn Store>,
    database: &Database<Db>,
    tables: &mut Tables,
    begun: &Rows,
) -> Result<JournalWriter, OpenError> {
    let broken = |error: crate::journal::WriteError| OpenError::Journal(error.to_string().into());
    let cluster = tables.cluster().expect("a term has begun").clone();
    let mut journal =
        JournalWriter::open(env, store, cluster.id, cluster.term, tables.journal()).await.map_err(broken)?;
    let position = journal.write(begun, tables.commit()).await.map_err(broken)?;
    let position = position.expect("the cluster's row is journaled");
    let rows = Rows::from([(Key::Journal, Some(Row::Journal(position)))]);
    database.commit(&rows).await?;
    absorb(tables, &rows);
    Ok(journal)
}

/// Takes rows over into the tables.
pub(super) fn absorb(tables: &mut Tables, rows: &Rows) {
    for (key, row) in rows {
        tables.put(key, row.clone());
    }
}
