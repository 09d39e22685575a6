//! A machine that is being opened: a snapshot, then every record from there on. And how a snapshot is made.
//!
//! Invariants:
//! 1. A snapshot of a machine equals what replaying its log up to there gives, byte for byte: both hold what is
//!    recorded, and nothing of what a process loses (parked requests, members that no generation has yet).
//! 2. Records of a transaction are staged until its marker; a log that ends before the marker leaves them staged.
//!
//! Sources: Kafka 3.9 `GroupMetadataManager.doLoadGroupsAndOffsets`.

use std::sync::Arc;

use bytes::Bytes;
use forebay_types::{Offset, ProducerId, Timestamp, TopicId, TopicName};
use uuid::Uuid;

use super::offsets::{ByPartition, Committed};
use super::state::{Group, Name};
use super::{GroupConfig, GroupMachine};
use crate::machine::Now;
use crate::schema::{GroupMetadataValue, OffsetCommitValue, OffsetsKey, Reader, SchemaError, Writer};

/// Version of the snapshot's bytes.
const VERSION: u8 = 1;

/// One record of the log, as it stands there.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<'a> {
    pub offset: Offset,
    /// The producer of its batch, where that is transactional.
    pub producer: Option<ProducerId>,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    /// The value of its header [`super::TOPIC_ID_HEADER`].
    pub topic_id: Option<&'a [u8]>,
}

/// A group machine that takes records, not requests.
#[derive(Debug)]
pub struct Loading(GroupMachine);

impl Loading {
    /// From the beginning of the log.
    pub fn new(config: GroupConfig) -> Self {
        Self(GroupMachine::empty(config))
    }

    /// From a snapshot.
    ///
    /// # Errors
    /// The bytes are not a snapshot, or one of a version that is not known.
    pub fn restore(config: GroupConfig, snapshot: &[u8]) -> Result<Self, SchemaError> {
        let mut machine = GroupMachine::empty(config);
        let mut reader = Reader::new("snapshot of groups", snapshot);
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(reader.refuse("version", i64::from(version)));
        }
        for _ in 0..reader.count("groups", false)?.unwrap_or(0) {
            let group = read_group(&mut reader)?;
            for producer in group.offsets.staged().keys() {
                machine.staging.entry(*producer).or_default().insert(Arc::clone(&group.id));
            }
            machine.groups.insert(Arc::clone(&group.id), group);
        }
        reader.end()?;
        Ok(Self(machine))
    }

    /// Takes the next record of the log. `false`: it is of a kind that only a newer Kafka knows, and was passed over.
    ///
    /// # Errors
    /// The record is not what its key says it is; nothing has changed.
    pub fn replay(&mut self, record: Replayed<'_>) -> Result<bool, SchemaError> {
        match OffsetsKey::parse(record.key)? {
            OffsetsKey::Unknown { .. } => return Ok(false),
            OffsetsKey::Offset(key) => match record.value {
                None => {
                    if let Some(group) = self.0.groups.get_mut(key.group.as_str()) {
                        group.offsets.remove(&key.topic, key.partition);
                    }
                    self.0.drop_if_vacant(&key.group);
                }
                Some(value) => {
                    let committed = read_commit(&record, value)?;
                    let group = self.0.group_or_new(&key.group);
                    match record.producer {
                        None => group.offsets.commit(&key.topic, key.partition, committed),
                        Some(producer) => {
                            group.offsets.stage(producer, &key.topic, key.partition, committed);
                            let id = Arc::clone(&group.id);
                            self.0.staging.entry(producer).or_default().insert(id);
                        }
                    }
                }
            },
            OffsetsKey::Group(key) => match record.value {
                None => {
                    if let Some(group) = self.0.groups.get_mut(key.group.as_str()) {
                        let offsets = std::mem::take(&mut group.offsets);
                        *group = Group { offsets, ..Group::new(&key.group) };
                    }
                    self.0.drop_if_vacant(&key.group);
                }
                Some(value) => {
                    let parsed = read_generation(value)?;
                    self.0.group_or_new(&key.group).apply_record(parsed, Bytes::copy_from_slice(value));
                }
            },
        }
        Ok(true)
    }

    /// A marker stands in the log.
    pub fn transaction_ended(&mut self, producer: ProducerId, committed: bool) {
        self.0.transaction_ended(producer, committed);
    }

    /// The log is at its end: every member has a full session from now on, whatever it had left before.
    pub fn open(self, now: Now) -> GroupMachine {
        let mut machine = self.0;
        machine.begin_sessions(now);
        machine
    }
}

