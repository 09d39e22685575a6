//! SlateDB's clock over ours.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use forebay_env::{Env, Instant};
use slatedb_common::clock::{SystemClock, SystemClockTicker};

/// Wall time that never goes back: it was read once, and goes on with the monotonic clock. SlateDB's tickers panic on a
/// clock that is set back.
pub(super) struct EnvClock {
    env: Env,
    started: Instant,
    wall: DateTime<Utc>,
}

impl EnvClock {
    pub(super) fn new(env: &Env) -> Self {
        let wall = DateTime::from_timestamp_millis(env.now().as_millis()).unwrap_or(DateTime::UNIX_EPOCH);
        Self { env: env.clone(), started: env.monotonic(), wall }
    }
}

impl fmt::Debug for EnvClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvClock")
    }
}

impl SystemClock for EnvClock {
    fn now(&self) -> DateTime<Utc> {
        let elapsed = self.env.monotonic().saturating_duration_since(self.started);
        self.wall + TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX)
    }

    fn sleep<'a>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.env.sleep(duration))
    }

    fn ticker(&self, duration: Duration) -> SystemClockTicker<'_> {
        SystemClockTicker::new(self, duration)
    }
}
