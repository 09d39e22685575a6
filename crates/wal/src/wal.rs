//! The handle on a running WAL.

use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Env, Instant, Task};
use forebay_format::WalEntry;
use forebay_types::{WalPosition, WalSequence};
use tokio::sync::{Notify, watch};

use crate::batcher::{Batcher, Shared};
use crate::group::GROUP_OFFSETS_MAX;
use crate::queue::{Queue, Writer, offsets_of};
use crate::waiters::Waiters;
use crate::{Admission, Provider, Publisher, WalEnded, WalError, WalKind, WalMetrics};

/// Bounds of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Bytes of batches admitted and not yet durable. Half of the medium's room at most, whatever is set here.
    pub bytes_in_flight_max: u32,
    /// A planted bug: positions count as durable before anything is written. A proof that nothing is lost must fail on it.
    pub sabotage_ack_before_write: bool,
}

impl Default for WalConfig {
    fn default() -> Self {
        // Two full groups for each of the four that an object WAL has in flight.
        Self { bytes_in_flight_max: 128 << 20, sabotage_ack_before_write: false }
    }
}

/// A running WAL. Clones are the same WAL; when the last one is dropped, it ends without draining.
#[derive(Clone)]
pub struct Wal(Arc<Handle>);

struct Handle {
    env: Env,
    shared: Arc<Shared>,
    provider: Arc<dyn Provider>,
    /// Owned here so that the WAL's task ends with its last handle.
    _task: Task<()>,
}

impl Wal {
    /// Starts the WAL of a fresh broker epoch on an opened provider.
    pub fn start(env: &Env, provider: Box<dyn Provider>, publisher: Arc<dyn Publisher>, config: WalConfig) -> Self {
        let provider: Arc<dyn Provider> = Arc::from(provider);
        let half_room = u32::try_from(provider.room() / 2).unwrap_or(u32::MAX);
        let in_flight_max = config.bytes_in_flight_max.min(half_room).max(1);
        let shared = Arc::new(Shared {
            queue: Queue::new(in_flight_max, provider.pacing().group_bytes_max),
            waiters: Waiters::default(),
            metrics: WalMetrics::default(),
            room: Notify::new(),
            finished: watch::Sender::new(false),
        });
        let sabotage = config.sabotage_ack_before_write;
        let batcher = Batcher::new(env.clone(), Arc::clone(&shared), Arc::clone(&provider), publisher, sabotage);
        let task = env.spawn("wal", batcher.run());
        Self(Arc::new(Handle { env: env.clone(), shared, provider, _task: task }))
    }

    /// Waits until `bytes` of clients' batches may be appended: there is room in memory and on the medium. Cancel safe.
    ///
    /// # Errors
    /// The WAL has ended or was asked to stop.
    pub async fn admit(&self, bytes: usize) -> Result<Admission, WalEnded> {
        self.admit_for(Writer::Clients, bytes).await
    }

    /// As [`Wal::admit`], for what coordinators write themselves: they do not stand in line behind clients.
    ///
    /// # Errors
    /// As there.
    pub async fn admit_own(&self, bytes: usize) -> Result<Admission, WalEnded> {
        self.admit_for(Writer::Coordinators, bytes).await
    }

    async fn admit_for(&self, by: Writer, bytes: usize) -> Result<Admission, WalEnded> {
        let Handle { env, shared, provider, .. } = &*self.0;
        let Some(admission) = shared.queue.admit(by, bytes).await else { return Err(self.ended()) };
        let mut waits = None;
        loop {
            let changed = shared.room.notified();
            if let Some(ended) = shared.waiters.ended() {
                return Err(ended);
            }
            if shared.queue.fits(by, provider.room()) {
                return Ok(admission);
            }
            waits.get_or_insert_with(|| shared.queue.wait_for_room(env));
            changed.await;
        }
    }

