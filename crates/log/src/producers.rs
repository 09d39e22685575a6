//! The producers of one partition: who may append what next, which transactions are open, where the last stable offset is.
//!
//! Owns: sequence and epoch checks, the duplicate window, open and just-ended transactions, verification of first
//! transactional batches. Leaves to others: offsets (`partition`), how aborted transactions are found (`aborted`), how the
//! state is stored (`format`), what a transaction is allowed to contain (the transaction coordinator).
//!
//! The state here runs ahead of what is durable: it is as of the log end offset (D1). Two things are looked at from the
//! high watermark instead, because readers see them: the last stable offset and the aborted list. And what a snapshot
//! holds is as of the committed end: for producers that have appended since, that older state is kept beside the newest.
//!
//! Invariants:
//! 1. A producer has at most one open transaction in a partition, and it begins at or above the log start it had then.
//! 2. The last stable offset never goes back: a transaction leaves `ended` only when its marker is below the high watermark.
//! 3. A producer expires by its silence, on a clock of this process that never goes back: the times in its records say
//!    when something happened, not when it was sent, and a backfill sends what is years old. One with an open transaction
//!    does not expire. Whoever takes over gives everybody a full period (D10), so nothing of it needs to be stored.
//! 4. A first transactional batch is appended only with a guard that no marker has come past (KIP-890 part 1).
//! 5. A producer stands in `committed` from an append until that is committed: so what is kept twice is bounded by what
//!    the WAL has room for, not by how many producers there are.
//!
//! Sources: Kafka's `ProducerAppendInfo`, `ProducerStateManager`, `VerificationStateEntry`; KIP-98, KIP-360, KIP-890.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::Instant;
use forebay_format::{
    AbortedTxn, BatchMeta, BatchProducer, BatchSummary, MarkerKind, PartitionProducers, PrepareRef, ProducerChange,
    ProducerState,
};
use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::aborted::AbortedTxns;

/// Why a producer's batch or marker is not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    #[error("producer {id} comes with epoch {epoch}, its current epoch is {current}")]
    InvalidEpoch { id: ProducerId, epoch: ProducerEpoch, current: ProducerEpoch },
    #[error("producer {id} comes with sequence {sequence}, after {last} another one is due")]
    OutOfOrderSequence { id: ProducerId, sequence: i32, last: i32 },
    #[error("producer {id} begins its epoch {epoch} with sequence {sequence}, not with 0")]
    NewEpochSequence { id: ProducerId, epoch: ProducerEpoch, sequence: i32 },
    #[error("producer {id} comes with sequence {sequence}, its batch with sequence {first} is still to come")]
    NotTheFirst { id: ProducerId, sequence: i32, first: i32 },
    #[error("producer {id} has no verified transaction in this partition")]
    NotVerified { id: ProducerId },
    #[error("producer {id} has a transaction open here and sends a batch outside of it")]
    NotTransactional { id: ProducerId },
    #[error("coordinator epoch {epoch} is below {current}, which marked producer {id} last")]
    CoordinatorFenced { id: ProducerId, epoch: i32, current: i32 },
}

/// What to do with a batch that may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one: append it.
    Append,
    /// It repeats this one, which has its offsets already.
    Duplicate(BatchMeta),
}

/// Shows that a transaction was asked about before a batch is appended; a marker in between takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// A guard that was given out.
#[derive(Clone, Copy, Debug)]
struct Given {
    guard: VerificationGuard,
    at: Instant,
    /// Whose transaction is asked about.
    epoch: ProducerEpoch,
    /// The lowest sequence that anybody asked with: of batches sent one behind the other, the first has to come first.
    lowest_sequence: i32,
}

/// Whether a transactional batch needs the coordinator's word first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// The producer's transaction is already open here.
    Done,
    /// Ask the coordinator, then append with this guard.
    Needed(VerificationGuard),
}

/// A producer as `DescribeProducers` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// -1 where no batch of the current epoch is known.
    pub last_sequence: i32,
    pub last_timestamp: Timestamp,
    pub coordinator_epoch: Option<i32>,
    pub open_txn: Option<Offset>,
}

