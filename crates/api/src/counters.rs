//! What requests met that whoever is on call must be able to see, counted where it happens (D17). Relaxed: each number
//! stands alone.
//!
//! Labels are few and known before anybody asks: topics, clients and offsets go to the log.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// APIs that answer OFFSET_OUT_OF_RANGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetApi {
    Fetch,
    DeleteRecords,
}

/// Where an offset lies that is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// What was there is gone: retention, DeleteRecords, a topic made anew.
    LogStart,
    /// Nothing was ever there, or the log is shorter than the client believes.
    LogEnd,
}

impl OffsetApi {
    const ALL: [Self; 2] = [Self::Fetch, Self::DeleteRecords];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "Fetch",
            Self::DeleteRecords => "DeleteRecords",
        }
    }
}

impl Beyond {
    const ALL: [Self; 2] = [Self::LogStart, Self::LogEnd];

    pub const fn name(self) -> &'static str {
        match self {
            Self::LogStart => "below-log-start",
            Self::LogEnd => "above-log-end",
        }
    }
}

/// Counters of one broker epoch.
#[derive(Debug)]
pub struct Counters {
    out_of_range: [[AtomicU64; Beyond::ALL.len()]; OffsetApi::ALL.len()],
    held_back: AtomicU64,
    held_back_micros: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            out_of_range: array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))),
            held_back: AtomicU64::new(0),
            held_back_micros: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub(crate) fn out_of_range(&self, api: OffsetApi, beyond: Beyond) {
        self.out_of_range[api as usize][beyond as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn held_back(&self, time: Duration) {
        self.held_back.fetch_add(1, Ordering::Relaxed);
        self.held_back_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Answers of OFFSET_OUT_OF_RANGE, in a fixed order.
    pub fn offsets_out_of_range(&self) -> impl Iterator<Item = (OffsetApi, Beyond, u64)> + '_ {
        OffsetApi::ALL.into_iter().flat_map(move |api| {
            let count = move |beyond: Beyond| self.out_of_range[api as usize][beyond as usize].load(Ordering::Relaxed);
            Beyond::ALL.into_iter().map(move |beyond| (api, beyond, count(beyond)))
        })
    }

    /// Produce requests that were told a throttle time.
    pub fn produces_held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }

    /// How long these waited for room, all together.
    pub fn produce_time_held_back(&self) -> Duration {
        Duration::from_micros(self.held_back_micros.load(Ordering::Relaxed))
    }
}
