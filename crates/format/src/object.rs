//! The data object: record batches of many partitions, and in its footer everything about them that a reader, a
//! restore or a check needs (D4, D5). A WAL object of the `object` kind is one.
//!
//! ```text
//! 0          index position      footer position
//! | block | block | … | section's index | … | footer | trailer |
//! ```
//!
//! Owns: the types, writing and reading. Leaves to others: which batches go into which object.
//!
//! Invariants:
//! 1. Sections are sorted by (partition, log, leader epoch), each once; offsets in a section ascend.
//! 2. The blocks of all sections in order cover the object from 0 to the index without gap; parsing checks it.
//! 3. A section's range covers its batches and its lost ranges; offsets in neither hold no record. A section may have
//!    lost ranges only, and then has no block.

use bytes::Bytes;
use forebay_types::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, LogId, Offset, OffsetRange, Timestamp, TopicPartition, WalSequence,
};

use crate::batch::AbortedTxn;
use crate::block::{BlockKind, parse_block};
use crate::error::FormatError;
use crate::producer::ProducerChange;
use crate::tally::Tally;

pub(crate) mod footer;
mod write;

pub use footer::{FooterParse, WalObject, WalObjectParse};
pub use write::{BLOCK_SIZE_TARGET, ObjectWriter};

/// The time of a section that has lost ranges only: as in Kafka, something without a time is as old as its file.
pub const NO_TIMESTAMP: Timestamp = Timestamp::from_millis(-1);

/// Who wrote an object, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    pub cluster: ClusterId,
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    /// The number in the object's name.
    pub sequence: WalSequence,
    /// 0 as first written; a merge is one above the highest of its sources. Of two objects with the same offsets the
    /// higher generation counts.
    pub generation: u32,
    pub written_at: Timestamp,
}

/// Whose batches a section holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionHead {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    /// The offset at which that epoch began: what an older epoch wrote from here on is a dead branch.
    pub epoch_start: Offset,
    /// Name of the partition's last producer snapshot, which the changes here build on.
    pub producer_snapshot: Option<String>,
}

/// One section as the footer and its index tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub head: SectionHead,
    pub range: OffsetRange,
    /// The lowest max timestamp of its batches; [`NO_TIMESTAMP`] where there are none.
    pub min_timestamp: Timestamp,
    /// The highest max timestamp of its batches; [`NO_TIMESTAMP`] where there are none.
    pub max_timestamp: Timestamp,
    pub records: u64,
    /// Bytes of its record batches, without headers.
    pub bytes: u64,
    pub blocks: Vec<BlockIndex>,
    /// What the range changes in producer state, sorted by producer.
    pub changes: Vec<ProducerChange>,
    /// The aborted transactions whose marker is in the range; a merge adds all that overlap it. By marker offset.
    pub aborted: Vec<AbortedTxn>,
    /// Offsets that were acknowledged and then lost to corruption: a fetch there answers CORRUPT_MESSAGE.
    pub lost: Vec<OffsetRange>,
}

impl Section {
    /// The blocks from the one that holds `offset`, or the first one after it, on.
    pub fn blocks_from(&self, offset: Offset) -> &[BlockIndex] {
        let first = self.blocks.partition_point(|block| block.last_offset < offset);
        &self.blocks[first..]
    }

    /// As [`Block::parse`](crate::Block::parse), with the partition in the error.
    pub fn parse_block(&self, bytes: &Bytes, index: &BlockIndex) -> Result<Bytes, FormatError> {
        parse_block(BlockKind::Data, bytes, index.position, index.base_offset.get(), index.crc)
            .map_err(|e| e.of_partition(self.head.partition).with_offsets(index.base_offset, index.last_offset))
    }
}

/// Where a block is and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockIndex {
    /// From the start of the object.
    pub position: u64,
    /// Bytes, header included.
    pub length: u32,
    /// Of its first batch.
    pub base_offset: Offset,
    /// Of its last batch, inclusive.
    pub last_offset: Offset,
    pub max_timestamp: Timestamp,
    /// CRC32C of the payload.
    pub crc: u32,
}

/// Everything about an object but its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub head: ObjectHead,
    /// How far the writes before this one had brought each log, where the object is a WAL's write.
    pub tally: Tally,
    pub sections: Vec<Section>,
}

impl Footer {
    /// The sections of one log, by leader epoch.
    pub fn sections_of(&self, partition: TopicPartition, log: LogId) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(move |s| (s.head.partition, s.head.log) == (partition, log))
    }
}

/// What metadata keeps of one section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRange {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    pub range: OffsetRange,
    /// Bytes of record batches.
    pub bytes: u64,
    pub max_timestamp: Timestamp,
}

/// An object ready to be created.
#[derive(Clone, Debug)]
pub struct EncodedObject {
    /// Its bytes in order. Record batches are shared with what was pushed.
    pub chunks: Vec<Bytes>,
    pub size: u64,
    pub ranges: Vec<ObjectRange>,
    /// Reading the object from here to its end is what [`Footer::parse`] needs.
    pub footer_position: u64,
}
