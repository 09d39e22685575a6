//! EndTxn, markers and completion: every row of the Transactions V1 table. Shown by scripts; see `txn/mod.rs`.

mod txn;

use std::fmt::Write as _;
use std::time::Duration;

use forebay_coordinator::machine::txn::{Answer, Input, Request, TxnConfig, TxnLoader, TxnStatus};
use forebay_coordinator::machine::{Now, Token};
use forebay_types::{LeaderEpoch, Offset, Timestamp};
use txn::{check, check_with};

/// Empty: nothing is there to end, either way.
#[test]
fn empty() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > end a 1000/0 commit
        = INVALID_TXN_STATE @1
        > end a 1000/0 abort
        = INVALID_TXN_STATE @1
        > end b 1000/0 commit
        = INVALID_PRODUCER_ID_MAPPING @0
        ",
    );
}

/// Ongoing + commit: answered at the Prepare record, before any marker; then PrepareCommit and CompleteCommit rows.
#[test]
fn commit() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > add a 1000/0 t-1,t-0,s-3
        + 1 a Ongoing 1000/0 s-3 t-0 t-1
        = NONE @2
        > end a 1000/0 commit
        + 2 a PrepareCommit 1000/0 s-3 t-0 t-1
        = NONE @3
        ! commit a 1000/0 s-3 t-0 t-1 prepared at 2 epoch 0
        > end a 1000/0 commit
        = CONCURRENT_TRANSACTIONS @3
        > end a 1000/0 abort
        = INVALID_TXN_STATE @3
        > add a 1000/0 t-0
        = CONCURRENT_TRANSACTIONS @3
        > init a
        = CONCURRENT_TRANSACTIONS @3
        > verify a 1000/0 t-0
        = CONCURRENT_TRANSACTIONS @3
        > written a 2 t-0,t-1
        > describe a
        = PrepareCommit 1000/0 timeout 60000ms began +0ms s-3 t-0 t-1 @3
        > written a 2 s-3
        + 3 a CompleteCommit 1000/0
        > end a 1000/0 commit
        = NONE @4
        > end a 1000/0 abort
        = INVALID_TXN_STATE @4
        > verify a 1000/0 t-0
        = not in the transaction: t-0 @4
        > add a 1000/0 t-0
        + 4 a Ongoing 1000/0 t-0
        = NONE @5
        ",
    );
}

/// Ongoing + abort, then the PrepareAbort and CompleteAbort rows. The epoch stays: nobody was fenced.
#[test]
fn abort() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > add a 1000/0 t-0
        + 1 a Ongoing 1000/0 t-0
        = NONE @2
        > end a 1000/0 abort
        + 2 a PrepareAbort 1000/0 t-0
        = NONE @3
        ! abort a 1000/0 t-0 prepared at 2 epoch 0
        > end a 1000/0 abort
        = CONCURRENT_TRANSACTIONS @3
        > end a 1000/0 commit
        = INVALID_TXN_STATE @3
        > written a 2 t-0
        + 3 a CompleteAbort 1000/0
        > end a 1000/0 abort
        = NONE @4
        > end a 1000/0 commit
        = INVALID_TXN_STATE @4
        ",
    );
}

/// Before the table: in every state another epoch is fenced, above as below, and another producer id is a wrong mapping.
#[test]
fn only_the_current_producer_ends_a_transaction() {
    let mut script = String::from(
        "
        > init a times=2
        + 1 a Empty 1000/1
        = 1000/1 @2
        ",
    );
    let steps = [
        ("", 2),
        ("> add a 1000/1 t-0\n+ 2 a Ongoing 1000/1 t-0\n= NONE @3", 3),
        (
            "> end a 1000/1 commit\n+ 3 a PrepareCommit 1000/1 t-0\n= NONE @4\n\
             ! commit a 1000/1 t-0 prepared at 3 epoch 0",
            4,
        ),
        ("> written a 3 t-0\n+ 4 a CompleteCommit 1000/1", 5),
    ];
    for (step, end) in steps {
        write!(
            script,
            "{step}
            > end a 1000/0 commit
            = PRODUCER_FENCED @{end}
            > end a 1000/2 abort
            = PRODUCER_FENCED @{end}
            > end a 1000/0 abort v=1
            = INVALID_PRODUCER_EPOCH @{end}
            > end a 5/1 commit
            = INVALID_PRODUCER_ID_MAPPING @{end}
            "
        )
        .expect("strings grow");
    }
    check(&script);
}

