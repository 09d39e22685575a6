//! When to start the next group: a pure decision over what is queued and what was started (D2).
//!
//! A `disk` WAL starts a group whenever none is in flight, so that what arrives during one sync shares the next. An
//! `object` WAL pays for every group: it starts one at once after a rest, then one per `wait`, sooner only when a group
//! is full, and never more than the limit in any second.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use forebay_env::Instant;

/// How a provider wants its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// From the start of one group to the start of the next, unless that one is full.
    pub wait: Duration,
    /// Groups being written at the same time.
    pub groups_in_flight_max: NonZeroUsize,
    /// Groups started in any second; `None` where a group costs nothing.
    pub groups_per_second_max: Option<NonZeroUsize>,
    /// Bytes of encoded entries in one group; one larger entry makes a group of its own.
    pub group_bytes_max: usize,
}

/// What is waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub entries: usize,
    pub bytes: usize,
    /// Somebody asked not to wait for company.
    pub hurry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Start,
    /// Nothing before this time, unless something changes.
    At(Instant),
    /// Nothing until something changes.
    Idle,
}

pub(crate) struct Pace {
    pacing: Pacing,
    /// When groups were started: the last one, and as many before it as the limit per second counts.
    starts: VecDeque<Instant>,
}

impl Pace {
    pub fn new(pacing: Pacing) -> Self {
        Self { pacing, starts: VecDeque::new() }
    }

    pub fn turn(&self, now: Instant, waiting: Waiting, in_flight: usize) -> Turn {
        if waiting.entries == 0 || in_flight >= self.pacing.groups_in_flight_max.get() {
            return Turn::Idle;
        }
        let full = waiting.bytes >= self.pacing.group_bytes_max;
        let after_wait =
            if full || waiting.hurry { None } else { self.starts.back().map(|last| *last + self.pacing.wait) };
        let after_limit = self.pacing.groups_per_second_max.and_then(|limit| {
            let oldest_counted = self.starts.len().checked_sub(limit.get())?;
            Some(self.starts[oldest_counted] + Duration::from_secs(1))
        });
        match after_wait.max(after_limit) {
            Some(at) if at > now => Turn::At(at),
            _ => Turn::Start,
        }
    }

    pub fn started(&mut self, now: Instant) {
        let keep = self.pacing.groups_per_second_max.map_or(1, NonZeroUsize::get);
        if self.starts.len() == keep {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(wait_ms: u64, in_flight: usize, per_second: Option<usize>) -> Pace {
        Pace::new(Pacing {
            wait: Duration::from_millis(wait_ms),
            groups_in_flight_max: NonZeroUsize::new(in_flight).expect("not 0"),
            groups_per_second_max: per_second.and_then(NonZeroUsize::new),
            group_bytes_max: 1_000,
        })
    }

    fn some(bytes: usize) -> Waiting {
        Waiting { entries: 1, bytes, hurry: false }
    }

    fn now() -> Instant {
        forebay_env::real::env().monotonic()
    }

    /// Millisecond by millisecond over `millis`, with `bytes` always waiting: when groups are started.
    fn starts(mut pace: Pace, from: Instant, millis: u64, waiting: Waiting) -> Vec<u64> {
        let mut at = Vec::new();
        for ms in 0..millis {
            let now = from + Duration::from_millis(ms);
            while pace.turn(now, waiting, 0) == Turn::Start && at.len() < 100 {
                pace.started(now);
                at.push(ms);
            }
        }
        at
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_wal_starts_at_once_then_waits_for_company() {
        let now = now();
        assert_eq!(starts(pace(100, 4, Some(10)), now, 350, some(10)), [0, 100, 200, 300]);
        let mut rested = pace(100, 4, Some(10));
        rested.started(now);
        assert_eq!(
            rested.turn(now + Duration::from_millis(40), some(10), 1),
            Turn::At(now + Duration::from_millis(100))
        );
        assert_eq!(rested.turn(now + Duration::from_millis(400), some(10), 0), Turn::Start);
    }

    #[tokio::test(start_paused = true)]
    async fn full_groups_and_flushes_do_not_wait_but_keep_the_limit() {
        let now = now();
        assert_eq!(starts(pace(100, 4, Some(3)), now, 1_500, some(1_000)), [0, 0, 0, 1_000, 1_000, 1_000]);
        let hurry = Waiting { hurry: true, ..some(1) };
        assert_eq!(starts(pace(100, 4, Some(3)), now, 1_500, hurry), [0, 0, 0, 1_000, 1_000, 1_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_groups_what_arrived_during_the_last_write() {
        let now = now();
        let mut disk = pace(0, 1, None);
        assert_eq!(disk.turn(now, Waiting { entries: 0, bytes: 0, hurry: true }, 0), Turn::Idle);
        assert_eq!(disk.turn(now, some(1), 0), Turn::Start);
        disk.started(now);
        assert_eq!(disk.turn(now, some(1), 1), Turn::Idle);
        assert_eq!(disk.turn(now, some(1), 0), Turn::Start);
    }
}
