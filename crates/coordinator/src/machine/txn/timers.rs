//! What falls due when: time-outs of open transactions, expiry of idle ids.
//!
//! Owns: the order of deadlines. Leaves to others: what happens at one.
//!
//! Time-outs run on the clock that never jumps; expiry, which outlives processes, on the wall clock.
//!
//! Invariants:
//! 1. Every open transaction stands in `timeouts` exactly once, under the deadline in its entry: few, and exact.
//! 2. Every id stands in `expiry` exactly once, in a bucket that ends no later than one bucket after its real expiry:
//!    many, so four bytes each. An id that was used meanwhile is found alive when its bucket falls due, and moves on;
//!    using an id touches no timer.
//! 3. Every ending transaction stands in `ending`; it waits for markers, not for time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_types::Timestamp;

use super::super::Now;
use super::table::Slot;

/// The coarsest expiry: Kafka looks once an hour too (`transaction.remove.expired.transaction.cleanup.interval.ms`).
const BUCKET_MS_MAX: i64 = 3_600_000;
/// How many buckets a short expiration is cut in.
const BUCKETS: i64 = 64;

#[derive(Debug)]
pub(super) struct Timers {
    pub timeouts: BTreeSet<(Duration, Slot)>,
    pub ending: BTreeSet<Slot>,
    expiry: BTreeMap<i64, Vec<Slot>>,
    bucket_ms: i64,
}

impl Timers {
    pub fn new(expiration_ms: i64) -> Self {
        Self {
            timeouts: BTreeSet::new(),
            ending: BTreeSet::new(),
            expiry: BTreeMap::new(),
            bucket_ms: (expiration_ms / BUCKETS).clamp(1, BUCKET_MS_MAX),
        }
    }

    /// Asks again about the id in `slot` within one bucket after `at`.
    pub fn watch(&mut self, slot: Slot, at: Timestamp) {
        self.expiry.entry(at.as_millis().div_euclid(self.bucket_ms)).or_default().push(slot);
    }

    /// An open transaction that is due, and stays until it is taken out.
    pub fn timed_out(&self, now: Now) -> Option<Slot> {
        self.timeouts.first().filter(|(deadline, _)| *deadline <= now.uptime).map(|(_, slot)| *slot)
    }

    /// Takes out an id whose bucket is over: the caller expires it or watches it again.
    pub fn take_watched(&mut self, now: Now) -> Option<Slot> {
        let mut first = self.expiry.first_entry()?;
        if end_of(*first.key(), self.bucket_ms) > now.wall {
            return None;
        }
        let slot = first.get_mut().pop().expect("a bucket goes with its last slot");
        if first.get().is_empty() {
            first.remove();
        }
        Some(slot)
    }

    /// The uptime at which the first open transaction falls due.
    pub fn first_timeout(&self) -> Option<Duration> {
        self.timeouts.first().map(|(deadline, _)| *deadline)
    }

    /// The uptime at which the first of all falls due.
    pub fn deadline(&self, now: Now) -> Option<Duration> {
        let timeout = self.first_timeout();
        let expiry = self.expiry.first_key_value().map(|(bucket, _)| {
            let left_ms = end_of(*bucket, self.bucket_ms).millis_since(now.wall);
            now.uptime + Duration::from_millis(left_ms.unsigned_abs())
        });
        [timeout, expiry].into_iter().flatten().min()
    }

    /// Heap bytes held for expiry; what open transactions hold is not counted.
    pub fn heap_bytes(&self) -> usize {
        let node = size_of::<(i64, Vec<Slot>)>();
        self.expiry.values().map(|slots| node + slots.capacity() * size_of::<Slot>()).sum()
    }
}

fn end_of(bucket: i64, bucket_ms: i64) -> Timestamp {
    Timestamp::from_millis(bucket.saturating_add(1).saturating_mul(bucket_ms))
}
