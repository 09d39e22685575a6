//! InitProducerId: who is who, who is fenced, and what Flink's probing relies on. Shown by scripts; see `txn/mod.rs`.

mod txn;

use txn::check;

/// A new id begins at epoch 0 with a fresh producer id; a known one keeps the producer id and gets the next epoch.
#[test]
fn a_new_id_begins_at_zero_and_a_known_one_goes_on() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > init b
        + 1 b Empty 1001/0
        = 1001/0 @2
        > init a
        + 2 a Empty 1000/1
        = 1000/1 @3
        > init a
        + 3 a Empty 1000/2
        = 1000/2 @4
        ",
    );
}

/// Requests that no state can make right: an empty id, one no record can hold, time-outs out of bounds (a day is in).
#[test]
fn what_makes_no_sense_is_refused() {
    let long = "x".repeat(40_000);
    check(&format!(
        "
        > init
        = INVALID_REQUEST @0
        > init {long}
        = INVALID_REQUEST @0
        > init a timeout=0
        = INVALID_TRANSACTION_TIMEOUT @0
        > init a timeout=-5
        = INVALID_TRANSACTION_TIMEOUT @0
        > init a timeout=86400001
        = INVALID_TRANSACTION_TIMEOUT @0
        > init a timeout=86400000
        + 0 a Empty 1000/0
        = 1000/0 @1
        > init b fresh=none
        = COORDINATOR_LOAD_IN_PROGRESS @0
        "
    ));
}

/// Flink's PROBING: epoch 0 says "nobody was here", and ends the scan; an open transaction is aborted under a higher
/// epoch, CONCURRENT_TRANSACTIONS until its markers are written, and then the answer is not 0.
#[test]
fn flink_probing_aborts_what_lingers_and_stops_at_epoch_zero() {
    check(
        "
        > init sink-0-1 timeout=3600000
        + 0 sink-0-1 Empty 1000/0
        = 1000/0 @1
        > add sink-0-1 1000/0 t-0
        + 1 sink-0-1 Ongoing 1000/0 t-0
        = NONE @2
        > init sink-0-1 timeout=3600000
        + 2 sink-0-1 PrepareAbort 1000/1 t-0
        = CONCURRENT_TRANSACTIONS @3
        ! abort sink-0-1 1000/1 t-0 prepared at 2 epoch 0
        > init sink-0-1 timeout=3600000
        = CONCURRENT_TRANSACTIONS @3
        > written sink-0-1 2 t-0
        + 3 sink-0-1 CompleteAbort 1000/1
        > init sink-0-1 timeout=3600000
        + 4 sink-0-1 Empty 1000/2
        = 1000/2 @5
        > init sink-0-2 timeout=3600000
        + 5 sink-0-2 Empty 1001/0
        = 1001/0 @6
        > end sink-0-1 1000/0 commit
        = PRODUCER_FENCED @5
        ",
    );
}

/// A producer that is not the current one is told so under the name its request's version knows.
#[test]
fn being_fenced_has_two_names() {
    check(
        "
        > init a times=3
        + 2 a Empty 1000/2
        = 1000/2 @3
        > init a as=1000/0 v=4
        = PRODUCER_FENCED @3
        > init a as=1000/0 v=3
        = INVALID_PRODUCER_EPOCH @3
        > init a as=999/2 v=4
        = PRODUCER_FENCED @3
        > add a 1000/1 t-0 v=2
        = PRODUCER_FENCED @3
        > add a 1000/1 t-0 v=1
        = INVALID_PRODUCER_EPOCH @3
        > add a 1000/3 t-0
        = PRODUCER_FENCED @3
        > end a 1000/1 commit v=2
        = PRODUCER_FENCED @3
        > end a 1000/1 commit v=1
        = INVALID_PRODUCER_EPOCH @3
        > verify a 1000/1 t-0
        = PRODUCER_FENCED @3
        > add a 999/2 t-0
        = INVALID_PRODUCER_ID_MAPPING @3
        > end a 999/2 commit
        = INVALID_PRODUCER_ID_MAPPING @3
        > verify a 999/2 t-0
        = INVALID_PRODUCER_ID_MAPPING @3
        ",
    );
}

