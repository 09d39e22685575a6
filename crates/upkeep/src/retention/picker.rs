//! Which extents of a log are old or too many: a pure function of their ages and sizes.
//!
//! As Kafka: from the oldest on, whole extents, until the first that is to stay. An extent is old by its newest record's
//! own time, not by when it was written: a record with a time in the future holds all that comes after it (semantic 27).
//! By size an extent goes only if at least `retention.bytes` stay without it.

use forebay_types::{Offset, OffsetRange, Timestamp};

/// How long and how much of a partition is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// `None` is for ever.
    pub retention_ms: Option<i64>,
    /// `None` is without limit.
    pub retention_bytes: Option<u64>,
}

impl Policy {
    pub fn keeps_all(self) -> bool {
        self.retention_ms.is_none() && self.retention_bytes.is_none()
    }

    pub fn is_old(self, newest: Timestamp, now: Timestamp) -> bool {
        self.retention_ms.is_some_and(|ms| now.millis_since(newest) > ms)
    }

    fn is_excess(self, size: u64, extent: u64) -> bool {
        self.retention_bytes.is_some_and(|limit| size.saturating_sub(extent) >= limit)
    }
}

/// What becomes of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It lies below the log start already.
    Released,
    Old,
    Excess,
    /// It stays, and so does all behind it.
    Kept,
}

/// One walk over a log's extents, oldest first, until the first that is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    policy: Policy,
    now: Timestamp,
    /// What is left of the log's bytes.
    size: u64,
    log_start: Offset,
}

impl Walk {
    /// `size`: bytes of all the log's extents, those below the log start included.
    pub fn new(policy: Policy, now: Timestamp, log_start: Offset, size: u64) -> Self {
        Self { policy, now, size, log_start }
    }

    /// The next extent: its range, its bytes, and the time of its newest record.
    pub fn judge(&mut self, range: OffsetRange, bytes: u64, newest: Timestamp) -> Verdict {
        let verdict = if range.end() <= self.log_start {
            Verdict::Released
        } else if self.policy.is_old(newest, self.now) {
            Verdict::Old
        } else if self.policy.is_excess(self.size, bytes) {
            Verdict::Excess
        } else {
            return Verdict::Kept;
        };
        self.size = self.size.saturating_sub(bytes);
        self.log_start = self.log_start.max(range.end());
        verdict
    }

    /// Where the log is to start.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extents as `start-end bytes newest`, oldest first; the answer names each one looked at and the new log start.
    fn case(retention_ms: Option<i64>, retention_bytes: Option<u64>, log_start: i64, extents: &[&str]) -> String {
        let offset = |raw: i64| Offset::new(raw).expect("not negative");
        let parsed: Vec<(OffsetRange, u64, i64)> = extents
            .iter()
            .map(|text| {
                let numbers: Vec<i64> = text.split([' ', '-']).map(|part| part.parse().expect("a number")).collect();
                let [start, end, bytes, newest] = numbers[..] else { panic!("{text:?} is not an extent") };
                let range = OffsetRange::new(offset(start), offset(end)).expect("in order");
                (range, u64::try_from(bytes).expect("not negative"), newest)
            })
            .collect();
        let size = parsed.iter().map(|(_, bytes, _)| bytes).sum();
        let policy = Policy { retention_ms, retention_bytes };
        let mut walk = Walk::new(policy, Timestamp::from_millis(100_000), offset(log_start), size);
        let mut told = Vec::new();
        for (range, bytes, newest) in parsed {
            let verdict = walk.judge(range, bytes, Timestamp::from_millis(newest));
            told.push(format!("{verdict:?}"));
            if verdict == Verdict::Kept {
                break;
            }
        }
        format!("{} -> start {}", told.join(" "), walk.log_start())
    }

    #[test]
    fn by_time_whole_extents_go_from_the_oldest_on() {
        // It is 100 s; what is older than 60 s goes.
        let minute = Some(60_000);
        let log = ["0-10 100 10000", "10-20 100 39999", "20-30 100 40000", "30-40 100 90000"];
        assert_eq!(case(minute, None, 0, &log), "Old Old Kept -> start 20", "40 s is exactly a minute old, and stays");
        assert_eq!(case(Some(0), None, 0, &log), "Old Old Old Old -> start 40", "nothing is kept, as in Kafka");
        assert_eq!(case(None, None, 0, &log), "Kept -> start 0");
    }

    #[test]
    fn a_record_of_the_future_holds_what_comes_after_it() {
        let log = ["0-10 100 10000", "10-20 100 999999999", "20-30 100 20000"];
        assert_eq!(case(Some(60_000), None, 0, &log), "Old Kept -> start 10");
        assert_eq!(
            case(Some(60_000), Some(100), 0, &log),
            "Old Excess Old -> start 30",
            "but size does not ask for time"
        );
    }

    #[test]
    fn by_size_at_least_the_limit_stays() {
        let log = ["0-10 100 99000", "10-20 100 99000", "20-30 100 99000"];
        assert_eq!(case(None, Some(300), 0, &log), "Kept -> start 0");
        assert_eq!(case(None, Some(201), 0, &log), "Kept -> start 0", "199 would be left");
        assert_eq!(case(None, Some(200), 0, &log), "Excess Kept -> start 10");
        assert_eq!(case(None, Some(1), 0, &log), "Excess Excess Kept -> start 20");
        assert_eq!(case(None, Some(0), 0, &log), "Excess Excess Excess -> start 30", "nothing is kept, as in Kafka");
    }

    #[test]
    fn what_is_below_the_log_start_counts_no_more() {
        let log = ["0-10 500 99000", "10-20 100 99000", "20-30 100 99000"];
        assert_eq!(case(None, Some(200), 10, &log), "Released Kept -> start 10");
        assert_eq!(case(None, Some(200), 15, &log), "Released Kept -> start 15", "half an extent still weighs whole");
        assert_eq!(case(Some(60_000), Some(100), 10, &log), "Released Excess Kept -> start 20");
        assert_eq!(case(Some(60_000), None, 30, &log), "Released Released Released -> start 30");
    }
}
