//! Producer state, against a model that follows Kafka's `ProducerStateEntry` and `ProducerAppendInfo` batch by batch.

use std::collections::{BTreeMap, VecDeque};

use forebay_format::{BatchMeta, BatchSummary, MarkerKind, MarkerSummary, ProducerState, TxnChange, fold_changes};
use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp};
use proptest::prelude::*;

use crate::samples::{epoch, history, marker, offset, plain, producer, sequenced, transactional};

/// One producer as Kafka keeps it, and the highest marker as D14 adds it.
#[derive(Clone, Debug)]
struct Model {
    epoch: ProducerEpoch,
    window: VecDeque<BatchMeta>,
    txn_first: Option<Offset>,
    coordinator_epoch: Option<i32>,
    highest: Option<MarkerSummary>,
    last_timestamp: Timestamp,
}

impl Model {
    /// `ProducerAppendInfo.append`, without its checks.
    fn append(&mut self, batch: &BatchSummary) {
        let who = batch.producer.expect("a producer's batch");
        if self.epoch != who.epoch {
            self.window.clear();
            self.epoch = who.epoch;
        }
        self.last_timestamp = batch.max_timestamp;
        if let Some(marker) = batch.marker {
            self.txn_first = None;
            self.coordinator_epoch = Some(marker.coordinator_epoch);
            if self.highest.is_none_or(|h| marker.prepare >= h.prepare) {
                self.highest = Some(marker);
            }
            return;
        }
        if who.base_sequence >= 0 {
            if self.window.len() == 5 {
                self.window.pop_front();
            }
            self.window.push_back(BatchMeta {
                base_sequence: who.base_sequence,
                last_sequence: who.last_sequence,
                base_offset: batch.base_offset,
                last_offset: batch.last_offset,
                timestamp: batch.max_timestamp,
            });
        }
        if batch.transactional && self.txn_first.is_none() {
            self.txn_first = Some(batch.base_offset);
        }
    }

    fn agrees_with(&self, state: &ProducerState) {
        assert_eq!(state.epoch, self.epoch);
        assert_eq!(state.batches.as_slice(), self.window.iter().copied().collect::<Vec<_>>());
        assert_eq!(state.open_txn, self.txn_first);
        assert_eq!(state.coordinator_epoch, self.coordinator_epoch);
        assert_eq!(state.marker, self.highest);
        assert_eq!(state.last_timestamp, self.last_timestamp);
    }
}

fn model_of(batches: &[BatchSummary]) -> BTreeMap<ProducerId, Model> {
    let mut models: BTreeMap<ProducerId, Model> = BTreeMap::new();
    for batch in batches {
        let Some(who) = batch.producer else { continue };
        let empty = Model {
            epoch: who.epoch,
            window: VecDeque::new(),
            txn_first: None,
            coordinator_epoch: None,
            highest: None,
            last_timestamp: Timestamp::default(),
        };
        models.entry(who.id).or_insert(empty).append(batch);
    }
    models
}

/// States after applying the folds of consecutive ranges.
fn states_of<'a>(ranges: impl Iterator<Item = &'a [BatchSummary]>) -> BTreeMap<ProducerId, ProducerState> {
    let mut states = BTreeMap::new();
    for range in ranges {
        for change in fold_changes(range) {
            states.entry(change.producer).or_insert_with(|| ProducerState::new(change.epoch)).apply(&change);
        }
    }
    states
}

proptest! {
    /// However a history is cut into ranges, applying the ranges' folds gives what Kafka's rules give batch by batch.
    #[test]
    fn folds_of_ranges_equal_batch_by_batch(batches in history(), size in 1..20_usize) {
        let models = model_of(&batches);
        for states in [states_of(batches.chunks(size)), states_of(batches.chunks(1)), states_of([&batches[..]].into_iter())] {
            assert_eq!(states.len(), models.len());
            for (id, state) in &states {
                models[id].agrees_with(state);
            }
        }
    }

    /// A state that stands inside a range (a snapshot taken between two uploads) is brought to the range's end by the
    /// range's whole fold.
    #[test]
    fn a_fold_may_begin_before_the_state(batches in history(), cuts in any::<[prop::sample::Index; 2]>()) {
        let mut cuts = cuts.map(|cut| cut.index(batches.len() + 1));
        cuts.sort_unstable();
        let [start, at] = cuts;
        let mut states = states_of([&batches[..at]].into_iter());
        for change in fold_changes(&batches[start..]) {
            states.entry(change.producer).or_insert_with(|| ProducerState::new(change.epoch)).apply(&change);
        }
        prop_assert_eq!(states, states_of([&batches[..]].into_iter()));
    }

    /// The state that an owner keeps batch by batch is the one that a restart folds from footers.
    #[test]
    fn an_owner_and_a_restart_agree(batches in history()) {
        let mut live: BTreeMap<ProducerId, ProducerState> = BTreeMap::new();
        for batch in &batches {
            if let Some(who) = &batch.producer {
                live.entry(who.id).or_insert_with(|| ProducerState::new(who.epoch)).apply_batch(batch, who);
            }
        }
        prop_assert_eq!(live, states_of([&batches[..]].into_iter()));
    }
}

