//! A wall clock over tokio's, which the simulation pauses and drives.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use forebay_types::Timestamp;
use tokio::time::Instant;

use crate::Clock;

/// 2020-01-01, so that a simulated time looks like a time.
const START: Timestamp = Timestamp::from_millis(1_577_836_800_000);

/// Starts at a given time, runs with tokio's clock, and jumps where told. Clones share the jumps.
#[derive(Clone, Debug)]
pub struct SimClock {
    started: Instant,
    /// The wall clock at `started`, jumps included.
    wall_millis: Arc<AtomicI64>,
}

impl SimClock {
    pub fn starting_at(start: Timestamp) -> Self {
        Self { started: Instant::now(), wall_millis: Arc::new(AtomicI64::new(start.as_millis())) }
    }

    /// Moves the wall clock, forth or (below 0) back; the monotonic clock does not notice.
    pub fn jump(&self, millis: i64) {
        self.wall_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::starting_at(START)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.wall_millis.load(Ordering::Relaxed)).saturating_add(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_runs_with_tokios_and_jumps_where_told() {
        let clock = SimClock::starting_at(Timestamp::from_millis(1_000));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1_250));
        clock.clone().jump(-1_000);
        assert_eq!(clock.now(), Timestamp::from_millis(250));
    }
}
