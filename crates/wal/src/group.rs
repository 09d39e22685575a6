//! What travels through a WAL: a group of entries, written and made durable as one.

use std::sync::Arc;

use forebay_format::{ObjectRange, WalEntry};
use forebay_types::{BrokerEpoch, BrokerId, ClusterId, WalSequence};

use crate::{Before, WalError};

/// Offsets that one group gives to any log, at most: as many as the largest batch has. Where nothing tells what a lost
/// group held, each log is moved on by so many.
pub const GROUP_OFFSETS_MAX: u64 = 1 << 31;

/// Entries of one group, at most. Each may be of another log, and the metadata takes so many logs in one commit.
pub const GROUP_ENTRIES_MAX: usize = 65_536;

/// Whose WAL it is: the broker, and which of its lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalOwner {
    pub cluster: ClusterId,
    pub broker: BrokerId,
    pub epoch: BrokerEpoch,
}

/// Entries that become durable together, under one sequence. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Group {
    pub sequence: WalSequence,
    /// Exclusive: every group below this one was acknowledged when this one was formed. Written into the block, it
    /// tells a later reader which unreadable blocks are losses and which are torn writes.
    pub acknowledged: WalSequence,
    /// What the groups before held. Written into the block, it tells a later reader what they lost.
    pub before: Before,
    /// In the order of their positions; never empty.
    pub entries: Arc<Vec<WalEntry>>,
}

/// A group that will survive a crash, with every group before it.
#[derive(Clone, Debug)]
pub struct DurableGroup {
    pub sequence: WalSequence,
    /// In the order of their positions: for one partition, of their offsets.
    pub entries: Vec<WalEntry>,
    /// The data object that holds the group already, where the WAL is in the bucket: only its commit is left to do.
    pub upload: Option<WrittenObject>,
}

/// A data object in the bucket, as its commit describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenObject {
    pub sequence: WalSequence,
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Byte offset at which the object's footer begins.
    pub footer_position: u64,
    pub ranges: Vec<ObjectRange>,
}

/// Who is told what became durable, in WAL order and before any waiter wakes. Both calls are made by the WAL's own
/// task, which does nothing else meanwhile: they must not block.
pub trait Publisher: Send + Sync {
    fn publish(&self, group: DurableGroup);

    /// The WAL failed, or was fenced: nothing more will be published. Not called for a WAL that was stopped.
    fn ended(&self, error: &WalError);
}
