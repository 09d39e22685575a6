//! Log starts, pins, extents, and objects on their way out.

use std::collections::BTreeMap;

use forebay_format::ObjectName;
use forebay_types::{TopicPartition, WalSequence};

use crate::command::{AdvanceReason, Command, LogStart, Reply, SnapshotAt};
use crate::state::{BrokerLife, Holds, Key, PinId, PinKind};
use crate::testing::{World, at, broker, create_topic, data_object, leader_epoch, life, partition, time, topic};

pub(super) fn pin(holds: Holds, id: TopicPartition, from: i64, renewal_ms: i64, now: i64) -> Command {
    Command::CreatePin {
        kind: PinKind::Reader,
        holds,
        owner: "somebody".to_owned(),
        reason: "a test".to_owned(),
        scope: BTreeMap::from([(id, at(from))]),
        renewal_ms,
        now: time(now),
    }
}

fn advance(id: TopicPartition, to: i64, reason: AdvanceReason, now: i64) -> Command {
    Command::AdvanceLogStart {
        life: life(1, 1),
        partition: id,
        leader_epoch: leader_epoch(0),
        to: at(to),
        reason,
        now: time(now),
    }
}

fn drop_extents(id: TopicPartition, now: i64) -> Command {
    Command::DropExtents { partition: id, now: time(now) }
}

fn condemn(object: &str, now: i64) -> Command {
    Command::CondemnObject { object: object.to_owned(), size: 5, now: time(now) }
}

/// One partition with three objects of ten records each, all folded.
fn thirty() -> (World, TopicPartition) {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 1));
    let id = partition(topic(1), 0);
    world.open(life(1, 1), &[id]);
    for number in 0..3 {
        world.write(life(1, 1), number, &[(id, 10)]);
    }
    assert_eq!(world.done(Command::IndexUploads), Reply::Indexed { uploads: 3, remaining: 0 });
    (world, id)
}

#[test]
fn a_log_start_only_rises_and_may_pass_the_committed_end() {
    let (mut world, id) = thirty();
    let start = |reply: Reply| reply.into_log_start().log_start;
    assert_eq!(start(world.done_twice(advance(id, 12, AdvanceReason::Request, 0))), at(12));
    assert_eq!(start(world.done(advance(id, 5, AdvanceReason::Request, 0))), at(12));
    assert_eq!(start(world.done(advance(id, 45, AdvanceReason::Request, 0))), at(45), "records still in the WAL");
    world.write(life(1, 1), 3, &[(id, 20)]);
    assert_eq!(world.committed_end(id), 50);
}

#[test]
fn history_pins_stop_retention_and_refuse_requests() {
    let (mut world, id) = thirty();
    world.done_twice(pin(Holds::History, id, 12, 1_000, 0));
    let text = world.refused(advance(id, 20, AdvanceReason::Request, 999));
    assert_eq!(text, format!("pin 1 holds {id} from offset 12"));
    let stopped = world.done_twice(advance(id, 20, AdvanceReason::Retention, 999)).into_log_start();
    assert_eq!(stopped, LogStart { log_start: at(12), stopped_by: Some(PinId::FIRST) });
    let free = world.done(advance(id, 20, AdvanceReason::Retention, 1_000)).into_log_start();
    assert_eq!(free, LogStart { log_start: at(20), stopped_by: None });
    let text = world.refused(pin(Holds::History, id, 12, 1_000, 1_000));
    assert_eq!(text, format!("a pin of {id} from 12 lies below the log start 20"));
}

#[test]
fn a_takeover_gives_every_pin_a_full_period() {
    let (mut world, id) = thirty();
    world.done(pin(Holds::History, id, 0, 1_000, 0));
    world.done(Command::BeginTerm { cluster: crate::testing::cluster(), now: time(5_000) });
    assert!(world.refused(advance(id, 20, AdvanceReason::Request, 5_999)).starts_with("pin 1 holds"));
    world.done(Command::RenewPin { pin: PinId::FIRST, now: time(5_999) });
    assert!(world.refused(advance(id, 20, AdvanceReason::Request, 6_998)).starts_with("pin 1 holds"));
    world.done_twice(Command::ReleasePin { pin: PinId::FIRST });
    world.done(advance(id, 20, AdvanceReason::Request, 6_998));
}

