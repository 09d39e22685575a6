//! Time in which the WAL stood still: nothing that rests on it could be answered, so it must not count against those who
//! wait for answers (D10).
//!
//! Owns: what counts as standing still. Leaves to others: who counts their time without it (`coordinator`).
//!
//! A WAL stands still while somebody waits, for durability or for room, and nothing has become durable and no room was
//! made for [`PATIENCE`]. A WAL that is slow and goes on does not.

use std::time::Duration;

use forebay_env::Instant;

/// As long as a slow write may take without anybody being given time back.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// While somebody waits: since when, or since the last step forward.
    since: Option<Instant>,
    /// How long earlier ones lasted.
    before: Duration,
    told: bool,
    /// The latest time that it was asked at or told of: who comes with an earlier one has read its clock before.
    latest: Option<Instant>,
}

impl Stall {
    /// Somebody waits.
    pub fn begin(&mut self, now: Instant) {
        let now = self.latest(now);
        self.since.get_or_insert(now);
    }

    /// A step forward, or nobody waits any more.
    pub fn step(&mut self, now: Instant, still_waiting: bool) {
        let now = self.latest(now);
        self.before = self.total(now);
        self.since = still_waiting.then_some(now);
        self.told = false;
    }

    /// Whether it stands still, and nobody has asked since it began to.
    pub fn is_news(&mut self, now: Instant) -> bool {
        let stands = self.total(now) > self.before;
        stands && !std::mem::replace(&mut self.told, true)
    }

    /// All of it so far. It never shrinks, and grows by the time that has passed at most.
    pub fn total(&mut self, now: Instant) -> Duration {
        let now = self.latest(now);
        let current = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.before + current.saturating_sub(PATIENCE)
    }

    fn latest(&mut self, now: Instant) -> Instant {
        let latest = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(latest);
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_without_a_step_counts_and_only_beyond_the_patience() {
        let start = forebay_env::real::env().monotonic();
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        let mut stall = Stall::default();
        let total = |stall: &mut Stall, tenths| u64::try_from(stall.total(at(tenths)).as_millis()).expect("fits") / 100;
        assert_eq!(total(&mut stall, 50), 0, "nobody waits");
        stall.begin(at(50));
        stall.begin(at(55));
        assert_eq!((total(&mut stall, 60), stall.is_news(at(60))), (0, false));
        assert_eq!(total(&mut stall, 64), 4, "by the one who waits longest");
        assert_eq!(total(&mut stall, 62), 4, "it does not shrink for who read its clock before");
        assert_eq!((stall.is_news(at(64)), stall.is_news(at(64))), (true, false));
        stall.step(at(65), true);
        assert_eq!(
            (total(&mut stall, 65), total(&mut stall, 75), total(&mut stall, 76)),
            (5, 5, 6),
            "a step forward, somebody waits"
        );
        stall.step(at(80), false);
        assert_eq!((total(&mut stall, 80), total(&mut stall, 500)), (10, 10), "nobody waits any more");
        // Slow, and never still.
        stall.begin(at(500));
        for tenths in (509..=600).step_by(9) {
            stall.step(at(tenths), true);
        }
        assert_eq!(total(&mut stall, 600), 10);
    }
}
