//! What the coordinators' machines have in common: the time they are given, and the shape of what comes out.
//!
//! Owns: [`Now`], [`Token`], [`Record`], [`Output`]. Leaves to others: what is decided (`group`, `txn`), and the host
//! that appends records and sends replies.
//!
//! Invariants, kept by whoever hosts a machine:
//! 1. One machine has one caller at a time, and the records of an output are appended, in order, before the next call.
//! 2. The first record of an output lands at the offset given to the call; nothing else appends in between.
//! 3. A reply leaves only when everything appended up to its output is durable, also when that output has no records:
//!    the state it speaks of may rest on earlier ones (D1). Where the output says that it rests on less, that is enough.
//! 4. An append that fails for good ends the machine: it is dropped and opened again, never rolled back.

pub mod group;
pub mod txn;

use std::time::Duration;

use bytes::Bytes;
use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

/// The time of a call, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: what is written into records, and what retention counts by. May jump.
    pub wall: Timestamp,
    /// Time since some moment before the machine was made, on a clock that does not jump and stands still while nothing
    /// can be answered (D10): what deadlines count by.
    pub uptime: Duration,
}

/// A request that waits for its reply. Chosen by the host, which never uses one twice on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// One record for the machine's partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    /// `None` is a tombstone: what the key named is gone.
    pub value: Option<Bytes>,
    /// Empty for most. Kafka's own readers of these topics pass over headers.
    pub headers: Vec<(&'static str, Bytes)>,
}

/// A transaction that records belong to, by its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// What a call asks of the host, with replies of type `R`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output<R> {
    /// To append in this order.
    pub records: Vec<Record>,
    /// Where given, all records go into transactional batches of this producer.
    pub producer: Option<Producer>,
    /// To send once all that was appended up to here is durable, or all below `rests_on` where that is given.
    pub replies: Vec<(Token, R)>,
    pub rests_on: Option<Offset>,
}

impl<R> Default for Output<R> {
    fn default() -> Self {
        Self { records: Vec::new(), producer: None, replies: Vec::new(), rests_on: None }
    }
}
