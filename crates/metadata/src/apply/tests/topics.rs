//! Topics and their names, and the way through the trash.

use std::collections::BTreeMap;

use forebay_types::WalSequence;

use crate::command::{Command, ConfigChange, ConfigOp, PARTITIONS_PER_TOPIC_MAX, Reply};
use crate::state::{BrokerLife, Key, TopicState};
use crate::testing::{World, at, broker, create_topic, leader_epoch, life, partition, time, topic};

fn delete(id: u128, now: i64, trash_ms: i64) -> Command {
    Command::DeleteTopic { topic: topic(id), now: time(now), trash_ms }
}

fn purge(id: u128, now: i64) -> Command {
    Command::PurgeTopic { topic: topic(id), now: time(now) }
}

#[test]
fn a_name_is_taken_once_also_where_only_dots_and_underscores_differ() {
    let mut world = World::new();
    world.done(create_topic(topic(1), "a.b", 1));
    assert_eq!(world.refused(create_topic(topic(2), "a.b", 1)), "topic a.b exists");
    let collision = "topic a_b collides with a.b: '.' and '_' count as the same in names";
    assert_eq!(world.refused(create_topic(topic(2), "a_b", 1)), collision);
    assert!(world.refused(create_topic(topic(1), "c", 1)).ends_with("is in use"));
}

#[test]
fn a_topic_has_between_one_and_the_limit_of_partitions_and_only_grows() {
    let mut world = World::new();
    for count in [0, -1, PARTITIONS_PER_TOPIC_MAX + 1] {
        let text = world.refused(create_topic(topic(1), "a", count));
        assert_eq!(text, format!("{count} partitions: a topic has 1 to 4000"));
    }
    world.done(create_topic(topic(1), "a", PARTITIONS_PER_TOPIC_MAX));
    world.done(create_topic(topic(2), "b", 2));
    let grow = |partitions| Command::CreatePartitions { topic: topic(2), partitions };
    assert!(world.refused(grow(2)).ends_with("has 2 partitions, 2 are not more"));
    world.done(grow(3));
    let logs: Vec<u64> = world.tables.partitions(topic(2)).map(|(_, p)| p.log.get()).collect();
    assert_eq!(logs, [4_000, 4_001, 4_002], "every partition has a log of its own");
}

#[test]
fn a_wrong_configuration_is_refused_and_a_right_one_is_kept() {
    let mut world = World::new();
    world.done(create_topic(topic(1), "a", 1));
    let set = |name: &str, value: &str| {
        let ops = vec![(name.to_owned(), ConfigOp::Set(value.to_owned()))];
        Command::AlterTopicConfig { topic: topic(1), change: ConfigChange::Incremental(ops) }
    };
    assert_eq!(
        world.refused(set("retention.mss", "1")),
        "unknown topic config retention.mss; did you mean retention.ms?"
    );
    let reply = world.done_twice(set("retention.ms", "1"));
    assert_eq!(reply.into_config(), BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]));
}

#[test]
fn a_deleted_topics_name_is_free_and_the_topic_comes_back_while_it_still_is() {
    let mut world = World::new();
    world.done(create_topic(topic(1), "a", 2));
    let deleted = world.done_twice(delete(1, 100, 50)).into_topic_deleted();
    assert_eq!(deleted.purge_at, time(150));
    assert!(matches!(world.tables.topic(topic(1)).expect("kept").state, TopicState::Trash { .. }));
    world.done(create_topic(topic(2), "a", 1));
    assert_eq!(world.refused(Command::UndeleteTopic { topic: topic(1) }), "topic a exists");
    world.done(delete(2, 100, 50));
    world.done_twice(Command::UndeleteTopic { topic: topic(1) });
    assert_eq!(world.tables.live_topic_like(&crate::testing::name("a")).expect("live").0, topic(1));
    assert_eq!(world.tables.pins().len(), 1, "only the other's trash is pinned");
}

#[test]
fn a_topic_in_the_trash_has_an_owner_until_it_is_purged() {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 1));
    let id = partition(topic(1), 0);
    world.open(life(1, 1), &[id]);
    world.done(delete(1, 0, 0));
    let me = BrokerLife { broker: broker(1), epoch: world.register(1, 2).epoch };
    world.done(Command::SealEpoch { life: life(1, 1), by: me });
    world.done(Command::CloseEpoch { life: life(1, 1), end: WalSequence::ZERO, by: me });
    world.open(me, &[id]);
    assert_eq!(world.tables.partition(id).expect("kept").leader_epoch(), Some(leader_epoch(1)));
    world.write(me, 0, &[(id, 1)]);
    world.done(purge(1, 0));
    let open = Command::OpenPartitions { life: me, partitions: vec![id] };
    assert_eq!(world.refused(open), format!("no partition {id}"));
}

#[test]
fn the_trash_window_pins_and_a_takeover_prolongs_it() {
    let mut world = World::new();
    world.done(create_topic(topic(1), "a", 1));
    world.done(delete(1, 100, 1_000));
    assert!(world.refused(purge(1, 1_099)).ends_with("stays in the trash until 1100"));
    world.done(Command::BeginTerm { cluster: crate::testing::cluster(), now: time(1_050) });
    assert!(world.refused(purge(1, 2_049)).ends_with("stays in the trash until 2050"));
    world.done_twice(purge(1, 2_050));
    assert!(world.refused(Command::UndeleteTopic { topic: topic(1) }).ends_with("is not in the trash"));
}

#[test]
fn a_purged_topic_goes_step_by_step_and_leaves_garbage_and_nothing_else() {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 2));
    let parts = [partition(topic(1), 0), partition(topic(1), 1)];
    world.open(life(1, 1), &parts);
    world.write(life(1, 1), 0, &[(parts[0], 5), (parts[1], 5)]);
    world.done(Command::IndexUploads);
    world.write(life(1, 1), 1, &[(parts[0], 5)]);
    world.done(delete(1, 0, 0));
    world.done(purge(1, 0));
    for id in parts {
        let reply = world.done(Command::DropExtents { partition: id, now: time(0) });
        assert_eq!(reply, Reply::Dropped { extents: 1, more: false });
    }
    assert!(world.tables.topic(topic(1)).is_none());
    // The second upload was not yet folded: its range has nowhere to go.
    world.done(Command::IndexUploads);
    let left: Vec<&Key> = world.rows.keys().filter(|key| key.is_cold()).collect();
    assert!(left.iter().all(|key| matches!(key, Key::Garbage(_))), "{left:?}");
    assert_eq!(left.len(), 2);
}

#[test]
fn a_topic_whose_history_is_held_is_not_deleted() {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 1));
    let id = partition(topic(1), 0);
    world.open(life(1, 1), &[id]);
    let pin = super::retention::pin(crate::state::Holds::History, id, 3, 100, 0);
    let pin = world.done_twice(pin).into_pinned();
    assert_eq!(world.refused(delete(1, 99, 50)), format!("pin 1 holds {id} from offset 3"));
    world.done(delete(1, 100, 50));
    assert!(world.tables.pin(pin).is_none(), "an expired pin in the way is gone");
    let advance = Command::AdvanceLogStart {
        life: life(1, 1),
        partition: id,
        leader_epoch: leader_epoch(0),
        to: at(1),
        reason: crate::command::AdvanceReason::Retention,
        now: time(100),
    };
    assert_eq!(world.refused(advance), format!("no partition {id}"), "nothing is retained away in the trash");
}
