//! Producer state: what idempotence and transactions need to know of each producer at an offset of a log, and the
//! change that a range of the log makes to it.
//!
//! Invariants:
//! 1. Applying the fold of a range equals applying its batches one by one, whatever the state before; and so it does on a
//!    state that stands at an offset inside the range.
//! 2. The window holds the last batches *of the current epoch*, at most [`WINDOW_BATCHES_MAX`], oldest first.
//! 3. A marker closes the transaction, and moves to the marker's epoch; only another epoch empties the window.
//! 4. The highest marker never goes back, whatever the producer's epoch (D14).
//!
//! Sources: Kafka's `ProducerStateEntry` (window, `maybeUpdateProducerEpoch`) and `ProducerAppendInfo`
//! (`appendDataBatch`, `appendEndTxnMarker`).

use std::collections::BTreeMap;

use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::batch::{BatchProducer, BatchSummary, MarkerSummary};
use crate::cursor::{Reader, Writer, bad};
use crate::error::Fault;

/// Batches per producer and partition among which a retry is recognised: as many as a client has in flight at most.
pub const WINDOW_BATCHES_MAX: usize = 5;

/// One batch that a retry may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    pub base_sequence: i32,
    /// Inclusive; below `base_sequence` where the sequence wrapped.
    pub last_sequence: i32,
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// The batch's max timestamp.
    pub timestamp: Timestamp,
}

/// The last batches of one producer epoch, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchWindow(Vec<BatchMeta>);

impl BatchWindow {
    pub fn as_slice(&self) -> &[BatchMeta] {
        &self.0
    }

    /// The newest batch.
    pub fn last(&self) -> Option<&BatchMeta> {
        self.0.last()
    }

    /// The batch that one with these sequences repeats.
    pub fn find(&self, base_sequence: i32, last_sequence: i32) -> Option<&BatchMeta> {
        self.0.iter().find(|b| b.base_sequence == base_sequence && b.last_sequence == last_sequence)
    }

    fn push(&mut self, batch: BatchMeta) {
        if self.0.len() == WINDOW_BATCHES_MAX {
            self.0.remove(0);
        }
        // Most producers of a million write one batch: no spare room.
        self.0.reserve_exact(1);
        self.0.push(batch);
    }
}

/// What a range of the log does to a producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnChange {
    /// No transactional batch and no marker.
    Unchanged,
    /// Transactional batches and no marker, the first at this offset: the transaction began here unless it was open before.
    OpenedAt(Offset),
    /// A marker, and no transactional batch after the last one.
    Closed,
    /// A marker, and after the last one a new transaction from this offset.
    ReopenedAt(Offset),
}

/// What a range of the log changes in one producer's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerChange {
    pub producer: ProducerId,
    /// The epoch at the end of the range.
    pub epoch: ProducerEpoch,
    /// The epoch changed inside the range: nothing of an older window survives, even one of the same epoch.
    pub resets: bool,
    /// The last batches of `epoch` in the range.
    pub batches: BatchWindow,
    pub txn: TxnChange,
    /// The highest marker in the range, see [`ProducerState::marker`].
    pub marker: Option<MarkerSummary>,
    /// The coordinator epoch of the last marker in the range.
    pub coordinator_epoch: Option<i32>,
    /// Max timestamp of the last batch, markers included.
    pub last_timestamp: Timestamp,
}

/// One producer's state at an offset of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub epoch: ProducerEpoch,
    pub batches: BatchWindow,
    /// First offset of the open transaction.
    pub open_txn: Option<Offset>,
    /// The highest marker by its Prepare record, kept across epochs: a marker not higher is already done (D14).
    pub marker: Option<MarkerSummary>,
    /// Coordinator epoch of the last marker, as Kafka's `ProducerStateEntry` keeps it. `None` before the first marker.
    pub coordinator_epoch: Option<i32>,
    /// Max timestamp of the producer's last batch, markers included: shown to whoever asks, and nothing counts by it.
    pub last_timestamp: Timestamp,
}

