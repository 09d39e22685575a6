//! The newest batches of a partition, in memory: what was reserved but is not yet in the bucket, and what is in the
//! bucket but still warm.
//!
//! Owns: batches in offset order, by reference. Leaves to others: which of them readers may see (`partition`), and how
//! much warm data all partitions together keep (`warm`).
//!
//! Invariants:
//! 1. Batches are contiguous: each begins where the one before it ends; the last ends at the log end offset.
//! 2. Nothing is released that is not committed to the bucket: the caller passes the committed end, and no more goes.

use std::cmp::Reverse;
use std::collections::VecDeque;

use bytes::Bytes;
use forebay_types::{Offset, Timestamp};

use crate::search::{TimestampedOffset, Wanted};

/// One batch as it is stored and served.
#[derive(Clone, Debug)]
pub(crate) struct TailBatch {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// So that a search by time passes over a batch without touching its bytes.
    pub max_timestamp: Timestamp,
    pub bytes: Bytes,
}

/// Batches that a search by time looks at under one hold of the partition's lock: a few microseconds.
const SEARCH_PAGE: usize = 1_000;

/// What one page of the tail has for a search by time.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Batches that may hold what is wanted, the likeliest first.
    pub batches: Vec<TailBatch>,
    /// Where to look on: past the page, or past the one batch.
    pub next: Offset,
}

#[derive(Debug)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    bytes: usize,
    /// Where the next batch begins, kept for when there is none.
    end: Offset,
}

