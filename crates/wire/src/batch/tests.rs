//! Batches made by Apache Kafka's own client library (4.3.1), read field by field; and batches nobody should make.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};

use super::*;

const PLAIN: &[u8] = include_bytes!("../../corpus/batch/kafka-plain.bin");
const TRANSACTIONAL: &[u8] = include_bytes!("../../corpus/batch/kafka-transactional.bin");
const COMMIT: &[u8] = include_bytes!("../../corpus/batch/kafka-commit.bin");
const ABORT: &[u8] = include_bytes!("../../corpus/batch/kafka-abort.bin");
const TWO: &[u8] = include_bytes!("../../corpus/batch/kafka-two.bin");
const APPEND_TIME: &[u8] = include_bytes!("../../corpus/batch/kafka-append-time.bin");

/// The records of a batch, one line each.
fn text(batch: &[u8]) -> String {
    let show = |bytes: &Option<Bytes>| match bytes {
        Some(bytes) => String::from_utf8_lossy(bytes).chars().take(9).collect(),
        None => "null".to_owned(),
    };
    let mut text = String::new();
    for record in records(&Bytes::copy_from_slice(batch), 1 << 20).expect("a batch of Kafka's") {
        let Record { offset_delta, timestamp, key, value, headers } = record.expect("a record of Kafka's");
        write!(text, "+{offset_delta} @{timestamp} {}={}", show(&key), show(&value)).expect("text");
        for (name, value) in headers {
            write!(text, " [{}={}]", String::from_utf8_lossy(&name), show(&value)).expect("text");
        }
        text.push('\n');
    }
    text
}

#[test]
fn records_of_every_codec_of_kafkas_are_read() {
    let want = "\
+0 @1700000000000 key-0=value-0 v [trace=abc] [none=null]
+1 @1700000000010 null=value-1 v
+2 @1700000000020 key-2=null
+3 @1700000000030 key-3=value-3 v
";
    let codecs: [(&[u8], Codec); 5] = [
        (PLAIN, Codec::None),
        (include_bytes!("../../corpus/batch/kafka-gzip.bin"), Codec::Gzip),
        (include_bytes!("../../corpus/batch/kafka-snappy.bin"), Codec::Snappy),
        (include_bytes!("../../corpus/batch/kafka-lz4.bin"), Codec::Lz4),
        (include_bytes!("../../corpus/batch/kafka-zstd.bin"), Codec::Zstd),
    ];
    for (batch, codec) in codecs {
        check_crc(batch).expect("Kafka's checksum");
        let header = BatchHeader::parse(batch).expect("Kafka's batch");
        assert_eq!((header.codec().expect("known"), header.timestamp_type()), (codec, TimestampType::CreateTime));
        assert_eq!(text(batch), want, "{codec}");
    }
    assert_eq!(text(APPEND_TIME).matches("@1800000000000").count(), 4, "the time of append is every record's");
}

#[test]
fn the_builder_makes_kafkas_bytes() {
    // The same records as in Kafka's own batch: the bytes are the same, checksum included.
    let mut builder = BatchBuilder::new(1_700_000_000_000).producer(4711, 3, i32::MAX - 1).transactional();
    for i in 0..4 {
        let (key, value) = (format!("key-{i}"), format!("value-{i} value value value value value"));
        let headers: &[(&[u8], Option<&[u8]>)] =
            if i == 0 { &[(b"trace", Some(b"abc")), (b"none", None)] } else { &[] };
        let key = (i != 1).then_some(key.as_bytes());
        let value = (i != 2).then_some(value.as_bytes());
        builder.push(1_700_000_000_000 + i * 10, key, value, headers);
    }
    assert_eq!(builder.size(), TRANSACTIONAL.len());
    assert_eq!(builder.build(), TRANSACTIONAL);
    let header = BatchHeader::parse(TRANSACTIONAL).expect("Kafka's batch");
    assert!(header.is_transactional() && !header.is_control());
    assert_eq!((header.producer_id, header.producer_epoch), (4711, 3));
    assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX - 1, 1), "sequences wrap to 0");
    assert_eq!(header.crc, 0x1963_d16b);
}

#[test]
fn markers_are_kafkas() {
    for (golden, kind, offset) in [(COMMIT, MarkerKind::Commit, 42), (ABORT, MarkerKind::Abort, 43)] {
        let marker = Marker { kind, coordinator_epoch: 9 };
        let mut made = build_marker(4711, 3, marker, 1_700_000_000_000);
        patch(&mut made, offset, 5);
        assert_eq!(made, golden);
        assert_eq!(parse_marker(golden).expect("a marker"), marker);
    }
    assert_eq!(
        parse_marker(TRANSACTIONAL).unwrap_err().to_string(),
        "the batch is no transaction marker: it is not a control batch"
    );
}

#[test]
fn batches_are_walked_until_the_bytes_end_or_make_no_sense() {
    let walk = |bytes: &[u8]| -> Vec<String> {
        let show = |b: Result<Batch<'_>, BatchError>| match b {
            Ok(batch) => format!("{}..={} at {}", batch.header.base_offset, batch.header.last_offset(), batch.position),
            Err(error) => error.to_string(),
        };
        Batches::new(bytes).map(show).collect()
    };
    assert_eq!(walk(TWO), ["0..=3 at 0", "42..=42 at 232"]);
    assert_eq!(walk(&TWO[..TWO.len() - 1]), ["0..=3 at 0", "a record batch takes 78 bytes, 77 are there"]);
    assert_eq!(walk(&TWO[..240]), ["0..=3 at 0", "a record batch takes 61 bytes, 8 are there"]);
    assert!(walk(&[]).is_empty());
}

