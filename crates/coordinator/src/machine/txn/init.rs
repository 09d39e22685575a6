//! InitProducerId: who a transactional id's producer is from now on.
//!
//! Owns: new ids, the bump that fences the producer before, KIP-360's bump of one's own, and the step to a fresh
//! producer id when the epochs are spent. Leaves to others: the abort it may have to wait for (`end`).
//!
//! Invariants:
//! 1. A transactional id never seen begins at epoch 0; a known one never answers 0 unless its epochs were spent:
//!    Flink's probing stops at 0, and loops for ever over a coordinator that begins elsewhere.
//! 2. Success ends in `Empty`; an epoch that fenced an open transaction is never handed to anybody.
//! 3. A client gets epochs up to 32766. The last one is kept for fencing it.

use forebay_types::{ProducerEpoch, ProducerId};

use super::super::{Now, Producer};
use super::TxnMachine;
use super::entry::{Entry, State};
use super::io::{InitProducerId, Refusal, TxnOutput};
use crate::schema::STRING_BYTES_MAX;

/// InitProducerId calls being fenced PRODUCER_FENCED from this version on.
const FENCED_SINCE: i16 = 4;

/// The epoch and id that a request leads to.
struct Next {
    producer: Producer,
    previous: Option<Producer>,
}

impl TxnMachine {
    pub(super) fn init_producer_id(
        &mut self,
        now: Now,
        request: &InitProducerId,
        out: &mut TxnOutput,
    ) -> Result<Producer, Refusal> {
        let id = &*request.transactional_id;
        if id.is_empty() || id.len() > STRING_BYTES_MAX {
            return Err(Refusal::TransactionalId);
        }
        if request.timeout_ms <= 0 || request.timeout_ms > self.config.timeout_ms_max {
            return Err(Refusal::Timeout);
        }
        let Some(slot) = self.table.find(id) else {
            // Whoever the client says it was: a producer that outlived its id's expiry gets on with a new one.
            let producer = Producer { id: take_fresh(request, out)?, epoch: ProducerEpoch::ZERO };
            let slot = self.insert(now, Entry::new(id, producer, request.timeout_ms));
            self.append(now, slot, out);
            return Ok(producer);
        };
        let entry = self.table.get(slot);
        let fenced = Refusal::fenced(request.version, FENCED_SINCE);
        if request.expected.is_some_and(|expected| !may_be(entry, expected)) {
            return Err(fenced);
        }
        match entry.state {
            State::Ending(..) => return Err(Refusal::Concurrent),
            State::Ongoing(_) => {
                // An old epoch cannot end what a newer one began.
                if request.expected.is_some_and(|expected| expected != entry.producer()) {
                    return Err(fenced);
                }
                self.fence(now, slot, out);
                return Err(Refusal::Concurrent);
            }
            State::Empty | State::Complete(..) => {}
        }
        let next = next(entry, request, out)?;
        assert!(
            next.producer.id != entry.producer().id || next.producer.epoch >= entry.producer().epoch,
            "the epoch of a producer only grows: {:?} after {:?}",
            next.producer,
            entry.producer()
        );
        let entry = self.table.get_mut(slot);
        entry.set_producer(next.producer, next.previous);
        entry.timeout_ms = request.timeout_ms;
        entry.state = State::Empty;
        self.append(now, slot, out);
        Ok(next.producer)
    }
}

/// Whether `expected` is the producer of `entry`, or was it just before a bump whose answer may have been lost.
fn may_be(entry: &Entry, expected: Producer) -> bool {
    expected == entry.producer() || entry.previous() == Some(expected)
}

fn next(entry: &Entry, request: &InitProducerId, out: &mut TxnOutput) -> Result<Next, Refusal> {
    let current = entry.producer();
    let previous = match request.expected {
        Some(expected) if expected != current => {
            // A repeat: the bump is done, its answer was lost.
            return Ok(Next { producer: current, previous: Some(expected) });
        }
        // A client bumps its own epoch and may repeat that; anybody else's coming ends the right to.
        Some(_) => Some(current),
        None => None,
    };
    let bumped = current.epoch.next().filter(|epoch| *epoch < ProducerEpoch::MAX);
    let producer = match bumped {
        Some(epoch) => Producer { id: current.id, epoch },
        None => Producer { id: take_fresh(request, out)?, epoch: ProducerEpoch::ZERO },
    };
    Ok(Next { producer, previous })
}

fn take_fresh(request: &InitProducerId, out: &mut TxnOutput) -> Result<ProducerId, Refusal> {
    let fresh = request.fresh.ok_or(Refusal::NoProducerId)?;
    out.took_fresh = true;
    Ok(fresh)
}
