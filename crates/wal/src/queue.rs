//! What was appended and is not yet taken into a group, the bytes that may be under way at once (D16), and who waits.
//!
//! Partitions append under their own locks, so this lock is the innermost one and is held for moves in memory only.
//!
//! Coordinators have an allotment of their own, in flight and of the medium's room, so that producers that fill the other
//! do not hold up commits, and with them the heartbeats in line behind these.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Env, Instant};
use forebay_format::WalEntry;
use forebay_types::WalPosition;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::group::{GROUP_ENTRIES_MAX, GROUP_OFFSETS_MAX};
use crate::pace::Waiting;
use crate::stall::Stall;

/// The coordinators' part of what may be in flight, or a sixteenth of it where that is less.
const OWN_BYTES_MAX: u32 = 8 << 20;

/// Leave to append some bytes. What is appended keeps its share until it is durable; the rest returns when dropped.
#[derive(Debug)]
#[must_use = "an admission that is dropped admits nothing"]
pub struct Admission(OwnedSemaphorePermit);

impl Admission {
    fn take(&mut self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.0.split(bytes.min(self.0.num_permits()))
    }
}

/// An entry's part of what may be in flight; dropped when the entry is durable.
#[derive(Debug)]
pub(crate) struct Share(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

/// An entry on its way to the medium.
pub(crate) struct Queued {
    entry: WalEntry,
    appended_at: Instant,
    share: Share,
}

impl Queued {
    pub fn split(self) -> (WalEntry, Instant, Share) {
        (self.entry, self.appended_at, self.share)
    }
}

pub(crate) struct Queue {
    state: Mutex<State>,
    /// Wakes the batcher.
    pub changed: Notify,
    /// By [`Writer`].
    allotments: [Allotment; 2],
    group_bytes_max: usize,
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    Clients,
    Coordinators,
}

/// Bytes that may be in flight.
struct Allotment {
    left: Arc<Semaphore>,
    max: u32,
}

impl Allotment {
    fn new(max: u32) -> Self {
        Self { left: Arc::new(Semaphore::new(max as usize)), max }
    }

    fn taken(&self) -> u64 {
        (self.max as usize).saturating_sub(self.left.available_permits()) as u64
    }
}

struct State {
    entries: VecDeque<Queued>,
    bytes: usize,
    /// The position of the last entry appended.
    appended: WalPosition,
    /// All up to here is durable.
    durable: WalPosition,
    /// How many wait for room on the medium.
    wait_for_room: usize,
    stall: Stall,
    hurry: bool,
    stopping: bool,
    closed: bool,
}

/// How many offsets an entry takes up.
pub(crate) fn offsets_of(entry: &WalEntry) -> u64 {
    entry.summary.last_offset.next().get().abs_diff(entry.summary.base_offset.get())
}

impl State {
    fn somebody_waits(&self) -> bool {
        self.appended > self.durable || self.wait_for_room > 0
    }
}

impl Queue {
    pub fn new(bytes_in_flight_max: u32, group_bytes_max: usize) -> Self {
        let own = OWN_BYTES_MAX.min(bytes_in_flight_max / 16).max(1);
        let clients = (bytes_in_flight_max - own.min(bytes_in_flight_max)).max(1);
        let state = State {
            entries: VecDeque::new(),
            bytes: 0,
            appended: WalPosition::START,
            durable: WalPosition::START,
            wait_for_room: 0,
            stall: Stall::default(),
            hurry: false,
            stopping: false,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            allotments: [Allotment::new(clients), Allotment::new(own)],
            group_bytes_max,
        }
    }

    /// Waits its turn for `bytes` of what may be in flight; `None` once the queue is closed. More than the whole is
    /// given the whole: a large request goes through alone. Cancel safe.
    pub async fn admit(&self, by: Writer, bytes: usize) -> Option<Admission> {
        let allotment = &self.allotments[by as usize];
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, allotment.max);
        Arc::clone(&allotment.left).acquire_many_owned(bytes).await.ok().map(Admission)
    }

    /// Whether what is in flight fits `room` on the medium. Clients leave the coordinators' part of it alone, and
    /// coordinators do not wait for what clients have been admitted and cannot write yet.
    pub fn fits(&self, by: Writer, room: u64) -> bool {
        let [clients, coordinators] = &self.allotments;
        match by {
            Writer::Clients => clients.taken() + u64::from(coordinators.max) <= room,
            Writer::Coordinators => coordinators.taken() <= room,
        }
    }

    /// Somebody waits for room on the medium until this is dropped.
    pub fn wait_for_room<'a>(&'a self, env: &'a Env) -> WaitsForRoom<'a> {
        let mut state = self.state.lock();
        state.wait_for_room += 1;
        state.stall.begin(env.monotonic());
        WaitsForRoom { queue: self, env }
    }

    /// All up to `durable` is durable.
    pub fn published(&self, durable: WalPosition, now: Instant) {
        let mut state = self.state.lock();
        state.durable = durable;
        let still_waiting = state.somebody_waits();
        state.stall.step(now, still_waiting);
    }

    /// There may be room on the medium that was not there before.
    pub fn trimmed(&self, now: Instant) {
        let mut state = self.state.lock();
        let still_waiting = state.somebody_waits();
        state.stall.step(now, still_waiting);
    }

    /// Time until `now` in which nothing went on: see [`Stall`].
    pub fn time_stalled(&self, now: Instant) -> Duration {
        let mut state = self.state.lock();
        if state.stall.is_news(now) {
            tracing::warn!(
                for_ms = crate::stall::PATIENCE.as_millis(),
                "the write-ahead log stands still: nothing has become durable, and no room was made; sessions and \
                 transaction time-outs stand still with it"
            );
        }
        state.stall.total(now)
    }

    /// Takes an entry in; its position follows that of the entry before it. A closed queue drops it.
    pub fn push(&self, admission: &mut Admission, entry: WalEntry, now: Instant) -> WalPosition {
        let size = entry.encoded_size();
        let share = Share(admission.take(size));
        let mut state = self.state.lock();
        state.appended = state.appended.next();
        let position = state.appended;
        if state.closed {
            return position;
        }
        state.stall.begin(now);
        let before = state.bytes;
        state.bytes += size;
        let fills = before < self.group_bytes_max && state.bytes >= self.group_bytes_max;
        let first = state.entries.is_empty();
        state.entries.push_back(Queued { entry, appended_at: now, share });
        drop(state);
        // Nothing else changes what the batcher decides.
        if first || fills {
            self.changed.notify_one();
        }
        position
    }

    pub fn appended(&self) -> WalPosition {
        self.state.lock().appended
    }

    pub fn waiting(&self) -> Waiting {
        let state = self.state.lock();
        Waiting { entries: state.entries.len(), bytes: state.bytes, hurry: state.hurry || state.stopping }
    }

    /// Takes the entries of the next group: at least one, then as many as fit; and the last one's position.
    pub fn take_group(&self) -> (Vec<Queued>, WalPosition) {
        let mut state = self.state.lock();
        let (mut bytes, mut offsets) = (0, 0);
        let fits = |queued: &&Queued| {
            bytes += queued.entry.encoded_size();
            // Of all logs together: no log's share is above the bound, and no batch is kept out by it for long.
            offsets += offsets_of(&queued.entry);
            bytes <= self.group_bytes_max && offsets <= GROUP_OFFSETS_MAX
        };
        let count =
            state.entries.iter().take(GROUP_ENTRIES_MAX).take_while(fits).count().max(1).min(state.entries.len());
        let taken: Vec<Queued> = state.entries.drain(..count).collect();
        state.bytes -= taken.iter().map(|q| q.entry.encoded_size()).sum::<usize>();
        if state.entries.is_empty() {
            state.hurry = false;
        }
        let behind = state.entries.len() as u64;
        (taken, WalPosition::new(state.appended.get() - behind))
    }

    /// Asks that what is queued now does not wait for company.
    pub fn hurry(&self) {
        let mut state = self.state.lock();
        if !state.entries.is_empty() {
            state.hurry = true;
            self.changed.notify_one();
        }
    }

    /// No more admissions; what is queued is still written.
    pub fn stop(&self) {
        self.admit_no_more();
        self.state.lock().stopping = true;
        self.changed.notify_one();
    }

    /// Whether everything was taken and nothing more is to come.
    pub fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.stopping && state.entries.is_empty()
    }

    /// Drops what is queued, and everything pushed later.
    pub fn close(&self) {
        self.admit_no_more();
        let dropped = {
            let mut state = self.state.lock();
            state.closed = true;
            state.bytes = 0;
            std::mem::take(&mut state.entries)
        };
        drop(dropped);
    }

    fn admit_no_more(&self) {
        for allotment in &self.allotments {
            allotment.left.close();
        }
    }
}

