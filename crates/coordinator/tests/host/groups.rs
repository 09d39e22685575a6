//! Members and offsets through the host: rebalances in time, staged offsets, topics that go.

use std::time::Duration;

use bytes::Bytes;
use forebay_coordinator::host::{CoordinatorError, CoordinatorKind, VerifyError};
use forebay_coordinator::machine::group::{
    Caller, GroupError, Heartbeat, Join, JoinRefused, Joined, Leave, Leaver, List, Reply, Request, Sync, Synced,
};
use forebay_coordinator::machine::txn::{Outcome, TxnStatus};
use forebay_log::Verification;
use forebay_metadata::Command;
use futures::future::join_all;

use crate::world::{Life, World};

impl Life {
    pub async fn join(&self, member_id: &str, random: u8) -> Result<Joined, JoinRefused> {
        let join = Join {
            group: "readers".to_owned(),
            member_id: member_id.to_owned(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::new())],
            version: 9,
            random: [random; 16],
        };
        match self.coordinators.group(Request::Join(join)).await.expect("a coordinator") {
            Reply::Join(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub async fn sync(&self, joined: &Joined, assignments: Vec<(String, Bytes)>) -> Result<Synced, GroupError> {
        let caller = caller(joined);
        let sync = Sync { group: "readers".to_owned(), caller, protocol_type: None, protocol: None, assignments };
        match self.coordinators.group(Request::Sync(sync)).await.expect("a coordinator") {
            Reply::Sync(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub async fn heartbeat(&self, joined: &Joined) -> Result<(), GroupError> {
        let heartbeat = Heartbeat { group: "readers".to_owned(), caller: caller(joined) };
        match self.coordinators.group(Request::Heartbeat(heartbeat)).await.expect("a coordinator") {
            Reply::Heartbeat(result) => result,
            other => panic!("{other:?}"),
        }
    }
}

fn caller(joined: &Joined) -> Caller {
    Caller { member_id: joined.member_id.clone(), instance_id: None, generation: joined.generation }
}

/// Two members share a group; one leaves, the other takes over; sessions end by time alone. Their generation is there
/// again after a crash.
#[tokio::test(start_paused = true)]
async fn members_share_lose_and_regain_a_group() {
    let mut world = World::new();
    let life = world.start().await;
    let id = |refused: Result<Joined, JoinRefused>| {
        let refused = refused.expect_err("a new member joins in two steps");
        assert_eq!(refused.error, GroupError::MemberIdRequired);
        refused.member_id
    };
    let (a, b) = (id(life.join("", 1).await), id(life.join("", 2).await));
    let (a, b) = tokio::join!(life.join(&a, 0), life.join(&b, 0));
    let (a, b) = (a.expect("in"), b.expect("in"));
    assert_eq!((a.generation, b.generation, a.leader == b.leader), (1, 1, true));
    let share = |joined: &Joined, text: &'static str| (joined.member_id.clone(), Bytes::from_static(text.as_bytes()));
    let shares = |joined: &Joined| {
        if joined.leader == joined.member_id { vec![share(&a, "for a"), share(&b, "for b")] } else { Vec::new() }
    };
    let (synced_a, synced_b) = tokio::join!(life.sync(&a, shares(&a)), life.sync(&b, shares(&b)));
    assert_eq!(synced_a.expect("assigned").assignment, "for a");
    assert_eq!(synced_b.expect("assigned").assignment, "for b");
    assert_eq!(life.heartbeat(&a).await, Ok(()));
    world.crash(life).await;

    let life = world.start().await;
    assert_eq!(life.heartbeat(&a).await, Ok(()), "the generation is in the log");
    let leaver = Leaver { member_id: b.member_id.clone(), instance_id: None };
    let leave = Request::Leave(Leave { group: "readers".to_owned(), members: vec![leaver] });
    assert!(matches!(life.coordinators.group(leave).await, Ok(Reply::Leave(Ok(_)))));
    assert_eq!(life.heartbeat(&a).await, Err(GroupError::RebalanceInProgress));
    let alone = life.join(&a.member_id, 0).await.expect("in");
    assert_eq!((alone.generation, alone.members.len()), (2, 1));
    life.sync(&alone, vec![share(&alone, "all")]).await.expect("assigned");
    life.env.sleep(Duration::from_secs(11)).await;
    assert_eq!(life.heartbeat(&alone).await, Err(GroupError::UnknownMemberId), "its session is over");
    let listed = life.coordinators.list_groups(List::default()).await.expect("all partitions open");
    assert_eq!(
        listed.iter().map(|group| (group.group.as_str(), group.state.name())).collect::<Vec<_>>(),
        [("readers", "Empty")]
    );
}

/// Offsets of a transaction are there when it has committed, and a reader that asks for stable ones is told to wait.
#[tokio::test(start_paused = true)]
async fn offsets_of_a_transaction_wait_for_its_end() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    life.commit("readers", "orders", 5).await.expect("committed");
    let producer = life.init("app").await.expect("a producer");
    let refused = life.commit_in("app", producer, "readers", "orders", 6).await;
    assert_eq!(refused, Err(VerifyError::NotInTransaction), "the group was not added");
    let index = life.coordinators.find(CoordinatorKind::Group, "readers");
    for (outcome, offset, after) in [(Outcome::Commit, 7, 7), (Outcome::Abort, 9, 7), (Outcome::Commit, 10, 10)] {
        life.add("app", producer, "__consumer_offsets", index).await.expect("added");
        life.commit_in("app", producer, "readers", "orders", offset).await.expect("staged");
        life.commit_in("app", producer, "readers", "orders", offset).await.expect("staged again");
        assert_eq!(life.fetch("readers", "orders", true).await, Err(GroupError::UnstableOffsetCommit));
        life.end("app", producer, outcome).await.expect("prepared");
        assert!(matches!(life.settled("app").await, TxnStatus::CompleteCommit | TxnStatus::CompleteAbort));
        assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(after)));
    }
    let own = life.own_partition(CoordinatorKind::Group, "readers").offsets().expect("open");
    assert_eq!(own.last_stable, own.high_watermark, "markers stand in the group's own partition too");
}

/// A commit that may be tried again leaves the guard to another one that holds it, and one that is refused takes it away.
#[tokio::test(start_paused = true)]
async fn a_guard_outlives_a_busy_coordinator() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    life.commit("readers", "orders", 5).await.expect("committed");
    let producer = life.init("app").await.expect("a producer");
    let own = life.own_partition(CoordinatorKind::Group, "readers");
    let guard = || match own.verification(producer.id, producer.epoch, -1) {
        Ok(Verification::Needed(guard)) => guard,
        other => panic!("{other:?}"),
    };
    let held = guard();
    // More than its queue holds is asked of the transaction's coordinator before it can answer anything.
    let asked = (producer.id, producer.epoch);
    let busy = join_all((0..1_100).map(|_| life.coordinators.verify("app", asked, own.id())));
    let commit = life.commit_in("app", producer, "readers", "orders", 6);
    let (_, told) = tokio::task::unconstrained(futures::future::join(busy, commit)).await;
    assert_eq!(told, Err(VerifyError::Coordinator(CoordinatorError::Unavailable)));
    assert_eq!(guard(), held, "nothing was decided about the transaction");
    let told = life.commit_in("app", producer, "readers", "orders", 6).await;
    assert_eq!(told, Err(VerifyError::NotInTransaction));
    assert_ne!(guard(), held, "the group was not added");
}

/// Staged offsets live through crash and stop, and end as their transaction does afterwards.
#[tokio::test(start_paused = true)]
async fn staged_offsets_outlive_their_broker() {
    for orderly in [false, true] {
        let mut world = World::new();
        let life = world.start().await;
        life.create_topic("orders").await;
        let producer = life.init("app").await.expect("a producer");
        let index = life.coordinators.find(CoordinatorKind::Group, "readers");
        life.coordinators.prepare(CoordinatorKind::Group).await.expect("created");
        life.add("app", producer, "__consumer_offsets", index).await.expect("added");
        life.commit_in("app", producer, "readers", "orders", 7).await.expect("staged");
        if orderly {
            world.stop(life).await;
        } else {
            world.crash(life).await;
        }
        let life = world.start().await;
        assert_eq!(life.fetch("readers", "orders", true).await, Err(GroupError::UnstableOffsetCommit));
        assert_eq!(life.fetch("readers", "orders", false).await, Ok(None));
        life.end("app", producer, Outcome::Commit).await.expect("prepared");
        life.settled("app").await;
        assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(7)), "orderly: {orderly}");
    }
}

