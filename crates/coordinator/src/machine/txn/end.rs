//! The end of a transaction: EndTxn, the fence of a new producer or a time-out, markers, completion.
//!
//! Owns: the table of EndTxn (Transactions V1), Prepare and Complete. Leaves to others: carrying markers to the
//! partitions' owners and repeating them (the host), applying each once (`log`).
//!
//! ```text
//!                  commit                    abort
//! Ongoing          PrepareCommit, NONE       PrepareAbort, NONE
//! PrepareCommit    CONCURRENT_TRANSACTIONS   INVALID_TXN_STATE
//! PrepareAbort     INVALID_TXN_STATE         CONCURRENT_TRANSACTIONS
//! CompleteCommit   NONE                      INVALID_TXN_STATE
//! CompleteAbort    INVALID_TXN_STATE         NONE
//! Empty            INVALID_TXN_STATE         INVALID_TXN_STATE
//! ```
//! Before the table: another producer id is INVALID_PRODUCER_ID_MAPPING, another epoch is fenced.
//!
//! Invariants:
//! 1. The answer rests on the Prepare record and on no marker: "committed" is settled before it is visible.
//! 2. Markers carry the Prepare's offset; what is confirmed under another offset is confirmed for nobody.
//! 3. A transaction ended by force leaves under a higher epoch, so its producer's late commit is fenced.

use std::mem::replace;

use forebay_types::Offset;

use super::super::{Now, Producer};
use super::TxnMachine;
use super::entry::{Ending, State};
use super::io::{EndTxn, Markers, Outcome, Refusal, TxnOutput, TxnPartition};
use super::partitions::speaks_for;
use super::table::Slot;

/// EndTxn calls being fenced PRODUCER_FENCED from this version on.
const FENCED_SINCE: i16 = 2;

impl TxnMachine {
    pub(super) fn end_txn(&mut self, now: Now, request: &EndTxn, out: &mut TxnOutput) -> Result<(), Refusal> {
        let slot = self.known(&request.transactional_id)?;
        let entry = self.table.get(slot);
        speaks_for(entry, request.producer, Refusal::fenced(request.version, FENCED_SINCE))?;
        match &entry.state {
            State::Ongoing(_) => {
                self.prepare(now, slot, request.outcome, out);
                Ok(())
            }
            State::Ending(outcome, _) if *outcome == request.outcome => Err(Refusal::Concurrent),
            State::Complete(outcome, _) if *outcome == request.outcome => Ok(()),
            State::Ending(..) | State::Complete(..) | State::Empty => Err(Refusal::State),
        }
    }

    /// Aborts an open transaction under an epoch that its producer does not have.
    pub(super) fn fence(&mut self, now: Now, slot: Slot, out: &mut TxnOutput) {
        let entry = self.table.get_mut(slot);
        let Producer { id, epoch } = entry.producer();
        // Clients get no epoch past 32766, so there is a next one; a log from elsewhere may hold 32767, and then
        // aborting without a fence beats never aborting.
        entry.set_producer(Producer { id, epoch: epoch.next().unwrap_or(epoch) }, None);
        self.prepare(now, slot, Outcome::Abort, out);
    }

    fn prepare(&mut self, now: Now, slot: Slot, outcome: Outcome, out: &mut TxnOutput) {
        let entry = self.table.get_mut(slot);
        let ongoing = match replace(&mut entry.state, State::Empty) {
            State::Ongoing(ongoing) => *ongoing,
            other => panic!("transactional id {:?} prepares its end from {other:?}", entry.id),
        };
        let was_timed = self.timers.timeouts.remove(&(ongoing.deadline, slot));
        assert!(was_timed, "an open transaction has a time-out");
        entry.state = State::Ending(
            outcome,
            Box::new(Ending {
                started: ongoing.started,
                unmarked: ongoing.partitions.clone(),
                partitions: ongoing.partitions,
            }),
        );
        self.append(now, slot, out);
        self.send_markers(now, slot, out);
    }

    /// Asks for the markers of an ending transaction: at its Prepare, and again after a load.
    pub(super) fn send_markers(&mut self, now: Now, slot: Slot, out: &mut TxnOutput) {
        let entry = self.table.get(slot);
        let State::Ending(outcome, ending) = &entry.state else {
            panic!("transactional id {:?} sends markers in {:?}", entry.id, entry.state)
        };
        let markers = Markers {
            transactional_id: entry.id.to_string(),
            producer: entry.producer(),
            outcome: *outcome,
            coordinator_epoch: self.leader_epoch,
            prepare_offset: entry.last_offset,
            partitions: ending.unmarked.iter().cloned().collect(),
        };
        self.timers.ending.insert(slot);
        if markers.partitions.is_empty() {
            // AddPartitions with an empty list opens a transaction all the same.
            self.complete(now, slot, out);
        } else {
            out.markers.push(markers);
        }
    }

    pub(super) fn markers_written(
        &mut self,
        now: Now,
        id: &str,
        prepare_offset: Offset,
        partitions: &[TxnPartition],
        out: &mut TxnOutput,
    ) {
        let Some(slot) = self.table.find(id) else { return };
        let entry = self.table.get_mut(slot);
        if entry.last_offset != prepare_offset {
            return;
        }
        let State::Ending(_, ending) = &mut entry.state else { return };
        for partition in partitions {
            ending.unmarked.remove(partition);
        }
        if ending.unmarked.is_empty() {
            self.complete(now, slot, out);
        }
    }

    fn complete(&mut self, now: Now, slot: Slot, out: &mut TxnOutput) {
        let entry = self.table.get_mut(slot);
        let (outcome, started) = match &entry.state {
            State::Ending(outcome, ending) if ending.unmarked.is_empty() => (*outcome, ending.started),
            other => panic!("transactional id {:?} completes from {other:?}", entry.id),
        };
        entry.state = State::Complete(outcome, started);
        let was_ending = self.timers.ending.remove(&slot);
        assert!(was_ending, "a transaction completes once");
        self.append(now, slot, out);
    }
}
