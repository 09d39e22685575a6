//! Snapshots, fences, journal entries and the folder's marker read back as written.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_format::{
    AbortedTxn, CoordinatorKind, CoordinatorSnapshot, Fence, FolderMarker, JournalChange, JournalEntry,
    PartitionProducers, ProducerSnapshotIndex, ProducerSnapshotWriter, ProducerState, SnapshotIndexParse,
};
use forebay_types::{Timestamp, WalSequence};
use proptest::prelude::*;

use crate::samples::{
    broker, broker_epoch, cluster, coordinator_snapshot, folder_marker, history, leader_epoch, log, offset, partition,
    snapshot_head,
};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

proptest! {
    /// Each partition's producers are read back by range with its reference alone.
    #[test]
    fn a_producer_snapshot_reads_back(histories in prop::collection::vec(history(), 0..5)) {
        let mut w = ProducerSnapshotWriter::new(snapshot_head());
        let mut written = Vec::new();
        for (i, batches) in (0..).zip(&histories) {
            let mut states = BTreeMap::new();
            for batch in batches {
                let Some(who) = &batch.producer else { continue };
                states.entry(who.id).or_insert_with(|| ProducerState::new(who.epoch)).apply_batch(batch, who);
            }
            let aborted = batches.iter().filter_map(|batch| {
                let who = batch.producer.filter(|_| batch.marker.is_some())?;
                Some(AbortedTxn { producer: who.id, first_offset: offset(0), last_offset: batch.last_offset })
            });
            let producers = states.into_iter().map(|(id, state)| (id, Arc::new(state))).collect();
            let state = PartitionProducers { aborted: aborted.collect(), producers };
            w.push(partition(1, i), log(10), offset(77), &state);
            written.push(state);
        }
        let snapshot = w.finish();
        let object = Bytes::from(snapshot.chunks.concat());
        prop_assert_eq!(object.len() as u64, snapshot.size);
        let Ok(SnapshotIndexParse::Whole(index)) = ProducerSnapshotIndex::parse(&object, snapshot.size) else {
            panic!("the index of a whole object is there");
        };
        prop_assert_eq!(&index.refs, &snapshot.refs);
        prop_assert_eq!(&index.head, &snapshot_head());
        for (i, states) in (0..).zip(&written) {
            let part = index.find(partition(1, i), log(10)).expect("pushed");
            let start = usize::try_from(part.position).expect("in memory");
            let block = object.slice(start..start + part.length as usize);
            prop_assert_eq!(&part.parse(&block).expect("undamaged"), states);
        }
        prop_assert_eq!(index.find(partition(1, 0), log(11)), None, "another log's state is not this one's");
    }

    #[test]
    fn a_journal_entry_reads_back(number: u64, at: i64, changes in prop::collection::vec((any::<u16>(), bytes(), prop::option::of(bytes())), 0..10)) {
        let changes = changes.into_iter().map(|(kind, key, value)| JournalChange { kind, key, value }).collect();
        let entry = JournalEntry { cluster: cluster(), number, written_at: Timestamp::from_millis(at), changes };
        prop_assert_eq!(JournalEntry::parse(&entry.encode()), Ok(entry));
    }

    #[test]
    fn a_fence_reads_back(ids in any::<[u64; 3]>(), brokers in (0..i32::MAX, 0..i32::MAX), at: i64) {
        let fence = Fence {
            cluster: cluster(),
            broker: broker(brokers.0),
            epoch: broker_epoch(ids[0]),
            sequence: WalSequence::new(ids[1]),
            by_broker: broker(brokers.1),
            by_epoch: broker_epoch(ids[2]),
            planted_at: Timestamp::from_millis(at),
        };
        prop_assert_eq!(Fence::parse(&fence.encode()), Ok(fence));
    }

    #[test]
    fn a_coordinator_snapshot_reads_back(payload in bytes(), group: bool, epoch in 0..i32::MAX, at in 0..i64::MAX) {
        let kind = if group { CoordinatorKind::Group } else { CoordinatorKind::Transaction };
        let leader_epoch = leader_epoch(epoch);
        let snapshot = CoordinatorSnapshot { kind, leader_epoch, at: offset(at), payload, ..coordinator_snapshot() };
        prop_assert_eq!(CoordinatorSnapshot::parse(&snapshot.encode()), Ok(snapshot));
    }
}

/// A folder of a later format is told from a broken one, even where the lines after its format are unknown.
#[test]
fn a_folder_of_another_format_is_named() {
    let marker = folder_marker();
    assert_eq!(FolderMarker::parse(marker.encode().as_bytes()), Ok(marker));
    let error = |text: &str| FolderMarker::parse(text.as_bytes()).expect_err("not our marker").to_string();
    assert_eq!(
        error("forebay data folder\nformat 2\nsomething new\n"),
        "the data folder marker at byte 0 cannot be read: it has format version 2 and this build reads up to 1"
    );
    let edited = folder_marker().encode().replace("disk 0", "disk 1");
    assert!(error(&edited).contains("its text has checksum"), "{}", error(&edited));
    assert!(error("").contains("it begins with"), "{}", error(""));
    assert!(error(&format!("{}\n", folder_marker().encode())).contains("text cannot be"));
}