/// Flink's resumeTransaction: a new process that knows (producer id, epoch) from a checkpoint commits without
/// InitProducerId, after a change of owner too; the writer and the committer may both do so.
#[test]
fn flink_resumes_a_transaction_by_end_txn_alone() {
    check(
        "
        > init sink-0-7 timeout=3600000
        + 0 sink-0-7 Empty 1000/0
        = 1000/0 @1
        > add sink-0-7 1000/0 out-0
        + 1 sink-0-7 Ongoing 1000/0 out-0
        = NONE @2
        > wait 50m
        > restart
        > wait 50m
        > tick
        > end sink-0-7 1000/0 commit v=4
        + 2 sink-0-7 PrepareCommit 1000/0 out-0
        = NONE @3
        ! commit sink-0-7 1000/0 out-0 prepared at 2 epoch 1
        > end sink-0-7 1000/0 commit v=4
        = CONCURRENT_TRANSACTIONS @3
        > written sink-0-7 2 out-0
        + 3 sink-0-7 CompleteCommit 1000/0
        > end sink-0-7 1000/0 commit v=4
        = NONE @4
        ",
    );
}

/// Flink's POOLING: the open transactions of some producer ids are listed; the idle ones and the others are not.
#[test]
fn flink_pooling_lists_what_is_open() {
    check(
        "
        > init p-1
        + 0 p-1 Empty 1000/0
        = 1000/0 @1
        > init p-0
        + 1 p-0 Empty 1001/0
        = 1001/0 @2
        > init q-0
        + 2 q-0 Empty 1002/0
        = 1002/0 @3
        > add p-1 1000/0 t-0
        + 3 p-1 Ongoing 1000/0 t-0
        = NONE @4
        > add p-0 1001/0 t-0
        + 4 p-0 Ongoing 1001/0 t-0
        = NONE @5
        > list states=Ongoing pids=1000,1001,1002,-1
        = p-0 Ongoing 1001, p-1 Ongoing 1000 @5
        > list states=Ongoing pids=1000
        = p-1 Ongoing 1000 @5
        > list states=Ongoing pids=-1
        = nothing @5
        > end p-1 1000/0 commit
        + 5 p-1 PrepareCommit 1000/0 t-0
        = NONE @6
        ! commit p-1 1000/0 t-0 prepared at 5 epoch 0
        > list states=Ongoing
        = p-0 Ongoing 1001 @6
        > list states=PrepareCommit,Ongoing
        = p-0 Ongoing 1001, p-1 PrepareCommit 1000 @6
        > list
        = p-0 Ongoing 1001, p-1 PrepareCommit 1000, q-0 Empty 1002 @6
        > list states=Empty,Bogus,Dead
        = q-0 Empty 1002; unknown Bogus @6
        > list states=Bogus
        = nothing; unknown Bogus @6
        > wait 10s
        > list states=Ongoing longer=9s
        = p-0 Ongoing 1001 @6
        > list states=Ongoing longer=10s
        = nothing @6
        > describe p-0
        = Ongoing 1001/0 timeout 60000ms began +0ms t-0 @5
        > describe nobody
        = TRANSACTIONAL_ID_NOT_FOUND @0
        ",
    );
}

/// AddOffsetsToTxn adds the group's partition of `__consumer_offsets`, which gets a marker like any other. What is in
/// the transaction already is confirmed without a record, on the record that put it there.
#[test]
fn offsets_are_a_partition_like_any_other() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > add a 1000/0 __consumer_offsets-12
        + 1 a Ongoing 1000/0 __consumer_offsets-12
        = NONE @2
        > add a 1000/0 t-0
        + 2 a Ongoing 1000/0 __consumer_offsets-12 t-0
        = NONE @3
        > init b
        + 3 b Empty 1001/0
        = 1001/0 @4
        > add a 1000/0 t-0
        = NONE @3
        > verify a 1000/0 t-0,t-1,__consumer_offsets-12
        = not in the transaction: t-1 @3
        > verify a 1000/0 t-0
        = NONE @3
        > verify b 1001/0 t-0
        = not in the transaction: t-0 @4
        > end a 1000/0 commit
        + 4 a PrepareCommit 1000/0 __consumer_offsets-12 t-0
        = NONE @5
        ! commit a 1000/0 __consumer_offsets-12 t-0 prepared at 4 epoch 0
        ",
    );
}

