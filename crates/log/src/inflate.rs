//! Work on clients' records that is too long for the runtime: decompression, mostly, and reading records one by one.
//!
//! Owns: how many such works run at once, what one batch may come to, and what is short enough to be done in place. Leaves to
//! others: what the records are read for (`validate`, `search`).
//!
//! Invariants:
//! 1. At most [`PLACES`] works run at once, whoever asks; one whose asker has gone keeps its place until it is done.
//! 2. A batch comes to [`INFLATED_SIZE_MAX`] bytes at most, so all together take a bounded piece of memory.
//! 3. What may take over half a millisecond leaves the runtime; in simulation it runs in place all the same (D18).

use std::sync::Arc;

use bytes::Bytes;
use forebay_env::Env;
use forebay_types::Offset;
use forebay_wire::{BatchHeader, Batches, Codec};
use tokio::sync::Semaphore;

use crate::search::{TimestampedOffset, Wanted, search};

/// Works at once: enough to keep up with a few clients, few enough that the other cores and the memory stay everybody's.
const PLACES: usize = 4;

/// Bytes that one batch may come to once decompressed, however large the topic lets batches be.
pub(crate) const INFLATED_SIZE_MAX: usize = 64 << 20;

/// Of a topic: so many times its `max.message.bytes`, which text hardly ever compresses to less than a sixteenth of.
const INFLATED_RATIO_MAX: usize = 16;

/// But never less than this: small batches of one repeated byte are harmless.
const INFLATED_SIZE_MIN: usize = 1 << 20;

/// Records of this many bytes together are read one by one in place: at seven bytes each, in a quarter of a millisecond.
pub(crate) const READ_IN_PLACE_MAX: usize = 16 << 10;

/// Batches up to this size have their checksum and their records' sizes looked at in place.
pub(crate) const WALK_IN_PLACE_MAX: usize = 1 << 20;

/// What a batch of a topic with this `max.message.bytes` may come to.
pub(crate) fn inflated_size_max(max_message_bytes: u32) -> usize {
    let size = usize::try_from(max_message_bytes).unwrap_or(usize::MAX);
    size.saturating_mul(INFLATED_RATIO_MAX).clamp(INFLATED_SIZE_MIN, INFLATED_SIZE_MAX)
}

/// Where such work is done.
pub(crate) struct Inflater {
    env: Env,
    places: Arc<Semaphore>,
}

impl Inflater {
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Does the work off the runtime, once there is a place.
    pub async fn run<T: Send + 'static>(&self, name: &'static str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let work = move || {
            let done = work();
            drop(place);
            done
        };
        self.env.blocking(name, work).await
    }

    /// As [`search`], off the runtime where it may take long.
    pub async fn search(&self, run: Bytes, from: Offset, end: Offset, wanted: Wanted) -> Option<TimestampedOffset> {
        if is_short(&run) {
            return search(&run, from, end, wanted);
        }
        self.run("search-records", move || search(&run, from, end, wanted)).await
    }
}

/// Whether all records of a run of batches can be read in place.
fn is_short(run: &Bytes) -> bool {
    let plain = |header: BatchHeader| matches!(header.codec(), Ok(Codec::None));
    run.len() <= READ_IN_PLACE_MAX && Batches::new(run).all(|batch| batch.is_ok_and(|batch| plain(batch.header)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    /// Work leaves the thread that asked, as many at once as there are places, and no more: each waits until all places are
    /// taken, and counts who is at work with it.
    #[tokio::test]
    async fn work_leaves_the_runtime_and_waits_for_a_place() {
        let inflater = Inflater::new(&forebay_env::real::env());
        let here = thread::current().id();
        let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all_places = Arc::new(Barrier::new(PLACES));
        let works = (0..PLACES * 3).map(|_| {
            let (at_work, most, all_places) = (Arc::clone(&at_work), Arc::clone(&most), Arc::clone(&all_places));
            inflater.run("test", move || {
                most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                all_places.wait();
                at_work.fetch_sub(1, Ordering::SeqCst);
                thread::current().id()
            })
        });
        let threads = futures::future::join_all(works).await;
        assert!(threads.iter().all(|thread| *thread != here));
        assert_eq!(most.load(Ordering::SeqCst), PLACES);
    }

    #[test]
    fn a_topics_bound_follows_its_batches() {
        assert_eq!(inflated_size_max(1 << 20), 16 << 20);
        assert_eq!(inflated_size_max(100), INFLATED_SIZE_MIN);
        assert_eq!(inflated_size_max(u32::MAX), INFLATED_SIZE_MAX);
    }
}
