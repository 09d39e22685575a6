//! Whole messages of the generated types: requests and responses, with their headers.
//!
//! Owns: the size prefix, the header a response's version asks for, and that nothing trails a request. Leaves to
//! others: `ProduceRequest` and `FetchResponse`, which carry records and are coded by hand (`produce`, `fetch`).
//!
//! `ApiVersions` responses have header version 0 in every version, so that a client which does not know what the
//! broker speaks can read them (KIP-511); the generated `HeaderVersion` says so.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::reader::Reader;
use crate::{DecodeError, EncodeError};

/// The most bytes of a request, records aside, that become lists and strings. Decoded, tiny items take up to 130 times
/// their bytes on the wire (`tests/hostile.rs` measures), so the 100 MiB that a request may have would become 13 GiB.
/// The largest honest requests, a group's assignments or 100,000 topics by name, take a few MiB.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A request's body, as it follows the header.
///
/// The result's strings and bytes are parts of `body`: what outlives the request should be copied out of it.
///
/// # Errors
/// The body is not one of this type and version, or larger than [`REQUEST_BYTES_MAX`]; the caller closes the
/// connection.
pub fn decode_request<T: Decodable>(body: Bytes, version: i16) -> Result<T, DecodeError> {
    if body.len() > REQUEST_BYTES_MAX {
        return Err(DecodeError::Size { what: name::<T>(), bytes: body.len(), limit: REQUEST_BYTES_MAX });
    }
    // What follows is nobody's: as Kafka, which never looks, since librdkafka 2.12 sends three bytes too many.
    decode(body, version).map(|(request, _)| request)
}

/// A response as a frame, size included.
///
/// # Errors
/// `response` has a field set that `version` lacks.
pub fn encode_response<T: Encodable + HeaderVersion>(
    correlation_id: i32,
    version: i16,
    response: &T,
) -> Result<BytesMut, EncodeError> {
    let mut header = BytesMut::with_capacity(9);
    header.put_i32(0);
    header.put_i32(correlation_id);
    if T::header_version(version) >= 1 {
        header.put_u8(0);
    }
    encode(header, version, response)
}

/// A request as a frame, size included.
///
/// # Errors
/// `request` has a field set that `version` lacks.
pub fn encode_request<T: Request>(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    request: &T,
) -> Result<BytesMut, EncodeError> {
    let mut frame = BytesMut::with_capacity(64);
    frame.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(T::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(client_id.map(|id| StrBytes::from_string(id.to_owned())))
        .encode(&mut frame, T::header_version(version))
        .map_err(|e| EncodeError::Message { what: "request header", version, source: e.into() })?;
    encode(frame, version, request)
}

/// The correlation id that a response's frame (without its size) begins with, whatever follows.
///
/// # Errors
/// The frame is shorter than that.
pub fn peek_correlation_id(frame: &[u8]) -> Result<i32, DecodeError> {
    Reader::new(frame, false).i32("correlation id")
}

/// A response's correlation id and body from its frame (without its size).
///
/// # Errors
/// The frame is no response of this type and version.
pub fn decode_response<T: Decodable + HeaderVersion>(mut frame: Bytes, version: i16) -> Result<(i32, T), DecodeError> {
    let mut reader = Reader::new(&frame, T::header_version(version) >= 1);
    let correlation_id = reader.i32("correlation id")?;
    reader.skip_tagged_fields("response header's tagged fields")?;
    let body = frame.split_off(reader.position());
    match decode(body, version)? {
        (response, 0) => Ok((correlation_id, response)),
        (_, bytes) => Err(DecodeError::Trailing { what: name::<T>(), bytes }),
    }
}

/// The message, and how many bytes follow it.
fn decode<T: Decodable>(mut body: Bytes, version: i16) -> Result<(T, usize), DecodeError> {
    let what = name::<T>();
    let message =
        T::decode(&mut body, version).map_err(|e| DecodeError::Message { what, version, source: e.into() })?;
    Ok((message, body.len()))
}

/// Appends `message` to a frame whose first four bytes are kept for its size, and fills those in.
fn encode<T: Encodable>(mut frame: BytesMut, version: i16, message: &T) -> Result<BytesMut, EncodeError> {
    let what = name::<T>();
    message
        .compute_size(version)
        .and_then(|size| {
            frame.reserve(size);
            message.encode(&mut frame, version)
        })
        .map_err(|e| EncodeError::Message { what, version, source: e.into() })?;
    put_size(&mut frame, what)?;
    Ok(frame)
}

/// Fills in the size of a frame that is whole.
pub(crate) fn put_size(frame: &mut BytesMut, what: &'static str) -> Result<(), EncodeError> {
    let bytes = frame.len() - 4;
    let size = i32::try_from(bytes).map_err(|_| EncodeError::Size { what, bytes })?;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

/// A message's name without its path.
fn name<T>() -> &'static str {
    let path = std::any::type_name::<T>();
    path.rsplit("::").next().unwrap_or(path)
}
