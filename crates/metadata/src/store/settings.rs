//! How SlateDB is set up: one small writer, its compactor and its collector in this process, little memory.

use std::sync::Arc;
use std::time::Duration;

use forebay_env::Env;
use forebay_format::ObjectName;
use forebay_types::Timestamp;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, DbReaderOptions, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions, Settings,
};
use slatedb_common::clock::SystemClock;

use super::clock::EnvClock;

/// The database's folder in the bucket.
pub(crate) const PATH: &str = ObjectName::METADATA_FOLDER;

/// A memtable of this size is flushed even before [`super::GROUPS_PER_FLUSH`].
const MEMTABLE_SIZE: usize = 4 << 20;
/// Writes wait beyond this.
const UNFLUSHED_SIZE_MAX: usize = 16 << 20;
/// Sorted tables that compaction writes; each is gathered in memory before it is put.
const TABLE_SIZE_MAX: usize = 16 << 20;
/// What compaction reads ahead.
const COMPACTION_READ_SIZE: usize = 512 << 10;
/// Every poll is a request to the store, by an idle broker too.
const MANIFEST_POLL: Duration = Duration::from_secs(10);
const COMPACTION_POLL: Duration = Duration::from_secs(10);
/// How often the collector looks, and how old it lets a superfluous object get. A reader without a checkpoint has so long.
const COLLECT_INTERVAL: Duration = Duration::from_mins(5);
const COLLECT_AGE_MIN: Duration = Duration::from_mins(10);
/// Manifests of a store without conditional overwrites: longer than any process that lost the writer's role may hang,
/// else it could create a collected manifest's number again.
const MANIFEST_AGE_MIN: Duration = Duration::from_hours(24);

pub(super) fn settings(can_replace: bool) -> Settings {
    Settings {
        // The writer flushes after every group.
        flush_interval: None,
        manifest_poll_interval: MANIFEST_POLL,
        max_unflushed_bytes: UNFLUSHED_SIZE_MAX,
        l0_sst_size_bytes: MEMTABLE_SIZE,
        l0_flush_parallelism: 1,
        compactor_options: Some(CompactorOptions {
            poll_interval: COMPACTION_POLL,
            max_concurrent_compactions: 1,
            worker: Some(CompactionWorkerOptions {
                max_concurrent_compactions: 1,
                compactions_poll_interval: COMPACTION_POLL,
                max_sst_size: TABLE_SIZE_MAX,
                max_fetch_tasks: 1,
                bytes_to_fetch: COMPACTION_READ_SIZE,
                max_subcompactions: 1,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        }),
        garbage_collector_options: Some(collector(can_replace)),
        ..Settings::default()
    }
}

fn collector(can_replace: bool) -> GarbageCollectorOptions {
    let older_than =
        |min_age| Some(GarbageCollectorDirectoryOptions { interval: Some(COLLECT_INTERVAL), min_age, dry_run: false });
    let manifests = if can_replace { COLLECT_AGE_MIN } else { MANIFEST_AGE_MIN };
    GarbageCollectorOptions {
        manifest_options: older_than(manifests),
        wal_options: older_than(COLLECT_AGE_MIN),
        // A fence that is gone would let the fenced writer write again.
        wal_fence_options: None,
        compacted_options: older_than(COLLECT_AGE_MIN),
        compactions_options: older_than(manifests),
        // There are no clones to detach.
        detach_options: None,
        boundary_files_enabled: can_replace,
        ..GarbageCollectorOptions::default()
    }
}

pub(crate) fn reader_settings() -> DbReaderOptions {
    DbReaderOptions { max_memtable_bytes: UNFLUSHED_SIZE_MAX as u64, ..DbReaderOptions::default() }
}

/// The wall's time or `last_write`'s, whichever is later, and on from there.
pub(crate) fn clock(env: &Env, last_write: Timestamp) -> Arc<dyn SystemClock> {
    Arc::new(EnvClock::at_least(env, last_write))
}
