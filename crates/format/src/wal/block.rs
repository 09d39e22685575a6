//! The WAL block: one group commit. A header of 64 bytes, the entries, zeros up to the next sector.
//!
//! A block is encoded in pieces, so that the records are copied once, into the buffer that goes to the disk; it is
//! parsed in place, so that replayed records share what was read.

use bytes::Bytes;
use forebay_types::{BrokerEpoch, BrokerId, WalSequence};

use super::SECTOR_SIZE;
use super::entry::WalEntry;
use crate::block::refuse_unknown;
use crate::crc::{Crc32c, crc32c};
use crate::cursor::{Reader, Writer};
use crate::error::{Fault, FormatError};

/// Bytes before the entries of a block.
pub const WAL_BLOCK_HEADER_SIZE: usize = 64;

const LAYOUT: &str = "WAL block";
const MAGIC: [u8; 4] = *b"FBWB";
const VERSION: u8 = 1;
const ZEROS: [u8; SECTOR_SIZE] = [0; SECTOR_SIZE];

/// Which block it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalBlockHead {
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    /// That of the segment's header.
    pub nonce: u64,
    /// The block's own number.
    pub sequence: WalSequence,
    /// Exclusive: every block with a lower number was acknowledged before this one was written, so it must be there.
    pub acknowledged: WalSequence,
}

/// The block that a reader is looking for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalExpect {
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    pub nonce: u64,
    pub sequence: WalSequence,
}

/// A block whose header and payload have been checked: the way to its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalBlock {
    head: WalBlockHead,
    /// Where it was read, for errors.
    position: u64,
    length: usize,
    entries: usize,
}

/// What lies at a place where a block should begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockClass {
    /// The block that was looked for, whole.
    Valid(WalBlock),
    /// Its header is whole and `size` bytes are needed to judge the rest. Where the segment does not have so many,
    /// the block is as bad as a torn one.
    NeedMore { size: usize },
    /// A sector of zeros: never written.
    Zero,
    /// A whole header, but of another writer, an earlier use of the file, or another number.
    Stale(WalBlockHead),
    /// No whole header: a torn or damaged one, or the inside of a block of an earlier use.
    NoHeader(FormatError),
    /// The block that was looked for, but its payload is not what was written. It takes up `size` bytes.
    Torn { head: WalBlockHead, size: usize, error: FormatError },
    /// The block that was looked for, of a newer version, or with a codec or key that this build does not know.
    Unsupported(FormatError),
}

/// Bytes that a block of these entries takes up on disk, a multiple of [`SECTOR_SIZE`].
pub fn wal_block_size(entries: &[WalEntry]) -> usize {
    size_on_disk(entries.iter().map(WalEntry::encoded_size).sum())
}

fn size_on_disk(payload: usize) -> usize {
    (WAL_BLOCK_HEADER_SIZE + payload).next_multiple_of(SECTOR_SIZE)
}

/// Hands the bytes of a block to `out`, piece by piece in order; together they are [`wal_block_size`] long.
///
/// # Panics
/// Where the entries reach 4 GiB.
pub fn encode_wal_block(head: &WalBlockHead, entries: &[WalEntry], out: &mut impl FnMut(&[u8])) {
    assert!(head.acknowledged <= head.sequence, "a block cannot be acknowledged before it is written: {head:?}");
    let mut heads = Writer::with_capacity(entries.len() * WalEntry::HEAD_SIZE);
    for entry in entries {
        entry.write_head(&mut heads);
    }
    let heads = heads.finish();
    let pieces = || heads.chunks_exact(WalEntry::HEAD_SIZE).zip(entries);
    let (mut crc, mut length) = (Crc32c::new(), 0);
    for (entry_head, entry) in pieces() {
        crc.update(entry_head);
        crc.update(&entry.records);
        length += entry_head.len() + entry.records.len();
    }
    let mut w = Writer::with_capacity(WAL_BLOCK_HEADER_SIZE);
    w.bytes(&MAGIC);
    w.u8(VERSION);
    w.u8(0); // codec
    w.u16(0); // reserved
    w.u32(0); // encryption key id
    w.count(length);
    w.i32(head.broker.get());
    w.count(entries.len());
    w.u64(head.broker_epoch.get());
    w.u64(head.nonce);
    w.u64(head.sequence.get());
    w.u64(head.acknowledged.get());
    w.u32(crc.finish());
    w.u32(crc32c(w.written()));
    debug_assert_eq!(w.len(), WAL_BLOCK_HEADER_SIZE);
    out(w.written());
    for (entry_head, entry) in pieces() {
        out(entry_head);
        out(&entry.records);
    }
    out(&ZEROS[..size_on_disk(length) - WAL_BLOCK_HEADER_SIZE - length]);
}

