//! Writing a data object: sections in order, batches gathered into blocks, index and footer at the end.
//!
//! Invariants:
//! 1. No batch is copied: the chunks share what was pushed.
//! 2. What would make an object that [`Footer::parse`](crate::Footer::parse) refuses, or one that hides records, stops
//!    the process here: an object once created is never changed.

use bytes::Bytes;
use forebay_types::{LeaderEpoch, LogId, Offset, OffsetRange, Timestamp, TopicPartition};

use super::footer::encode_tail;
use super::{BlockIndex, EncodedObject, NO_TIMESTAMP, ObjectHead, ObjectRange, Section, SectionHead};
use crate::batch::{AbortedTxn, BatchSummary};
use crate::block::{BLOCK_HEADER_SIZE, BlockKind, encode_header};
use crate::crc::Crc32c;
use crate::producer::ChangeFold;
use crate::tally::Tally;

/// A block is closed before a batch that would take it past this: small enough to read for one record, large enough
/// that a gigabyte of history has an index of some 160 KiB.
pub const BLOCK_SIZE_TARGET: usize = 256 << 10;

/// Makes one data object. For each section: [`Self::section`], then [`Self::push`] and [`Self::lost`] in offset order.
#[derive(Debug)]
pub struct ObjectWriter {
    head: ObjectHead,
    tally: Tally,
    chunks: Vec<Bytes>,
    position: u64,
    sections: Vec<Section>,
    open: Option<OpenSection>,
}

#[derive(Debug)]
struct OpenSection {
    section: Section,
    /// `None` before the first batch or lost range.
    range: Option<OffsetRange>,
    fold: ChangeFold,
    block: Option<OpenBlock>,
}

#[derive(Debug)]
struct OpenBlock {
    batches: Vec<Bytes>,
    size: usize,
    crc: Crc32c,
    base_offset: Offset,
    last_offset: Offset,
    max_timestamp: Timestamp,
}

impl ObjectWriter {
    pub fn new(head: ObjectHead) -> Self {
        let tally = Tally::nothing(head.sequence);
        Self { head, tally, chunks: Vec::new(), position: 0, sections: Vec::new(), open: None }
    }

    /// The object is a WAL's write, and this is what the writes before it held.
    #[must_use]
    pub fn with_tally(self, tally: Tally) -> Self {
        Self { tally, ..self }
    }

    /// Begins a section.
    ///
    /// # Panics
    /// Where sections do not ascend by (partition, log, leader epoch), or the last one got nothing.
    pub fn section(&mut self, head: SectionHead) {
        self.close_section();
        let order = |h: &SectionHead| -> (TopicPartition, LogId, LeaderEpoch) { (h.partition, h.log, h.leader_epoch) };
        let ascends = self.sections.last().is_none_or(|last| order(&last.head) < order(&head));
        assert!(ascends, "sections of an object ascend, {head:?} does not");
        let section = Section {
            range: OffsetRange::new(head.epoch_start, head.epoch_start).expect("an empty range"),
            head,
            min_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            records: 0,
            bytes: 0,
            blocks: Vec::new(),
            changes: Vec::new(),
            aborted: Vec::new(),
            lost: Vec::new(),
        };
        self.open = Some(OpenSection { section, range: None, fold: ChangeFold::default(), block: None });
    }

    /// Adds one record batch, with the transaction that it aborts if it is an abort marker that ends one.
    ///
    /// # Panics
    /// Without a section; where offsets do not ascend or lie before the section's epoch; without bytes.
    pub fn push(&mut self, batch: &BatchSummary, aborted: Option<&AbortedTxn>, records: &Bytes) {
        let open = self.open.as_mut().expect("a section is begun before its batches");
        assert!(!records.is_empty(), "a batch has bytes: {batch:?}");
        assert!(batch.base_offset <= batch.last_offset, "a batch ends at or after its start: {batch:?}");
        open.cover(batch.base_offset, batch.last_offset.next());
        if open.block.as_ref().is_some_and(|b| b.size + records.len() > BLOCK_SIZE_TARGET) {
            open.close_block(&mut self.chunks, &mut self.position);
        }
        let section = &mut open.section;
        let first = section.bytes == 0;
        section.min_timestamp =
            if first { batch.max_timestamp } else { section.min_timestamp.min(batch.max_timestamp) };
        section.max_timestamp =
            if first { batch.max_timestamp } else { section.max_timestamp.max(batch.max_timestamp) };
        section.records += u64::from(batch.records);
        section.bytes += records.len() as u64;
        section.aborted.extend(aborted);
        open.fold.push(batch);
        match &mut open.block {
            Some(block) => block.push(batch, records),
            None => open.block = Some(OpenBlock::new(batch, records)),
        }
    }

