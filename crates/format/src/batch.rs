//! What the log knows of a record batch without opening it: the summary that travels with the batch through WAL and
//! upload, and from which footers and producer state are made.
//!
//! Invariants:
//! 1. `base_offset <= last_offset < i64::MAX`.
//! 2. A batch with a marker has a producer.
//! 3. Both sequences of a batch are there, or neither is.
//!
//! Parsing refuses what breaks these; writing it stops the process, because it could not be read again. Who takes
//! batches from clients refuses it first.
//!
//! Sources: KIP-98 (producer id, epoch, sequence, markers), Kafka's `EndTransactionMarker`.

use forebay_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::cursor::{Reader, Writer, bad};
use crate::error::Fault;

/// The sequence of a batch that has none: markers, and what coordinators write in a transaction.
pub const NO_SEQUENCE: i32 = -1;

/// One record batch as its header tells it, after the owner has given it offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSummary {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    pub max_timestamp: Timestamp,
    pub records: u32,
    /// `None` for a batch of a producer without idempotence.
    pub producer: Option<BatchProducer>,
    /// The batch belongs to a transaction. Set on markers too, as Kafka sets it.
    pub transactional: bool,
    /// The batch is a control batch that ends its producer's transaction.
    pub marker: Option<MarkerSummary>,
}

/// Who wrote a batch, and where it stands in the producer's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchProducer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Sequence of the first record, or [`NO_SEQUENCE`].
    pub base_sequence: i32,
    /// Sequence of the last record: below `base_sequence` where it wrapped from `i32::MAX` to 0. [`NO_SEQUENCE`] with it.
    pub last_sequence: i32,
}

impl BatchProducer {
    pub fn has_sequence(&self) -> bool {
        self.base_sequence >= 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkerKind {
    Abort,
    Commit,
}

/// A transaction marker: how the transaction ended, and which decision of which coordinator it carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkerSummary {
    pub kind: MarkerKind,
    /// Kafka's coordinator epoch as it stands in the marker's record. May be -1: an admin tool's marker.
    pub coordinator_epoch: i32,
    /// `None` for a marker that no prepared transaction of ours asked for.
    pub prepare: Option<PrepareRef>,
}

/// The Prepare record that a marker carries out. Its offset grows with every transaction of a transactional id, because
/// all of them are written to one partition of `__transaction_state`, and stays the same when a new coordinator asks
/// for the marker again (D14). Ordered by offset first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrepareRef {
    /// Offset of the Prepare record in its partition of `__transaction_state`.
    pub prepare_offset: Offset,
    /// Leader epoch of that partition as the marker was asked for.
    pub txn_leader_epoch: LeaderEpoch,
}

impl PrepareRef {
    /// Whether this is a later decision than the highest that was carried out; one that is not is already done, whichever
    /// coordinator asks.
    pub fn is_after(self, highest: Option<Self>) -> bool {
        highest.is_none_or(|highest| self.prepare_offset > highest.prepare_offset)
    }
}

/// A transaction that was aborted: what a `read_committed` fetch must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer: ProducerId,
    /// Offset of the transaction's first record in the partition.
    pub first_offset: Offset,
    /// Offset of the abort marker.
    pub last_offset: Offset,
}

const MARKER_ABORT: u8 = 1;
const MARKER_COMMIT: u8 = 2;

const FLAG_PRODUCER: u8 = 1;
const FLAG_TRANSACTIONAL: u8 = 2;

impl MarkerSummary {
    /// Bytes of a marker, present or not.
    pub(crate) const SIZE: usize = 20;

