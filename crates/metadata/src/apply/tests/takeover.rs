//! Lives of brokers: registering, sealing, closing, and who may commit when.

use forebay_format::ObjectRange;
use forebay_types::WalSequence;

use crate::command::{Command, CommitUpload, Committed, Reply};
use crate::state::{BrokerLife, EpochStart, WalEpochState};
use crate::testing::{World, at, broker, create_topic, data_object, leader_epoch, life, partition, time, topic};

fn seal(old: BrokerLife, by: BrokerLife) -> Command {
    Command::SealEpoch { life: old, by }
}

fn close(old: BrokerLife, end: u64, by: BrokerLife) -> Command {
    Command::CloseEpoch { life: old, end: WalSequence::new(end), by }
}

/// A topic of one partition, owned by broker 1 in epoch 1, with ten records committed.
fn running() -> (World, forebay_types::TopicPartition) {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 1));
    let id = partition(topic(1), 0);
    world.open(life(1, 1), &[id]);
    world.write(life(1, 1), 0, &[(id, 10)]);
    (world, id)
}

#[test]
fn a_process_that_asks_twice_has_one_epoch_and_another_process_the_next() {
    let mut world = World::new();
    assert_eq!(world.register(1, 77).epoch, life(1, 1).epoch);
    let next = world.register(1, 78);
    assert_eq!(next.epoch, life(1, 2).epoch);
    assert_eq!(next.unclosed.iter().map(|u| u.life).collect::<Vec<_>>(), [life(1, 1)]);
    assert_eq!(world.register(2, 1).unclosed, []);
    let third = world.register(1, 79);
    let unclosed: Vec<BrokerLife> = third.unclosed.iter().map(|u| u.life).collect();
    assert_eq!(unclosed, [life(1, 1), life(1, 2)], "a start that failed leaves a life to seal");
}

#[test]
fn a_restart_seals_replays_closes_and_only_then_opens() {
    let (mut world, id) = running();
    let late = World::upload(life(1, 1), 1, vec![world.next_range(id, 5)]);
    let me = BrokerLife { broker: broker(1), epoch: world.register(1, 2).epoch };
    let open = Command::OpenPartitions { life: me, partitions: vec![id] };
    let text = world.refused(open.clone());
    assert_eq!(text, format!("partition {id} was written by broker 1 in epoch 1, whose WAL is not closed"));

    let sealed = world.done_twice(seal(life(1, 1), me)).into_sealed();
    assert_eq!(sealed.committed_through, Some(WalSequence::new(0)));
    let text = world.refused(Command::CommitUpload(late.clone()));
    assert_eq!(text, "the WAL of broker 1 in epoch 1 is sealed by broker 1 in epoch 2");

    let replayed = CommitUpload { sealer: Some(me), object: data_object(me, 0), ..late };
    assert_eq!(
        world.done(Command::CommitUpload(replayed.clone())).into_committed(),
        Committed::New { dropped: Vec::new() }
    );
    assert_eq!(world.done(Command::CommitUpload(replayed)).into_committed(), Committed::Already);
    let text = world.refused(close(life(1, 1), 1, me));
    assert_eq!(text, "the WAL of broker 1 in epoch 1 cannot end at 1: writes up to 1 are committed");
    world.done_twice(close(life(1, 1), 2, me));

    let opened = world.done_twice(open).into_opened();
    assert_eq!((opened[0].leader_epoch, opened[0].committed_end), (leader_epoch(1), at(15)));
    let epochs: Vec<EpochStart> =
        [(0, 0), (1, 15)].map(|(epoch, start)| EpochStart { epoch: leader_epoch(epoch), start: at(start) }).into();
    assert_eq!(opened[0].epochs, epochs);
}

