//! Uploads: one row each when committed, extent rows when folded (D7).
//!
//! A commit is idempotent by where its ranges begin: one whose ranges all lie below their logs' committed ends was
//! committed before, by this object or by another with the same records, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use forebay_format::ObjectRange;
use forebay_types::Offset;

use super::broker::{require_current, wal_epoch};
use super::object::require_written_by;
use super::{Changes, Stop, View};
use crate::command::{CommitUpload, Committed, ENTITIES_PER_COMMAND_MAX, RANGES_PER_UPLOAD_MAX, Refusal, Reply};
use crate::state::{
    CommitNumber, Extent, ExtentKey, Garbage, Key, LogTail, Object, Row, Tables, TopicState, Upload, WalEpoch,
    WalEpochState,
};

pub(super) fn commit(view: View<'_>, upload: &CommitUpload) -> Result<Changes, Stop> {
    let tables = view.tables;
    if upload.ranges.len() > RANGES_PER_UPLOAD_MAX {
        let (count, max) = (upload.ranges.len(), RANGES_PER_UPLOAD_MAX);
        return Err(Refusal::TooMany { what: "ranges", count, max }.into());
    }
    let epoch = wal_epoch(tables, upload.life)?;
    let (live, gone): (Vec<&ObjectRange>, Vec<&ObjectRange>) =
        upload.ranges.iter().partition(|range| is_wanted(tables, range));
    if is_committed(tables, upload, &live) {
        return Ok(Changes::nothing(Reply::Committed(Committed::Already)));
    }
    require_committer(tables, upload, epoch)?;
    require_written_by(&upload.object, [Some(upload.life), upload.sealer])?;
    if let Some(committed) = tables.committed_through(upload.life).filter(|committed| upload.through < Some(*committed))
    {
        let (life, through) = (upload.life, upload.through);
        return Err(Refusal::ThroughWentBack { life, through, committed }.into());
    }
    let mut logs = BTreeSet::new();
    for range in &live {
        let (partition, log) = (range.partition, range.log);
        if !logs.insert(log) {
            return Err(Refusal::LogTwice { partition, log }.into());
        }
        require_next(tables, upload, range)?;
    }
    let dropped = gone.into_iter().map(|range| range.partition).collect();
    let row = Upload {
        life: upload.life,
        through: upload.through,
        object: upload.object.clone(),
        size: upload.size,
        footer_position: upload.footer_position,
        ranges: live.into_iter().copied().collect(),
        folded: 0,
    };
    let key = Key::Upload(tables.commit().next());
    Ok(Changes::one(key, Row::Upload(row), Reply::Committed(Committed::New { dropped })))
}

/// Whether the range's log is still there to be read.
fn is_wanted(tables: &Tables, range: &ObjectRange) -> bool {
    let purging = tables.topic(range.partition.topic).is_none_or(|t| t.state == TopicState::Purging);
    !purging && tables.partition(range.partition).is_some_and(|p| p.log == range.log)
}

fn is_committed(tables: &Tables, upload: &CommitUpload, live: &[&ObjectRange]) -> bool {
    if live.is_empty() {
        return upload.through <= tables.committed_through(upload.life);
    }
    live.iter().all(|range| range.range.end() <= tables.committed_end(range.log))
}

/// Refuses whoever may not commit for that WAL any more, or not yet.
fn require_committer(tables: &Tables, upload: &CommitUpload, epoch: &WalEpoch) -> Result<(), Refusal> {
    let life = upload.life;
    match (epoch.state, upload.sealer) {
        (WalEpochState::Open, None) => Ok(()),
        (WalEpochState::Open, Some(_)) => Err(Refusal::EpochNotSealed { life }),
        (WalEpochState::Sealed { by }, Some(sealer)) if by == sealer => require_current(tables, by),
        (WalEpochState::Sealed { by }, _) => Err(Refusal::EpochSealed { life, by }),
        (WalEpochState::Closed { end }, _) => Err(Refusal::EpochClosed { life, end }),
    }
}

/// Refuses a range that does not follow its log's committed end, or whose writer owns the partition no more.
fn require_next(tables: &Tables, upload: &CommitUpload, range: &ObjectRange) -> Result<(), Refusal> {
    let (id, log) = (range.partition, range.log);
    let partition = tables.partition(id).expect("only ranges of partitions that are there are asked about");
    if range.range.is_empty() {
        return Err(Refusal::EmptyRange { partition: id, log });
    }
    if partition.owner != Some(upload.life) || partition.leader_epoch() != Some(range.leader_epoch) {
        return Err(Refusal::NotOwner { partition: id, life: upload.life, leader_epoch: range.leader_epoch });
    }
    let committed_end = next_start(tables, range);
    if range.range.start() != committed_end {
        let start = range.range.start();
        return Err(Refusal::NotAtCommittedEnd { partition: id, log, start, committed_end });
    }
    Ok(())
}

