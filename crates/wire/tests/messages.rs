//! Messages of the generated types with their headers, as bytes a client would see.

use bytes::{Buf, Bytes, BytesMut};
use forebay_wire::kafka::messages::api_versions_response::ApiVersion;
use forebay_wire::kafka::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse, MetadataRequest,
};
use forebay_wire::message::REQUEST_BYTES_MAX;
use forebay_wire::{
    decode_request, decode_request_header, decode_response, encode_request, encode_response, peek_correlation_id,
};

fn api_versions() -> ApiVersionsResponse {
    let key = ApiVersion::default().with_api_key(18).with_min_version(0).with_max_version(4);
    ApiVersionsResponse::default().with_api_keys(vec![key])
}

#[test]
fn an_api_versions_response_has_no_tagged_fields_that_old_librdkafka_would_trip_over() {
    // Size; correlation id, and no tag byte after it in any version; no error; one key; no throttle; no tagged fields.
    let v3 = [&[0, 0, 0, 19, 0, 0, 0, 7][..], &[0, 0], &[2, 0, 18, 0, 0, 0, 4, 0], &[0, 0, 0, 0], &[0]].concat();
    assert_eq!(encode_response(7, 3, &api_versions()).expect("legal"), v3);
    let v0 = [&[0, 0, 0, 16, 0, 0, 0, 7][..], &[0, 0], &[0, 0, 0, 1, 0, 18, 0, 0, 0, 4]].concat();
    assert_eq!(encode_response(7, 0, &api_versions()).expect("legal"), v0);
}

#[test]
fn other_flexible_responses_have_a_tag_byte_after_the_correlation_id() {
    let response = HeartbeatResponse::default().with_error_code(27);
    assert_eq!(
        encode_response(1, 4, &response).expect("legal"),
        &[0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 27, 0][..]
    );
    assert_eq!(encode_response(1, 3, &response).expect("legal"), &[0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 27][..]);
}

#[test]
fn a_request_is_read_as_it_was_sent() {
    for version in 0..=4 {
        let request = HeartbeatRequest::default().with_generation_id(5).with_member_id("m".into());
        let mut frame = encode_request(9, Some("client"), version, &request).expect("legal");
        assert_eq!(usize::try_from(frame.get_i32()), Ok(frame.len()), "the size comes first");
        let header = decode_request_header(&mut frame).expect("sent above");
        assert_eq!((header.api_key, header.api_version, header.correlation_id), (ApiKey::Heartbeat as i16, version, 9));
        assert_eq!(header.client_id.as_deref(), Some("client"));
        let read: HeartbeatRequest = decode_request(frame.freeze(), version).expect("sent above");
        assert_eq!(read, request);
    }
}

#[test]
fn a_response_is_read_as_it_was_sent() {
    for version in 0..=4 {
        let mut frame = encode_response(9, version, &api_versions()).expect("legal").freeze();
        frame.advance(4);
        assert_eq!(peek_correlation_id(&frame).expect("long enough"), 9);
        let (correlation_id, read) = decode_response::<ApiVersionsResponse>(frame, version).expect("sent above");
        assert_eq!((correlation_id, read), (9, api_versions()));
    }
}

#[test]
fn what_does_not_fit_says_what_and_why() {
    let body = Bytes::from_static(&[0, 0, 0, 0, 1]);
    let request = decode_request::<MetadataRequest>(body.clone(), 3).expect("what follows a request is not looked at");
    assert_eq!(request.topics, Some(Vec::new()));
    let large = Bytes::from(vec![0; REQUEST_BYTES_MAX + 1]);
    let error = decode_request::<MetadataRequest>(large, 3).unwrap_err();
    assert_eq!(error.to_string(), "MetadataRequest of 8388609 bytes is larger than the 8388608 bytes allowed");
    let error = decode_request::<MetadataRequest>(body, 99).unwrap_err();
    assert_eq!(error.to_string(), "cannot decode MetadataRequest of version 99");
    let request = ApiVersionsRequest::default();
    let error = encode_request(1, None, 99, &request).unwrap_err();
    assert_eq!(error.to_string(), "cannot encode ApiVersionsRequest in version 99");
    let mut empty = BytesMut::new();
    assert!(decode_request_header(&mut empty).is_err());
}
