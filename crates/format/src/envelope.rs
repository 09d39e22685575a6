//! The envelope of objects that are small and read whole: fence, journal entry, coordinator snapshot.
//!
//! A header of 32 bytes (magic, version, codec, key id, body length, body checksum, header checksum), then the body,
//! then nothing.

use bytes::Bytes;

use crate::block::refuse_unknown;
use crate::crc::crc32c;
use crate::cursor::{Reader, Writer};
use crate::error::{Fault, FormatError};

pub const ENVELOPE_SIZE: usize = 32;

/// A kind of enveloped object.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    pub magic: [u8; 8],
    /// The version that is written, and the highest that is read.
    pub version: u16,
    pub layout: &'static str,
}

impl Envelope {
    pub fn wrap(&self, body: &[u8]) -> Bytes {
        let mut w = Writer::with_capacity(ENVELOPE_SIZE + body.len());
        w.bytes(&self.magic);
        w.u16(self.version);
        w.u8(0); // codec
        w.u8(0); // reserved
        w.u32(0); // encryption key id
        w.u64(body.len() as u64);
        w.u32(crc32c(body));
        w.u32(crc32c(w.written()));
        w.bytes(body);
        w.finish().into()
    }

    pub fn error(&self, fault: Fault) -> FormatError {
        FormatError::new(self.layout, 0, fault)
    }

    /// The body, which shares `bytes`.
    pub fn open(&self, bytes: &Bytes) -> Result<Bytes, FormatError> {
        self.check(bytes).map_err(|fault| self.error(fault))?;
        Ok(bytes.slice(ENVELOPE_SIZE..))
    }

    fn check(&self, bytes: &[u8]) -> Result<(), Fault> {
        let mut r = Reader::new(bytes, "header");
        let magic = r.bytes(8)?;
        if magic != self.magic {
            return Err(Fault::Magic { wanted: self.magic.to_vec(), seen: magic.to_vec() });
        }
        let version = r.u16()?;
        let (codec, reserved, key) = (r.u8()?, r.u8()?, r.u32()?);
        let (length, body_crc, wanted) = (r.u64()?, r.u32()?, r.u32()?);
        let seen = crc32c(&bytes[..ENVELOPE_SIZE - 4]);
        if seen != wanted {
            return Err(Fault::Checksum { part: "header", wanted, seen });
        }
        if version != self.version {
            return Err(Fault::Version { seen: version, known: self.version });
        }
        refuse_unknown(codec, key, reserved.into())?;
        let have = r.left() as u64;
        if have < length {
            return Err(Fault::Short { part: "body", needed: length, have });
        }
        if have > length {
            return Err(Fault::Trailing { extra: have - length });
        }
        let seen = crc32c(&bytes[ENVELOPE_SIZE..]);
        if seen != body_crc {
            return Err(Fault::Checksum { part: "body", wanted: body_crc, seen });
        }
        Ok(())
    }
}
