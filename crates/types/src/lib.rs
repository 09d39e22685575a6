//! The words of the system as types: ids, positions, epochs, sizes.
//!
//! Owns: what a value may be, its reserved values, how it is shown to a person. Leaves to others: every encoding
//! (`wire` for Kafka's, `format` for ours) and all I/O.
//!
//! Invariants:
//! 1. A value of a type here is in that type's range; `new` refuses what is not, and says the range.
//! 2. "None" is `Option`, never a reserved number; Kafka's `-1` is translated at the edge.
//!
//! Sources: Kafka's `TopicPartition`, `Uuid`, `Topic` (name rules), KIP-98 (producer id and epoch), KIP-320 (leader epoch).

mod id;
mod name;
mod position;
mod size;

pub use id::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, LogId, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
    TopicPartition,
};
pub use name::{TopicName, TopicNameError};
pub use position::{Offset, OffsetRange, Timestamp, WalPosition, WalSequence};
pub use size::ByteSize;

/// A value outside the range of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {range}, not {value}")]
pub struct OutOfRange {
    what: &'static str,
    range: &'static str,
    value: String,
}

impl OutOfRange {
    fn new(what: &'static str, range: &'static str, value: impl std::fmt::Display) -> Self {
        Self { what, range, value: value.to_string() }
    }
}
