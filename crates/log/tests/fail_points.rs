//! A crash at every fail point, by name, with either kind of WAL: what the producer knew, and what the next start made
//! of it.
//!
//! Each line of the table is played: three records are acknowledged, the power is cut at the point while a fourth is on
//! its way, the broker starts again, and the producer repeats the fourth. A point that is never passed fails the test.
//! What a line does not show must hold in each: every acknowledged record stands at its offset, every value once, the
//! log goes on behind them, and another crash changes nothing.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_env::FailPoint;
use forebay_format::{Fence, ObjectName};
use forebay_log::{Appended, Isolation, Partition, Recovered};
use forebay_metadata::service::Standing;
use forebay_store::Prefix;
use forebay_types::TopicId;
use world::{Kind, Life, World, batch, read_all};

/// Each line is played with so many seeds, from which follows what the disk keeps of unsynced writes.
const SEEDS: u64 = 6;

/// More than the age at which an upload is cut.
const PATIENCE: Duration = Duration::from_mins(1);

const TABLE: &str = "
point                  | WAL    | cut during | the producer | the record   | its retry             | the start moved        | orphans
wal-before-write       | disk   | append     | not told     | lost         | appended              | 3 batches              | 0
wal-before-write       | object | append     | not told     | lost         | appended              | nothing                | 0
wal-before-sync        | disk   | append     | not told     | kept or lost | appended or duplicate | 3 batches or 4 batches | 0
wal-before-sync        | object | append     | not told     | kept         | duplicate             | an object              | 0
durable-not-acked      | disk   | append     | not told     | kept         | duplicate             | 4 batches              | 0
durable-not-acked      | object | append     | not told     | kept         | duplicate             | an object              | 0
acked-not-uploaded     | disk   | upload     | acked        | kept         | duplicate             | 4 batches              | 0
uploaded-not-committed | disk   | upload     | acked        | kept         | duplicate             | 4 batches              | 1
uploaded-not-committed | disk   | takeover   | acked        | kept         | duplicate             | 4 batches              | 1
committed-not-trimmed  | disk   | upload     | acked        | kept         | duplicate             | nothing                | 0
committed-not-trimmed  | object | upload     | acked        | kept         | duplicate             | nothing                | 0
";

/// When the power is cut.
#[derive(Clone, Copy)]
enum During {
    /// While the record is on its way into the WAL.
    Append,
    /// While what was acknowledged goes to the bucket.
    Upload,
    /// While the next life moves to the bucket what a crash has left in the WAL.
    Takeover,
}

/// Where and how each point is passed. With an `object` WAL the groups are data objects already: nothing is uploaded,
/// neither while the broker runs nor by the next one.
fn ways(point: FailPoint) -> Vec<(Kind, During)> {
    match point {
        FailPoint::WalBeforeWrite | FailPoint::WalBeforeSync | FailPoint::DurableNotAcked => {
            vec![(Kind::Disk, During::Append), (Kind::Object, During::Append)]
        }
        FailPoint::AckedNotUploaded => vec![(Kind::Disk, During::Upload)],
        FailPoint::UploadedNotCommitted => vec![(Kind::Disk, During::Upload), (Kind::Disk, During::Takeover)],
        FailPoint::CommittedNotTrimmed => vec![(Kind::Disk, During::Upload), (Kind::Object, During::Upload)],
        // A coordinator passes it, which is no part of the log: its own tests crash there.
        FailPoint::PreparedNotMarked => Vec::new(),
    }
}

