//! The first sector of a WAL segment: whose it is. Written anew, with a new nonce, each time the file is used again.

use forebay_types::{BrokerEpoch, BrokerId, ClusterId};

use super::SECTOR_SIZE;
use crate::crc::crc32c;
use crate::cursor::{Reader, Writer, bad};
use crate::error::{Fault, FormatError};
use crate::trailer::{read_cluster, write_cluster};

const LAYOUT: &str = "WAL segment header";
const MAGIC: [u8; 8] = *b"FOREBAYW";
const VERSION: u16 = 1;
/// Bytes under the header's checksum, which follows them.
const CHECKED_SIZE: usize = 80;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    pub cluster: ClusterId,
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    /// Dense from 0 in one broker epoch.
    pub segment: u64,
    /// Bytes of the file, this sector included.
    pub size: u64,
    /// Random; every block of this use of the file repeats it.
    pub nonce: u64,
}

impl SegmentHead {
    /// One sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(SECTOR_SIZE);
        w.bytes(&MAGIC);
        w.u16(VERSION);
        w.u16(0); // reserved
        w.count(SECTOR_SIZE);
        write_cluster(&mut w, &self.cluster);
        w.i32(self.broker.get());
        w.u32(0); // reserved
        w.u64(self.broker_epoch.get());
        w.u64(self.segment);
        w.u64(self.size);
        w.u64(self.nonce);
        debug_assert_eq!(w.len(), CHECKED_SIZE);
        w.u32(crc32c(w.written()));
        w.zeros(SECTOR_SIZE - w.len());
        w.finish()
    }

    /// Reads a segment's first bytes; `None` where they are zero: preallocated and never used.
    pub fn parse(sector: &[u8]) -> Result<Option<Self>, FormatError> {
        Self::parse_fields(sector).map_err(|fault| FormatError::new(LAYOUT, 0, fault))
    }

    fn parse_fields(sector: &[u8]) -> Result<Option<Self>, Fault> {
        let mut r = Reader::new(sector, "sector");
        let sector = r.bytes(SECTOR_SIZE)?;
        if sector.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let mut r = Reader::new(sector, "sector");
        let magic = r.bytes(8)?;
        if magic != MAGIC {
            return Err(Fault::Magic { wanted: MAGIC.to_vec(), seen: magic.to_vec() });
        }
        let version = r.u16()?;
        let wanted = Reader::new(&sector[CHECKED_SIZE..], "checksum").u32()?;
        let seen = crc32c(&sector[..CHECKED_SIZE]);
        if seen != wanted {
            return Err(Fault::Checksum { part: "header", wanted, seen });
        }
        if version != VERSION {
            return Err(Fault::Version { seen: version, known: VERSION });
        }
        r.reserved(2)?;
        let sector_size = r.size()?;
        if sector_size != SECTOR_SIZE {
            return Err(bad("sector size", sector_size));
        }
        let (cluster, broker) = (read_cluster(&mut r)?, r.broker()?);
        r.reserved(4)?;
        let broker_epoch = r.broker_epoch()?;
        let (segment, size, nonce) = (r.u64()?, r.u64()?, r.u64()?);
        r.bytes(4)?; // the checksum
        r.reserved(r.left())?;
        Ok(Some(Self { cluster, broker, broker_epoch, segment, size, nonce }))
    }
}
