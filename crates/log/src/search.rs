//! Finding a record by its time in a run of batches.
//!
//! Sources: Kafka's `ListOffsets` (KIP-79, KIP-734): the first record by offset whose timestamp is at or above the one
//! asked for, with its own timestamp (semantic 16).

use bytes::Bytes;
use forebay_types::{Offset, Timestamp};
use forebay_wire::batch::{BatchError, BatchHeader, records};

/// Largest batch once decompressed that is searched: far above any `max.message.bytes` and compression ratio in use,
/// and small enough that a few searches at once do no harm.
pub(crate) const DECOMPRESSED_SIZE_MAX: usize = 256 << 20;

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

/// Looks through whole batches, in order; control batches count, as in Kafka.
pub(crate) fn search(
    run: &Bytes,
    from: Offset,
    end: Offset,
    wanted: Wanted,
) -> Result<Option<TimestampedOffset>, BatchError> {
    let mut best: Option<TimestampedOffset> = None;
    let mut at = 0;
    while at < run.len() {
        let batch = run.slice(at..);
        let header = BatchHeader::parse(&batch)?;
        at += header.size();
        let (base, last) = (header.base_offset, header.last_offset());
        if last < from.get() || base >= end.get() {
            continue;
        }
        let newest = Timestamp::from_millis(header.max_timestamp);
        let promising = match wanted {
            Wanted::AtOrAfter(time) => newest >= time,
            Wanted::Latest => best.is_none_or(|best| newest > best.timestamp),
        };
        if !promising {
            continue;
        }
        for record in records(&batch.slice(..header.size()), DECOMPRESSED_SIZE_MAX)? {
            let record = record?;
            let Ok(offset) = Offset::new(base + i64::from(record.offset_delta)) else { continue };
            let timestamp = Timestamp::from_millis(record.timestamp);
            if offset < from || offset >= end {
                continue;
            }
            let found = TimestampedOffset { offset, timestamp };
            match wanted {
                Wanted::AtOrAfter(time) if timestamp >= time => return Ok(Some(found)),
                Wanted::Latest if best.is_none_or(|best| timestamp > best.timestamp) => best = Some(found),
                _ => {}
            }
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
        let found = search(&run(), offset(from), offset(end), wanted).expect("the batches are sound");
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
}
