//! SlateDB's clock over ours.
//!
//! SlateDB refuses to open a database whose last write is ahead of the clock. A machine whose clock was set back since
//! must not be locked out for that: the clock then goes on from the last write, which [`last_tick`] finds in the refusal.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use forebay_env::{Env, Instant};
use forebay_types::Timestamp;
use slatedb_common::clock::{SystemClock, SystemClockTicker};

/// Wall time that never goes back: it was read once, and goes on with the monotonic clock. SlateDB's tickers panic on a
/// clock that is set back.
pub(super) struct EnvClock {
    env: Env,
    started: Instant,
    wall: DateTime<Utc>,
}

impl EnvClock {
    /// A clock that begins at the wall's time, or at `tick` where that is later.
    pub(super) fn at_least(env: &Env, tick: Timestamp) -> Self {
        let begin = env.now().max(tick);
        let wall = DateTime::from_timestamp_millis(begin.as_millis()).unwrap_or(DateTime::UNIX_EPOCH);
        Self { env: env.clone(), started: env.monotonic(), wall }
    }
}

/// The time of the last write, where SlateDB refused to open because its clock is behind that.
pub(super) fn last_tick(refusal: &str) -> Option<Timestamp> {
    let (_, after) = refusal.split_once("invalid clock tick")?.1.split_once("last_tick=`")?;
    let (tick, _) = after.split_once('`')?;
    tick.parse().ok().map(Timestamp::from_millis)
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
