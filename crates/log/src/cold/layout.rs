//! How an object is cut into chunks: runs of whole blocks that one GET brings and one cache entry holds.
//!
//! Chunks are cut from the object's start, by size alone and across sections, so that all readers cut alike. A small
//! object is one chunk, and its footer comes with it: one GET serves all its partitions (D9).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay_cache::Weigh;
use forebay_env::Instant;
use forebay_format::{BlockIndex, Footer, FormatError, Section};
use forebay_metadata::Extent;
use forebay_types::Offset;

use super::Source;

/// A chunk ends at the first block that reaches this size: large enough that a GET's fixed cost is small beside its
/// transfer, small enough that a single record does not cost much.
pub(super) const CHUNK_SIZE_TARGET: u64 = 1 << 20;

/// Whether an object is read whole, footer and all, by one GET that serves all its partitions (D9): where its blocks are one
/// chunk. Its footer is bounded too: with very many partitions it is read alone.
pub(super) fn is_small(extent: &Extent) -> bool {
    extent.footer_position <= CHUNK_SIZE_TARGET && extent.size <= 2 * CHUNK_SIZE_TARGET
}

/// A footer with the places where its object's chunks begin.
#[derive(Debug)]
pub(crate) struct Layout {
    pub object: Arc<str>,
    pub footer: Footer,
    /// First byte of each chunk, then the end of the last.
    cuts: Vec<u64>,
}

impl Layout {
    pub fn new(object: Arc<str>, footer: Footer) -> Self {
        let mut cuts = vec![0];
        for block in footer.sections.iter().flat_map(|section| &section.blocks) {
            let (last, end) = (cuts[cuts.len() - 1], end_of(block));
            if end - last >= CHUNK_SIZE_TARGET {
                cuts.push(end);
            }
        }
        let end = blocks_end(&footer);
        if cuts[cuts.len() - 1] < end {
            cuts.push(end);
        }
        Self { object, footer, cuts }
    }

    /// The chunk that holds the block at `position`, which must be a block of this object.
    pub fn plan_of(&self, position: u64) -> Range<u64> {
        let after = self.cuts.partition_point(|cut| *cut <= position);
        self.cuts[after - 1]..self.cuts[after]
    }

    /// The chunks that hold a log's blocks from `next` on, in order, each with the bytes of those blocks in it.
    pub fn chunks_of(&self, source: Source, next: Offset) -> Vec<(Range<u64>, u64)> {
        let mut chunks: Vec<(Range<u64>, u64)> = Vec::new();
        let sections = self.footer.sections_of(source.partition, source.log);
        for block in sections.flat_map(|section| section.blocks_from(next)) {
            let length = u64::from(block.length);
            match chunks.last_mut() {
                Some((plan, own)) if plan.contains(&block.position) => *own += length,
                _ => chunks.push((self.plan_of(block.position), length)),
            }
        }
        chunks
    }
}

fn end_of(block: &BlockIndex) -> u64 {
    block.position + u64::from(block.length)
}

/// Where an object's blocks end.
pub(super) fn blocks_end(footer: &Footer) -> u64 {
    footer.sections.iter().rev().find_map(|section| section.blocks.last()).map_or(0, end_of)
}

impl Weigh for Layout {
    fn weight(&self) -> usize {
        let section = |s: &Section| {
            size_of::<Section>()
                + s.blocks.len() * size_of::<BlockIndex>()
                + s.changes.len() * 256
                + s.aborted.len() * 24
        };
        self.object.len() + self.cuts.len() * 8 + self.footer.sections.iter().map(section).sum::<usize>()
    }
}

/// Bytes of an object from `start` on, as one GET brought them.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub start: u64,
    pub bytes: Bytes,
    /// Bytes of memory that `bytes` hold: what came with them in one GET is not let go before them.
    pub held: usize,
    /// The how many-th reading of these bytes in a row this is: the ones before were found wrong.
    pub reads: u32,
    pub read_at: Instant,
}

impl Weigh for Chunk {
    fn weight(&self) -> usize {
        self.held
    }
}

/// Reading one block of a section out of a chunk.
pub(crate) trait ParseCached {
    fn parse_cached(&self, chunk: &Chunk, layout: &Layout, block: &BlockIndex) -> Result<Bytes, FormatError>;
}

impl ParseCached for Section {
    /// The block's batches, its checksum checked. Checked at every read, not once: it costs a seventieth of a second
    /// per gigabyte, and also finds memory that went bad in the cache.
    fn parse_cached(&self, chunk: &Chunk, layout: &Layout, block: &BlockIndex) -> Result<Bytes, FormatError> {
        let start = usize::try_from(block.position - chunk.start).expect("a chunk is in memory");
        let bytes = chunk.bytes.slice(start..start + block.length as usize);
        self.parse_block(&bytes, block).map_err(|error| error.in_object(&layout.object))
    }
}
