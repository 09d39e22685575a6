//! The produce request, decoded by hand: its records are not copied.
//!
//! Owns: versions 3 to 13 of `ProduceRequest.json` (flexible from 9, topic ids instead of names in 13). Leaves to
//! others: what the records are (`batch`), and whether a version is served (`api`).
//!
//! Invariants:
//! 1. Each `records` is a part of the frame that nobody else can reach, so the broker may write its base offset and
//!    leader epoch into it.
//! 2. What is not records is at most [`REQUEST_BYTES_MAX`] bytes, as in any other request.
//! 3. Records of at most [`COPY_MAX`] bytes are copied instead: kept by reference, so little would keep the whole
//!    read buffer in memory.

use std::ops::Range;

use bytes::{Buf, BytesMut};
use uuid::Uuid;

use crate::DecodeError;
use crate::message::REQUEST_BYTES_MAX;
use crate::reader::Reader;

/// Records up to this size are copied out of the frame: a copy of so little costs less than what it would pin.
const COPY_MAX: usize = 4 * 1024;

const WHAT: &str = "ProduceRequest";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    pub transactional_id: Option<String>,
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<ProduceTopic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic {
    /// Empty from version 13 on.
    pub name: String,
    /// From version 13 on.
    pub topic_id: Option<Uuid>,
    pub partitions: Vec<ProducePartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition {
    pub index: i32,
    /// The record batches as the client sent them, not looked at yet. `None` where the client sent null.
    pub records: Option<BytesMut>,
}

/// Decodes a produce request from its body, which is what [`decode_request_header`](crate::decode_request_header)
/// leaves of a frame.
///
/// # Errors
/// The body is no produce request of this version; the caller closes the connection.
pub fn decode_produce(mut body: BytesMut, version: i16) -> Result<ProduceRequest, DecodeError> {
    let (mut request, ranges) = parse(&body, version)?;
    let mut position = 0;
    let partitions = request.topics.iter_mut().flat_map(|t| &mut t.partitions);
    for (partition, range) in partitions.zip(ranges) {
        let Some(Range { start, end }) = range else { continue };
        body.advance(start - position);
        partition.records = Some(if end - start <= COPY_MAX {
            let copy = BytesMut::from(&body[..end - start]);
            body.advance(end - start);
            copy
        } else {
            body.split_to(end - start)
        });
        position = end;
    }
    Ok(request)
}

/// Where each partition's records lie in the body, in order.
type Ranges = Vec<Option<Range<usize>>>;

/// The request without its records, and where those are.
fn parse(body: &[u8], version: i16) -> Result<(ProduceRequest, Ranges), DecodeError> {
    if !(3..=13).contains(&version) {
        return Err(DecodeError::Version { what: WHAT, version });
    }
    let flexible = version >= 9;
    let mut reader = Reader::new(body, flexible);
    let transactional_id = reader.nullable_string("transactional id")?.map(str::to_owned);
    let acks = reader.i16("acks")?;
    let timeout_ms = reader.i32("timeout")?;
    // The least a topic takes: an empty name and no partitions; a partition: its index and null records.
    let topics = reader.array_length("topics", 2)?;
    let mut request = ProduceRequest { transactional_id, acks, timeout_ms, topics: room(topics) };
    let mut ranges = Ranges::new();
    let mut records_bytes = 0;
    for _ in 0..topics {
        let (name, topic_id) = if version >= 13 {
            (String::new(), Some(reader.uuid("topic id")?))
        } else {
            (reader.string("topic name")?.to_owned(), None)
        };
        let partitions = reader.array_length("partitions", 5)?;
        let mut topic = ProduceTopic { name, topic_id, partitions: room(partitions) };
        for _ in 0..partitions {
            let index = reader.i32("partition index")?;
            let range = reader.nullable_bytes_range("records")?;
            records_bytes += range.as_ref().map_or(0, ExactSizeIterator::len);
            ranges.push(range);
            reader.skip_tagged_fields("partition's tagged fields")?;
            check_size(reader.position() - records_bytes)?;
            topic.partitions.push(ProducePartition { index, records: None });
        }
        reader.skip_tagged_fields("topic's tagged fields")?;
        check_size(reader.position() - records_bytes)?;
        request.topics.push(topic);
    }
    reader.skip_tagged_fields("request's tagged fields")?;
    // What follows is not looked at, as in every request, and counts all the same.
    check_size(body.len() - records_bytes)?;
    Ok((request, ranges))
}

/// Refuses to go on reading where lists of many small items would take many times their bytes.
fn check_size(bytes: usize) -> Result<(), DecodeError> {
    if bytes <= REQUEST_BYTES_MAX {
        Ok(())
    } else {
        Err(DecodeError::Size { what: "ProduceRequest without its records", bytes, limit: REQUEST_BYTES_MAX })
    }
}

/// Room for a claimed number of items, as far as it is small; beyond that the list grows as items are really there.
fn room<T>(items: usize) -> Vec<T> {
    const ITEMS_MAX: usize = 64;
    Vec::with_capacity(items.min(ITEMS_MAX))
}
