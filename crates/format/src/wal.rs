//! The WAL on a disk: preallocated segments, each a header sector and then blocks, one per group commit.
//!
//! ```text
//! | segment header | block 7 …… | block 8 | block 9 …… | zeros, or what an older use of the file left |
//! 0              4096   (every block begins on a sector and is filled up with zeros to the next)
//! ```
//!
//! Owns: the bytes, and telling from the bytes at a place what they are. Leaves to others: where blocks go, syncing,
//! and what a bad block means: below any acknowledged number seen later it is corruption, above all it is a torn write.
//! What a corrupt block held is told by the tally of a later one.
//!
//! Invariants:
//! 1. A header lies in one sector, which a disk writes whole: it is there or it is not.
//! 2. A block names its writer (broker, epoch), its segment's nonce and its number, so nothing that an older use of
//!    the file left can pass for it. The nonce is random and never leaves the disk, so no client can put a block into
//!    a record that a reader looking for the next header would take for ours.

mod block;
pub(crate) mod entry;
mod segment;

pub use block::{
    BlockClass, WAL_BLOCK_HEADER_SIZE, WalBlock, WalBlockHead, WalExpect, classify_wal_block, encode_wal_block,
    wal_block_padding, wal_block_size,
};
pub use entry::{RecordKind, WalEntry};
pub use segment::SegmentHead;

/// The unit that a disk writes whole; every header and block begins on a multiple of it.
pub const SECTOR_SIZE: usize = 4096;
