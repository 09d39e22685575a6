//! The life of a log: what was acknowledged is read back, from memory, from the bucket and after every crash, with
//! either kind of WAL.

mod world;

use std::sync::Arc;
use std::time::Duration;

use forebay_format::{MarkerKind, PrepareRef};
use forebay_log::{Appended, Isolation, LogError, Partition, ProducerError, Verification, prepared_marker};
use forebay_metadata::command::AdvanceReason;
use forebay_metadata::{Command, Reply};
use forebay_types::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicPartition};
use world::{Kind, Life, World, batch, read_all};

const KINDS: [Kind; 2] = [Kind::Disk, Kind::Object];

fn numbered(range: std::ops::Range<i64>) -> Vec<(i64, String)> {
    range.map(|n| (n, format!("value {n}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_read_back_after_every_crash() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let mut next = 0;
        for round in 0..5 {
            let partition = life.partition(topic);
            for _ in 0..40 {
                let value = format!("value {next}");
                let appended = life.produce(&partition, batch(None, false, &[&value])).await.expect("taken");
                assert_eq!(appended.base_offset.get(), next, "{kind:?}: offsets are dense");
                next += 1;
            }
            assert_eq!(
                read_all(&partition, 0, Isolation::ReadUncommitted).await,
                numbered(0..next),
                "{kind:?}, round {round}"
            );
            let before = partition.leader_epoch();
            drop(partition);
            world.crash(life).await;
            life = world.start().await;
            let partition = life.partition(topic);
            assert!(partition.leader_epoch() > before, "{kind:?}: a restart is a takeover");
            assert_eq!(
                read_all(&partition, 0, Isolation::ReadCommitted).await,
                numbered(0..next),
                "{kind:?}, after crash {round}"
            );
            assert_eq!(read_all(&partition, next - 3, Isolation::ReadUncommitted).await, numbered(next - 3..next));
            let end = partition.end_offset_for_epoch(before).expect("open").expect("known");
            assert_eq!(end, (before, Offset::new(next).expect("an offset")), "{kind:?}: where the epoch before ended");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_let_memory_and_wal_go_and_lose_nothing() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let partition = life.partition(topic);
        let filler = "x".repeat(3_000);
        // More than the WAL of 8 MiB has room for at once.
        for n in 0..4_000 {
            let value = format!("{n} {filler}");
            life.produce(&partition, batch(None, false, &[&value])).await.expect("taken");
        }
        let end = partition.offsets().expect("open").high_watermark;
        assert_eq!(end.get(), 4_000);
        assert!(partition.committed_end().get() > 3_000, "{kind:?}: most is in the bucket");
        assert!(life.owner.pending_bytes() < 1 << 20, "{kind:?}: little is in memory only");
        let all = read_all(&partition, 0, Isolation::ReadUncommitted).await;
        assert_eq!(all.len(), 4_000);
        assert!(all.iter().enumerate().all(|(n, (offset, value))| {
            *offset == i64::try_from(n).expect("small") && value.starts_with(&format!("{n} "))
        }));
        life.owner.drain().await.expect("drains");
        world.crash(life).await;
        let life = world.start().await;
        assert_eq!(life.recovered.batches, 0, "{kind:?}: after a drain nothing is left to recover");
        assert_eq!(life.partition(topic).offsets().expect("open").high_watermark, end);
    }
}

#[tokio::test(start_paused = true)]
async fn duplicates_are_known_after_a_crash() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let mut sequence = 0;
        for round in 0..3 {
            let partition = life.partition(topic);
            for _ in 0..7 {
                life.produce(&partition, batch(Some((9, 0, sequence)), false, &["a", "b"]))
                    .await
                    .expect("next in order");
                sequence += 2;
            }
            if round == 1 {
                life.owner.drain().await.expect("drains, with a snapshot");
            }
            drop(partition);
            world.crash(life).await;
            life = world.start().await;
            let partition = life.partition(topic);
            let end = partition.offsets().expect("open").high_watermark;
            for back in 1..=5 {
                let repeated =
                    life.produce(&partition, batch(Some((9, 0, sequence - 2 * back)), false, &["a", "b"])).await;
                let repeated = repeated.expect("recognised");
                let at = (repeated.duplicate, repeated.base_offset.get());
                assert_eq!(at, (true, i64::from(sequence - 2 * back)), "{kind:?}, round {round}, {back} back");
            }
            let gap = life.produce(&partition, batch(Some((9, 0, sequence + 1)), false, &["c"])).await;
            assert!(matches!(gap, Err(LogError::Producer(ProducerError::OutOfOrderSequence { .. }))), "{gap:?}");
            assert_eq!(partition.offsets().expect("open").high_watermark, end, "nothing was appended");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_of_old_records_keeps_its_window_while_it_is_at_work_and_a_period_beyond() {
    const SECOND: Duration = Duration::from_secs(1);
    const NEARLY: Duration = Duration::from_secs(599);
    const PERIOD: Duration = Duration::from_mins(10);
    for kind in KINDS {
        let mut world = World::new(kind);
        let life = world.start().await;
        let topic = life.create_topic("departures", 1).await;
        let partition = life.partition(topic);
        // The records say 1970.
        let first = || batch(Some((9, 0, 0)), false, &["old"]);
        life.produce(&partition, first()).await.expect("taken");
        life.env.sleep(PERIOD / 2).await;
        partition.expire_producers(PERIOD);
        let again = life.produce(&partition, first()).await.expect("recognised");
        assert!(again.duplicate, "{kind:?}: it was heard of half a period ago");
        drop(partition);

        world.crash(life).await;
        let life = world.start().await;
        let partition = life.partition(topic);
        life.env.sleep(NEARLY).await;
        partition.expire_producers(PERIOD);
        assert!(life.produce(&partition, first()).await.expect("recognised").duplicate, "{kind:?}: a full period anew");
        life.env.sleep(SECOND).await;
        partition.expire_producers(PERIOD);
        assert_eq!(partition.describe_producers().expect("open"), [], "{kind:?}: a retry is not an append");
        assert!(!life.produce(&partition, first()).await.expect("taken").duplicate, "{kind:?}: nobody knows it");
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_are_hidden_or_seen_as_they_ended_also_after_a_crash() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let mut life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let mut sequence = 0;
        let mut expected = Vec::new();
        for round in 0..6_i64 {
            let partition = life.partition(topic);
            let first = life.produce(&partition, batch(Some((5, 0, sequence)), true, &["one"])).await.expect("taken");
            life.produce(&partition, batch(None, false, &["plain"])).await.expect("taken");
            assert_eq!(
                partition.offsets().expect("open").last_stable,
                first.base_offset,
                "{kind:?}: an open transaction holds the stable offset"
            );
            drop(partition);
            // The transaction spans the crash.
            world.crash(life).await;
            life = world.start().await;
            let partition = life.partition(topic);
            assert_eq!(
                partition.offsets().expect("open").last_stable,
                first.base_offset,
                "{kind:?}: also after a crash"
            );
            let second =
                life.produce(&partition, batch(Some((5, 0, sequence + 1)), true, &["two"])).await.expect("goes on");
            sequence += 2;
            let kind_of = if round % 2 == 0 { MarkerKind::Commit } else { MarkerKind::Abort };
            for _ in 0..2 {
                mark(&life, &partition, (5, 0), kind_of, round).await;
            }
            let offsets = partition.offsets().expect("open");
            assert_eq!(offsets.last_stable, offsets.high_watermark);
            assert_eq!(
                offsets.high_watermark.get(),
                second.base_offset.get() + 2,
                "{kind:?}: one marker, asked for twice"
            );
            let at = first.base_offset.get();
            if round % 2 == 0 {
                expected.push((at, "one".to_owned()));
            }
            expected.push((at + 1, "plain".to_owned()));
            if round % 2 == 0 {
                expected.push((at + 2, "two".to_owned()));
            }
            assert_eq!(read_all(&partition, 0, Isolation::ReadCommitted).await, expected, "{kind:?}, round {round}");
            let all = read_all(&partition, 0, Isolation::ReadUncommitted).await;
            assert_eq!(
                all.len(),
                usize::try_from(3 * (round + 1)).expect("small"),
                "{kind:?}: aborted records are there"
            );
        }
    }
}

/// Deletes records up to the high watermark and lets go of all that may go; says how many extents went.
async fn delete_all(life: &Life, partition: &Partition) -> usize {
    let id = partition.id();
    let to = partition.offsets().expect("open").high_watermark;
    let advance = Command::AdvanceLogStart {
        life: life.owned_by,
        partition: id,
        leader_epoch: partition.leader_epoch(),
        to,
        reason: AdvanceReason::Request,
        now: life.env.now(),
    };
    for command in [advance, Command::IndexUploads] {
        life.metadata.submit(command).await.expect("taken");
    }
    life.owner.partitions.caught_up(&*life.metadata).await;
    let reply = life.metadata.submit(Command::DropExtents { partition: id, now: life.env.now() }).await;
    let Ok(Reply::Dropped { extents, more: false }) = reply else { panic!("{reply:?}") };
    extents
}

async fn mark(
    life: &Life,
    partition: &Partition,
    producer: (i64, i16),
    kind: MarkerKind,
    prepared_at: i64,
) -> Appended {
    let who = (ProducerId::new(producer.0).expect("an id"), ProducerEpoch::new(producer.1).expect("an epoch"));
    let prepare_offset = Offset::new(prepared_at).expect("an offset");
    let marker = prepared_marker(kind, 0, PrepareRef { txn_leader_epoch: LeaderEpoch::ZERO, prepare_offset });
    let mut admission = life.owner.wal.admit(100).await.expect("the WAL runs");
    let marked = partition.append_marker(who, marker, life.env.now(), &mut admission).expect("taken");
    life.owner.wal.durable(marked.position).await.expect("the WAL runs");
    marked
}

#[tokio::test(start_paused = true)]
async fn producers_are_known_after_a_restart_although_their_records_are_deleted() {
    const UPLOADED: Duration = Duration::from_secs(6);
    for kind in KINDS {
        let mut world = World::new(kind);
        let life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let partition = life.partition(topic);
        let retry = || batch(Some((9, 0, 0)), false, &["a", "b"]);
        life.produce(&partition, retry()).await.expect("taken");
        life.produce(&partition, batch(Some((5, 0, 0)), true, &["one"])).await.expect("taken");
        life.produce(&partition, batch(None, false, &["plain"])).await.expect("taken");
        life.env.sleep(UPLOADED).await;
        assert_eq!(delete_all(&life, &partition).await, 0, "{kind:?}: no snapshot holds what these footers tell");
        drop(partition);

        world.crash(life).await;
        let life = world.start().await;
        let partition = life.partition(topic);
        let offsets = partition.offsets().expect("open");
        assert_eq!([offsets.log_start, offsets.last_stable, offsets.high_watermark].map(Offset::get), [4, 4, 4]);
        let repeated = life.produce(&partition, retry()).await.expect("recognised");
        assert_eq!((repeated.duplicate, repeated.base_offset.get()), (true, 0), "{kind:?}");
        let who = (ProducerId::new(5).expect("an id"), ProducerEpoch::ZERO);
        assert_eq!(partition.verification(who.0, who.1, 0).expect("open"), Verification::Done, "{kind:?}: still open");
        life.produce(&partition, batch(Some((5, 0, 1)), true, &["two"])).await.expect("goes on");
        assert_eq!(partition.offsets().expect("open").last_stable.get(), 4, "{kind:?}");
        mark(&life, &partition, (5, 0), MarkerKind::Abort, 7).await;
        let offsets = partition.offsets().expect("open");
        assert_eq!([offsets.last_stable, offsets.high_watermark].map(Offset::get), [6, 6], "{kind:?}");
        assert_eq!(read_all(&partition, 4, Isolation::ReadCommitted).await, [], "{kind:?}: it was aborted as a whole");

        life.env.sleep(UPLOADED).await;
        life.owner.partitions.snapshot_producers([partition.id()].into()).await;
        assert_eq!(partition.opens_from().get(), 6, "{kind:?}");
        assert!(delete_all(&life, &partition).await > 0, "{kind:?}: the snapshot holds all that they told");
        drop(partition);

        world.crash(life).await;
        let life = world.start().await;
        let partition = life.partition(topic);
        assert!(life.produce(&partition, retry()).await.expect("recognised").duplicate, "{kind:?}");
        assert!(mark(&life, &partition, (5, 0), MarkerKind::Abort, 7).await.duplicate, "{kind:?}: done already");
        assert!(life.produce(&partition, batch(Some((5, 0, 1)), true, &["two"])).await.expect("known").duplicate);
    }
}

#[tokio::test(start_paused = true)]
async fn records_are_found_by_time_in_memory_and_in_the_bucket() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let partition = life.partition(topic);
        for n in 0..50 {
            let mut builder = forebay_wire::BatchBuilder::new(n * 1_000);
            builder.push(n * 1_000, None, Some(b"v"), &[]);
            builder.push(n * 1_000 + 500, None, Some(b"w"), &[]);
            life.produce(&partition, builder.build()).await.expect("taken");
        }
        let find = async |partition: &Partition, time| {
            let found = partition.offset_for_timestamp(Timestamp::from_millis(time), Isolation::ReadUncommitted).await;
            found.expect("searchable").map(|found| (found.offset.get(), found.timestamp.as_millis()))
        };
        let check = async |partition: &Partition| {
            assert_eq!(find(partition, 0).await, Some((0, 0)));
            assert_eq!(find(partition, 7_001).await, Some((15, 7_500)), "{kind:?}: its own time, not the batch's");
            assert_eq!(find(partition, 49_500).await, Some((99, 49_500)));
            assert_eq!(find(partition, 49_501).await, None);
            let latest = partition.max_timestamp().await.expect("searchable").expect("there are records");
            assert_eq!((latest.offset.get(), latest.timestamp.as_millis()), (99, 49_500));
        };
        check(&partition).await;
        drop(partition);
        world.crash(life).await;
        let life = world.start().await;
        check(&life.partition(topic)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_comes_back_from_the_trash_with_all_that_was_acknowledged() {
    for kind in KINDS {
        let mut world = World::new(kind);
        let life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let partition = life.partition(topic);
        for n in 0..5 {
            life.produce(&partition, batch(None, false, &[&format!("value {n}")])).await.expect("taken");
        }
        let delete = Command::DeleteTopic { topic, now: life.env.now(), trash_ms: 60_000 };
        life.metadata.submit(delete).await.expect("deleted");
        life.owner.partitions.caught_up(&*life.metadata).await;
        assert!(life.owner.partitions.by_id(topic).is_err(), "{kind:?}: it is gone");
        assert!(partition.offsets().is_err(), "{kind:?}: also for whoever holds it");
        life.metadata.submit(Command::UndeleteTopic { topic }).await.expect("inside the window");
        life.owner.partitions.caught_up(&*life.metadata).await;
        let partition = life.partition(topic);
        assert_eq!(read_all(&partition, 0, Isolation::ReadUncommitted).await, numbered(0..5), "{kind:?}");
        life.produce(&partition, batch(None, false, &["value 5"])).await.expect("goes on");
        assert_eq!(read_all(&partition, 0, Isolation::ReadUncommitted).await, numbered(0..6), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_in_the_trash_takes_markers_and_nothing_else() {
    for kind in KINDS {
        for marked in [MarkerKind::Commit, MarkerKind::Abort] {
            let mut world = World::new(kind);
            let life = world.start().await;
            let topic = life.create_topic("orders", 1).await;
            let partition = life.partition(topic);
            for (sequence, value) in [(0, "one"), (1, "two")] {
                life.produce(&partition, batch(Some((5, 0, sequence)), true, &[value])).await.expect("taken");
            }
            life.metadata
                .submit(Command::DeleteTopic { topic, now: life.env.now(), trash_ms: 60_000 })
                .await
                .expect("deleted");
            life.owner.partitions.caught_up(&*life.metadata).await;
            let mut admission = life.owner.wal.admit(100).await.expect("the WAL runs");
            let refused = partition.append_own(batch(None, false, &["late"]), &mut admission);
            assert!(matches!(refused, Err(LogError::Ended(_))), "{kind:?}: {refused:?}");
            drop(admission);
            assert!(!mark(&life, &partition, (5, 0), marked, 7).await.duplicate, "{kind:?}: the open transaction ends");
            drop(partition);

            // The next life finds it in the trash, and what was written there.
            world.crash(life).await;
            let life = world.start().await;
            assert!(life.owner.partitions.by_id(topic).is_err(), "{kind:?}: it is not to be seen");
            let id = TopicPartition { topic, partition: PartitionIndex::ZERO };
            let partition = loop {
                match life.owner.partitions.get(id) {
                    Ok(partition) => break partition,
                    Err(_) => life.env.sleep(Duration::from_millis(1)).await,
                }
            };
            assert!(mark(&life, &partition, (5, 0), marked, 7).await.duplicate, "{kind:?}: it was done before");
            assert!(partition.offsets().is_err(), "{kind:?}: nobody reads it");
            life.metadata.submit(Command::UndeleteTopic { topic }).await.expect("inside the window");
            life.owner.partitions.caught_up(&*life.metadata).await;
            assert!(Arc::ptr_eq(&partition, &life.partition(topic)), "{kind:?}: it was open all the time");
            let offsets = partition.offsets().expect("open");
            assert_eq!([offsets.last_stable, offsets.high_watermark].map(Offset::get), [3, 3], "{kind:?}");
            let committed = read_all(&partition, 0, Isolation::ReadCommitted).await;
            assert_eq!(committed.len(), if marked == MarkerKind::Commit { 2 } else { 0 }, "{kind:?}, {marked:?}");
            let next = life.produce(&partition, batch(Some((5, 0, 2)), true, &["three"])).await.expect("goes on");
            assert_eq!(next.base_offset.get(), 3, "{kind:?}: a transaction of its own");
            assert_eq!(partition.offsets().expect("open").last_stable.get(), 3, "{kind:?}");
        }
    }
}

/// A partition without producers has its snapshot too, so that opening it reads no footer of its history; also where the
/// life that wrote it was killed before it took one.
#[tokio::test(start_paused = true)]
async fn a_partition_without_producers_is_not_opened_from_the_beginning() {
    let mut world = World::new(Kind::Disk);
    let life = world.start().await;
    let [orders, killed] = [life.create_topic("orders", 1).await, life.create_topic("killed", 1).await];
    life.produce(&life.partition(orders), batch(None, false, &["a", "b"])).await.expect("taken");
    life.owner.drain().await.expect("drains, with a snapshot");
    world.crash(life).await;
    let opens_from = |life: &Life, topic| life.partition(topic).opens_from().get();
    let life = world.start().await;
    assert_eq!((opens_from(&life, orders), opens_from(&life, killed)), (2, 0));
    life.produce(&life.partition(killed), batch(None, false, &["c"])).await.expect("taken");
    world.crash(life).await;
    // It is idle in this life, and is looked after all the same.
    let life = world.start().await;
    assert_eq!(opens_from(&life, killed), 0, "the killed life took none");
    life.owner.drain().await.expect("drains");
    world.crash(life).await;
    let life = world.start().await;
    assert_eq!((opens_from(&life, orders), opens_from(&life, killed)), (2, 1));
}
