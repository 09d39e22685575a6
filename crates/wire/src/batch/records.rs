//! The records of a batch, one after the other.
//!
//! Owns: a record's fields. Leaves to others: whether they make sense together (offset deltas without gaps, keys
//! where a topic is compacted).
//!
//! Invariant: what a record says of its own size binds; a field that reaches beyond it is an error, and so are bytes
//! left over.
//!
//! Source: `DefaultRecord`.

use bytes::Bytes;

use super::{BatchError, BatchHeader, HEADER_BYTES, TimestampType};
use crate::reader::Reader;
use crate::{Codec, DecodeError};

/// A record takes at least: size, attributes, timestamp delta, offset delta, key and value length, header count.
const RECORD_BYTES_MIN: usize = 7;

/// One record; its bytes are parts of the batch, or of what the batch was decompressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// To be added to the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since 1970; the batch's max timestamp where that is the time of append.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In the order sent. Names are UTF-8 by agreement, which is not checked.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Walks over the records of one batch. Ends after the first error.
#[derive(Debug, Clone)]
pub struct RecordIter {
    /// What is left of the records.
    body: Bytes,
    /// The index of the next record.
    index: i32,
    header: BatchHeader,
}

/// The records of the batch that `batch` begins with. Neither checks the checksum.
///
/// # Errors
/// `batch` is no batch, its codec is unknown, or what it holds cannot be decompressed into `limit_bytes`.
pub fn records(batch: &Bytes, limit_bytes: usize) -> Result<RecordIter, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let body = batch.slice(HEADER_BYTES..header.size());
    let body = match header.codec()? {
        Codec::None => body,
        codec => codec.decompress(&body, limit_bytes)?.into(),
    };
    let iter = RecordIter { body, index: 0, header };
    if iter.left() > iter.body.len() / RECORD_BYTES_MIN {
        let need = iter.left().saturating_mul(RECORD_BYTES_MIN);
        return Err(BatchError::Short { need, have: iter.body.len() });
    }
    Ok(iter)
}

/// Checks that a batch whose records are not compressed holds as many as its header says, by their sizes alone: a few
/// nanoseconds each. What is inside a record is not looked at. Compressed records pass.
///
/// # Errors
/// `batch` is no batch, or its records are more or fewer, or end elsewhere than it.
pub fn check_count(batch: &[u8]) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.codec()? != Codec::None {
        return Ok(());
    }
    let mut reader = Reader::new(&batch[HEADER_BYTES..header.size()], true);
    for index in 0..header.records_count {
        let mut skip = || -> Result<(), DecodeError> {
            let missing = DecodeError::Length { what: "record", at: reader.position(), length: -1 };
            let size = size_of_field(&mut reader, "record")?.ok_or(missing)?;
            reader.take("record", size).map(|_| ())
        };
        skip().map_err(|source| BatchError::Record { index, source })?;
    }
    match reader.remaining() {
        0 => Ok(()),
        bytes => Err(BatchError::Trailing { records: header.records_count, bytes }),
    }
}

impl RecordIter {
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Records not read yet.
    fn left(&self) -> usize {
        usize::try_from(self.header.records_count - self.index).expect("`parse` refuses a negative count")
    }

    fn read(&mut self) -> Result<Record, DecodeError> {
        let body = self.body.clone();
        let mut outer = Reader::new(&body, true);
        let size =
            size_of_field(&mut outer, "record")?.ok_or(DecodeError::Length { what: "record", at: 0, length: -1 })?;
        let mut reader = Reader::new(outer.take("record", size)?, true);
        let _attributes = reader.i8("record attributes")?;
        let delta = reader.varlong("timestamp delta")?;
        let offset_delta = reader.varint("offset delta")?;
        let key = nullable_bytes(&mut reader, &body, "record key")?;
        let value = nullable_bytes(&mut reader, &body, "record value")?;
        let headers = headers(&mut reader, &body)?;
        reader.finish("record")?;
        let timestamp = match self.header.timestamp_type() {
            TimestampType::CreateTime => self.header.base_timestamp.wrapping_add(delta),
            TimestampType::LogAppendTime => self.header.max_timestamp,
        };
        self.body = body.slice(outer.position()..);
        Ok(Record { offset_delta, timestamp, key, value, headers })
    }

    /// Makes this error the last item.
    fn end_with(&mut self, error: BatchError) -> BatchError {
        self.index = self.header.records_count;
        self.body.clear();
        error
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left() == 0 {
            let (records, bytes) = (self.header.records_count, self.body.len());
            return (bytes > 0).then(|| Err(self.end_with(BatchError::Trailing { records, bytes })));
        }
        let index = self.index;
        match self.read() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(source) => Some(Err(self.end_with(BatchError::Record { index, source }))),
        }
    }
}

/// A signed length; -1 is null.
fn size_of_field(reader: &mut Reader<'_>, what: &'static str) -> Result<Option<usize>, DecodeError> {
    let at = reader.position();
    let length = reader.varint(what)?;
    match usize::try_from(length) {
        Ok(size) => Ok(Some(size)),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(DecodeError::Length { what, at, length: length.into() }),
    }
}

fn nullable_bytes(reader: &mut Reader<'_>, body: &Bytes, what: &'static str) -> Result<Option<Bytes>, DecodeError> {
    match size_of_field(reader, what)? {
        Some(size) => Ok(Some(body.slice_ref(reader.take(what, size)?))),
        None => Ok(None),
    }
}

fn headers(reader: &mut Reader<'_>, body: &Bytes) -> Result<Vec<(Bytes, Option<Bytes>)>, DecodeError> {
    let what = "record headers";
    let at = reader.position();
    let length = reader.varint(what)?;
    let count = usize::try_from(length).map_err(|_| DecodeError::Length { what, at, length: length.into() })?;
    // A header takes two bytes at least, its two lengths.
    if count > reader.remaining() / 2 {
        let need = count.saturating_mul(2);
        return Err(DecodeError::Short { what, at: reader.position(), need, left: reader.remaining() });
    }
    let mut headers = Vec::new();
    for _ in 0..count {
        let what = "header name";
        let at = reader.position();
        let name = nullable_bytes(reader, body, what)?.ok_or(DecodeError::Length { what, at, length: -1 })?;
        headers.push((name, nullable_bytes(reader, body, "header value")?));
    }
    Ok(headers)
}
