//! `fsck`: whether everything that was acknowledged can be read, without a broker.
//!
//! Reads the metadata; the segments of a `disk` WAL where its folder is given; the journal; every object that the metadata
//! names, to the last block; lists the bucket for what nobody names; and reads the objects of an `object` WAL that are not
//! yet committed.
//!
//! Owns: what is checked and how damage is told: object, block, and the records behind it. Leaves to others: how bytes
//! are parsed (`format`), what is torn and what is corrupt in a WAL (`wal`), printing (`cli`).
//!
//! Invariants:
//! 1. Nothing is written and nothing is mended.
//! 2. Damage is a finding and never ends the check; only metadata that cannot be read does.
//! 3. Memory holds the names and ranges of the metadata, a few hundred bytes per extent, and a few pieces of
//!    [`PIECE_SIZE`] bytes.
//!
//! Beside a running broker nothing that is well is told as damage:
//! - the rows are of one commit (`catalog`);
//! - what ages soonest is read first: the journal, of which a broker deletes what two full entries have made needless;
//! - objects that are let go meanwhile stay for [`CONDEMNED_GRACE`](crate::CONDEMNED_GRACE);
//! - a listing takes its time and misses what is written behind its back, so what it lacks is asked for by name;
//! - the segments of a `disk` WAL are recycled under any reader, so they are read under the data folder's lock or not at
//!   all ([`WalFolder`]). The lock is given back as soon as they are read: a broker can start while objects are checked.

mod bucket;
mod journal;
mod logs;
mod object;
mod report;
mod snapshot;
mod wal;

use std::path::PathBuf;
use std::sync::Arc;

use forebay_env::{DiskLock, Env};
use forebay_metadata::invariants;
use forebay_store::Store;
use futures::StreamExt;

pub use report::{Counts, FINDINGS_MAX, Finding, Place, Progress, Report, Severity, Tally};

use crate::ToolError;
use crate::catalog::{Catalog, read_rows};
use object::{Checked, Checker};

/// Bytes read and checked at a time.
pub const PIECE_SIZE: u64 = 4 << 20;

/// Objects read at the same time.
const OBJECTS_IN_FLIGHT_MAX: usize = 4;

/// What to check beside the bucket's objects and their blocks.
#[derive(Default)]
pub struct CheckOptions {
    /// Check also the checksum and the offsets of every record batch.
    pub deep: bool,
    /// The local disk's WAL segments; `None` where nobody said where they are.
    pub wal_folder: Option<WalFolder>,
}

/// The segments of a `disk` WAL, for a reader.
pub enum WalFolder {
    /// Nobody writes there as long as the lock is held.
    Held {
        /// The data folder: its marker says which disk's WAL is in it.
        data: PathBuf,
        /// Where in it the segments are.
        wal: PathBuf,
        /// The data folder's lock.
        lock: Box<dyn DiskLock>,
    },
    /// It cannot be read now, and why: told as a note of every WAL that may be there.
    NotNow { why: String },
}

/// Checks a bucket. `progress` is called after each object.
///
/// # Errors
/// The metadata cannot be read, or the bucket cannot be listed. Damage is no error but a finding.
pub async fn check(
    env: &Env,
    store: &Arc<dyn Store>,
    options: CheckOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Report, ToolError> {
    let rows = Arc::new(read_rows(env, store).await?);
    let catalog = Catalog::of(&rows)?;
    let mut report = Report {
        cluster: catalog.cluster.clone(),
        findings: Vec::new(),
        findings_left_out: 0,
        counts: Counts {
            topics: catalog.topics.len() as u64,
            partitions: catalog.partitions.len() as u64,
            ..Counts::default()
        },
    };
    let violations = env.blocking("check-metadata", move || invariants::check(&rows)).await;
    report.add(
        violations
            .into_iter()
            .map(|violation| Finding::new(Severity::Error, format!("the metadata contradicts itself: {violation}"))),
    );
    report.add(logs::check(&catalog));
    let catalog = Arc::new(catalog);
    let checker =
        Checker { env: env.clone(), store: Arc::clone(store), catalog: Arc::clone(&catalog), deep: options.deep };
    // Takes the lock with it.
    wal::check(&checker, options.wal_folder, &mut report).await;
    let (entries, found) = journal::check(&**store, &catalog).await;
    report.counts.journal_entries = entries;
    report.add(found);
    check_objects(&checker, &mut report, progress).await;
    for name in &bucket::list(&**store, &catalog, &mut report).await? {
        let checked = checker.wal_object(name).await;
        take(&mut report, checked);
    }
    Ok(report)
}

/// Every object that the metadata names.
async fn check_objects(checker: &Checker, report: &mut Report, progress: &(dyn Fn(Progress) + Send + Sync)) {
    let objects = &checker.catalog.objects;
    let mut done = Progress {
        objects_total: objects.len() as u64,
        bytes_total: objects.values().map(|object| object.size).sum(),
        ..Progress::default()
    };
    progress(done);
    let names: Vec<Arc<str>> = objects.keys().cloned().collect();
    let checks = names.into_iter().map(|name| checker.clone().named(name));
    let mut checks = futures::stream::iter(checks).buffered(OBJECTS_IN_FLIGHT_MAX);
    while let Some((size, checked)) = checks.next().await {
        report.counts.reached.add(size);
        take(report, checked);
        done.objects_done += 1;
        done.bytes_done += size;
        progress(done);
    }
}

fn take(report: &mut Report, checked: Checked) {
    report.counts.blocks += checked.blocks;
    report.counts.records += checked.records;
    report.counts.batches_checked += checked.batches;
    report.counts.fences += checked.fences;
    report.add(checked.findings);
}
