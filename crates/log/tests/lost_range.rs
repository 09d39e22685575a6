//! What a WAL lost to decay stays lost and is said to be, with either kind of WAL: its offsets answer with an error, are
//! never used again, and everybody else goes on. Shown by whole lives of a broker between which bytes are flipped, or
//! sectors of the disk become unreadable.

mod world;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use forebay_env::SECTOR_SIZE;
use forebay_format::{ObjectName, WAL_BLOCK_HEADER_SIZE};
use forebay_log::{ColdError, Isolation, LogError, Partition, ReadRequest};
use forebay_metadata::BrokerLife;
use forebay_store::{Body, Key, Object, ObjectMeta, Prefix, Span, Store, StoreError, Version};
use forebay_types::{Offset, PartitionIndex, Timestamp, TopicId, WalSequence};
use forebay_wal::GROUP_OFFSETS_MAX;
use forebay_wire::BatchBuilder;
use world::{Kind, Life, World};

const KINDS: [Kind; 2] = [Kind::Disk, Kind::Object];

/// No number of writes.
const ALL: u64 = u64::MAX;

/// A bucket in which only so many writes come to an end: the others are under way for ever. So what is written to a WAL
/// stays there alone, and a recovery can be stopped at each of its steps.
struct Held {
    bucket: Arc<dyn Store>,
    /// Of everything but WAL objects.
    writes_left: AtomicU64,
    /// Of data objects.
    uploads_left: AtomicU64,
}

impl Held {
    fn allow(&self, writes: u64) {
        self.writes_left.store(writes, Ordering::Relaxed);
    }

    async fn pass(&self, key: &Key) {
        let name = key.as_str().parse();
        if matches!(name, Ok(ObjectName::Wal { .. })) {
            return;
        }
        take(&self.writes_left).await;
        if matches!(name, Ok(ObjectName::Data { .. })) {
            take(&self.uploads_left).await;
        }
    }
}

async fn take(left: &AtomicU64) {
    match left.load(Ordering::Relaxed) {
        0 => std::future::pending().await,
        ALL => {}
        some => left.store(some - 1, Ordering::Relaxed),
    }
}

#[async_trait]
impl Store for Held {
    fn name(&self) -> &str {
        self.bucket.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.pass(key).await;
        self.bucket.create(key, body).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.pass(key).await;
        self.bucket.put(key, body).await
    }

    fn can_replace(&self) -> bool {
        self.bucket.can_replace()
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.pass(key).await;
        self.bucket.replace(key, body, expected).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        self.bucket.read(key, span).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.bucket.head(key).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        self.bucket.list(prefix, start_after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.bucket.delete(key).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.bucket.now()
    }
}

/// What of a WAL write goes bad.
#[derive(Clone, Copy, Debug)]
enum Part {
    Records,
    /// What it tells of the writes before it. In the bucket that is the footer, and without it all of the object.
    Tally,
    /// All of it, as the disk cannot read it; in the bucket as [`Part::Records`].
    Sector,
}

/// A topic, and what goes bad in the WAL that its records are in.
struct Case {
    world: World,
    held: Arc<Held>,
    topic: TopicId,
    wrote: BrokerLife,
}

/// The nth record of a case's WAL: partition n mod 2, at the nth second. Each is a WAL write of its own.
fn record(number: i64) -> BytesMut {
    let mut builder = BatchBuilder::new(number * 1_000);
    builder.push(number * 1_000, None, Some(format!("value {number}").as_bytes()), &[]);
    builder.build()
}

impl Case {
    /// A broker writes so many records, which stay in its WAL, and is killed.
    async fn new(kind: Kind, partitions: i32, records: i64) -> Self {
        let mut world = World::new(kind);
        let (writes_left, uploads_left) = (AtomicU64::new(ALL), AtomicU64::new(ALL));
        let held = Arc::new(Held { bucket: Arc::clone(&world.bucket), writes_left, uploads_left });
        world.lead_through(Arc::<Held>::clone(&held));
        let life = world.start().await;
        let topic = life.create_topic("orders", partitions).await;
        held.allow(0);
        for number in 0..records {
            life.produce(&partition(&life, topic, number % 2), record(number)).await.expect("taken");
        }
        let wrote = life.owned_by;
        world.crash(life).await;
        held.allow(ALL);
        Self { world, held, topic, wrote }
    }

    /// Begins a life that comes no further than the bucket lets it; whether it came to its end.
    async fn start_and_die(&mut self) -> bool {
        let env = forebay_env::Env::new(forebay_env::simulated::parts(99, &self.world.disk));
        // Sooner than anything gives up waiting for an answer.
        let life = env.timeout(Duration::from_secs(5), self.world.start()).await;
        let whole = life.is_some();
        drop(life);
        tokio::task::yield_now().await;
        self.world.disk.crash();
        whole
    }

