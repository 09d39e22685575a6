//! What a check says of a healthy bucket, and of each kind of damage: the object, the block, and the records behind it.

mod world;

use std::sync::Arc;

use async_trait::async_trait;
use forebay_env::Disk;
use forebay_format::{Footer, FooterParse, ObjectName};
use forebay_log::read_footer;
use forebay_store::{Body, Bucket, Key, Object, ObjectMeta, Prefix, Purpose, Span, Store, StoreError, Version};
use forebay_types::{Offset, PartitionIndex, Timestamp, TopicId, TopicName, WalSequence};
use forebay_upkeep::fsck::{CheckOptions, Finding, Severity, WalFolder, check};
use forebay_upkeep::ls;
use parking_lot::Mutex;
use world::{KINDS, Kind, World, key};

/// A topic with two extents of ten records each, everything in the bucket and the broker stopped.
async fn stopped(kind: Kind) -> (World, TopicId) {
    let mut world = World::new(kind);
    let life = world.start().await;
    let topic = life.create_topic("orders", &[]).await;
    for _ in 0..2 {
        life.write_extent(topic).await;
    }
    life.owner.drain().await.expect("drains");
    world.crash(life).await;
    (world, topic)
}

async fn listing(world: &World) -> ls::Listing {
    let store = Bucket::over(&world.env(98), Arc::clone(&world.bucket)).store(Purpose::Check);
    ls::list(&world.env(98), &store, None).await.expect("the metadata can be read")
}

/// The object with the first records of the topic, and its footer.
async fn first_object(world: &World) -> (String, u64, Footer) {
    let listed = listing(world).await;
    let first = &listed.topics[0].partitions[0].extents[0];
    let bytes = world.bucket.get(&Key::new(&first.object).expect("a key")).await.expect("it is there");
    let size = bytes.len() as u64;
    let FooterParse::Whole(_) = Footer::parse(&bytes, size).expect("sound") else { panic!("all of it was given") };
    let footer = read_footer(&*world.bucket, &first.object, size, 0).await.expect("sound");
    (first.object.to_string(), size, footer)
}

async fn errors(world: &World) -> Vec<Finding> {
    let report = world.fsck().await;
    assert!(!report.is_clean());
    report.findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}

/// `orders-0, offsets 0 to 9` of a finding.
fn behind(finding: &Finding) -> String {
    let (first, last) = finding.offsets.expect("records are behind it");
    format!("{}, offsets {first} to {last}", finding.partition.as_ref().expect("somebody's"))
}