impl ProducerState {
    /// A producer of which nothing is known but its epoch: what a first batch or change is applied to.
    pub fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            batches: BatchWindow::default(),
            open_txn: None,
            marker: None,
            coordinator_epoch: None,
            last_timestamp: Timestamp::default(),
        }
    }

    /// Moves past one batch of this producer. Whether the batch may be appended at all is the caller's to decide first.
    pub fn apply_batch(&mut self, batch: &BatchSummary, producer: &BatchProducer) {
        self.apply(&ProducerChange::of(batch, producer));
    }

    /// Moves past a range of the log. The state may stand at the range's start or anywhere in the range: what it has
    /// seen of the range is not counted twice.
    pub fn apply(&mut self, change: &ProducerChange) {
        if change.resets || self.epoch != change.epoch {
            self.batches = BatchWindow::default();
            self.epoch = change.epoch;
        }
        let seen = self.batches.last().map(|batch| batch.last_offset);
        for batch in change.batches.as_slice().iter().filter(|batch| seen < Some(batch.base_offset)) {
            self.batches.push(*batch);
        }
        self.open_txn = match change.txn {
            TxnChange::Unchanged => self.open_txn,
            TxnChange::OpenedAt(first) => self.open_txn.or(Some(first)),
            TxnChange::Closed => None,
            TxnChange::ReopenedAt(first) => Some(first),
        };
        self.marker = higher(self.marker, change.marker);
        self.coordinator_epoch = change.coordinator_epoch.or(self.coordinator_epoch);
        self.last_timestamp = change.last_timestamp;
    }
}

impl ProducerChange {
    /// The change that one batch makes.
    fn of(batch: &BatchSummary, producer: &BatchProducer) -> Self {
        let mut batches = BatchWindow::default();
        if producer.has_sequence() && batch.marker.is_none() {
            batches.push(BatchMeta {
                base_sequence: producer.base_sequence,
                last_sequence: producer.last_sequence,
                base_offset: batch.base_offset,
                last_offset: batch.last_offset,
                timestamp: batch.max_timestamp,
            });
        }
        Self {
            producer: producer.id,
            epoch: producer.epoch,
            resets: false,
            batches,
            txn: match (batch.marker, batch.transactional) {
                (Some(_), _) => TxnChange::Closed,
                (None, true) => TxnChange::OpenedAt(batch.base_offset),
                (None, false) => TxnChange::Unchanged,
            },
            marker: batch.marker,
            coordinator_epoch: batch.marker.map(|m| m.coordinator_epoch),
            last_timestamp: batch.max_timestamp,
        }
    }

    /// Goes on with the change that the following range makes to the same producer.
    fn extend(&mut self, later: &Self) {
        if later.resets || self.epoch != later.epoch {
            self.batches = BatchWindow::default();
            self.epoch = later.epoch;
            self.resets = true;
        }
        for batch in later.batches.as_slice() {
            self.batches.push(*batch);
        }
        self.txn = match (self.txn, later.txn) {
            // A marker came between: this is another transaction.
            (TxnChange::Closed, TxnChange::OpenedAt(first)) => TxnChange::ReopenedAt(first),
            // The transaction goes on, or nothing is new.
            (TxnChange::OpenedAt(_) | TxnChange::ReopenedAt(_), TxnChange::OpenedAt(_)) | (_, TxnChange::Unchanged) => {
                self.txn
            }
            (_, after) => after,
        };
        self.marker = higher(self.marker, later.marker);
        self.coordinator_epoch = later.coordinator_epoch.or(self.coordinator_epoch);
        self.last_timestamp = later.last_timestamp;
    }
}

/// The marker with the higher Prepare record; of two equal ones the later.
fn higher(before: Option<MarkerSummary>, later: Option<MarkerSummary>) -> Option<MarkerSummary> {
    match (before, later) {
        (Some(b), Some(l)) if b.prepare > l.prepare => Some(b),
        (before, later) => later.or(before),
    }
}

/// What the batches of a range, in offset order, change in each producer's state; sorted by producer.
pub fn fold_changes<'a>(batches: impl IntoIterator<Item = &'a BatchSummary>) -> Vec<ProducerChange> {
    let mut fold = ChangeFold::default();
    for batch in batches {
        fold.push(batch);
    }
    fold.finish()
}

/// [`fold_changes`] for batches that come one at a time.
#[derive(Debug, Default)]
pub(crate) struct ChangeFold(BTreeMap<ProducerId, ProducerChange>);

impl ChangeFold {
    pub(crate) fn push(&mut self, batch: &BatchSummary) {
        let Some(producer) = &batch.producer else { return };
        let change = ProducerChange::of(batch, producer);
        match self.0.get_mut(&producer.id) {
            Some(before) => before.extend(&change),
            None => {
                self.0.insert(producer.id, change);
            }
        }
    }

    pub(crate) fn finish(self) -> Vec<ProducerChange> {
        self.0.into_values().collect()
    }
}

const FLAG_RESETS: u8 = 1;
const FLAG_COORDINATOR_EPOCH: u8 = 2;

const TXN_UNCHANGED: u8 = 0;
const TXN_OPENED: u8 = 1;
const TXN_CLOSED: u8 = 2;
const TXN_REOPENED: u8 = 3;

impl ProducerChange {
    /// Bytes of a change without batches.
    pub(crate) const SIZE_MIN: usize = 36 + MarkerSummary::SIZE;

