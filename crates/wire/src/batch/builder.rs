//! Makes batches: for coordinators' records, for the client, for a topic that forces its own codec.
//!
//! Invariant: what it makes, `BatchHeader::parse`, `check_crc` and `records` accept.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    ATTRIBUTES_AT, BatchError, BatchHeader, CONTROL, CRC_AT, HEADER_BYTES, LENGTH_END, MAGIC, MAGIC_AT, TRANSACTIONAL,
    crc, put,
};
use crate::{Codec, varint};

/// A batch being filled. The base offset is 0 and the leader epoch -1, as clients send them.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    attributes: i16,
    codec: Codec,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: i32,
    body: BytesMut,
}

impl BatchBuilder {
    /// A batch without a producer, not compressed. Timestamps are stored relative to `base_timestamp`, which is the
    /// first record's by convention.
    pub fn new(base_timestamp: i64) -> Self {
        Self {
            attributes: 0,
            codec: Codec::None,
            base_timestamp,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
            body: BytesMut::new(),
        }
    }

    /// Makes it an idempotent producer's; `base_sequence` is the first record's, -1 for none.
    #[must_use]
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = producer_id;
        self.producer_epoch = producer_epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes it part of its producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes |= TRANSACTIONAL;
        self
    }

    /// Makes its records control records.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes |= CONTROL;
        self
    }

    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Adds a record; its offset is one past the one before.
    ///
    /// # Panics
    /// When a batch has more records or bytes than the format can say (2^31): callers cut batches far below.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let delta = timestamp.wrapping_sub(self.base_timestamp);
        let header_count = length(headers.len());
        let mut size = 1 + varint::long_size(delta) + varint::size(self.count);
        size += field_size(key) + field_size(value) + varint::size(header_count);
        for (name, value) in headers {
            size += field_size(Some(name)) + field_size(*value);
        }
        varint::put(&mut self.body, length(size));
        let record_start = self.body.len();
        self.body.put_i8(0);
        varint::put_long(&mut self.body, delta);
        varint::put(&mut self.body, self.count);
        put_field(&mut self.body, key);
        put_field(&mut self.body, value);
        varint::put(&mut self.body, header_count);
        for (name, value) in headers {
            put_field(&mut self.body, Some(name));
            put_field(&mut self.body, *value);
        }
        assert_eq!(self.body.len() - record_start, size, "a record is as long as it says");
        self.count = self.count.checked_add(1).expect("a batch is cut long before 2^31 records");
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        usize::try_from(self.count).expect("counts up from 0")
    }

    /// Bytes of the batch so far, before compression.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The finished batch.
    ///
    /// # Panics
    /// Without a record: only compaction makes empty batches.
    pub fn build(self) -> BytesMut {
        assert!(self.count > 0, "a batch has at least one record");
        let mut batch = BytesMut::with_capacity(self.size());
        batch.put_i64(0);
        batch.put_i32(0);
        batch.put_i32(-1);
        batch.put_i8(MAGIC);
        batch.put_u32(0);
        batch.put_i16(self.attributes | self.codec.attributes());
        batch.put_i32(self.count - 1);
        batch.put_i64(self.base_timestamp);
        batch.put_i64(self.max_timestamp);
        batch.put_i64(self.producer_id);
        batch.put_i16(self.producer_epoch);
        batch.put_i32(self.base_sequence);
        batch.put_i32(self.count);
        assert_eq!(batch.len(), HEADER_BYTES, "a header is as long as it is");
        match self.codec {
            Codec::None => batch.put_slice(&self.body),
            codec => batch.put_slice(&codec.compress(&self.body)),
        }
        seal(&mut batch);
        batch
    }
}

/// The same batch with its records in another codec (`compression.type` other than `producer`), and so with a new
/// length and checksum; all else is kept, compaction's gaps included.
///
/// # Errors
/// `batch` is no batch, or its records cannot be decompressed into `limit_bytes`.
pub fn recompress(batch: &Bytes, codec: Codec, limit_bytes: usize) -> Result<BytesMut, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let old = header.codec()?;
    let body = batch.slice(HEADER_BYTES..header.size());
    let body = if old == codec { body } else { codec.compress(&old.decompress(&body, limit_bytes)?).into() };
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    out.put_slice(&batch[..HEADER_BYTES]);
    out.put_slice(&body);
    let attributes = header.attributes ^ old.attributes() ^ codec.attributes();
    put(&mut out, ATTRIBUTES_AT, attributes.to_be_bytes());
    seal(&mut out);
    Ok(out)
}

/// Fills in a batch's length and checksum.
fn seal(batch: &mut [u8]) {
    let size = length(batch.len() - LENGTH_END);
    put(batch, LENGTH_END - 4, size.to_be_bytes());
    let crc = crc(batch);
    put(batch, CRC_AT, crc.to_be_bytes());
    assert_eq!(batch[MAGIC_AT].cast_signed(), MAGIC, "the fields lie where they belong");
}

fn field_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(varint::size(-1), |b| varint::size(length(b.len())) + b.len())
}

fn put_field(buf: &mut BytesMut, bytes: Option<&[u8]>) {
    varint::put(buf, bytes.map_or(-1, |b| length(b.len())));
    buf.put_slice(bytes.unwrap_or_default());
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a batch is cut long before 2^31 bytes")
}
