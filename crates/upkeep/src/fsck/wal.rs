//! The WAL on the local disk: what is acknowledged there and not yet in the bucket. Torn tails are no damage.
//!
//! Judged as a takeover would judge it, by the sealer itself, which changes nothing. Nobody may write the folder
//! meanwhile: the caller holds the data folder's lock.

use std::collections::BTreeMap;
use std::path::Path;

use forebay_format::WalEntry;
use forebay_metadata::BrokerLife;
use forebay_metadata::state::WalKind;
use forebay_types::{LogId, Offset};
use forebay_wal::providers::disk::DiskSealer;
use forebay_wal::{CorruptRange, SealError, Sealed, SealedContents, Sealer};
use forebay_wire::batch;

use super::bucket::is_closed;
use super::logs::last_before;
use super::object::Checker;
use super::{Finding, Report, Severity};

/// Every life that is not closed and wrote to a local disk.
pub(super) async fn check(checker: &Checker, folder: Option<&Path>, report: &mut Report) {
    for (life, epoch) in &checker.catalog.wal_epochs {
        if is_closed(epoch.state) || !matches!(epoch.wal, WalKind::Disk { .. }) {
            continue;
        }
        let Some(folder) = folder else {
            let what = format!("the WAL of {life} is on a local disk: what is only there was not checked");
            report.add([Finding::new(Severity::Note, what)]);
            continue;
        };
        one(checker, folder, *life, report).await;
    }
}

async fn one(checker: &Checker, folder: &Path, life: BrokerLife, report: &mut Report) {
    let sealer = DiskSealer::new(&checker.env, folder.to_owned(), checker.catalog.cluster.clone());
    let committed = checker.catalog.committed_through.get(&life).copied();
    let failed = |error: &SealError| {
        Finding::new(Severity::Error, format!("the WAL of {life} cannot be read: {error}"))
            .in_object(&folder.display().to_string())
    };
    let Sealed { contents, corrupt, .. } = match sealer.seal(life.broker, life.epoch, committed).await {
        Ok(sealed) => sealed,
        Err(error) => return report.add([failed(&error)]),
    };
    for range in &corrupt {
        report.add(told(checker, life, range));
    }
    let SealedContents::Entries(mut replay) = contents else { return };
    let mut follow = Follow { checker, corrupt: &corrupt, next: BTreeMap::new() };
    loop {
        match replay.next().await {
            Ok(Some((_, entries))) => entries.iter().for_each(|entry| follow.entry(entry, report)),
            Ok(None) => return,
            Err(error) => return report.add([failed(&error)]),
        }
    }
}

/// What a corrupt range took.
fn told(checker: &Checker, life: BrokerLife, range: &CorruptRange) -> Vec<Finding> {
    let (first, last) = (range.first, range.end.get() - 1);
    let (severity, but) = if range.committed {
        (Severity::Warning, "; the bucket has their records")
    } else {
        (Severity::Error, "; their records are lost")
    };
    let what = format!("acknowledged writes {first} to {last} of {life} are unreadable: {}{but}", range.what);
    if range.gaps.is_empty() || range.committed {
        return vec![Finding::new(severity, what)];
    }
    let gaps = range.gaps.iter().map(|gap| {
        let from = gap.from.unwrap_or_else(|| checker.catalog.committed_end(gap.log));
        let finding = Finding::new(severity, what.clone()).of(checker.catalog.place(gap.partition));
        finding.with_offsets(from, last_before(gap.end))
    });
    gaps.collect()
}

/// Follows each log through the WAL.
struct Follow<'a> {
    checker: &'a Checker,
    corrupt: &'a [CorruptRange],
    next: BTreeMap<LogId, Offset>,
}

impl Follow<'_> {
    fn entry(&mut self, entry: &WalEntry, report: &mut Report) {
        let catalog = &self.checker.catalog;
        report.counts.wal_batches += 1;
        report.counts.wal_bytes += entry.records.len() as u64;
        // The records of a purged topic are nobody's any more.
        let Some(partition) = catalog.partitions.get(&entry.partition).filter(|row| row.log == entry.log) else {
            return;
        };
        let (first, last) = (entry.summary.base_offset, entry.summary.last_offset);
        let begins = catalog.committed_end(entry.log).max(partition.epochs.last().map_or(Offset::ZERO, |e| e.start));
        let next = self.next.insert(entry.log, last.next()).unwrap_or(begins);
        let of = |severity, what: String| Finding::new(severity, what).of(catalog.place(entry.partition));
        let is_told =
            self.corrupt.iter().flat_map(|range| &range.gaps).any(|gap| gap.log == entry.log && gap.end == first);
        if first > next && !is_told {
            let what = "neither the bucket nor the WAL has these records".to_owned();
            report.add([of(Severity::Error, what).with_offsets(next, last_before(first))]);
        }
        if self.checker.deep {
            report.counts.batches_checked += 1;
            if let Err(error) = batch::check_crc(&entry.records) {
                let what = format!("a batch in the WAL is damaged: {error}");
                report.add([of(Severity::Error, what).with_offsets(first, last)]);
            }
        }
    }
}
