//! Kafka's record schemas of the internal topics, encoded by hand, so that Kafka's own tools can read what stands here.
//!
//! Owns: keys and values of `__consumer_offsets` and `__transaction_state`, each with every version that Kafka wrote.
//! Leaves to others: the batches around them (`wire`), what they mean (`machine`).
//!
//! Invariants:
//! 1. Bytes are parsed, never asserted: an error names the record, the field and the position; no length from the
//!    bytes is allocated before it was seen to be there.
//! 2. We write the version that Kafka 3.9 writes; we read every version up to Kafka 4.x.
//!
//! Sources: Kafka's generator files `OffsetCommitKey/Value`, `GroupMetadataKey/Value` (group-coordinator) and
//! `TransactionLogKey/Value` (transaction-coordinator); KIP-915 (tagged fields in coordinator records).

mod codec;
mod group_metadata;
mod offset_commit;
mod transaction_log;

pub(crate) use codec::{Reader, Writer};
pub use codec::{STRING_BYTES_MAX, SchemaError};
pub use group_metadata::{GroupMetadataKey, GroupMetadataValue, MemberMetadata};
pub use offset_commit::{OffsetCommitKey, OffsetCommitValue};
pub use transaction_log::{TransactionLogKey, TransactionLogTopic, TransactionLogValue};

/// A key of `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetsKey {
    Offset(OffsetCommitKey),
    Group(GroupMetadataKey),
    /// A kind of record that a newer Kafka writes: to be passed over, as Kafka does.
    Unknown {
        version: i16,
    },
}

impl OffsetsKey {
    /// # Errors
    /// The bytes end early, or go on after the key.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        let mut reader = Reader::new("key of __consumer_offsets", bytes);
        match reader.i16("version")? {
            0 | 1 => OffsetCommitKey::read(&mut reader).map(Self::Offset),
            2 => GroupMetadataKey::read(&mut reader).map(Self::Group),
            version => Ok(Self::Unknown { version }),
        }
    }
}
