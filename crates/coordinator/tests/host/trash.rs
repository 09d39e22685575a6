//! Transactions in topics that are deleted and come back: their records have the fate that the transaction had, and
//! nobody waits for a topic that is in the trash.

use std::sync::Arc;
use std::time::Duration;

use forebay_coordinator::host::VerifyError;
use forebay_coordinator::machine::txn::{Outcome, TxnStatus};
use forebay_env::FailPoint;
use forebay_log::Isolation;
use forebay_metadata::Command;
use forebay_types::{PartitionIndex, TopicId};

use crate::world::{Life, World};

const ID: &str = "sink-0-1";
const HOUR_MS: i64 = 3_600_000;

impl Life {
    async fn delete(&self, topic: TopicId) {
        self.change(Command::DeleteTopic { topic, now: self.env.now(), trash_ms: HOUR_MS }).await;
    }

    async fn undelete(&self, topic: TopicId) {
        self.change(Command::UndeleteTopic { topic }).await;
    }

    async fn change(&self, command: Command) {
        self.metadata.submit(command).await.expect("taken");
        self.owner.partitions.caught_up(&*self.metadata).await;
    }

    /// The state after the last transaction, which must end soon.
    async fn settled_soon(&self) -> TxnStatus {
        let settled = self.env.timeout(Duration::from_secs(5), self.settled(ID)).await;
        settled.expect("no transaction waits for a topic that was deleted")
    }

    async fn committed(&self, topic: &str) -> Vec<String> {
        let offsets = self.partition(topic).offsets().expect("open");
        assert_eq!(offsets.last_stable, offsets.high_watermark, "no transaction is open in {topic}");
        self.values(topic, Isolation::ReadCommitted).await
    }
}

/// When the broker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Never,
    /// Between the deletion and the end of the transaction.
    BeforeTheEnd,
    /// When the decision is durable and no marker is written.
    Prepared,
    /// Between the end of the transaction and the topic's return.
    AfterTheEnd,
}

/// The transaction ends while the topic is in the trash. When it comes back the records are visible or hidden as the
/// transaction ended, also after a crash at any point, and the producer's next transaction is another one.
#[tokio::test(start_paused = true)]
async fn a_topic_that_comes_back_has_what_its_transaction_decided() {
    for outcome in [Outcome::Commit, Outcome::Abort] {
        for crash in [Crash::Never, Crash::BeforeTheEnd, Crash::Prepared, Crash::AfterTheEnd] {
            let (first, second): (&[&str], &[&str]) =
                if outcome == Outcome::Commit { (&["a"], &["a"]) } else { (&[], &["d"]) };
            let at = format!("{outcome:?}, crash {crash:?}");
            let mut world = World::new();
            let mut life = world.start().await;
            let orders = life.create_topic("orders").await;
            life.create_topic("bills").await;
            let producer = life.init(ID).await.expect("a producer");
            for (topic, value) in [("orders", "a"), ("bills", "b")] {
                life.add(ID, producer, topic, PartitionIndex::ZERO).await.expect("added");
                life.produce(ID, producer, topic, 0, value).await.expect("produced");
            }
            life.delete(orders).await;
            if crash == Crash::BeforeTheEnd {
                world.crash(life).await;
                life = world.start().await;
            }
            if crash == Crash::Prepared {
                world.fail_points.arm(FailPoint::PreparedNotMarked, 0, || ());
                let coordinators = Arc::clone(&life.coordinators);
                let env = life.env.clone();
                let _answer = env.timeout(Duration::from_secs(1), life.end(ID, producer, outcome)).await;
                assert_eq!(world.fail_points.crashed().await, FailPoint::PreparedNotMarked);
                drop(coordinators);
                world.crash(life).await;
                life = world.start().await;
            } else {
                life.end(ID, producer, outcome).await.expect("prepared");
            }
            let ended = if outcome == Outcome::Commit { TxnStatus::CompleteCommit } else { TxnStatus::CompleteAbort };
            assert_eq!(life.settled_soon().await, ended, "{at}");

            // The producer goes on while the topic is away.
            life.add(ID, producer, "bills", PartitionIndex::ZERO).await.expect("the next transaction");
            life.produce(ID, producer, "bills", 1, "c").await.expect("produced");
            life.end(ID, producer, Outcome::Commit).await.expect("prepared");
            assert_eq!(life.settled_soon().await, TxnStatus::CompleteCommit, "{at}");
            if crash == Crash::AfterTheEnd {
                world.crash(life).await;
                life = world.start().await;
            }
            life.undelete(orders).await;
            assert_eq!(life.committed("orders").await, first, "{at}");

            let other = if outcome == Outcome::Commit { Outcome::Abort } else { Outcome::Commit };
            life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("the next transaction");
            life.produce(ID, producer, "orders", 1, "d").await.expect("produced");
            life.end(ID, producer, other).await.expect("prepared");
            life.settled_soon().await;
            assert_eq!(life.committed("orders").await, second, "{at}: the next one shares nothing with it");
        }
    }
}

