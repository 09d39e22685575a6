//! A write-ahead log that stands still, or is taken up by others: nobody loses a session or a transaction for it (D10).

use std::time::Duration;

use bytes::Bytes;
use forebay_coordinator::host::CoordinatorKind;
use forebay_coordinator::machine::group::{GroupError, Joined};
use forebay_coordinator::machine::txn::{Outcome, Refusal, TxnStatus};
use forebay_log::Isolation;
use forebay_types::PartitionIndex;
use futures::FutureExt;

use crate::world::{Life, World};

/// Far above the sessions and the transaction time-outs here.
const STALL: Duration = Duration::from_mins(5);

/// Long enough for whatever waits for nothing.
const MOMENT: Duration = Duration::from_millis(10);

impl Life {
    /// Another name in the same partition.
    fn neighbour(&self, kind: CoordinatorKind, of: &str) -> String {
        let home = self.coordinators.find(kind, of);
        let mut names = (0..100).map(|n| format!("neighbour-{n}"));
        names.find(|name| self.coordinators.find(kind, name) == home).expect("one of 100")
    }

    /// A group of one.
    async fn member(&self) -> Joined {
        let refused = self.join("", 1).await.expect_err("a new member joins in two steps");
        self.join(&refused.member_id, 0).await.expect("in")
    }
}

/// The session of a member whose assignment waits for the disk begins when that is answered, and only then.
#[tokio::test(start_paused = true)]
async fn a_member_whose_answer_waits_keeps_its_session() {
    let mut world = World::new();
    let life = world.start().await;
    let joined = life.member().await;
    world.wal.stall(true);
    let assignments = vec![(joined.member_id.clone(), Bytes::from_static(b"all"))];
    let mut syncing = Box::pin(life.sync(&joined, assignments));
    assert!(life.env.timeout(STALL, &mut syncing).await.is_none(), "its record is not durable");
    world.wal.stall(false);
    assert_eq!(syncing.await.expect("assigned").assignment, "all");
    assert_eq!(life.heartbeat(&joined).await, Ok(()));
    life.env.sleep(Duration::from_secs(11)).await;
    assert_eq!(life.heartbeat(&joined).await, Err(GroupError::UnknownMemberId), "and by then time goes on");
}

/// A heartbeat rests on its group's generation only: what other groups commit beside it does not hold it up.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_does_not_wait_for_the_commits_of_others() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let joined = life.member().await;
    life.sync(&joined, vec![(joined.member_id.clone(), Bytes::new())]).await.expect("assigned");
    let neighbour = life.neighbour(CoordinatorKind::Group, "readers");
    world.wal.stall(true);
    let mut commit = Box::pin(life.commit(&neighbour, "orders", 5));
    assert!(life.env.timeout(MOMENT, &mut commit).await.is_none(), "not durable");
    assert_eq!(life.env.timeout(MOMENT, life.heartbeat(&joined)).await, Some(Ok(())));
    let mut fetch = Box::pin(life.fetch(&neighbour, "orders", false));
    assert!(life.env.timeout(STALL, &mut fetch).await.is_none(), "what is read rests on the commit");
    world.wal.stall(false);
    assert_eq!((commit.await, fetch.await), (Ok(()), Ok(Some(5))));
}

/// A transaction's time does not run out while what it wrote cannot be acknowledged.
#[tokio::test(start_paused = true)]
async fn a_transaction_outlives_a_stall() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let producer = life.init("app").await.expect("a producer");
    life.add("app", producer, "orders", PartitionIndex::ZERO).await.expect("added");
    world.wal.stall(true);
    let mut produce = Box::pin(life.produce("app", producer, "orders", 0, "a"));
    assert!(life.env.timeout(STALL, &mut produce).await.is_none());
    world.wal.stall(false);
    produce.await.expect("acknowledged in the end");
    assert_eq!(life.end("app", producer, Outcome::Commit).await, Ok(()));
    assert_eq!(life.settled("app").await, TxnStatus::CompleteCommit);
    assert_eq!(life.values("orders", Isolation::ReadCommitted).await, ["a"]);

    let producer = life.init("app").await.expect("a producer");
    life.add("app", producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.env.sleep(STALL).await;
    assert_eq!(life.end("app", producer, Outcome::Commit).await, Err(Refusal::Fenced), "idle is no stall");
}

/// The end of a transaction that stood in line before its time was up counts, though the line moved later.
#[tokio::test(start_paused = true)]
async fn an_end_that_was_in_line_comes_before_the_time_out() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let neighbour = life.neighbour(CoordinatorKind::Transaction, "app");
    let producer = life.init("app").await.expect("a producer");
    life.add("app", producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.produce("app", producer, "orders", 0, "a").await.expect("produced");
    // All that coordinators may have under way is taken, so their task waits for it with what it was asked first.
    let taken = life.owner.wal.admit_own(usize::MAX).await.expect("the WAL runs");
    let mut first = Box::pin(life.init(&neighbour));
    assert!(life.env.timeout(MOMENT, &mut first).await.is_none());
    let mut end = Box::pin(life.end("app", producer, Outcome::Commit));
    assert!(life.env.timeout(STALL, &mut end).await.is_none(), "in line");
    drop(taken);
    assert_eq!(end.await, Ok(()));
    first.await.expect("a producer");
    assert_eq!(life.settled("app").await, TxnStatus::CompleteCommit);
}

/// The same of a member: its heartbeat stood in line.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_was_in_line_comes_before_the_end_of_its_session() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let joined = life.member().await;
    life.sync(&joined, vec![(joined.member_id.clone(), Bytes::new())]).await.expect("assigned");
    let neighbour = life.neighbour(CoordinatorKind::Group, "readers");
    let taken = life.owner.wal.admit_own(usize::MAX).await.expect("the WAL runs");
    let mut commit = Box::pin(life.commit(&neighbour, "orders", 5));
    assert!(life.env.timeout(MOMENT, &mut commit).await.is_none(), "no room");
    let mut heartbeat = Box::pin(life.heartbeat(&joined));
    assert!(life.env.timeout(STALL, &mut heartbeat).await.is_none(), "in line");
    drop(taken);
    assert_eq!((commit.await, heartbeat.await), (Ok(()), Ok(())));
}

/// Clients that have filled all they may have under way do not keep coordinators from writing.
#[tokio::test(start_paused = true)]
async fn coordinators_do_not_stand_in_line_behind_clients() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let _taken = life.owner.wal.admit(usize::MAX).await.expect("the WAL runs");
    assert!(life.owner.wal.admit(1).now_or_never().is_none(), "clients wait");
    assert_eq!(life.env.timeout(MOMENT, life.commit("readers", "orders", 5)).await, Some(Ok(())));
}
