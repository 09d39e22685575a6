//! The end of a data object: one index per section, the footer that lists the sections, the trailer.
//!
//! Invariants:
//! 1. The footer is parsed only after its checksum, each index only after its own, which stands in the footer.
//! 2. Parsed positions lie inside the object: the indexes cover index to footer without gap, the blocks cover 0 to index.

use bytes::Bytes;
use forebay_types::{Offset, OffsetRange, WalSequence};

use super::{BlockIndex, Footer, ObjectHead, Section, SectionHead};
use crate::batch::AbortedTxn;
use crate::block::BLOCK_HEADER_SIZE;
use crate::crc::crc32c;
use crate::cursor::{Reader, Writer, bad};
use crate::error::{Fault, FormatError};
use crate::fence::Fence;
use crate::producer::ProducerChange;
use crate::tally::{LogEnd, Tally};
use crate::trailer::{Trailer, TrailerKind, TrailerParse, read_cluster, write_cluster};

const FOOTER_LAYOUT: &str = "data object footer";
const INDEX_LAYOUT: &str = "section index";

/// Bytes of a section in the footer, without the snapshot's name.
const SECTION_SIZE_MIN: usize = 114;
const BLOCK_INDEX_SIZE: usize = 40;
const LOST_SIZE: usize = 16;

/// An object below this size is read whole to tell a fence from a data object.
const FENCE_SIZE_MAX: u64 = 4096;

/// What the end of an object gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FooterParse {
    /// The object must be read from this position to its end, and parsed again.
    NeedMore {
        from: u64,
    },
    Whole(Footer),
}

/// What lies under a WAL name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalObject {
    Data(Footer),
    Fence(Fence),
}

/// [`FooterParse`] for a name under which a fence may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalObjectParse {
    NeedMore { from: u64 },
    Whole(WalObject),
}

impl WalObject {
    /// Reads an object of `size` bytes from its end: `tail` are its last bytes.
    pub fn parse(tail: &Bytes, size: u64) -> Result<WalObjectParse, FormatError> {
        let whole = tail.len() as u64 == size;
        if whole && Fence::is_fence(tail) {
            return Fence::parse(tail).map(|fence| WalObjectParse::Whole(Self::Fence(fence)));
        }
        if !whole && size <= FENCE_SIZE_MAX {
            return Ok(WalObjectParse::NeedMore { from: 0 });
        }
        Ok(match Footer::parse(tail, size)? {
            FooterParse::NeedMore { from } => WalObjectParse::NeedMore { from },
            FooterParse::Whole(footer) => WalObjectParse::Whole(Self::Data(footer)),
        })
    }
}

impl Footer {
    /// Reads an object of `size` bytes from its end: `tail` are its last bytes. A good first guess is 64 KiB; metadata
    /// knows the exact position for every committed object.
    pub fn parse(tail: &Bytes, size: u64) -> Result<FooterParse, FormatError> {
        let (trailer, index, footer) = match Trailer::parse(TrailerKind::Data, tail, size)? {
            TrailerParse::NeedMore { from } => return Ok(FooterParse::NeedMore { from }),
            TrailerParse::Whole { trailer, index, footer } => (trailer, index, footer),
        };
        let error = |fault| FormatError::new(FOOTER_LAYOUT, trailer.footer_position, fault);
        let mut r = Reader::new(footer, "footer");
        let Opening { head, tally_from, ends, sections: count } = read_head(&mut r).map_err(error)?;
        let mut indexes = Reader::new(index, "index");
        let mut sections: Vec<Section> = Vec::with_capacity(count);
        let mut next_block = 0;
        for _ in 0..count {
            let (mut section, index_length, index_crc) = read_section(&mut r).map_err(error)?;
            let ascends = sections.last().is_none_or(|last| order(&last.head) < order(&section.head));
            if !ascends {
                return Err(error(bad("section order", format_args!("{:?} here", section.head))));
            }
            let position = trailer.index_position + indexes.position() as u64;
            let at_index = |fault| {
                FormatError::new(INDEX_LAYOUT, position, fault)
                    .of_partition(section.head.partition)
                    .with_offsets(section.range.start(), last_of(&section))
            };
            let bytes = indexes.bytes(index_length).map_err(at_index)?;
            let seen = crc32c(bytes);
            if seen != index_crc {
                return Err(at_index(Fault::Checksum { part: "bytes", wanted: index_crc, seen }));
            }
            let parts = read_index(bytes, &section, &mut next_block).map_err(at_index)?;
            (section.blocks, section.changes, section.aborted, section.lost) = parts;
            sections.push(section);
        }
        let tally = Tally::read_ends(&mut r, ends, tally_from, head.sequence).map_err(error)?;
        r.end().and(indexes.end()).map_err(error)?;
        if next_block != trailer.index_position {
            let value = format!("{next_block}, the index begins at {}", trailer.index_position);
            return Err(error(bad("end of the blocks", value)));
        }
        Ok(FooterParse::Whole(Self { head, tally, sections }))
    }
}

