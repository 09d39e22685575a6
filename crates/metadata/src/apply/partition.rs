//! Ownership: a broker life opens partitions under the next leader epoch (D1, D8).

use std::collections::BTreeMap;

use forebay_types::{LeaderEpoch, Offset, TopicPartition};

use super::broker::require_current;
use super::{Changes, Stop, View};
use crate::command::{Opened, PARTITIONS_PER_OPEN_MAX, Refusal, Reply};
use crate::state::{BrokerLife, EpochStart, Key, Partition, Row, Tables, TopicState, WalEpochState};

pub(super) fn open(view: View<'_>, life: BrokerLife, partitions: &[TopicPartition]) -> Result<Changes, Stop> {
    require_current(view.tables, life)?;
    if partitions.len() > PARTITIONS_PER_OPEN_MAX {
        let (count, max) = (partitions.len(), PARTITIONS_PER_OPEN_MAX);
        return Err(Refusal::TooMany { what: "partitions", count, max }.into());
    }
    let mut rows = BTreeMap::new();
    let mut opened = Vec::with_capacity(partitions.len());
    for id in partitions {
        let partition = open_one(view.tables, life, *id)?;
        opened.push(answer(view.tables, *id, &partition));
        if view.tables.partition(*id) != Some(&partition) {
            rows.insert(Key::Partition(*id), Some(Row::Partition(partition)));
        }
    }
    Ok(Changes { rows, reply: Reply::Opened(opened) })
}

/// The partition as `life` owns it. Opened by the same life before, it is left as it is: its records are under way. One
/// in the trash is opened like any other: it may come back, and until then its transactions end.
fn open_one(tables: &Tables, life: BrokerLife, id: TopicPartition) -> Result<Partition, Refusal> {
    let purging = tables.topic(id.topic).is_none_or(|topic| topic.state == TopicState::Purging);
    if purging {
        return Err(Refusal::UnknownPartition(id));
    }
    let held = tables.partition(id).ok_or(Refusal::UnknownPartition(id))?;
    if held.owner == Some(life) {
        return Ok(held.clone());
    }
    if let Some(owner) = held.owner {
        // Until the old owner's WAL is closed, acknowledged records may be in it and nowhere else (D8).
        let closed = tables.wal_epoch(owner).is_some_and(|e| matches!(e.state, WalEpochState::Closed { .. }));
        if !closed {
            return Err(Refusal::OwnerNotClosed { partition: id, owner });
        }
    }
    let epoch = match held.leader_epoch() {
        None => LeaderEpoch::ZERO,
        Some(last) => last.next().ok_or(Refusal::Exhausted("leader epoch"))?,
    };
    let mut partition = Partition { owner: Some(life), ..held.clone() };
    let start = tables.committed_end(held.log).max(held.log_start);
    // An epoch without records leaves no trace (Kafka's LeaderEpochFileCache does the same).
    partition.epochs.retain(|e| e.start < start);
    partition.epochs.push(EpochStart { epoch, start });
    Ok(partition)
}

fn answer(tables: &Tables, id: TopicPartition, partition: &Partition) -> Opened {
    let current = *partition.epochs.last().expect("an opened partition has an epoch");
    let committed_end = tables.committed_end(partition.log).max(partition.log_start).max(current.start);
    let snapshots = tables.snapshots(id).cloned().unwrap_or_default();
    Opened {
        partition: id,
        log: partition.log,
        leader_epoch: current.epoch,
        epoch_start: current.start,
        epochs: partition.epochs.clone(),
        log_start: partition.log_start,
        committed_end,
        producer_snapshot: snapshots.producer,
        coordinator_snapshot: snapshots.coordinator,
    }
}

/// The partition, if `life` owns it under that leader epoch and is still current.
pub(super) fn require_owner(
    tables: &Tables,
    life: BrokerLife,
    id: TopicPartition,
    leader_epoch: LeaderEpoch,
) -> Result<&Partition, Refusal> {
    require_current(tables, life)?;
    let partition = tables.partition(id).ok_or(Refusal::UnknownPartition(id))?;
    if partition.owner != Some(life) || partition.leader_epoch() != Some(leader_epoch) {
        return Err(Refusal::NotOwner { partition: id, life, leader_epoch });
    }
    Ok(partition)
}

/// Drops the epochs that ended at or below the log start.
pub(super) fn trim_epochs(epochs: &mut Vec<EpochStart>, log_start: Offset) {
    let ended = epochs.windows(2).take_while(|pair| pair[1].start <= log_start).count();
    epochs.drain(..ended);
}
