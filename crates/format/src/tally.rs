//! The tally: how far the writes of a WAL just before one had brought each log. What a write held that can no longer be
//! read is told by the tally of a later one.
//!
//! Owns: the bytes of the ends. Leaves to others: which writes a tally covers (`wal`), where it stands and its checksum
//! (the WAL block's header, the data object's footer).
//!
//! Invariants:
//! 1. Ends ascend by (partition, log), each log once: equal content has equal bytes.
//! 2. A log that is not named got nothing from the writes that the tally covers.

use forebay_types::{LeaderEpoch, LogId, Offset, TopicPartition, WalSequence};

use crate::cursor::{Reader, Writer, bad};
use crate::error::Fault;

/// How far a log had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    /// Exclusive: the offset after the last one that the log was given.
    pub end: Offset,
}

/// The ends of all logs that had something in the writes from `from` up to, exclusive, the one that carries the tally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The first write covered; the carrier's own number where none is.
    pub from: WalSequence,
    pub ends: Vec<LogEnd>,
}

impl LogEnd {
    /// Bytes of one end.
    pub const SIZE: usize = 20 + 4 + 8 + 8;

    fn order(&self) -> (TopicPartition, LogId) {
        (self.partition, self.log)
    }
}

impl Tally {
    /// The tally of a write that nothing is known before: `carrier` is its number.
    pub const fn nothing(carrier: WalSequence) -> Self {
        Self { from: carrier, ends: Vec::new() }
    }

    /// Bytes of the ends.
    pub fn size(&self) -> usize {
        self.ends.len() * LogEnd::SIZE
    }

    /// # Panics
    /// Where the ends do not ascend, or the tally cannot be that of `carrier`: it could not be read again.
    pub(crate) fn write_ends(&self, carrier: WalSequence, w: &mut Writer) {
        assert!(check_cover(self.from, self.ends.len(), carrier).is_ok(), "write {carrier} cannot have {self:?}");
        assert!(self.ends.is_sorted_by(|a, b| a.order() < b.order()), "the ends of a tally ascend: {self:?}");
        for end in &self.ends {
            w.partition(end.partition);
            w.i32(end.leader_epoch.get());
            w.u64(end.log.get());
            w.offset(end.end);
        }
    }

    /// Reads `count` ends of a tally of `carrier`.
    pub(crate) fn read_ends(
        r: &mut Reader<'_>,
        count: usize,
        from: WalSequence,
        carrier: WalSequence,
    ) -> Result<Self, Fault> {
        check_cover(from, count, carrier)?;
        // The count is under a checksum, but a length is only ever believed as far as there are bytes for it.
        let mut ends: Vec<LogEnd> = Vec::with_capacity(count.min(r.left() / LogEnd::SIZE));
        for _ in 0..count {
            let (partition, leader_epoch, log) = (r.partition()?, r.leader_epoch()?, r.log()?);
            let end = LogEnd { partition, log, leader_epoch, end: r.offset("end of a log")? };
            if ends.last().is_some_and(|last| last.order() >= end.order()) {
                return Err(bad("order of ends", format_args!("{partition} log {log} here")));
            }
            ends.push(end);
        }
        Ok(Self { from, ends })
    }
}

/// Refuses what no writer makes of `from` and the number of ends: only earlier writes are covered, and each held something.
pub(crate) fn check_cover(from: WalSequence, count: usize, carrier: WalSequence) -> Result<(), Fault> {
    if from > carrier || (from == carrier) != (count == 0) {
        return Err(bad("tally", format_args!("{count} ends from write {from} on, in write {carrier}")));
    }
    Ok(())
}