/// Offsets go when their topic is gone for good, not while it can be brought back; also where nobody had opened the
/// group's partition then.
#[tokio::test(start_paused = true)]
async fn offsets_go_with_their_topic() {
    for open in [true, false] {
        let mut world = World::new();
        let life = world.start().await;
        let topic = life.create_topic("orders").await;
        life.commit("readers", "orders", 5).await.expect("committed");
        let now = life.env.now();
        life.metadata.submit(Command::DeleteTopic { topic, now, trash_ms: 1000 }).await.expect("deleted");
        assert_eq!(life.fetch("readers", "orders", false).await, Ok(Some(5)), "it may come back");
        let life = if open {
            life
        } else {
            world.crash(life).await;
            world.start().await
        };
        life.env.sleep(Duration::from_secs(2)).await;
        life.metadata.submit(Command::PurgeTopic { topic, now: life.env.now() }).await.expect("purged");
        if !open {
            assert_eq!(life.fetch("readers", "orders", false).await, Ok(None), "found out when it was opened");
        }
        let mut tries = 0;
        while life.fetch("readers", "orders", false).await != Ok(None) {
            life.env.sleep(Duration::from_millis(10)).await;
            tries += 1;
            assert!(tries < 100, "the offset stays");
        }
        let listed = life.coordinators.list_groups(List::default()).await.expect("open");
        assert!(listed.is_empty(), "nothing is left of the group: {listed:?}");
    }
}

