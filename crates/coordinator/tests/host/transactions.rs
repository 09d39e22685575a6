//! Transactions from the first partition to the last marker, with crashes in between.

use std::time::Duration;

use forebay_coordinator::host::{CoordinatorKind, VerifyError};
use forebay_coordinator::machine::txn::{List, Outcome, Refusal, TxnStatus};
use forebay_env::FailPoint;
use forebay_log::Isolation;
use forebay_types::PartitionIndex;

use crate::world::World;

const ID: &str = "sink-0-1";

/// Records of a transaction are hidden until it commits, and for ever where it aborts; the last stable offset moves with
/// the markers.
#[tokio::test(start_paused = true)]
async fn commits_become_visible_and_aborts_never() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let producer = life.init(ID).await.expect("a first producer");
    assert_eq!(producer.epoch.get(), 0, "an id that nobody used begins at epoch 0");
    life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
    assert_eq!(life.produce(ID, producer, "orders", 0, "a").await, Ok(0));
    assert_eq!(life.produce(ID, producer, "orders", 1, "b").await, Ok(1));
    assert_eq!(life.values("orders", Isolation::ReadUncommitted).await, ["a", "b"]);
    assert_eq!(life.values("orders", Isolation::ReadCommitted).await, [""; 0]);

    life.end(ID, producer, Outcome::Commit).await.expect("prepared");
    assert_eq!(life.settled(ID).await, TxnStatus::CompleteCommit);
    assert_eq!(life.values("orders", Isolation::ReadCommitted).await, ["a", "b"]);
    assert_eq!(life.end(ID, producer, Outcome::Commit).await, Ok(()), "Flink's committer and writer both commit");
    assert_eq!(life.end(ID, producer, Outcome::Abort).await, Err(Refusal::State));

    life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("the next transaction");
    assert_eq!(life.produce(ID, producer, "orders", 2, "c").await, Ok(3), "after the marker");
    life.end(ID, producer, Outcome::Abort).await.expect("prepared");
    assert_eq!(life.settled(ID).await, TxnStatus::CompleteAbort);
    assert_eq!(life.values("orders", Isolation::ReadUncommitted).await, ["a", "b", "c"]);
    assert_eq!(life.values("orders", Isolation::ReadCommitted).await, ["a", "b"]);
    let offsets = life.partition("orders").offsets().expect("open");
    assert_eq!((offsets.last_stable.get(), offsets.high_watermark.get()), (5, 5));
}

/// A batch for a partition that the transaction does not hold is refused, and so is one of a producer that was fenced.
#[tokio::test(start_paused = true)]
async fn what_is_not_in_the_transaction_is_refused() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let old = life.init(ID).await.expect("a first producer");
    let refused = life.produce(ID, old, "orders", 0, "a").await.expect_err("the partition was never added");
    assert_eq!(refused, VerifyError::NotInTransaction.to_string());
    life.add(ID, old, "orders", PartitionIndex::ZERO).await.expect("added");
    let new = life.init_in_time(ID).await;
    assert_eq!((new.id, new.epoch > old.epoch), (old.id, true), "Flink probes by epochs of one producer id");
    let refused = life.produce(ID, old, "orders", 0, "a").await.expect_err("the producer is fenced");
    assert_eq!(refused, VerifyError::Refused(Refusal::Fenced).to_string());
    assert_eq!(life.end(ID, old, Outcome::Commit).await, Err(Refusal::Fenced));
    assert_eq!(life.values("orders", Isolation::ReadUncommitted).await, [""; 0]);
}

/// The broker dies when the decision to commit is durable and nobody was told: the next life tells everybody.
#[tokio::test(start_paused = true)]
async fn a_decision_without_markers_is_carried_out_after_a_crash() {
    let mut world = World::new();
    let life = world.start().await;
    for topic in ["orders", "bills"] {
        life.create_topic(topic).await;
    }
    let producer = life.init(ID).await.expect("a producer");
    let group = life.coordinators.find(CoordinatorKind::Group, "readers");
    life.coordinators.prepare(CoordinatorKind::Group).await.expect("the topic is created");
    life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.add(ID, producer, "bills", PartitionIndex::ZERO).await.expect("added");
    life.add(ID, producer, "__consumer_offsets", group).await.expect("added");
    life.produce(ID, producer, "orders", 0, "order").await.expect("produced");
    life.produce(ID, producer, "bills", 0, "bill").await.expect("produced");
    life.commit_in(ID, producer, "readers", "orders", 42).await.expect("staged");
    world.fail_points.arm(FailPoint::PreparedNotMarked, 0, || ());
    // The crash may come before or after the answer.
    let coordinators = std::sync::Arc::clone(&life.coordinators);
    let env = life.env.clone();
    let ending = env.timeout(Duration::from_secs(1), life.end(ID, producer, Outcome::Commit));
    let _answer = ending.await;
    assert_eq!(world.fail_points.crashed().await, FailPoint::PreparedNotMarked);
    assert_eq!(life.values("orders", Isolation::ReadCommitted).await, [""; 0], "no marker is written");
    drop(coordinators);
    world.crash(life).await;

    let life = world.start().await;
    let mut tries = 0;
    while life.values("orders", Isolation::ReadCommitted).await.is_empty() {
        life.env.sleep(Duration::from_millis(10)).await;
        tries += 1;
        assert!(tries < 1_000, "nobody asks for the transaction, and it ends all the same");
    }
    assert_eq!(life.settled(ID).await, TxnStatus::CompleteCommit);
    assert_eq!(life.values("orders", Isolation::ReadCommitted).await, ["order"]);
    assert_eq!(life.values("bills", Isolation::ReadCommitted).await, ["bill"]);
    assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(42)));
    assert_eq!(
        life.end(ID, producer, Outcome::Commit).await,
        Ok(()),
        "the client asks again, and learns that it is done"
    );
}

