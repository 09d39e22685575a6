//! Finding a record by its time in a run of batches.
//!
//! A batch whose records cannot be read (a producer's checksum is right over anything that it cares to send, and compressed
//! records are not read when they are appended; or it comes to more than is allowed) counts as one record with the batch's
//! own base offset and maximum timestamp: an answer a little too early, and no look-up is spoiled by another's batch.
//!
//! Sources: Kafka's `ListOffsets` (KIP-79, KIP-734): the first record by offset whose timestamp is at or above the one
//! asked for, with its own timestamp (semantic 16).

use bytes::Bytes;
use forebay_types::{Offset, Timestamp};
use forebay_wire::batch::{BatchError, BatchHeader, records};

use crate::inflate::INFLATED_SIZE_MAX;

/// A record that a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    pub offset: Offset,
    pub timestamp: Timestamp,
}

/// What to look for in offsets `[from, end)`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// The first record at or after this time.
    AtOrAfter(Timestamp),
    /// The record with this time: the newest of its run.
    Latest,
}

impl Wanted {
    /// Whether something whose newest record is of this time can hold what is wanted, where `best` was found already.
    pub fn promises(self, newest: Timestamp, best: Option<TimestampedOffset>) -> bool {
        match self {
            Self::AtOrAfter(time) => newest >= time,
            Self::Latest => best.is_none_or(|best| newest > best.timestamp),
        }
    }

    /// Whether no other record can be what is wanted.
    pub fn is_met(self, best: Option<TimestampedOffset>) -> bool {
        matches!(self, Self::AtOrAfter(_)) && best.is_some()
    }

    /// `found`, if it is what is wanted and better than `best`, which comes before it; else that.
    pub fn better(
        self,
        best: Option<TimestampedOffset>,
        found: Option<TimestampedOffset>,
    ) -> Option<TimestampedOffset> {
        let better = found.filter(|found| self.promises(found.timestamp, best));
        if self.is_met(best) { best } else { better.or(best) }
    }
}

/// Looks through whole batches, in order; control batches count, as in Kafka.
pub(crate) fn search(run: &Bytes, from: Offset, end: Offset, wanted: Wanted) -> Option<TimestampedOffset> {
    let mut best: Option<TimestampedOffset> = None;
    let mut at = 0;
    while at < run.len() && !wanted.is_met(best) {
        let batch = run.slice(at..);
        let header = BatchHeader::parse(&batch).expect("what is stored was parsed before, and its checksum is right");
        let batch = batch.slice(..header.size());
        at += header.size();
        let newest = Timestamp::from_millis(header.max_timestamp);
        if header.last_offset() < from.get() || header.base_offset >= end.get() || !wanted.promises(newest, best) {
            continue;
        }
        let found = search_batch(&batch, &header, from, end, wanted).unwrap_or_else(|error| {
            tracing::debug!(%error, offset = header.base_offset, "a batch counts as one record: it cannot be read");
            let base = Offset::new(header.base_offset).ok()?;
            Some(TimestampedOffset { offset: base.max(from), timestamp: newest })
        });
        best = wanted.better(best, found);
    }
    best
}

fn search_batch(
    batch: &Bytes,
    header: &BatchHeader,
    from: Offset,
    end: Offset,
    wanted: Wanted,
) -> Result<Option<TimestampedOffset>, BatchError> {
    let mut best = None;
    for record in records(batch, INFLATED_SIZE_MAX)? {
        let record = record?;
        let Ok(offset) = Offset::new(header.base_offset + i64::from(record.offset_delta)) else { continue };
        if offset < from || offset >= end {
            continue;
        }
        let timestamp = Timestamp::from_millis(record.timestamp);
        best = wanted.better(best, Some(TimestampedOffset { offset, timestamp }));
        if wanted.is_met(best) {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use forebay_wire::BatchBuilder;

    use super::*;

    /// Two batches: offsets 0–2 at times 10, 30, 20, and 3–4 at times 25, 40.
    fn run() -> Bytes {
        let batch = |base: i64, times: &[i64]| {
            let mut builder = BatchBuilder::new(times[0]);
            for time in times {
                builder.push(*time, None, Some(b"v"), &[]);
            }
            let mut batch = builder.build();
            forebay_wire::batch::patch(&mut batch, base, 0);
            batch
        };
        let mut all = batch(0, &[10, 30, 20]);
        all.extend_from_slice(&batch(3, &[25, 40]));
        all.freeze()
    }

    fn find(from: i64, end: i64, wanted: Wanted) -> Option<(i64, i64)> {
        let offset = |raw| Offset::new(raw).expect("not negative");
        let found = search(&run(), offset(from), offset(end), wanted);
        found.map(|found| (found.offset.get(), found.timestamp.as_millis()))
    }

    #[test]
    fn the_first_record_by_offset_with_its_own_time() {
        let at = |time| Wanted::AtOrAfter(Timestamp::from_millis(time));
        assert_eq!(find(0, 5, at(0)), Some((0, 10)));
        assert_eq!(find(0, 5, at(11)), Some((1, 30)), "by offset, although offset 2 is nearer in time");
        assert_eq!(find(2, 5, at(21)), Some((3, 25)));
        assert_eq!(find(0, 5, at(31)), Some((4, 40)));
        assert_eq!(find(0, 4, at(31)), None, "the end is not passed");
        assert_eq!(find(0, 5, at(41)), None);
    }

    #[test]
    fn the_latest_record_is_by_time_and_of_equals_the_first() {
        assert_eq!(find(0, 5, Wanted::Latest), Some((4, 40)));
        assert_eq!(find(0, 4, Wanted::Latest), Some((1, 30)));
        assert_eq!(find(5, 5, Wanted::Latest), None);
    }

    /// A batch of two records, of which the header claims more than are there; and one that comes to more than is allowed.
    #[test]
    fn a_batch_that_cannot_be_read_is_one_record() {
        let mut builder = BatchBuilder::new(50);
        for time in [50, 60] {
            builder.push(time, None, Some(b"v"), &[]);
        }
        let mut short = builder.build();
        short[57..61].copy_from_slice(&3_i32.to_be_bytes());
        short[23..27].copy_from_slice(&2_i32.to_be_bytes());
        forebay_wire::batch::patch(&mut short, 5, 0);
        let mut bomb = BatchBuilder::new(70).codec(forebay_wire::Codec::Zstd);
        bomb.push(70, None, Some(&vec![0; INFLATED_SIZE_MAX]), &[]);
        bomb.push(80, None, Some(b"v"), &[]);
        let mut bomb = bomb.build();
        forebay_wire::batch::patch(&mut bomb, 8, 0);
        let run = Bytes::from([&run()[..], &short, &bomb].concat());
        let offset = |raw| Offset::new(raw).expect("not negative");
        let find = |from, wanted| {
            search(&run, offset(from), offset(100), wanted).map(|f| (f.offset.get(), f.timestamp.as_millis()))
        };
        let at = |time| Wanted::AtOrAfter(Timestamp::from_millis(time));
        assert_eq!(find(0, at(40)), Some((4, 40)), "before it all is as ever");
        assert_eq!(find(0, at(45)), Some((5, 60)), "its base offset and newest time");
        assert_eq!(find(6, at(45)), Some((6, 60)), "or where the log starts within it");
        assert_eq!(find(0, at(61)), Some((8, 80)));
        assert_eq!(find(0, Wanted::Latest), Some((8, 80)));
    }
}