fn order(head: &SectionHead) -> impl PartialOrd {
    (head.partition, head.log, head.leader_epoch)
}

/// The last offset of a section, for an error message.
fn last_of(section: &Section) -> Offset {
    Offset::new(section.range.end().get() - 1).unwrap_or(section.range.start())
}

/// Index, footer and trailer of an object whose blocks end at `index_position`.
pub(crate) fn encode_tail(head: &ObjectHead, tally: &Tally, sections: &[Section], index_position: u64) -> Bytes {
    let mut w = Writer::default();
    let mut footer = Writer::default();
    write_cluster(&mut footer, &head.cluster);
    footer.i32(head.broker.get());
    footer.u32(head.generation);
    footer.u64(head.broker_epoch.get());
    footer.u64(head.sequence.get());
    footer.timestamp(head.written_at);
    footer.count(tally.ends.len());
    footer.count(sections.len());
    footer.u64(tally.from.get());
    for section in sections {
        let start = w.len();
        write_index(section, &mut w);
        let index = &w.written()[start..];
        write_section(section, index, &mut footer);
    }
    tally.write_ends(head.sequence, &mut footer);
    let trailer = Trailer {
        index_position,
        footer_position: index_position + w.len() as u64,
        footer_crc: crc32c(footer.written()),
    };
    w.bytes(footer.written());
    trailer.write(TrailerKind::Data, &mut w, footer.len());
    w.finish().into()
}

fn write_section(section: &Section, index: &[u8], w: &mut Writer) {
    let start = w.len();
    w.partition(section.head.partition);
    w.i32(section.head.leader_epoch.get());
    w.u64(section.head.log.get());
    w.offset(section.head.epoch_start);
    w.offset(section.range.start());
    w.offset(section.range.end());
    w.timestamp(section.min_timestamp);
    w.timestamp(section.max_timestamp);
    w.u64(section.records);
    w.u64(section.bytes);
    w.count(index.len());
    w.u32(crc32c(index));
    w.zeros(16); // reserved
    w.text(section.head.producer_snapshot.as_deref().unwrap_or_default());
    debug_assert!(w.len() - start >= SECTION_SIZE_MIN);
}

pub(crate) fn write_index(section: &Section, w: &mut Writer) {
    w.count(section.blocks.len());
    w.count(section.changes.len());
    w.count(section.aborted.len());
    w.count(section.lost.len());
    for block in &section.blocks {
        w.u64(block.position);
        w.u32(block.length);
        w.u32(block.crc);
        w.offset(block.base_offset);
        w.offset(block.last_offset);
        w.timestamp(block.max_timestamp);
    }
    for change in &section.changes {
        change.write(w);
    }
    for aborted in &section.aborted {
        aborted.write(w);
    }
    for lost in &section.lost {
        w.offset(lost.start());
        w.offset(lost.end());
    }
}

/// What stands before the sections.
struct Opening {
    head: ObjectHead,
    tally_from: WalSequence,
    /// How many ends the tally has, behind the sections.
    ends: usize,
    sections: usize,
}

fn read_head(r: &mut Reader<'_>) -> Result<Opening, Fault> {
    let cluster = read_cluster(r)?;
    let (broker, generation) = (r.broker()?, r.u32()?);
    let (broker_epoch, sequence, written_at) = (r.broker_epoch()?, r.sequence()?, r.timestamp()?);
    let ends = r.count(LogEnd::SIZE)?;
    let sections = r.count(SECTION_SIZE_MIN)?;
    let tally_from = r.sequence()?;
    let head = ObjectHead { cluster, broker, broker_epoch, sequence, generation, written_at };
    Ok(Opening { head, tally_from, ends, sections })
}

