//! Every kind of WAL keeps the promises of one suite, and the suite finds a WAL that forgets to sync.

mod media;

use forebay_env::FailPoint;
use forebay_env::simulated::{DiskFault, SimDisk, Trace};
use forebay_store::FaultRates;
use forebay_wal::conformance::{CRASH_POINTS, decay, every_crash, orderly, zombie};
use media::{Decay, InBucket, InMemory, OnRealDisk, OnSimDisk};
use parking_lot::Mutex;

#[tokio::test(start_paused = true)]
async fn a_disk_wal_is_orderly() {
    orderly(&OnSimDisk::new(1)).await.expect("keeps its promises");
}

#[tokio::test]
async fn a_disk_wal_on_this_machine_is_orderly() {
    orderly(&OnRealDisk(tempfile::tempdir().expect("a folder"))).await.expect("keeps its promises");
}

#[tokio::test(start_paused = true)]
async fn an_object_wal_is_orderly_in_any_weather() {
    orderly(&InBucket::new(1, FaultRates::default())).await.expect("keeps its promises");
    for seed in 0..20 {
        orderly(&InBucket::new(seed, FaultRates::STORMY)).await.expect("keeps its promises");
    }
}

#[tokio::test(start_paused = true)]
async fn a_memory_wal_is_orderly() {
    orderly(&InMemory::default()).await.expect("keeps its promises");
}

#[tokio::test(start_paused = true)]
async fn a_disk_wal_survives_a_crash_at_every_step() {
    let mut struck = Vec::new();
    for seed in 0..30 {
        let run = every_crash(&OnSimDisk::new(seed), seed).await;
        struck.extend(run.unwrap_or_else(|violation| panic!("{violation}")));
    }
    assert_struck(&struck);
}

#[tokio::test]
async fn a_disk_wal_on_this_machine_survives_the_death_of_its_process_at_every_step() {
    for seed in 0..2 {
        let medium = OnRealDisk(tempfile::tempdir().expect("a folder"));
        every_crash(&medium, seed).await.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_wal_survives_a_crash_at_every_step() {
    let mut struck = Vec::new();
    for seed in 0..24 {
        let rates = if seed % 2 == 0 { FaultRates::default() } else { FaultRates::STORMY };
        let run = every_crash(&InBucket::new(seed, rates), seed).await;
        struck.extend(run.unwrap_or_else(|violation| panic!("{violation}")));
    }
    assert_struck(&struck);
}

#[tokio::test(start_paused = true)]
async fn a_memory_wal_survives_the_end_of_its_task() {
    for seed in 0..20 {
        every_crash(&InMemory::default(), seed).await.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_wal_is_sealed_under_a_live_writer() {
    for seed in 0..30 {
        let rates = if seed % 2 == 0 { FaultRates::default() } else { FaultRates::STORMY };
        zombie(&InBucket::new(seed, rates), seed).await.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_wal_tells_what_decayed() {
    decay(&OnSimDisk::new(1)).await.unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test(start_paused = true)]
async fn a_disk_wal_tells_what_its_disk_cannot_read() {
    let medium = OnSimDisk { decay: Decay::Unreadable(Mutex::default()), ..OnSimDisk::new(1) };
    decay(&medium).await.unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test]
async fn a_disk_wal_on_this_machine_tells_what_decayed() {
    let medium = OnRealDisk(tempfile::tempdir().expect("a folder"));
    decay(&medium).await.unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test(start_paused = true)]
async fn an_object_wal_tells_what_decayed() {
    decay(&InBucket::new(1, FaultRates::default())).await.unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test(start_paused = true)]
async fn a_memory_wal_tells_what_decayed() {
    decay(&InMemory::default()).await.unwrap_or_else(|violation| panic!("{violation}"));
}

#[tokio::test(start_paused = true)]
async fn a_seed_does_the_same_input_and_output_twice() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let trace = Trace::default();
        let medium = OnSimDisk { disk: SimDisk::new(11, trace.clone()), ..OnSimDisk::new(11) };
        every_crash(&medium, 11).await.expect("acknowledged records survive");
        digests.push((trace.digest(), trace.events()));
    }
    assert_eq!(digests[0], digests[1]);
    assert!(digests[0].1 > 50, "the trace saw the writes and syncs");
}

/// A suite that never crashes where it says would show nothing.
fn assert_struck(struck: &[FailPoint]) {
    for point in CRASH_POINTS {
        let times = struck.iter().filter(|p| **p == point).count();
        assert!(times >= 10, "{point} struck {times} times");
    }
}

/// The planted bug: a WAL that writes and does not sync. Killing the process would not show it; losing power does.
#[tokio::test(start_paused = true)]
async fn a_forgotten_sync_is_found() {
    let forgets = |disk: &SimDisk| disk.inject(DiskFault::SyncLies);
    let mut found = 0;
    for seed in 0..10 {
        let medium = OnSimDisk { after_open: forgets, ..OnSimDisk::new(seed) };
        let broken = every_crash(&medium, seed).await;
        // Either records are missing, or blocks are half there that were said to be whole.
        let lost = |v: String| v.contains("acknowledged records are lost") || v.contains("nothing decayed, yet");
        found += u32::from(broken.is_err_and(|v| lost(v.to_string())));
    }
    assert_eq!(found, 10, "every seed finds it");
}
