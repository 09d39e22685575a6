//! Reads of history over a bucket in memory in which every GET is written down: what is read again, and how often.

mod rig;

use forebay_format::Fault;
use forebay_store::{Body, Key, Store};
use forebay_types::ByteSize;

use super::{ColdError, DAMAGE_BELIEVED, ReadPattern};
use rig::{Part, Rig};

const CACHE: ByteSize = ByteSize::mib(16);

/// Two partitions in one object, in one chunk: 0 with four blocks, 1 with one.
async fn two_partitions() -> (Rig, String) {
    let mut rig = Rig::new(CACHE);
    let parts =
        [Part { partition: 0, batches: 8, batch_size: 100_000 }, Part { partition: 1, batches: 4, batch_size: 500 }];
    let name = rig.write(&parts).await;
    (rig, name)
}

/// A bit that flips on the way, in the footer or in a chunk, is nobody's loss: the same bytes are read again, and nobody
/// after that meets the wrong ones.
#[tokio::test(start_paused = true)]
async fn a_read_that_went_wrong_is_read_again() {
    // Reads come in this order: footer, chunk. Every bit of both is under a checksum.
    for (skip, flips) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        for seed in 0..25_u64 {
            let (rig, _) = two_partitions().await;
            for nth in 0..flips {
                rig.store.flip(skip + nth, (seed + nth * 100) * 7_919_777);
            }
            let pattern = ReadPattern::default();
            // Twice, because the second wrong chunk may be wrong where only the other partition looks.
            for (partition, batches) in [(0, 8), (1, 4), (0, 8), (1, 4)] {
                let offsets = rig.read(partition, 0, 10_000_000, &pattern).await.expect("read again");
                assert_eq!(offsets.len(), batches, "{flips} flips after {skip} reads, seed {seed}");
            }
            assert_eq!(rig.store.take_reads().len() as u64, 2 + flips, "each wrong read is read again, and no other");
            rig.read(0, 0, 10_000_000, &pattern).await.expect("sound");
            assert_eq!(rig.store.take_reads(), [], "what is in the cache is right");
        }
    }
}

/// Bytes that are damaged in the bucket are read three times and then called damaged, by object, place and checksum; who
/// asks again gets the same answer without a GET, for a minute. All else in the object is served.
#[tokio::test(start_paused = true)]
async fn damage_is_named_after_three_reads_and_believed_for_a_minute() {
    let (rig, name) = two_partitions().await;
    let key = Key::new(&name).expect("a name of ours");
    let whole = rig.store.inner.get(&key).await.expect("there");
    let mut damaged = whole.to_vec();
    // In the first block of partition 0: two batches of 100,000 bytes.
    damaged[150_000] ^= 1;
    rig.store.inner.put(&key, Body::from(damaged)).await.expect("put");
    let pattern = ReadPattern::default();
    for gets in [4, 0, 0] {
        let error = rig.read(0, 0, 1_000_000, &pattern).await.expect_err("damaged");
        let ColdError::Corrupt(error) = error else { panic!("{error}") };
        assert_eq!((error.object(), error.position()), (Some(&*name), 0));
        assert_eq!(error.partition(), Some(rig::source(0).partition));
        assert!(matches!(error.fault(), Fault::Checksum { .. }), "{error}");
        assert_eq!(rig.store.take_reads().len(), gets, "a footer and three chunks, then nothing");
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

/// A footer that is damaged in the bucket is named after three reads.
#[tokio::test(start_paused = true)]
async fn a_damaged_footer_is_named() {
    let (rig, name) = two_partitions().await;
    let key = Key::new(&name).expect("a name of ours");
    let mut damaged = rig.store.inner.get(&key).await.expect("there").to_vec();
    let at = damaged.len() - 50;
    damaged[at] ^= 1;
    rig.store.inner.put(&key, Body::from(damaged)).await.expect("put");
    let error = rig.read(0, 0, 1_000_000, &ReadPattern::default()).await.expect_err("damaged");
    assert!(matches!(&error, ColdError::Corrupt(error) if error.object() == Some(&*name)), "{error}");
    assert_eq!(rig.store.take_reads().len(), 3);
}
