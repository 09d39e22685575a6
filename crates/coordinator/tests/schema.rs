//! Kafka's record schemas: the very bytes, every version, and whatever else comes along. The bytes here were read and
//! written again unchanged by the generated classes of Kafka 4.3.1.

use bytes::Bytes;
use forebay_coordinator::schema::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue, OffsetsKey,
    TransactionLogKey, TransactionLogTopic, TransactionLogValue,
};
use forebay_types::TopicName;
use proptest::prelude::*;

/// Bytes from hex digits; blanks set fields apart.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).expect("hex")).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn offset_value() -> OffsetCommitValue {
    OffsetCommitValue {
        offset: 258,
        leader_epoch: 3,
        metadata: "m".to_owned(),
        commit_timestamp: 1,
        expire_timestamp: -1,
        topic_id: [0; 16],
    }
}

fn group_value() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".to_owned(),
        generation: 7,
        protocol: Some("range".to_owned()),
        leader: Some("m1".to_owned()),
        current_state_timestamp: 9,
        members: vec![MemberMetadata {
            member_id: "m1".to_owned(),
            instance_id: Some("i".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
            rebalance_timeout_ms: 5,
            session_timeout_ms: 6,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        }],
    }
}

fn transaction_value() -> TransactionLogValue {
    TransactionLogValue {
        producer_id: 1000,
        previous_producer_id: -1,
        next_producer_id: -1,
        producer_epoch: 2,
        timeout_ms: 60_000,
        status: 1,
        partitions: Some(vec![TransactionLogTopic { topic: "t".to_owned(), partitions: vec![0, 5] }]),
        last_update_ms: 11,
        start_ms: 10,
        client_transaction_version: 0,
    }
}

#[test]
fn keys_are_kafkas_bytes() {
    // version, then strings with a 16-bit length, all big-endian.
    let topic = TopicName::new("t").expect("legal");
    assert_eq!(OffsetCommitKey::encode("g", "t", 5), hex("0001 0001 67 0001 74 00000005"));
    assert_eq!(GroupMetadataKey::encode("gr"), hex("0002 0002 6772"));
    assert_eq!(TransactionLogKey::encode("x"), hex("0000 0001 78"));
    let offset = OffsetCommitKey { group: "g".to_owned(), topic, partition: 5 };
    for version in ["0000", "0001"] {
        let bytes = hex(&format!("{version} 0001 67 0001 74 00000005"));
        assert_eq!(OffsetsKey::parse(&bytes), Ok(OffsetsKey::Offset(offset.clone())));
    }
    let group = GroupMetadataKey { group: "gr".to_owned() };
    assert_eq!(OffsetsKey::parse(&hex("0002 0002 6772")), Ok(OffsetsKey::Group(group)));
    assert_eq!(OffsetsKey::parse(&hex("0003 0001 67")), Ok(OffsetsKey::Unknown { version: 3 }));
    assert_eq!(TransactionLogKey::parse(&hex("0000 0001 78")).map(|key| key.transactional_id), Ok("x".to_owned()));
}

#[test]
fn offset_values_of_every_version() {
    let plain = offset_value();
    let old = OffsetCommitValue { leader_epoch: -1, ..plain.clone() };
    let expiring = OffsetCommitValue { expire_timestamp: 2, ..old.clone() };
    let versions = [
        ("0000 0000000000000102 0001 6d 0000000000000001", &old),
        ("0001 0000000000000102 0001 6d 0000000000000001 0000000000000002", &expiring),
        ("0002 0000000000000102 0001 6d 0000000000000001", &old),
        ("0003 0000000000000102 00000003 0001 6d 0000000000000001", &plain),
        ("0004 0000000000000102 00000003 02 6d 0000000000000001 00", &plain),
    ];
    for (bytes, value) in versions {
        assert_eq!(OffsetCommitValue::parse(&hex(bytes)).as_ref(), Ok(value), "{bytes}");
    }
    assert_eq!(plain.encode(), hex(versions[3].0), "version 3 is written");
    assert_eq!(expiring.encode(), hex(versions[1].0), "or 1 with an expiry");
    let id = "000102030405060708090a0b0c0d0e0f";
    let tagged = hex(&format!("0004 0000000000000102 00000003 02 6d 0000000000000001 02 00 10 {id} 07 01 ff"));
    let tagged = OffsetCommitValue::parse(&tagged).expect("the topic's id, and a tag of a later Kafka");
    assert_eq!(tagged.topic_id[..], hex(id));
}

#[test]
fn group_values_of_every_version() {
    let now = group_value();
    let member = |instance: &str, rebalance: &str| {
        format!("0002 6d31 {instance} 0001 63 0002 2f68 {rebalance} 00000006 00000002 0102 00000001 03")
    };
    let group = |version, time: &str, member: &str| {
        hex(&format!("{version} 0008 636f6e73756d6572 00000007 0005 72616e6765 0002 6d31 {time} 00000001 {member}"))
    };
    let mut value = now.clone();
    let v3 = group("0003", "0000000000000009", &member("0001 69", "00000005"));
    assert_eq!(GroupMetadataValue::parse(&v3).as_ref(), Ok(&value));
    assert_eq!(value.encode(), v3, "version 3 is written");
    let v4 = hex("0004 09 636f6e73756d6572 00000007 06 72616e6765 03 6d31 0000000000000009 02 \
         03 6d31 02 69 02 63 03 2f68 00000005 00000006 03 0102 02 03 00 00");
    assert_eq!(GroupMetadataValue::parse(&v4).as_ref(), Ok(&value));
    value.members[0].instance_id = None;
    let v2 = group("0002", "0000000000000009", &member("", "00000005"));
    assert_eq!(GroupMetadataValue::parse(&v2).as_ref(), Ok(&value));
    value.current_state_timestamp = -1;
    assert_eq!(GroupMetadataValue::parse(&group("0001", "", &member("", "00000005"))).as_ref(), Ok(&value));
    value.members[0].rebalance_timeout_ms = 6;
    assert_eq!(GroupMetadataValue::parse(&group("0000", "", &member("", ""))).as_ref(), Ok(&value));
    let empty = hex("0003 0000 00000001 ffff ffff ffffffffffffffff 00000000");
    let empty = GroupMetadataValue::parse(&empty).expect("a group without members");
    assert_eq!((empty.protocol, empty.leader, empty.members.len()), (None, None, 0));
}

