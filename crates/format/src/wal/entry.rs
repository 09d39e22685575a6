//! The WAL entry: one record batch with what replay needs to publish or upload it as its owner would have.
//!
//! Invariants:
//! 1. Every record in a block says its kind and length first, so that a later version's kinds can be told from damage.
//! 2. Kind 2 is kept for a pointer to a batch in another broker's WAL (D19) and never written yet.

use bytes::Bytes;
use forebay_types::{LeaderEpoch, LogId, Offset, TopicPartition};

use crate::batch::{AbortedTxn, BatchSummary};
use crate::cursor::{Reader, Writer, bad};
use crate::error::{Fault, FormatError};

const LAYOUT: &str = "WAL entry";

/// What a record in a WAL block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A record batch, the batch's bytes included.
    Batch = 1,
    /// Reserved (D19): a batch's place in another WAL.
    Pointer = 2,
}

/// One record batch on its way from the partition's owner to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    /// The offset at which the leader epoch began.
    pub epoch_start: Offset,
    pub summary: BatchSummary,
    /// The transaction that this batch aborts, if it is an abort marker and the producer had one open.
    pub aborted: Option<AbortedTxn>,
    /// The batch as consumers will read it: base offset and leader epoch are the owner's.
    pub records: Bytes,
}

impl WalEntry {
    /// Bytes before the records.
    pub const HEAD_SIZE: usize = 8 + 20 + 4 + 8 + 8 + BatchSummary::SIZE + AbortedTxn::SIZE + 4;

    /// Bytes that the entry takes up in a block.
    pub fn encoded_size(&self) -> usize {
        Self::HEAD_SIZE + self.records.len()
    }

    pub(crate) fn write_head(&self, w: &mut Writer) {
        let start = w.len();
        w.u8(RecordKind::Batch as u8);
        w.u8(u8::from(self.aborted.is_some()));
        w.u16(0); // reserved
        w.count(self.encoded_size());
        w.partition(self.partition);
        w.i32(self.leader_epoch.get());
        w.u64(self.log.get());
        w.offset(self.epoch_start);
        self.summary.write(w);
        match &self.aborted {
            Some(aborted) => aborted.write(w),
            None => w.zeros(AbortedTxn::SIZE),
        }
        w.count(self.records.len());
        assert_eq!(w.len() - start, Self::HEAD_SIZE, "entry heads are told apart by their size");
    }

    /// The entries of a block's payload, which lies at `position` of its segment.
    pub(crate) fn parse_all(payload: &Bytes, position: u64, count: usize) -> Result<Vec<Self>, FormatError> {
        // The header's count is under a checksum, but a length is only ever believed as far as there are bytes for it.
        let mut entries = Vec::with_capacity(count.min(payload.len() / Self::HEAD_SIZE));
        let mut rest = payload.clone();
        while !rest.is_empty() {
            let at = position + (payload.len() - rest.len()) as u64;
            let entry = Self::parse(&rest, at)?;
            let size = entry.encoded_size();
            entries.push(entry);
            rest = rest.slice(size..);
        }
        if entries.len() != count {
            let value = format!("{count} with {} there", entries.len());
            return Err(FormatError::new(LAYOUT, position, bad("number of entries", value)));
        }
        Ok(entries)
    }

    fn parse(bytes: &Bytes, position: u64) -> Result<Self, FormatError> {
        let error = |fault| FormatError::new(LAYOUT, position, fault);
        let mut r = Reader::new(bytes, "entry");
        let (has_aborted, size) = read_record_head(&mut r).map_err(error)?;
        let partition = r.partition().map_err(error)?;
        let error = |fault| error(fault).of_partition(partition);
        let mut place = || -> Result<_, Fault> { Ok((r.leader_epoch()?, r.log()?, r.offset("epoch start")?)) };
        let (leader_epoch, log, epoch_start) = place().map_err(error)?;
        let summary = BatchSummary::read(&mut r).map_err(error)?;
        let error = |fault| error(fault).with_offsets(summary.base_offset, summary.last_offset);
        let mut end = || -> Result<_, Fault> {
            let aborted = if has_aborted {
                Some(AbortedTxn::read(&mut r)?)
            } else {
                r.reserved(AbortedTxn::SIZE)?;
                None
            };
            let length = r.size()?;
            if Self::HEAD_SIZE + length != size {
                return Err(bad("entry size", format_args!("{size} with {length} bytes of records")));
            }
            Ok((aborted, bytes.slice_ref(r.bytes(length)?)))
        };
        let (aborted, records) = end().map_err(error)?;
        Ok(Self { partition, log, leader_epoch, epoch_start, summary, aborted, records })
    }
}

/// Kind, flags and size, which every kind of record begins with.
fn read_record_head(r: &mut Reader<'_>) -> Result<(bool, usize), Fault> {
    let kind = r.u8()?;
    if kind != RecordKind::Batch as u8 {
        return Err(Fault::Unknown { feature: "record kind", value: kind.into() });
    }
    let has_aborted = r.flag("aborted flag")?;
    r.reserved(2)?;
    Ok((has_aborted, r.size()?))
}
