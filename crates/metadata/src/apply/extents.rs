//! Letting go of extents: below a log's start, its pins and its last producer snapshot, or of a topic that is being
//! purged; a step at a time.
//!
//! The log start itself may pass a producer snapshot: what it releases then waits for the next one, because until then
//! the sequences of a producer and the beginning of a transaction that is open are told by those footers alone.

use std::collections::BTreeMap;

use forebay_types::{Timestamp, TopicPartition};

use super::references::References;
use super::snapshot::opens_from;
use super::{Changes, Stop, View};
use crate::command::{Refusal, Reply};
use crate::pins::{self, Verdict};
use crate::state::{Extent, ExtentKey, Key, LogTail, Partition, Row, Topic, TopicState};

/// Extent rows in one step: each may take its object's two rows with it, beside the few of the partition.
const EXTENTS_PER_STEP_MAX: usize = 1_000;

pub(super) fn drop_released(view: View<'_>, id: TopicPartition, now: Timestamp) -> Result<Changes, Stop> {
    let topic = view.tables.topic(id.topic).ok_or(Refusal::UnknownPartition(id))?;
    let partition = view.tables.partition(id).ok_or(Refusal::UnknownPartition(id))?;
    let (extents, all) = view.first_extents(partition.log, EXTENTS_PER_STEP_MAX)?;
    let mut rows = BTreeMap::new();
    let purging = topic.state == TopicState::Purging;
    let dropped = if purging {
        extents
    } else {
        let floor = match pins::may_release_bytes(view.tables, id, Some(partition.log_start), now, &mut rows) {
            Verdict::Free => partition.log_start,
            Verdict::Held { from, .. } => from.min(partition.log_start),
        };
        let floor = floor.min(opens_from(view.tables, id));
        let count = extents.iter().take_while(|extent| extent.range.end() <= floor).count();
        &extents[..count]
    };
    let mut references = References::default();
    for extent in dropped {
        rows.insert(Key::Extent(ExtentKey { log: partition.log, end: extent.range.end() }), None);
        references.take(&extent.object);
    }
    let last = purging && all;
    if last {
        remove_partition(view, id, partition, topic, &mut references, &mut rows);
    } else if !dropped.is_empty() {
        let tail = view.tables.tail(partition.log);
        let gone: u64 = dropped.iter().map(|extent| extent.bytes).sum();
        let bytes = tail.bytes.checked_sub(gone).expect("a log's bytes are the sum of its extents' bytes");
        rows.insert(Key::LogTail(partition.log), Some(Row::LogTail(LogTail { bytes, ..tail })));
    }
    references.settle(view, None, &mut rows)?;
    Ok(Changes { rows, reply: Reply::Dropped { extents: dropped.len(), more: more(extents, dropped, all, last) } })
}

/// Whether another step would find something to drop.
fn more(extents: &[Extent], dropped: &[Extent], all: bool, last: bool) -> bool {
    !last && !all && dropped.len() == extents.len()
}

/// The end of a purged partition, and with the last one of its topic. Uploads not yet folded lose its ranges when they are.
fn remove_partition(
    view: View<'_>,
    id: TopicPartition,
    partition: &Partition,
    topic: &Topic,
    references: &mut References,
    rows: &mut BTreeMap<Key, Option<Row>>,
) {
    rows.insert(Key::Partition(id), None);
    rows.insert(Key::LogTail(partition.log), None);
    if let Some(snapshots) = view.tables.snapshots(id) {
        rows.insert(Key::Snapshots(id), None);
        for snapshot in [&snapshots.producer, &snapshots.coordinator].into_iter().flatten() {
            references.take(&snapshot.object);
        }
    }
    debug_assert!(topic.partitions > 0, "a topic has partitions");
    if view.tables.partitions(id.topic).all(|(other, _)| other == id) {
        rows.insert(Key::Topic(id.topic), None);
    }
}