/// A producer as of the log end. Flink makes a million of them in a day: silent, each costs its place in the map, a state
/// and the one batch of its window.
#[derive(Debug)]
struct Known {
    /// Shared with the snapshot that is being written, and copied only where it changes meanwhile.
    state: Arc<ProducerState>,
    /// When a batch or a marker of it was last appended here, or could have been for the first time.
    heard: Instant,
}

/// A producer as of the committed end.
#[derive(Debug)]
struct Behind {
    /// `None` where it was not known then.
    state: Option<Arc<ProducerState>>,
    /// Where its last batch ends: once that is committed, nothing of it is behind.
    last_offset: Offset,
}

/// What a silent producer may cost beside its place in the map and the batches of its window: 128 bytes with the two
/// counters of its `Arc`.
const STATE_SIZE_MAX: usize = 112;
const _: () = assert!(size_of::<ProducerState>() <= STATE_SIZE_MAX && size_of::<Known>() <= 24, "a producer has grown");

#[derive(Debug, Default)]
pub(crate) struct Producers {
    /// As of the log end.
    states: BTreeMap<ProducerId, Known>,
    /// Producers that have appended something above the committed end, as of there.
    committed: BTreeMap<ProducerId, Behind>,
    /// Open transactions by their first offset.
    open: BTreeMap<Offset, ProducerId>,
    /// Transactions whose marker is appended but not below the high watermark: first offset to marker offset.
    ended: BTreeMap<Offset, Offset>,
    aborted: AbortedTxns,
    /// Guards given out and not yet used or taken away.
    verifying: BTreeMap<ProducerId, Given>,
    guards_given: u64,
}

impl Producers {
    /// Takes over the state as of an offset: from a snapshot, or from footers through [`Producers::absorb`].
    pub fn restore(snapshot: PartitionProducers, now: Instant) -> Self {
        let PartitionProducers { producers, aborted } = snapshot;
        let open: BTreeMap<Offset, ProducerId> =
            producers.iter().filter_map(|(id, state)| state.open_txn.map(|first| (first, *id))).collect();
        let mut known = AbortedTxns::default();
        known.extend(&aborted, open.keys().next().copied());
        let states = producers.into_iter().map(|(id, state)| (id, Known { state, heard: now })).collect();
        Self { states, open, aborted: known, ..Self::default() }
    }

    /// Moves past a range of the log as its footer tells it, before anything is appended.
    pub fn absorb(&mut self, changes: &[ProducerChange], aborted: &[AbortedTxn], now: Instant) {
        for change in changes {
            let known = known(&mut self.states, change.producer, change.epoch, now);
            let state = Arc::make_mut(&mut known.state);
            if let Some(first) = state.open_txn {
                self.open.remove(&first);
            }
            state.apply(change);
            if let Some(first) = state.open_txn {
                self.open.insert(first, change.producer);
            }
        }
        self.aborted.extend(aborted, self.open.keys().next().copied());
    }

    /// Whether a client's batch may come next.
    ///
    /// # Errors
    /// What Kafka answers in its stead; nothing has changed.
    pub fn check(
        &self,
        producer: &BatchProducer,
        transactional: bool,
        guard: Option<VerificationGuard>,
    ) -> Result<Verdict, ProducerError> {
        let id = producer.id;
        if let Some(state) = self.state(id) {
            if producer.epoch < state.epoch {
                return Err(ProducerError::InvalidEpoch { id, epoch: producer.epoch, current: state.epoch });
            }
            if producer.epoch == state.epoch
                && let Some(repeated) = state.batches.find(producer.base_sequence, producer.last_sequence)
            {
                return Ok(Verdict::Duplicate(*repeated));
            }
            check_sequence(state, producer)?;
            if state.open_txn.is_some() && !transactional {
                return Err(ProducerError::NotTransactional { id });
            }
        }
        let given = self.verifying.get(&id);
        if let Some(given) = given
            && producer.base_sequence > given.lowest_sequence
        {
            let (sequence, first) = (producer.base_sequence, given.lowest_sequence);
            return Err(ProducerError::NotTheFirst { id, sequence, first });
        }
        let verified = self.is_open(id, producer.epoch) || (guard.is_some() && guard == given.map(|given| given.guard));
        if transactional && !verified {
            return Err(ProducerError::NotVerified { id });
        }
        Ok(Verdict::Append)
    }