    /// Makes one WAL write bad.
    async fn decay(&self, kind: Kind, number: u64, part: Part) {
        match kind {
            Kind::Disk => {
                // A write of one record takes one sector, and the segment's header one before them.
                let files = self.world.disk.files();
                let segment = files.iter().find(|path| path.starts_with("/data/wal")).expect("a segment");
                let sector = (1 + number) * SECTOR_SIZE as u64;
                let flip = |within: usize| self.world.disk.flip_byte(segment, sector + within as u64);
                let decayed = match part {
                    // Behind a tally of two ends.
                    Part::Records => flip(WAL_BLOCK_HEADER_SIZE + 2 * 40 + 50),
                    Part::Tally => flip(WAL_BLOCK_HEADER_SIZE),
                    Part::Sector => self.world.disk.fail_reads(segment, sector..sector + SECTOR_SIZE as u64),
                };
                decayed.expect("within the segment");
            }
            Kind::Object => {
                let BrokerLife { broker, epoch } = self.wrote;
                let name = ObjectName::Wal { broker, epoch, sequence: WalSequence::new(number) };
                let key = Key::new(&name.to_string()).expect("a name is a key");
                let mut bytes = self.world.bucket.get(&key).await.expect("there").to_vec();
                let within_the_footer = bytes.len() - 60;
                bytes[within_the_footer] ^= 1;
                self.world.bucket.put(&key, bytes.into()).await.expect("put");
            }
        }
    }
}

fn partition(life: &Life, topic: TopicId, index: i64) -> Arc<Partition> {
    let index = PartitionIndex::new(i32::try_from(index).expect("small")).expect("not negative");
    let topic = life.owner.partitions.by_id(topic).expect("the topic is open");
    Arc::clone(topic.partition(index).expect("it has the partition"))
}

/// Everything a reader finds who steps over what is lost, as text: `0 value 0, 1 value 2, lost 2 to 3, 3 value 9`.
async fn read(partition: &Partition) -> String {
    let end = partition.offsets().expect("open").high_watermark;
    let mut found = Vec::new();
    let mut next = partition.offsets().expect("open").log_start;
    while next < end {
        // One batch at a time, so that each offset is asked for.
        let request = ReadRequest { from: next, isolation: Isolation::ReadCommitted, bytes_max: 1, at_least_one: true };
        match partition.read(request).await {
            Ok(read) => {
                let run = read.batches.first().expect("something below the end");
                let batch = forebay_wire::Batches::new(run).next().expect("a batch").expect("whole");
                for record in forebay_wire::batch::records(run, 1 << 20).expect("sound") {
                    let value = record.expect("sound").value.expect("a value");
                    found.push(format!("{} {}", batch.header.base_offset, String::from_utf8_lossy(&value)));
                }
                next = Offset::new(batch.header.last_offset()).expect("not negative").next();
            }
            Err(LogError::Cold(ColdError::Lost { range, .. })) => {
                assert!(range.contains(next), "{range} is told at {next}");
                found.push(format!("lost {} to {}", range.start(), range.end()));
                next = range.end();
            }
            Err(error) => panic!("offset {next}: {error:?}"),
        }
    }
    found.join(", ")
}

fn offset(raw: i64) -> Offset {
    Offset::new(raw).expect("not negative")
}

/// A run of reads that holds more than one batch ends before what is lost, and does not step over it.
async fn assert_never_stepped_over(partition: &Partition, lost: Range<i64>) {
    for from in 0..lost.start {
        let request = ReadRequest {
            from: offset(from),
            isolation: Isolation::ReadUncommitted,
            bytes_max: 1 << 20,
            at_least_one: true,
        };
        let read = partition.read(request).await.expect("readable");
        let last = read.batches.last().expect("some");
        let last = forebay_wire::Batches::new(last).last().expect("a batch").expect("whole").header.last_offset();
        assert!(last < lost.start, "a read from {from} gave up to {last}, {lost:?} is lost");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_records_of_a_partition_that_decayed_are_lost_and_said_to_be() {
    for (kind, part) in [(Kind::Disk, Part::Records), (Kind::Disk, Part::Sector), (Kind::Object, Part::Records)] {
        // Write 4 has the last record of partition 0; write 5, of partition 1, says that it was acknowledged.
        let mut case = Case::new(kind, 2, 6).await;
        case.decay(kind, 4, part).await;
        let life = case.world.start().await;
        let [what, lost] = &life.recovered.lost[..] else { panic!("{kind:?}: {:?}", life.recovered.lost) };
        assert!(what.starts_with("WAL writes 4 up to, not including, 5 of broker 0 in epoch 1: "), "{what}");
        assert_eq!(lost, "orders-0 lost the records at offsets [2, 3)", "{kind:?}");

        let (zero, one) = (partition(&life, case.topic, 0), partition(&life, case.topic, 1));
        assert_eq!(read(&zero).await, "0 value 0, 1 value 2, lost 2 to 3", "{kind:?}");
        assert_eq!(read(&one).await, "0 value 1, 1 value 3, 2 value 5", "{kind:?}: nobody else is touched");
        assert_never_stepped_over(&zero, 2..3).await;
        let offsets = zero.offsets().expect("open");
        assert_eq!((offsets.log_start, offsets.last_stable, offsets.high_watermark), (offset(0), offset(3), offset(3)));
        let before = forebay_types::LeaderEpoch::ZERO;
        assert_eq!(zero.end_offset_for_epoch(before).expect("open"), Some((before, offset(3))), "{kind:?}");

        // The lost offset is not used again, and what comes behind it is read.
        let appended = life.produce(&zero, record(6)).await.expect("taken");
        assert_eq!(appended.base_offset, offset(3), "{kind:?}");
        let seen = "0 value 0, 1 value 2, lost 2 to 3, 3 value 6";
        assert_eq!(read(&zero).await, seen, "{kind:?}");
        let find = async |partition: &Partition, seconds: i64| {
            let time = Timestamp::from_millis(seconds * 1_000);
            let found = partition.offset_for_timestamp(time, Isolation::ReadUncommitted).await.expect("searchable");
            found.map(|found| found.offset.get())
        };
        assert_eq!(find(&zero, 2).await, Some(1), "{kind:?}");
        assert_eq!(find(&zero, 3).await, Some(3), "{kind:?}: the first record behind that is still there");
        assert_eq!(zero.max_timestamp().await.expect("searchable").map(|found| found.offset), Some(offset(3)));

        // And so it stays, over a crash and over an end in order.
        case.world.crash(life).await;
        let life = case.world.start().await;
        assert_eq!(life.recovered.lost, [""; 0], "{kind:?}: it is told once");
        let zero = partition(&life, case.topic, 0);
        assert_eq!(read(&zero).await, seen, "{kind:?}");
        assert_eq!(life.produce(&zero, record(7)).await.expect("taken").base_offset, offset(4), "{kind:?}");
        life.owner.drain().await.expect("drains");
        case.world.crash(life).await;
        let life = case.world.start().await;
        let (zero, one) = (partition(&life, case.topic, 0), partition(&life, case.topic, 1));
        assert_eq!(read(&zero).await, format!("{seen}, 4 value 7"), "{kind:?}");
        assert_eq!(read(&one).await, "0 value 1, 1 value 3, 2 value 5", "{kind:?}");
        assert_never_stepped_over(&zero, 2..3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn several_decayed_writes_in_a_row_are_told_whole() {
    // What is bad of writes 0 to 7, and what then is in partitions 0 and 1.
    let cases: [(&[u64], &str, &str); 5] = [
        (&[4, 5, 6], "0 value 0, 1 value 2, lost 2 to 4", "0 value 1, 1 value 3, lost 2 to 3, 3 value 7"),
        (&[0, 1, 2, 3, 4, 5, 6], "lost 0 to 4", "lost 0 to 3, 3 value 7"),
        (&[0], "lost 0 to 1, 1 value 2, 2 value 4, 3 value 6", "0 value 1, 1 value 3, 2 value 5, 3 value 7"),
        (&[2, 6], "0 value 0, lost 1 to 2, 2 value 4, lost 3 to 4", "0 value 1, 1 value 3, 2 value 5, 3 value 7"),
        (
            &[1, 2, 5, 6],
            "0 value 0, lost 1 to 2, 2 value 4, lost 3 to 4",
            "lost 0 to 1, 1 value 3, lost 2 to 3, 3 value 7",
        ),
    ];
    for kind in KINDS {
        for (bad, zero, one) in cases {
            let mut case = Case::new(kind, 2, 8).await;
            for number in bad {
                case.decay(kind, *number, Part::Records).await;
            }
            for start in 0..2 {
                let life = case.world.start().await;
                let told = (read(&partition(&life, case.topic, 0)).await, read(&partition(&life, case.topic, 1)).await);
                assert_eq!((&*told.0, &*told.1), (zero, one), "{kind:?}, {bad:?}, start {start}");
                case.world.crash(life).await;
            }
        }
    }
}

/// Where no tally tells of a lost write, every partition that may have been in it is moved on past all that it can have
/// held; one that a later write shows the end of is not.
#[tokio::test(start_paused = true)]
async fn what_nothing_tells_of_is_never_used_again_either() {
    let most = i64::try_from(GROUP_OFFSETS_MAX).expect("fits");
    for kind in KINDS {
        let mut case = Case::new(kind, 2, 6).await;
        case.decay(kind, 4, Part::Records).await;
        case.decay(kind, 5, Part::Tally).await;
        // On a disk the records of write 5 are still there; in the bucket nothing is.
        let (zero_from, one_from, writes) = match kind {
            Kind::Disk => (2, None, 1),
            Kind::Object => (2, Some(2), 2),
        };
        let life = case.world.start().await;
        let may_have = |index: i64, from: i64| {
            let end = from + writes * most;
            format!("orders-{index} may have lost some of the records at offsets [{from}, {end})")
        };
        let told = &life.recovered.lost;
        assert!(told.contains(&may_have(0, zero_from)), "{kind:?}: {told:?}");
        assert_eq!(told.iter().any(|told| told.starts_with("orders-1")), one_from.is_some(), "{kind:?}: {told:?}");
        let ends = [(0, Some(zero_from)), (1, one_from)];
        for (index, from) in ends {
            let partition = partition(&life, case.topic, index);
            let end = from.map_or(3, |from| from + writes * most);
            assert_eq!(partition.offsets().expect("open").high_watermark, offset(end), "{kind:?}, partition {index}");
            let appended = life.produce(&partition, record(6)).await.expect("taken");
            assert_eq!(appended.base_offset, offset(end), "{kind:?}, partition {index}");
        }
        let zero = read(&partition(&life, case.topic, 0)).await;
        let end = zero_from + writes * most;
        assert_eq!(zero, format!("0 value 0, 1 value 2, lost 2 to {end}, {end} value 6"), "{kind:?}");
        case.world.crash(life).await;
        let life = case.world.start().await;
        assert_eq!(read(&partition(&life, case.topic, 0)).await, zero, "{kind:?}");
    }
}

/// A recovery that breaks off at any of its writes to the bucket is gone on with by the next, which knows no less.
#[tokio::test(start_paused = true)]
async fn a_recovery_may_break_off_at_any_step() {
    for kind in KINDS {
        let mut broke_off = 0;
        for writes in 0.. {
            let mut case = Case::new(kind, 2, 8).await;
            for number in [1, 2, 6] {
                case.decay(kind, number, Part::Records).await;
            }
            case.held.allow(writes);
            let whole = case.start_and_die().await;
            case.held.allow(ALL);
            let life = case.world.start().await;
            let told = (read(&partition(&life, case.topic, 0)).await, read(&partition(&life, case.topic, 1)).await);
            let zero = "0 value 0, lost 1 to 2, 2 value 4, lost 3 to 4";
            let one = "lost 0 to 1, 1 value 3, 2 value 5, 3 value 7";
            assert_eq!((&*told.0, &*told.1), (zero, one), "{kind:?}, after {writes} writes");
            if whole {
                break;
            }
            broke_off += 1;
        }
        assert!(broke_off > 5, "{kind:?}: recovery was cut off {broke_off} times");
    }
}

/// More partitions than one object says the losses of, and nothing known of any; the first recovery dies between the
/// two objects.
#[tokio::test(start_paused = true)]
async fn every_partition_is_moved_on_however_many_there_are() {
    let most = i64::try_from(GROUP_OFFSETS_MAX).expect("fits");
    let mut case = Case::new(Kind::Object, 2_100, 1).await;
    case.decay(Kind::Object, 0, Part::Tally).await;
    case.held.uploads_left.store(1, Ordering::Relaxed);
    assert!(!case.start_and_die().await);
    case.held.uploads_left.store(ALL, Ordering::Relaxed);
    let life = case.world.start().await;
    for index in 0..2_100 {
        let partition = partition(&life, case.topic, index);
        // The first two thousand were moved on twice.
        let end = if index < 2_000 { 2 * most } else { most };
        assert_eq!(partition.offsets().expect("open").high_watermark, offset(end), "partition {index}");
    }
    assert_eq!(life.recovered.lost.len(), 1 + 1_000 + 1, "a bounded number is named");
    assert_eq!(life.recovered.lost[1_001], "1100 more partitions lost records, or may have");
    assert_eq!(read(&partition(&life, case.topic, 2_050)).await, format!("lost 0 to {most}"));
}