#[test]
fn old_record_sets_are_told_apart() {
    // Both are shorter than a header of today, and still must not look like a batch cut short.
    for (set, magic) in [
        (&include_bytes!("../../corpus/batch/kafka-magic0.bin")[..], 0),
        (&include_bytes!("../../corpus/batch/kafka-magic1.bin")[..], 1),
    ] {
        assert_eq!(super::magic(set), Some(magic));
        let error = BatchHeader::parse(set).unwrap_err();
        assert_eq!(error.to_string(), format!("the record batch has magic {magic}, not 2"));
    }
}

#[test]
fn stamps_leave_the_rest_alone() {
    let mut batch = PLAIN.to_vec();
    patch(&mut batch, 1 << 40, 7);
    check_crc(&batch).expect("neither is under the checksum");
    assert_eq!(text(&batch), text(PLAIN));
    set_log_append_time(&mut batch, 1_800_000_000_000);
    check_crc(&batch).expect("made new");
    patch(&mut batch, 0, -1);
    assert_eq!(batch, APPEND_TIME, "as Kafka stamps it");
}

#[test]
fn a_batch_in_another_codec_holds_the_same_records() {
    let mut batch = BytesMut::from(TRANSACTIONAL);
    patch(&mut batch, 99, 4);
    let batch = batch.freeze();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd, Codec::None] {
        let packed = recompress(&batch, codec, 1 << 20).expect("readable");
        check_crc(&packed).expect("made new");
        let header = BatchHeader::parse(&packed).expect("a batch");
        assert_eq!((header.codec().expect("known"), header.base_offset, header.leader_epoch), (codec, 99, 4));
        assert_eq!(text(&packed), text(&batch));
        assert_eq!(recompress(&packed.freeze(), Codec::None, 1 << 20).expect("readable"), batch);
    }
}

/// What reading a batch with some of its bytes replaced says, checksum aside.
fn damaged(at: usize, bytes: &[u8]) -> String {
    let mut batch = PLAIN.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let read: Result<Vec<_>, _> = records(&batch.into(), 1 << 20).and_then(Iterator::collect);
    match read {
        Ok(records) => format!("{} records", records.len()),
        Err(BatchError::Record { index, source }) => format!("record {index}: {source}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn damage_is_named() {
    assert_eq!(damaged(8, &[0, 0, 0, 48]), "the record batch has the impossible length 48");
    assert_eq!(damaged(8, &[0xff; 4]), "the record batch has the impossible length -1");
    assert_eq!(damaged(8, &[0x7f, 0xff, 0xff, 0xff]), "a record batch takes 2147483659 bytes, 232 are there");
    assert_eq!(damaged(16, &[3]), "the record batch has magic 3, not 2");
    assert_eq!(
        damaged(0, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        "the record batch begins at offset 9223372036854775807, and its last offset is out of range"
    );
    assert_eq!(damaged(22, &[7]), "attributes 0x0007 name no compression codec");
    assert_eq!(damaged(23, &[0xff; 4]), "the record batch claims 4 records up to offset delta -1");
    assert_eq!(damaged(57, &[0xff; 4]), "the record batch claims -1 records up to offset delta 3");
    assert_eq!(damaged(57, &[0, 0, 1, 0]), "a record batch takes 1792 bytes, 171 are there");
    assert_eq!(damaged(57, &[0, 0, 0, 5]), "record 4: record needs 1 bytes at position 0, 0 are left");
    assert_eq!(damaged(57, &[0, 0, 0, 3]), "the batch's 3 records are followed by 49 bytes that belong to none");
    assert_eq!(damaged(61, &[1]), "record 0: record at position 0 has the impossible length -1");
    let mut batch = PLAIN.to_vec();
    batch[100] ^= 1;
    let error = check_crc(&batch).unwrap_err().to_string();
    assert!(error.starts_with("the record batch has CRC "), "{error}");
}

#[test]
fn the_count_is_held_against_the_records_sizes() {
    let batch = |codec| {
        let mut builder = BatchBuilder::new(5).codec(codec);
        for value in ["one", "two", "three"] {
            builder.push(5, Some(b"key"), Some(value.as_bytes()), &[]);
        }
        builder.build()
    };
    let claims = |codec, count: i32| {
        let mut batch = batch(codec);
        put(&mut batch, HEADER_BYTES - 4, count.to_be_bytes());
        check_count(&batch).map_err(|error| error.to_string())
    };
    assert_eq!(claims(Codec::None, 3), Ok(()));
    assert_eq!(
        claims(Codec::None, 2).expect_err("one more"),
        "the batch's 2 records are followed by 15 bytes that belong to none"
    );
    assert_eq!(claims(Codec::None, 4).expect_err("one less"), "cannot read record 3 of the batch");
    assert_eq!(claims(Codec::None, i32::MAX).expect_err("far less"), "cannot read record 3 of the batch");
    assert_eq!(claims(Codec::Zstd, 4), Ok(()), "compressed records are not looked at");
}