    fn state(&self, id: ProducerId) -> Option<&ProducerState> {
        self.states.get(&id).map(|known| &*known.state)
    }

    fn is_open(&self, id: ProducerId, epoch: ProducerEpoch) -> bool {
        self.state(id).is_some_and(|state| state.open_txn.is_some() && state.epoch == epoch)
    }

    /// Asks whether a transactional batch of this producer, which begins with `base_sequence`, needs the coordinator's word.
    pub fn verification(
        &mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: i32,
        now: Instant,
    ) -> Verification {
        if self.is_open(id, epoch) {
            return Verification::Done;
        }
        // The same guard for all who ask meanwhile: they ask about the same transaction.
        let guards_given = &mut self.guards_given;
        let given = self.verifying.entry(id).or_insert_with(|| {
            *guards_given += 1;
            Given { guard: VerificationGuard(*guards_given), at: now, epoch, lowest_sequence: base_sequence }
        });
        if epoch > given.epoch {
            (given.epoch, given.lowest_sequence) = (epoch, base_sequence);
        } else if epoch == given.epoch {
            given.lowest_sequence = given.lowest_sequence.min(base_sequence);
        }
        Verification::Needed(given.guard)
    }

    /// Forgets a guard whose question was answered with no.
    pub fn verification_failed(&mut self, id: ProducerId, guard: VerificationGuard) {
        if self.verifying.get(&id).is_some_and(|given| given.guard == guard) {
            self.verifying.remove(&id);
        }
    }

    /// Whether a marker may come, and is not already there.
    ///
    /// # Errors
    /// The marker is older than what the partition has seen of this producer.
    pub fn check_marker(
        &self,
        id: ProducerId,
        epoch: ProducerEpoch,
        coordinator_epoch: i32,
        prepare: Option<PrepareRef>,
    ) -> Result<MarkerVerdict, ProducerError> {
        let Some(state) = self.state(id) else { return Ok(MarkerVerdict::Append) };
        // Asked first: a repeated request is "done" whatever has happened to the producer since (D14).
        let highest = state.marker.and_then(|marker| marker.prepare);
        if prepare.is_some_and(|prepare| !prepare.is_after(highest)) {
            return Ok(MarkerVerdict::Done);
        }
        if epoch < state.epoch {
            return Err(ProducerError::InvalidEpoch { id, epoch, current: state.epoch });
        }
        match state.coordinator_epoch {
            Some(current) if coordinator_epoch < current => {
                Err(ProducerError::CoordinatorFenced { id, epoch: coordinator_epoch, current })
            }
            _ => Ok(MarkerVerdict::Append),
        }
    }

    /// Moves past a batch that was just given its offsets; gives the transaction that it aborts, if it does.
    pub fn append(&mut self, batch: &BatchSummary, now: Instant) -> Option<AbortedTxn> {
        let producer = batch.producer.as_ref()?;
        match self.committed.entry(producer.id) {
            Entry::Occupied(mut behind) => behind.get_mut().last_offset = batch.last_offset,
            Entry::Vacant(none) => {
                let state = self.states.get(&producer.id).map(|known| Arc::clone(&known.state));
                none.insert(Behind { state, last_offset: batch.last_offset });
            }
        }
        let known = known(&mut self.states, producer.id, producer.epoch, now);
        known.heard = now;
        let state = Arc::make_mut(&mut known.state);
        let open_before = state.open_txn;
        state.apply_batch(batch, producer);
        if let (None, Some(first)) = (open_before, state.open_txn) {
            self.open.insert(first, producer.id);
        }
        if batch.transactional {
            self.verifying.remove(&producer.id);
        }
        let marker = batch.marker?;
        let first_offset = open_before?;
        let ended = self.open.remove(&first_offset);
        assert_eq!(ended, Some(producer.id), "an open transaction is listed under its first offset");
        self.ended.insert(first_offset, batch.last_offset);
        (marker.kind == MarkerKind::Abort).then(|| {
            let aborted = AbortedTxn { producer: producer.id, first_offset, last_offset: batch.last_offset };
            self.aborted.push(aborted, self.open.keys().next().copied());
            aborted
        })
    }