#[test]
fn the_window_is_the_last_five_batches_of_the_epoch() {
    let mut state = ProducerState::new(epoch(0));
    for n in 0..7 {
        state.apply(&fold_changes(&[sequenced(n, 1, 1, 0, i32::try_from(n).expect("small"))])[0]);
    }
    let sequences: Vec<i32> = state.batches.as_slice().iter().map(|b| b.base_sequence).collect();
    assert_eq!(sequences, [2, 3, 4, 5, 6]);
    assert_eq!(state.batches.find(4, 4).map(|b| b.base_offset), Some(offset(4)), "a retry finds its original");
    assert_eq!(state.batches.find(1, 1), None, "an older duplicate is not known any more");

    state.apply(&fold_changes(&[sequenced(7, 2, 1, 1, 0)])[0]);
    assert_eq!((state.epoch, state.batches.as_slice().len()), (epoch(1), 1), "a new epoch begins a new window");
}

#[test]
fn a_marker_keeps_the_window_unless_its_epoch_is_higher() {
    let data = transactional(sequenced(0, 1, 1, 0, 0));
    let mut state = ProducerState::new(epoch(0));
    state.apply(&fold_changes(&[data, marker(1, 1, 0, MarkerKind::Commit, 5, None)])[0]);
    assert_eq!((state.batches.as_slice().len(), state.open_txn, state.coordinator_epoch), (1, None, Some(5)));

    state.apply(&fold_changes(&[marker(2, 1, 1, MarkerKind::Abort, 5, None)])[0]);
    assert_eq!((state.batches.as_slice().len(), state.epoch), (0, epoch(1)), "a fencing marker empties the window");
}

#[test]
fn a_transaction_keeps_its_first_offset_across_ranges() {
    let first = fold_changes(&[transactional(sequenced(10, 1, 1, 0, 0))]);
    let second = fold_changes(&[transactional(sequenced(20, 1, 1, 0, 1))]);
    let third =
        fold_changes(&[marker(30, 1, 0, MarkerKind::Commit, 0, None), transactional(sequenced(31, 1, 1, 0, 2))]);
    assert_eq!(second[0].txn, TxnChange::OpenedAt(offset(20)));
    assert_eq!(third[0].txn, TxnChange::ReopenedAt(offset(31)));
    let mut state = ProducerState::new(epoch(0));
    let mut open = Vec::new();
    for change in [&first, &second, &third] {
        state.apply(&change[0]);
        open.push(state.open_txn.map(Offset::get));
    }
    assert_eq!(open, [Some(10), Some(10), Some(31)]);
}

#[test]
fn the_highest_marker_outlives_epochs_and_late_markers() {
    let high = marker(1, 1, 0, MarkerKind::Commit, 5, Some((3, 100)));
    let late = marker(2, 1, 1, MarkerKind::Abort, 6, Some((4, 99)));
    let foreign = marker(3, 1, 1, MarkerKind::Abort, 7, None);
    let mut state = ProducerState::new(epoch(0));
    state.apply(&fold_changes(&[high, late, foreign])[0]);
    assert_eq!(state.marker, high.marker, "the later Prepare record is higher, whoever asks");
    assert_eq!(state.coordinator_epoch, Some(7), "Kafka's coordinator epoch is that of the last marker");
}

#[test]
fn a_marker_asked_for_again_is_done() {
    let prepare = |epoch, at| marker(0, 1, 0, MarkerKind::Commit, 0, Some((epoch, at))).marker.and_then(|m| m.prepare);
    let after = |epoch, at, highest| prepare(epoch, at).is_some_and(|p| p.is_after(highest));
    assert!(after(3, 100, None));
    assert!(after(3, 101, prepare(3, 100)));
    assert!(!after(3, 100, prepare(3, 100)), "asked again");
    assert!(!after(4, 100, prepare(3, 100)), "asked again by the next coordinator");
    assert!(!after(4, 99, prepare(3, 100)), "a late request for an earlier transaction");
}

#[test]
fn batches_without_a_producer_change_nothing() {
    assert_eq!(fold_changes(&[plain(0, 5)]), []);
    let changes = fold_changes(&[sequenced(0, 1, 9, 0, 0), sequenced(1, 1, 3, 0, 0), plain(2, 1)]);
    assert_eq!(
        changes.iter().map(|c| c.producer).collect::<Vec<_>>(),
        [producer(3), producer(9)],
        "sorted by producer"
    );
}