/// A section without what its index holds, and the index's length and checksum.
fn read_section(r: &mut Reader<'_>) -> Result<(Section, usize, u32), Fault> {
    let (partition, leader_epoch, log) = (r.partition()?, r.leader_epoch()?, r.log()?);
    let (epoch_start, range) = (r.offset("epoch start")?, r.range("section range")?);
    if range.is_empty() || range.start() < epoch_start {
        return Err(bad("section range", format_args!("{range} in an epoch that began at {epoch_start}")));
    }
    let (min_timestamp, max_timestamp) = (r.timestamp()?, r.timestamp()?);
    let (records, bytes) = (r.u64()?, r.u64()?);
    let (index_length, index_crc) = (r.size()?, r.u32()?);
    r.reserved(16)?;
    let snapshot = r.text("producer snapshot name")?;
    let producer_snapshot = (!snapshot.is_empty()).then(|| snapshot.to_owned());
    let section = Section {
        head: SectionHead { partition, log, leader_epoch, epoch_start, producer_snapshot },
        range,
        min_timestamp,
        max_timestamp,
        records,
        bytes,
        blocks: Vec::new(),
        changes: Vec::new(),
        aborted: Vec::new(),
        lost: Vec::new(),
    };
    Ok((section, index_length, index_crc))
}

type IndexParts = (Vec<BlockIndex>, Vec<ProducerChange>, Vec<AbortedTxn>, Vec<OffsetRange>);

/// A section's index. `section` is what the footer says of it; `next_block` is where its first block must be, and goes
/// to the end of its last.
pub(crate) fn read_index(bytes: &[u8], section: &Section, next_block: &mut u64) -> Result<IndexParts, Fault> {
    let mut r = Reader::new(bytes, "index");
    let block_count = r.count(BLOCK_INDEX_SIZE)?;
    let change_count = r.count(ProducerChange::SIZE_MIN)?;
    let aborted_count = r.count(AbortedTxn::SIZE)?;
    let lost_count = r.count(LOST_SIZE)?;

    let mut blocks: Vec<BlockIndex> = Vec::with_capacity(block_count);
    let mut next_offset = section.range.start();
    for _ in 0..block_count {
        let (position, length, crc) = (r.u64()?, r.u32()?, r.u32()?);
        let (base_offset, last_offset) = r.first_last("block offsets")?;
        let max_timestamp = r.timestamp()?;
        if position != *next_block || (length as usize) <= BLOCK_HEADER_SIZE {
            return Err(bad("block", format_args!("{length} bytes at {position}, the last one ends at {next_block}")));
        }
        if base_offset < next_offset || last_offset >= section.range.end() {
            let range = section.range;
            return Err(bad(
                "block offsets",
                format_args!("{base_offset} to {last_offset}, next in {range} is {next_offset}"),
            ));
        }
        *next_block = position.checked_add(length.into()).ok_or_else(|| bad("block position", position))?;
        next_offset = last_offset.next();
        blocks.push(BlockIndex { position, length, base_offset, last_offset, max_timestamp, crc });
    }

    let mut changes: Vec<ProducerChange> = Vec::with_capacity(change_count);
    for _ in 0..change_count {
        let change = ProducerChange::read(&mut r)?;
        if changes.last().is_some_and(|last| last.producer >= change.producer) {
            return Err(bad("producer order", change.producer));
        }
        changes.push(change);
    }

    let mut aborted = Vec::with_capacity(aborted_count);
    for _ in 0..aborted_count {
        aborted.push(AbortedTxn::read(&mut r)?);
    }

    let mut lost = Vec::with_capacity(lost_count);
    for _ in 0..lost_count {
        let range = r.range("lost range")?;
        if range.is_empty() || range.start() < section.range.start() || range.end() > section.range.end() {
            return Err(bad("lost range", range));
        }
        lost.push(range);
    }
    r.end()?;
    Ok((blocks, changes, aborted, lost))
}
