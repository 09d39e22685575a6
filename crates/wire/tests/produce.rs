//! Produce requests encoded by `kafka-protocol`, in every version, are read by hand to the same request; and the
//! records are the frame's own bytes, to be written to.

use bytes::{Bytes, BytesMut};
use forebay_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use forebay_wire::kafka::messages::{ProduceRequest as Generated, TopicName, TransactionalId};
use forebay_wire::kafka::protocol::{Encodable, StrBytes};
use forebay_wire::message::REQUEST_BYTES_MAX;
use forebay_wire::{ProducePartition, ProduceRequest, ProduceTopic, decode_produce, fuzz};
use proptest::prelude::*;
use uuid::Uuid;

fn generated(request: &ProduceRequest) -> Generated {
    let partition = |p: &ProducePartition| {
        let records = p.records.as_ref().map(|r| Bytes::copy_from_slice(r));
        PartitionProduceData::default().with_index(p.index).with_records(records)
    };
    let topic = |t: &ProduceTopic| {
        TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(t.name.clone())))
            .with_topic_id(t.topic_id.unwrap_or_default())
            .with_partition_data(t.partitions.iter().map(partition).collect())
            .with_unknown_tagged_field(7, Bytes::from_static(b"of the future"))
    };
    Generated::default()
        .with_transactional_id(request.transactional_id.clone().map(|id| TransactionalId(StrBytes::from_string(id))))
        .with_acks(request.acks)
        .with_timeout_ms(request.timeout_ms)
        .with_topic_data(request.topics.iter().map(topic).collect())
}

fn encode(request: &ProduceRequest, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    generated(request).encode(&mut body, version).expect("every field is in every version");
    body
}

fn any_request(version: i16) -> impl Strategy<Value = ProduceRequest> {
    let records = prop_oneof![Just(0..1usize), Just(0..100), Just(5_000..9_000)]
        .prop_flat_map(|size| proptest::collection::vec(any::<u8>(), size));
    let partition = (any::<i32>(), proptest::option::of(records))
        .prop_map(|(index, records)| ProducePartition { index, records: records.map(|r| BytesMut::from(&*r)) });
    let topic = (".{0,9}", any::<u128>(), proptest::collection::vec(partition, 0..4)).prop_map(
        move |(name, id, partitions)| match version {
            13.. => ProduceTopic { name: String::new(), topic_id: Some(Uuid::from_u128(id)), partitions },
            _ => ProduceTopic { name, topic_id: None, partitions },
        },
    );
    (proptest::option::of(".{0,9}"), any::<i16>(), any::<i32>(), proptest::collection::vec(topic, 0..4)).prop_map(
        |(transactional_id, acks, timeout_ms, topics)| ProduceRequest { transactional_id, acks, timeout_ms, topics },
    )
}

fn version_and_request() -> impl Strategy<Value = (i16, ProduceRequest)> {
    (3..=13i16).prop_flat_map(|version| (Just(version), any_request(version)))
}

proptest! {
    #[test]
    fn what_the_generated_code_writes_is_read_by_hand((version, request) in version_and_request()) {
        let read = decode_produce(encode(&request, version), version).expect("encoded above");
        prop_assert_eq!(read, request);
    }

    /// A damaged request is refused, or read as the generated code reads it (the fuzz target compares).
    #[test]
    fn damage_never_panics(
        (version, request) in version_and_request(),
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut data = vec![u8::try_from(version).expect("small")];
        data.extend(encode(&request, version));
        for (at, byte) in at {
            let at = at.index(data.len() - 1) + 1;
            data[at] = byte;
        }
        fuzz::produce(&data);
    }
}

fn one_topic(records: &[&[u8]]) -> ProduceRequest {
    let partition =
        |(index, records): (i32, &&[u8])| ProducePartition { index, records: Some(BytesMut::from(*records)) };
    let partitions = (0..).zip(records).map(partition).collect();
    let topics = vec![ProduceTopic { name: "t".into(), topic_id: None, partitions }];
    ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 1, topics }
}

#[test]
fn large_records_are_the_frames_own_bytes_and_small_ones_a_copy() {
    // Two large partitions and one small; each can be written to while the others live.
    let body = encode(&one_topic(&[&vec![1; 50_000], &[2; 100], &[3; 5_000]]), 9);
    let frame = body.as_ptr().addr()..body.as_ptr().addr() + body.len();
    let mut request = decode_produce(body, 9).expect("encoded above");
    let partitions = &mut request.topics[0].partitions;
    let inside: Vec<bool> =
        partitions.iter().map(|p| frame.contains(&p.records.as_ref().expect("sent").as_ptr().addr())).collect();
    assert_eq!(inside, [true, false, true]);
    for partition in partitions.iter_mut() {
        partition.records.as_mut().expect("sent")[0] = 9;
    }
    let sums = partitions.iter().map(|p| p.records.iter().flatten().map(|b| u32::from(*b)).sum::<u32>());
    assert_eq!(sums.collect::<Vec<_>>(), [50_008, 207, 15_006]);
}

#[test]
fn what_is_no_request_says_why() {
    let why = |body: &[u8], version| decode_produce(BytesMut::from(body), version).unwrap_err().to_string();
    assert_eq!(why(&[], 2), "ProduceRequest has no version 2");
    assert_eq!(why(&[], 14), "ProduceRequest has no version 14");
    let body = encode(&one_topic(&[&[1; 9]]), 3);
    assert_eq!(why(&body[..body.len() - 1], 3), "records needs 9 bytes at position 27, 8 are left");
    let trailing = [&body[..], &[0]].concat();
    let whole = decode_produce(BytesMut::from(&trailing[..]), 3).expect("what follows is not looked at");
    assert_eq!(whole.topics.len(), 1);
    let much = [&body[..], &vec![0; REQUEST_BYTES_MAX]].concat();
    assert!(why(&much, 3).contains("larger than"), "it counts as what is around the records does");
    let no_topics = [0xff, 0xff, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(why(&no_topics, 3), "topics at position 8 has the impossible length -1");
}

#[test]
fn records_may_be_large_but_not_what_is_around_them() {
    let large = vec![7; REQUEST_BYTES_MAX + 1];
    let request = one_topic(&[&large]);
    assert_eq!(decode_produce(encode(&request, 9), 9).expect("encoded above"), request);
    let empty = ProduceTopic { name: "x".repeat(1_000), topic_id: None, partitions: Vec::new() };
    let topics = vec![empty; REQUEST_BYTES_MAX / 1_000 + 1];
    let error = decode_produce(encode(&ProduceRequest { topics, ..request }, 3), 3).unwrap_err();
    assert!(error.to_string().ends_with("is larger than the 8388608 bytes allowed"), "{error}");
}
