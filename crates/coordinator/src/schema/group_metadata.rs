//! `GroupMetadataKey` v2 and `GroupMetadataValue` v0–4: one generation of a classic group.

use bytes::Bytes;

use super::{Reader, SchemaError, Writer};

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataKey {
    pub group: String,
}

impl GroupMetadataKey {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, SchemaError> {
        let key = Self { group: reader.string("group", false)? };
        reader.end()?;
        Ok(key)
    }

    pub fn encode(group: &str) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(2);
        writer.string(group);
        writer.finish()
    }
}

/// A generation and its members; without members, an empty group. Version 3 is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// `consumer`, `connect` …
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// Milliseconds since 1970; -1 where it is not known (before version 2).
    pub current_state_timestamp: i64,
    pub members: Vec<MemberMetadata>,
}

/// A member as its generation was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// The member's own bytes for the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

impl GroupMetadataValue {
    /// # Errors
    /// The bytes are not such a value, or one of a version that is not known.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        let mut reader = Reader::new("GroupMetadataValue", bytes);
        let version = reader.version(4)?;
        let flexible = version >= 4;
        let protocol_type = reader.string("protocolType", flexible)?;
        let generation = reader.i32("generation")?;
        let protocol = reader.nullable_string("protocol", flexible)?;
        let leader = reader.nullable_string("leader", flexible)?;
        let current_state_timestamp = if version >= 2 { reader.i64("currentStateTimestamp")? } else { -1 };
        let count = reader.count("members", flexible)?.unwrap_or(0);
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(MemberMetadata::read(&mut reader, version)?);
        }
        if flexible {
            reader.tagged(|_, _| Ok(()))?;
        }
        reader.end()?;
        Ok(Self { protocol_type, generation, protocol, leader, current_state_timestamp, members })
    }

    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(3);
        writer.string(&self.protocol_type);
        writer.i32(self.generation);
        writer.nullable_string(self.protocol.as_deref());
        writer.nullable_string(self.leader.as_deref());
        writer.i64(self.current_state_timestamp);
        writer.count(self.members.len());
        for member in &self.members {
            member.write(&mut writer);
        }
        writer.finish()
    }
}

impl MemberMetadata {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Self, SchemaError> {
        let flexible = version >= 4;
        let member_id = reader.string("memberId", flexible)?;
        let instance_id = if version >= 3 { reader.nullable_string("groupInstanceId", flexible)? } else { None };
        let client_id = reader.string("clientId", flexible)?;
        let client_host = reader.string("clientHost", flexible)?;
        let rebalance_timeout_ms = if version >= 1 { Some(reader.i32("rebalanceTimeout")?) } else { None };
        let session_timeout_ms = reader.i32("sessionTimeout")?;
        let subscription = reader.bytes("subscription", flexible)?;
        let assignment = reader.bytes("assignment", flexible)?;
        if flexible {
            reader.tagged(|_, _| Ok(()))?;
        }
        Ok(Self {
            member_id,
            instance_id,
            client_id,
            client_host,
            // Before version 1 a rebalance had the session's time.
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription,
            assignment,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.string(&self.member_id);
        writer.nullable_string(self.instance_id.as_deref());
        writer.string(&self.client_id);
        writer.string(&self.client_host);
        writer.i32(self.rebalance_timeout_ms);
        writer.i32(self.session_timeout_ms);
        writer.bytes(&self.subscription);
        writer.bytes(&self.assignment);
    }
}
