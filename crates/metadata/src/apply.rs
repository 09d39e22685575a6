//! The rules: what a command changes, as a pure function of the rows it reads.
//!
//! Owns: every decision of the metadata. Leaves to others: fetching rows, making changes durable, telling anybody.
//!
//! Invariants:
//! 1. No I/O, no clock, no randomness: the same view and command give the same answer.
//! 2. A command reads resident rows and the cold rows that it names; it never decides on a cold row that was not
//!    fetched ([`Stop::Need`]).
//! 3. It writes at most [`ENTITIES_PER_COMMAND_MAX`] rows, or is refused, or does a part and says that there is more.
//! 4. Rows of one command take effect together or not at all.
//!
//! Sources: D1, D6, D7, D8, D10, D12.

mod broker;
mod extents;
mod log_start;
mod object;
mod partition;
mod pin;
mod references;
mod snapshot;
mod term;
mod topic;
mod upload;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use forebay_types::LogId;

use crate::command::{Command, ENTITIES_PER_COMMAND_MAX, Refusal, Reply};
use crate::state::{Extent, Key, Row, Tables};

/// Cold rows that were fetched for a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    rows: BTreeMap<Key, Option<Row>>,
    extents: BTreeMap<LogId, FirstExtents>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FirstExtents {
    limit: usize,
    extents: Vec<Extent>,
}

impl Fetched {
    pub fn row(&mut self, key: Key, row: Option<Row>) {
        self.rows.insert(key, row);
    }

    /// The first `limit` extents of a log, or all where there are fewer.
    pub fn first_extents(&mut self, log: LogId, limit: usize, extents: Vec<Extent>) {
        self.extents.insert(log, FirstExtents { limit, extents });
    }
}

/// A cold row, or several, that a command has to know before it can be decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    Row(Key),
    /// The first extents of a log.
    FirstExtents {
        log: LogId,
        limit: usize,
    },
}

/// What a command may look at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub tables: &'a Tables,
    pub fetched: &'a Fetched,
}

/// What a command does. Without rows it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// New values; `None` removes the row.
    pub rows: BTreeMap<Key, Option<Row>>,
    pub reply: Reply,
}

/// Why there are no changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The command reads these cold rows and the view does not have them yet. Fetch them and apply it again: which rows
    /// a command reads may depend on others, so that this may happen a few times.
    Need(Vec<Read>),
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What `command` changes.
pub fn apply(view: View<'_>, command: &Command) -> Result<Changes, Stop> {
    let mut changes = decide(view, command)?;
    if !changes.rows.is_empty() {
        changes.rows.insert(Key::Commit, Some(Row::Commit(view.tables.commit().next())));
    }
    assert!(changes.rows.len() <= ENTITIES_PER_COMMAND_MAX, "{} rows in one command", changes.rows.len());
    Ok(changes)
}

fn decide(view: View<'_>, command: &Command) -> Result<Changes, Stop> {
    match command {
        Command::BeginTerm { cluster, now } => term::begin(view, cluster, *now),

        Command::RegisterBroker { broker, incarnation, wal } => broker::register(view, *broker, *incarnation, *wal),
        Command::SealEpoch { life, by } => broker::seal(view, *life, *by),
        Command::CloseEpoch { life, end, by } => broker::close(view, *life, *end, *by),
        Command::AllocateProducerIds { life } => broker::allocate_producer_ids(view, *life),
        Command::AlterBrokerConfig { scope, change } => Ok(broker::alter_config(view, *scope, change)),

        Command::CreateTopic { name, id, partitions, config, now } => {
            topic::create(view, name, *id, *partitions, config, *now)
        }
        Command::CreatePartitions { topic, partitions } => topic::create_partitions(view, *topic, *partitions),
        Command::AlterTopicConfig { topic, change } => topic::alter_config(view, *topic, change),
        Command::DeleteTopic { topic, now, trash_ms } => topic::delete(view, *topic, *now, *trash_ms),
        Command::UndeleteTopic { topic } => topic::undelete(view, *topic),
        Command::PurgeTopic { topic, now } => topic::purge(view, *topic, *now),

        Command::OpenPartitions { life, partitions } => partition::open(view, *life, partitions),
        Command::AdvanceLogStart { life, partition, leader_epoch, to, reason, now } => {
            log_start::advance(view, *life, (*partition, *leader_epoch), *to, *reason, *now)
        }
        Command::PutProducerSnapshot { life, object, size, partitions } => {
            snapshot::put_producer(view, *life, object, *size, partitions)
        }
        Command::PutCoordinatorSnapshot { life, object, size, partition } => {
            snapshot::put_coordinator(view, *life, object, *size, *partition)
        }

        Command::CommitUpload(upload) => upload::commit(view, upload),
        Command::IndexUploads => upload::index(view),
        Command::DropExtents { partition, now } => extents::drop_released(view, *partition, *now),

        Command::CreatePin { kind, holds, owner, reason, scope, renewal_ms, now } => {
            let who = pin::Claim { kind: *kind, holds: *holds, owner, reason, scope };
            pin::create(view, &who, *renewal_ms, *now)
        }
        Command::RenewPin { pin, now } => pin::renew(view, *pin, *now),
        Command::ReleasePin { pin } => pin::release(view, *pin),

        Command::CondemnObject { object, size, now } => object::condemn(view, object, *size, *now),
        Command::ForgetObject { object } => object::forget(view, object),
    }
}

impl Changes {
    fn nothing(reply: Reply) -> Self {
        Self { rows: BTreeMap::new(), reply }
    }

    fn one(key: Key, row: Row, reply: Reply) -> Self {
        Self { rows: BTreeMap::from([(key, Some(row))]), reply }
    }
}

impl<'a> View<'a> {
    /// The cold row at `key`.
    fn cold(self, key: Key) -> Result<Option<&'a Row>, Stop> {
        debug_assert!(key.is_cold());
        match self.fetched.rows.get(&key) {
            Some(row) => Ok(row.as_ref()),
            None => Err(Stop::Need(vec![Read::Row(key)])),
        }
    }

    /// Asks for several cold rows at once, so that they are fetched in one round.
    fn require(self, keys: impl IntoIterator<Item = Key>) -> Result<(), Stop> {
        let missing: BTreeSet<Key> = keys.into_iter().filter(|key| !self.fetched.rows.contains_key(key)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Stop::Need(missing.into_iter().map(Read::Row).collect())) }
    }

    /// The first extents of a log, and whether these are all.
    fn first_extents(self, log: LogId, limit: usize) -> Result<(&'a [Extent], bool), Stop> {
        match self.fetched.extents.get(&log) {
            Some(first) if first.limit >= limit => Ok((&first.extents, first.extents.len() < first.limit)),
            _ => Err(Stop::Need(vec![Read::FirstExtents { log, limit }])),
        }
    }
}
