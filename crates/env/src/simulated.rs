//! A machine that is all in memory and follows one seed: randomness, clock, disk, and points to crash at.
//!
//! Owns: what the simulation and the tests of crashes build an [`crate::Env`] from. Leaves to others: the simulated
//! network (`sim` puts one in [`crate::Parts::network`]) and the simulated object store (`store`).
//!
//! Invariants:
//! 1. The same seed and the same calls in the same order give the same answers, on every platform.
//! 2. All that happens is told to one [`Trace`], so that two runs can be compared by one number.

mod clock;
mod disk;
mod fail;
mod random;
mod timers;
mod trace;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;

pub use clock::SimClock;
pub use disk::{DiskFault, SimDisk};
pub use fail::{ArmedFailPoints, CrashedAt};
pub use random::SimRandom;
pub use timers::TracedTimers;
pub use trace::Trace;

use crate::{Instant, Listener, Network, NoFailPoints, Parts, Shutdown, Stream, Threads};

/// A machine without a network and with nothing armed; the caller replaces what it wants otherwise. Its timers are told to
/// the disk's trace. Called within a tokio runtime whose clock is paused, else time is real.
pub fn parts(seed: u64, disk: &SimDisk) -> Parts {
    let started = Instant::now();
    Parts {
        clock: Box::new(SimClock::default()),
        random: Box::new(SimRandom::new(seed)),
        network: Box::new(NoNetwork),
        disk: Arc::new(disk.clone()),
        fail_points: Box::new(NoFailPoints),
        timers: Some(Box::new(TracedTimers::new("machine", disk.trace(), move || started.elapsed()))),
        threads: Threads::One,
        shutdown: Shutdown::default(),
    }
}

/// A machine whose cable is out.
struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    async fn connect(&self, _: &str) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::NetworkUnreachable.into())
    }
}