#[test]
fn a_life_that_is_over_can_do_nothing() {
    let (mut world, id) = running();
    let advance = Command::AdvanceLogStart {
        life: life(1, 1),
        partition: id,
        leader_epoch: leader_epoch(0),
        to: at(1),
        reason: crate::command::AdvanceReason::Request,
        now: time(0),
    };
    let me = BrokerLife { broker: broker(1), epoch: world.register(1, 2).epoch };
    let over = "broker 1 in epoch 1 is over, the current epoch is 2";
    assert_eq!(world.refused(advance), over);
    assert_eq!(world.refused(Command::OpenPartitions { life: life(1, 1), partitions: vec![id] }), over);
    assert_eq!(world.refused(Command::AllocateProducerIds { life: life(1, 1) }), over);
    assert_eq!(world.refused(seal(me, life(1, 1))), over);
    assert_eq!(world.refused(close(life(1, 1), 5, me)), "the WAL of broker 1 in epoch 1 is not sealed");
    assert_eq!(world.refused(seal(me, me)), "broker 1 in epoch 2 cannot seal its own WAL");
}

#[test]
fn a_life_that_another_broker_sealed_can_do_nothing_though_it_is_its_brokers_latest() {
    let (mut world, id) = running();
    world.register(2, 1);
    world.done(seal(life(1, 1), life(2, 1)));
    let sealed = "the WAL of broker 1 in epoch 1 is sealed by broker 2 in epoch 1";
    assert_eq!(world.refused(Command::OpenPartitions { life: life(1, 1), partitions: vec![id] }), sealed);
    assert_eq!(world.refused(Command::AllocateProducerIds { life: life(1, 1) }), sealed);
    assert_eq!(world.refused(seal(life(2, 1), life(1, 1))), sealed);
    let upload = World::upload(life(1, 1), 1, vec![world.next_range(id, 5)]);
    assert_eq!(world.refused(Command::CommitUpload(upload)), sealed);
}

#[test]
fn a_sealer_that_died_is_followed_by_another() {
    let (mut world, _) = running();
    let second = BrokerLife { broker: broker(1), epoch: world.register(1, 2).epoch };
    world.done(seal(life(1, 1), second));
    let third = BrokerLife { broker: broker(1), epoch: world.register(1, 3).epoch };
    let sealed = world.done(seal(life(1, 1), third)).into_sealed();
    assert_eq!(sealed.state, WalEpochState::Sealed { by: third });
    let text = world.refused(close(life(1, 1), 1, second));
    assert_eq!(text, "the WAL of broker 1 in epoch 1 is sealed by broker 1 in epoch 3");
    world.done(close(life(1, 1), 1, third));
    let again = world.done(seal(life(1, 1), third)).into_sealed();
    assert_eq!(again.state, WalEpochState::Closed { end: WalSequence::new(1) });
}

#[test]
fn a_commit_that_does_not_begin_at_the_end_changes_nothing() {
    let (mut world, id) = running();
    let first = World::upload(life(1, 1), 1, vec![world.next_range(id, 5)]);
    let skipped = {
        let mut ahead = world.clone();
        ahead.done(Command::CommitUpload(first.clone()));
        World::upload(life(1, 1), 2, vec![ahead.next_range(id, 5)])
    };
    let text = world.refused(Command::CommitUpload(skipped));
    assert_eq!(text, format!("an upload for {id} (log 0) begins at 15, the committed end is 10"));
    world.done(Command::CommitUpload(first.clone()));
    let before = world.rows.clone();
    assert_eq!(world.done(Command::CommitUpload(first.clone())), Reply::Committed(Committed::Already));
    assert_eq!(world.rows, before);
    world.done(Command::IndexUploads);
    assert_eq!(world.done(Command::CommitUpload(first)), Reply::Committed(Committed::Already), "also when folded");
}

