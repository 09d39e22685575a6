//! AddPartitionsToTxn, AddOffsetsToTxn, and the question whether a partition was added (KIP-890 part 1).
//!
//! Owns: how a transaction begins and grows. Leaves to others: the end.
//!
//! Invariants:
//! 1. A transaction begins with its first partition; its time runs from there, however many follow.
//! 2. What is in it already is confirmed without a record.
//! 3. A partition of a topic created again is not in it because the one before was: its records would have no marker.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::{Now, Producer};
use super::TxnMachine;
use super::entry::{Entry, Ongoing, State};
use super::io::{AddPartitions, Refusal, TxnOutput, TxnPartition, Verified, Verify};
use super::table::Slot;

/// AddPartitionsToTxn and AddOffsetsToTxn call being fenced PRODUCER_FENCED from this version on.
const FENCED_SINCE: i16 = 2;

impl TxnMachine {
    pub(super) fn add_partitions(
        &mut self,
        now: Now,
        request: &AddPartitions,
        out: &mut TxnOutput,
    ) -> Result<(), Refusal> {
        let slot = self.known(&request.transactional_id)?;
        let entry = self.table.get_mut(slot);
        speaks_for(entry, request.producer, Refusal::fenced(request.version, FENCED_SINCE))?;
        match &mut entry.state {
            State::Ending(..) => return Err(Refusal::Concurrent),
            State::Ongoing(ongoing) => {
                let before = ongoing.partitions.len();
                ongoing.partitions.extend(request.partitions.iter().cloned());
                if ongoing.partitions.len() == before {
                    return Ok(());
                }
            }
            State::Empty | State::Complete(..) => {
                let deadline = now.uptime + timeout(entry);
                let partitions = request.partitions.iter().cloned().collect();
                entry.state = State::Ongoing(Box::new(Ongoing { started: now.wall, partitions, deadline }));
                self.timers.timeouts.insert((deadline, slot));
            }
        }
        self.append(now, slot, out);
        Ok(())
    }

    pub(super) fn verify(&self, request: &Verify) -> Result<Verified, Refusal> {
        let entry = self.table.get(self.known(&request.transactional_id)?);
        speaks_for(entry, request.producer, Refusal::Fenced)?;
        let held = match &entry.state {
            State::Ending(..) => return Err(Refusal::Concurrent),
            State::Ongoing(ongoing) => Some(&ongoing.partitions),
            State::Empty | State::Complete(..) => None,
        };
        let missing = request.partitions.iter().filter(|p| !held.is_some_and(|held| holds(held, p)));
        Ok(Verified { missing: missing.cloned().collect() })
    }

    /// The slot of an id that must be there for the request to make sense.
    pub(super) fn known(&self, id: &str) -> Result<Slot, Refusal> {
        if id.is_empty() {
            return Err(Refusal::TransactionalId);
        }
        self.table.find(id).ok_or(Refusal::Mapping)
    }
}

/// Whether a partition was added: this one, or one of its name that Kafka wrote down.
fn holds(held: &BTreeSet<TxnPartition>, partition: &TxnPartition) -> bool {
    held.contains(partition) || held.contains(&TxnPartition { topic_id: None, ..partition.clone() })
}

/// How long a transaction of the id may stay open.
pub(super) fn timeout(entry: &Entry) -> Duration {
    Duration::from_millis(u64::try_from(entry.timeout_ms).unwrap_or(0))
}

/// Refuses everybody but the current producer: an epoch above it was never given to anybody, one below is fenced.
pub(super) fn speaks_for(entry: &Entry, producer: Producer, fenced: Refusal) -> Result<(), Refusal> {
    let current = entry.producer();
    if producer.id != current.id {
        return Err(Refusal::Mapping);
    }
    if producer.epoch != current.epoch {
        return Err(fenced);
    }
    Ok(())
}
