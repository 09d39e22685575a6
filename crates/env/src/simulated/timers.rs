//! Timers as events of a trace.

use std::time::Duration;

use super::Trace;
use crate::{Instant, Timers};

/// Tells a [`Trace`] of every timer that fires: whose it is, and when it was due. Two runs in which a task slept for another
/// time differ in their digests, whatever it did afterwards.
pub struct TracedTimers {
    host: &'static str,
    trace: Trace,
    since_start: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl TracedTimers {
    /// `since_start`: how long the simulation has run. An [`Instant`] alone does not say: each runtime counts from its own.
    pub fn new(host: &'static str, trace: Trace, since_start: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { host, trace, since_start: Box::new(since_start) }
    }
}

impl Timers for TracedTimers {
    fn fired(&self, deadline: Instant) {
        let due = (self.since_start)().saturating_sub(deadline.elapsed());
        self.trace.observe("timer", &format!("{} {} us", self.host, due.as_micros()), b"");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SimDisk, parts};
    use super::*;
    use crate::Env;

    /// What a run leaves in its trace; `run` gets an environment and does nothing but wait.
    fn trace_of(run: impl AsyncFnOnce(Env)) -> (u64, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let trace = Trace::with_log();
        runtime.expect("a runtime").block_on(async {
            run(Env::new(parts(1, &SimDisk::new(1, trace.clone())))).await;
        });
        let events = trace.log().into_iter().filter_map(|event| Some(event.split_once(" 0 bytes")?.0.to_owned()));
        (trace.digest(), events.collect())
    }

    #[test]
    fn runs_that_differ_in_a_timer_only_differ_in_their_digests() {
        let run = async |env: Env, slept: u64, limit: u64| {
            env.sleep(Duration::from_millis(slept)).await;
            env.sleep_until(env.monotonic() + Duration::from_millis(5)).await;
            let output = env.timeout(Duration::from_millis(limit), std::future::pending::<()>()).await;
            assert_eq!(output, None);
        };
        let (digest, events) = trace_of(async |env| run(env, 10, 20).await);
        assert_eq!(events, ["timer machine 10000 us", "timer machine 15000 us", "timer machine 35000 us"]);
        assert_eq!(trace_of(async |env| run(env, 10, 20).await), (digest, events), "the same again");
        assert_ne!(trace_of(async |env| run(env, 11, 20).await).0, digest, "a sleep counts");
        assert_ne!(trace_of(async |env| run(env, 10, 21).await).0, digest, "a time-out counts");
    }

    #[test]
    fn a_timer_is_told_once_it_fires_and_only_then() {
        let (_, events) = trace_of(async |env| {
            assert_eq!(env.timeout(Duration::from_secs(1), async { 1 }).await, Some(1));
            let outer = env.clone();
            let first = outer.timeout(Duration::from_millis(3), env.sleep(Duration::from_millis(7)));
            assert_eq!(first.await, None, "the sleep is dropped");
        });
        assert_eq!(events, ["timer machine 3000 us"]);
    }
}
