//! Reads of history over a bucket in memory in which every GET is written down: what is read again and what ahead, how
//! often, and how long a reader waits for it.

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_format::Fault;
use forebay_store::{Body, Key, Store};
use forebay_types::{ByteSize, Timestamp};

use super::ahead::READ_AHEAD_GETS_MAX;
use super::extents::EXTENTS_PAGE;
use super::layout::CHUNK_SIZE_TARGET;
use super::{ColdError, ColdReader, DAMAGE_BELIEVED, READ_TIME_TARGET, ReadPattern};
use crate::search::Wanted;
use rig::{Part, Rig};

const CACHE: ByteSize = ByteSize::mib(16);

/// Two partitions in one object: 0 with so many batches, two to a block, and 1 with one block.
async fn two_partitions(batches: usize) -> (Rig, String) {
    let mut rig = Rig::new(CACHE);
    let name = rig.write(&[part(0, batches, 100_000), part(1, 4, 500)]).await;
    (rig, name)
}

const fn part(partition: i32, batches: usize, batch_size: usize) -> Part {
    Part { partition, batches, batch_size }
}

/// A bit that flips on the way, in the footer or in a chunk, is nobody's loss: the same bytes are read again, and nobody
/// after that meets the wrong ones.
#[tokio::test(start_paused = true)]
async fn a_read_that_went_wrong_is_read_again() {
    // A small object comes by one GET, a larger one by its footer and two chunks. Every bit is under a checksum.
    let cases = [(8, 1, 0, 1), (8, 1, 0, 2), (16, 3, 0, 1), (16, 3, 0, 2), (16, 3, 1, 1), (16, 3, 1, 2), (16, 3, 2, 1)];
    for (batches, gets, skip, flips) in cases {
        for seed in 0..8_u64 {
            let (rig, _) = two_partitions(batches).await;
            for nth in 0..flips {
                rig.store.flip(skip + nth, (seed + nth * 100) * 7_919_777);
            }
            let pattern = ReadPattern::default();
            // Twice, because the second wrong chunk may be wrong where only the other partition looks.
            for (partition, batches) in [(0, batches), (1, 4), (0, batches), (1, 4)] {
                let offsets = rig.read(partition, 0, 10_000_000, &pattern).await.expect("read again");
                assert_eq!(offsets.len(), batches, "{flips} flips after {skip} reads, seed {seed}");
            }
            assert_eq!(
                rig.store.take_reads().len() as u64,
                gets + flips,
                "each wrong read is read again, and no other"
            );
            rig.read(0, 0, 10_000_000, &pattern).await.expect("sound");
            assert_eq!(rig.store.take_reads(), [], "what is in the cache is right");
        }
    }
}

/// Bytes that are damaged in the bucket are read three times and then called damaged, by object, place and checksum; who
/// asks again gets the same answer without a GET, for a minute. All else in the object is served.
#[tokio::test(start_paused = true)]
async fn damage_is_named_after_three_reads_and_believed_for_a_minute() {
    let (rig, name) = two_partitions(8).await;
    let key = Key::new(&name).expect("a name of ours");
    let whole = rig.store.inner.get(&key).await.expect("there");
    let mut damaged = whole.to_vec();
    // In the first block of partition 0: two batches of 100,000 bytes.
    damaged[150_000] ^= 1;
    rig.store.inner.put(&key, Body::from(damaged)).await.expect("put");
    let pattern = ReadPattern::default();
    for gets in [3, 0, 0] {
        let error = rig.read(0, 0, 1_000_000, &pattern).await.expect_err("damaged");
        let ColdError::Corrupt(error) = error else { panic!("{error}") };
        assert_eq!((error.object(), error.position()), (Some(&*name), 0));
        assert_eq!(error.partition(), Some(rig::source(0).partition));
        assert!(matches!(error.fault(), Fault::Checksum { .. }), "{error}");
        assert_eq!(rig.store.take_reads().len(), gets, "the object and its chunk twice, then nothing");
    }
    assert_eq!(rig.read(0, 4, 10_000_000, &pattern).await.expect("sound"), [4, 6, 8, 10, 12, 14]);
    assert_eq!(rig.read(1, 0, 10_000_000, &pattern).await.expect("sound").len(), 4);
    assert_eq!(rig.store.take_reads(), [], "the rest of the chunk is in the cache");

    rig.env.sleep(DAMAGE_BELIEVED).await;
    rig.read(0, 0, 1_000_000, &pattern).await.expect_err("still damaged");
    assert_eq!(rig.store.take_reads().len(), 3);
    rig.store.inner.put(&key, Body::from(whole)).await.expect("put");
    rig.read(0, 0, 1_000_000, &pattern).await.expect_err("believed");
    rig.env.sleep(DAMAGE_BELIEVED).await;
    assert_eq!(rig.read(0, 0, 10_000_000, &pattern).await.expect("mended").len(), 8);
    assert_eq!(rig.store.take_reads().len(), 1);
}

