//! History as a broker reads it, from a bucket that does not always give what was written.

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forebay_log::Isolation;
use forebay_store::{
    Body, Key, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version,
};
use forebay_types::Timestamp;
use forebay_wire::{BatchBuilder, Codec};
use world::{Kind, World, batch, read_all};

/// A bucket whose reads of some objects give one wrong byte, so many times, or no answer.
struct Flipping {
    inner: Arc<dyn Store>,
    /// What the keys concerned have in them.
    part: &'static str,
    left: AtomicUsize,
    silent: AtomicBool,
    /// So many requests for anything have no answer, from the first read of the objects concerned.
    away: AtomicUsize,
    is_away: AtomicBool,
}

impl Flipping {
    fn over(world: &mut World, part: &'static str) -> Arc<Self> {
        let inner = Arc::clone(&world.bucket);
        let (left, away) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (silent, is_away) = (AtomicBool::new(false), AtomicBool::new(false));
        let flipping = Arc::new(Self { inner, part, left, silent, away, is_away });
        world.lead_through(Arc::clone(&flipping) as _);
        flipping
    }

    fn flip(&self, times: usize) {
        self.left.store(times, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// So many requests go unanswered once the objects concerned are read.
    fn go_away(&self, requests: usize) {
        self.away.store(requests, Ordering::Relaxed);
        self.is_away.store(false, Ordering::Relaxed);
    }

    fn answer(&self, operation: Operation, key: &Key) -> Result<(), StoreError> {
        let concerned = operation == Operation::Read && key.as_str().contains(self.part);
        let is_away = self.is_away.fetch_or(concerned, Ordering::Relaxed) || concerned;
        let miss = |left: usize| left.checked_sub(1);
        let missed = is_away && self.away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, miss).is_ok();
        if missed || (concerned && self.silent.load(Ordering::Relaxed)) {
            return Err(StoreError::new(operation, key, StoreErrorKind::DidNotHappen));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Flipping {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.inner.create(key, body).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.inner.put(key, body).await
    }

    fn can_replace(&self) -> bool {
        self.inner.can_replace()
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.inner.replace(key, body, expected).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        self.answer(Operation::Read, key)?;
        let mut object = self.inner.read(key, span).await?;
        if key.as_str().contains(self.part) && self.left() > 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
            let mut bytes = object.bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            object.bytes = bytes.into();
        }
        Ok(object)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.answer(Operation::Head, key)?;
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}

/// A partition opens although the first two reads of its producer snapshot, or of the footers after it, are wrong; its
/// duplicates are known as ever. With every read wrong, or without an answer to any, it stays closed, and all others open,
/// those of its topic too, and those of topics that come meanwhile; once what is in the way is put right, it opens by itself.
#[tokio::test(start_paused = true)]
async fn a_partition_opens_over_reads_that_went_wrong() {
    for part in ["/snap/", "/data/"] {
        let mut world = World::new(Kind::Disk);
        let bucket = Flipping::over(&mut world, part);
        let life = world.start().await;
        let (topic, other) = (life.create_topic("orders", 2).await, life.create_topic("other", 1).await);
        life.produce(&life.partition(topic), batch(Some((9, 0, 0)), false, &["a", "b"])).await.expect("taken");
        life.owner.drain().await.expect("drains, with a snapshot");
        world.crash(life).await;
        let life = world.start().await;
        life.produce(&life.partition(topic), batch(Some((9, 0, 2)), false, &["c", "d"])).await.expect("taken");
        world.crash(life).await;

        bucket.flip(2);
        let life = world.start().await;
        assert_eq!(bucket.left(), 0, "{part}: it was read");
        let partition = life.partition(topic);
        let again = life.produce(&partition, batch(Some((9, 0, 2)), false, &["c", "d"])).await.expect("recognised");
        assert!(again.duplicate, "{part}");
        assert_eq!(read_all(&partition, 0, Isolation::ReadUncommitted).await.len(), 4, "{part}");
        drop(partition);

        let (env, mut life) = (life.env.clone(), Some(life));
        for silent in [false, true] {
            world.crash(life.take().expect("one that runs")).await;
            bucket.flip(if silent { 0 } else { usize::MAX });
            bucket.silence(silent);
            let started = env.timeout(Duration::from_mins(2), world.start()).await;
            let life = life.insert(started.expect("a start does not wait for one object"));
            let open = || -> Vec<i32> {
                let topic = life.owner.partitions.by_id(topic).expect("the topic is there");
                topic.partitions().map(|partition| partition.id().partition.get()).collect()
            };
            assert_eq!(open(), [1], "{part}: it cannot be read");
            assert_eq!(life.partition(other).offsets().expect("open").high_watermark.get(), 0, "{part}: others open");
            for n in 0..10 {
                let before = life.env.monotonic();
                let new = life.create_topic(&format!("new-{silent}-{n}"), 1).await;
                life.partition(new);
                let took = life.env.monotonic().duration_since(before);
                assert!(took < Duration::from_secs(3), "{part}: a new topic waited for {took:?}");
                life.env.sleep(Duration::from_secs(12)).await;
            }
            assert_eq!(open(), [1], "{part}: tried again, and still it cannot be read");
            bucket.flip(0);
            bucket.silence(false);
            life.env.sleep(Duration::from_mins(2)).await;
            assert_eq!(open(), [0, 1], "{part}: put right");
            assert_eq!(life.partition(topic).offsets().expect("open").high_watermark.get(), 4, "{part}");
        }
    }
}

/// A bucket that goes away as a whole while partitions are opened is waited for, however often it is asked: all of them are
/// open then.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_away_is_waited_for() {
    for part in ["/snap/", "/data/"] {
        let mut world = World::new(Kind::Disk);
        let bucket = Flipping::over(&mut world, part);
        let life = world.start().await;
        let topic = life.create_topic("orders", 2).await;
        life.produce(&life.partition(topic), batch(Some((9, 0, 0)), false, &["a", "b"])).await.expect("taken");
        life.owner.drain().await.expect("drains, with a snapshot");
        world.crash(life).await;
        let life = world.start().await;
        life.produce(&life.partition(topic), batch(Some((9, 0, 2)), false, &["c", "d"])).await.expect("taken");
        world.crash(life).await;

        bucket.go_away(100);
        let life = world.start().await;
        let open = life.owner.partitions.by_id(topic).expect("the topic is there").partitions().count();
        assert_eq!((open, bucket.away.load(Ordering::Relaxed)), (2, 0), "{part}");
    }
}

/// A compressed batch whose header claims a record that is not there, with the right checksum, spoils no look-up by time of
/// its partition: in memory, and from the bucket.
#[tokio::test(start_paused = true)]
async fn a_forged_batch_spoils_no_search() {
    let timed = |time: i64, codec| {
        let mut builder = BatchBuilder::new(time).codec(codec);
        builder.push(time, None, Some(b"v"), &[]);
        builder.build()
    };
    for kind in [Kind::Disk, Kind::Object] {
        let mut world = World::new(kind);
        let life = world.start().await;
        let topic = life.create_topic("orders", 1).await;
        let partition = life.partition(topic);
        life.produce(&partition, timed(1_000, Codec::None)).await.expect("taken");
        let mut forged = timed(2_000, Codec::Gzip);
        forged[57..61].copy_from_slice(&2_i32.to_be_bytes());
        forged[23..27].copy_from_slice(&1_i32.to_be_bytes());
        let crc = forebay_format::crc32c(&forged[21..]);
        forged[17..21].copy_from_slice(&crc.to_be_bytes());
        life.produce(&partition, forged).await.expect("its records are not looked at");
        life.produce(&partition, timed(3_000, Codec::None)).await.expect("taken");
        let check = async |partition: &forebay_log::Partition, from: &str| {
            for (time, expected) in [(500, (0, 1_000)), (1_500, (1, 2_000)), (2_500, (3, 3_000))] {
                let time = Timestamp::from_millis(time);
                let found = partition.offset_for_timestamp(time, Isolation::ReadUncommitted).await.expect("searchable");
                let found = found.map(|found| (found.offset.get(), found.timestamp.as_millis()));
                assert_eq!(found, Some(expected), "{kind:?}, from {from}");
            }
            let latest = partition.max_timestamp().await.expect("searchable").expect("there are records");
            assert_eq!((latest.offset.get(), latest.timestamp.as_millis()), (3, 3_000), "{kind:?}, from {from}");
        };
        check(&partition, "memory").await;
        drop(partition);
        world.crash(life).await;
        let life = world.start().await;
        check(&life.partition(topic), "the bucket").await;
    }
}
