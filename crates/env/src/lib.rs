//! The one seam between the system and the machine (D18): clock, randomness, tasks, shutdown, sockets, local disk.
//!
//! Owns: the traits, their real implementation, and what a deterministic one needs (a seeded generator, a disk that
//! forgets what was not synced). Leaves to others: the object store (`store`) and simulated sockets (`sim`).
//!
//! Invariants:
//! 1. No other crate reads a clock, draws a random number, starts a task or thread, or touches a socket or file;
//!    clippy bans the calls, this crate alone allows them.
//! 2. Under a simulated `Env` everything runs on the calling thread, and one seed gives one order of events.
//! 3. Sleeping and timing use tokio's clock, which the simulation drives; [`Env::now`] is the wall clock and may jump.
//! 4. Whoever asked for it ([`Parts::timers`]) is told of each timer that fires, in the order in which they do.

// The bans of clippy.toml point here; this crate is where they end.
#![allow(clippy::disallowed_methods)]

mod disk;
mod fail;
mod net;
mod shutdown;
mod task;
mod timer;

pub mod real;
pub mod simulated;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use forebay_types::Timestamp;
pub use tokio::time::Instant;

pub use disk::{AlignedBuf, Disk, DiskFile, DiskLock, OpenMode, SECTOR_SIZE, is_unreadable};
pub use fail::{FailPoint, FailPoints, NoFailPoints, UnknownFailPoint};
pub use net::{Listener, Network, Stream};
pub use shutdown::Shutdown;
pub use task::{Task, Worker};
pub use timer::Timers;

/// The wall clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970. May jump either way: order things by [`Env::monotonic`] or by a position.
    fn now(&self) -> Timestamp;
}

/// A source of random bytes: the operating system's, or a seed's.
pub trait Random: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

/// Whether work may leave the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Blocking work runs on threads of its own.
    Many,
    /// All work runs inline, in a fixed order: simulation.
    One,
}

/// A handle on the machine. Cheap to clone; every component holds one.
#[derive(Clone)]
pub struct Env(Arc<Parts>);

/// What an [`Env`] is made of.
pub struct Parts {
    pub clock: Box<dyn Clock>,
    pub random: Box<dyn Random>,
    pub network: Box<dyn Network>,
    pub disk: Arc<dyn Disk>,
    pub fail_points: Box<dyn FailPoints>,
    /// Who is told of timers; on a real machine nobody.
    pub timers: Option<Box<dyn Timers>>,
    pub threads: Threads,
    pub shutdown: Shutdown,
}

impl Env {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The wall clock, for record timestamps and retention.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// A clock that never goes back, for time-outs and latencies.
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    pub async fn sleep(&self, duration: Duration) {
        self.run(tokio::time::sleep(duration)).await;
    }

    pub async fn sleep_until(&self, deadline: Instant) {
        self.run(tokio::time::sleep_until(deadline)).await;
    }

    /// `future`'s output, or `None` once `limit` has passed; the future is then dropped.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let deadline = self.0.timers.as_ref().and_then(|_| Instant::now().checked_add(limit));
        let output = tokio::time::timeout(limit, future).await.ok();
        if let (None, Some(timers), Some(deadline)) = (&output, &self.0.timers, deadline) {
            timers.fired(deadline);
        }
        output
    }

    async fn run(&self, timer: tokio::time::Sleep) {
        let deadline = timer.deadline();
        timer.await;
        if let Some(timers) = &self.0.timers {
            timers.fired(deadline);
        }
    }

    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.0.random.fill(bytes);
    }

    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number from 0 up to but not including `end`; 0 where `end` is 0. Even enough for back-off and sampling.
    pub fn random_below(&self, end: u64) -> u64 {
        self.random_u64().checked_rem(end).unwrap_or(0)
    }

    /// Starts a task. It is aborted when the returned [`Task`] is dropped: every task has an owner.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task::spawn(name, future)
    }

    /// Runs work of over half a millisecond, or that blocks, off the runtime; inline in simulation.
    ///
    /// # Panics
    /// Where `work` panics.
    pub async fn blocking<T, F>(&self, name: &'static str, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        task::blocking(self.0.threads, name, work).await
    }

    /// A thread that runs jobs one after the other, for a device that wants its own; inline in simulation.
    ///
    /// # Errors
    /// The operating system refuses another thread.
    pub fn worker(&self, name: &'static str) -> std::io::Result<Worker> {
        Worker::start(self.0.threads, name)
    }

    pub fn network(&self) -> &dyn Network {
        &*self.0.network
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.0.disk)
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Passes a named point at which a test or the demo may end the process. Free when nothing is armed.
    pub fn fail_point(&self, point: FailPoint) {
        self.0.fail_points.hit(point);
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("threads", &self.0.threads).finish_non_exhaustive()
    }
}
