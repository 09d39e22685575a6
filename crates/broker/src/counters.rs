//! What connections did, counted where it happens (D17). Relaxed: each number stands alone.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

/// API keys counted one by one; Kafka's end at 92 in version 4. All others share a place.
const API_KEYS: usize = 128;

/// Why a connection was closed, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Peer,
    Idle,
    Stalled,
    Unfinished,
    Closing,
    Broken,
    BadFrame,
    BadRequest,
}

impl Closed {
    pub const ALL: [Self; 8] = [
        Self::Peer,
        Self::Idle,
        Self::Stalled,
        Self::Unfinished,
        Self::Closing,
        Self::Broken,
        Self::BadFrame,
        Self::BadRequest,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Unfinished => "unfinished",
            Self::Closing => "closing",
            Self::Broken => "broken",
            Self::BadFrame => "bad-frame",
            Self::BadRequest => "bad-request",
        }
    }
}

/// Counters of one process, over all its broker epochs.
pub(crate) struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    closed: [AtomicU64; Closed::ALL.len()],
    apis: [ApiCounters; API_KEYS + 1],
}

/// Requests of one API.
#[derive(Default)]
pub(crate) struct ApiCounters {
    requests: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

/// An API's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApiRow {
    /// `None` for all keys that no API has.
    pub api_key: Option<i16>,
    pub requests: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            closed: array::from_fn(|_| AtomicU64::new(0)),
            apis: array::from_fn(|_| ApiCounters::default()),
        }
    }
}

impl Counters {
    pub fn connection_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connection_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn closed(&self, why: Closed) {
        self.closed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn api(&self, key: i16) -> &ApiCounters {
        &self.apis[usize::try_from(key).map_or(API_KEYS, |key| key.min(API_KEYS))]
    }

    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many connections ended, by why, in a fixed order.
    pub fn ends(&self) -> impl Iterator<Item = (Closed, u64)> + '_ {
        Closed::ALL.into_iter().map(|why| (why, self.closed[why as usize].load(Ordering::Relaxed)))
    }

    /// The APIs that were asked, in order of their keys.
    pub fn rows(&self) -> Vec<ApiRow> {
        let row = |(at, api): (usize, &ApiCounters)| ApiRow {
            api_key: i16::try_from(at).ok().filter(|_| at < API_KEYS),
            requests: api.requests.load(Ordering::Relaxed),
            request_bytes: api.request_bytes.load(Ordering::Relaxed),
            response_bytes: api.response_bytes.load(Ordering::Relaxed),
        };
        self.apis.iter().enumerate().map(row).filter(|row| row.requests > 0).collect()
    }
}

impl ApiCounters {
    pub fn request(&self, bytes: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.request_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn response(&self, bytes: usize) {
        self.response_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests are counted under their key, and all that have no API's key together.
    #[test]
    fn requests_are_counted_by_key() {
        let counters = Counters::default();
        counters.api(3).request(10);
        counters.api(3).response(7);
        counters.api(-1).request(2);
        counters.api(i16::MAX).request(3);
        let row = |api_key, requests, request_bytes, response_bytes| ApiRow {
            api_key,
            requests,
            request_bytes,
            response_bytes,
        };
        assert_eq!(counters.rows(), [row(Some(3), 1, 10, 7), row(None, 2, 5, 0)]);
    }
}