/// Little of a chunk is copied, so that who holds it does not keep the rest; much of it is handed out as it is.
#[tokio::test(start_paused = true)]
async fn what_is_handed_out_keeps_little_else() {
    let (rig, _) = two_partitions(16).await;
    let pattern = ReadPattern::default();
    // The first chunk has ten batches or so, two to a block.
    for (partition, from, bytes_max, copied) in
        [(0, 0, 100_000, true), (0, 2, 200_000, true), (1, 0, 10_000, true), (0, 0, 700_000, false)]
    {
        let runs = rig.runs(partition, from, bytes_max, &pattern).await.expect("sound");
        let unique = runs.iter().all(Bytes::is_unique);
        assert_eq!(
            (runs.is_empty(), unique),
            (false, copied),
            "{bytes_max} bytes of partition {partition} from {from}"
        );
    }
    // All of the first chunk as it is, and the beginning of the second as a copy.
    let runs = rig.runs(0, 0, 1_300_000, &pattern).await.expect("sound");
    let (last, all) = runs.split_last().expect("several");
    assert!(last.is_unique() && !all.iter().any(Bytes::is_unique));
    assert_eq!(rig.read(0, 0, 10_000_000, &pattern).await.expect("sound").len(), 16);
}

/// A footer that is damaged in the bucket is named after three reads.
#[tokio::test(start_paused = true)]
async fn a_damaged_footer_is_named() {
    let (rig, name) = two_partitions(8).await;
    let key = Key::new(&name).expect("a name of ours");
    let mut damaged = rig.store.inner.get(&key).await.expect("there").to_vec();
    let at = damaged.len() - 50;
    damaged[at] ^= 1;
    rig.store.inner.put(&key, Body::from(damaged)).await.expect("put");
    let error = rig.read(0, 0, 1_000_000, &ReadPattern::default()).await.expect_err("damaged");
    assert!(matches!(&error, ColdError::Corrupt(error) if error.object() == Some(&*name)), "{error}");
    assert_eq!(rig.store.take_reads().len(), 3);
}

/// What stands before damage is served, though one read would have taken both; then the damage is told.
#[tokio::test(start_paused = true)]
async fn what_stands_before_an_error_is_served() {
    let mut rig = Rig::new(CACHE);
    rig.write(&[part(0, 2, 500)]).await;
    let name = rig.write(&[part(0, 2, 500)]).await;
    let key = Key::new(&name).expect("a name of ours");
    let mut damaged = rig.store.inner.get(&key).await.expect("there").to_vec();
    damaged[300] ^= 1;
    rig.store.inner.put(&key, Body::from(damaged)).await.expect("put");
    let pattern = ReadPattern::default();
    assert_eq!(rig.read(0, 0, 1_000_000, &pattern).await.expect("sound"), [0, 2]);
    let error = rig.read(0, 4, 1_000_000, &pattern).await.expect_err("damaged");
    assert!(matches!(error, ColdError::Corrupt(_)), "{error}");
}

/// An object that is gone sends its reader back to metadata, once.
#[tokio::test(start_paused = true)]
async fn an_object_that_was_merged_away_is_looked_up_again() {
    let mut rig = Rig::new(CACHE);
    let first = rig.write(&[part(0, 2, 500)]).await;
    let second = rig.write(&[part(0, 2, 500)]).await;
    let pattern = ReadPattern::default();
    assert_eq!(rig.read(0, 0, 600, &pattern).await.expect("sound"), [0]);
    // The second object's place is taken by another with the same bytes, as after a merge.
    let (old, new) = (Key::new(&second).expect("a name"), Key::new("merged").expect("a name"));
    let bytes = rig.store.inner.get(&old).await.expect("there");
    rig.store.inner.put(&new, Body::from(bytes)).await.expect("put");
    rig.store.inner.delete(&old).await.expect("in memory");
    rig.metadata
        .extents
        .lock()
        .values_mut()
        .flatten()
        .filter(|e| e.object == second)
        .for_each(|e| e.object = "merged".into());
    assert_eq!(rig.read(0, 4, 10_000, &pattern).await.expect("looked up again"), [4, 6]);
    assert_eq!(rig.metadata.take_lookups(), 2);
    // Nothing is there any more.
    rig.store.inner.delete(&Key::new(&first).expect("a name")).await.expect("in memory");
    rig.reader.footers.remove_if(&first.as_str().into(), |_| true);
    rig.read(0, 0, 10_000, &ReadPattern::default()).await.expect_err("gone for good");
    assert_eq!(rig.metadata.take_lookups(), 1);
}