impl Tail {
    pub fn new(end: Offset) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, end }
    }

    /// The first offset held in memory; the log end where nothing is.
    pub fn start(&self) -> Offset {
        self.batches.front().map_or(self.end, |batch| batch.base_offset)
    }

    /// # Panics
    /// Where `batch` leaves a hole or overlaps: it would lose or repeat offsets.
    pub fn push(&mut self, batch: TailBatch) {
        assert_eq!(batch.base_offset, self.end, "a batch begins where the log ends");
        assert!(batch.last_offset >= batch.base_offset, "a batch spans at least one offset");
        self.end = batch.last_offset.next();
        self.bytes += batch.bytes.len();
        self.batches.push_back(batch);
    }

    /// The batches from the one that holds `from`, in order.
    pub fn from(&self, from: Offset) -> impl Iterator<Item = &TailBatch> {
        let first = self.batches.partition_point(|batch| batch.last_offset < from);
        self.batches.range(first..)
    }

    /// Batches that hold offsets from `from` up to `end`, until `bytes_max` is full; the first comes whole even where it
    /// is larger, if `at_least_one`. Empty where `from` is at `end`. `from` must not lie before [`Tail::start`].
    pub fn read(&self, from: Offset, end: Offset, bytes_max: usize, at_least_one: bool) -> Vec<Bytes> {
        let mut taken = Vec::new();
        // The batch that holds `end` may begin below it, where the log start cut it: none of it may be seen.
        if from >= end {
            return taken;
        }
        let mut room = bytes_max;
        for batch in self.from(from).take_while(|batch| batch.base_offset < end) {
            let size = batch.bytes.len();
            if size > room && !(at_least_one && taken.is_empty()) {
                break;
            }
            room = room.saturating_sub(size);
            taken.push(batch.bytes.clone());
        }
        taken
    }

    /// Looks through the next batches from `from` up to `end`. Of those at or after a time the first is enough; of the latest
    /// all that are newer than `best`, newest first and of equals the first: one is read, usually.
    pub fn look(&self, from: Offset, end: Offset, wanted: Wanted, best: Option<TimestampedOffset>) -> Looked {
        let mut looked = Looked { batches: Vec::new(), next: end };
        for (count, batch) in self.from(from).take_while(|batch| batch.base_offset < end).enumerate() {
            let one_is_enough = matches!(wanted, Wanted::AtOrAfter(_)) && !looked.batches.is_empty();
            if count == SEARCH_PAGE || one_is_enough {
                looked.next = batch.base_offset;
                break;
            }
            if wanted.promises(batch.max_timestamp, best) {
                looked.batches.push(batch.clone());
            }
        }
        if matches!(wanted, Wanted::Latest) {
            looked.batches.sort_by_key(|batch| (Reverse(batch.max_timestamp), batch.base_offset));
        }
        looked
    }

    /// Lets go of batches that end at or below `committed_end`; says how many bytes that were.
    pub fn release(&mut self, committed_end: Offset) -> usize {
        let before = self.bytes;
        while let Some(batch) = self.batches.front()
            && batch.last_offset < committed_end
        {
            self.bytes -= batch.bytes.len();
            self.batches.pop_front();
        }
        // An idle partition gives its queue's memory back too.
        if self.batches.is_empty() {
            self.batches.shrink_to(0);
        }
        before - self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::new(raw).expect("not negative")
    }

    /// Batches of `len` offsets each from 100 on, ten bytes of the batch's number.
    fn tail(lens: &[i64]) -> Tail {
        let mut tail = Tail::new(offset(100));
        let mut base = 100;
        for (number, len) in (0..=u8::MAX).cycle().zip(lens) {
            tail.push(TailBatch {
                base_offset: offset(base),
                last_offset: offset(base + len - 1),
                max_timestamp: Timestamp::from_millis(i64::from(number) * 10),
                bytes: Bytes::from(vec![number; 10]),
            });
            base += len;
        }
        tail
    }

    fn numbers(batches: &[Bytes]) -> Vec<u8> {
        batches.iter().map(|bytes| bytes[0]).collect()
    }

    #[test]
    fn a_read_begins_with_the_batch_that_holds_the_offset_and_ends_before_the_limit() {
        let tail = tail(&[1, 3, 2, 1]); // 100 | 101 102 103 | 104 105 | 106
        let read = |from, end, max| numbers(&tail.read(offset(from), offset(end), max, true));
        assert_eq!(read(100, 107, 1000), [0, 1, 2, 3]);
        assert_eq!(read(102, 107, 1000), [1, 2, 3], "from within a batch");
        assert_eq!(read(102, 104, 1000), [1], "the end is exclusive");
        assert_eq!(read(107, 107, 1000), [0; 0], "at the end there is nothing");
        assert_eq!(read(102, 102, 1000), [0; 0], "also where the end is within a batch: the log start can be there");
        assert_eq!(read(100, 107, 25), [0, 1], "only whole batches");
        assert_eq!(read(100, 107, 3), [0], "one whole batch, however small the limit");
        assert_eq!(numbers(&tail.read(offset(100), offset(107), 3, false)), [0; 0]);
    }

    #[test]
    fn only_what_is_committed_is_released() {
        let mut tail = tail(&[1, 3, 2]);
        assert_eq!(tail.release(offset(103)), 10, "the second batch reaches past 103 and stays");
        assert_eq!((tail.start(), tail.bytes), (offset(101), 20));
        assert_eq!(tail.release(offset(106)), 20);
        assert_eq!((tail.start(), tail.bytes), (offset(106), 0), "empty, it starts where the log ends");
    }

    #[test]
    fn a_search_looks_at_a_page_and_at_what_promises_something() {
        // From 100 on, each ten milliseconds after the one before, counted to 255 and again.
        let tail = tail(&vec![2; 2_500]);
        let look = |from, end, wanted, best| {
            let Looked { batches, next } = tail.look(offset(from), offset(end), wanted, best);
            (batches.iter().map(|batch| batch.base_offset.get()).collect::<Vec<_>>(), next.get())
        };
        let at = |time| Wanted::AtOrAfter(Timestamp::from_millis(time));
        assert_eq!(look(100, 5_100, at(35), None), (vec![108], 110), "the first, and on from the next");
        assert_eq!(look(110, 5_100, at(35), None), (vec![110], 112));
        assert_eq!(look(100, 5_100, at(2_600), None), (vec![], 2_100), "a page without one");
        assert_eq!(look(4_100, 5_100, at(2_600), None), (vec![], 5_100), "the last page");
        assert_eq!(look(100, 108, at(35), None), (vec![], 108), "not from the end on");
        let (newest, next) = look(100, 5_100, Wanted::Latest, None);
        assert_eq!((&newest[..5], newest.len(), next), (&[610, 1_122, 1_634, 608, 1_120][..], 1_000, 2_100));
        let best = TimestampedOffset { offset: offset(610), timestamp: Timestamp::from_millis(2_550) };
        assert_eq!(look(2_100, 5_100, Wanted::Latest, Some(best)), (vec![], 4_100), "none is newer");
    }

    #[test]
    #[should_panic(expected = "a batch begins where the log ends")]
    fn a_hole_is_never_taken_in() {
        let (base_offset, last_offset, max_timestamp) = (offset(102), offset(102), Timestamp::default());
        tail(&[1]).push(TailBatch { base_offset, last_offset, max_timestamp, bytes: Bytes::new() });
    }
}
