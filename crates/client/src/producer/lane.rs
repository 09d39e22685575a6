//! One partition's batches on their way: sequences, what is in flight, what is tried again and in which order.
//!
//! A pure state machine: the sender tells it what was answered and asks what may leave.
//!
//! Invariants (Kafka's `TransactionManager` and `Sender`, told simpler):
//! 1. Batches leave in the order they came, at most [`IN_FLIGHT_MAX`] unanswered: the broker remembers five.
//! 2. After a failure that is worth another attempt nothing leaves until every batch in flight is answered; then the
//!    oldest goes alone, and only its success opens the window again. So the broker never sees a gap that we made.
//! 3. The first batch of an epoch goes alone: a broker that knows nothing of a producer takes any sequence (Kafka's
//!    rule), so one behind a refused first would be written before it.
//! 4. A sequence is never given to other bytes under the same epoch. Where a batch is given up, those after it get new
//!    sequences under a new epoch, but for those that may have been written: they are given up too.

use std::collections::VecDeque;

use bytes::Bytes;
use forebay_env::{Env, Instant};
use forebay_types::{ProducerEpoch, ProducerId, Timestamp};
use forebay_wire::{BatchBuilder, BatchHeader, Codec};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Ack, Identity, Record};
use crate::cluster::pause_after;
use crate::{ClientError, Outcome};

/// Batches of one partition without an answer (Kafka's `max.in.flight.requests.per.connection`, capped for idempotence).
pub(super) const IN_FLIGHT_MAX: usize = 5;

pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) since: Instant,
    /// The number of the batch in its lane, once it has been taken up.
    number: u64,
    sent_as: Option<Encoded>,
    /// Some attempt ended without showing that nothing was written.
    pub(super) unsure: bool,
    answer: oneshot::Sender<Result<Ack, ClientError>>,
    _room: OwnedSemaphorePermit,
}

/// A batch as it goes over the wire: fixed at its first send.
#[derive(Clone)]
pub(super) struct Encoded {
    pub(super) bytes: Bytes,
    pub(super) crc: u32,
}

impl Batch {
    pub(super) fn new(
        records: Vec<Record>,
        since: Instant,
        answer: oneshot::Sender<Result<Ack, ClientError>>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self { records, since, number: 0, sent_as: None, unsure: false, answer, _room: room }
    }

    pub(super) fn crc(&self) -> u32 {
        self.sent_as.as_ref().map_or(0, |sent| sent.crc)
    }

    /// Tells who waits; they may have gone.
    pub(super) fn finish(self, result: Result<Ack, ClientError>) {
        let _ = self.answer.send(result);
    }

    fn count(&self) -> i32 {
        i32::try_from(self.records.len()).expect("a batch within the buffer has fewer than 2^31 records")
    }
}

/// What the answer to a batch means for it.
pub(super) enum Verdict {
    Done(Ack),
    /// Try again; whether the attempt may have been written.
    Again(Outcome),
    /// Given up.
    Failed(ClientError),
}

pub(super) struct Lane {
    epoch: ProducerEpoch,
    next_sequence: i32,
    next_number: u64,
    /// Not in flight, in the order in which they leave.
    waiting: VecDeque<Batch>,
    /// Unanswered, in the order in which they left.
    in_flight: VecDeque<Batch>,
    /// Failures in a row; not 0 means that the window is closed to one batch.
    failures: u32,
    /// A batch of this epoch was acknowledged.
    known: bool,
    /// Nothing leaves before.
    not_before: Option<Instant>,
    /// A batch was given up under this epoch, and whether it may have been written.
    gap: Option<Outcome>,
}