    pub(crate) fn write(&self, w: &mut Writer) {
        w.i64(self.producer.get());
        w.i16(self.epoch.get());
        let coordinator = if self.coordinator_epoch.is_some() { FLAG_COORDINATOR_EPOCH } else { 0 };
        w.u8(coordinator | if self.resets { FLAG_RESETS } else { 0 });
        let (txn, offset) = match self.txn {
            TxnChange::Unchanged => (TXN_UNCHANGED, Offset::ZERO),
            TxnChange::OpenedAt(first) => (TXN_OPENED, first),
            TxnChange::Closed => (TXN_CLOSED, Offset::ZERO),
            TxnChange::ReopenedAt(first) => (TXN_REOPENED, first),
        };
        w.u8(txn);
        w.count(self.batches.0.len());
        w.timestamp(self.last_timestamp);
        w.offset(offset);
        w.i32(self.coordinator_epoch.unwrap_or(0));
        MarkerSummary::write(self.marker.as_ref(), w);
        for batch in &self.batches.0 {
            w.i32(batch.base_sequence);
            w.i32(batch.last_sequence);
            w.offset(batch.base_offset);
            w.offset(batch.last_offset);
            w.timestamp(batch.timestamp);
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let (producer, epoch, flags, txn) = (r.producer()?, r.producer_epoch()?, r.u8()?, r.u8()?);
        if flags & !(FLAG_RESETS | FLAG_COORDINATOR_EPOCH) != 0 {
            return Err(Fault::Unknown { feature: "producer flags", value: flags.into() });
        }
        let count = r.size()?;
        if count > WINDOW_BATCHES_MAX {
            return Err(bad("batches of a producer", count));
        }
        let (last_timestamp, offset, coordinator_epoch) = (r.timestamp()?, r.offset("transaction offset")?, r.i32()?);
        let txn = match (txn, offset) {
            (TXN_UNCHANGED, Offset::ZERO) => TxnChange::Unchanged,
            (TXN_OPENED, first) => TxnChange::OpenedAt(first),
            (TXN_CLOSED, Offset::ZERO) => TxnChange::Closed,
            (TXN_REOPENED, first) => TxnChange::ReopenedAt(first),
            (kind, offset) => return Err(bad("transaction", format_args!("of kind {kind} at {offset}"))),
        };
        let coordinator_epoch = match (flags & FLAG_COORDINATOR_EPOCH, coordinator_epoch) {
            (0, 0) => None,
            (0, other) => return Err(bad("coordinator epoch", format_args!("{other} and absent"))),
            (_, epoch) => Some(epoch),
        };
        let marker = MarkerSummary::read(r)?;
        let mut batches = Vec::with_capacity(count);
        for _ in 0..count {
            batches.push(BatchMeta::read(r)?);
        }
        let resets = flags & FLAG_RESETS != 0;
        let batches = BatchWindow(batches);
        Ok(Self { producer, epoch, resets, batches, txn, marker, coordinator_epoch, last_timestamp })
    }
}

impl BatchMeta {
    fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let (base_sequence, last_sequence) = match (r.i32()?, r.i32()?) {
            both @ (0.., 0..) => both,
            (base, last) => return Err(bad("sequences", format_args!("{base} to {last}"))),
        };
        let (base_offset, last_offset) = r.first_last("batch offsets")?;
        Ok(Self { base_sequence, last_sequence, base_offset, last_offset, timestamp: r.timestamp()? })
    }
}

/// A state is kept as the change that leads to it from nothing: one layout for both.
impl ProducerState {
    pub(crate) fn as_change(&self, producer: ProducerId) -> ProducerChange {
        ProducerChange {
            producer,
            epoch: self.epoch,
            resets: false,
            batches: self.batches.clone(),
            txn: self.open_txn.map_or(TxnChange::Unchanged, TxnChange::OpenedAt),
            marker: self.marker,
            coordinator_epoch: self.coordinator_epoch,
            last_timestamp: self.last_timestamp,
        }
    }

    /// The other way; `None` for a change that [`Self::as_change`] does not make.
    pub(crate) fn from_change(change: ProducerChange) -> Option<(ProducerId, Self)> {
        let open_txn = match change.txn {
            TxnChange::Unchanged => None,
            TxnChange::OpenedAt(first) => Some(first),
            TxnChange::Closed | TxnChange::ReopenedAt(_) => return None,
        };
        let state = Self {
            epoch: change.epoch,
            batches: change.batches,
            open_txn,
            marker: change.marker,
            coordinator_epoch: change.coordinator_epoch,
            last_timestamp: change.last_timestamp,
        };
        (!change.resets).then_some((change.producer, state))
    }
}
