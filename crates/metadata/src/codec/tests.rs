//! Golden bytes, round trips, and bytes that are none of ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forebay_format::ObjectRange;
use forebay_types::{ClusterId, LogId, OffsetRange, ProducerId, WalSequence};
use proptest::prelude::*;

use super::{CodecError, Fault, decode_key, decode_row, encode_key, encode_row, extents_from, garbage_after};
use crate::state::{
    Broker, Cluster, CommitNumber, ConfigScope, EpochStart, Extent, ExtentKey, Garbage, Holds, JournalPosition, Key,
    LogTail, Object, Partition, Pin, PinId, PinKind, Row, SnapshotRef, Snapshots, Topic, TopicState, Upload, WalEpoch,
    WalEpochState, WalKind,
};
use crate::testing::{at, broker, leader_epoch, life, name, partition, time, topic};

const GOLDEN: &str = include_str!("golden.txt");

fn log(raw: u64) -> LogId {
    LogId::new(raw).expect("any number is one")
}

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(at(start), at(end)).expect("in order")
}

/// At least one row of every table, and every variant of every state.
fn samples() -> Vec<(&'static str, Key, Row)> {
    let config = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]);
    let id = topic(0x0102);
    let trash = TopicState::Trash { deleted_at: time(5), purge_at: time(6), pin: PinId::new(7) };
    let topic_row = |state| {
        Row::Topic(Topic { name: name("orders"), config: config.clone(), partitions: 2, created_at: time(-3), state })
    };
    let wal = |wal, state, through: Option<u64>| {
        Row::WalEpoch(WalEpoch { wal, state, indexed_through: through.map(WalSequence::new) })
    };
    let snapshot = SnapshotRef { object: "0a/snap".to_owned(), at: at(9) };
    let object_range = ObjectRange {
        partition: partition(id, 1),
        log: log(8),
        leader_epoch: leader_epoch(3),
        range: range(10, 20),
        bytes: 300,
        max_timestamp: time(77),
    };
    vec![
        ("commit", Key::Commit, Row::Commit(CommitNumber::new(258))),
        ("journal", Key::Journal, Row::Journal(JournalPosition { next: 3, full: 2, oldest: 1 })),
        (
            "cluster",
            Key::Cluster,
            Row::Cluster(Cluster {
                id: ClusterId::from_random([1; 16]),
                term: 4,
                answerable_since: time(1_000),
                next_log: log(5),
                next_pin: PinId::new(6),
                next_producer_id: ProducerId::new(7_000).expect("not negative"),
            }),
        ),
        ("broker", Key::Broker(broker(3)), Row::Broker(Broker { epoch: life(3, 9).epoch, incarnation: 0x0a0b })),
        ("wal disk open", Key::WalEpoch(life(3, 9)), wal(WalKind::Disk { disk: 17 }, WalEpochState::Open, None)),
        (
            "wal object sealed",
            Key::WalEpoch(life(3, 8)),
            wal(WalKind::Object { in_flight_max: 4 }, WalEpochState::Sealed { by: life(3, 9) }, Some(5)),
        ),
        (
            "wal memory closed",
            Key::WalEpoch(life(3, 7)),
            wal(WalKind::Memory, WalEpochState::Closed { end: WalSequence::new(6) }, Some(5)),
        ),
        ("config cluster", Key::BrokerConfig(ConfigScope::Cluster), Row::BrokerConfig(config.clone())),
        ("config broker", Key::BrokerConfig(ConfigScope::Broker(broker(3))), Row::BrokerConfig(BTreeMap::new())),
        ("topic live", Key::Topic(id), topic_row(TopicState::Live)),
        ("topic trash", Key::Topic(topic(2)), topic_row(trash)),
        ("topic purging", Key::Topic(topic(3)), topic_row(TopicState::Purging)),
        (
            "partition new",
            Key::Partition(partition(id, 0)),
            Row::Partition(Partition { log: log(1), owner: None, epochs: Vec::new(), log_start: at(0) }),
        ),
        (
            "partition owned",
            Key::Partition(partition(id, 1)),
            Row::Partition(Partition {
                log: log(2),
                owner: Some(life(3, 9)),
                epochs: vec![EpochStart { epoch: leader_epoch(3), start: at(10) }],
                log_start: at(11),
            }),
        ),
        (
            "snapshots",
            Key::Snapshots(partition(id, 1)),
            Row::Snapshots(Snapshots { producer: Some(snapshot), coordinator: None }),
        ),
        ("log tail", Key::LogTail(log(2)), Row::LogTail(LogTail { indexed_end: at(20), bytes: 400 })),
        (
            "pin",
            Key::Pin(PinId::new(7)),
            Row::Pin(Pin {
                kind: PinKind::Checkpoint,
                holds: Holds::History,
                owner: "job".to_owned(),
                reason: "chk-3".to_owned(),
                scope: BTreeMap::from([(partition(id, 1), at(12))]),
                expires_at: time(99),
                renewal_ms: 60,
            }),
        ),
        (
            "upload",
            Key::Upload(CommitNumber::new(259)),
            Row::Upload(Upload {
                life: life(3, 9),
                through: Some(WalSequence::new(6)),
                object: "0b/data".to_owned(),
                size: 1_000,
                footer_position: 900,
                ranges: vec![object_range],
                folded: 0,
            }),
        ),
        (
            "extent",
            Key::Extent(ExtentKey { log: log(8), end: at(20) }),
            Row::Extent(Extent {
                range: range(10, 20),
                object: "0b/data".to_owned(),
                size: 1_000,
                footer_position: 900,
                bytes: 300,
                max_timestamp: time(77),
            }),
        ),
        ("object", Key::Object("0b/data".to_owned()), Row::Object(Object { size: 1_000, references: 2 })),
        (
            "garbage",
            Key::Garbage("0c/data".to_owned()),
            Row::Garbage(Garbage { size: 1_000, condemned_at: Some(time(5)) }),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn lines() -> String {
    samples().iter().fold(String::new(), |mut text, (what, key, row)| {
        writeln!(text, "{what}: {} = {}", hex(&encode_key(key)), hex(&encode_row(row))).expect("a string takes all");
        text
    })
}

/// The bytes of rows that are in buckets already: a change here needs a new layout version, and reading the old one.
#[test]
fn rows_have_the_golden_bytes() {
    assert_eq!(lines(), GOLDEN, "the encoding of a row changed");
}

#[test]
fn what_is_written_reads_back() {
    for (what, key, row) in samples() {
        assert_eq!(decode_key(&encode_key(&key)), Ok(key.clone()), "{what}");
        assert_eq!(decode_row(&key, &encode_row(&row)), Ok(row), "{what}");
    }
}

#[test]
fn a_row_cut_short_or_with_more_behind_it_is_refused() {
    for (what, key, row) in samples() {
        let bytes = encode_row(&row);
        for length in 0..bytes.len() {
            assert!(decode_row(&key, &bytes[..length]).is_err(), "{what} cut to {length} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(decode_row(&key, &longer), Err(CodecError::Row { fault: Fault::Trailing, .. })), "{what}");
    }
}

#[test]
fn a_newer_layout_is_refused() {
    let mut bytes = encode_row(&Row::Commit(CommitNumber::new(1)));
    bytes[0] = 2;
    let error = decode_row(&Key::Commit, &bytes).expect_err("version 2");
    assert_eq!(
        error.to_string(),
        "row Commit cannot be read at byte 1: it has layout version 2 and this build reads 1"
    );
}

#[test]
fn a_length_from_outside_decides_nothing() {
    let mut bytes = encode_row(&Row::BrokerConfig(BTreeMap::new()));
    bytes[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    let error =
        decode_row(&Key::BrokerConfig(ConfigScope::Cluster), &bytes).expect_err("four thousand million entries");
    assert!(matches!(error, CodecError::Row { fault: Fault::Short, .. }), "{error}");
}

#[test]
fn keys_sort_as_they_are_scanned() {
    let extent = |log_id, end| encode_key(&Key::Extent(ExtentKey { log: log(log_id), end: at(end) }));
    let from = extents_from(log(8), at(20));
    assert!(!from.contains(&extent(8, 20)) && from.contains(&extent(8, 21)) && from.contains(&extent(8, i64::MAX)));
    assert!(!from.contains(&extent(7, 30)) && !from.contains(&extent(9, 1)));
    assert!(extents_from(LogId::MAX, at(0)).contains(&extent(u64::MAX, 1)));
    let garbage = |text: &str| encode_key(&Key::Garbage(text.to_owned()));
    assert!(garbage_after(None).contains(&garbage("a")));
    assert!(!garbage_after(Some("b")).contains(&garbage("b")) && garbage_after(Some("b")).contains(&garbage("b0")));
    let mut keys: Vec<_> = samples().into_iter().map(|(_, key, _)| encode_key(&key)).collect();
    let resident = keys.iter().filter(|key| super::resident_tables().contains(*key)).count();
    assert_eq!(resident, samples().iter().filter(|(_, key, _)| !key.is_cold()).count());
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), samples().len(), "no two keys are one");
}

proptest! {
    /// Bytes of no origin are refused or read, and never panic; so are ours with some bytes changed.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), which in 0..21_usize) {
        for (_, target) in crate::fuzz::TARGETS {
            target(&bytes);
        }
        let (_, key, row) = samples().swap_remove(which);
        let mut ours = encode_row(&row);
        for (at, byte) in bytes.chunks_exact(2).map(|pair| (usize::from(pair[0]), pair[1])) {
            let length = ours.len();
            ours[at % length] = byte;
        }
        let key = encode_key(&key);
        crate::fuzz::fuzz_row(&[&[u8::try_from(key.len()).expect("short")], &key[..], &ours[..]].concat());
    }
}