#[test]
fn extents_below_the_log_start_go_and_their_objects_with_them() {
    let (mut world, id) = thirty();
    let (first, second) = (data_object(life(1, 1), 0), data_object(life(1, 1), 1));
    world.snapshot(life(1, 1), 0, id);
    assert_eq!(world.refused(condemn(&first, 7)), format!("object {first} is reached"));
    world.done(advance(id, 15, AdvanceReason::Retention, 0));
    assert_eq!(world.done(drop_extents(id, 0)), Reply::Dropped { extents: 1, more: false });
    assert_eq!(world.done(drop_extents(id, 0)), Reply::Dropped { extents: 0, more: false });
    assert_eq!(world.refused(condemn(&second, 7)), format!("object {second} is reached"));
    let forget = Command::ForgetObject { object: first.clone() };
    assert_eq!(world.refused(forget.clone()), format!("object {first} is not condemned"));
    assert_eq!(world.done(condemn(&first, 7)).into_condemned(), time(7));
    assert_eq!(world.done(condemn(&first, 9)).into_condemned(), time(7), "the grace runs from the first time");
    world.done_twice(forget);
    assert!(!world.rows.contains_key(&Key::Garbage(first)));
}

#[test]
fn pins_of_bytes_let_the_log_start_pass_and_keep_the_objects() {
    let (mut world, id) = thirty();
    world.snapshot(life(1, 1), 0, id);
    world.done(pin(Holds::Bytes, id, 12, 1_000, 0));
    world.done(advance(id, 30, AdvanceReason::Request, 0));
    assert_eq!(world.done(drop_extents(id, 999)), Reply::Dropped { extents: 1, more: false });
    assert_eq!(world.done(drop_extents(id, 1_000)), Reply::Dropped { extents: 2, more: false });
    assert!(world.tables.pins().is_empty(), "the expired pin in the way is gone");
}

#[test]
fn extents_that_producer_state_is_opened_from_wait_for_a_snapshot_above_them() {
    let (mut world, id) = thirty();
    world.done(advance(id, 30, AdvanceReason::Request, 0));
    assert_eq!(world.done(drop_extents(id, 0)), Reply::Dropped { extents: 0, more: false }, "it opens from offset 0");
    let put = |number, offset| Command::PutProducerSnapshot {
        life: life(1, 1),
        object: ObjectName::ProducerSnapshot { broker: broker(1), epoch: life(1, 1).epoch, number }.to_string(),
        size: 50,
        partitions: vec![SnapshotAt { partition: id, leader_epoch: leader_epoch(0), at: at(offset) }],
    };
    world.done(put(0, 20));
    assert_eq!(world.done(drop_extents(id, 0)), Reply::Dropped { extents: 2, more: false });
    assert_eq!(world.done(drop_extents(id, 0)), Reply::Dropped { extents: 0, more: false }, "it opens from offset 20");
    world.done(put(1, 30));
    assert_eq!(world.done(drop_extents(id, 0)), Reply::Dropped { extents: 1, more: false });
}

#[test]
fn an_orphan_is_condemned_only_when_its_epoch_is_closed_and_then_never_committed() {
    let (mut world, id) = thirty();
    let orphan = data_object(life(1, 1), 9);
    let text = world.refused(condemn(&orphan, 0));
    assert!(text.ends_with("cannot be proved to be an orphan: the broker epoch in its name is not closed"), "{text}");
    let late = World::upload(life(1, 1), 9, vec![world.next_range(id, 5)]);
    let me = BrokerLife { broker: broker(1), epoch: world.register(1, 2).epoch };
    world.done(Command::SealEpoch { life: life(1, 1), by: me });
    assert!(world.refused(condemn(&orphan, 0)).ends_with("the broker epoch in its name is not closed"));
    world.done(Command::CloseEpoch { life: life(1, 1), end: WalSequence::new(3), by: me });
    assert_eq!(world.done(condemn(&orphan, 4)).into_condemned(), time(4));
    assert_eq!(world.refused(Command::CommitUpload(late)), "the WAL of broker 1 in epoch 1 is closed at 3");
    for (sequence, why) in [(2, "lie past the end of its WAL"), (3, "lie past the end of its WAL")] {
        let (broker, epoch) = (me.broker, life(1, 1).epoch);
        let name = ObjectName::Wal { broker, epoch, sequence: WalSequence::new(sequence) }.to_string();
        assert!(world.refused(condemn(&name, 0)).ends_with(why), "a committed write and the fence stay");
    }
    assert!(world.refused(condemn("photo.jpg", 0)).ends_with("its name is not one that Forebay gives"));
}

