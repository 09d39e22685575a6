//! The bucket is away, or slow: acks go on while the WAL has room, then appends wait, and nothing is refused, lost,
//! doubled, or kept in memory beyond the WAL's room.

mod world;

use std::sync::Arc;
use std::time::Duration;

use forebay_env::Task;
use forebay_log::{Appended, Isolation, LogError, Partition};
use forebay_store::FaultRates;
use world::{Kind, Life, WAL_ROOM, World, batch, read_all};

/// Records are large, so that few fill the WAL.
const VALUE_SIZE: usize = 30_000;

/// An append that has not come back after so long waits for the bucket: the disk answers at once.
const A_WHILE: Duration = Duration::from_secs(30);

/// Producers that wait at the same time.
const WAITING: i32 = 200;

fn value(number: i32) -> String {
    format!("{number:06} {}", "x".repeat(VALUE_SIZE))
}

/// Producer `id` sends its record `sequence`, on a task of its own.
fn send(life: &Arc<Life>, partition: &Arc<Partition>, id: i64, sequence: i32, number: i32) -> Sending {
    let (at, partition) = (Arc::clone(life), Arc::clone(partition));
    let sending = async move { at.offer(&partition, batch(Some((id, 0, sequence)), false, &[&value(number)])).await };
    life.env.spawn("producer", sending)
}

type Sending = Task<Result<Option<Appended>, LogError>>;

/// The offset at which a record was acknowledged.
async fn acked(sending: Sending) -> i64 {
    let answer = sending.await.expect("nobody aborts it").expect("a sound record is taken");
    answer.expect("the WAL goes on").base_offset.get()
}

/// Sends records one after the other until one is not acknowledged in a while: how many were, and the one that waits.
async fn fill(life: &Arc<Life>, partition: &Arc<Partition>) -> (i32, Sending) {
    for number in 0.. {
        let mut sending = send(life, partition, 9, number, number);
        let Some(answer) = life.env.timeout(A_WHILE, &mut sending).await else { return (number, sending) };
        let appended = answer.expect("nobody aborts it").expect("taken").expect("the WAL goes on");
        assert_eq!(appended.base_offset.get(), i64::from(number));
    }
    unreachable!("a WAL has an end")
}

/// All records, each by its number, and at the offset that is its place in the list.
async fn numbers(partition: &Partition) -> Vec<i32> {
    let all = read_all(partition, 0, Isolation::ReadUncommitted).await;
    let number = |(at, (offset, value)): (usize, (i64, String))| {
        assert_eq!(offset, i64::try_from(at).expect("small"), "offsets are dense");
        assert_eq!(value.len(), 7 + VALUE_SIZE, "values are whole");
        value[..6].parse().expect("a number")
    };
    all.into_iter().enumerate().map(number).collect()
}

/// Returns once all that is durable is in the bucket.
async fn uploaded(life: &Life, partition: &Partition) {
    let all = async {
        while partition.committed_end() < partition.offsets().expect("open").high_watermark {
            life.env.sleep(Duration::from_millis(100)).await;
        }
    };
    life.env.timeout(Duration::from_mins(10), all).await.expect("the bucket is there, so uploads go on");
}

/// Bytes of values in memory: all that was taken and is not in the bucket.
fn memory(partition: &Partition) -> u64 {
    let records = partition.log_end().get() - partition.committed_end().get();
    u64::try_from(records).expect("the log ends at or above its committed end") * VALUE_SIZE as u64
}

/// Acks go on for the whole of the WAL's room; then appends wait while readers of the tail go on, and once the bucket is
/// back they are acknowledged, all is uploaded, and the WAL is free again.
#[tokio::test(start_paused = true)]
async fn with_the_bucket_away_acks_go_on_until_the_room_is_used_and_then_appends_wait() {
    let mut world = World::new(Kind::Disk);
    let life = Arc::new(world.start().await);
    let topic = life.create_topic("orders", 1).await;
    let partition = life.partition(topic);
    let room = life.owner.wal.room();
    world.faults.set_outage(true);

    let (count, first_waiting) = fill(&life, &partition).await;
    let used = u64::try_from(count).expect("not negative") * VALUE_SIZE as u64;
    assert!(used > WAL_ROOM / 2 && used <= WAL_ROOM, "{used} bytes were acknowledged of a WAL of {WAL_ROOM}");
    assert_eq!(partition.committed_end().get(), 0, "none of it is in the bucket");

    let mut waiting = vec![first_waiting];
    waiting.extend((0..WAITING).map(|number| send(&life, &partition, 100 + i64::from(number), 0, count + 1 + number)));
    let everything: Vec<i32> = (0..count).collect();
    for minute in 0..10 {
        life.env.sleep(Duration::from_mins(1)).await;
        assert!(waiting.iter().all(|sending| !sending.is_finished()), "appends wait, minute {minute}");
        assert!(memory(&partition) <= WAL_ROOM, "{} bytes in memory, minute {minute}", memory(&partition));
        assert!(numbers(&partition).await == everything, "what was acknowledged is read from memory, minute {minute}");
    }
    assert!(life.owner.wal.has_ended().is_none());

    world.faults.set_outage(false);
    let mut offsets = Vec::new();
    for sending in waiting {
        offsets.push(acked(sending).await);
    }
    uploaded(&life, &partition).await;
    assert_eq!(life.owner.pending_bytes(), 0, "nothing is left in memory only");
    assert!(life.owner.wal.room() >= room / 2, "the WAL is trimmed: {} of {room}", life.owner.wal.room());
    let read = numbers(&partition).await;
    check_once(&read, count + 1 + WAITING);
    for (number, offset) in (count..).zip(offsets) {
        assert_eq!(read[usize::try_from(offset).expect("small")], number, "an ack names the place of its record");
    }

    drop(partition);
    world.crash(Arc::into_inner(life).expect("all producers have ended")).await;
    let life = world.start().await;
    assert_eq!(life.recovered.batches, 0, "all of it was in the bucket");
    assert!(numbers(&life.partition(topic)).await == read, "a crash changes nothing");
}