/// Says what `bytes`, read from `position` of a segment on, begin with. At least a sector is needed.
pub fn classify_wal_block(bytes: &[u8], position: u64, expect: &WalExpect) -> BlockClass {
    let error = |fault| FormatError::new(LAYOUT, position, fault);
    if bytes.len() < SECTOR_SIZE {
        return BlockClass::NeedMore { size: SECTOR_SIZE };
    }
    if bytes[..SECTOR_SIZE].iter().all(|b| *b == 0) {
        return BlockClass::Zero;
    }
    let Header { head, length, entries, crc, unknown } = match Header::parse(bytes) {
        Ok(header) => header,
        Err(fault) => return BlockClass::NoHeader(error(fault)),
    };
    if !head.is_of(expect) || head.sequence != expect.sequence {
        return BlockClass::Stale(head);
    }
    if let Some(fault) = unknown {
        return BlockClass::Unsupported(error(fault));
    }
    let size = size_on_disk(length);
    if bytes.len() < size {
        return BlockClass::NeedMore { size };
    }
    let seen = crc32c(&bytes[WAL_BLOCK_HEADER_SIZE..WAL_BLOCK_HEADER_SIZE + length]);
    if seen != crc {
        let error = error(Fault::Checksum { part: "payload", wanted: crc, seen });
        return BlockClass::Torn { head, size, error };
    }
    BlockClass::Valid(WalBlock { head, position, length, entries })
}

impl WalBlockHead {
    fn is_of(&self, expect: &WalExpect) -> bool {
        (self.broker, self.broker_epoch, self.nonce) == (expect.broker, expect.broker_epoch, expect.nonce)
    }
}

impl WalBlock {
    pub fn head(&self) -> &WalBlockHead {
        &self.head
    }

    /// Bytes that the block takes up on disk: the next one begins so much further on.
    pub fn size(&self) -> usize {
        size_on_disk(self.length)
    }

    /// The entries of the block, in order; their records share `bytes`, which begin where the classified ones did.
    pub fn entries(&self, bytes: &Bytes) -> Result<Vec<WalEntry>, FormatError> {
        let start = self.position + WAL_BLOCK_HEADER_SIZE as u64;
        let end = WAL_BLOCK_HEADER_SIZE + self.length;
        if bytes.len() < end {
            let fault = Fault::Short { part: "payload", needed: end as u64, have: bytes.len() as u64 };
            return Err(FormatError::new(LAYOUT, self.position, fault));
        }
        let payload = bytes.slice(WAL_BLOCK_HEADER_SIZE..end);
        WalEntry::parse_all(&payload, start, self.entries)
    }
}

struct Header {
    head: WalBlockHead,
    length: usize,
    entries: usize,
    crc: u32,
    /// What of the header this build does not know. Who wrote the block is at the same place in every version, so that
    /// what a newer version left in a file that is used again is only stale.
    unknown: Option<Fault>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let mut r = Reader::new(bytes, "header");
        let magic = r.bytes(4)?;
        if magic != MAGIC {
            return Err(Fault::Magic { wanted: MAGIC.to_vec(), seen: magic.to_vec() });
        }
        let mut checked = Reader::new(bytes, "header");
        let seen = crc32c(checked.bytes(WAL_BLOCK_HEADER_SIZE - 4)?);
        let wanted = checked.u32()?;
        if seen != wanted {
            return Err(Fault::Checksum { part: "header", wanted, seen });
        }
        let (version, codec, reserved, key) = (r.u8()?, r.u8()?, r.u16()?, r.u32()?);
        let unknown = if version == VERSION {
            refuse_unknown(codec, key, reserved).err()
        } else {
            Some(Fault::Version { seen: version.into(), known: VERSION.into() })
        };
        let (length, broker, entries) = (r.size()?, r.broker()?, r.size()?);
        let (broker_epoch, nonce) = (r.broker_epoch()?, r.u64()?);
        let (sequence, acknowledged, crc) = (r.sequence()?, r.sequence()?, r.u32()?);
        let head = WalBlockHead { broker, broker_epoch, nonce, sequence, acknowledged };
        Ok(Self { head, length, entries, crc, unknown })
    }
}
