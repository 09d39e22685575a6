//! How an object is cut into chunks: runs of whole blocks that one GET brings and one cache entry holds.
//!
//! Chunks are cut from the object's start, by size alone and across sections, so that all readers cut alike. A small
//! object is one chunk: one GET serves all its partitions (D9).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay_cache::Weigh;
use forebay_env::Instant;
use forebay_format::{BlockIndex, Footer, FormatError, Section};

/// A chunk ends at the first block that reaches this size: large enough that a GET's fixed cost is small beside its
/// transfer, small enough that a single record does not cost much.
const CHUNK_SIZE_TARGET: u64 = 1 << 20;

/// A footer with the places where its object's chunks begin.
#[derive(Debug)]
pub(crate) struct Layout {
    pub object: Arc<str>,
    pub footer: Footer,
    /// First byte of each chunk, then the end of the last.
    cuts: Vec<u64>,
}

impl Layout {
    pub fn new(object: Arc<str>, blocks_end: u64, footer: Footer) -> Self {
        let mut cuts = vec![0];
        for block in footer.sections.iter().flat_map(|section| &section.blocks) {
            let (last, end) = (cuts[cuts.len() - 1], block.position + u64::from(block.length));
            if end - last >= CHUNK_SIZE_TARGET {
                cuts.push(end);
            }
        }
        if cuts[cuts.len() - 1] < blocks_end {
            cuts.push(blocks_end);
        }
        Self { object, footer, cuts }
    }

    /// The chunk that holds the block at `position`, which must be a block of this object.
    pub fn plan_of(&self, position: u64) -> Range<u64> {
        let after = self.cuts.partition_point(|cut| *cut <= position);
        self.cuts[after - 1]..self.cuts[after]
    }

    /// The chunks that follow the one with the block at `position`.
    pub fn plans_after(&self, position: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let after = self.cuts.partition_point(|cut| *cut <= position);
        self.cuts[after..].windows(2).map(|pair| pair[0]..pair[1])
    }
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
    /// The how many-th reading of these bytes in a row this is: the ones before were found wrong.
    pub reads: u32,
    pub read_at: Instant,
}

impl Weigh for Chunk {
    fn weight(&self) -> usize {
        self.bytes.len()
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
