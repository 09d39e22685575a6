//! The trailer: the last 40 bytes of a data object or producer snapshot, from which the rest is found.
//!
//! A reader asks for the last bytes of an object in one request, guessing how many; the trailer tells whether that was
//! enough.

use forebay_types::ClusterId;

use crate::crc::crc32c;
use crate::cursor::{Reader, Writer, bad};
use crate::error::{Fault, FormatError};

pub const TRAILER_SIZE: usize = 40;

const VERSION: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrailerKind {
    Data,
    Producers,
}

impl TrailerKind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Data => *b"FOREBAYD",
            Self::Producers => *b"FOREBAYP",
        }
    }

    const fn layout(self) -> &'static str {
        match self {
            Self::Data => "data object trailer",
            Self::Producers => "producer snapshot trailer",
        }
    }
}

/// Where the parts of an object are: blocks from 0, then index, then footer, then this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// End of the blocks.
    pub index_position: u64,
    /// End of the index.
    pub footer_position: u64,
    pub footer_crc: u32,
}

/// What the end of an object gave.
#[derive(Debug)]
pub enum TrailerParse<'a> {
    /// The object must be read from here on.
    NeedMore { from: u64 },
    /// Index and footer, the latter checked against its checksum.
    Whole { trailer: Trailer, index: &'a [u8], footer: &'a [u8] },
}

impl Trailer {
    pub fn write(&self, kind: TrailerKind, w: &mut Writer, footer_length: usize) {
        let start = w.len();
        w.u64(self.index_position);
        w.u64(self.footer_position);
        w.count(footer_length);
        w.u32(self.footer_crc);
        w.u16(VERSION);
        w.u16(0); // reserved
        w.u32(crc32c(&w.written()[start..]));
        w.bytes(&kind.magic());
        debug_assert_eq!(w.len() - start, TRAILER_SIZE);
    }

    /// Reads an object of `size` bytes from its end: `tail` are its last bytes.
    pub fn parse(kind: TrailerKind, tail: &[u8], size: u64) -> Result<TrailerParse<'_>, FormatError> {
        let position = size.saturating_sub(TRAILER_SIZE as u64);
        let error = |fault| FormatError::new(kind.layout(), position, fault);
        let Some(tail_position) = size.checked_sub(tail.len() as u64) else {
            return Err(error(bad("object size", format_args!("{size}: {} bytes were read", tail.len()))));
        };
        if size < TRAILER_SIZE as u64 {
            return Err(error(Fault::Short { part: "trailer", needed: TRAILER_SIZE as u64, have: size }));
        }
        if tail.len() < TRAILER_SIZE {
            return Ok(TrailerParse::NeedMore { from: position });
        }
        let (before, bytes) = tail.split_at(tail.len() - TRAILER_SIZE);
        let (trailer, footer_length) = Self::parse_fields(kind, bytes).map_err(error)?;
        let ends = trailer.footer_position.checked_add(footer_length) == Some(position);
        if !ends || trailer.index_position > trailer.footer_position {
            let value =
                format!("index {}, footer {} + {footer_length}", trailer.index_position, trailer.footer_position);
            return Err(error(bad("positions", value)));
        }
        let Some(index_start) = trailer.index_position.checked_sub(tail_position) else {
            return Ok(TrailerParse::NeedMore { from: trailer.index_position });
        };
        let at = |n: u64| usize::try_from(n).expect("inside the tail");
        let (index, footer) = before[at(index_start)..].split_at(at(trailer.footer_position - trailer.index_position));
        let seen = crc32c(footer);
        if seen != trailer.footer_crc {
            return Err(error(Fault::Checksum { part: "footer", wanted: trailer.footer_crc, seen }));
        }
        Ok(TrailerParse::Whole { trailer, index, footer })
    }

    fn parse_fields(kind: TrailerKind, bytes: &[u8]) -> Result<(Self, u64), Fault> {
        let mut r = Reader::new(bytes, "trailer");
        let (index_position, footer_position) = (r.u64()?, r.u64()?);
        let (footer_length, footer_crc) = (u64::from(r.u32()?), r.u32()?);
        let (version, reserved, wanted) = (r.u16()?, r.u16()?, r.u32()?);
        let magic = r.bytes(8)?;
        if magic != kind.magic() {
            return Err(Fault::Magic { wanted: kind.magic().to_vec(), seen: magic.to_vec() });
        }
        let seen = crc32c(&bytes[..TRAILER_SIZE - 12]);
        if seen != wanted {
            return Err(Fault::Checksum { part: "trailer", wanted, seen });
        }
        if version != VERSION {
            return Err(Fault::Version { seen: version, known: VERSION });
        }
        if reserved != 0 {
            return Err(Fault::Unknown { feature: "reserved bits", value: reserved.into() });
        }
        Ok((Self { index_position, footer_position, footer_crc }, footer_length))
    }
}

/// The cluster id and the two bytes that fill it up to 24.
pub fn write_cluster(w: &mut Writer, cluster: &ClusterId) {
    w.cluster(cluster);
    w.u16(0); // reserved
}

pub fn read_cluster(r: &mut Reader<'_>) -> Result<ClusterId, Fault> {
    let cluster = r.cluster()?;
    r.reserved(2)?;
    Ok(cluster)
}
