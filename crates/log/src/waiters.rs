//! Fetches that wait for a partition to move.
//!
//! A fetch waits on many partitions at once, so it brings one bell and hangs it up at each of them; whoever moves the
//! high watermark or the last stable offset of one rings it. There is no sleep loop: a wake-up costs a few
//! microseconds, polling would cost half its interval (semantic 38b).
//!
//! Invariants:
//! 1. A bell rung before its owner waits is not lost: `Notify` keeps one permit.
//! 2. A fetch that gave up leaves nothing behind but a dead entry, which the next visitor of the partition clears.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// A fetch's bell. Dropping it takes it off everywhere.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Returns once the bell was rung since this was last called. Cancel safe.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<Weak<Notify>>);

impl Waiters {
    pub fn hang(&mut self, bell: &Bell) {
        self.0.retain(|waiter| waiter.strong_count() > 0);
        self.0.push(Arc::downgrade(&bell.0));
    }

    /// Rings every bell and takes it down: whoever still waits hangs it up again.
    pub fn ring(&mut self) {
        for waiter in self.0.drain(..) {
            if let Some(bell) = waiter.upgrade() {
                bell.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bell_rung_early_is_heard_and_a_dropped_one_is_gone() {
        let mut waiters = Waiters::default();
        let bell = Bell::default();
        waiters.hang(&bell);
        waiters.ring();
        bell.rung().await;
        for _ in 0..1000 {
            waiters.hang(&Bell::default());
        }
        assert!(waiters.0.len() <= 2, "bells of fetches that gave up are cleared");
    }
}
