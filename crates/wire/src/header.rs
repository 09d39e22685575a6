//! Request headers: which API, which version, which request of the connection, whose.
//!
//! Owns: header versions 1 and 2. Leaves to others: whether this broker serves the API and version (`api`), except
//! that a key no Kafka of this generation has is an error here, since its header's form is unknown.
//!
//! Header 2 (from an API's first flexible version) adds tagged fields; its client id stays in the old spelling. A
//! version that does not exist is no error here: `ApiVersions` must answer it, in version 0 (KIP-511).
//!
//! Source: `RequestHeader.json`, `ApiMessageType.requestHeaderVersion`.

use bytes::{Buf, BytesMut};
use kafka_protocol::messages::ApiKey;

use crate::DecodeError;
use crate::reader::Reader;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
}

/// Takes the header off the front of `frame`; what stays is the request's body.
///
/// # Errors
/// The caller closes the connection, as Kafka does: there is no correlation id to answer to, or no known form.
pub fn decode_request_header(frame: &mut BytesMut) -> Result<RequestHeader, DecodeError> {
    let mut reader = Reader::new(frame, false);
    let api_key = reader.i16("api key")?;
    let api_version = reader.i16("api version")?;
    let header_version = ApiKey::try_from(api_key)
        .map_err(|()| DecodeError::UnknownApi { api_key, api_version })?
        .request_header_version(api_version);
    let correlation_id = reader.i32("correlation id")?;
    let client_id = reader.nullable_string("client id")?.map(str::to_owned);
    let mut reader = reader.with_flexible(header_version >= 2);
    reader.skip_tagged_fields("request header's tagged fields")?;
    let size = reader.position();
    frame.advance(size);
    Ok(RequestHeader { api_key, api_version, correlation_id, client_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> (Result<RequestHeader, DecodeError>, usize) {
        let mut frame = BytesMut::from(bytes);
        (decode_request_header(&mut frame), frame.len())
    }

    #[test]
    fn the_header_of_a_flexible_version_has_tagged_fields() {
        // Produce: version 8 is the last without, version 9 the first with them. One unknown tag is skipped.
        let (header, left) = decode(&[0, 0, 0, 8, 0, 0, 0, 7, 0, 1, b'c', 0xaa]);
        let want = RequestHeader { api_key: 0, api_version: 8, correlation_id: 7, client_id: Some("c".into()) };
        assert_eq!((header.expect("legal"), left), (want, 1));
        let (header, left) = decode(&[0, 0, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 1, 5, 2, 9, 9, 0xaa]);
        let want = RequestHeader { api_key: 0, api_version: 9, correlation_id: 7, client_id: None };
        assert_eq!((header.expect("legal"), left), (want, 1));
    }

    #[test]
    fn a_version_of_the_future_still_has_a_header() {
        let (header, left) = decode(&[0, 18, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 0, 3, 3]);
        assert_eq!((header.expect("ApiVersions must be answered").api_version, left), (99, 2));
    }

    #[test]
    fn a_key_nobody_has_is_an_error() {
        let (header, _) = decode(&[0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
        assert_eq!(header.unwrap_err().to_string(), "no API has the key 32512 (request version 0)");
        let (header, _) = decode(&[0, 18, 0]);
        assert_eq!(header.unwrap_err().to_string(), "api version needs 2 bytes at position 2, 1 are left");
    }
}
