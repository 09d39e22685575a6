//! Opening: a snapshot or nothing, the records behind it, then a machine that answers.
//!
//! Owns: the order of these steps, and what begins anew with each owner: time-outs, expiry, unsent markers. Leaves to
//! others: where snapshots and records come from (the host), their bytes (`snapshot`, `record`).
//!
//! Invariants:
//! 1. Nothing is answered before everything is loaded: only `open` makes a [`TxnMachine`].
//! 2. A record at or below what was loaded changes nothing, so a batch that begins below the snapshot does no harm.
//! 3. Markers of every ending transaction are sent again: that the last owner sent them is known to nobody.

use bytes::Bytes;
use forebay_types::{LeaderEpoch, Offset};

use super::super::Now;
use super::entry::State;
use super::io::TxnOutput;
use super::partitions::timeout;
use super::record::{self, RecordProblem};
use super::snapshot::{self, SnapshotProblem};
use super::table::{Slot, Table};
use super::timers::Timers;
use super::{Silence, TxnConfig, TxnMachine};
use crate::schema::{SchemaError, TransactionLogKey};

/// A partition of `__transaction_state` that cannot be opened: what was read is not what a coordinator wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("reading the record of __transaction_state at offset {offset}: {problem}")]
    Record { offset: Offset, problem: RecordProblem },
    #[error("reading a snapshot of __transaction_state: {0}")]
    Snapshot(#[from] SnapshotProblem),
}

/// A machine being loaded.
#[derive(Debug)]
pub struct TxnLoader {
    config: TxnConfig,
    table: Table,
    log_end: Offset,
}

impl TxnLoader {
    /// Before the first record of a log.
    pub fn new(config: TxnConfig) -> Self {
        Self { config, table: Table::default(), log_end: Offset::ZERO }
    }

    /// # Errors
    /// The bytes are no snapshot, or one of a later version: the partition cannot be opened from it.
    pub fn restore(config: TxnConfig, bytes: &[u8]) -> Result<Self, LoadError> {
        let (log_end, table) = snapshot::read(bytes)?;
        Ok(Self { config, table, log_end })
    }

    /// The offset of the first record that is not in yet.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Takes one record of the log, in the order of offsets; compaction may have left holes. Headers are as `wire`
    /// reads them.
    ///
    /// # Errors
    /// The record is none that a coordinator writes. Kinds of key that only a newer Kafka knows are passed over.
    pub fn replay(
        &mut self,
        offset: Offset,
        key: &[u8],
        value: Option<&[u8]>,
        headers: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), LoadError> {
        if offset < self.log_end {
            return Ok(());
        }
        let at = |problem: RecordProblem| LoadError::Record { offset, problem };
        if is_foreign(key) {
            self.log_end = offset.next();
            return Ok(());
        }
        let schema = |problem: SchemaError| at(problem.into());
        let id = TransactionLogKey::parse(key).map_err(schema)?.transactional_id;
        let found = self.table.find(&id);
        match value {
            None => {
                if let Some(slot) = found {
                    self.table.remove(slot);
                }
            }
            Some(value) => {
                let entry = record::read(offset, &id, value, headers).map_err(at)?;
                match found {
                    Some(slot) => *self.table.get_mut(slot) = entry,
                    None => {
                        self.table.insert(entry);
                    }
                }
            }
        }
        self.log_end = offset.next();
        Ok(())
    }

    /// Begins to answer as the owner under `leader_epoch`. All that was loaded is durable; `log_end` is where the next
    /// record will lie. The output holds the markers that may still have to be written.
    ///
    /// # Panics
    /// `log_end` lies below a loaded record: an offset would be used twice.
    pub fn open(self, now: Now, leader_epoch: LeaderEpoch, log_end: Offset) -> (TxnMachine, TxnOutput) {
        assert!(self.log_end <= log_end, "the log ends at {log_end}, but holds records up to {}", self.log_end);
        let newest = self.table.iter().map(|(_, entry)| entry.updated).max().unwrap_or(now.wall);
        let mut machine = TxnMachine {
            config: self.config,
            leader_epoch,
            timers: Timers::new(self.config.expiration_ms),
            table: self.table,
            log_end,
            absent_rests_on: log_end,
            silence: Silence { since: newest, ms: now.wall.millis_since(newest) },
        };
        let mut out = machine.output();
        let slots: Vec<Slot> = machine.table.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            machine.timers.watch(slot, machine.expires_at(now, slot));
            let entry = machine.table.get_mut(slot);
            let deadline = now.uptime + timeout(entry);
            match &mut entry.state {
                State::Ongoing(ongoing) => {
                    ongoing.deadline = deadline;
                    machine.timers.timeouts.insert((deadline, slot));
                }
                State::Ending(..) if machine.config.sabotage_forget_prepared => {}
                State::Ending(..) => machine.send_markers(now, slot, &mut out),
                State::Empty | State::Complete(..) => {}
            }
        }
        out.deadline = machine.timers.deadline(now);
        (machine, out)
    }
}

/// Whether the key is of a kind that we do not know: Kafka passes over these, left behind by an upgrade undone.
fn is_foreign(key: &[u8]) -> bool {
    key.first_chunk::<2>().is_some_and(|version| i16::from_be_bytes(*version) > 0)
}