/// A clock that jumps ahead of the retention drops no offsets: time is acted on while the store's clock agrees.
#[tokio::test(start_paused = true)]
async fn offsets_do_not_expire_by_a_clock_that_jumped() {
    const JUMP: Duration = Duration::from_mins(20);
    let jump = i64::try_from(JUMP.as_millis()).expect("minutes");
    let mut world = World::new();
    world.config.groups.offsets_retention = Some(JUMP / 2);
    world.config.groups.sweep_interval = Duration::from_secs(10);
    let life = world.start().await;
    life.create_topic("orders").await;
    life.commit("readers", "orders", 5).await.expect("committed");
    world.clock.jump(jump);
    life.env.sleep(Duration::from_mins(1)).await;
    assert_eq!(life.fetch("readers", "orders", false).await, Ok(Some(5)), "committed a minute ago");
    world.clock.jump(-jump);
    life.env.sleep(Duration::from_mins(1)).await;
    assert_eq!(life.fetch("readers", "orders", false).await, Ok(Some(5)));
    life.env.sleep(JUMP).await;
    assert_eq!(life.fetch("readers", "orders", false).await, Ok(None));
}

/// A sweep goes over all groups of a partition at once, however many there are.
#[tokio::test(start_paused = true)]
async fn a_sweep_reaches_every_group() {
    const EVERY: Duration = Duration::from_hours(1);
    let mut world = World::new();
    world.config.offsets_partitions = 1;
    world.config.groups.offsets_retention = Some(Duration::from_mins(1));
    world.config.groups.sweep_interval = EVERY;
    let life = world.start().await;
    life.create_topic("orders").await;
    for group in 0..1_500 {
        life.commit(&format!("readers-{group}"), "orders", 5).await.expect("committed");
    }
    let listed = || async { life.coordinators.list_groups(List::default()).await.expect("open").len() };
    assert_eq!(listed().await, 1_500);
    life.env.sleep(EVERY + Duration::from_secs(10)).await;
    assert_eq!(listed().await, 0);
}

/// More than a machine's queue holds is told to come back, and what was taken is answered.
#[tokio::test(start_paused = true)]
async fn an_overloaded_coordinator_refuses_what_it_cannot_hold() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    life.commit("readers", "orders", 0).await.expect("committed");
    let commits = (0..3_000).map(|offset| life.commit("readers", "orders", offset));
    let answers = join_all(commits).await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1_000..3_000).contains(&taken), "{taken} of 3000 were taken");
    assert!(answers.iter().all(|answer| matches!(answer, Ok(()) | Err(CoordinatorError::Unavailable))));
    let last = i64::try_from(taken - 1).expect("few");
    assert_eq!(life.fetch("readers", "orders", false).await, Ok(Some(last)), "those that came first");
}
