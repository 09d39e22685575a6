//! One transactional id: what is remembered of it, in as few bytes as it takes.
//!
//! Owns: the compact entry, its state, and the words in which the rest of the machine asks for them. Leaves to others:
//! when a state may follow another (`init`, `partitions`, `end`).
//!
//! Invariants:
//! 1. An idle id costs one `Entry` and the text of its id: partitions and timers hang on the open states only.
//! 2. `last_offset` is the offset of the id's newest record; in `Ending` that record is the Prepare.
//! 3. Everything here but the deadline of an open transaction and the markers written so far can be told from that record.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

use super::super::Producer;
use super::io::{Outcome, TxnPartition, TxnStatus};

/// The bytes that an idle id may cost beside its text. Flink's sink makes a million ids a day (INCREMENTING).
pub(super) const ENTRY_SIZE: usize = 72;
const _: () = assert!(size_of::<Option<Entry>>() == ENTRY_SIZE, "an entry has grown: a million ids must stay cheap");

#[derive(Debug)]
pub(super) struct Entry {
    pub id: Box<str>,
    pub state: State,
    producer_id: ProducerId,
    /// Means something only where `previous_epoch` does.
    previous_id: ProducerId,
    /// When the id's newest record was made: expiry counts from here.
    pub updated: Timestamp,
    pub last_offset: Offset,
    pub timeout_ms: i32,
    producer_epoch: ProducerEpoch,
    /// -1 for none: an `Option` would cost every id eight bytes more.
    previous_epoch: i16,
}

#[derive(Debug)]
pub(super) enum State {
    Empty,
    Ongoing(Box<Ongoing>),
    Ending(Outcome, Box<Ending>),
    Complete(Outcome, Started),
}

/// When a transaction began.
pub(super) type Started = Timestamp;

#[derive(Debug)]
pub(super) struct Ongoing {
    pub started: Started,
    pub partitions: BTreeSet<TxnPartition>,
    /// The uptime at which it is aborted; under it, it stands in the timers.
    pub deadline: Duration,
}

#[derive(Debug)]
pub(super) struct Ending {
    pub started: Started,
    pub partitions: BTreeSet<TxnPartition>,
    /// Those of `partitions` whose marker is not known to be durable. After a load, all.
    pub unmarked: BTreeSet<TxnPartition>,
}

impl Entry {
    /// Not yet told of in any record: the caller appends or has read one.
    pub fn new(id: &str, producer: Producer, timeout_ms: i32) -> Self {
        Self {
            id: id.into(),
            state: State::Empty,
            producer_id: producer.id,
            previous_id: producer.id,
            updated: Timestamp::default(),
            last_offset: Offset::ZERO,
            timeout_ms,
            producer_epoch: producer.epoch,
            previous_epoch: -1,
        }
    }

    pub fn producer(&self) -> Producer {
        Producer { id: self.producer_id, epoch: self.producer_epoch }
    }

    /// Who the producer was before it bumped its own epoch (KIP-360), so that a repeat of that request is known.
    /// Never somebody else: an InitProducerId that names nobody forgets it.
    pub fn previous(&self) -> Option<Producer> {
        let epoch = ProducerEpoch::new(self.previous_epoch).ok()?;
        Some(Producer { id: self.previous_id, epoch })
    }

    pub fn set_producer(&mut self, producer: Producer, previous: Option<Producer>) {
        self.producer_id = producer.id;
        self.producer_epoch = producer.epoch;
        self.previous_id = previous.map_or(producer.id, |p| p.id);
        self.previous_epoch = previous.map_or(-1, |p| p.epoch.get());
    }

    pub fn status(&self) -> TxnStatus {
        match self.state {
            State::Empty => TxnStatus::Empty,
            State::Ongoing(_) => TxnStatus::Ongoing,
            State::Ending(Outcome::Commit, _) => TxnStatus::PrepareCommit,
            State::Ending(Outcome::Abort, _) => TxnStatus::PrepareAbort,
            State::Complete(Outcome::Commit, _) => TxnStatus::CompleteCommit,
            State::Complete(Outcome::Abort, _) => TxnStatus::CompleteAbort,
        }
    }

    pub fn started(&self) -> Option<Timestamp> {
        match &self.state {
            State::Empty => None,
            State::Ongoing(ongoing) => Some(ongoing.started),
            State::Ending(_, ending) => Some(ending.started),
            State::Complete(_, started) => Some(*started),
        }
    }

    /// The partitions of the open or ending transaction.
    pub fn partitions(&self) -> Option<&BTreeSet<TxnPartition>> {
        match &self.state {
            State::Ongoing(ongoing) => Some(&ongoing.partitions),
            State::Ending(_, ending) => Some(&ending.partitions),
            State::Empty | State::Complete(..) => None,
        }
    }
}

/// The state that a record or a snapshot tells; the deadline is set when the partition is opened.
pub(super) fn state_of(status: TxnStatus, started: Started, partitions: BTreeSet<TxnPartition>) -> State {
    let ending =
        |partitions: BTreeSet<TxnPartition>| Box::new(Ending { started, unmarked: partitions.clone(), partitions });
    match status {
        TxnStatus::Empty => State::Empty,
        TxnStatus::Ongoing => State::Ongoing(Box::new(Ongoing { started, partitions, deadline: Duration::ZERO })),
        TxnStatus::PrepareCommit => State::Ending(Outcome::Commit, ending(partitions)),
        TxnStatus::PrepareAbort => State::Ending(Outcome::Abort, ending(partitions)),
        TxnStatus::CompleteCommit => State::Complete(Outcome::Commit, started),
        TxnStatus::CompleteAbort => State::Complete(Outcome::Abort, started),
    }
}
