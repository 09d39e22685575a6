//! The WAL on the local disk: what is acknowledged there and not yet in the bucket. Torn tails are no damage.
//!
//! Judged as a takeover would judge it, by the sealer itself, which changes nothing. Nobody may write the folder
//! meanwhile: segments that are recycled under the reader would be told as damage. So who wants them read hands over the
//! data folder's lock, and gets no answer where he could not have it.
//!
//! A folder is asked for the WALs of its own disk only, as a takeover does (D3): another disk's are not in it, and that
//! nothing was found of them would say nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use forebay_env::{Env, OpenMode};
use forebay_format::{FolderMarker, WalEntry};
use forebay_metadata::BrokerLife;
use forebay_metadata::state::WalKind;
use forebay_types::{LogId, Offset, TopicPartition};
use forebay_wal::providers::disk::DiskSealer;
use forebay_wal::{CorruptRange, SealError, Sealed, SealedContents, Sealer};
use forebay_wire::batch;

use super::bucket::is_closed;
use super::logs::last_before;
use super::object::Checker;
use super::{Finding, Report, Severity, WalFolder};

/// More than any marker has.
const MARKER_SIZE_MAX: u64 = 4096;

/// Every life that is not closed and wrote to a local disk. The lock is given back when this returns.
pub(super) async fn check(checker: &Checker, folder: Option<WalFolder>, report: &mut Report) {
    let (wal, marker, why, _lock) = match folder {
        None => (None, None, "its data folder was not given".to_owned(), None),
        Some(WalFolder::NotNow { why }) => (None, None, why, None),
        Some(WalFolder::Held { data, wal, lock }) => {
            let why = format!("it is on another disk than the one at {}", data.display());
            (Some(wal), Some(marker(&checker.env, &data).await), why, Some(lock))
        }
    };
    for (life, epoch) in &checker.catalog.wal_epochs {
        let WalKind::Disk { disk } = epoch.wal else { continue };
        if is_closed(epoch.state) {
            continue;
        }
        match (&wal, &marker) {
            (Some(wal), Some(Ok(Some(found)))) if found.disk.to_string() == format!("{disk:032x}") => {
                one(checker, wal, *life, report).await;
            }
            (_, Some(Err(error))) => {
                let what = format!("the WAL of {life} cannot be recovered: {error}");
                report.add([Finding::new(Severity::Error, what)]);
            }
            _ => {
                report.counts.wals_not_checked += 1;
                let what = format!("the WAL of {life} is on a local disk and was not checked: {why}");
                report.add([Finding::new(Severity::Note, what)]);
            }
        }
    }
}

/// The marker of a data folder; `None` where there is none. An error says what is wrong with it.
async fn marker(env: &Env, data: &Path) -> Result<Option<FolderMarker>, String> {
    let (disk, path) = (env.disk(), data.join(FolderMarker::FILE_NAME));
    env.blocking("fsck-marker", move || {
        let shown = path.display();
        let failed = |error: io::Error| format!("the data folder's marker {shown} could not be read: {error}");
        let file = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let size = file.size().map_err(failed)?.min(MARKER_SIZE_MAX);
        let mut bytes = vec![0; usize::try_from(size).expect("a few KiB")];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        FolderMarker::parse(&bytes).map(Some).map_err(|error| format!("the data folder's marker {shown}: {error}"))
    })
    .await
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
    let SealedContents::Entries(mut replay) = contents else { return };
    let mut follow = Follow { checker, life, next: BTreeMap::new() };
    let mut corrupt = corrupt.into_iter().peekable();
    loop {
        let group = match replay.next().await {
            Ok(group) => group,
            Err(error) => return report.add([failed(&error)]),
        };
        let next = group.as_ref().map(|(sequence, _)| *sequence);
        while let Some(range) = corrupt.next_if(|range| next.is_none_or(|next| range.first < next)) {
            report.add(follow.corrupt(&range));
        }
        let Some((_, entries)) = group else { return };
        for entry in &entries {
            follow.entry(entry, report);
        }
    }
}

/// Follows each log through the WAL.
struct Follow<'a> {
    checker: &'a Checker,
    life: BrokerLife,
    next: BTreeMap<LogId, Offset>,
}

impl Follow<'_> {
    /// What a corrupt range took.
    fn corrupt(&mut self, range: &CorruptRange) -> Vec<Finding> {
        let (first, last) = (range.first, range.end.get() - 1);
        let (severity, but) = if range.committed {
            (Severity::Warning, "; the bucket has their records")
        } else {
            (Severity::Error, "; their records are lost")
        };
        let what =
            format!("acknowledged writes {first} to {last} of {} are unreadable: {}{but}", self.life, range.what);
        if range.committed {
            return vec![Finding::new(severity, what)];
        }
        let catalog = &self.checker.catalog;
        let mut found = Vec::new();
        for gap in &range.gaps {
            let Some(from) = self.next_of(gap.partition, gap.log).filter(|from| *from < gap.end) else { continue };
            self.next.insert(gap.log, gap.end);
            let finding = Finding::new(severity, what.clone()).of(catalog.place(gap.partition));
            found.push(finding.with_offsets(from, last_before(gap.end)));
        }
        if range.unknown > 0 {
            let unknown = "; no later write tells what of other partitions was in them";
            found.push(Finding::new(severity, format!("{what}{unknown}")));
        } else if found.is_empty() {
            found.push(Finding::new(severity, what));
        }
        found
    }

    /// Where a log goes on in the WAL; `None` for one that is gone, whose records are nobody's any more.
    fn next_of(&self, partition: TopicPartition, log: LogId) -> Option<Offset> {
        let catalog = &self.checker.catalog;
        let row = catalog.partitions.get(&partition).filter(|row| row.log == log)?;
        let begins = catalog.committed_end(log).max(row.epochs.last().map_or(Offset::ZERO, |epoch| epoch.start));
        Some(self.next.get(&log).copied().unwrap_or(begins))
    }

    fn entry(&mut self, entry: &WalEntry, report: &mut Report) {
        let catalog = &self.checker.catalog;
        report.counts.wal_batches += 1;
        report.counts.wal_bytes += entry.records.len() as u64;
        let Some(next) = self.next_of(entry.partition, entry.log) else { return };
        let (first, last) = (entry.summary.base_offset, entry.summary.last_offset);
        self.next.insert(entry.log, last.next());
        let of = |severity, what: String| Finding::new(severity, what).of(catalog.place(entry.partition));
        if first > next {
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