const LATENCY: Duration = Duration::from_millis(40);

/// How often each object was read, whichever part.
fn by_object(reads: &[(String, std::ops::Range<u64>)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (object, _) in reads {
        *counts.entry(object.as_str()).or_default() += 1;
    }
    counts
}

/// Two readers of one partition, each in its own half of history, take turns. Each is known as sequential: nothing is read
/// twice, extents are looked up by the page, and most GETs are over before they are asked for.
#[tokio::test(start_paused = true)]
async fn two_sequential_readers_of_one_partition_do_not_disturb_each_other() {
    let mut rig = Rig::new(ByteSize::mib(64));
    // Large objects, of five chunks each.
    for _ in 0..8 {
        rig.write(&[part(0, 60, 100_000)]).await;
    }
    rig.store.set_latency(LATENCY);
    let (end, half) = (rig.end(0), rig.end(0) / 2);
    let pattern = ReadPattern::default();
    let started = rig.env.monotonic();
    let mut readers = [(0, half), (half, end)];
    while readers[1].0 < end {
        for (next, end) in &mut readers {
            let read = rig.read(0, *next, 500_000, &pattern).await.expect("sound");
            assert_eq!(read[0], *next);
            *next = (read[read.len() - 1] + 2).min(*end);
        }
    }
    assert_eq!(readers[0].0, half);
    let elapsed = rig.env.monotonic() - started;
    let reads = rig.store.take_reads();
    let distinct: BTreeSet<_> = reads.iter().map(|(object, range)| (object, range.start)).collect();
    assert_eq!(distinct.len(), reads.len(), "nothing is read twice");
    assert_eq!(by_object(&reads).values().copied().collect::<Vec<_>>(), [6; 8], "a footer and five chunks of each");
    let lookups = rig.metadata.take_lookups();
    assert!(lookups <= 2, "{lookups} lookups of extents: one for each reader");
    let one_by_one = LATENCY * u32::try_from(reads.len()).expect("small");
    assert!(elapsed < one_by_one / 4, "{elapsed:?} for {} GETs of {LATENCY:?}", reads.len());
    assert!(rig.store.in_flight_max() <= READ_AHEAD_GETS_MAX + readers.len());
}

/// Catching up over many small objects, as an `object` WAL leaves them: one GET for each object, whoever's records are in
/// it, and several under way at once, past the end of each object.
#[tokio::test(start_paused = true)]
async fn catching_up_over_small_objects_takes_one_get_each() {
    const OBJECTS: usize = 200;
    const PARTITIONS: i32 = 4;
    let mut rig = Rig::new(ByteSize::mib(64));
    for _ in 0..OBJECTS {
        let parts: Vec<Part> = (0..PARTITIONS).map(|partition| part(partition, 2, 5_000)).collect();
        rig.write(&parts).await;
    }
    rig.store.set_latency(LATENCY);
    let patterns: Vec<ReadPattern> = (0..PARTITIONS).map(|_| ReadPattern::default()).collect();
    let started = rig.env.monotonic();
    let mut next = [0; 4];
    while next[3] < rig.end(3) {
        for partition in 0..PARTITIONS {
            let at = usize::try_from(partition).expect("small");
            let read = rig.read(partition, next[at], 25_000, &patterns[at]).await.expect("sound");
            assert_eq!(read[0], next[at]);
            next[at] = read[read.len() - 1] + 2;
        }
    }
    let elapsed = rig.env.monotonic() - started;
    let reads = rig.store.take_reads();
    assert_eq!(reads.len(), OBJECTS);
    assert_eq!(by_object(&reads).len(), OBJECTS, "each once, for all partitions");
    let pages = u64::try_from(OBJECTS.div_ceil(EXTENTS_PAGE)).expect("small");
    let lookups = rig.metadata.take_lookups();
    assert!(lookups <= pages * 4, "{lookups} lookups for {pages} pages of each partition");
    let one_by_one = LATENCY * u32::try_from(OBJECTS).expect("small");
    assert!(elapsed < one_by_one / 3, "{elapsed:?} for {OBJECTS} GETs of {LATENCY:?}");
    assert!(rig.store.in_flight_max() <= READ_AHEAD_GETS_MAX + 1);
}

/// One fetch that spans many small objects sends for several at once, though nobody has read here before; and gives what it
/// has after a while, so that many objects do not take a fetch's whole time.
#[tokio::test(start_paused = true)]
async fn a_read_over_many_objects_is_pipelined_and_ends_in_time() {
    let mut rig = Rig::new(ByteSize::mib(64));
    for _ in 0..300 {
        rig.write(&[part(0, 1, 5_000)]).await;
    }
    rig.store.set_latency(LATENCY);
    let started = rig.env.monotonic();
    let read = rig.read(0, 0, 50_000, &ReadPattern::default()).await.expect("sound");
    assert_eq!(read.len(), 10);
    assert!(rig.env.monotonic() - started <= LATENCY * 3, "ten objects");
    let started = rig.env.monotonic();
    let read = rig.read(0, 100, 50_000_000, &ReadPattern::default()).await.expect("sound");
    let elapsed = rig.env.monotonic() - started;
    assert!(elapsed >= READ_TIME_TARGET && elapsed < READ_TIME_TARGET + LATENCY * 2, "{elapsed:?}");
    assert!(read.len() > 50 && read.len() < 250, "{} objects", read.len());
    // A slow store gives the first object, however long it takes.
    rig.store.set_latency(READ_TIME_TARGET * 4);
    rig.reader
        .chunks
        .remove_if(&(rig.metadata.extents.lock()[&rig::source(0).log][290].object.as_str().into(), 0), |_| true);
    assert!(!rig.read(0, 580, 50_000_000, &ReadPattern::default()).await.expect("sound").is_empty());
}

/// Of a large object with several partitions only the chunks of the one that is read are sent for.
#[tokio::test(start_paused = true)]
async fn chunks_of_other_partitions_are_not_read_ahead() {
    let mut rig = Rig::new(ByteSize::mib(64));
    rig.write(&[part(0, 30, 100_000), part(1, 30, 100_000), part(2, 30, 100_000)]).await;
    rig.write(&[part(1, 1, 500)]).await;
    let pattern = ReadPattern::default();
    let mut next = 0;
    while next < rig.end(1) {
        let read = rig.read(1, next, 200_000, &pattern).await.expect("sound");
        next = read[read.len() - 1] + 2;
    }
    let reads = rig.store.take_reads();
    let chunks: Vec<_> = reads.iter().filter(|(_, range)| range.end - range.start >= CHUNK_SIZE_TARGET / 2).collect();
    assert!(chunks.len() <= 4, "three megabytes lie in at most four chunks: {reads:?}");
    assert_eq!(reads.len(), chunks.len() + 2, "and a footer, and the small object behind it: {reads:?}");
}

/// The latest record of a log whose times rise is found in its last object, not by reading all of it; and the first record
/// at a time by reading one object too.
#[tokio::test(start_paused = true)]
async fn a_search_by_time_reads_one_object() {
    let mut rig = Rig::new(ByteSize::mib(64));
    for _ in 0..50 {
        rig.write(&[part(0, 2, 5_000)]).await;
    }
    let (source, start, end) = (rig::source(0), rig::offset(0), rig::offset(rig.end(0)));
    let at = |seconds: i64| Wanted::AtOrAfter(Timestamp::from_millis(seconds * 1_000));
    for (wanted, expected) in [(Wanted::Latest, Some(199)), (at(101), Some(101)), (at(0), Some(0)), (at(200), None)] {
        rig.reader = ColdReader::new(
            rig.env.clone(),
            Arc::clone(&rig.store) as _,
            Arc::clone(&rig.metadata) as _,
            ByteSize::mib(1),
        );
        let found = rig.reader.search(source, start, end, wanted).await.expect("sound");
        assert_eq!(found.map(|found| found.offset.get()), expected, "{wanted:?}");
        assert_eq!(rig.store.take_reads().len(), usize::from(expected.is_some()), "{wanted:?}");
    }
    let found = rig.reader.search(source, start, rig::offset(150), Wanted::Latest).await.expect("sound");
    assert_eq!(found.map(|found| found.offset.get()), Some(149), "below the end that was asked for");
}