/// A transaction opened with no partition has no marker to wait for: Prepare and Complete go out together.
#[test]
fn an_empty_transaction_completes_at_once() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > add a 1000/0 none
        + 1 a Ongoing 1000/0
        = NONE @2
        > end a 1000/0 commit
        + 2 a PrepareCommit 1000/0
        + 3 a CompleteCommit 1000/0
        = NONE @4
        > end a 1000/0 commit
        = NONE @4
        ",
    );
}

/// Confirmations that belong to no ending transaction, or to an earlier one, change nothing.
#[test]
fn stray_confirmations_change_nothing() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > written a 0 t-0
        > written nobody 0 t-0
        > add a 1000/0 t-0
        + 1 a Ongoing 1000/0 t-0
        = NONE @2
        > end a 1000/0 commit
        + 2 a PrepareCommit 1000/0 t-0
        = NONE @3
        ! commit a 1000/0 t-0 prepared at 2 epoch 0
        > written a 1 t-0
        > written a 2 t-5
        > written a 2 t-0
        + 3 a CompleteCommit 1000/0
        > written a 2 t-0
        > written a 3 t-0
        > add a 1000/0 t-0
        + 4 a Ongoing 1000/0 t-0
        = NONE @5
        > end a 1000/0 abort
        + 5 a PrepareAbort 1000/0 t-0
        = NONE @6
        ! abort a 1000/0 t-0 prepared at 5 epoch 0
        > written a 2 t-0
        > written a 5 t-0
        + 6 a CompleteAbort 1000/0
        ",
    );
}

/// A new owner sends all markers of an ending transaction again, under its own epoch and the same Prepare.
#[test]
fn a_new_owner_sends_markers_again() {
    for load in ["> restart", "> snapshot\n> restart"] {
        check(&format!(
            "
            > init a
            + 0 a Empty 1000/0
            = 1000/0 @1
            > add a 1000/0 t-0,t-1
            + 1 a Ongoing 1000/0 t-0 t-1
            = NONE @2
            > end a 1000/0 commit
            + 2 a PrepareCommit 1000/0 t-0 t-1
            = NONE @3
            ! commit a 1000/0 t-0 t-1 prepared at 2 epoch 0
            > written a 2 t-0
            {load}
            ! commit a 1000/0 t-0 t-1 prepared at 2 epoch 1
            > end a 1000/0 commit
            = CONCURRENT_TRANSACTIONS @3
            > written a 2 t-0,t-1
            + 3 a CompleteCommit 1000/0
            "
        ));
    }
}

/// A topic that was deleted and created again is another one: each has its own marker, wherever the state was read from,
/// and what one holds does not verify the other.
#[test]
fn topics_of_one_name_are_told_apart() {
    for load in ["", "> restart\n! commit a 1000/0 t@1-0 t@2-0 t@2-1 prepared at 3 epoch 1"] {
        for snapshot in ["", "> snapshot"] {
            check(&format!(
                "
                > init a
                + 0 a Empty 1000/0
                = 1000/0 @1
                > add a 1000/0 t@1-0
                + 1 a Ongoing 1000/0 t@1-0
                = NONE @2
                > verify a 1000/0 t@1-0
                = NONE @2
                > verify a 1000/0 t@2-0
                = not in the transaction: t@2-0 @2
                > add a 1000/0 t@2-0,t@2-1
                + 2 a Ongoing 1000/0 t@1-0 t@2-0 t@2-1
                = NONE @3
                > end a 1000/0 commit
                + 3 a PrepareCommit 1000/0 t@1-0 t@2-0 t@2-1
                = NONE @4
                ! commit a 1000/0 t@1-0 t@2-0 t@2-1 prepared at 3 epoch 0
                {snapshot}
                {load}
                > written a 3 t@2-0,t@2-1
                > describe a
                = PrepareCommit 1000/0 timeout 60000ms began +0ms t@1-0 t@2-0 t@2-1 @4
                > written a 3 t@1-0
                + 4 a CompleteCommit 1000/0
                "
            ));
        }
    }
}

