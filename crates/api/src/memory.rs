//! Memory that all connections of a broker epoch share: who wants some takes bytes of a budget first (D16).
//!
//! Owns: the budgets, and the two ways to take of them: to wait, or to make do with less. Leaves to others: what is large
//! enough to count, and when it is given back (`broker`'s connections, Fetch).
//!
//! Invariants:
//! 1. What is taken is never more than the budget. Nothing is too large for it: what is larger than all of it takes all,
//!    and so is alone.
//! 2. Who waits is served in the order of coming: small ones cannot starve a large one.
//! 3. What was taken is given back when its [`Held`] is dropped, however that comes about.
//!
//! Source: Kafka's `SimpleMemoryPool`, which lets one request in that is larger than what is left, and one after the other
//! by chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::BrokerConfig;

/// Bodies of requests without records that are read or decoded, all connections together: one of the largest size, or many
/// smaller ones. Decoded they may take 130 times as much for a moment (`wire::message`).
pub const OTHER_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(OTHER_BYTES_MAX >= forebay_wire::message::REQUEST_BYTES_MAX);

/// The budgets of a broker epoch.
#[derive(Debug)]
pub struct Memory {
    /// Produce requests, until their records are in the write-ahead log's queue.
    pub produce: Budget,
    /// All other requests: these never wait for those that wait for the write-ahead log.
    pub other: Budget,
    /// Fetch answers, from the read to the last byte sent.
    pub answers: Budget,
}

/// So many bytes.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    free: Arc<Semaphore>,
    waits: AtomicU64,
}

/// Bytes that were taken of a budget.
#[derive(Debug)]
pub struct Held(OwnedSemaphorePermit);

impl Memory {
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            produce: Budget::new(config.queued_max_request_bytes()),
            other: Budget::new(OTHER_BYTES_MAX),
            answers: Budget::new(config.fetch_pending_max_bytes()),
        }
    }
}

impl Budget {
    fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { bytes, free: Arc::new(Semaphore::new(bytes)), waits: AtomicU64::new(0) }
    }

    /// Takes so many bytes, or all that there are, and waits until they are free. Cancel safe: the place in the queue is
    /// lost.
    pub async fn take(&self, bytes: usize) -> Held {
        let permits = permits(bytes.min(self.bytes));
        if let Ok(held) = Arc::clone(&self.free).try_acquire_many_owned(permits) {
            return Held(held);
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.free).acquire_many_owned(permits).await.expect("the semaphore is never closed"))
    }

    /// Takes up to so many bytes, without waiting: half of what is free at most, so that a few who hold much for long
    /// leave something for all others. May be none.
    pub fn take_some(&self, bytes: usize) -> Held {
        loop {
            let permits = permits(bytes.min(self.free.available_permits() / 2));
            // Fails only where others took more than the other half meanwhile.
            if let Ok(held) = Arc::clone(&self.free).try_acquire_many_owned(permits) {
                return Held(held);
            }
        }
    }

    /// Bytes that are taken now.
    pub fn held(&self) -> u64 {
        (self.bytes - self.free.available_permits()) as u64
    }

    /// How often somebody had to wait.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }
}

impl Held {
    pub fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// Gives back what is more than so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.0.split(self.bytes().saturating_sub(bytes)));
    }
}

/// A frame's size, and what a fetch asks for, have 31 bits.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Bytes are taken in the order of coming, what is larger than the budget is alone, and all of it comes back, also
    /// from one who gave up waiting.
    #[test]
    fn a_budget_is_shared_in_order() {
        let budget = Budget::new(100);
        let first = budget.take(60).now_or_never().expect("free");
        let mut large = Box::pin(budget.take(1_000));
        let mut small = Box::pin(budget.take(10));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "it would fit, and has to wait its turn");
        drop(first);
        let held = large.now_or_never().expect("its turn");
        assert_eq!((held.bytes(), budget.held(), budget.waits()), (100, 100, 2));
        assert!((&mut small).now_or_never().is_none(), "the large one is alone");
        drop(small);
        drop(held);
        assert_eq!(budget.held(), 0);
    }

    /// Who does not wait gets half of what is free at most, and gives back what was not needed.
    #[test]
    fn some_of_a_budget_leaves_some() {
        let budget = Budget::new(1_000);
        let mut taken: Vec<Held> = (0..12).map(|_| budget.take_some(400)).collect();
        let bytes: Vec<usize> = taken.iter().map(Held::bytes).collect();
        assert_eq!(bytes, [400, 300, 150, 75, 37, 19, 9, 5, 2, 1, 1, 0]);
        taken[0].shrink_to(100);
        taken[1].shrink_to(500);
        assert_eq!((taken[0].bytes(), taken[1].bytes(), budget.held()), (100, 300, 699));
        drop(taken);
        assert_eq!((budget.held(), budget.waits()), (0, 0));
    }
}