/// A transaction that was open when the broker died is aborted in time, although nobody ever asks for it again.
#[tokio::test(start_paused = true)]
async fn what_a_crash_left_open_is_aborted_in_time() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let producer = life.init(ID).await.expect("a producer");
    life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.produce(ID, producer, "orders", 0, "a").await.expect("produced");
    world.crash(life).await;
    let life = world.start().await;
    life.env.sleep(Duration::from_secs(59)).await;
    let offsets = life.partition("orders").offsets().expect("open");
    assert_eq!((offsets.last_stable.get(), offsets.high_watermark.get()), (0, 1), "it has its full time again");
    life.env.sleep(Duration::from_secs(3)).await;
    let offsets = life.partition("orders").offsets().expect("open");
    assert_eq!((offsets.last_stable.get(), offsets.high_watermark.get()), (2, 2));
}

/// A transaction whose client is gone is aborted when its time is up, and one whose topic is gone still ends.
#[tokio::test(start_paused = true)]
async fn time_and_deletion_end_transactions() {
    let mut world = World::new();
    let life = world.start().await;
    let topic = life.create_topic("orders").await;
    life.create_topic("bills").await;
    let producer = life.init(ID).await.expect("a producer");
    life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.add(ID, producer, "bills", PartitionIndex::ZERO).await.expect("added");
    life.produce(ID, producer, "bills", 0, "bill").await.expect("produced");
    let delete = forebay_metadata::Command::DeleteTopic { topic, now: life.env.now(), trash_ms: 1000 };
    life.metadata.submit(delete).await.expect("deleted");
    life.env.sleep(Duration::from_secs(61)).await;
    assert_eq!(life.settled(ID).await, TxnStatus::CompleteAbort);
    assert_eq!(life.values("bills", Isolation::ReadCommitted).await, [""; 0]);
    let offsets = life.partition("bills").offsets().expect("open");
    assert_eq!(offsets.last_stable, offsets.high_watermark);
    assert_eq!(life.end(ID, producer, Outcome::Commit).await, Err(Refusal::Fenced), "the time-out has fenced it");
}

/// A clock that jumps ahead of an id's expiration forgets none: time is acted on while the store's clock agrees.
#[tokio::test(start_paused = true)]
async fn an_id_does_not_expire_by_a_clock_that_jumped() {
    const JUMP: Duration = Duration::from_mins(20);
    let jump = i64::try_from(JUMP.as_millis()).expect("minutes");
    let mut world = World::new();
    world.config.txns.expiration_ms = jump / 2;
    let life = world.start().await;
    life.create_topic("orders").await;
    let producer = life.init(ID).await.expect("a producer");
    world.clock.jump(jump);
    assert_eq!(life.status(ID).await, Ok(TxnStatus::Empty));
    life.env.sleep(Duration::from_mins(2)).await;
    assert_eq!(life.status(ID).await, Ok(TxnStatus::Empty), "it was used two minutes ago");
    // What counts by a clock that does not jump goes on meanwhile.
    life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.env.sleep(Duration::from_secs(61)).await;
    assert_eq!(life.settled(ID).await, TxnStatus::CompleteAbort);
    // Idle for long enough by clocks that agree; the last record's time is ahead of them by the jump.
    world.clock.jump(-jump);
    life.env.sleep(JUMP).await;
    assert_eq!(life.status(ID).await, Ok(TxnStatus::CompleteAbort));
    life.env.sleep(JUMP).await;
    assert_eq!(life.status(ID).await, Err(Refusal::NotFound));
}

/// Ten thousand ids, most of them idle: a life that stopped in order opens them from a snapshot, one that crashed from
/// the log, and both know every one.
#[tokio::test(start_paused = true)]
async fn many_ids_open_from_a_snapshot_and_from_the_log() {
    const IDS: usize = 10_000;
    let mut world = World::new();
    let life = world.start().await;
    let id = |n: usize| format!("job-{n}");
    let mut first = Vec::new();
    for n in 0..IDS {
        first.push(life.init(&id(n)).await.expect("a producer"));
    }
    world.stop(life).await;

    let life = world.start().await;
    let listed = life.coordinators.list_transactions(List::default()).await.expect("all partitions open");
    assert_eq!(listed.transactions.len(), IDS);
    let read = life.bucket.meter().row(forebay_store::Operation::Read, forebay_store::Purpose::Snapshot);
    assert_eq!(read.requests, 4, "one snapshot for each partition, and nothing of the log behind it");
    for n in (0..IDS).step_by(100) {
        let again = life.init(&id(n)).await.expect("a producer");
        assert_eq!((again.id, again.epoch.get()), (first[n].id, 1));
    }
    world.crash(life).await;

    let life = world.start().await;
    let again = life.init(&id(100)).await.expect("a producer");
    assert_eq!((again.id, again.epoch.get()), (first[100].id, 2), "what came after the snapshot is in the log");
    let again = life.init(&id(101)).await.expect("a producer");
    assert_eq!((again.id, again.epoch.get()), (first[101].id, 1));
}