#[tokio::test(start_paused = true)]
async fn a_healthy_bucket_is_clean() {
    for kind in KINDS {
        let (world, _) = stopped(kind).await;
        let calls = Mutex::new(Vec::new());
        let store = Bucket::over(&world.env(98), Arc::clone(&world.bucket)).store(Purpose::Check);
        let options = CheckOptions { deep: true, wal_folder: Some(world.held(world::DISK)) };
        let report = check(&world.env(98), &store, options, &|p| calls.lock().push(p)).await.expect("readable");
        assert!(report.is_clean() && report.findings.is_empty(), "{kind:?}: {:?}", report.findings);
        let counts = report.counts;
        assert_eq!((counts.topics, counts.partitions, counts.records), (1, 1, 20), "{kind:?}: {counts:?}");
        assert_eq!((counts.batches_checked, counts.wal_batches), (20, 0), "{kind:?}: {counts:?}");
        assert!(counts.blocks > 0 && counts.reached.objects > 1 && counts.journal_entries > 0, "{kind:?}: {counts:?}");
        assert_eq!((counts.orphans.objects, counts.garbage.objects), (0, 0), "{kind:?}: {counts:?}");
        let calls = calls.into_inner();
        let (first, last) = (calls[0], calls[calls.len() - 1]);
        assert_eq!((first.objects_done, last.objects_done), (0, counts.reached.objects), "{kind:?}");
        assert_eq!((last.bytes_done, last.bytes_total), (counts.reached.bytes, counts.reached.bytes), "{kind:?}");
        assert!(calls.is_sorted_by_key(|p| p.bytes_done), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_without_metadata_is_told_from_a_damaged_one() {
    let world = World::new(Kind::Disk);
    let store: Arc<dyn Store> = Arc::clone(&world.bucket);
    let error = check(&world.env(98), &store, CheckOptions::default(), &|_| {}).await.expect_err("nothing is there");
    assert!(!error.is_transient(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_in_any_block_names_object_block_and_records() {
    for kind in KINDS {
        let (world, _) = stopped(kind).await;
        let (object, _, footer) = first_object(&world).await;
        let section = &footer.sections[0];
        let block = section.blocks[0];
        for at in [block.position, block.position + 12, block.position + u64::from(block.length) - 1] {
            let at = usize::try_from(at).expect("small");
            world.damage(&object, |bytes| bytes[at] ^= 0x20).await;
            let found = errors(&world).await;
            let [finding] = &found[..] else { panic!("{kind:?}: one block is damaged: {found:?}") };
            assert_eq!((finding.object.as_deref(), finding.block), (Some(&*object), Some(block.position)), "{kind:?}");
            let expected = format!("orders-0, offsets {} to {}", block.base_offset, block.last_offset);
            assert_eq!(behind(finding), expected, "{kind:?}");
            assert!(finding.to_string().starts_with(&format!("error: {object}: block at byte")), "{finding}");
            world.damage(&object, |bytes| bytes[at] ^= 0x20).await;
        }
        assert!(world.fsck().await.is_clean(), "{kind:?}: mended");
    }
}

#[tokio::test(start_paused = true)]
async fn damage_to_a_whole_object_names_all_that_was_in_it() {
    for kind in KINDS {
        let (world, _) = stopped(kind).await;
        let (object, size, footer) = first_object(&world).await;
        let range = footer.sections[0].range;
        let whole = world.bucket.get(&Key::new(&object).expect("a key")).await.expect("there");
        let last = usize::try_from(size).expect("small") - 1;
        let index_start = footer.sections.iter().flat_map(|section| &section.blocks).last().expect("there are blocks");
        let index_start = usize::try_from(index_start.position).expect("small") + index_start.length as usize;
        let expected = format!("orders-0, offsets {} to {}", range.start(), range.end().get() - 1);
        let one = async |world: &World, what: &str| {
            let found = errors(world).await;
            let [finding] = &found[..] else { panic!("{kind:?}: one object is damaged: {found:?}") };
            assert_eq!((finding.object.as_deref(), behind(finding)), (Some(&*object), expected.clone()), "{kind:?}");
            assert!(finding.what.contains(what), "{kind:?}: {finding}");
        };
        world.damage(&object, |bytes| bytes[last] ^= 1).await;
        one(&world, "cannot be read").await;
        world.damage(&object, |bytes| bytes[last] ^= 1).await;

        world.damage(&object, |bytes| bytes[index_start + 3] ^= 1).await;
        one(&world, "section index").await;
        world.damage(&object, |bytes| bytes[index_start + 3] ^= 1).await;

        for kept in [last, index_start, 1, 0] {
            world.damage(&object, |bytes| bytes.truncate(kept)).await;
            one(&world, &format!("it has {kept} bytes, the metadata says {size}")).await;
            world.damage(&object, |bytes| *bytes = whole.to_vec()).await;
        }
        world.damage(&object, |bytes| bytes.push(0)).await;
        one(&world, &format!("it has {} bytes, the metadata says {size}", size + 1)).await;

        world.bucket.delete(&Key::new(&object).expect("a key")).await.expect("in memory");
        one(&world, "it is missing").await;
        assert_eq!(
            errors(&world).await[0].offsets,
            Some((Offset::ZERO, Offset::new(range.end().get() - 1).expect("an offset")))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_in_anothers_place_is_seen() {
    let (world, _) = stopped(Kind::Disk).await;
    let listed = listing(&world).await;
    let extents = &listed.topics[0].partitions[0].extents;
    let (first, second) = (extents[0].object.to_string(), extents[1].object.to_string());
    let other = world.bucket.get(&Key::new(&second).expect("a key")).await.expect("there");
    world.damage(&first, |bytes| *bytes = other.to_vec()).await;
    let found = errors(&world).await;
    assert!(found.iter().all(|finding| finding.object.as_deref() == Some(&*first)), "{found:?}");
    assert_eq!(behind(&found[0]), "orders-0, offsets 0 to 9");
}

#[tokio::test(start_paused = true)]
async fn damaged_snapshots_and_journal_entries_are_told() {
    let mut world = World::new(Kind::Disk);
    let life = world.start().await;
    let topic = life.create_topic("orders", &[]).await;
    let mut builder = forebay_wire::BatchBuilder::new(0).producer(1, 0, 0);
    builder.push(life.env.now().as_millis(), None, Some(b"v"), &[]);
    life.append(topic, builder).await;
    life.owner.drain().await.expect("drains, with a snapshot");
    world.crash(life).await;
    assert!(world.fsck().await.is_clean());
    let objects = world.objects().await;
    let snapshot =
        objects.iter().find(|name| matches!(name, ObjectName::ProducerSnapshot { .. })).expect("one was taken");
    let journal = objects.iter().find(|name| matches!(name, ObjectName::Journal { .. })).expect("there is a journal");
    for name in [snapshot, journal] {
        let name = name.to_string();
        world.damage(&name, |bytes| bytes[40] ^= 1).await;
        let found = errors(&world).await;
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.object.as_deref(), Some(&*name));
        world.damage(&name, |bytes| bytes[40] ^= 1).await;
    }
    world.damage(&snapshot.to_string(), |bytes| bytes[40] ^= 1).await;
    let found = errors(&world).await;
    assert_eq!(found[0].partition.as_ref().map(ToString::to_string).as_deref(), Some("orders-0"));
    world.damage(&snapshot.to_string(), |bytes| bytes[40] ^= 1).await;
    world.bucket.delete(&key(*journal)).await.expect("in memory");
    let found = errors(&world).await;
    assert!(found[0].what.contains("could not be restored from the journal"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_and_only_on_the_disk_is_checked_there() {
    let mut world = World::new(Kind::Disk);
    let life = world.start().await;
    let topic = life.create_topic("orders", &[]).await;
    life.write_extent(topic).await;
    for n in 0..20 {
        life.produce(topic, &format!("value {n}"), 100).await;
    }
    assert_eq!(life.partition(topic).committed_end().get(), 10);
    world.crash(life).await;
    let report = world.fsck().await;
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.counts.wal_batches, report.counts.batches_checked), (20, 30));

    // Each record was acknowledged alone, so each has a block of one sector, behind the segment's header: a header of 80
    // bytes, a tally of one end, 40 bytes, and the entry.
    let [segment] =
        &world.disk.files().into_iter().filter(|path| path.starts_with(world::wal_folder())).collect::<Vec<_>>()[..]
    else {
        panic!("one segment")
    };
    let sector = forebay_env::SECTOR_SIZE as u64;
    world.disk.flip_byte(segment, sector * 16 + 200).expect("within the segment");
    let found = errors(&world).await;
    let [finding] = &found[..] else { panic!("one block is damaged: {found:?}") };
    assert_eq!(behind(finding), "orders-0, offsets 15 to 15");
    assert!(
        finding.what.contains("their records are lost") && finding.what.contains(&segment.display().to_string()),
        "{finding}"
    );
    // So it is where the disk cannot read the block.
    world.disk.flip_byte(segment, sector * 16 + 200).expect("within the segment");
    world.disk.fail_reads(segment, sector * 16..sector * 17).expect("within the segment");
    let found = errors(&world).await;
    let [finding] = &found[..] else { panic!("one block is unreadable: {found:?}") };
    assert_eq!(behind(finding), "orders-0, offsets 15 to 15");
    let block = format!("{}: the WAL block at byte 65536 cannot be read: the disk fails", segment.display());
    assert!(finding.what.contains(&block), "{finding}");
    world.disk.heal();
    world.disk.flip_byte(segment, sector * 16 + 200).expect("within the segment");
    // Where the write that tells of it is torn and its tally damaged too, nothing says what it held.
    world.disk.flip_byte(segment, sector * 29 + 200).expect("within the segment");
    world.disk.flip_byte(segment, sector * 30 + 200).expect("within the segment");
    let found = errors(&world).await;
    let told: Vec<_> = found.iter().map(behind).collect();
    assert_eq!(told, ["orders-0, offsets 15 to 15", "orders-0, offsets 28 to 28"], "the torn write tells of it");
    world.disk.flip_byte(segment, sector * 30 + 90).expect("within the segment");
    let found = errors(&world).await;
    assert!(found[1].partition.is_none() && found[1].what.ends_with("tells what of other partitions was in them"));
    for (write, at) in [(16, 200), (29, 200), (30, 200), (30, 90)] {
        world.disk.flip_byte(segment, sector * write + at).expect("within the segment");
    }

    world.disk.flip_byte(segment, sector * 3 + 200).expect("within the segment");
    let report = world.fsck().await;
    assert!(report.is_clean(), "the bucket has those records: {:?}", report.findings);
    world.disk.flip_byte(segment, sector * 30 + 200).expect("within the segment");
    assert!(world.fsck().await.is_clean(), "a torn end is no damage");
}

/// A WAL that cannot be looked into is no damage, and not passed over in silence either: which one, and why.
#[tokio::test(start_paused = true)]
async fn a_wal_that_cannot_be_looked_into_is_said_to_be_unchecked() {
    let mut world = World::new(Kind::Disk);
    let life = world.start().await;
    let topic = life.create_topic("orders", &[]).await;
    life.produce(topic, "value", 100).await;
    world.crash(life).await;
    let in_use = WalFolder::NotNow { why: "a broker runs there".to_owned() };
    for (folder, why) in [
        (None, "its data folder was not given"),
        (Some(in_use), "a broker runs there"),
        (Some(world.held(world::DISK + 1)), "it is on another disk than the one at /data"),
    ] {
        let report = world.fsck_with(folder).await;
        let [finding] = &report.findings[..] else { panic!("{why}: {:?}", report.findings) };
        assert_eq!(finding.severity, Severity::Note, "{why}");
        assert!(finding.what.ends_with(&format!("and was not checked: {why}")), "{finding}");
        assert_eq!((report.counts.wals_not_checked, report.counts.wal_batches), (1, 0), "{why}");
    }
    let counts = world.fsck().await.counts;
    assert_eq!((counts.wals_not_checked, counts.wal_batches), (0, 1));

    let held = world.held(world::DISK);
    world.disk.flip_byte(std::path::Path::new("/data/forebay-folder"), 3).expect("within the marker");
    let report = world.fsck_with(Some(held)).await;
    assert!(!report.is_clean() && report.findings[0].what.contains("cannot be recovered"), "{:?}", report.findings);
}

/// A broker can start while objects are checked: the lock is given back once the WAL is read.
#[tokio::test(start_paused = true)]
async fn the_lock_is_held_for_the_wal_alone() {
    let (world, _) = stopped(Kind::Disk).await;
    let store = Bucket::over(&world.env(98), Arc::clone(&world.bucket)).store(Purpose::Check);
    let lock = || world.disk.lock(std::path::Path::new("/data/lock"));
    let options = CheckOptions { deep: true, wal_folder: Some(world.held(world::DISK)) };
    assert!(lock().is_err(), "it is held");
    let free = Mutex::new(Vec::new());
    check(&world.env(98), &store, options, &|_| free.lock().push(lock().is_ok())).await.expect("readable");
    let free = free.into_inner();
    assert!(free.len() > 1 && free.iter().all(|free| *free), "{free:?}");
}

/// A store whose listing was made before one of its objects was.
struct Late {
    inner: Arc<dyn Store>,
    unlisted: Key,
}

#[async_trait]
impl Store for Late {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.inner.create(key, body).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.inner.put(key, body).await
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.inner.replace(key, body, expected).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        self.inner.read(key, span).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut listed = self.inner.list(prefix, after, limit).await?;
        listed.retain(|object| object.key != self.unlisted);
        Ok(listed)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}

/// A running broker writes on while the bucket is listed: what the listing lacks and the bucket has is not missing.
#[tokio::test(start_paused = true)]
async fn what_a_listing_came_too_early_for_is_not_missing() {
    let (world, _) = stopped(Kind::Object).await;
    let listed = listing(&world).await;
    let last = listed.topics[0].partitions[0].extents.last().expect("there are records");
    let Ok(ObjectName::Wal { broker, epoch, sequence }) = last.object.parse() else { panic!("{last:?}") };
    let at = |number| key(ObjectName::Wal { broker, epoch, sequence: WalSequence::new(sequence.get() + number) });
    for number in 1..=5 {
        world.bucket.put(&at(number), Body::from(b"x".to_vec())).await.expect("in memory");
    }
    let store: Arc<dyn Store> = Arc::new(Late { inner: Arc::clone(&world.bucket), unlisted: at(1) });
    let missing = async || {
        let report = check(&world.env(98), &store, CheckOptions::default(), &|_| {}).await.expect("readable");
        report.findings.iter().any(|finding| finding.what.contains("missing"))
    };
    assert!(!missing().await, "it is there");
    world.bucket.delete(&at(1)).await.expect("in memory");
    assert!(missing().await, "now it is not");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_wal_of_a_bucket_and_not_committed_is_checked_too() {
    let (world, _) = stopped(Kind::Object).await;
    let listed = listing(&world).await;
    let last = listed.topics[0].partitions[0].extents.last().expect("there are records");
    let Ok(ObjectName::Wal { broker, epoch, sequence }) = last.object.parse() else { panic!("{last:?}") };
    let bytes = world.bucket.get(&Key::new(&last.object).expect("a key")).await.expect("there");
    let next = key(ObjectName::Wal { broker, epoch, sequence: sequence.next() });
    world.bucket.put(&next, Body::from(bytes)).await.expect("in memory");
    let found = errors(&world).await;
    assert_eq!(found[0].object.as_deref(), Some(next.as_str()));
    assert!(found[0].what.contains(&format!("it is number {sequence}")), "{}", found[0]);
    world.bucket.put(&next, Body::from(b"neither a fence nor an object".to_vec())).await.expect("in memory");
    let found = errors(&world).await;
    assert!(found[0].what.contains("acknowledged records may be behind it"), "{}", found[0]);

    // More writes than can be in flight lie behind one that is not there: it was acknowledged.
    world.bucket.delete(&next).await.expect("in memory");
    let far = key(ObjectName::Wal { broker, epoch, sequence: WalSequence::new(sequence.get() + 5) });
    world.bucket.put(&far, Body::from(b"x".to_vec())).await.expect("in memory");
    let found = errors(&world).await;
    let missing = format!("WAL write {} of broker 0 in epoch {epoch} is missing", sequence.next());
    assert!(found.iter().any(|finding| finding.what.contains(&missing)), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn orphans_and_strangers_are_counted_and_are_no_damage() {
    let (mut world, _) = stopped(Kind::Disk).await;
    let life = world.start().await;
    let (broker, epoch) = (life.me.broker, life.me.epoch);
    let sequence = WalSequence::new(77);
    let put = async |world: &World, name: &str| {
        let key = Key::new(name).expect("a key");
        world.bucket.put(&key, Body::from(vec![1, 2, 3])).await.expect("in memory");
    };
    put(&world, &ObjectName::Data { broker, epoch, sequence }.to_string()).await;
    put(&world, "notes/readme.txt").await;
    world.crash(life).await;
    let report = world.fsck().await;
    assert!(report.is_clean());
    assert_eq!((report.counts.uncommitted.objects, report.counts.orphans.objects), (1, 0), "its life is not closed");
    assert!(report.findings.iter().any(|finding| finding.object.as_deref() == Some("notes/readme.txt")));
    let life = world.start().await;
    drop(life);
    let counts = world.fsck().await.counts;
    assert_eq!((counts.orphans.objects, counts.orphans.bytes), (1, 3), "now it is");
}

#[tokio::test(start_paused = true)]
async fn ls_tells_topics_logs_and_objects() {
    for kind in KINDS {
        let (world, topic) = stopped(kind).await;
        let listed = listing(&world).await;
        let [orders] = &listed.topics[..] else { panic!("one topic: {listed:?}") };
        assert_eq!((orders.name.as_str(), orders.id), ("orders", topic));
        let [partition] = &orders.partitions[..] else { panic!("one partition: {orders:?}") };
        assert_eq!(
            (partition.partition, partition.log_start, partition.committed_end.get()),
            (PartitionIndex::ZERO, Offset::ZERO, 20)
        );
        assert_eq!(partition.bytes, partition.extents.iter().map(|extent| extent.bytes).sum::<u64>());
        let mut next = 0;
        for extent in &partition.extents {
            assert_eq!(extent.range.start().get(), next, "{kind:?}: in order, without a gap");
            next = extent.range.end().get();
            let object = listed.objects.iter().find(|object| object.name == extent.object).expect("listed");
            assert!(object.size > extent.bytes && object.uses >= 1, "{kind:?}: {object:?}");
        }
        let store: Arc<dyn Store> = Arc::clone(&world.bucket);
        let other = TopicName::new("other").expect("legal");
        let none = ls::list(&world.env(98), &store, Some(&other)).await.expect("readable");
        assert!(none.topics.is_empty());
    }
}
