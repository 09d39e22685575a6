//! A log that a stranger cannot fill: so many lines in so long, and then how many were left out.

use std::time::Duration;

use forebay_env::{Env, Instant};
use parking_lot::Mutex;

/// Lines in one window.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// Counts what strangers make us log.
pub(crate) struct Complaints {
    env: Env,
    window: Mutex<Window>,
}

struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Complaints {
    pub fn new(env: &Env) -> Self {
        let window = Window { since: env.monotonic(), lines: 0, left_out: 0 };
        Self { env: env.clone(), window: Mutex::new(window) }
    }

    /// Runs `log` if there is room for a line.
    pub fn log(&self, log: impl FnOnce()) {
        let left_out = {
            let now = self.env.monotonic();
            let window = &mut *self.window.lock();
            let mut left_out = 0;
            if now.duration_since(window.since) >= WINDOW {
                left_out = std::mem::take(&mut window.left_out);
                (window.since, window.lines) = (now, 0);
            }
            if window.lines >= LINES_MAX {
                window.left_out += 1;
                return;
            }
            window.lines += 1;
            left_out
        };
        if left_out > 0 {
            tracing::warn!(lines = left_out, "more of the like was left out of the log");
        }
        log();
    }
}

#[cfg(test)]
mod tests {
    use forebay_env::simulated::{SimDisk, Trace, parts};

    use super::*;

    /// A hundred complaints in one window come to twenty lines; the next window begins anew.
    #[tokio::test(start_paused = true)]
    async fn a_window_has_so_many_lines() {
        let env = Env::new(parts(1, &SimDisk::new(1, Trace::default())));
        let complaints = Complaints::new(&env);
        let mut lines = 0;
        (0..100).for_each(|_| complaints.log(|| lines += 1));
        assert_eq!(lines, LINES_MAX);
        env.sleep(WINDOW).await;
        complaints.log(|| lines += 1);
        assert_eq!(lines, LINES_MAX + 1);
    }
}
