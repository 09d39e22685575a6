//! Death at a named point, in the processes that are to die: armed over standard input, carried out by SIGKILL.
//!
//! Protocol: a line `arm NAME PASSES` on standard input is answered by `armed NAME` on standard output; at the PASSES-th
//! pass of that point from then on the process says `killed NAME` and kills itself. One point is armed at a time. The end
//! of standard input means that the parent is gone, and ends the process too.

use std::io::{BufRead, Write};

use forebay_env::{Env, FailPoint, FailPoints, Task};
use parking_lot::Mutex;

struct Armed {
    name: String,
    passes: u64,
}

/// One process dies at one point: a fail point is passed from any task, so this is the process's.
static ARMED: Mutex<Option<Armed>> = Mutex::new(None);

/// The product's fail points, under this protocol.
pub fn armed_points() -> impl FailPoints {
    Points
}

struct Points;

impl FailPoints for Points {
    fn hit(&self, point: FailPoint) {
        if due(point.name()) {
            die(point.name());
        }
    }
}

/// Counts a pass of a point; whether the process is to die here.
pub fn due(name: &str) -> bool {
    let mut armed = ARMED.lock();
    let Some(found) = armed.as_mut().filter(|armed| armed.name == name) else { return false };
    found.passes = found.passes.saturating_sub(1);
    found.passes == 0
}

/// As `kill -9` from outside: nothing is flushed, dropped or answered.
pub fn die(name: &str) -> ! {
    say(&format!("killed {name}"));
    let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal is on its way to every thread; one that could not be sent leaves only an abort.
    if killed.is_err() {
        std::process::abort();
    }
    loop {
        std::thread::park();
    }
}

/// A line to the parent. Where it cannot be written, the parent is gone and the end of standard input tells us.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Follows the parent's orders until the process ends.
pub fn obey(env: &Env) -> Task<()> {
    let blocking = env.clone();
    env.spawn("orders", async move {
        let read = move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                let mut words = line.split(' ');
                let order = (words.next(), words.next(), words.next().and_then(|passes| passes.parse().ok()));
                if let (Some("arm"), Some(name), Some(passes)) = order {
                    *ARMED.lock() = Some(Armed { name: name.to_owned(), passes });
                    say(&format!("armed {name}"));
                } else {
                    tracing::warn!(%line, "an order that has no meaning");
                }
            }
            die("orphaned");
        };
        blocking.blocking("orders", read).await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A point is due at its n-th pass and others never are.
    #[test]
    fn a_point_is_due_at_its_nth_pass() {
        *ARMED.lock() = Some(Armed { name: "here".into(), passes: 3 });
        let passes: Vec<_> = (0..3).map(|_| (due("there"), due("here"))).collect();
        *ARMED.lock() = None;
        assert_eq!(passes, [(false, false), (false, false), (false, true)]);
        assert!(!due("here"));
    }
}
