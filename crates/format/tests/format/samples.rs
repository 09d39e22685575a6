//! Fixed samples for golden bytes and corpus, and arbitrary ones for properties.

use std::sync::Arc;

use bytes::Bytes;
use forebay_format::{
    AbortedTxn, BatchProducer, BatchSummary, CoordinatorKind, CoordinatorSnapshot, DiskId, EncodedObject,
    EncodedSnapshot, Fence, FolderMarker, JournalChange, JournalEntry, LogEnd, MarkerKind, MarkerSummary, NO_SEQUENCE,
    ObjectHead, ObjectWriter, PartitionProducers, PrepareRef, ProducerSnapshotWriter, ProducerState, SectionHead,
    SegmentHead, SnapshotHead, Tally, WalBlockHead, WalEntry,
};
use forebay_types::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, LogId, Offset, OffsetRange, PartitionIndex, ProducerEpoch,
    ProducerId, Timestamp, TopicId, TopicPartition, WalSequence,
};
use proptest::prelude::*;

pub fn offset(raw: i64) -> Offset {
    Offset::new(raw).expect("not negative")
}

pub fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(offset(start), offset(end)).expect("in order")
}

pub fn time(raw: i64) -> Timestamp {
    Timestamp::from_millis(raw)
}

pub fn producer(raw: i64) -> ProducerId {
    ProducerId::new(raw).expect("not negative")
}

pub fn epoch(raw: i16) -> ProducerEpoch {
    ProducerEpoch::new(raw).expect("not negative")
}

pub fn leader_epoch(raw: i32) -> LeaderEpoch {
    LeaderEpoch::new(raw).expect("not negative")
}

pub fn broker(raw: i32) -> BrokerId {
    BrokerId::new(raw).expect("not negative")
}

pub fn broker_epoch(raw: u64) -> BrokerEpoch {
    BrokerEpoch::new(raw).expect("any number is one")
}

pub fn log(raw: u64) -> LogId {
    LogId::new(raw).expect("any number is one")
}

pub fn cluster() -> ClusterId {
    ClusterId::from_random([0x5a; 16])
}

pub fn partition(topic: u8, index: i32) -> TopicPartition {
    let partition = PartitionIndex::new(index).expect("not negative");
    TopicPartition { topic: TopicId::from_random([topic; 16]), partition }
}

/// A batch of `records` from `base` on, of a producer without idempotence.
pub fn plain(base: i64, records: u32) -> BatchSummary {
    BatchSummary {
        base_offset: offset(base),
        last_offset: offset(base + i64::from(records) - 1),
        max_timestamp: time(1_357_000_000_000 + base),
        records,
        producer: None,
        transactional: false,
        marker: None,
    }
}

/// A batch of an idempotent producer.
pub fn sequenced(base: i64, records: u32, id: i64, producer_epoch: i16, base_sequence: i32) -> BatchSummary {
    let last = i64::from(base_sequence) + i64::from(records) - 1;
    let last_sequence = i32::try_from(last & 0x7fff_ffff).expect("31 bits");
    let who = BatchProducer { id: producer(id), epoch: epoch(producer_epoch), base_sequence, last_sequence };
    BatchSummary { producer: Some(who), ..plain(base, records) }
}

pub fn transactional(batch: BatchSummary) -> BatchSummary {
    BatchSummary { transactional: true, ..batch }
}

/// A marker of producer `id`; `prepare` is the leader epoch and offset of its Prepare record.
pub fn marker(
    at: i64,
    id: i64,
    producer_epoch: i16,
    kind: MarkerKind,
    coordinator_epoch: i32,
    prepare: Option<(i32, i64)>,
) -> BatchSummary {
    let prepare =
        prepare.map(|(epoch, at)| PrepareRef { txn_leader_epoch: leader_epoch(epoch), prepare_offset: offset(at) });
    let who = BatchProducer {
        id: producer(id),
        epoch: epoch(producer_epoch),
        base_sequence: NO_SEQUENCE,
        last_sequence: NO_SEQUENCE,
    };
    BatchSummary {
        producer: Some(who),
        transactional: true,
        marker: Some(MarkerSummary { kind, coordinator_epoch, prepare }),
        ..plain(at, 1)
    }
}