    /// Takes an entry into the WAL and gives its position. Never blocks: called under the partition's lock, so that
    /// the order of positions is the order of offsets. Once the WAL has ended the entry is dropped and its position
    /// never becomes durable.
    ///
    /// # Panics
    /// An entry above [`Wal::entry_bytes_max`]: the log refuses such a batch before it gives it offsets. One of more
    /// offsets than a batch can have.
    pub fn append(&self, admission: &mut Admission, entry: WalEntry) -> WalPosition {
        let (size, limit) = (entry.records.len(), self.entry_bytes_max());
        assert!(size <= limit, "a batch of {size} bytes cannot be written to a WAL that takes {limit}");
        let offsets = offsets_of(&entry);
        assert!(offsets <= GROUP_OFFSETS_MAX, "a batch of {offsets} offsets is more than a batch can have");
        self.0.shared.queue.push(admission, entry, self.0.env.monotonic())
    }

    /// Returns once the entry at `position`, and all before it, are durable and published. Cancel safe.
    ///
    /// # Errors
    /// The WAL ended before that.
    pub async fn durable(&self, position: WalPosition) -> Result<(), WalEnded> {
        self.0.shared.waiters.wait(position).await
    }

    /// All up to this position is durable and published.
    pub fn durable_position(&self) -> WalPosition {
        self.0.shared.waiters.durable()
    }

    /// The position of the last entry appended.
    pub fn appended_position(&self) -> WalPosition {
        self.0.shared.queue.appended()
    }

    /// Asks that what is queued now does not wait for company. The limit of groups per second still holds.
    pub fn flush(&self) {
        self.0.shared.queue.hurry();
    }

    /// Gives up what groups up to `through`, inclusive, hold: their data objects are committed.
    pub fn trim(&self, through: WalSequence) {
        self.0.provider.trim(through);
        self.0.shared.queue.trimmed(self.0.env.monotonic());
        self.0.shared.room.notify_waiters();
    }

    /// Time until `now` in which somebody waited, for durability or for room, and for more than a second nothing became
    /// durable and no room was made; of each such time what is above the second. What counts time against those who wait
    /// for answers leaves it out (D10).
    pub fn time_stalled(&self, now: Instant) -> Duration {
        self.0.shared.queue.time_stalled(now)
    }

    /// Refuses what is new, writes what is queued, and returns when that is durable and published.
    ///
    /// # Errors
    /// The WAL ended by a failure before that.
    pub async fn stop(&self) -> Result<(), WalEnded> {
        self.0.shared.queue.stop();
        let mut finished = self.0.shared.finished.subscribe();
        finished.wait_for(|f| *f).await.expect("the sender lives in self");
        match self.0.shared.waiters.ended() {
            Some(ended) if !matches!(*ended.reason, WalError::Stopped) => Err(ended),
            _ => Ok(()),
        }
    }

    /// Why the WAL ended, if it has.
    pub fn has_ended(&self) -> Option<WalEnded> {
        self.0.shared.waiters.ended()
    }

    /// The largest batch that can be appended, in bytes.
    pub fn entry_bytes_max(&self) -> usize {
        self.0.provider.entry_bytes_max()
    }

    pub fn metrics(&self) -> &WalMetrics {
        &self.0.shared.metrics
    }

    pub fn kind(&self) -> WalKind {
        self.0.provider.kind()
    }

    /// What is lost together with this WAL, for an operator.
    pub fn fault_domain(&self) -> String {
        self.0.provider.fault_domain()
    }

    /// Bytes of batches that can be written before something must be trimmed.
    pub fn room(&self) -> u64 {
        self.0.provider.room()
    }

    /// The end's reason where there is one; a WAL that is stopping has none yet.
    fn ended(&self) -> WalEnded {
        self.has_ended().unwrap_or_else(|| WalEnded { reason: Arc::new(WalError::Stopped) })
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("kind", &self.kind())
            .field("durable", &self.durable_position())
            .finish_non_exhaustive()
    }
}