/// Where the next range of a log has to begin: at its committed end; at the beginning of its leader epoch where that
/// lies above, because a log start above everything committed was found when the partition was opened.
fn next_start(tables: &Tables, range: &ObjectRange) -> Offset {
    let epoch_start = tables.partition(range.partition).and_then(|p| p.epochs.last()).map_or(Offset::ZERO, |e| e.start);
    tables.committed_end(range.log).max(epoch_start)
}

pub(super) fn index(view: View<'_>) -> Result<Changes, Stop> {
    let mut fold = Fold { rows: BTreeMap::new(), tails: BTreeMap::new(), uploads: 0 };
    for (number, upload) in view.tables.uploads() {
        if !fold.one(view, *number, upload)? {
            break;
        }
    }
    let remaining = view.tables.uploads().len() - fold.uploads;
    let reply = Reply::Indexed { uploads: fold.uploads, remaining };
    Ok(Changes { rows: fold.rows, reply })
}

/// The rows of one `IndexUploads`, as they grow.
struct Fold {
    rows: BTreeMap<Key, Option<Row>>,
    tails: BTreeMap<forebay_types::LogId, LogTail>,
    /// Finished uploads.
    uploads: usize,
}

/// Rows that an upload may need beside its extents and their tails: itself, its object, its WAL epoch; and the commit.
const ROWS_PER_UPLOAD: usize = 4;

impl Fold {
    /// Folds what fits; whether the upload is finished.
    fn one(&mut self, view: View<'_>, number: CommitNumber, upload: &Upload) -> Result<bool, Stop> {
        let folded_before = usize::try_from(upload.folded).expect("a u32 fits");
        let mut object = match folded_before {
            0 => Object { size: upload.size, references: 0 },
            _ => match view.cold(Key::Object(upload.object.clone()))? {
                Some(Row::Object(object)) => *object,
                None => Object { size: upload.size, references: 0 },
                Some(other) => panic!("the object row of {} holds {other:?}", upload.object),
            },
        };
        let room = ENTITIES_PER_COMMAND_MAX.saturating_sub(self.rows.len() + ROWS_PER_UPLOAD) / 2;
        let ranges = upload.ranges.iter().skip(folded_before).take(room);
        let mut folded = upload.folded;
        for range in ranges {
            folded += 1;
            if is_wanted(view.tables, range) {
                self.extent(view.tables, upload, range);
                object.references += 1;
            }
        }
        let finished = usize::try_from(folded).is_ok_and(|folded| folded == upload.ranges.len());
        if !finished && folded == upload.folded {
            return Ok(false);
        }
        let name = &upload.object;
        if finished && object.references == 0 {
            self.rows.insert(Key::Object(name.clone()), None);
            let garbage = Garbage { size: upload.size, condemned_at: None };
            self.rows.insert(Key::Garbage(name.clone()), Some(Row::Garbage(garbage)));
        } else {
            self.rows.insert(Key::Object(name.clone()), Some(Row::Object(object)));
        }
        if finished {
            self.rows.insert(Key::Upload(number), None);
            self.through(view.tables, upload);
            self.uploads += 1;
        } else {
            self.rows.insert(Key::Upload(number), Some(Row::Upload(Upload { folded, ..upload.clone() })));
        }
        Ok(finished)
    }

    fn extent(&mut self, tables: &Tables, upload: &Upload, range: &ObjectRange) {
        let tail = self.tails.entry(range.log).or_insert_with(|| tables.tail(range.log));
        // Extents made out of order would hide records that are committed.
        assert!(
            range.range.start() >= tail.indexed_end,
            "{}: {} after {}",
            range.partition,
            range.range,
            tail.indexed_end
        );
        *tail = LogTail { indexed_end: range.range.end(), bytes: tail.bytes + range.bytes };
        self.rows.insert(Key::LogTail(range.log), Some(Row::LogTail(*tail)));
        let extent = Extent::of(upload, range);
        self.rows.insert(Key::Extent(ExtentKey { log: range.log, end: range.range.end() }), Some(Row::Extent(extent)));
    }

    fn through(&mut self, tables: &Tables, upload: &Upload) {
        let key = Key::WalEpoch(upload.life);
        let held = match self.rows.get(&key) {
            Some(Some(Row::WalEpoch(held))) => held.clone(),
            _ => tables.wal_epoch(upload.life).expect("an upload's WAL epoch is never removed").clone(),
        };
        let indexed_through = held.indexed_through.max(upload.through);
        self.rows.insert(key, Some(Row::WalEpoch(WalEpoch { indexed_through, ..held })));
    }
}