/// A place among those who wait for room.
pub(crate) struct WaitsForRoom<'a> {
    queue: &'a Queue,
    env: &'a Env,
}

impl Drop for WaitsForRoom<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.wait_for_room -= 1;
        if !state.somebody_waits() {
            state.stall.step(self.env.monotonic(), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_types::Offset;

    use super::*;
    use crate::conformance::{Numbered, owner};

    /// Entries of so many offsets each: how many of them each group takes.
    async fn groups(offsets: &[u64]) -> Vec<usize> {
        let queue = Queue::new(1 << 20, 1 << 26);
        let mut admission = queue.admit(Writer::Clients, 1 << 19).await.expect("open");
        for count in offsets {
            let mut entry = Numbered { epoch: owner(1).epoch, number: 0 }.entry(10);
            let last = i64::try_from(count - 1).expect("fits");
            entry.summary.last_offset = Offset::new(last).expect("not negative");
            queue.push(&mut admission, entry, forebay_env::real::env().monotonic());
        }
        let mut sizes = Vec::new();
        while queue.waiting().entries > 0 {
            sizes.push(queue.take_group().0.len());
        }
        sizes
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_gives_no_log_more_offsets_than_the_largest_batch_has() {
        let most = GROUP_OFFSETS_MAX;
        assert_eq!(groups(&[1, 2, 3]).await, [3]);
        assert_eq!(groups(&[most, 1, most - 1, 1]).await, [1, 2, 1]);
        assert_eq!(groups(&[most, most]).await, [1, 1]);
    }

    /// However small they are: a group may be an object of an `object` WAL, which is committed as it is.
    #[tokio::test(start_paused = true)]
    async fn a_group_holds_no_more_entries_than_a_commit_takes_logs() {
        assert_eq!(groups(&vec![1; GROUP_ENTRIES_MAX + 1]).await, [GROUP_ENTRIES_MAX, 1]);
    }
}