    /// What was appended here up to `end` is committed to the bucket; `changes` are those of the range before it.
    ///
    /// # Panics
    /// On a change by a producer that has appended nothing: then the log would open with another state than it has.
    pub fn commit(&mut self, changes: &[ProducerChange], end: Offset) {
        for change in changes {
            let Entry::Occupied(mut behind) = self.committed.entry(change.producer) else {
                panic!("producer {} has appended nothing that could be committed", change.producer)
            };
            if behind.get().last_offset < end {
                behind.remove();
            } else {
                let state = &mut behind.get_mut().state;
                let state = state.get_or_insert_with(|| Arc::new(ProducerState::new(change.epoch)));
                Arc::make_mut(state).apply(change);
            }
        }
    }

    /// The last stable offset at this high watermark: below it every transaction has ended, visibly.
    pub fn last_stable_offset(&mut self, high_watermark: Offset) -> Offset {
        self.ended.retain(|_, marker| *marker >= high_watermark);
        let first_open = self.open.keys().next().copied();
        let first_ended = self.ended.keys().next().copied();
        [first_open, first_ended].into_iter().flatten().fold(high_watermark, Offset::min)
    }

    /// Aborted transactions that reach into `[from, end)`, by their first offset, with what a fetch answers of each.
    pub fn aborted_between(&self, from: Offset, end: Offset) -> Vec<AbortedTxn> {
        self.aborted.between(from, end)
    }

    /// Forgets aborted transactions whose marker lies below the log start: nobody can read their records.
    pub fn forget_below(&mut self, log_start: Offset) {
        self.aborted.forget_below(log_start);
    }

    /// Forgets producers that have been silent for `period`, and guards that nobody has come back with for as long.
    pub fn expire(&mut self, now: Instant, period: Duration) {
        let committed = &self.committed;
        self.states.retain(|id, known| {
            // A snapshot must find whoever the next commit is about.
            let is_busy = known.state.open_txn.is_some() || committed.contains_key(id);
            is_busy || now.duration_since(known.heard) < period
        });
        self.verifying.retain(|_, given| now.duration_since(given.at) < period);
    }

    /// Nobody could be heard until now: everybody has a full period from here (D10).
    pub fn renew(&mut self, now: Instant) {
        self.states.values_mut().for_each(|known| known.heard = now);
    }

    pub fn describe(&self) -> Vec<ProducerDescription> {
        let describe = |(id, Known { state, .. }): (&ProducerId, &Known)| ProducerDescription {
            id: *id,
            epoch: state.epoch,
            last_sequence: state.batches.last().map_or(-1, |batch| batch.last_sequence),
            last_timestamp: state.last_timestamp,
            coordinator_epoch: state.coordinator_epoch,
            open_txn: state.open_txn,
        };
        self.states.iter().map(describe).collect()
    }

    /// Everything that [`Producers::restore`] takes, as of the committed end, which is given.
    pub fn snapshot(&self, committed_end: Offset) -> PartitionProducers {
        let committed = |(id, known): (&ProducerId, &Known)| match self.committed.get(id) {
            None => Some((*id, Arc::clone(&known.state))),
            Some(behind) => behind.state.clone().map(|state| (*id, state)),
        };
        let producers = self.states.iter().filter_map(committed).collect();
        PartitionProducers { producers, aborted: self.aborted.below(committed_end) }
    }
}

/// What to do with a marker that may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerVerdict {
    Append,
    /// This Prepare record's marker, or a later one's, is already in the log.
    Done,
}