#[test]
fn a_snapshot_replaces_an_older_one_whose_object_is_then_garbage() {
    let (mut world, id) = thirty();
    let object = |number| {
        let BrokerLife { broker, epoch } = life(1, 1);
        ObjectName::ProducerSnapshot { broker, epoch, number }.to_string()
    };
    let put = |number, offset| Command::PutProducerSnapshot {
        life: life(1, 1),
        object: object(number),
        size: 50,
        partitions: vec![SnapshotAt { partition: id, leader_epoch: leader_epoch(0), at: at(offset) }],
    };
    world.done_twice(put(0, 10));
    world.done_twice(put(1, 20));
    assert!(world.rows.contains_key(&Key::Garbage(object(0))));
    let text = world.refused(put(2, 15));
    assert_eq!(text, format!("a snapshot of {id} at 15 is older than the one at 20"));
    assert_eq!(world.refused(put(0, 30)), format!("object {} is condemned", object(0)));
    let opened = world.done(Command::OpenPartitions { life: life(1, 1), partitions: vec![id] }).into_opened();
    assert_eq!(opened[0].producer_snapshot.as_ref().map(|s| (s.object.clone(), s.at)), Some((object(1), at(20))));
}

#[test]
fn epochs_that_ended_below_the_log_start_are_forgotten() {
    let (mut world, id) = thirty();
    for (epoch, number) in [(2, 3), (3, 4)] {
        let me = BrokerLife { broker: broker(1), epoch: world.register(1, u128::from(epoch * 10)).epoch };
        let old = life(1, epoch - 1);
        world.done(Command::SealEpoch { life: old, by: me });
        world.done(Command::CloseEpoch { life: old, end: WalSequence::new(100), by: me });
        world.open(me, &[id]);
        world.write(me, number, &[(id, 10)]);
    }
    let epochs = |world: &World| -> Vec<(i32, i64)> {
        let partition = world.tables.partition(id).expect("known");
        partition.epochs.iter().map(|e| (e.epoch.get(), e.start.get())).collect()
    };
    assert_eq!(epochs(&world), [(0, 0), (1, 30), (2, 40)]);
    let raise = |to| Command::AdvanceLogStart {
        life: life(1, 3),
        partition: id,
        leader_epoch: leader_epoch(2),
        to: at(to),
        reason: AdvanceReason::Retention,
        now: time(0),
    };
    world.done(raise(29));
    assert_eq!(epochs(&world).len(), 3);
    world.done(raise(40));
    assert_eq!(epochs(&world), [(2, 40)]);
}

#[test]
fn an_upload_of_more_ranges_than_a_command_may_fold_is_folded_in_steps() {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 3_000));
    let all: Vec<TopicPartition> = (0..3_000).map(|index| partition(topic(1), index)).collect();
    world.open(life(1, 1), &all);
    world.write(life(1, 1), 0, &all.iter().map(|id| (*id, 1)).collect::<Vec<_>>());
    assert_eq!(world.done(Command::IndexUploads), Reply::Indexed { uploads: 0, remaining: 1 });
    assert_eq!(world.done(Command::IndexUploads), Reply::Indexed { uploads: 1, remaining: 0 });
    assert_eq!(world.rows.keys().filter(|key| matches!(key, Key::Extent(_))).count(), 3_000);
}

#[test]
fn an_object_is_no_garbage_while_some_of_its_upload_is_not_folded() {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 1));
    world.done(create_topic(topic(2), "b", 3_000));
    let mut all: Vec<TopicPartition> = (0..3_000).map(|index| partition(topic(2), index)).collect();
    let id = partition(topic(1), 0);
    all.insert(0, id);
    world.open(life(1, 1), &all);
    world.write(life(1, 1), 0, &all.iter().map(|id| (*id, 1)).collect::<Vec<_>>());
    // The big topic's ranges are folded to nothing, but not all of them in one step.
    world.done(Command::DeleteTopic { topic: topic(2), now: time(0), trash_ms: 0 });
    world.done(Command::PurgeTopic { topic: topic(2), now: time(0) });
    assert_eq!(world.done(Command::IndexUploads), Reply::Indexed { uploads: 0, remaining: 1 });
    world.done(advance(id, 1, AdvanceReason::Request, 0));
    world.snapshot(life(1, 1), 0, id);
    assert_eq!(world.done(drop_extents(id, 0)), Reply::Dropped { extents: 1, more: false });
    let object = data_object(life(1, 1), 0);
    assert!(world.refused(condemn(&object, 0)).ends_with("is reached"));
    assert_eq!(world.done(Command::IndexUploads), Reply::Indexed { uploads: 1, remaining: 0 });
    assert!(world.rows.contains_key(&Key::Garbage(object.clone())));
    world.done(condemn(&object, 0));
}
