//! Producer ids for this broker, taken from the cluster in blocks (KIP-730).
//!
//! Invariants:
//! 1. An id is given out once, unless it was given back unused.
//! 2. The next block is asked for when half of one is left, so that nobody waits for the metadata but the first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::Env;
use forebay_metadata::command::PRODUCER_IDS_PER_BLOCK;
use forebay_metadata::service::ErrorKind;
use forebay_metadata::{Command, Reply};
use forebay_types::ProducerId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::seats::Backoff;
use super::{CoordinatorError, LOADING_PATIENCE, Shared};

/// Ids at hand below which the next block is asked for.
const REFILL_BELOW: i64 = PRODUCER_IDS_PER_BLOCK / 2;

#[derive(Default)]
pub(super) struct ProducerIds {
    held: Mutex<Held>,
    /// Wakes the task that asks for blocks.
    wanted: Notify,
    /// Wakes those who wait for an id.
    arrived: Notify,
}

#[derive(Default)]
struct Held {
    /// Given back unused: those that were under way at once.
    returned: Vec<ProducerId>,
    /// Blocks as the next id and the end, exclusive.
    blocks: VecDeque<(i64, i64)>,
}

impl Held {
    fn left(&self) -> i64 {
        self.blocks.iter().map(|(next, end)| end - next).sum()
    }

    fn take(&mut self) -> Option<ProducerId> {
        if let Some(id) = self.returned.pop() {
            return Some(id);
        }
        let (next, end) = self.blocks.front_mut()?;
        let id = ProducerId::new(*next).expect("the metadata gives blocks of producer ids");
        *next += 1;
        if next == end {
            self.blocks.pop_front();
        }
        Some(id)
    }
}

impl ProducerIds {
    /// The next id; waits a little where there is none.
    pub async fn take(&self, env: &Env) -> Result<ProducerId, CoordinatorError> {
        let mut arrived = std::pin::pin!(self.arrived.notified());
        arrived.as_mut().enable();
        if let Some(id) = self.try_take() {
            return Ok(id);
        }
        env.timeout(LOADING_PATIENCE, arrived).await;
        self.try_take().ok_or(CoordinatorError::Loading)
    }

    fn try_take(&self) -> Option<ProducerId> {
        let mut held = self.held.lock();
        let id = held.take();
        if held.left() < REFILL_BELOW {
            self.wanted.notify_one();
        }
        id
    }

    /// Takes back an id that nobody has seen.
    pub fn give_back(&self, id: ProducerId) {
        self.held.lock().returned.push(id);
    }
}

/// Keeps ids at hand, from the first time that one is wanted.
pub(super) async fn refill(shared: Arc<Shared>) {
    let ids = &shared.ids;
    loop {
        ids.wanted.notified().await;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while ids.held.lock().left() < REFILL_BELOW {
            match shared.metadata.submit(Command::AllocateProducerIds { life: shared.life }).await {
                Ok(Reply::ProducerIds(first)) => {
                    let first = first.get();
                    ids.held.lock().blocks.push_back((first, first + PRODUCER_IDS_PER_BLOCK));
                    ids.arrived.notify_waiters();
                }
                Ok(other) => unreachable!("a block is answered with its first id, not with {other:?}"),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no producer ids from the metadata");
                    if error.kind() != ErrorKind::Retry {
                        // This broker epoch is over: no id of its blocks is given out any more, and none is needed.
                        return;
                    }
                    backoff.wait(&shared.env).await;
                }
            }
        }
    }
}
