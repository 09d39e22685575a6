//! Fetch responses encoded by hand, in every version, are byte for byte what `kafka-protocol` makes of the same
//! answer; and records are sent by reference.

use bytes::{Bytes, BytesMut};
use forebay_wire::fetch::{EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint};
use forebay_wire::kafka::messages::fetch_response::{self as generated, FetchableTopicResponse, PartitionData};
use forebay_wire::kafka::messages::{BrokerId, FetchResponse as Generated, ProducerId, TopicName};
use forebay_wire::kafka::protocol::StrBytes;
use forebay_wire::{FetchPartition, FetchResponse, FetchTopic, encode_fetch, encode_response};
use proptest::prelude::*;
use uuid::Uuid;

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

/// The same answer in the generated types, which refuse a field that the version lacks.
fn generated(response: &FetchResponse, version: i16) -> Generated {
    let partition = |p: &FetchPartition| {
        let aborted = |(id, offset): &(i64, i64)| {
            generated::AbortedTransaction::default().with_producer_id(ProducerId(*id)).with_first_offset(*offset)
        };
        let mut data = PartitionData::default()
            .with_partition_index(p.index)
            .with_error_code(p.error_code)
            .with_high_watermark(p.high_watermark)
            .with_last_stable_offset(p.last_stable_offset)
            .with_log_start_offset(p.log_start_offset)
            .with_aborted_transactions(p.aborted.as_ref().map(|list| list.iter().map(aborted).collect()))
            .with_records(Some(p.records.concat().into()));
        if version >= 11 {
            data.preferred_read_replica = BrokerId(p.preferred_read_replica);
        }
        if let Some(EpochEndOffset { epoch, end_offset }) = p.diverging_epoch {
            data.diverging_epoch = generated::EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset);
        }
        if let Some(LeaderIdAndEpoch { leader_id, leader_epoch }) = p.current_leader {
            data.current_leader = generated::LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(leader_id))
                .with_leader_epoch(leader_epoch);
        }
        data
    };
    let topic = |t: &FetchTopic| {
        FetchableTopicResponse::default()
            .with_topic(TopicName(text(&t.name)))
            .with_topic_id(t.topic_id)
            .with_partitions(t.partitions.iter().map(partition).collect())
    };
    let node = |n: &NodeEndpoint| {
        generated::NodeEndpoint::default()
            .with_node_id(BrokerId(n.node_id))
            .with_host(text(&n.host))
            .with_port(n.port)
            .with_rack(n.rack.as_deref().map(text))
    };
    let mut out = Generated::default()
        .with_throttle_time_ms(response.throttle_ms)
        .with_error_code(response.error_code)
        .with_responses(response.topics.iter().map(topic).collect())
        .with_node_endpoints(response.node_endpoints.iter().map(node).collect());
    if version >= 7 {
        out.session_id = response.session_id;
    }
    out
}

fn any_partition() -> impl Strategy<Value = FetchPartition> {
    let records = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from), 0..3);
    let number = || prop_oneof![Just(-1), any::<i32>()];
    let epochs = (
        proptest::option::of((number(), number())),
        proptest::option::of((number(), number())),
        proptest::option::of(proptest::collection::vec(any::<(i64, i64)>(), 0..3)),
    );
    (any::<(i32, i16, i64, i64, i64)>(), epochs, number(), records).prop_map(
        |((index, error_code, high_watermark, last_stable_offset, log_start_offset), epochs, replica, records)| {
            FetchPartition {
                index,
                error_code,
                high_watermark,
                last_stable_offset,
                log_start_offset,
                diverging_epoch: epochs
                    .0
                    .map(|(epoch, end_offset)| EpochEndOffset { epoch, end_offset: end_offset.into() }),
                current_leader: epochs.1.map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch }),
                aborted: epochs.2,
                preferred_read_replica: replica,
                records,
            }
        },
    )
}

fn any_response() -> impl Strategy<Value = FetchResponse> {
    let topic = (".{0,9}", any::<u128>(), proptest::collection::vec(any_partition(), 0..4))
        .prop_map(|(name, id, partitions)| FetchTopic { name, topic_id: Uuid::from_u128(id), partitions });
    let node = (any::<i32>(), ".{0,9}", any::<i32>(), proptest::option::of(".{0,9}"))
        .prop_map(|(node_id, host, port, rack)| NodeEndpoint { node_id, host, port, rack });
    (any::<(i32, i16, i32)>(), proptest::collection::vec(topic, 0..3), proptest::collection::vec(node, 0..3)).prop_map(
        |((throttle_ms, error_code, session_id), topics, node_endpoints)| FetchResponse {
            throttle_ms,
            error_code,
            session_id,
            topics,
            node_endpoints,
        },
    )
}

proptest! {
    #[test]
    fn every_version_is_what_the_generated_code_makes(response in any_response(), correlation_id in any::<i32>()) {
        for version in 4..=17 {
            let ours = encode_fetch(correlation_id, version, &response).expect("small").concat();
            let theirs = encode_response(correlation_id, version, &generated(&response, version)).expect("legal");
            prop_assert_eq!(&ours[..], &theirs[..], "version {}", version);
        }
    }
}

#[test]
fn records_are_sent_by_reference_and_in_place() {
    let records = [vec![1; 1_000], vec![2; 2_000], vec![3; 3_000]].map(Bytes::from);
    let with =
        |index, records: &[Bytes]| FetchPartition { records: records.to_vec(), ..FetchPartition::error(index, 0) };
    let partitions = vec![with(0, &records[..2]), with(1, &[]), with(2, &records[2..])];
    let topics = vec![FetchTopic { name: "t".into(), topic_id: Uuid::nil(), partitions }];
    let pieces = encode_fetch(1, 12, &FetchResponse { topics, ..FetchResponse::default() }).expect("small");
    for part in &records {
        assert!(pieces.iter().any(|p| p.as_ptr() == part.as_ptr() && p.len() == part.len()), "not copied");
    }
    let size: usize = pieces.iter().map(Bytes::len).sum();
    assert_eq!(pieces[0][..4], i32::try_from(size - 4).expect("small").to_be_bytes(), "the frame's size comes first");
    assert!(pieces.iter().all(|p| !p.is_empty()), "no piece is empty: a write of nothing looks like an end");
}

#[test]
fn an_answer_without_records_is_one_piece() {
    let pieces = encode_fetch(7, 4, &FetchResponse::default()).expect("small");
    assert_eq!(pieces, [Bytes::from_static(&[0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0])]);
    for version in [3, 18] {
        let error = encode_fetch(7, version, &FetchResponse::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("FetchResponse has no version {version}"));
    }
    let _: BytesMut = encode_response(7, 18, &Generated::default()).expect("the generated code goes further");
}