    /// Covers offsets that were acknowledged but whose records are gone: the section's range takes them in, and readers
    /// learn that they are lost. No block spans them, so that none is read past without notice.
    ///
    /// # Panics
    /// As [`Self::push`].
    pub fn lost(&mut self, range: OffsetRange) {
        let open = self.open.as_mut().expect("a section is begun before its lost ranges");
        assert!(!range.is_empty(), "a lost range holds offsets");
        open.close_block(&mut self.chunks, &mut self.position);
        open.cover(range.start(), range.end());
        open.section.lost.push(range);
    }

    /// # Panics
    /// Where the last section got nothing, or the tally is not one of writes before this one.
    pub fn finish(mut self) -> EncodedObject {
        self.close_section();
        let footer_position = self.position;
        let tail = encode_tail(&self.head, &self.tally, &self.sections, footer_position);
        let size = footer_position + tail.len() as u64;
        self.chunks.push(tail);
        let range = |s: &Section| ObjectRange {
            partition: s.head.partition,
            log: s.head.log,
            leader_epoch: s.head.leader_epoch,
            range: s.range,
            bytes: s.bytes,
            max_timestamp: s.max_timestamp,
        };
        let ranges = self.sections.iter().map(range).collect();
        EncodedObject { chunks: self.chunks, size, ranges, footer_position }
    }

    fn close_section(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        open.close_block(&mut self.chunks, &mut self.position);
        let mut section = open.section;
        section.range = open.range.expect("a section gets batches or lost ranges before the next one");
        section.changes = open.fold.finish();
        self.sections.push(section);
    }
}

impl OpenSection {
    /// Takes offsets into the range of the section.
    fn cover(&mut self, start: Offset, end: Offset) {
        let epoch_start = self.section.head.epoch_start;
        assert!(start >= epoch_start, "offset {start} lies before its epoch, which began at {epoch_start}");
        let before = self.range.map_or(start, |range| {
            assert!(start >= range.end(), "offset {start} comes after {range}");
            range.start()
        });
        self.range = Some(OffsetRange::new(before, end).expect("offsets ascend"));
    }

    fn close_block(&mut self, chunks: &mut Vec<Bytes>, position: &mut u64) {
        let Some(block) = self.block.take() else { return };
        let length = BLOCK_HEADER_SIZE + block.size;
        let length = u32::try_from(length).expect("a block ends past its target size, and a batch is below 2 GiB");
        let payload = u32::try_from(block.size).expect("below the length");
        let crc = block.crc.finish();
        chunks.push(encode_header(BlockKind::Data, payload, block.base_offset.get(), crc));
        chunks.extend(block.batches);
        self.section.blocks.push(BlockIndex {
            position: *position,
            length,
            base_offset: block.base_offset,
            last_offset: block.last_offset,
            max_timestamp: block.max_timestamp,
            crc,
        });
        *position += u64::from(length);
    }
}

impl OpenBlock {
    fn new(batch: &BatchSummary, records: &Bytes) -> Self {
        let mut block = Self {
            batches: Vec::new(),
            size: 0,
            crc: Crc32c::new(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            max_timestamp: batch.max_timestamp,
        };
        block.push(batch, records);
        block
    }

    fn push(&mut self, batch: &BatchSummary, records: &Bytes) {
        self.crc.update(records);
        self.size += records.len();
        self.last_offset = batch.last_offset;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        self.batches.push(records.clone());
    }
}