/// KIP-360: a producer bumps its own epoch after an error. A repeat whose answer was lost gets the same epoch, also from
/// the next owner; after somebody else's InitProducerId it is fenced.
#[test]
fn a_producer_bumps_its_own_epoch_once() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > init a as=1000/0
        + 1 a Empty 1000/1
        = 1000/1 @2
        > init a as=1000/0
        + 2 a Empty 1000/1
        = 1000/1 @3
        > restart
        > init a as=1000/0
        + 3 a Empty 1000/1
        = 1000/1 @4
        > snapshot
        > restart
        > init a as=1000/0
        + 4 a Empty 1000/1
        = 1000/1 @5
        > init a
        + 5 a Empty 1000/2
        = 1000/2 @6
        > init a as=1000/1
        = PRODUCER_FENCED @6
        > init a as=1000/0
        = PRODUCER_FENCED @6
        > restart
        > init a as=1000/1
        = PRODUCER_FENCED @6
        ",
    );
}

/// A producer whose id was forgotten (expired) is not fenced: it gets a fresh producer id, whatever it says it was.
#[test]
fn a_producer_that_outlived_its_id_begins_anew() {
    check(
        "
        > init a as=77/5
        + 0 a Empty 1000/0
        = 1000/0 @1
        ",
    );
}

/// An old epoch, asking to bump itself (KIP-360), cannot abort what a newer epoch has open; the current one can.
#[test]
fn a_zombie_does_not_abort_its_successor() {
    check(
        "
        > init a times=2
        + 1 a Empty 1000/1
        = 1000/1 @2
        > add a 1000/1 t-0
        + 2 a Ongoing 1000/1 t-0
        = NONE @3
        > init a as=1000/0
        = PRODUCER_FENCED @3
        > describe a
        = Ongoing 1000/1 timeout 60000ms began +0ms t-0 @3
        > init a as=1000/1
        + 3 a PrepareAbort 1000/2 t-0
        = CONCURRENT_TRANSACTIONS @4
        ! abort a 1000/2 t-0 prepared at 3 epoch 0
        ",
    );
}

/// A belated repeat of a bump that was answered, and whose producer has begun a transaction since, does not abort it.
#[test]
fn a_belated_repeat_does_not_abort() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > init a as=1000/0
        + 1 a Empty 1000/1
        = 1000/1 @2
        > add a 1000/1 t-0
        + 2 a Ongoing 1000/1 t-0
        = NONE @3
        > init a as=1000/0
        = PRODUCER_FENCED @3
        > verify a 1000/1 t-0
        = NONE @3
        ",
    );
}

/// Epochs are spent at 32766, the last one a client gets: the next InitProducerId takes a fresh producer id at 0, and
/// waits for one where the host has none.
#[test]
fn spent_epochs_lead_to_a_fresh_producer_id() {
    check(
        "
        > init a times=32767
        + 32766 a Empty 1000/32766
        = 1000/32766 @32767
        > init a fresh=none
        = COORDINATOR_LOAD_IN_PROGRESS @32767
        > init a as=1000/32766
        + 32767 a Empty 1001/0
        = 1001/0 @32768
        > init a as=1000/32766
        + 32768 a Empty 1001/0
        = 1001/0 @32769
        > end a 1000/32766 commit
        = INVALID_PRODUCER_ID_MAPPING @32769
        > init a
        + 32769 a Empty 1001/1
        = 1001/1 @32770
        ",
    );
}

/// The last epoch can still be fenced: its open transaction is aborted under 32767, which nobody is given.
#[test]
fn the_last_epoch_can_be_fenced() {
    check(
        "
        > init a times=32767
        + 32766 a Empty 1000/32766
        = 1000/32766 @32767
        > add a 1000/32766 t-0
        + 32767 a Ongoing 1000/32766 t-0
        = NONE @32768
        > init a
        + 32768 a PrepareAbort 1000/32767 t-0
        = CONCURRENT_TRANSACTIONS @32769
        ! abort a 1000/32767 t-0 prepared at 32768 epoch 0
        > written a 32768 t-0
        + 32769 a CompleteAbort 1000/32767
        > init a
        + 32770 a Empty 1001/0
        = 1001/0 @32771
        ",
    );
}

/// A bump to the very last epoch, repeated because its answer was lost, is answered and not stepped over.
#[test]
fn a_repeat_at_the_last_epoch_is_answered() {
    check(
        "
        > init a times=32766
        + 32765 a Empty 1000/32765
        = 1000/32765 @32766
        > init a as=1000/32765
        + 32766 a Empty 1000/32766
        = 1000/32766 @32767
        > init a as=1000/32765
        + 32767 a Empty 1000/32766
        = 1000/32766 @32768
        ",
    );
}
