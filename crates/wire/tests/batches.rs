//! Batches built here are read by `kafka-protocol`'s record module to the same records, and the other way round.

use bytes::{Bytes, BytesMut};
use forebay_wire::batch::{BatchBuilder, BatchHeader, check_crc, patch, records};
use forebay_wire::kafka::indexmap::IndexMap;
use forebay_wire::kafka::protocol::StrBytes;
use forebay_wire::kafka::records::{
    Compression, Record as Generated, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Option<Bytes>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from))
}

/// Records of one batch, in the generated type: offsets dense, the first timestamp the lowest.
fn any_batch() -> impl Strategy<Value = Vec<Generated>> {
    let headers = proptest::collection::btree_map("[a-z]{0,3}", bytes(), 0..3);
    let record = (0..1_000_000i64, bytes(), bytes(), headers);
    let batch = (0..1i64 << 40, 0..1i64 << 41, any::<bool>(), 0..i32::MAX - 100, 0..i16::MAX, 0..1i64 << 40);
    (batch, proptest::collection::vec(record, 1..20)).prop_map(|(batch, list)| {
        let (base_offset, base_timestamp, transactional, sequence, producer_epoch, producer_id) = batch;
        let record =
            |(i, (late, key, value, headers)): (i32, (i64, _, _, std::collections::BTreeMap<String, _>))| Generated {
                transactional,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 12,
                producer_id,
                producer_epoch,
                timestamp_type: TimestampType::Creation,
                offset: base_offset + i64::from(i),
                sequence: sequence + i,
                timestamp: base_timestamp + if i == 0 { 0 } else { late },
                key,
                value,
                headers: headers.into_iter().map(|(k, v)| (StrBytes::from_string(k), v)).collect::<IndexMap<_, _>>(),
            };
        (0..).zip(list).map(record).collect()
    })
}

fn build(batch: &[Generated]) -> BytesMut {
    let first = &batch[0];
    let mut builder =
        BatchBuilder::new(first.timestamp).producer(first.producer_id, first.producer_epoch, first.sequence);
    if first.transactional {
        builder = builder.transactional();
    }
    for record in batch {
        let headers: Vec<_> = record.headers.iter().map(|(k, v)| (k.as_bytes(), v.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    let mut built = builder.build();
    patch(&mut built, first.offset, first.partition_leader_epoch);
    built
}

proptest! {
    #[test]
    fn both_write_the_same_bytes_and_read_the_same_records(batch in any_batch()) {
        let ours = build(&batch);
        let mut theirs = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut theirs, &batch, &options).expect("legal records");
        prop_assert_eq!(&ours, &theirs);

        check_crc(&ours).expect("built above");
        let decoded = RecordBatchDecoder::decode(&mut ours.clone().freeze()).expect("built above");
        prop_assert_eq!(&decoded.records, &batch);

        let header = BatchHeader::parse(&theirs).expect("encoded above");
        let read = records(&theirs.freeze(), 0).expect("not compressed").collect::<Result<Vec<_>, _>>();
        let read = read.expect("encoded above");
        prop_assert_eq!(read.len(), batch.len());
        for (ours, theirs) in read.iter().zip(&batch) {
            prop_assert_eq!(header.base_offset + i64::from(ours.offset_delta), theirs.offset);
            prop_assert_eq!(ours.timestamp, theirs.timestamp);
            prop_assert_eq!((&ours.key, &ours.value), (&theirs.key, &theirs.value));
            let names = theirs.headers.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone()));
            prop_assert_eq!(&ours.headers, &names.collect::<Vec<_>>());
        }
    }
}
