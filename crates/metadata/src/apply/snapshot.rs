//! References to snapshot objects: a partition's state at an offset, so that opening reads only what came after.

use std::collections::BTreeMap;

use forebay_types::{Offset, TopicPartition};

use super::object::require_written_by;
use super::partition::require_owner;
use super::references::References;
use super::{Changes, Stop, View};
use crate::command::{Refusal, Reply, SNAPSHOTS_PER_COMMAND_MAX, SnapshotAt};
use crate::state::{BrokerLife, Key, Row, SnapshotRef, Snapshots, Tables};

/// From where on footers are read when the partition is opened: above its last snapshot, producer state stands in them
/// and nowhere else, also below the log start.
pub(super) fn opens_from(tables: &Tables, id: TopicPartition) -> Offset {
    let producer = tables.snapshots(id).and_then(|snapshots| snapshots.producer.as_ref());
    producer.map_or(Offset::ZERO, |snapshot| snapshot.at)
}

/// One of the two snapshots that a partition may have.
type Slot = fn(&mut Snapshots) -> &mut Option<SnapshotRef>;

pub(super) fn put_producer(
    view: View<'_>,
    life: BrokerLife,
    object: &str,
    size: u64,
    partitions: &[SnapshotAt],
) -> Result<Changes, Stop> {
    put(view, life, (object, size), partitions, |snapshots| &mut snapshots.producer)
}

pub(super) fn put_coordinator(
    view: View<'_>,
    life: BrokerLife,
    object: &str,
    size: u64,
    partition: SnapshotAt,
) -> Result<Changes, Stop> {
    put(view, life, (object, size), &[partition], |snapshots| &mut snapshots.coordinator)
}

/// Partitions that are gone are left out: one object holds many, and the others' state must not be lost with one.
fn put(
    view: View<'_>,
    life: BrokerLife,
    (object, size): (&str, u64),
    partitions: &[SnapshotAt],
    slot: Slot,
) -> Result<Changes, Stop> {
    if partitions.len() > SNAPSHOTS_PER_COMMAND_MAX {
        let (count, max) = (partitions.len(), SNAPSHOTS_PER_COMMAND_MAX);
        return Err(Refusal::TooMany { what: "snapshots", count, max }.into());
    }
    require_written_by(object, [Some(life), None])?;
    if view.cold(Key::Garbage(object.to_owned()))?.is_some() {
        return Err(Refusal::ObjectCondemned { object: object.to_owned() }.into());
    }
    let mut rows = BTreeMap::new();
    let mut references = References::default();
    for SnapshotAt { partition, leader_epoch, at } in partitions {
        if view.tables.partition(*partition).is_none() {
            continue;
        }
        require_owner(view.tables, life, *partition, *leader_epoch)?;
        let mut snapshots = view.tables.snapshots(*partition).cloned().unwrap_or_default();
        let held = slot(&mut snapshots);
        let new = SnapshotRef { object: object.to_owned(), at: *at };
        match held {
            Some(held) if *held == new => continue,
            Some(SnapshotRef { at: held, .. }) if *at < *held => {
                return Err(Refusal::SnapshotWentBack { partition: *partition, at: *at, held: *held }.into());
            }
            Some(held) => references.take(&held.object),
            None => {}
        }
        references.add(object);
        *held = Some(new);
        let twice = rows.insert(Key::Snapshots(*partition), Some(Row::Snapshots(snapshots)));
        if twice.is_some() {
            return Err(Refusal::PartitionTwice { partition: *partition }.into());
        }
    }
    if rows.is_empty() {
        return Ok(Changes::nothing(Reply::Done));
    }
    references.settle(view, Some((object, size)), &mut rows)?;
    Ok(Changes { rows, reply: Reply::Done })
}