/// A topic that is away only for a while in the middle of a transaction is in it as before.
#[tokio::test(start_paused = true)]
async fn a_transaction_goes_on_when_its_topic_is_back_in_time() {
    for outcome in [Outcome::Commit, Outcome::Abort] {
        let mut world = World::new();
        let life = world.start().await;
        let orders = life.create_topic("orders").await;
        let producer = life.init(ID).await.expect("a producer");
        life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
        life.produce(ID, producer, "orders", 0, "a").await.expect("produced");
        life.delete(orders).await;
        life.undelete(orders).await;
        assert_eq!(life.values("orders", Isolation::ReadCommitted).await, [""; 0], "it is still open");
        life.produce(ID, producer, "orders", 1, "b").await.expect("produced");
        life.end(ID, producer, outcome).await.expect("prepared");
        life.settled_soon().await;
        let expected: &[&str] = if outcome == Outcome::Commit { &["a", "b"] } else { &[] };
        assert_eq!(life.committed("orders").await, expected);
    }
}

/// A topic of the same name is another topic: it gets no marker of what was written to the one before, and its records
/// are in the transaction only where it was added itself.
#[tokio::test(start_paused = true)]
async fn a_topic_created_again_has_no_part_in_the_transaction_of_the_one_before() {
    for added in [false, true] {
        for restart in [false, true] {
            let at = format!("added {added}, restart {restart}");
            let mut world = World::new();
            let mut life = world.start().await;
            let before = life.create_topic("orders").await;
            let producer = life.init(ID).await.expect("a producer");
            life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
            life.produce(ID, producer, "orders", 0, "a").await.expect("produced");
            life.delete(before).await;
            let after = life.create_topic("orders").await;
            let refused = life.produce(ID, producer, "orders", 1, "b").await.expect_err("it was not added");
            assert_eq!(refused, VerifyError::NotInTransaction.to_string(), "{at}");
            if added {
                life.add(ID, producer, "orders", PartitionIndex::ZERO).await.expect("added");
                life.produce(ID, producer, "orders", 1, "b").await.expect("produced");
            }
            if restart {
                world.crash(life).await;
                life = world.start().await;
            }
            life.end(ID, producer, Outcome::Commit).await.expect("prepared");
            assert_eq!(life.settled_soon().await, TxnStatus::CompleteCommit, "{at}");
            let expected: &[&str] = if added { &["b"] } else { &[] };
            assert_eq!(life.committed("orders").await, expected, "{at}");
            let end = life.partition("orders").offsets().expect("open").high_watermark.get();
            assert_eq!(end, if added { 2 } else { 0 }, "{at}: a marker only where there were records");

            life.delete(after).await;
            life.undelete(before).await;
            assert_eq!(life.committed("orders").await, ["a"], "{at}");
        }
    }
}

/// What is purged cannot come back: its transactions end without it.
#[tokio::test(start_paused = true)]
async fn a_transaction_ends_without_a_topic_that_is_gone_for_good() {
    let mut world = World::new();
    let life = world.start().await;
    let orders = life.create_topic("orders").await;
    life.create_topic("bills").await;
    let producer = life.init(ID).await.expect("a producer");
    for (topic, value) in [("orders", "a"), ("bills", "b")] {
        life.add(ID, producer, topic, PartitionIndex::ZERO).await.expect("added");
        life.produce(ID, producer, topic, 0, value).await.expect("produced");
    }
    life.change(Command::DeleteTopic { topic: orders, now: life.env.now(), trash_ms: 0 }).await;
    life.change(Command::PurgeTopic { topic: orders, now: life.env.now() }).await;
    life.end(ID, producer, Outcome::Commit).await.expect("prepared");
    assert_eq!(life.settled_soon().await, TxnStatus::CompleteCommit);
    assert_eq!(life.committed("bills").await, ["b"]);
}
