//! `OffsetCommitKey` v0–1 and `OffsetCommitValue` v0–4: one group's position in one partition.

use bytes::Bytes;
use forebay_types::TopicName;

use super::{Reader, SchemaError, Writer};

/// Whose position, and where. Versions 0 and 1 are the same bytes; 1 is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitKey {
    pub group: String,
    pub topic: TopicName,
    pub partition: i32,
}

impl OffsetCommitKey {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, SchemaError> {
        let key = Self {
            group: reader.string("group", false)?,
            topic: reader.topic("topic")?,
            partition: reader.i32("partition")?,
        };
        reader.end()?;
        Ok(key)
    }

    pub fn encode(group: &str, topic: &str, partition: i32) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(1);
        writer.string(group);
        writer.string(topic);
        writer.i32(partition);
        writer.finish()
    }
}

/// The position. Version 3 is written, or 1 where the client named its own expiry, as Kafka 3.9 does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    pub offset: i64,
    /// -1 where the client gave none.
    pub leader_epoch: i32,
    pub metadata: String,
    /// Milliseconds since 1970.
    pub commit_timestamp: i64,
    /// Milliseconds since 1970; -1 where the broker's retention counts.
    pub expire_timestamp: i64,
    /// The topic's id, as Kafka 4.1 has it in a tagged field of version 4; nil where it is not said.
    pub topic_id: [u8; 16],
}

impl OffsetCommitValue {
    /// # Errors
    /// The bytes are not such a value, or one of a version that is not known.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        let mut reader = Reader::new("OffsetCommitValue", bytes);
        let version = reader.version(4)?;
        let flexible = version >= 4;
        let offset = reader.i64("offset")?;
        let leader_epoch = if version >= 3 { reader.i32("leaderEpoch")? } else { -1 };
        let metadata = reader.string("metadata", flexible)?;
        let commit_timestamp = reader.i64("commitTimestamp")?;
        let expire_timestamp = if version == 1 { reader.i64("expireTimestamp")? } else { -1 };
        let mut topic_id = [0; 16];
        if flexible {
            reader.tagged(|tag, field| {
                if tag == 0 {
                    topic_id.copy_from_slice(field.take("topicId", 16)?);
                }
                Ok(())
            })?;
        }
        reader.end()?;
        Ok(Self { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id })
    }

    /// In version 3, or 1 where there is an expiry. Neither has room for the topic's id.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        let expires = self.expire_timestamp >= 0;
        writer.i16(if expires { 1 } else { 3 });
        writer.i64(self.offset);
        if !expires {
            writer.i32(self.leader_epoch);
        }
        writer.string(&self.metadata);
        writer.i64(self.commit_timestamp);
        if expires {
            writer.i64(self.expire_timestamp);
        }
        writer.finish()
    }
}