/// A record that Kafka wrote names topics only. What it holds is verified by name, and its marker goes by name.
#[test]
fn a_partition_without_a_topic_id_is_verified_by_its_name() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > add a 1000/0 t-0
        + 1 a Ongoing 1000/0 t-0
        = NONE @2
        > restart
        > verify a 1000/0 t@2-0,t@2-1
        = not in the transaction: t@2-1 @2
        ",
    );
}

/// Snapshots of version 1 had no topic ids: one is read as records without them are.
#[test]
fn a_snapshot_of_version_1_is_read() {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let bytes = [
        vec![1, 2, 0],                                         // version, log end, newest update
        [vec![1], text("t")].concat(),                         // one topic
        [vec![1], text("a"), vec![1, 0xe8, 0x07, 0]].concat(), // one id: Ongoing, producer 1000, epoch 0
        vec![0xc0, 0xa9, 0x07, 0, 1, 0],                       // a minute, updated at 0, offset 1, begun at 0
        vec![1, 0, 3],                                         // one partition: t-3
    ];
    let loader = TxnLoader::restore(TxnConfig::default(), &bytes.concat()).expect("it is still read");
    let now = Now { wall: Timestamp::from_millis(0), uptime: Duration::ZERO };
    let (mut machine, _) = loader.open(now, LeaderEpoch::ZERO, Offset::new(2).expect("not negative"));
    let request = Request::Describe { transactional_id: "a".to_owned() };
    let out = machine.handle(now, Input::Request { token: Token(7), request });
    let Answer::Describe(Ok(described)) = &out.replies[0].answer else { panic!("{:?}", out.replies) };
    assert_eq!((described.status, described.timeout_ms), (TxnStatus::Ongoing, 60_000));
    assert_eq!(described.partitions, txn::partitions("t-3"));
}

/// A time-out aborts under a higher epoch, at the moment asked for and not before; the late commit is fenced.
#[test]
fn a_transaction_open_for_too_long_is_aborted() {
    check(
        "
        > init a timeout=60000
        + 0 a Empty 1000/0
        = 1000/0 @1
        > wait 30s
        > add a 1000/0 t-0
        + 1 a Ongoing 1000/0 t-0
        = NONE @2
        > deadline
        in Some(60s)
        > wait 50s
        > add a 1000/0 t-1
        + 2 a Ongoing 1000/0 t-0 t-1
        = NONE @3
        > deadline
        in Some(10s)
        > wait 9999ms
        > tick
        > wait 1ms
        > tick
        + 3 a PrepareAbort 1000/1 t-0 t-1
        ! abort a 1000/1 t-0 t-1 prepared at 3 epoch 0
        > tick
        > end a 1000/0 commit
        = PRODUCER_FENCED @4
        > end a 1000/0 commit v=1
        = INVALID_PRODUCER_EPOCH @4
        > written a 3 t-0,t-1
        + 4 a CompleteAbort 1000/1
        > end a 1000/0 abort
        = PRODUCER_FENCED @5
        > init a
        + 5 a Empty 1000/2
        = 1000/2 @6
        ",
    );
}

/// Time counts only while it could be answered: a new owner gives an open transaction its full time again, and a wall
/// clock that jumps aborts nothing.
#[test]
fn time_without_an_owner_does_not_count() {
    check(
        "
        > init a timeout=60000
        + 0 a Empty 1000/0
        = 1000/0 @1
        > add a 1000/0 t-0
        + 1 a Ongoing 1000/0 t-0
        = NONE @2
        > wait 2h
        > restart
        > tick
        > deadline
        in Some(60s)
        > wait 59s
        > jump 10d
        > tick
        > end a 1000/0 commit
        + 2 a PrepareCommit 1000/0 t-0
        = NONE @3
        ! commit a 1000/0 t-0 prepared at 2 epoch 1
        ",
    );
}

