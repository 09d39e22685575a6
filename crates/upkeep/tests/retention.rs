//! Records that are old, too many or deleted go for good, and only those: shown on the objects in the bucket, with
//! either kind of WAL, and a whole check after every step.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_metadata::Command;
use forebay_metadata::command::AdvanceReason;
use forebay_metadata::state::{Holds, PinId, PinKind};
use forebay_types::{Offset, TopicId};
use forebay_upkeep::{Round, start};
use forebay_wire::BatchBuilder;
use world::{KINDS, Kind, Life, PRODUCER_EXPIRATION_MS, World, first_partition};

/// The records of each extent that [`Life::write_extent`] makes.
const RECORDS: i64 = 10;

async fn minutes(life: &Life, count: u64) {
    life.env.sleep(Duration::from_mins(count)).await;
}

async fn no_complaints(world: &World) {
    assert_eq!(world.complaints().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn old_records_go_and_their_objects_after_the_grace() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let topic = life.create_topic("orders", &[("retention.ms", "600000")]).await;
        for _ in 0..3 {
            life.write_extent(topic).await;
        }
        minutes(&life, 11).await;
        life.write_extent(topic).await;
        let before = world.data_objects().await;

        let round = life.round().await;
        assert_eq!(round.retired, 1, "{kind:?}: one partition had old records");
        assert_eq!(life.log_start(topic), 3 * RECORDS, "{kind:?}: whole extents, from the oldest on");
        assert!(round.released >= 3 && round.condemned > 0 && round.deleted == 0, "{kind:?}: {round:?}");
        assert_eq!(world.data_objects().await, before, "{kind:?}: the grace runs");
        assert_eq!(
            life.round().await,
            Round { clocks_agree: true, ..Round::default() },
            "{kind:?}: nothing is left to do"
        );
        no_complaints(&world).await;

        life.rounds_past_the_grace().await;
        // By now the last ones are old too.
        assert_eq!(life.log_start(topic), 4 * RECORDS, "{kind:?}");
        life.rounds_past_the_grace().await;
        assert_eq!(world.data_objects().await, 0, "{kind:?}: all of it is gone from the bucket");
        no_complaints(&world).await;
        life.write_extent(topic).await;
        assert_eq!(life.read_all(topic).await, Ok(RECORDS), "{kind:?}: the log goes on");

        world.crash(life).await;
        let life = world.start().await;
        assert_eq!((life.log_start(topic), life.read_all(topic).await), (4 * RECORDS, Ok(RECORDS)), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_goes_and_a_change_of_the_limit_counts_at_once() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let topic = life.create_topic("orders", &[("retention.ms", "-1")]).await;
        for _ in 0..5 {
            life.write_extent(topic).await;
        }
        assert_eq!(life.round().await.retired, 0, "{kind:?}: kept for ever");
        let size = life.metadata.log_size(life.partition(topic).log()).bytes;
        let set = |bytes: u64| {
            let set = forebay_metadata::command::ConfigOp::Set(bytes.to_string());
            let change = forebay_metadata::command::ConfigChange::Incremental(vec![("retention.bytes".into(), set)]);
            Command::AlterTopicConfig { topic, change }
        };
        life.done(set(size)).await;
        life.owner.partitions.caught_up(&*life.metadata).await;
        assert_eq!(life.round().await.retired, 0, "{kind:?}: just as much as is kept");
        life.done(set(size / 2)).await;
        life.owner.partitions.caught_up(&*life.metadata).await;
        assert_eq!(life.round().await.retired, 1, "{kind:?}");
        let kept = 5 * RECORDS - life.log_start(topic);
        assert!((25..35).contains(&kept), "{kind:?}: at least half of the bytes stay, and not an extent more: {kept}");
        let before = world.data_objects().await;
        life.rounds_past_the_grace().await;
        assert!(world.data_objects().await < before, "{kind:?}: objects are gone");
        assert_eq!(life.read_all(topic).await, Ok(kept), "{kind:?}");
        no_complaints(&world).await;
    }
}

/// What a WAL lost has no time: it is as old as the object that says so, and no older.
#[tokio::test(start_paused = true)]
async fn lost_offsets_are_retired_as_what_was_found_with_them() {
    let mut world = World::new(Kind::Disk);
    let life = world.start().await;
    let topic = life.create_topic("orders", &[("retention.ms", "600000")]).await;
    for value in ["lost", "there"] {
        life.produce(topic, value, 100).await;
    }
    world.crash(life).await;
    let files = world.disk.files();
    let segment = files.iter().find(|path| path.starts_with(world::wal_folder())).expect("a segment");
    world.disk.flip_byte(segment, forebay_env::SECTOR_SIZE as u64 + 200).expect("within the first block");
    let mut life = world.start().await;
    assert_eq!(life.round().await.retired, 0);
    assert_eq!(life.log_start(topic), 0, "whoever reads from the beginning is told of the loss");
    minutes(&life, 11).await;
    life.rounds_past_the_grace().await;
    assert_eq!(life.log_start(topic), 2);
    assert_eq!(world.data_objects().await, 0, "also the object that said so is gone");
    no_complaints(&world).await;
}

#[tokio::test(start_paused = true)]
async fn compacted_and_internal_topics_are_left_to_others() {
    let mut world = World::new(Kind::Disk);
    let mut life = world.start().await;
    let compacted = life.create_topic("table", &[("retention.ms", "0"), ("cleanup.policy", "compact")]).await;
    let internal = life.create_topic("__consumer_offsets", &[("retention.ms", "0")]).await;
    let both = life.create_topic("both", &[("retention.ms", "0"), ("cleanup.policy", "compact,delete")]).await;
    for topic in [compacted, internal, both] {
        life.write_extent(topic).await;
    }
    life.round().await;
    let starts = [compacted, internal, both].map(|topic| life.log_start(topic));
    assert_eq!(starts, [0, 0, RECORDS]);
}

#[tokio::test(start_paused = true)]
async fn deleted_records_are_let_go_below_the_log_start_only() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let topic = life.create_topic("orders", &[]).await;
        for _ in 0..3 {
            life.write_extent(topic).await;
        }
        let partition = life.partition(topic);
        life.done(Command::AdvanceLogStart {
            life: life.me,
            partition: partition.id(),
            leader_epoch: partition.leader_epoch(),
            to: Offset::new(15).expect("an offset"),
            reason: AdvanceReason::Request,
            now: life.env.now(),
        })
        .await;
        drop(partition);
        life.rounds_past_the_grace().await;
        assert_eq!((life.log_start(topic), life.read_all(topic).await), (15, Ok(15)), "{kind:?}");
        let first = life.metadata.extents(life.partition(topic).log(), Offset::ZERO, 1).await.expect("answers");
        assert!(first[0].range.end().get() > 15 && first[0].range.start().get() >= 10, "{kind:?}: {first:?}");
        no_complaints(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_goes_after_its_window_and_comes_back_before() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let (kept, gone) = (life.create_topic("kept", &[]).await, life.create_topic("gone", &[]).await);
        for topic in [kept, gone] {
            life.write_extent(topic).await;
            life.delete_topic(topic, 4 * 60 * 60 * 1_000).await;
        }
        life.rounds_past_the_grace().await;
        let before = world.data_objects().await;
        life.done(Command::UndeleteTopic { topic: kept }).await;
        life.owner.partitions.caught_up(&*life.metadata).await;
        assert_eq!(life.read_all(kept).await, Ok(RECORDS), "{kind:?}: inside the window everything is there");

        minutes(&life, 4 * 60).await;
        assert_eq!(life.round().await.purged, 1, "{kind:?}");
        life.rounds_past_the_grace().await;
        let after = world.data_objects().await;
        assert!(after > 0 && after < before, "{kind:?}: {after} of {before} objects are left");
        assert_eq!(life.read_all(kept).await, Ok(RECORDS), "{kind:?}");
        assert_eq!(life.metadata.topics().trash().len(), 0, "{kind:?}");
        no_complaints(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_a_crash_cut_short_is_finished_by_the_next_life() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let life = world.start().await;
        let topic = life.create_topic("gone", &[]).await;
        life.write_extent(topic).await;
        life.delete_topic(topic, 0).await;
        life.done(Command::PurgeTopic { topic, now: life.env.now() }).await;
        world.crash(life).await;
        let mut life = world.start().await;
        assert!(world.data_objects().await > 0, "{kind:?}");
        life.rounds_past_the_grace().await;
        assert_eq!(world.data_objects().await, 0, "{kind:?}");
        no_complaints(&world).await;
    }
}

async fn pin(life: &Life, topic: TopicId, holds: Holds, from: i64) -> PinId {
    let scope = BTreeMap::from([(first_partition(topic), Offset::new(from).expect("an offset"))]);
    let (kind, owner, reason) = (PinKind::Checkpoint, "test".to_owned(), "a test".to_owned());
    let renewal_ms = 24 * 60 * 60 * 1_000;
    let create = Command::CreatePin { kind, holds, owner, reason, scope, renewal_ms, now: life.env.now() };
    life.done(create).await.into_pinned()
}

#[tokio::test(start_paused = true)]
async fn a_pin_holds_history_or_bytes_until_it_is_released() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let history = life.create_topic("history", &[("retention.ms", "600000")]).await;
        let bytes = life.create_topic("bytes", &[("retention.ms", "600000")]).await;
        for topic in [history, bytes] {
            for _ in 0..3 {
                life.write_extent(topic).await;
            }
        }
        let pins = [pin(&life, history, Holds::History, 12).await, pin(&life, bytes, Holds::Bytes, 12).await];
        minutes(&life, 11).await;
        life.rounds_past_the_grace().await;
        assert_eq!(life.log_start(history), 12, "{kind:?}: retention goes as far as the pin");
        assert_eq!(life.read_all(history).await, Ok(18), "{kind:?}: what is pinned can be read");
        assert_eq!(life.log_start(bytes), 30, "{kind:?}: a pin of bytes does not bind the log start");
        let first = life.metadata.extents(life.partition(bytes).log(), Offset::ZERO, 1).await.expect("answers");
        assert_eq!(
            first[0].range.start().get() / RECORDS,
            1,
            "{kind:?}: but the bytes from 12 on are there: {first:?}"
        );
        no_complaints(&world).await;
        for pin in pins {
            life.done(Command::ReleasePin { pin }).await;
        }
        life.rounds_past_the_grace().await;
        life.rounds_past_the_grace().await;
        assert_eq!((life.log_start(history), world.data_objects().await), (30, 0), "{kind:?}: released");
        no_complaints(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_clocks_differ_nothing_goes() {
    let mut world = World::new(Kind::Disk);
    let mut life = world.start().await;
    let topic = life.create_topic("orders", &[("retention.ms", "600000")]).await;
    life.write_extent(topic).await;
    let deleted = life.create_topic("deleted", &[]).await;
    life.write_extent(deleted).await;
    life.delete_topic(deleted, 0).await;
    // A clock that is a day ahead would retire everything.
    world.clock.jump(24 * 60 * 60 * 1_000);
    assert_eq!(life.round().await, Round::default());
    assert_eq!((life.log_start(topic), life.metadata.topics().trash().len()), (0, 1));
    world.clock.jump(-24 * 60 * 60 * 1_000 - 61_000);
    assert_eq!(life.round().await, Round::default(), "a clock that is behind is wrong too");
    world.clock.jump(60_000);
    let round = life.round().await;
    assert!(round.clocks_agree && round.retired == 0, "within a minute it counts: {round:?}");
}

#[tokio::test(start_paused = true)]
async fn idle_producers_are_forgotten_by_silence() {
    let mut world = World::new(Kind::Disk);
    let mut life = world.start().await;
    let topic = life.create_topic("orders", &[("retention.ms", "-1")]).await;
    let from = async |life: &Life, producer: i64| {
        let now = life.env.now().as_millis();
        let mut builder = BatchBuilder::new(now).producer(producer, 0, 0);
        builder.push(now, None, Some(b"v"), &[]);
        life.append(topic, builder).await;
    };
    from(&life, 1).await;
    minutes(&life, u64::try_from(PRODUCER_EXPIRATION_MS).expect("positive") / 60_000).await;
    from(&life, 2).await;
    let known = |life: &Life| -> Vec<i64> {
        let described = life.partition(topic).describe_producers().expect("open");
        described.iter().map(|producer| producer.id.get()).collect()
    };
    assert_eq!(known(&life), [1, 2]);
    life.round().await;
    assert_eq!(known(&life), [2]);
}

#[tokio::test(start_paused = true)]
async fn producers_outlive_their_records() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let topic = life.create_topic("orders", &[("retention.ms", "60000")]).await;
        let batch = |life: &Life| {
            let now = life.env.now().as_millis();
            let mut builder = BatchBuilder::new(now).producer(9, 0, 0);
            builder.push(now, None, Some(b"v"), &[]);
            builder
        };
        life.append(topic, batch(&life)).await;
        life.write_extent(topic).await;
        minutes(&life, 2).await;
        assert_eq!((life.round().await.retired, life.log_start(topic)), (1, 1 + RECORDS), "{kind:?}");
        life.rounds_past_the_grace().await;
        assert_eq!(world.data_objects().await, 0, "{kind:?}: their footers are gone with their objects");
        no_complaints(&world).await;

        world.crash(life).await;
        let life = world.start().await;
        life.append(topic, batch(&life)).await;
        let end = life.partition(topic).offsets().expect("open").high_watermark;
        assert_eq!(end.get(), 1 + RECORDS, "{kind:?}: the retry was recognised");
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_runs_rounds_by_itself_and_ends_with_the_epoch() {
    let mut world = World::new(Kind::Disk);
    let life = world.start().await;
    let topic = life.create_topic("orders", &[("retention.ms", "600000")]).await;
    life.write_extent(topic).await;
    let task = start(life.upkeep_parts());
    minutes(&life, 9).await;
    assert_eq!(life.log_start(topic), 0);
    minutes(&life, 70).await;
    assert_eq!((life.log_start(topic), world.data_objects().await), (RECORDS, 0), "retired, condemned and deleted");
    life.owner.drain().await.expect("drains");
    minutes(&life, 6).await;
    assert!(task.is_finished());
}