impl GroupMachine {
    /// All that is recorded up to here: with every record from here on it gives this machine again, as after a restart.
    pub fn snapshot(&self) -> Bytes {
        let groups: Vec<&Group> = self.groups.values().filter(|group| group.is_recorded()).collect();
        let mut writer = Writer::default();
        writer.u8(VERSION);
        writer.count(groups.len());
        for group in groups {
            writer.string(&group.id);
            write_option(&mut writer, group.recorded.as_ref(), |writer, value| writer.bytes(value));
            write_offsets(&mut writer, group.offsets.committed());
            writer.count(group.offsets.staged().len());
            for (producer, staged) in group.offsets.staged() {
                writer.i64(producer.get());
                write_offsets(&mut writer, staged);
            }
        }
        writer.finish()
    }
}

fn read_generation(value: &[u8]) -> Result<GroupMetadataValue, SchemaError> {
    let parsed = GroupMetadataValue::parse(value)?;
    if !(0..i32::MAX).contains(&parsed.generation) {
        // The last number is kept back, so that there is always a next.
        return Err(Reader::new("GroupMetadataValue", value).refuse("generation", i64::from(parsed.generation)));
    }
    Ok(parsed)
}

fn read_commit(record: &Replayed<'_>, value: &[u8]) -> Result<Committed, SchemaError> {
    let parsed = OffsetCommitValue::parse(value)?;
    let id = record.topic_id.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).unwrap_or(parsed.topic_id);
    Ok(Committed {
        position: parsed.offset,
        leader_epoch: parsed.leader_epoch,
        metadata: parsed.metadata.into(),
        written_at: Timestamp::from_millis(parsed.commit_timestamp),
        expires_at: (parsed.expire_timestamp >= 0).then(|| Timestamp::from_millis(parsed.expire_timestamp)),
        // Nil is Kafka's "not known".
        topic_id: TopicId::new(Uuid::from_bytes(id)).ok(),
        record: record.offset,
    })
}

fn read_group(reader: &mut Reader<'_>) -> Result<Group, SchemaError> {
    let id: Name = reader.string("group", false)?.into();
    let mut group = Group::new(&id);
    if let Some(value) = read_option(reader, |reader| reader.bytes("generation", false))? {
        group.apply_record(read_generation(&value)?, value);
    }
    read_offsets(reader, |topic, partition, committed| group.offsets.commit(topic, partition, committed))?;
    for _ in 0..reader.count("staged", false)?.unwrap_or(0) {
        let raw = reader.i64("producer")?;
        let producer = ProducerId::new(raw).map_err(|_| reader.refuse("producer", raw))?;
        read_offsets(reader, |topic, partition, committed| group.offsets.stage(producer, topic, partition, committed))?;
    }
    Ok(group)
}

fn write_offsets(writer: &mut Writer, offsets: &ByPartition) {
    writer.count(offsets.len());
    for (topic, partitions) in offsets {
        writer.string(topic.as_str());
        writer.count(partitions.len());
        for (partition, committed) in partitions {
            writer.i32(*partition);
            writer.i64(committed.position);
            writer.i32(committed.leader_epoch);
            writer.string(&committed.metadata);
            writer.i64(committed.written_at.as_millis());
            write_option(writer, committed.expires_at, |writer, at| writer.i64(at.as_millis()));
            write_option(writer, committed.topic_id, |writer, id| writer.raw(id.get().as_bytes()));
            writer.i64(committed.record.get());
        }
    }
}

fn read_offsets(reader: &mut Reader<'_>, mut put: impl FnMut(&TopicName, i32, Committed)) -> Result<(), SchemaError> {
    for _ in 0..reader.count("topics", false)?.unwrap_or(0) {
        let topic = reader.topic("topic")?;
        for _ in 0..reader.count("partitions", false)?.unwrap_or(0) {
            let partition = reader.i32("partition")?;
            let position = reader.i64("offset")?;
            let leader_epoch = reader.i32("leader epoch")?;
            let metadata = reader.string("metadata", false)?.into();
            let written_at = Timestamp::from_millis(reader.i64("commit time")?);
            let expires_at = read_option(reader, |reader| reader.i64("expiry"))?.map(Timestamp::from_millis);
            let topic_id = read_option(reader, |reader| reader.take("topic id", 16))?
                .and_then(|bytes| TopicId::new(Uuid::from_slice(bytes).expect("take gave 16 bytes")).ok());
            let raw = reader.i64("record")?;
            let record = Offset::new(raw).map_err(|_| reader.refuse("record", raw))?;
            let committed = Committed { position, leader_epoch, metadata, written_at, expires_at, topic_id, record };
            put(&topic, partition, committed);
        }
    }
    Ok(())
}

fn write_option<T>(writer: &mut Writer, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
    writer.u8(u8::from(value.is_some()));
    if let Some(value) = value {
        write(writer, value);
    }
}

fn read_option<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, SchemaError>,
) -> Result<Option<T>, SchemaError> {
    match reader.u8("presence")? {
        0 => Ok(None),
        1 => read(reader).map(Some),
        other => Err(reader.refuse("presence", i64::from(other))),
    }
}
