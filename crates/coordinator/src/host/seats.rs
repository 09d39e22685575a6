//! Machines by partition: opened when first asked for, one task each.
//!
//! Invariants:
//! 1. A partition has at most one task that has not ended.
//! 2. Inputs offered wait in a bounded queue; a task that ends drops what is in it, and whoever waits learns that.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_env::{Env, Task};
use forebay_types::PartitionIndex;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{CoordinatorError, LOADING_PATIENCE};

/// Inputs that wait for one machine. A machine takes far more in a millisecond; a client that finds the queue full
/// comes back after its back-off.
const INPUTS_MAX: usize = 1_024;

/// What a task tells of itself. Its end shows in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Loading,
    Open,
}

struct Seat<I> {
    inputs: Inputs<I>,
    task: Task<()>,
}

/// The way to one machine.
pub(super) struct Inputs<I> {
    sender: mpsc::Sender<I>,
    progress: watch::Receiver<Progress>,
}

impl<I> Clone for Inputs<I> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), progress: self.progress.clone() }
    }
}

impl<I> Inputs<I> {
    /// Waits a little for the machine to open.
    ///
    /// # Errors
    /// It is not open yet, or it has ended.
    pub async fn opened(mut self, env: &Env) -> Result<Self, CoordinatorError> {
        if *self.progress.borrow() == Progress::Open {
            return Ok(self);
        }
        let open = self.progress.wait_for(|progress| *progress == Progress::Open);
        match env.timeout(LOADING_PATIENCE, open).await.map(|open| open.is_ok()) {
            Some(true) => Ok(self),
            Some(false) => Err(CoordinatorError::NotCoordinator),
            None => Err(CoordinatorError::Loading),
        }
    }

    /// Waits until the machine is open, or has ended.
    pub async fn when_open(mut self) {
        // Its end is as good a reason to stop waiting.
        let _ = self.progress.wait_for(|progress| *progress == Progress::Open).await;
    }

    /// Hands over an input, if there is room.
    pub fn offer(&self, input: I) -> Result<(), CoordinatorError> {
        self.sender.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CoordinatorError::Unavailable,
            mpsc::error::TrySendError::Closed(_) => CoordinatorError::NotCoordinator,
        })
    }

    /// Waits for room, then hands over an input; also before the machine is open. `None` where it has ended.
    pub async fn send(&self, input: I) -> Option<()> {
        self.sender.send(input).await.ok()
    }
}

/// What waits in line now: who was there in time, though nobody could see to it. Taken before time is up for anybody.
pub(super) fn in_line<I>(inputs: &mut mpsc::Receiver<I>) -> Vec<I> {
    std::iter::from_fn(|| inputs.try_recv().ok()).take(INPUTS_MAX).collect()
}

/// All seats of one kind of machine.
pub(super) struct Seats<I>(Mutex<BTreeMap<PartitionIndex, Seat<I>>>);

impl<I> Default for Seats<I> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<I> Seats<I> {
    /// The seat of that partition; `start` starts its task where there is none, or none any more.
    pub fn seat(
        &self,
        index: PartitionIndex,
        start: impl FnOnce(mpsc::Receiver<I>, watch::Sender<Progress>) -> Task<()>,
    ) -> Inputs<I> {
        let mut seats = self.0.lock();
        if let Some(seat) = seats.get(&index).filter(|seat| !seat.inputs.sender.is_closed()) {
            return seat.inputs.clone();
        }
        let (sender, receiver) = mpsc::channel(INPUTS_MAX);
        let (told, progress) = watch::channel(Progress::Loading);
        let inputs = Inputs { sender, progress };
        seats.insert(index, Seat { inputs: inputs.clone(), task: start(receiver, told) });
        inputs
    }

    pub fn is_open(&self, index: PartitionIndex) -> bool {
        self.0.lock().get(&index).is_some_and(|seat| !seat.inputs.sender.is_closed())
    }

    /// The ways to all machines that are open or opening.
    pub fn all(&self) -> Vec<Inputs<I>> {
        let seats = self.0.lock();
        seats.values().map(|seat| seat.inputs.clone()).filter(|inputs| !inputs.sender.is_closed()).collect()
    }

    /// Returns when every task has ended; they must have been told to.
    pub async fn ended(&self) {
        let seats = std::mem::take(&mut *self.0.lock());
        for seat in seats.into_values() {
            seat.task.await;
        }
    }
}

/// How long to wait before the next try: twice as long each time, within bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    pub async fn wait(&mut self, env: &Env) {
        env.sleep(self.next).await;
        self.next = (self.next * 2).min(self.max);
    }
}
