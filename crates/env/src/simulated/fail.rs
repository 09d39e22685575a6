//! Fail points that end the task that passes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{FailPoint, FailPoints};

/// Arms any point to crash at its nth passing. Clones share it: one goes into [`crate::Parts`], one stays with the test.
///
/// A crash first runs the armed action, which takes the machine away (`SimDisk::crash`), then unwinds the passing task
/// with [`CrashedAt`] as its panic, so that no line after the point runs.
#[derive(Clone)]
pub struct ArmedFailPoints(Arc<Shared>);

struct Shared {
    armed: Mutex<BTreeMap<&'static str, Armed>>,
    passed: Mutex<BTreeMap<&'static str, u64>>,
    crashed: watch::Sender<Option<FailPoint>>,
}

struct Armed {
    passes_left: u64,
    action: Box<dyn FnOnce() + Send>,
}

/// The panic of a task that met an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashedAt(pub FailPoint);

impl Default for ArmedFailPoints {
    fn default() -> Self {
        Self(Arc::new(Shared { armed: Mutex::default(), passed: Mutex::default(), crashed: watch::Sender::new(None) }))
    }
}

impl ArmedFailPoints {
    /// Lets `point` pass `passes` times, then crashes there.
    pub fn arm(&self, point: FailPoint, passes: u64, action: impl FnOnce() + Send + 'static) {
        self.0.armed.lock().insert(point.name(), Armed { passes_left: passes, action: Box::new(action) });
    }

    pub fn disarm_all(&self) {
        self.0.armed.lock().clear();
    }

    /// How often a point was reached, the crash included.
    pub fn times_reached(&self, point: FailPoint) -> u64 {
        self.0.passed.lock().get(point.name()).copied().unwrap_or(0)
    }

    /// Returns the point once one has crashed. Cancel safe.
    pub async fn crashed(&self) -> FailPoint {
        let mut receiver = self.0.crashed.subscribe();
        let at = *receiver.wait_for(Option::is_some).await.expect("the sender lives in self");
        at.expect("waited for it")
    }
}

impl FailPoints for ArmedFailPoints {
    fn hit(&self, point: FailPoint) {
        *self.0.passed.lock().entry(point.name()).or_default() += 1;
        let action = {
            let mut armed = self.0.armed.lock();
            match armed.get_mut(point.name()) {
                None => return,
                Some(waiting) if waiting.passes_left > 0 => {
                    waiting.passes_left -= 1;
                    return;
                }
                Some(_) => armed.remove(point.name()).expect("just found").action,
            }
        };
        action();
        self.0.crashed.send_replace(Some(point));
        // Not `panic!`: this is no failure, and needs no report on stderr.
        std::panic::resume_unwind(Box::new(CrashedAt(point)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_armed_point_crashes_at_its_turn_and_only_then() {
        let points = ArmedFailPoints::default();
        let inside = points.clone();
        points.arm(FailPoint::WalBeforeSync, 2, || ());
        let task = tokio::spawn(async move {
            inside.hit(FailPoint::WalBeforeWrite);
            for _ in 0..5 {
                inside.hit(FailPoint::WalBeforeSync);
            }
        });
        assert_eq!(points.crashed().await, FailPoint::WalBeforeSync);
        let panic = task.await.expect_err("the task ended at the point").into_panic();
        assert_eq!(panic.downcast_ref(), Some(&CrashedAt(FailPoint::WalBeforeSync)));
        assert_eq!(points.times_reached(FailPoint::WalBeforeSync), 3);
        assert_eq!(points.times_reached(FailPoint::WalBeforeWrite), 1);
    }
}