/// An idle id is forgotten a week after its last use, within the hour, by a tombstone; "unknown" then rests on that
/// tombstone. Whoever comes back gets a fresh producer id.
#[test]
fn an_idle_id_expires() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > init b
        + 1 b Empty 1001/0
        = 1001/0 @2
        > wait 4d
        > add b 1001/0 t-0
        + 2 b Ongoing 1001/0 t-0
        = NONE @3
        > end b 1001/0 commit
        + 3 b PrepareCommit 1001/0 t-0
        = NONE @4
        ! commit b 1001/0 t-0 prepared at 3 epoch 0
        > written b 3 t-0
        + 4 b CompleteCommit 1001/0
        > wait 3d
        > wait 1h
        > tick
        + 5 a gone
        > end a 1000/0 commit
        = INVALID_PRODUCER_ID_MAPPING @6
        > describe a
        = TRANSACTIONAL_ID_NOT_FOUND @6
        > list
        = b CompleteCommit 1001 @6
        > init a
        + 6 a Empty 1002/0
        = 1002/0 @7
        > wait 4d
        > tick
        + 7 b gone
        > restart
        > list
        = a Empty 1002 @8
        ",
    );
}

/// An id with a transaction open or ending never expires, however long the markers take.
#[test]
fn an_id_in_use_does_not_expire() {
    check(
        "
        > init a timeout=86400000
        + 0 a Empty 1000/0
        = 1000/0 @1
        > add a 1000/0 t-0
        + 1 a Ongoing 1000/0 t-0
        = NONE @2
        > end a 1000/0 commit
        + 2 a PrepareCommit 1000/0 t-0
        = NONE @3
        ! commit a 1000/0 t-0 prepared at 2 epoch 0
        > wait 30d
        > tick
        > written a 2 t-0
        + 3 a CompleteCommit 1000/0
        > tick
        > end a 1000/0 commit
        = NONE @4
        > wait 6d
        > tick
        > wait 2d
        > tick
        + 4 a gone
        ",
    );
}

/// A cluster that was off for a month expires nothing when it comes back: nobody could have used an id meanwhile. The
/// time an id was unused before still counts.
#[test]
fn ids_do_not_age_while_nobody_could_use_them() {
    check(
        "
        > init a
        + 0 a Empty 1000/0
        = 1000/0 @1
        > wait 3d
        > init b
        + 1 b Empty 1001/0
        = 1001/0 @2
        > wait 30d
        > restart
        > tick
        > list
        = a Empty 1000, b Empty 1001 @2
        > wait 4d
        > wait 1h
        > tick
        + 2 a gone
        > wait 3d
        > tick
        + 3 b gone
        ",
    );
}

/// Many ids due at once: one tick does a bounded part and asks for the next at once. The ids that come after take the
/// place of the ones that went.
#[test]
fn a_tick_does_a_bounded_part() {
    use forebay_coordinator::machine::txn::InitProducerId;
    let mut world = txn::World::new(TxnConfig { expiration_ms: 1000, ..TxnConfig::default() });
    let mut held = Vec::new();
    for _ in 0..5 {
        for number in 0..600 {
            let fresh = Some(world.fresh());
            world.ask(Request::InitProducerId(InitProducerId {
                transactional_id: format!("id-{number}"),
                timeout_ms: 1000,
                expected: None,
                fresh,
                version: 5,
            }));
        }
        held.push(world.machine.heap_bytes());
        world.go_on(Duration::from_secs(2));
        for (wanted, more) in [(256, true), (256, true), (88, false), (0, false)] {
            let out = world.handle(Input::Tick);
            assert_eq!(out.records.len(), wanted);
            let again = out.deadline.is_some_and(|at| at <= world.now.uptime);
            assert_eq!(again, more, "asked for again while more is due");
        }
        assert_eq!(world.machine.ids(), 0);
    }
    assert_eq!(held[1], held[4], "ids come and go in the same space");
}

/// A short expiration, as tests of real clients set it, is kept to within a sixty-fourth.
#[test]
fn a_short_expiration_is_kept() {
    let config = TxnConfig { timeout_ms_max: 5000, expiration_ms: 6400, ..TxnConfig::default() };
    check_with(
        config,
        "
        > init a timeout=5001
        = INVALID_TRANSACTION_TIMEOUT @0
        > init a timeout=5000
        + 0 a Empty 1000/0
        = 1000/0 @1
        > deadline
        in Some(6.5s)
        > wait 6500ms
        > tick
        + 1 a gone
        > deadline
        in None
        ",
    );
}
