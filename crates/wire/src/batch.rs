//! Record batches of magic 2 (KIP-98): the header that the broker reads and stamps, checksums, and a walk over many.
//!
//! Owns: the 61 bytes of a batch's header, and what of it the broker may change. `records` reads what follows it,
//! `builder` and `marker` make batches. Leaves to others: which batches are acceptable (`log`), and in what order.
//!
//! Layout, big-endian: base offset 8, batch length 4 (of what follows it), leader epoch 4, magic 1, CRC-32C 4 (of what
//! follows it), attributes 2, last offset delta 4, base timestamp 8, max timestamp 8, producer id 8, producer epoch 2,
//! base sequence 4, record count 4, records.
//!
//! Invariants:
//! 1. A `BatchHeader` from `parse` describes a batch that lies wholly in the bytes given, and its last offset fits.
//! 2. Base offset and leader epoch are outside the checksum: `patch` needs no new one.
//!
//! Source: `DefaultRecordBatch`.

mod builder;
mod marker;
mod records;

pub use builder::{BatchBuilder, recompress};
pub use marker::{Marker, MarkerKind, build_marker, parse_marker};
pub use records::{Record, RecordIter, check_count, records};

use crate::{Codec, CompressionError, DecodeError};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// Bytes before what the batch length counts.
const LENGTH_END: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// Where the attributes are, which is also where what the checksum covers begins.
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

const MAGIC: i8 = 2;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// The end of the sequence numbers: the one after is 0.
const SEQUENCES: i64 = 1 << 31;

/// Bytes that are no batch, or no batch that can be read.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("a record batch takes {need} bytes, {have} are there")]
    Short { need: usize, have: usize },
    /// Record sets of magic 0 and 1 have not been produced since Kafka 0.11.
    #[error("the record batch has magic {magic}, not 2")]
    Magic { magic: i8 },
    #[error("the record batch has the impossible length {length}")]
    Length { length: i32 },
    #[error("the record batch claims {records} records up to offset delta {last_offset_delta}")]
    Count { records: i32, last_offset_delta: i32 },
    #[error("the record batch begins at offset {base_offset}, and its last offset is out of range")]
    Offset { base_offset: i64 },
    #[error("the record batch has CRC {stored:08x}, its bytes have {computed:08x}")]
    Crc { stored: u32, computed: u32 },
    #[error("attributes {attributes:#06x} name no compression codec")]
    Codec { attributes: i16 },
    #[error("cannot read the records of the batch")]
    Compression(#[from] CompressionError),
    #[error("cannot read record {index} of the batch")]
    Record { index: i32, source: DecodeError },
    #[error("the batch's {records} records are followed by {bytes} bytes that belong to none")]
    Trailing { records: i32, bytes: usize },
    #[error("the batch is no transaction marker: {0}")]
    Marker(&'static str),
}

/// What a batch's timestamps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The header of a batch, in the protocol's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    /// -1 without a producer.
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// -1 without a sequence: no idempotent producer, or a control batch.
    pub base_sequence: i32,
    /// 0 only after compaction.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads the header of the batch that `bytes` begin with; more may follow it.
    ///
    /// Checks what reading on depends on (magic, length, signs, overflow), neither checksum nor records.
    ///
    /// # Errors
    /// [`BatchError::Short`] where more bytes may help, [`BatchError::Magic`] for record sets of old clients.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // An old record set may be shorter than a batch's header, and should be called old all the same.
        match magic(bytes) {
            Some(MAGIC) if bytes.len() >= HEADER_BYTES => {}
            Some(MAGIC) | None => return Err(BatchError::Short { need: HEADER_BYTES, have: bytes.len() }),
            Some(magic) => return Err(BatchError::Magic { magic }),
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            magic: i8::from_be_bytes(field(bytes, MAGIC_AT)),
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            records_count: i32::from_be_bytes(field(bytes, 57)),
        };
        header.check(bytes.len())?;
        Ok(header)
    }

    fn check(&self, have: usize) -> Result<(), BatchError> {
        let length = self.batch_length;
        let need = usize::try_from(length).map_err(|_| BatchError::Length { length })?.saturating_add(LENGTH_END);
        if need < HEADER_BYTES {
            return Err(BatchError::Length { length });
        }
        if need > have {
            return Err(BatchError::Short { need, have });
        }
        if self.records_count < 0 || self.last_offset_delta < 0 {
            return Err(BatchError::Count { records: self.records_count, last_offset_delta: self.last_offset_delta });
        }
        match self.base_offset.checked_add(i64::from(self.last_offset_delta)) {
            Some(_) => Ok(()),
            None => Err(BatchError::Offset { base_offset: self.base_offset }),
        }
    }

    /// Bytes of the whole batch.
    ///
    /// # Panics
    /// For a negative `batch_length`, which no parsed header has.
    pub fn size(&self) -> usize {
        usize::try_from(self.batch_length).expect("`parse` refuses a negative length") + LENGTH_END
    }

    /// # Errors
    /// The attributes name a codec that does not exist.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_attributes(self.attributes).ok_or(BatchError::Codec { attributes: self.attributes })
    }

    pub const fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    pub const fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it holds a transaction marker (or another control record) instead of a client's records.
    pub const fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Inclusive. Kept by compaction, so it may lie beyond the last record.
    ///
    /// # Panics
    /// On overflow, which no parsed header has.
    pub const fn last_offset(&self) -> i64 {
        self.base_offset + self.last_offset_delta as i64
    }

    /// The sequence number of the last record, which wraps from `i32::MAX` to 0; -1 without a sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let last = (i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) % SEQUENCES;
        i32::try_from(last).expect("below 2^31")
    }
}

