//! `fsck`: whether everything that was acknowledged can be read, without a broker.
//!
//! Reads the metadata, then every object that it names, to the last block; the objects of an `object` WAL that are not
//! yet committed; the segments of a `disk` WAL where its folder is given; the journal; and lists the bucket for what
//! nobody names.
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
//! Beside a running broker the metadata may move under the reader: a finding then may be of the moment, and a second
//! run tells. Objects that are let go meanwhile stay for [`CONDEMNED_GRACE`](crate::CONDEMNED_GRACE).

mod bucket;
mod journal;
mod logs;
mod object;
mod report;
mod snapshot;
mod wal;

use std::path::PathBuf;
use std::sync::Arc;

use forebay_env::Env;
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
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Check also the checksum and the offsets of every record batch.
    pub deep: bool,
    /// The folder of the local disk's WAL segments.
    pub wal_folder: Option<PathBuf>,
}

/// Checks a bucket. `progress` is called after each object.
///
/// # Errors
/// The metadata cannot be read, or the bucket cannot be listed. Damage is no error but a finding.
pub async fn check(
    env: &Env,
    store: &Arc<dyn Store>,
    options: &CheckOptions,
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
    check_objects(&checker, &mut report, progress).await;
    let unnamed = bucket::list(&**store, &catalog, &mut report).await?;
    for name in &unnamed.in_wal {
        let checked = checker.wal_object(name).await;
        take(&mut report, checked);
    }
    report.counts.journal_entries = unnamed.journal.len() as u64;
    report.add(journal::check(&**store, &catalog, &unnamed.journal).await);
    wal::check(&checker, options.wal_folder.as_deref(), &mut report).await;
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