/// One line as it came out, every column but the first three.
struct Seen {
    told: &'static str,
    record: &'static str,
    retry: &'static str,
    moved: String,
    orphans: String,
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_every_fail_point_keeps_what_was_promised() {
    let mut lines = vec![line(
        "point",
        "WAL",
        "cut during",
        ["the producer", "the record", "its retry", "the start moved", "orphans"].map(str::to_owned),
    )];
    for point in FailPoint::ALL {
        for (wal, during) in ways(point) {
            let mut columns: [BTreeSet<String>; 5] = Default::default();
            for seed in 0..SEEDS {
                let Seen { told, record, retry, moved, orphans } = play(point, wal, during, seed).await;
                let seen = [told.to_owned(), record.to_owned(), retry.to_owned(), moved, orphans];
                columns.iter_mut().zip(seen).for_each(|(column, seen)| _ = column.insert(seen));
            }
            let during = match during {
                During::Append => "append",
                During::Upload => "upload",
                During::Takeover => "takeover",
            };
            let columns = columns.map(|column| column.into_iter().collect::<Vec<_>>().join(" or "));
            lines.push(line(point.name(), &format!("{wal:?}").to_lowercase(), during, columns));
        }
    }
    let seen = format!("\n{}\n", lines.join("\n"));
    assert!(seen == TABLE, "expected:{TABLE}\nseen:{seen}");
}

fn line(point: &str, wal: &str, during: &str, columns: [String; 5]) -> String {
    let [told, record, retry, moved, orphans] = columns;
    format!("{point:22} | {wal:6} | {during:10} | {told:12} | {record:12} | {retry:21} | {moved:22} | {orphans}")
}

async fn play(point: FailPoint, wal: Kind, during: During, seed: u64) -> Seen {
    let case = format!("{point}, {wal:?}, seed {seed}");
    let mut world = World::seeded(wal, seed);
    let life = world.start().await;
    let topic = life.create_topic("orders", 1).await;
    let partition = life.partition(topic);
    for sequence in 0..3 {
        let appended = life.produce(&partition, numbered(sequence)).await.expect("taken");
        assert_eq!(appended.base_offset.get(), i64::from(sequence), "{case}: offsets are dense");
    }
    if !matches!(during, During::Takeover) {
        world.cut_power_at(point);
    }
    let told = life.offer(&partition, numbered(3)).await.expect("taken");
    if matches!(during, During::Takeover) {
        drop(partition);
        world.crash(life).await;
        world.cut_power_at(point);
        assert_eq!(world.start_and_fail().await, point, "{case}");
    } else {
        let crashed = life.env.timeout(PATIENCE, world.fail_points.crashed()).await;
        assert_eq!(crashed, Some(point), "{case}: the point was never passed");
        drop(partition);
        world.crash(life).await;
    }

    let mut life = world.start().await;
    let moved = moved(&life.recovered);
    let orphans = orphans(&world, &life).await.to_string();
    let partition = life.partition(topic);
    let mut expected = values(0..3);
    let found = read_all(&partition, 0, Isolation::ReadUncommitted).await;
    let record = if found == expected { "lost" } else { "kept" };
    if record == "kept" || told.is_some() {
        expected = values(0..4);
    }
    assert_eq!(found, expected, "{case}: what was acknowledged is there, and nothing else but the fourth");

    let repeated = life.produce(&partition, numbered(3)).await.expect("taken or known");
    let retry = if repeated.duplicate { "duplicate" } else { "appended" };
    assert_eq!(repeated.duplicate, record == "kept", "{case}: what is there is known to be there");
    assert_eq!(repeated.base_offset.get(), 3, "{case}: a retry has the offset of its original");
    if let Some(Appended { base_offset, .. }) = told {
        assert_eq!(base_offset, repeated.base_offset, "{case}");
    }
    life.produce(&partition, numbered(4)).await.expect("the log goes on");
    for again in 0..2 {
        check_whole(&life, topic, &format!("{case}, {again} crashes later")).await;
        world.crash(life).await;
        life = world.start().await;
    }
    let told = if told.is_some() { "acked" } else { "not told" };
    Seen { told, record, retry, moved, orphans }
}

async fn check_whole(life: &Life, topic: TopicId, case: &str) {
    let partition: &Partition = &life.partition(topic);
    assert_eq!(read_all(partition, 0, Isolation::ReadCommitted).await, values(0..5), "{case}");
    let offsets = partition.offsets().expect("open");
    assert_eq!((offsets.log_start.get(), offsets.high_watermark.get()), (0, 5), "{case}");
}

/// The record of an idempotent producer that has this sequence number.
fn numbered(sequence: i32) -> bytes::BytesMut {
    batch(Some((9, 0, sequence)), false, &[&format!("value {sequence}")])
}

fn values(range: std::ops::Range<i64>) -> Vec<(i64, String)> {
    range.map(|offset| (offset, format!("value {offset}"))).collect()
}

/// What the takeover brought to the bucket, or only to the metadata where it was in the bucket.
fn moved(recovered: &Recovered) -> String {
    match recovered {
        Recovered { batches: 0, bytes: 0, .. } => "nothing".to_owned(),
        Recovered { batches: 0, .. } => "an object".to_owned(),
        Recovered { batches, .. } => format!("{batches} batches"),
    }
}

/// Objects with records that no row of the metadata names.
async fn orphans(world: &World, life: &Life) -> usize {
    let mut orphans = 0;
    for object in world.bucket.list(&Prefix::all(), None, 10_000).await.expect("the bucket is there") {
        let name = object.key.as_str();
        let Ok(ObjectName::Data { .. } | ObjectName::Wal { .. }) = name.parse() else { continue };
        let bytes = world.bucket.get(&object.key).await.expect("it was listed");
        let standing = life.metadata.standing(name).await.expect("the metadata answers");
        orphans += usize::from(standing == Standing::Unknown && !Fence::is_fence(&bytes));
    }
    orphans
}
