//! Kafka's wire protocol: frames, headers, messages, record batches, error codes.
//!
//! Owns: every byte that Kafka clients send and expect. The hot messages (produce request, fetch response) and record
//! batches are coded by hand so that records are never copied; all others are `kafka-protocol`'s generated types.
//! Leaves to others: what a request means and what to answer (`api`), our own formats (`format`), sockets (`env`).
//!
//! Invariants:
//! 1. Bytes from outside are parsed, never asserted: any input gives a value or an error, never a panic.
//! 2. No length, count or size from outside reserves memory before it is checked against the bytes that are there
//!    (or, for decompression, against the caller's limit).
//! 3. Integers are raw here, as Kafka sends them, `-1` sentinels included; callers turn them into `forebay-types`.
//! 4. A tagged field is written only where it differs from its default: librdkafka before 2.2.0 skips tags wrongly.
//!
//! Sources: Kafka's message schemas (`clients/src/main/resources/common/message`), `DefaultRecordBatch`,
//! `DefaultRecord`, `EndTransactionMarker`, `Errors`; KIP-98 (batch format), KIP-482 (tagged fields).

pub mod batch;
pub mod compression;
mod error;
mod error_code;
pub mod fetch;
pub mod frame;
pub mod fuzz;
pub mod header;
pub mod message;
pub mod produce;
mod reader;
mod varint;

pub use batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, Batches, Marker, MarkerKind, Record, RecordIter, TimestampType,
};
pub use compression::{Codec, CompressionError};
pub use error::{DecodeError, EncodeError};
pub use error_code::{ErrorCode, UnknownErrorCode};
pub use fetch::{FetchPartition, FetchResponse, FetchTopic, encode_fetch};
pub use frame::{FrameError, FrameHead, peek_frame, read_frame};
pub use header::{RequestHeader, decode_request_header};
pub use kafka_protocol as kafka;
pub use message::{decode_request, decode_response, encode_request, encode_response, peek_correlation_id};
pub use produce::{ProducePartition, ProduceRequest, ProduceTopic, decode_produce};
