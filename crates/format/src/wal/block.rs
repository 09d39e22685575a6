//! The WAL block: one group commit. A header of 80 bytes, the tally of blocks before it, the entries, zeros up to the
//! next sector.
//!
//! A block is encoded in pieces, so that the records are copied once, into the buffer that goes to the disk; it is
//! parsed in place, so that replayed records share what was read.
//!
//! Invariants:
//! 1. Tally and entries have a checksum each, and the header says where both are: either is read where the other is bad.

use bytes::Bytes;
use forebay_types::{BrokerEpoch, BrokerId, WalSequence};

use super::SECTOR_SIZE;
use super::entry::WalEntry;
use crate::block::refuse_unknown;
use crate::crc::{Crc32c, crc32c};
use crate::cursor::{Reader, Writer};
use crate::error::{Fault, FormatError};
use crate::tally::{LogEnd, Tally, check_cover};

/// Bytes before the tally of a block.
pub const WAL_BLOCK_HEADER_SIZE: usize = 80;

const LAYOUT: &str = "WAL block";
const TALLY_LAYOUT: &str = "WAL tally";
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

/// A block whose header has been checked: the way to its tally, and to its entries where they are sound too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalBlock {
    head: WalBlockHead,
    /// Where it was read, for errors.
    position: u64,
    tally: TallyPlace,
    length: usize,
    entries: usize,
}

/// What the header says of the tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TallyPlace {
    from: WalSequence,
    ends: usize,
    crc: u32,
}

impl TallyPlace {
    fn size(&self) -> usize {
        self.ends * LogEnd::SIZE
    }
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
    /// The block that was looked for, but its payload is not what was written. Its tally may be.
    Torn { block: WalBlock, error: FormatError },
    /// The block that was looked for, of a newer version, or with a codec or key that this build does not know.
    Unsupported(FormatError),
}

/// Bytes that a block with a tally of `tally` bytes and these entries takes up on disk, a multiple of [`SECTOR_SIZE`].
pub fn wal_block_size(tally: usize, entries: &[WalEntry]) -> usize {
    size_on_disk(tally, entries.iter().map(WalEntry::encoded_size).sum())
}

/// Bytes that such a block would fill with zeros: by so much its tally may be larger for nothing.
pub fn wal_block_padding(tally: usize, entries: &[WalEntry]) -> usize {
    let payload: usize = entries.iter().map(WalEntry::encoded_size).sum();
    size_on_disk(tally, payload) - WAL_BLOCK_HEADER_SIZE - tally - payload
}

fn size_on_disk(tally: usize, payload: usize) -> usize {
    (WAL_BLOCK_HEADER_SIZE + tally + payload).next_multiple_of(SECTOR_SIZE)
}

/// Hands the bytes of a block to `out`, piece by piece in order; together they are [`wal_block_size`] long.
///
/// # Panics
/// Where the entries reach 4 GiB, or the tally is not one of blocks before this one.
pub fn encode_wal_block(head: &WalBlockHead, tally: &Tally, entries: &[WalEntry], out: &mut impl FnMut(&[u8])) {
    assert!(head.acknowledged <= head.sequence, "a block cannot be acknowledged before it is written: {head:?}");
    let mut ends = Writer::with_capacity(tally.size());
    tally.write_ends(head.sequence, &mut ends);
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
    w.u64(tally.from.get());
    w.count(tally.ends.len());
    w.u32(crc32c(ends.written()));
    w.u32(crc.finish());
    w.u32(crc32c(w.written()));
    debug_assert_eq!(w.len(), WAL_BLOCK_HEADER_SIZE);
    out(w.written());
    out(ends.written());
    for (entry_head, entry) in pieces() {
        out(entry_head);
        out(&entry.records);
    }
    out(&ZEROS[..size_on_disk(ends.len(), length) - WAL_BLOCK_HEADER_SIZE - ends.len() - length]);
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
    let Header { head, tally, length, entries, crc, unknown } = match Header::parse(bytes) {
        Ok(header) => header,
        Err(fault) => return BlockClass::NoHeader(error(fault)),
    };
    if !head.is_of(expect) || head.sequence != expect.sequence {
        return BlockClass::Stale(head);
    }
    if let Some(fault) = unknown {
        return BlockClass::Unsupported(error(fault));
    }
    let block = WalBlock { head, position, tally, length, entries };
    if bytes.len() < block.size() {
        return BlockClass::NeedMore { size: block.size() };
    }
    let payload = block.payload_at();
    let seen = crc32c(&bytes[payload..payload + length]);
    if seen != crc {
        return BlockClass::Torn { block, error: error(Fault::Checksum { part: "payload", wanted: crc, seen }) };
    }
    BlockClass::Valid(block)
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
        size_on_disk(self.tally.size(), self.length)
    }

    fn payload_at(&self) -> usize {
        WAL_BLOCK_HEADER_SIZE + self.tally.size()
    }

    /// The tally of the block, whatever became of its entries; `bytes` begin where the classified ones did.
    pub fn tally(&self, bytes: &[u8]) -> Result<Tally, FormatError> {
        let position = self.position + WAL_BLOCK_HEADER_SIZE as u64;
        let parse = || -> Result<Tally, Fault> {
            let TallyPlace { from, ends, crc: wanted } = self.tally;
            let mut r = Reader::new(bytes, "ends");
            r.bytes(WAL_BLOCK_HEADER_SIZE)?;
            let bytes = r.bytes(self.tally.size())?;
            let seen = crc32c(bytes);
            if seen != wanted {
                return Err(Fault::Checksum { part: "ends", wanted, seen });
            }
            Tally::read_ends(&mut Reader::new(bytes, "ends"), ends, from, self.head.sequence)
        };
        parse().map_err(|fault| FormatError::new(TALLY_LAYOUT, position, fault))
    }

    /// The entries of the block, in order; their records share `bytes`, which begin where the classified ones did.
    pub fn entries(&self, bytes: &Bytes) -> Result<Vec<WalEntry>, FormatError> {
        let start = self.payload_at();
        let end = start + self.length;
        if bytes.len() < end {
            let fault = Fault::Short { part: "payload", needed: end as u64, have: bytes.len() as u64 };
            return Err(FormatError::new(LAYOUT, self.position, fault));
        }
        WalEntry::parse_all(&bytes.slice(start..end), self.position + start as u64, self.entries)
    }
}

struct Header {
    head: WalBlockHead,
    tally: TallyPlace,
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
        let (sequence, acknowledged) = (r.sequence()?, r.sequence()?);
        let tally = TallyPlace { from: r.sequence()?, ends: r.size()?, crc: r.u32()? };
        check_cover(tally.from, tally.ends, sequence)?;
        let crc = r.u32()?;
        let head = WalBlockHead { broker, broker_epoch, nonce, sequence, acknowledged };
        Ok(Self { head, tally, length, entries, crc, unknown })
    }
}