pub fn records(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub fn object_head() -> ObjectHead {
    ObjectHead {
        cluster: cluster(),
        broker: broker(1),
        broker_epoch: broker_epoch(7),
        sequence: WalSequence::new(42),
        generation: 0,
        written_at: time(1_357_016_400_000),
    }
}

/// Two sections; a transaction that ends in an abort; a lost range; the tally of two writes before it.
pub fn data_object() -> EncodedObject {
    let mut w = ObjectWriter::new(object_head()).with_tally(tally(42));
    w.section(SectionHead {
        partition: partition(1, 0),
        log: log(10),
        leader_epoch: leader_epoch(3),
        epoch_start: offset(90),
        producer_snapshot: Some("5c/snap/producers/1/00000000000000000006/00000000000000000000".to_owned()),
    });
    w.push(&transactional(sequenced(100, 5, 4000, 2, i32::MAX - 1)), None, &records("five records in a transaction"));
    w.push(&plain(105, 2), None, &records("two records"));
    let aborted = AbortedTxn { producer: producer(4000), first_offset: offset(100), last_offset: offset(107) };
    w.push(&marker(107, 4000, 2, MarkerKind::Abort, 9, Some((4, 1234))), Some(&aborted), &records("an abort marker"));
    w.section(SectionHead {
        partition: partition(1, 1),
        log: log(11),
        leader_epoch: leader_epoch(0),
        epoch_start: offset(0),
        producer_snapshot: None,
    });
    w.lost(range(0, 3));
    w.push(&plain(3, 1), None, &records("one record"));
    w.finish()
}

/// One section whose block is the first of its object and begins at offset 0.
pub fn small_object() -> EncodedObject {
    let mut w = ObjectWriter::new(object_head());
    w.section(SectionHead {
        partition: partition(1, 0),
        log: log(10),
        leader_epoch: leader_epoch(0),
        epoch_start: offset(0),
        producer_snapshot: None,
    });
    w.push(&sequenced(0, 1, 1, 0, 0), None, &records("one record"));
    let aborted = AbortedTxn { producer: producer(2), first_offset: offset(0), last_offset: offset(1) };
    w.push(&marker(1, 2, 0, MarkerKind::Abort, -1, None), Some(&aborted), &records("a marker"));
    w.lost(range(2, 4));
    w.finish()
}

pub fn fence() -> Fence {
    Fence {
        cluster: cluster(),
        broker: broker(1),
        epoch: broker_epoch(7),
        sequence: WalSequence::new(43),
        by_broker: broker(2),
        by_epoch: broker_epoch(8),
        planted_at: time(1_357_016_460_000),
    }
}

pub fn journal() -> JournalEntry {
    let change = |kind, key: &'static str, value: Option<&'static str>| JournalChange {
        kind,
        key: records(key),
        value: value.map(records),
    };
    let changes = vec![change(3, "topic departures", Some("retention.ms=-1")), change(4, "pin 12", None)];
    JournalEntry { cluster: cluster(), number: 5, written_at: time(1_357_016_400_123), changes }
}

pub fn coordinator_snapshot() -> CoordinatorSnapshot {
    CoordinatorSnapshot {
        cluster: cluster(),
        kind: CoordinatorKind::Transaction,
        partition: partition(9, 49),
        leader_epoch: leader_epoch(6),
        at: offset(98_765),
        written_at: time(1_357_016_400_456),
        payload: records("the machine"),
    }
}

pub fn snapshot_head() -> SnapshotHead {
    SnapshotHead {
        cluster: cluster(),
        broker: broker(1),
        broker_epoch: broker_epoch(7),
        number: 2,
        written_at: time(1_357_016_400_789),
    }
}

/// Producers 4000 (a window, an open transaction) and 4001 (a marker only), and an aborted transaction.
pub fn producer_states() -> PartitionProducers {
    let mut first = ProducerState::new(epoch(2));
    let mut second = ProducerState::new(epoch(0));
    let step = |state: &mut ProducerState, batch: &BatchSummary| {
        state.apply_batch(batch, batch.producer.as_ref().expect("a producer's batch"));
    };
    step(&mut first, &sequenced(10, 3, 4000, 2, 0));
    step(&mut first, &transactional(sequenced(13, 1, 4000, 2, 3)));
    step(&mut second, &marker(14, 4001, 0, MarkerKind::Commit, 3, Some((4, 77))));
    let aborted = AbortedTxn { producer: producer(4000), first_offset: offset(2), last_offset: offset(9) };
    let producers = vec![(producer(4000), Arc::new(first)), (producer(4001), Arc::new(second))];
    PartitionProducers { producers, aborted: vec![aborted] }
}

pub fn producer_snapshot() -> EncodedSnapshot {
    let mut w = ProducerSnapshotWriter::new(snapshot_head());
    w.push(partition(1, 0), log(10), offset(15), &producer_states());
    w.push(partition(1, 1), log(11), offset(0), &PartitionProducers::default());
    w.finish()
}

pub fn folder_marker() -> FolderMarker {
    FolderMarker { cluster: cluster(), disk: DiskId::from_random([0x0d; 16]) }
}

pub fn segment_head() -> SegmentHead {
    SegmentHead {
        cluster: cluster(),
        broker: broker(1),
        broker_epoch: broker_epoch(7),
        segment: 3,
        size: 64 << 20,
        nonce: 0x0123_4567_89ab_cdef,
    }
}

pub fn wal_block_head(sequence: u64) -> WalBlockHead {
    let SegmentHead { broker, broker_epoch, nonce, .. } = segment_head();
    let acknowledged = WalSequence::new(sequence.saturating_sub(2));
    WalBlockHead { broker, broker_epoch, nonce, sequence: WalSequence::new(sequence), acknowledged }
}

/// Three entries: idempotent in a transaction, plain, and a marker that aborts.
pub fn wal_entries() -> Vec<WalEntry> {
    let entry = |summary, aborted, bytes| WalEntry {
        partition: partition(1, 0),
        log: log(10),
        leader_epoch: leader_epoch(3),
        epoch_start: offset(90),
        summary,
        aborted,
        records: records(bytes),
    };
    let aborted = AbortedTxn { producer: producer(4000), first_offset: offset(100), last_offset: offset(107) };
    vec![
        entry(transactional(sequenced(100, 5, 4000, 2, i32::MAX - 1)), None, "five records in a transaction"),
        entry(plain(105, 2), None, "two records"),
        entry(marker(107, 4000, 2, MarkerKind::Abort, 9, Some((4, 1234))), Some(aborted), "an abort marker"),
    ]
}

/// What two logs had got before write `carrier`, from two writes where there are so many.
pub fn tally(carrier: u64) -> Tally {
    let end = |index, raw, epoch, end| LogEnd {
        partition: partition(1, index),
        log: log(raw),
        leader_epoch: leader_epoch(epoch),
        end: offset(end),
    };
    let ends = if carrier == 0 { Vec::new() } else { vec![end(0, 10, 3, 100), end(2, 12, 0, 7)] };
    Tally { from: WalSequence::new(carrier.saturating_sub(2)), ends }
}

/// A block with the tally of [`tally`].
pub fn encode_block(head: &WalBlockHead, entries: &[WalEntry]) -> Vec<u8> {
    encode_block_with(head, &tally(head.sequence.get()), entries)
}

/// Where the entries of such a block begin.
pub const ENTRIES_AT: usize = forebay_format::WAL_BLOCK_HEADER_SIZE + 2 * LogEnd::SIZE;

pub fn encode_block_with(head: &WalBlockHead, tally: &Tally, entries: &[WalEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    forebay_format::encode_wal_block(head, tally, entries, &mut |piece: &[u8]| bytes.extend_from_slice(piece));
    assert_eq!(bytes.len(), forebay_format::wal_block_size(tally.size(), entries), "a block is as long as was said");
    let padding = forebay_format::wal_block_padding(tally.size(), entries);
    assert!(padding < forebay_format::SECTOR_SIZE && bytes[bytes.len() - padding..].iter().all(|b| *b == 0));
    bytes
}

/// Any tally that write `carrier`, which is not the first, can have.
pub fn tallies(carrier: u64) -> impl Strategy<Value = Tally> {
    let end = (0..3_u8, 0..5_i32, 0..3_u64, 0..4_i32, 0..i64::MAX);
    (prop::collection::vec(end, 0..20), 0..carrier).prop_map(move |(ends, from)| {
        let mut ends: Vec<LogEnd> = ends
            .into_iter()
            .map(|(topic, index, raw, epoch, end)| LogEnd {
                partition: partition(topic, index),
                log: log(raw),
                leader_epoch: leader_epoch(epoch),
                end: offset(end),
            })
            .collect();
        ends.sort_by_key(|end| (end.partition, end.log));
        ends.dedup_by_key(|end| (end.partition, end.log));
        Tally { from: WalSequence::new(if ends.is_empty() { carrier } else { from }), ends }
    })
}

/// What one producer does next in a history.
#[derive(Clone, Debug)]
pub enum Step {
    Data { records: u32, transactional: bool, sequenced: bool },
    Bump,
    Marker { kind: MarkerKind, bump: bool, coordinator_epoch: i32, prepare: Option<(i32, i64)> },
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(MarkerKind::Abort), Just(MarkerKind::Commit)];
    prop_oneof![
        6 => (1..5_u32, any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(records, transactional, sequenced)| Step::Data { records, transactional, sequenced }),
        1 => Just(Step::Bump),
        2 => (kind, any::<bool>(), -1..4_i32, prop::option::of((0..3_i32, 0..9_i64))).prop_map(
            |(kind, bump, coordinator_epoch, prepare)| Step::Marker { kind, bump, coordinator_epoch, prepare }
        ),
    ]
}

/// The batches of a partition: three producers, sequences that wrap, epochs that rise, markers with and without a
/// Prepare record that grows or does not, and offsets with holes.
pub fn history() -> impl Strategy<Value = Vec<BatchSummary>> {
    prop::collection::vec((0..4_i64, 0..3_i64, step()), 0..60).prop_map(|steps| {
        let (mut next, mut epochs, mut sequences) = (0, [0_i16; 3], [i32::MAX - 4; 3]);
        let mut batches = Vec::new();
        for (id, hole, step) in steps {
            let batch = match (usize::try_from(id).ok().filter(|i| *i < 3), step) {
                (None, Step::Data { records, .. }) => plain(next + hole, records),
                (None, _) => continue,
                (Some(i), Step::Data { records, transactional, sequenced: with_sequence }) => {
                    let sequence = if with_sequence { sequences[i] } else { NO_SEQUENCE };
                    let mut batch = BatchSummary { transactional, ..sequenced(next + hole, records, id, epochs[i], 0) };
                    let who = batch.producer.as_mut().expect("a producer's batch");
                    who.base_sequence = sequence;
                    who.last_sequence = NO_SEQUENCE;
                    if with_sequence {
                        let last = i64::from(sequence) + i64::from(records) - 1;
                        who.last_sequence = i32::try_from(last & 0x7fff_ffff).expect("31 bits");
                        sequences[i] = i32::try_from((last + 1) & 0x7fff_ffff).expect("31 bits");
                    }
                    batch
                }
                (Some(i), Step::Bump) => {
                    (epochs[i], sequences[i]) = (epochs[i] + 1, 0);
                    continue;
                }
                (Some(i), Step::Marker { kind, bump, coordinator_epoch, prepare }) => {
                    epochs[i] += i16::from(bump);
                    marker(next + hole, id, epochs[i], kind, coordinator_epoch, prepare)
                }
            };
            next = batch.last_offset.get() + 1;
            batches.push(batch);
        }
        batches
    })
}

/// Entries of one partition with that history and records of arbitrary bytes.
pub fn entries() -> impl Strategy<Value = Vec<WalEntry>> {
    let records = prop::collection::vec(any::<u8>(), 1..300);
    (history(), prop::collection::vec((records, any::<bool>()), 60)).prop_map(|(history, with)| {
        let entry = |(summary, (records, aborts)): (BatchSummary, (Vec<u8>, bool))| WalEntry {
            partition: partition(1, 0),
            log: log(10),
            leader_epoch: leader_epoch(3),
            epoch_start: offset(0),
            aborted: summary.producer.filter(|_| aborts && summary.marker.is_some()).map(|p| AbortedTxn {
                producer: p.id,
                first_offset: offset(0),
                last_offset: summary.base_offset,
            }),
            summary,
            records: records.into(),
        };
        history.into_iter().zip(with).map(entry).collect()
    })
}