impl Lane {
    pub(super) fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            next_sequence: 0,
            next_number: 0,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            failures: 0,
            known: false,
            not_before: None,
            gap: None,
        }
    }

    pub(super) fn push(&mut self, mut batch: Batch) {
        batch.number = self.next_number;
        self.next_number += 1;
        self.waiting.push_back(batch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether a batch may leave now.
    pub(super) fn may_send(&self, now: Instant) -> bool {
        let window = if self.failures > 0 || !self.known { 1 } else { IN_FLIGHT_MAX };
        !self.waiting.is_empty()
            && self.gap.is_none()
            && self.in_flight.len() < window
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// When [`Lane::may_send`] may change by time alone.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        if self.waiting.is_empty() || !self.in_flight.is_empty() { None } else { self.not_before }
    }

    /// Takes up the next batch: gives it its sequence, or the bytes it had before.
    pub(super) fn take_up(&mut self, producer: ProducerId, codec: Codec, transactional: bool) -> Option<(u64, Bytes)> {
        let mut batch = self.waiting.pop_front()?;
        let encoded = if let Some(encoded) = batch.sent_as.take() {
            encoded
        } else {
            let sequence = self.next_sequence;
            self.next_sequence = sequence_after(sequence, batch.count());
            let identity = Identity { id: producer, epoch: self.epoch };
            encode(&batch.records, identity, sequence, codec, transactional)
        };
        let (number, bytes) = (batch.number, encoded.bytes.clone());
        batch.sent_as = Some(encoded);
        self.in_flight.push_back(batch);
        Some((number, bytes))
    }

    /// Whether every batch before this one is acknowledged or given up.
    pub(super) fn is_oldest(&self, number: u64) -> bool {
        self.in_flight.front().is_some_and(|b| b.number == number)
            && self.waiting.front().is_none_or(|b| b.number > number)
    }

    pub(super) fn in_flight(&self, number: u64) -> Option<&Batch> {
        self.in_flight.iter().find(|b| b.number == number)
    }

    /// Acts on an answer. Returns the error of a batch that is given up, for a flush to tell.
    pub(super) fn answered(&mut self, env: &Env, number: u64, verdict: Verdict) -> Option<ClientError> {
        let place = self.in_flight.iter().position(|b| b.number == number)?;
        let mut batch = self.in_flight.remove(place).expect("just found");
        match verdict {
            Verdict::Done(ack) => {
                self.failures = 0;
                self.known = true;
                self.not_before = None;
                batch.finish(Ok(ack));
                None
            }
            Verdict::Again(outcome) => {
                batch.unsure |= outcome == Outcome::MayHaveHappened;
                // Every one in flight comes back here; only the first makes the pause longer.
                if self.in_flight.is_empty() || self.failures == 0 {
                    self.not_before = Some(env.monotonic() + pause_after(env, self.failures));
                    self.failures += 1;
                }
                let place = self.waiting.partition_point(|b| b.number < number);
                self.waiting.insert(place, batch);
                None
            }
            Verdict::Failed(error) => {
                self.give_up(batch, error.clone());
                Some(error)
            }
        }
    }

    /// Gives up the oldest batch where its time is up and nothing is in flight.
    pub(super) fn expire(&mut self, now: Instant, limit: std::time::Duration) -> Option<ClientError> {
        let oldest = self.waiting.front()?;
        if !self.in_flight.is_empty() || now < oldest.since + limit {
            return None;
        }
        let batch = self.waiting.pop_front().expect("just seen");
        let outcome = if batch.unsure { Outcome::MayHaveHappened } else { Outcome::DidNotHappen };
        let last = ClientError::Misuse { what: "produce".to_owned(), reason: "the delivery deadline has passed" };
        let error = ClientError::GaveUp { after: now - batch.since, outcome, last: Box::new(last) };
        self.give_up(batch, error.clone());
        Some(error)
    }

    /// Nothing leaves for a while: the leader is not known.
    pub(super) fn hold(&mut self, env: &Env) {
        self.not_before = Some(env.monotonic() + pause_after(env, self.failures));
        self.failures += 1;
    }

    fn give_up(&mut self, batch: Batch, error: ClientError) {
        let unsure = batch.unsure || error.outcome() == Outcome::MayHaveHappened;
        // A batch without a sequence leaves no gap.
        if batch.sent_as.is_some() || unsure {
            let outcome = if unsure { Outcome::MayHaveHappened } else { Outcome::DidNotHappen };
            self.gap = Some(match self.gap {
                Some(Outcome::MayHaveHappened) => Outcome::MayHaveHappened,
                _ => outcome,
            });
        }
        batch.finish(Err(error));
    }

    /// Leaves the oldest batch's sequence behind without giving the batch up: it goes again under a new epoch.
    ///
    /// # Panics
    /// Where the batch may have been written: under another epoch it would be written twice.
    pub(super) fn renumber(&mut self, env: &Env, number: u64) {
        let unsure = self.in_flight(number).is_none_or(|b| b.unsure);
        assert!(!unsure, "batch {number} may have been written: it cannot go under another epoch");
        self.answered(env, number, Verdict::Again(Outcome::DidNotHappen));
        self.gap = self.gap.or(Some(Outcome::DidNotHappen));
    }

    /// Whether a new epoch is needed, and now possible, to go on.
    pub(super) fn needs_epoch(&self) -> bool {
        self.gap.is_some() && self.in_flight.is_empty()
    }

    /// Goes on under a new epoch, from sequence 0. Returns the error of batches that cannot go along.
    ///
    /// # Panics
    /// With a batch in flight, or an epoch that is not new to this lane.
    pub(super) fn begin_epoch(&mut self, epoch: ProducerEpoch) -> Option<ClientError> {
        assert!(self.in_flight.is_empty(), "an epoch begins with nothing in flight");
        let gap = self.gap.take();
        self.epoch = epoch;
        self.next_sequence = 0;
        self.failures = 0;
        self.known = false;
        self.not_before = None;
        let mut failed = None;
        let waiting = std::mem::take(&mut self.waiting);
        for mut batch in waiting {
            // Behind a batch that was surely not written, none can have been: the broker takes no gap.
            if batch.unsure && gap == Some(Outcome::MayHaveHappened) {
                let error = ClientError::NoAnswer {
                    what: "produce".to_owned(),
                    address: "the leader".to_owned(),
                    reason: "an earlier batch of the partition was given up".to_owned(),
                };
                failed = failed.or_else(|| Some(error.clone()));
                batch.finish(Err(error));
            } else {
                batch.sent_as = None;
                batch.unsure = false;
                self.waiting.push_back(batch);
            }
        }
        failed
    }

    /// Gives up everything that waits, whatever became of it before: the error tells of the whole transaction.
    pub(super) fn fail_waiting(&mut self, error: &ClientError) {
        for batch in std::mem::take(&mut self.waiting) {
            self.give_up(batch, error.clone());
        }
    }

    /// Whether sequences were left out, so that nothing more can be sent under this epoch.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some()
    }
}

/// The sequence after `count` records from `sequence`: 31 bits, from 0 again after the last (KIP-98).
fn sequence_after(sequence: i32, count: i32) -> i32 {
    let after = (i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX);
    i32::try_from(after).expect("31 bits after the mask")
}

fn encode(records: &[Record], producer: Identity, sequence: i32, codec: Codec, transactional: bool) -> Encoded {
    let time = |record: &Record| record.timestamp.map_or(0, Timestamp::as_millis);
    let builder = BatchBuilder::new(records.first().map_or(0, time))
        .producer(producer.id.get(), producer.epoch.get(), sequence)
        .codec(codec);
    let mut builder = if transactional { builder.transactional() } else { builder };
    for record in records {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
        builder.push(time(record), record.key.as_deref(), record.value.as_deref(), &headers);
    }
    let bytes = builder.build().freeze();
    let header = BatchHeader::parse(&bytes).expect("what the builder makes, `parse` accepts");
    Encoded { bytes, crc: header.crc }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After the last sequence of 31 bits comes 0, also in the middle of a batch.
    #[test]
    fn sequences_wrap_as_in_kafka() {
        assert_eq!(sequence_after(0, 3), 3);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    }
}
