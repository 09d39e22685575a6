//! The block: the unit of reading and of damage. A header of 32 bytes that says how long and whole the payload is,
//! then the payload: record batches in a data object, one partition's producers in a producer snapshot.
//!
//! Invariants:
//! 1. The header's checksum is checked before its length is used.
//! 2. Codec and key id are there from the first version and are 0; a block that says otherwise is refused (D5).

use bytes::Bytes;

use crate::crc::crc32c;
use crate::cursor::{Reader, Writer};
use crate::error::{Fault, FormatError};
use crate::object::BlockIndex;

/// Bytes before the payload of every block.
pub const BLOCK_HEADER_SIZE: usize = 32;

const VERSION: u8 = 1;

/// What the payload of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    Data,
    Producers,
}

impl BlockKind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Data => *b"FBDB",
            Self::Producers => *b"FBPB",
        }
    }

    pub const fn layout(self) -> &'static str {
        match self {
            Self::Data => "data block",
            Self::Producers => "producer block",
        }
    }
}

/// A block's header for a payload of `length` bytes with checksum `crc`. `offset`: base offset of the first batch, or
/// the offset that a snapshot stands at.
pub fn encode_header(kind: BlockKind, length: u32, offset: i64, crc: u32) -> Bytes {
    let mut w = Writer::with_capacity(BLOCK_HEADER_SIZE);
    w.bytes(&kind.magic());
    w.u8(VERSION);
    w.u8(0); // codec
    w.u16(0); // reserved
    w.u32(0); // encryption key id
    w.u32(length);
    w.i64(offset);
    w.u32(crc);
    w.u32(crc32c(w.written()));
    w.finish().into()
}

/// Checks a whole block and returns its payload, which shares `bytes`. `offset` and `crc` are what the index says.
pub fn parse_block(kind: BlockKind, bytes: &Bytes, position: u64, offset: i64, crc: u32) -> Result<Bytes, FormatError> {
    let error = |fault| FormatError::new(kind.layout(), position, fault);
    let length = check_header(kind, bytes, offset).map_err(error)?;
    let payload = bytes.slice(BLOCK_HEADER_SIZE..);
    if payload.len() < length {
        let (needed, have) = (length as u64, payload.len() as u64);
        return Err(error(Fault::Short { part: "payload", needed, have }));
    }
    if payload.len() > length {
        return Err(error(Fault::Trailing { extra: (payload.len() - length) as u64 }));
    }
    // The index's checksum, not the header's: a block of another object or place is whole too, but it is not this one.
    let seen = crc32c(&payload);
    if seen != crc {
        return Err(error(Fault::Checksum { part: "payload", wanted: crc, seen }));
    }
    Ok(payload)
}

fn check_header(kind: BlockKind, bytes: &[u8], offset: i64) -> Result<usize, Fault> {
    let mut r = Reader::new(bytes, "header");
    let magic = r.bytes(4)?;
    if magic != kind.magic() {
        return Err(Fault::Magic { wanted: kind.magic().to_vec(), seen: magic.to_vec() });
    }
    let (version, codec) = (r.u8()?, r.u8()?);
    let reserved = r.u16()?;
    let key = r.u32()?;
    let length = r.size()?;
    let (base, _crc) = (r.i64()?, r.u32()?);
    let wanted = r.u32()?;
    let seen = crc32c(&bytes[..BLOCK_HEADER_SIZE - 4]);
    if seen != wanted {
        return Err(Fault::Checksum { part: "header", wanted, seen });
    }
    if version != VERSION {
        return Err(Fault::Version { seen: version.into(), known: VERSION.into() });
    }
    refuse_unknown(codec, key, reserved)?;
    if base != offset {
        return Err(Fault::Field { field: "offset", value: format!("{base}, the index says {offset}") });
    }
    Ok(length)
}

/// Codec, key id and reserved bits of every header: none is in use yet.
pub fn refuse_unknown(codec: u8, key: u32, reserved: u16) -> Result<(), Fault> {
    let unknown = |feature, value| Err(Fault::Unknown { feature, value });
    match (codec, key, reserved) {
        (0, 0, 0) => Ok(()),
        (0, 0, value) => unknown("reserved bits", value.into()),
        (0, value, _) => unknown("encryption key", value),
        (value, _, _) => unknown("codec", value.into()),
    }
}

/// A block of record batches in a data object.
#[derive(Debug)]
pub struct Block;

impl Block {
    /// The record batches of the block that `index` describes, concatenated; shares `bytes`, which are the block's own:
    /// `index.length` bytes from `index.position`. [`Section::parse_block`](crate::Section::parse_block) does the same
    /// and names the partition in its errors.
    pub fn parse(bytes: &Bytes, index: &BlockIndex) -> Result<Bytes, FormatError> {
        parse_block(BlockKind::Data, bytes, index.position, index.base_offset.get(), index.crc)
            .map_err(|e| e.with_offsets(index.base_offset, index.last_offset))
    }
}