#[test]
fn transaction_values_of_every_version() {
    let value = transaction_value();
    let v0 = hex("0000 00000000000003e8 0002 0000ea60 01 00000001 0001 74 00000002 00000000 00000005 \
         000000000000000b 000000000000000a");
    assert_eq!(TransactionLogValue::parse(&v0).as_ref(), Ok(&value));
    assert_eq!(value.encode(), v0, "version 0 is written");
    let v1 = hex("0001 00000000000003e8 0002 0000ea60 01 02 02 74 03 00000000 00000005 00 \
         000000000000000b 000000000000000a 03 00 08 00000000000003e7 01 08 00000000000003e9 02 02 0002");
    let tagged = TransactionLogValue {
        previous_producer_id: 999,
        next_producer_id: 1001,
        client_transaction_version: 2,
        ..value.clone()
    };
    assert_eq!(TransactionLogValue::parse(&v1), Ok(tagged));
    let empty = TransactionLogValue { partitions: None, ..value };
    assert_eq!(TransactionLogValue::parse(&empty.encode()).as_ref(), Ok(&empty));
}

#[test]
fn an_error_names_record_field_and_position() {
    let error = |bytes: &str| OffsetCommitValue::parse(&hex(bytes)).expect_err("not a value").to_string();
    assert_eq!(error("0005"), "OffsetCommitValue: version at byte 2: version 5 is not known");
    assert_eq!(error("0003 0000"), "OffsetCommitValue: offset at byte 2: 8 bytes wanted, 2 left");
    let long = "0000 0000000000000102 7fff 6d";
    assert_eq!(error(long), "OffsetCommitValue: metadata at byte 12: 32767 bytes wanted, 1 left");
    let trailing = "0000 0000000000000102 0000 0000000000000001 00";
    assert_eq!(error(trailing), "OffsetCommitValue: end at byte 20: 1 bytes left over");
    let members = "0003 0000 00000001 ffff ffff ffffffffffffffff 7fffffff";
    let error = GroupMetadataValue::parse(&hex(members)).expect_err("no such members").to_string();
    assert_eq!(error, "GroupMetadataValue: members at byte 24: 2147483647 bytes wanted, 0 left");
    let topic = OffsetsKey::parse(&hex("0001 0001 67 0001 2f 00000000")).expect_err("a name with a slash").to_string();
    assert!(topic.starts_with("key of __consumer_offsets: topic at byte 8: the topic name \"/\""), "{topic}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), version in 0..6_u8) {
        // Random bytes behind a version that is likely to be known: any result will do, as long as there is one.
        let mut bytes = bytes;
        if bytes.len() > 1 {
            bytes[..2].copy_from_slice(&[0, version]);
        }
        let parsed = [
            OffsetsKey::parse(&bytes).is_ok(),
            OffsetCommitValue::parse(&bytes).is_ok(),
            GroupMetadataValue::parse(&bytes).is_ok(),
            TransactionLogKey::parse(&bytes).is_ok(),
            TransactionLogValue::parse(&bytes).is_ok(),
        ];
        prop_assert!(bytes.len() > 1 || parsed == [false; 5], "less than a version is nothing");
    }

    #[test]
    fn a_value_cut_short_or_damaged_is_refused_or_another(cut in 0..100_usize, at in 0..100_usize, to in any::<u8>()) {
        let whole = [group_value().encode(), transaction_value().encode(), offset_value().encode()];
        let parsers = [
            |bytes: &[u8]| GroupMetadataValue::parse(bytes).map(|value| value.encode()),
            |bytes: &[u8]| TransactionLogValue::parse(bytes).map(|value| value.encode()),
            |bytes: &[u8]| OffsetCommitValue::parse(bytes).map(|value| value.encode()),
        ];
        for (bytes, parse) in whole.iter().zip(parsers) {
            prop_assert_eq!(parse(bytes), Ok(bytes.clone()));
            if cut < bytes.len() {
                prop_assert!(parse(&bytes[..cut]).is_err());
            }
            let mut damaged = bytes.to_vec();
            if let Some(byte) = damaged.get_mut(at) {
                *byte = to;
            }
            if let Ok(again) = parse(&damaged) && at > 1 {
                prop_assert_eq!(&again[..], &damaged[..], "what parses says all that the bytes say");
            }
        }
    }

    #[test]
    fn values_read_back(offset in any::<i64>(), epoch in any::<i32>(), metadata in ".{0,50}", time in any::<i64>()) {
        let value = OffsetCommitValue {
            offset,
            leader_epoch: epoch,
            metadata,
            commit_timestamp: time,
            expire_timestamp: -1,
            topic_id: [0; 16],
        };
        prop_assert_eq!(OffsetCommitValue::parse(&value.encode()), Ok(value));
    }
}