    pub(crate) fn write(marker: Option<&Self>, w: &mut Writer) {
        let Some(marker) = marker else { return w.zeros(Self::SIZE) };
        w.u8(match marker.kind {
            MarkerKind::Abort => MARKER_ABORT,
            MarkerKind::Commit => MARKER_COMMIT,
        });
        w.u8(u8::from(marker.prepare.is_some()));
        w.u16(0); // reserved
        w.i32(marker.coordinator_epoch);
        match marker.prepare {
            Some(p) => {
                w.i32(p.txn_leader_epoch.get());
                w.offset(p.prepare_offset);
            }
            None => w.zeros(12),
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Option<Self>, Fault> {
        let kind = match r.u8()? {
            0 => {
                r.reserved(Self::SIZE - 1)?;
                return Ok(None);
            }
            MARKER_ABORT => MarkerKind::Abort,
            MARKER_COMMIT => MarkerKind::Commit,
            other => return Err(bad("marker kind", other)),
        };
        let has_prepare = r.flag("prepare flag")?;
        r.reserved(2)?;
        let coordinator_epoch = r.i32()?;
        let prepare = if has_prepare {
            Some(PrepareRef { txn_leader_epoch: r.leader_epoch()?, prepare_offset: r.offset("prepare offset")? })
        } else {
            r.reserved(12)?;
            None
        };
        Ok(Some(Self { kind, coordinator_epoch, prepare }))
    }
}

impl BatchSummary {
    /// Bytes of a summary.
    pub(crate) const SIZE: usize = 52 + MarkerSummary::SIZE;

    pub(crate) fn write(&self, w: &mut Writer) {
        assert!(self.base_offset <= self.last_offset, "a batch ends at or after its start: {self:?}");
        assert!(self.last_offset.get() < i64::MAX, "a log has an end: {self:?}");
        assert!(self.marker.is_none() || self.producer.is_some(), "a marker names its producer: {self:?}");
        w.offset(self.base_offset);
        w.offset(self.last_offset);
        w.timestamp(self.max_timestamp);
        w.u32(self.records);
        let producer = if self.producer.is_some() { FLAG_PRODUCER } else { 0 };
        w.u8(producer | if self.transactional { FLAG_TRANSACTIONAL } else { 0 });
        w.zeros(3); // reserved
        match &self.producer {
            Some(p) => {
                let sequences = (p.base_sequence, p.last_sequence);
                assert!(are_sequences(sequences), "a batch has both sequences or neither: {self:?}");
                w.i64(p.id.get());
                w.i32(p.base_sequence);
                w.i32(p.last_sequence);
                w.i16(p.epoch.get());
                w.u16(0); // reserved
            }
            None => w.zeros(20),
        }
        MarkerSummary::write(self.marker.as_ref(), w);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let (base_offset, last_offset) = r.first_last("batch offsets")?;
        let (max_timestamp, records, flags) = (r.timestamp()?, r.u32()?, r.u8()?);
        r.reserved(3)?;
        if flags & !(FLAG_PRODUCER | FLAG_TRANSACTIONAL) != 0 {
            return Err(Fault::Unknown { feature: "batch flags", value: flags.into() });
        }
        let producer = if flags & FLAG_PRODUCER == 0 {
            r.reserved(20)?;
            None
        } else {
            let id = r.producer()?;
            let (base_sequence, last_sequence) = read_sequences(r)?;
            let epoch = r.producer_epoch()?;
            r.reserved(2)?;
            Some(BatchProducer { id, epoch, base_sequence, last_sequence })
        };
        let marker = MarkerSummary::read(r)?;
        if marker.is_some() && producer.is_none() {
            return Err(bad("producer of a marker", "none"));
        }
        let transactional = flags & FLAG_TRANSACTIONAL != 0;
        Ok(Self { base_offset, last_offset, max_timestamp, records, producer, transactional, marker })
    }
}

fn are_sequences(both: (i32, i32)) -> bool {
    matches!(both, (0.., 0..) | (NO_SEQUENCE, NO_SEQUENCE))
}

fn read_sequences(r: &mut Reader<'_>) -> Result<(i32, i32), Fault> {
    let both = (r.i32()?, r.i32()?);
    if are_sequences(both) { Ok(both) } else { Err(bad("sequences", format_args!("{} to {}", both.0, both.1))) }
}

impl AbortedTxn {
    /// Bytes of an aborted transaction.
    pub(crate) const SIZE: usize = 24;

    pub(crate) fn write(&self, w: &mut Writer) {
        assert!(self.first_offset <= self.last_offset, "a transaction ends at or after its start: {self:?}");
        w.i64(self.producer.get());
        w.offset(self.first_offset);
        w.offset(self.last_offset);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let producer = r.producer()?;
        let (first_offset, last_offset) = r.first_last("aborted transaction")?;
        Ok(Self { producer, first_offset, last_offset })
    }
}
