//! Sorting groups by partition, and encoding them as one data object.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_format::{BatchSummary, EncodedObject, ObjectHead, ObjectWriter, SectionHead, WalEntry, fold_changes};
use forebay_metadata::BrokerLife;
use forebay_metadata::command::RANGES_PER_UPLOAD_MAX;
use forebay_types::{ClusterId, LeaderEpoch, LogId, Offset, OffsetRange, Timestamp, TopicPartition, WalSequence};
use forebay_wal::DurableGroup;

use super::UploadedRange;

/// One log's section of an object to be.
type SectionKey = (TopicPartition, LogId, LeaderEpoch);

/// Entries of some groups by section, in offset order within each.
#[derive(Default)]
pub(crate) struct Gathered {
    sections: BTreeMap<SectionKey, Vec<WalEntry>>,
}

/// Offsets of one log that were acknowledged and are gone: a section of an object without records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostOffsets {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    pub epoch_start: Offset,
    pub range: OffsetRange,
}

/// An object ready to be created, and what its commit changes.
pub(crate) struct EncodedUpload {
    pub object: EncodedObject,
    pub parts: Vec<UploadedRange>,
}

impl Gathered {
    pub fn of(groups: &[DurableGroup]) -> Self {
        let mut gathered = Self::default();
        for entry in groups.iter().flat_map(|group| &group.entries) {
            gathered.push(entry.clone());
        }
        gathered
    }

    pub fn push(&mut self, entry: WalEntry) {
        let key = (entry.partition, entry.log, entry.leader_epoch);
        self.sections.entry(key).or_default().push(entry);
    }

    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Whether so many entries more, whatever logs they are of, leave it an object that can be committed.
    pub fn has_room_for(&self, entries: usize) -> bool {
        self.sections.len() + entries <= RANGES_PER_UPLOAD_MAX
    }

    /// What the commit changes, for groups that are an object already.
    pub fn into_ranges(self) -> Vec<UploadedRange> {
        self.sections.iter().map(|((partition, ..), entries)| uploaded_range(*partition, entries)).collect()
    }
}

pub(crate) fn object_head(
    cluster: ClusterId,
    life: BrokerLife,
    sequence: WalSequence,
    written_at: Timestamp,
) -> ObjectHead {
    ObjectHead { cluster, broker: life.broker, broker_epoch: life.epoch, sequence, generation: 0, written_at }
}

/// Writes the object. `snapshot_of` names a partition's last producer snapshot.
pub(crate) fn encode(
    head: ObjectHead,
    gathered: &Gathered,
    snapshot_of: &dyn Fn(TopicPartition) -> Option<Arc<str>>,
) -> EncodedUpload {
    let mut writer = ObjectWriter::new(head);
    let mut parts = Vec::with_capacity(gathered.sections.len());
    for (key, entries) in &gathered.sections {
        let (partition, log, leader_epoch) = *key;
        let producer_snapshot = snapshot_of(partition).map(|name| name.to_string());
        let epoch_start = entries[0].epoch_start;
        writer.section(SectionHead { partition, log, leader_epoch, epoch_start, producer_snapshot });
        for entry in entries {
            writer.push(&entry.summary, entry.aborted.as_ref(), &entry.records);
        }
        parts.push(uploaded_range(partition, entries));
    }
    EncodedUpload { object: writer.finish(), parts }
}

/// Writes an object that says of some logs what they lost; in order of partitions.
pub(crate) fn encode_lost(head: ObjectHead, lost: &[LostOffsets]) -> EncodedObject {
    let mut writer = ObjectWriter::new(head);
    for LostOffsets { partition, log, leader_epoch, epoch_start, range } in lost.iter().copied() {
        writer.section(SectionHead { partition, log, leader_epoch, epoch_start, producer_snapshot: None });
        writer.lost(range);
    }
    writer.finish()
}

fn uploaded_range(partition: TopicPartition, entries: &[WalEntry]) -> UploadedRange {
    let (first, last) = (&entries[0].summary, &entries[entries.len() - 1].summary);
    let range = OffsetRange::new(first.base_offset, last.last_offset.next()).expect("entries ascend");
    let summaries = entries.iter().map(|entry| &entry.summary);
    UploadedRange {
        partition,
        range,
        bytes: entries.iter().map(|entry| entry.records.len()).sum(),
        changes: fold_changes(summaries.collect::<Vec<&BatchSummary>>()),
    }
}
