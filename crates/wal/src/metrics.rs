//! What a WAL did, in counters that anybody may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets, in microseconds; one more bucket holds what is above.
const BOUNDS_MICROS: [u64; 16] = [
    100, 200, 300, 500, 750, 1_000, 2_000, 3_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];

/// Counts durations by size. Lock-free; a reader may see one observation in the sum and not yet in its bucket.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Upper bound (inclusive; `None` for the last) and how many observations lie in the bucket, not counting those below.
    pub buckets: Vec<(Option<Duration>, u64)>,
    pub count: u64,
    pub sum: Duration,
}

impl LatencyHistogram {
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> HistogramSnapshot {
        let bounds = BOUNDS_MICROS.iter().map(|micros| Some(Duration::from_micros(*micros))).chain([None]);
        let buckets: Vec<_> = bounds.zip(&self.buckets).map(|(b, n)| (b, n.load(Ordering::Relaxed))).collect();
        HistogramSnapshot {
            count: buckets.iter().map(|(_, n)| n).sum(),
            sum: Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)),
            buckets,
        }
    }
}

impl HistogramSnapshot {
    /// The upper bound of the bucket in which this share of all observations is reached; `None` where there are none,
    /// or it lies above the last bound.
    pub fn quantile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.count * percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        self.buckets.iter().find_map(|(bound, count)| {
            seen += count;
            (seen >= wanted).then_some(*bound)
        })?
    }
}

/// A WAL's counters since it started.
#[derive(Debug, Default)]
pub struct WalMetrics {
    /// From append to durable, per entry.
    pub ack_latency: LatencyHistogram,
    /// From the start of a group's write to its end.
    pub write_latency: LatencyHistogram,
    pub groups: AtomicU64,
    pub entries: AtomicU64,
    /// Bytes of batches made durable.
    pub batch_bytes: AtomicU64,
    /// Bytes written for them, headers and padding included.
    pub written_bytes: AtomicU64,
    /// Syncs of the disk, or objects created.
    pub syncs: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_duration_once() {
        let histogram = LatencyHistogram::default();
        assert_eq!(histogram.snapshot().quantile(50), None);
        for micros in [1, 100, 101, 4_000, 9_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let seen = histogram.snapshot();
        let counts: Vec<u64> = seen.buckets.iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((seen.count, seen.sum), (5, Duration::from_micros(9_004_202)));
        assert_eq!(seen.quantile(50), Some(Duration::from_micros(200)));
        assert_eq!(seen.quantile(80), Some(Duration::from_millis(5)));
        assert_eq!(seen.quantile(99), None, "above the last bound");
    }
}
