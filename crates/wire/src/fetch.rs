//! The fetch response, encoded by hand: its records are sent by reference.
//!
//! Owns: versions 4 to 17 of `FetchResponse.json` (flexible from 12, topic ids instead of names from 13). Leaves to
//! others: which records answer a fetch (`log`), sessions (`api`).
//!
//! A field that a version lacks is left out, whatever it holds: one answer is built for every version.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::{EncodeError, varint};

const WHAT: &str = "FetchResponse";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchResponse {
    pub throttle_ms: i32,
    /// From version 7 on.
    pub error_code: i16,
    /// From version 7 on; 0 without a session.
    pub session_id: i32,
    pub topics: Vec<FetchTopic>,
    /// Where the current leaders named in the partitions are, from version 16 on (KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    /// Until version 12.
    pub name: String,
    /// From version 13 on.
    pub topic_id: Uuid,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartition {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    /// -1 only where unknown.
    pub last_stable_offset: i64,
    /// From version 5 on.
    pub log_start_offset: i64,
    /// From version 12 on.
    pub diverging_epoch: Option<EpochEndOffset>,
    /// From version 12 on.
    pub current_leader: Option<LeaderIdAndEpoch>,
    /// Producer id and first offset of each; `None` for `read_uncommitted`.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// From version 11 on; -1 for none.
    pub preferred_read_replica: i32,
    /// Record batches; empty is sent as empty, never as null.
    pub records: Vec<Bytes>,
}

impl FetchPartition {
    /// A partition that has no answer but an error: no offsets, no records.
    pub fn error(index: i32, error_code: i16) -> Self {
        Self {
            index,
            error_code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

impl EpochEndOffset {
    const DEFAULT: Self = Self { epoch: -1, end_offset: -1 };
}

impl LeaderIdAndEpoch {
    const DEFAULT: Self = Self { leader_id: -1, leader_epoch: -1 };
}

/// The largest epoch up to the one asked about, and where it ends (KIP-595).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub epoch: i32,
    pub end_offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    pub leader_id: i32,
    pub leader_epoch: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// A fetch response as a frame, size included, in pieces to be written one after the other. Records are not copied.
///
/// # Errors
/// `version` is not 4 to 17, or a length is more than the protocol can say.
pub fn encode_fetch(correlation_id: i32, version: i16, response: &FetchResponse) -> Result<Vec<Bytes>, EncodeError> {
    if !(4..=17).contains(&version) {
        return Err(EncodeError::Version { what: WHAT, version });
    }
    let mut out = Scatter { head: BytesMut::with_capacity(256), sent: Vec::new(), bytes: 0, version };
    out.head.put_i32(0);
    out.head.put_i32(correlation_id);
    out.no_tagged_fields();
    out.head.put_i32(response.throttle_ms);
    if version >= 7 {
        out.head.put_i16(response.error_code);
        out.head.put_i32(response.session_id);
    }
    out.length(Some(response.topics.len()))?;
    for topic in &response.topics {
        out.topic(topic)?;
    }
    if version >= 16 && !response.node_endpoints.is_empty() {
        let mut field = Scatter { head: BytesMut::new(), sent: Vec::new(), bytes: 0, version };
        field.node_endpoints(&response.node_endpoints)?;
        out.tagged_fields(&[(0, field.head)])?;
    } else {
        out.no_tagged_fields();
    }
    out.finish()
}

/// A frame being written: pieces that are done, and the one that is open at the end.
struct Scatter {
    head: BytesMut,
    sent: Vec<Bytes>,
    /// In `sent`.
    bytes: usize,
    version: i16,
}

impl Scatter {
    fn flexible(&self) -> bool {
        self.version >= 12
    }

    fn topic(&mut self, topic: &FetchTopic) -> Result<(), EncodeError> {
        if self.version >= 13 {
            self.head.put_slice(topic.topic_id.as_bytes());
        } else {
            self.string(Some(&topic.name))?;
        }
        self.length(Some(topic.partitions.len()))?;
        for partition in &topic.partitions {
            self.partition(partition)?;
        }
        self.no_tagged_fields();
        Ok(())
    }

    fn partition(&mut self, partition: &FetchPartition) -> Result<(), EncodeError> {
        self.head.put_i32(partition.index);
        self.head.put_i16(partition.error_code);
        self.head.put_i64(partition.high_watermark);
        self.head.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.head.put_i64(partition.log_start_offset);
        }
        self.length(partition.aborted.as_ref().map(Vec::len))?;
        for (producer_id, first_offset) in partition.aborted.iter().flatten() {
            self.head.put_i64(*producer_id);
            self.head.put_i64(*first_offset);
            self.no_tagged_fields();
        }
        if self.version >= 11 {
            self.head.put_i32(partition.preferred_read_replica);
        }
        self.length(Some(partition.records.iter().map(Bytes::len).sum()))?;
        for records in &partition.records {
            self.piece(records);
        }
        self.partition_tags(partition)
    }

    fn partition_tags(&mut self, partition: &FetchPartition) -> Result<(), EncodeError> {
        let mut fields = Vec::new();
        if let Some(epoch) = partition.diverging_epoch.filter(|e| *e != EpochEndOffset::DEFAULT) {
            let mut field = BytesMut::with_capacity(13);
            field.put_i32(epoch.epoch);
            field.put_i64(epoch.end_offset);
            field.put_u8(0);
            fields.push((0, field));
        }
        if let Some(leader) = partition.current_leader.filter(|l| *l != LeaderIdAndEpoch::DEFAULT) {
            let mut field = BytesMut::with_capacity(9);
            field.put_i32(leader.leader_id);
            field.put_i32(leader.leader_epoch);
            field.put_u8(0);
            fields.push((1, field));
        }
        self.tagged_fields(&fields)
    }

    fn node_endpoints(&mut self, nodes: &[NodeEndpoint]) -> Result<(), EncodeError> {
        self.length(Some(nodes.len()))?;
        for node in nodes {
            self.head.put_i32(node.node_id);
            self.string(Some(&node.host))?;
            self.head.put_i32(node.port);
            self.string(node.rack.as_deref())?;
            self.no_tagged_fields();
        }
        Ok(())
    }

    /// Records, by reference: what was written so far ends here, and a new piece follows them. No piece is empty, since
    /// writing nothing looks like a closed connection.
    fn piece(&mut self, records: &Bytes) {
        if records.is_empty() {
            return;
        }
        if !self.head.is_empty() {
            self.bytes += self.head.len();
            self.sent.push(self.head.split().freeze());
        }
        self.bytes += records.len();
        self.sent.push(records.clone());
    }

    /// The length of an array or of bytes; `None` is null.
    fn length(&mut self, length: Option<usize>) -> Result<(), EncodeError> {
        let length = length.map(checked_length).transpose()?;
        if self.flexible() {
            varint::put_unsigned(&mut self.head, length.map_or(0, |n| n.cast_unsigned() + 1));
        } else {
            self.head.put_i32(length.unwrap_or(-1));
        }
        Ok(())
    }

    fn string(&mut self, text: Option<&str>) -> Result<(), EncodeError> {
        if self.flexible() {
            self.length(text.map(str::len))?;
        } else {
            let bytes = text.map_or(0, str::len);
            let length = i16::try_from(bytes).map_err(|_| EncodeError::Size { what: "topic name", bytes })?;
            self.head.put_i16(if text.is_some() { length } else { -1 });
        }
        self.head.put_slice(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    fn no_tagged_fields(&mut self) {
        if self.flexible() {
            self.head.put_u8(0);
        }
    }

    fn tagged_fields(&mut self, fields: &[(u32, BytesMut)]) -> Result<(), EncodeError> {
        if self.flexible() {
            varint::put_unsigned(&mut self.head, checked_length(fields.len())?.cast_unsigned());
            for (tag, field) in fields {
                varint::put_unsigned(&mut self.head, *tag);
                varint::put_unsigned(&mut self.head, checked_length(field.len())?.cast_unsigned());
                self.head.put_slice(field);
            }
        }
        Ok(())
    }

    /// Fills in the frame's size.
    fn finish(mut self) -> Result<Vec<Bytes>, EncodeError> {
        let size = checked_length(self.bytes + self.head.len() - 4)?.to_be_bytes();
        if self.sent.is_empty() {
            self.head[..4].copy_from_slice(&size);
        } else {
            let mut first = BytesMut::from(&*self.sent[0]);
            first[..4].copy_from_slice(&size);
            self.sent[0] = first.freeze();
        }
        if !self.head.is_empty() {
            self.sent.push(self.head.freeze());
        }
        Ok(self.sent)
    }
}

/// Kafka's lengths are 32 bits with a sign.
fn checked_length(bytes: usize) -> Result<i32, EncodeError> {
    i32::try_from(bytes).map_err(|_| EncodeError::Size { what: WHAT, bytes })
}