/// The producer, begun where it is new.
fn known(states: &mut BTreeMap<ProducerId, Known>, id: ProducerId, epoch: ProducerEpoch, now: Instant) -> &mut Known {
    states.entry(id).or_insert_with(|| Known { state: Arc::new(ProducerState::new(epoch)), heard: now })
}

fn check_sequence(state: &ProducerState, producer: &BatchProducer) -> Result<(), ProducerError> {
    let BatchProducer { id, epoch, base_sequence: sequence, .. } = *producer;
    if epoch != state.epoch {
        return if sequence == 0 { Ok(()) } else { Err(ProducerError::NewEpochSequence { id, epoch, sequence }) };
    }
    let last = state.batches.last().map_or(-1, |batch| batch.last_sequence);
    let due = if last == i32::MAX { 0 } else { last + 1 };
    if sequence == due { Ok(()) } else { Err(ProducerError::OutOfOrderSequence { id, sequence, last }) }
}

#[cfg(test)]
mod tests {
    use forebay_env::Env;
    use forebay_env::simulated::{SimDisk, Trace, parts};
    use forebay_format::{MarkerSummary, NO_SEQUENCE, fold_changes};

    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::new(raw).expect("not negative")
    }

    fn id(raw: i64) -> ProducerId {
        ProducerId::new(raw).expect("not negative")
    }

    fn epoch(raw: i16) -> ProducerEpoch {
        ProducerEpoch::new(raw).expect("not negative")
    }

    fn producer(pid: i64, at: i16, first: i32, last: i32) -> BatchProducer {
        BatchProducer { id: id(pid), epoch: epoch(at), base_sequence: first, last_sequence: last }
    }

    fn batch(base: i64, producer: BatchProducer, transactional: bool) -> BatchSummary {
        let records = producer.last_sequence.wrapping_sub(producer.base_sequence).unsigned_abs() + 1;
        BatchSummary {
            base_offset: offset(base),
            last_offset: offset(base + i64::from(records) - 1),
            max_timestamp: Timestamp::from_millis(base),
            records,
            producer: Some(producer),
            transactional,
            marker: None,
        }
    }

    fn marker(base: i64, pid: i64, at: i16, kind: MarkerKind, prepare: i64) -> BatchSummary {
        BatchSummary {
            marker: Some(MarkerSummary { kind, coordinator_epoch: 0, prepare: Some(prepared(prepare)) }),
            ..batch(base, producer(pid, at, NO_SEQUENCE, NO_SEQUENCE), true)
        }
    }

    impl Producers {
        /// Appends when the time does not matter.
        fn take(&mut self, batch: &BatchSummary) -> Option<AbortedTxn> {
            self.append(batch, start())
        }

        fn ask(&mut self, id: ProducerId, epoch: ProducerEpoch) -> Verification {
            self.verification(id, epoch, 0, start())
        }
    }

    fn start() -> Instant {
        Env::new(parts(7, &SimDisk::new(7, Trace::default()))).monotonic()
    }

    fn prepared(at: i64) -> PrepareRef {
        PrepareRef { txn_leader_epoch: forebay_types::LeaderEpoch::ZERO, prepare_offset: offset(at) }
    }

    /// Sequences 0–9, then batches of one from 10 to 14 at offsets 10 to 14: the window holds the last five.
    fn after_six_batches() -> Producers {
        let mut producers = Producers::default();
        producers.take(&batch(0, producer(1, 0, 0, 9), false));
        for n in 10..15 {
            producers.take(&batch(
                n,
                producer(1, 0, i32::try_from(n).expect("small"), i32::try_from(n).expect("small")),
                false,
            ));
        }
        producers
    }

    #[test]
    fn a_retry_of_the_last_five_batches_gets_its_first_offsets() {
        let producers = after_six_batches();
        for n in 10..15 {
            let verdict = producers.check(&producer(1, 0, n, n), false, None);
            assert!(
                matches!(verdict, Ok(Verdict::Duplicate(meta)) if meta.base_offset == offset(i64::from(n))),
                "sequence {n}: {verdict:?}"
            );
        }
        // The sixth from the end is out of the window, and is not the next one either (semantic 1).
        let verdict = producers.check(&producer(1, 0, 0, 9), false, None);
        assert_eq!(verdict, Err(ProducerError::OutOfOrderSequence { id: id(1), sequence: 0, last: 14 }));
        // The same first sequence with another length is no retry.
        assert!(producers.check(&producer(1, 0, 13, 14), false, None).is_err());
        assert_eq!(producers.check(&producer(1, 0, 15, 20), false, None), Ok(Verdict::Append));
    }

    #[test]
    fn first_sequences_follow_transactions_v1() {
        let producers = after_six_batches();
        assert_eq!(producers.check(&producer(2, 3, 77, 77), false, None), Ok(Verdict::Append), "unknown: any sequence");
        assert_eq!(producers.check(&producer(1, 1, 0, 0), false, None), Ok(Verdict::Append), "new epoch: from 0");
        assert!(matches!(
            producers.check(&producer(1, 1, 5, 5), false, None),
            Err(ProducerError::NewEpochSequence { sequence: 5, .. })
        ));
        let mut bumped = after_six_batches();
        bumped.take(&batch(15, producer(1, 1, 0, 0), false));
        assert!(matches!(bumped.check(&producer(1, 0, 15, 15), false, None), Err(ProducerError::InvalidEpoch { .. })));
    }

    #[test]
    fn the_sequence_wraps_to_zero() {
        let mut producers = Producers::default();
        producers.take(&batch(0, producer(1, 0, i32::MAX, i32::MAX), false));
        assert_eq!(producers.check(&producer(1, 0, 0, 4), false, None), Ok(Verdict::Append));
    }

    #[test]
    fn a_first_transactional_batch_needs_a_guard_that_no_marker_passed() {
        let mut producers = Producers::default();
        let first = producer(1, 0, 0, 0);
        assert_eq!(producers.check(&first, true, None), Err(ProducerError::NotVerified { id: id(1) }));
        let Verification::Needed(guard) = producers.ask(id(1), epoch(0)) else { panic!("not yet open") };
        assert_eq!(producers.check(&first, true, Some(guard)), Ok(Verdict::Append));
        // The transaction ends before the batch comes: its marker takes the guard away.
        producers.take(&marker(0, 1, 0, MarkerKind::Abort, 5));
        assert_eq!(producers.check(&first, true, Some(guard)), Err(ProducerError::NotVerified { id: id(1) }));
        // With a new guard it may come, and the batches after it need none.
        let Verification::Needed(guard) = producers.ask(id(1), epoch(0)) else { panic!("closed again") };
        assert_eq!(producers.check(&first, true, Some(guard)), Ok(Verdict::Append));
        producers.take(&batch(1, first, true));
        assert_eq!(producers.check(&producer(1, 0, 1, 1), true, None), Ok(Verdict::Append));
        assert_eq!(producers.ask(id(1), epoch(0)), Verification::Done);
    }

    /// Two batches are under way, and the coordinator answers only for the second: it may not open the transaction, or the
    /// first would be out of order for ever (Kafka's `VerificationStateEntry`).
    #[test]
    fn a_transaction_does_not_begin_with_its_second_batch() {
        let mut producers = Producers::default();
        let asked = [0, 10].map(|sequence| producers.verification(id(1), epoch(0), sequence, start()));
        let [Verification::Needed(first), Verification::Needed(second)] = asked else { panic!("not yet open") };
        let later = producers.check(&producer(1, 0, 10, 19), true, Some(second));
        assert_eq!(later, Err(ProducerError::NotTheFirst { id: id(1), sequence: 10, first: 0 }));
        assert_eq!(producers.check(&producer(1, 0, 0, 9), true, Some(first)), Ok(Verdict::Append));
        producers.take(&batch(0, producer(1, 0, 0, 9), true));
        assert_eq!(producers.check(&producer(1, 0, 10, 19), true, Some(second)), Ok(Verdict::Append));
        // Another epoch begins anew.
        let mut bumped = Producers::default();
        for (at, sequence) in [(0, 0), (1, 7)] {
            bumped.verification(id(1), epoch(at), sequence, start());
        }
        let Verification::Needed(guard) = bumped.verification(id(1), epoch(1), 7, start()) else { panic!("not open") };
        assert_eq!(bumped.check(&producer(1, 1, 7, 8), true, Some(guard)), Ok(Verdict::Append));
    }

    #[test]
    fn the_stable_offset_waits_for_a_durable_marker() {
        let mut producers = Producers::default();
        producers.take(&batch(0, producer(9, 0, 0, 4), false));
        let Verification::Needed(_) = producers.ask(id(1), epoch(0)) else { panic!("not yet open") };
        producers.take(&batch(5, producer(1, 0, 0, 0), true));
        producers.take(&batch(6, producer(9, 0, 5, 5), false));
        assert_eq!(producers.last_stable_offset(offset(7)), offset(5));
        let aborted = producers.take(&marker(7, 1, 0, MarkerKind::Abort, 5));
        let expected = AbortedTxn { producer: id(1), first_offset: offset(5), last_offset: offset(7) };
        assert_eq!(aborted, Some(expected));
        assert_eq!(producers.last_stable_offset(offset(7)), offset(5), "the marker is not durable yet");
        assert_eq!(producers.last_stable_offset(offset(8)), offset(8));
        assert_eq!(producers.aborted_between(offset(0), offset(6)), [expected]);
        assert_eq!(producers.aborted_between(offset(7), offset(8)), [expected], "the marker itself is in range");
        assert_eq!(producers.aborted_between(offset(0), offset(5)), [], "it begins where the range ends");
        producers.forget_below(offset(8));
        assert_eq!(producers.aborted_between(offset(0), offset(9)), []);
    }

    #[test]
    fn a_marker_is_done_once_and_never_by_an_older_coordinator() {
        let mut producers = Producers::default();
        producers.take(&batch(0, producer(1, 3, 0, 0), true));
        let ask =
            |producers: &Producers, at, prepare| producers.check_marker(id(1), epoch(at), 0, Some(prepared(prepare)));
        assert_eq!(ask(&producers, 3, 5), Ok(MarkerVerdict::Append));
        producers.take(&marker(1, 1, 3, MarkerKind::Commit, 5));
        assert_eq!(ask(&producers, 3, 5), Ok(MarkerVerdict::Done), "asked again after a lost answer");
        assert_eq!(ask(&producers, 3, 4), Ok(MarkerVerdict::Done), "an older transaction's, delayed");
        assert_eq!(ask(&producers, 3, 6), Ok(MarkerVerdict::Append));
        assert!(matches!(ask(&producers, 2, 6), Err(ProducerError::InvalidEpoch { .. })));
        let fenced = producers.check_marker(id(1), epoch(3), -1, Some(prepared(6)));
        assert!(matches!(fenced, Err(ProducerError::CoordinatorFenced { .. })));
    }

    #[test]
    fn state_from_footers_equals_state_from_batches() {
        let batches = [
            batch(0, producer(1, 0, 0, 0), true),
            batch(1, producer(2, 0, 0, 1), false),
            marker(3, 1, 0, MarkerKind::Abort, 5),
            batch(4, producer(1, 0, 1, 1), true),
            batch(5, producer(2, 0, 2, 2), false),
        ];
        for cut in 0..=batches.len() {
            let mut live = Producers::default();
            let mut read = Producers::default();
            let parts = [&batches[..cut], &batches[cut..]];
            let aborted = parts.map(|part| part.iter().filter_map(|batch| live.take(batch)).collect::<Vec<_>>());
            assert_eq!(live.snapshot(offset(0)), PartitionProducers::default(), "cut at {cut}: nothing is committed");
            for (part, aborted) in parts.iter().zip(&aborted) {
                read.absorb(&fold_changes(*part), aborted, start());
                let end = part.last().map_or(offset(0), |batch| batch.last_offset.next());
                live.commit(&fold_changes(*part), end);
                assert_eq!(live.snapshot(end), read.snapshot(end), "cut at {cut}, up to {end}");
            }
            assert_eq!(read.last_stable_offset(offset(6)), offset(4), "cut at {cut}");
            assert!(live.committed.is_empty(), "cut at {cut}: what is committed is kept once");
        }
    }

    /// As a group coordinator writes offsets in a transaction: without sequences, several within a millisecond.
    #[test]
    fn batches_that_change_nothing_are_committed_like_others() {
        let unnumbered = |base| BatchSummary {
            last_offset: offset(base),
            max_timestamp: Timestamp::from_millis(7),
            ..batch(base, producer(1, 0, NO_SEQUENCE, NO_SEQUENCE), true)
        };
        let batches = [unnumbered(0), unnumbered(1), unnumbered(2)];
        let mut producers = Producers::default();
        for batch in &batches {
            producers.take(batch);
        }
        for (n, batch) in (1..).zip(&batches) {
            assert!(!producers.committed.is_empty());
            producers.commit(&fold_changes([batch]), offset(n));
            let open = producers.snapshot(offset(n)).producers[0].1.open_txn;
            assert_eq!(open, Some(offset(0)), "up to {n}");
        }
        assert!(producers.committed.is_empty());
    }

    #[test]
    fn silence_expires_a_producer_whatever_its_records_say_but_never_an_open_transaction() {
        let start = start();
        let second = |n| start + Duration::from_secs(n);
        let mut producers = Producers::default();
        // Their records are all of January 1970.
        let batches = [
            batch(0, producer(1, 0, 0, 0), true),
            batch(1, producer(2, 0, 0, 0), false),
            batch(2, producer(3, 0, 0, 0), false),
        ];
        for (n, batch) in (0..).zip(&batches) {
            producers.append(batch, second(n));
        }
        let known = |producers: &Producers| producers.states.keys().map(|id| id.get()).collect::<Vec<_>>();
        producers.expire(second(100), Duration::from_secs(10));
        assert_eq!(known(&producers), [1, 2, 3], "what is not committed yet stays");
        producers.commit(&fold_changes(&batches), offset(3));
        producers.expire(second(10), Duration::from_secs(10));
        assert_eq!(known(&producers), [1, 2, 3], "the silence of each counts from its own last batch");
        producers.expire(second(11), Duration::from_secs(10));
        assert_eq!(known(&producers), [1, 3]);
        producers.renew(second(100));
        producers.expire(second(109), Duration::from_secs(10));
        assert_eq!(known(&producers), [1, 3], "nobody could be heard before");
        producers.expire(second(110), Duration::from_secs(10));
        assert_eq!(known(&producers), [1]);
        assert_eq!(producers.states[&id(1)].state.batches.as_slice().len(), 1);

        let mut restored = Producers::restore(producers.snapshot(offset(3)), second(200));
        restored.append(&marker(3, 1, 0, MarkerKind::Commit, 5), second(205));
        restored.commit(&fold_changes(&[marker(3, 1, 0, MarkerKind::Commit, 5)]), offset(4));
        restored.expire(second(214), Duration::from_secs(10));
        assert_eq!(known(&restored), [1], "a marker is heard of too");
        restored.expire(second(215), Duration::from_secs(10));
        assert_eq!(known(&restored), [0_i64; 0]);
    }

    #[test]
    fn a_guard_that_nobody_comes_back_with_is_forgotten() {
        let start = start();
        let mut producers = Producers::default();
        let Verification::Needed(guard) = producers.verification(id(1), epoch(0), 0, start) else {
            panic!("not yet open")
        };
        let first = producer(1, 0, 0, 0);
        producers.expire(start + Duration::from_secs(9), Duration::from_secs(10));
        assert_eq!(producers.check(&first, true, Some(guard)), Ok(Verdict::Append));
        producers.expire(start + Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(producers.check(&first, true, Some(guard)), Err(ProducerError::NotVerified { id: id(1) }));
    }
}