/// Offsets that were lost with a WAL write are committed as a range without bytes or time. Where there are more than one
/// object names, the first ones do not say that the write is in the bucket: a sealer that dies between finds it again.
#[test]
fn lost_offsets_are_committed_before_the_write_that_lost_them_counts_as_done() {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 2));
    let (one, two) = (partition(topic(1), 0), partition(topic(1), 1));
    world.open(life(1, 1), &[one, two]);
    let me = BrokerLife { broker: broker(1), epoch: world.register(1, 2).epoch };
    world.done(seal(life(1, 1), me));
    let lost = |world: &World, id, number, through: Option<u64>| {
        let range = ObjectRange { bytes: 0, max_timestamp: time(-1), ..world.next_range(id, 1 << 31) };
        let upload = World::upload(life(1, 1), 0, vec![range]);
        let (object, through) = (data_object(me, number), through.map(WalSequence::new));
        Command::CommitUpload(CommitUpload { sealer: Some(me), object, through, ..upload })
    };
    let first = lost(&world, one, 0, None);
    assert_eq!(world.done(first.clone()).into_committed(), Committed::New { dropped: Vec::new() });
    assert_eq!(world.done(first).into_committed(), Committed::Already);
    assert_eq!(world.tables.committed_through(life(1, 1)), None, "write 0 is still to be done");
    let last = lost(&world, two, 1, Some(0));
    world.done(last);
    assert_eq!(world.tables.committed_through(life(1, 1)), Some(WalSequence::new(0)));
    let back = lost(&world, two, 2, None);
    let text = world.refused(back);
    assert_eq!(text, "an upload of broker 1 in epoch 1 does not reach WAL write 0, which is committed already");
    assert_eq!((world.committed_end(one), world.committed_end(two)), (1 << 31, 1 << 31));
    world.done(Command::IndexUploads);
    assert_eq!(world.tables.committed_through(life(1, 1)), Some(WalSequence::new(0)), "also when folded");
    world.done(close(life(1, 1), 1, me));
    let opened = world.done(Command::OpenPartitions { life: me, partitions: vec![one] }).into_opened();
    assert_eq!((opened[0].committed_end, opened[0].epoch_start), (at(1 << 31), at(1 << 31)));
}

#[test]
fn an_upload_must_be_its_writers_own_and_name_each_log_once() {
    let (mut world, id) = running();
    let good = World::upload(life(1, 1), 1, vec![world.next_range(id, 5)]);
    let foreign = CommitUpload { object: data_object(life(2, 9), 1), ..good.clone() };
    assert!(world.refused(Command::CommitUpload(foreign)).ends_with("is not of a kind that this command may name"));
    let twice = CommitUpload { ranges: vec![good.ranges[0], good.ranges[0]], ..good.clone() };
    assert_eq!(world.refused(Command::CommitUpload(twice)), format!("an upload names log 0 of {id} twice"));
    let mut old = good.clone();
    old.ranges[0].leader_epoch = leader_epoch(7);
    let text = world.refused(Command::CommitUpload(old));
    assert_eq!(text, format!("broker 1 in epoch 1 does not own partition {id} in leader epoch 7"));
}

#[test]
fn a_range_whose_log_is_gone_is_left_out_and_the_wal_goes_on() {
    let (mut world, id) = running();
    world.done(create_topic(topic(2), "b", 1));
    let other = partition(topic(2), 0);
    world.open(life(1, 1), &[other]);
    let both = World::upload(life(1, 1), 1, vec![world.next_range(id, 5), world.next_range(other, 5)]);
    let lone = World::upload(life(1, 1), 2, vec![both.ranges[0]]);
    world.done(Command::DeleteTopic { topic: topic(1), now: time(0), trash_ms: 0 });
    world.done(Command::PurgeTopic { topic: topic(1), now: time(0) });
    let reply = world.done(Command::CommitUpload(both)).into_committed();
    assert_eq!(reply, Committed::New { dropped: vec![id] });
    assert_eq!(world.committed_end(other), 5);
    world.done(Command::CommitUpload(lone.clone()));
    assert_eq!(world.tables.committed_through(life(1, 1)), Some(WalSequence::new(2)));
    assert_eq!(world.done(Command::CommitUpload(lone)).into_committed(), Committed::Already);
}

#[test]
fn producer_ids_come_in_blocks_that_never_meet() {
    let mut world = World::new();
    world.register(1, 1);
    world.register(2, 1);
    let mut take = |life| world.done(Command::AllocateProducerIds { life }).into_producer_ids().get();
    assert_eq!([take(life(1, 1)), take(life(2, 1)), take(life(1, 1))], [0, 1_000, 2_000]);
}