/// The magic of the record set that `bytes` begin with: in the same place in every version. `None` where it is cut
/// off.
pub fn magic(bytes: &[u8]) -> Option<i8> {
    bytes.get(MAGIC_AT).map(|b| b.cast_signed())
}

/// Checks the checksum of the batch that `bytes` begin with.
///
/// # Errors
/// [`BatchError::Crc`], or whatever `parse` finds.
pub fn check_crc(bytes: &[u8]) -> Result<(), BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let computed = crc(&bytes[..header.size()]);
    if computed == header.crc { Ok(()) } else { Err(BatchError::Crc { stored: header.crc, computed }) }
}

/// Stamps what the broker decides when it appends: neither is under the checksum.
///
/// # Panics
/// Where `batch` is shorter than a header: only parsed batches are patched.
pub fn patch(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    assert!(batch.len() >= HEADER_BYTES, "only a parsed batch is patched");
    put(batch, 0, base_offset.to_be_bytes());
    put(batch, LENGTH_END, leader_epoch.to_be_bytes());
}

/// Makes `timestamp` the time of every record (`message.timestamp.type=LogAppendTime`), and the checksum new.
///
/// # Panics
/// Where `batch` is not one whole batch: only parsed batches are stamped.
pub fn set_log_append_time(batch: &mut [u8], timestamp: i64) {
    let header = BatchHeader::parse(batch).expect("only a parsed batch is stamped");
    let batch = &mut batch[..header.size()];
    put(batch, ATTRIBUTES_AT, (header.attributes | LOG_APPEND_TIME).to_be_bytes());
    put(batch, MAX_TIMESTAMP_AT, timestamp.to_be_bytes());
    let crc = crc(batch);
    put(batch, CRC_AT, crc.to_be_bytes());
}

/// One batch of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    pub header: BatchHeader,
    /// Where it begins in the bytes walked over.
    pub position: usize,
    /// The batch and nothing else.
    pub bytes: &'a [u8],
}

/// Walks over batches that lie one after the other. Ends after the first error; a batch cut short at the end is
/// [`BatchError::Short`], which a fetch's client ignores.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Batches<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let position = self.position;
        let rest = &self.bytes[position..];
        if rest.is_empty() {
            return None;
        }
        match BatchHeader::parse(rest) {
            Ok(header) => {
                self.position += header.size();
                Some(Ok(Batch { header, position, bytes: &rest[..header.size()] }))
            }
            Err(error) => {
                self.position = self.bytes.len();
                Some(Err(error))
            }
        }
    }
}

/// The checksum of a whole batch's bytes.
fn crc(batch: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(&batch[ATTRIBUTES_AT..])
}

/// `N` bytes at `at`, where the caller knows that there are as many.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a range of N bytes")
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests;