/// The machine dies with a full WAL while the bucket is away: all that was acknowledged is there when both are back.
#[tokio::test(start_paused = true)]
async fn a_crash_with_a_full_wal_and_no_bucket_loses_nothing() {
    let mut world = World::new(Kind::Disk);
    let life = Arc::new(world.start().await);
    let topic = life.create_topic("orders", 1).await;
    let partition = life.partition(topic);
    world.faults.set_outage(true);
    let (count, waiting) = fill(&life, &partition).await;
    drop((partition, waiting));
    // The task of the producer that waits holds the life until it is seen to be aborted.
    tokio::task::yield_now().await;
    world.crash(Arc::into_inner(life).expect("all producers have ended")).await;

    let life = world.start().await;
    let partition = life.partition(topic);
    assert!(life.recovered.batches >= u64::try_from(count).expect("not negative"), "{:?}", life.recovered);
    let repeated = life.produce(&partition, batch(Some((9, 0, count)), false, &[&value(count)])).await.expect("taken");
    assert_eq!(
        repeated.base_offset.get(),
        i64::from(count),
        "the one that waited has its place, from then or from now"
    );
    check_once(&numbers(&partition).await, count + 1);
}

/// Every request to the bucket takes seconds: acks wait for room now and then, memory stays within it, all arrives.
#[tokio::test(start_paused = true)]
async fn a_slow_bucket_slows_producers_and_loses_nothing() {
    let mut world = World::new(Kind::Disk);
    let life = Arc::new(world.start().await);
    let topic = life.create_topic("orders", 1).await;
    let partition = life.partition(topic);
    world.faults.set_rates(FaultRates { slow: 1_000, slow_max: Duration::from_secs(4), ..FaultRates::default() });

    // Twice what the WAL has room for, from ten producers at once.
    let (producers, each) = (10, i32::try_from(2 * WAL_ROOM / 10 / VALUE_SIZE as u64).expect("small"));
    let started = life.env.monotonic();
    let mut running = Vec::new();
    for producer in 0..producers {
        let (at, partition) = (Arc::clone(&life), Arc::clone(&partition));
        running.push(life.env.spawn("producer", async move {
            for sequence in 0..each {
                let batch = batch(Some((producer, 0, sequence)), false, &[&value(number(producer, sequence, each))]);
                let appended = at.offer(&partition, batch).await.expect("taken").expect("the WAL goes on");
                assert!(!appended.duplicate);
                assert!(memory(&partition) <= WAL_ROOM, "{} bytes in memory", memory(&partition));
            }
        }));
    }
    for producer in running {
        producer.await.expect("nobody aborts it");
    }
    assert!(life.env.monotonic() - started > A_WHILE, "a bucket that does not slow anybody shows nothing");
    uploaded(&life, &partition).await;
    let read = numbers(&partition).await;
    check_once(&read, i32::try_from(producers).expect("small") * each);

    drop(partition);
    world.crash(Arc::into_inner(life).expect("all producers have ended")).await;
    world.faults.set_rates(FaultRates::default());
    let life = world.start().await;
    assert!(numbers(&life.partition(topic)).await == read, "a crash changes nothing");
}

fn number(producer: i64, sequence: i32, each: i32) -> i32 {
    i32::try_from(producer).expect("small") * each + sequence
}

/// Every number below `count` is there, once.
fn check_once(read: &[i32], count: i32) {
    let mut sorted = read.to_vec();
    sorted.sort_unstable();
    assert!(sorted == (0..count).collect::<Vec<_>>(), "{} records, {count} were acknowledged", read.len());
}
