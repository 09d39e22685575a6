//! Every provider and layer against the suite, and what is theirs alone: faults, crashes, lies.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_env::simulated::{DiskFault, SimDisk, Trace, parts};
use forebay_env::{Env, real};
use forebay_store::file::FileStore;
use forebay_store::memory::MemoryStore;
use forebay_store::{
    Body, Bucket, BucketUrl, CreateError, Created, Fault, FaultRates, Faulty, Key, Operation, Prefix, ProbeError,
    Purpose, Retrying, Store, StoreErrorKind, conformance, create_exact, probe,
};

fn key(text: &str) -> Key {
    Key::new(text).expect("legal")
}

fn simulated(seed: u64) -> (Env, SimDisk) {
    let disk = SimDisk::new(seed, Trace::default());
    (Env::new(parts(seed, &disk)), disk)
}

/// A store that can go wrong, and one above it that retries.
fn faulty(env: &Env, seed: u64) -> (Arc<Faulty>, Arc<dyn Store>) {
    let faulty = Arc::new(Faulty::with_seed(env, Arc::new(MemoryStore::new(env)), seed));
    let store = Arc::new(Retrying::new(env, Arc::<Faulty>::clone(&faulty)));
    (faulty, store)
}

#[tokio::test]
async fn memory_keeps_the_promises_of_a_store() {
    let env = real::env();
    conformance::run(&env, Arc::new(MemoryStore::new(&env))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_promises_of_a_store() {
    // On the real disk and with real threads, where the races are races.
    let env = real::env();
    let folder = tempfile::tempdir().expect("a folder");
    let url: BucketUrl = format!("file://{}/new/bucket", folder.path().display()).parse().expect("legal");
    let bucket = Bucket::open(&env, &url).await.expect("the folder is made");
    bucket.probe().await.expect("a folder keeps its promises");
    conformance::run(&env, bucket.store(Purpose::Check)).await;
}

#[tokio::test(start_paused = true)]
async fn a_simulated_folder_keeps_the_promises_of_a_store() {
    let (env, _) = simulated(1);
    let store = FileStore::open(&env, &PathBuf::from("/bucket")).await.expect("an empty disk");
    conformance::run(&env, Arc::new(store)).await;
}

#[tokio::test(start_paused = true)]
async fn the_promises_hold_in_a_storm() {
    // 503s, lost answers, time-outs either way, slowness and false conflicts, one request in ten, five seeds.
    for seed in 1..=5 {
        let (env, _) = simulated(seed);
        let (faulty, store) = faulty(&env, seed);
        faulty.set_rates(FaultRates::STORMY);
        conformance::run(&env, store).await;
        assert!(faulty.requests() > 500, "the storm had requests to strike");
    }
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_storm() {
    // Two runs of one seed see the same requests and end at the same time; another seed does not.
    let run = |seed| async move {
        let (env, _) = simulated(7);
        let (faulty, store) = faulty(&env, seed);
        faulty.set_rates(FaultRates::STORMY);
        let began = env.monotonic();
        for number in 0..200 {
            let at = key(&format!("a/{number}"));
            create_exact(&env, &*store, &at, Body::from(b"x")).await.expect("settled");
        }
        (faulty.requests(), env.monotonic() - began)
    };
    let (one, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[tokio::test(start_paused = true)]
async fn every_trap_of_a_create_is_passed() {
    // Each scripted fault on the way to one name, and what the caller is told in the end.
    let (env, _) = simulated(1);
    let create = Operation::Create;
    let cases = [
        ("refused once", vec![(create, Fault::Unavailable)], Created::New),
        ("own success reported as taken", vec![(create, Fault::LostAnswer)], Created::Mine),
        ("unknown, and not done", vec![(create, Fault::TimeoutBefore)], Created::New),
        ("unknown, and done", vec![(create, Fault::TimeoutAfter)], Created::Mine),
        ("taken, and nothing there", vec![(create, Fault::FalseConflict)], Created::New),
        ("slow beyond the limit", vec![(create, Fault::Slow(Duration::from_secs(90)))], Created::New),
        (
            "the reading back fails too",
            vec![(create, Fault::LostAnswer), (Operation::Read, Fault::Unavailable)],
            Created::Mine,
        ),
        (
            "the reading back lies once",
            vec![(create, Fault::LostAnswer), (Operation::Read, Fault::Corrupt)],
            Created::Mine,
        ),
    ];
    for (what, script, expected) in cases {
        let (faulty, store) = faulty(&env, 1);
        for (operation, fault) in script {
            faulty.script(operation, fault);
        }
        let at = key("wal/1/2/3");
        let created = create_exact(&env, &*store, &at, Body::from(b"group")).await;
        assert_eq!(created.unwrap_or_else(|error| panic!("{what}: {error}")), expected, "{what}");
        assert!(faulty.script_is_done(), "{what}: every fault struck");
        assert_eq!(store.get(&at).await.expect("there"), "group", "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_hide_that_another_won() {
    // Ours is lost on the way, another's is there: we are told theirs, with the bytes, once two reads agree.
    let (env, _) = simulated(1);
    let (faulty, store) = faulty(&env, 1);
    store.create(&key("n"), Body::from(b"fence")).await.expect("theirs");
    faulty.script(Operation::Create, Fault::TimeoutBefore);
    faulty.script(Operation::Read, Fault::Corrupt);
    match create_exact(&env, &*store, &key("n"), Body::from(b"group")).await {
        Err(CreateError::Theirs { found, .. }) => assert_eq!(found, "fence"),
        other => panic!("theirs: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_in_bounded_time_and_is_told_apart() {
    // Nothing sent through: nothing happened. One attempt unknown before the outage: nobody may say that.
    let (env, _) = simulated(1);
    let (faulty, store) = faulty(&env, 1);
    let began = env.monotonic();
    faulty.set_outage(true);
    let told = |error: CreateError| match error {
        CreateError::Store(error) => error.kind(),
        theirs @ CreateError::Theirs { .. } => panic!("{theirs}"),
    };
    let error = create_exact(&env, &*store, &key("n"), Body::from(b"x")).await.expect_err("out");
    assert_eq!(told(error), StoreErrorKind::DidNotHappen);
    let error = store.get(&key("n")).await.expect_err("out");
    assert_eq!((error.kind(), error.is_transient()), (StoreErrorKind::DidNotHappen, true));
    let error = store.delete(&key("n")).await.expect_err("out");
    assert_eq!(error.kind(), StoreErrorKind::DidNotHappen);

    faulty.set_outage(false);
    faulty.script(Operation::Create, Fault::LostAnswer);
    for _ in 0..8 {
        faulty.script(Operation::Read, Fault::Unavailable);
    }
    let settled = create_exact(&env, &*store, &key("m"), Body::from(b"x")).await;
    assert_eq!(settled.expect("the reading back succeeds in the end"), Created::Mine);
    assert!(env.monotonic() - began < Duration::from_mins(3), "bounded, however bad it is");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_store_does_not_hang_its_callers() {
    // Every read is silent for two minutes: the caller is told within one call's limit and one attempt's.
    let (env, _) = simulated(1);
    let (faulty, store) = faulty(&env, 1);
    faulty.set_rates(FaultRates { timeout_before: 1000, ..FaultRates::default() });
    let began = env.monotonic();
    let error = store.get(&key("n")).await.expect_err("silent");
    assert_eq!(error.kind(), StoreErrorKind::DidNotHappen);
    assert!(env.monotonic() - began <= Duration::from_secs(81));
    let error = store.put(&key("n"), Body::from(b"x")).await.expect_err("silent");
    assert_eq!(error.kind(), StoreErrorKind::MayHaveHappened);
}

#[tokio::test(start_paused = true)]
async fn a_lying_store_is_refused_by_name() {
    // One that ignores conditions, one that decays what it keeps, and one in an outage; then an honest one in a storm.
    let (env, _) = simulated(1);
    let (faulty, store) = faulty(&env, 1);
    faulty.set_ignores_conditions(true);
    let refused = probe(&env, &*store).await.expect_err("it overwrites");
    assert!(matches!(refused, ProbeError::IgnoresCreateIfAbsent { .. }), "{refused}");
    assert!(refused.to_string().starts_with("memory: created an object where there was one already"), "{refused}");

    faulty.set_ignores_conditions(false);
    faulty.set_rates(FaultRates { corrupt: 1000, ..FaultRates::default() });
    let refused = probe(&env, &*store).await.expect_err("it gives back other bytes");
    assert!(matches!(refused, ProbeError::OtherBytes { .. }), "{refused}");

    faulty.set_outage(true);
    let refused = probe(&env, &*store).await.expect_err("it cannot be asked");
    assert!(matches!(refused, ProbeError::Unreachable { .. }), "{refused}");

    faulty.set_outage(false);
    faulty.set_rates(FaultRates::STORMY);
    for _ in 0..50 {
        probe(&env, &*store).await.expect("honest, if stormy");
    }
    faulty.set_rates(FaultRates::default());
    let left = store.list(&Prefix::new("probe").expect("legal"), None, 100).await.expect("listed");
    assert!(left.len() <= 1, "the check leaves nothing behind, unless its last delete failed: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn every_request_is_counted_where_it_is_made() {
    // One create in two attempts, one read, one object missing: counted by operation and purpose, repeats included.
    let (env, _) = simulated(1);
    let faulty = Arc::new(Faulty::with_seed(&env, Arc::new(MemoryStore::new(&env)), 1));
    let bucket = Bucket::over(&env, Arc::<Faulty>::clone(&faulty));
    let (wal, fetch) = (bucket.store(Purpose::Wal), bucket.store(Purpose::Fetch));
    faulty.script(Operation::Create, Fault::Unavailable);
    create_exact(&env, &*wal, &key("n"), Body::from(b"12345")).await.expect("created");
    faulty.script(Operation::Read, Fault::Unavailable);
    fetch.get_range(&key("n"), 1..4).await.expect("read");
    fetch.get(&key("m")).await.expect_err("missing");
    let row = |operation, purpose| {
        let row = bucket.meter().row(operation, purpose);
        (row.requests, row.failures, row.bytes_sent, row.bytes_received)
    };
    assert_eq!(row(Operation::Create, Purpose::Wal), (2, 1, 10, 0));
    assert_eq!(row(Operation::Read, Purpose::Fetch), (3, 1, 0, 3));
    assert_eq!(row(Operation::Read, Purpose::Wal), (0, 0, 0, 0));
    let all: u64 = bucket.meter().rows().iter().map(|row| row.requests).sum();
    assert_eq!((all, faulty.requests()), (5, 5), "nothing passes the meter by");
}

#[tokio::test(start_paused = true)]
async fn a_folder_survives_a_crash_at_any_point() {
    // The disk loses power after each create, and after each failed one, for many seeds: what was answered or seen is
    // whole afterwards, what is there at all is whole, and no stage is left once the folder is opened again.
    let bytes = |n: usize| Bytes::from(vec![u8::try_from(n % 251).expect("small"); 1000 + n * 9_000]);
    for seed in 0..60_u64 {
        let (env, disk) = simulated(seed);
        let root = PathBuf::from("/data/bucket");
        let store = FileStore::open(&env, &root).await.expect("opens");
        let mut sure = Vec::new();
        if seed % 3 == 1 {
            disk.inject(DiskFault::SyncFails { after: seed });
        } else if seed % 3 == 2 {
            disk.inject(DiskFault::WriteFails { after: seed / 2 });
        }
        for n in 0..16_usize {
            let at = key(&format!("{:02x}/data/1/{n:020}", n % 3));
            if store.create(&at, Body::from(bytes(n))).await.is_ok() {
                sure.push(n);
            }
            // Seen by a reader: as good as answered.
            if n % 5 == 0 && store.get(&at).await.is_ok_and(|found| found == bytes(n)) && !sure.contains(&n) {
                sure.push(n);
            }
        }
        disk.crash();
        drop(store);
        let store = FileStore::open(&env, &root).await.expect("opens again");
        let there = store.list(&Prefix::all(), None, 1000).await.expect("listed");
        for object in &there {
            let n: usize = object.key.as_str().rsplit('/').next().expect("a number").parse().expect("a number");
            assert!(store.get(&object.key).await.expect("there") == bytes(n), "seed {seed}: object {n} is whole");
        }
        for n in &sure {
            let name = format!("{:02x}/data/1/{n:020}", n % 3);
            assert!(there.iter().any(|o| o.key.as_str() == name), "seed {seed}: object {n} was answered and is gone");
        }
        assert!(sure.len() > 8, "seed {seed}: most creates succeed");
        let stages: Vec<_> =
            disk.files().into_iter().filter(|path| path.to_string_lossy().contains(".staging/")).collect();
        assert_eq!(stages.len(), 1, "seed {seed}: only the lock of the living: {stages:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_saw_is_there_after_a_crash() {
    // The sync of the name fails, so the create is unknown; a reader sees the object; then the power goes. Seen is kept.
    for seed in 0..40 {
        let (env, disk) = simulated(seed);
        let store = FileStore::open(&env, &PathBuf::from("/b")).await.expect("opens");
        store.create(&key("a/first"), Body::from(b"x")).await.expect("the folder is known");
        // The next sync is that of the staged bytes, the one after it that of the name.
        disk.inject(DiskFault::SyncFails { after: 1 });
        let error = store.create(&key("a/n"), Body::from(b"seen")).await.expect_err("the sync failed");
        assert_eq!(error.kind(), StoreErrorKind::MayHaveHappened, "seed {seed}: {error:?}");
        assert_eq!(store.get(&key("a/n")).await.expect("linked"), "seen");
        disk.crash();
        let store = FileStore::open(&env, &PathBuf::from("/b")).await.expect("opens again");
        assert_eq!(store.get(&key("a/n")).await.expect("seen before, so kept"), "seen", "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_and_heals() {
    // A disk with room for one object more and not for two: full, nothing left behind, and well again with room.
    let (env, disk) = simulated(1);
    let store = FileStore::open(&env, &PathBuf::from("/b")).await.expect("opens");
    disk.inject(DiskFault::Capacity(300_000));
    let body = || Body::from(vec![7; 200_000]);
    store.create(&key("a"), body()).await.expect("room for one");
    let error = store.create(&key("b"), body()).await.expect_err("no room for two");
    assert_eq!(error.kind(), StoreErrorKind::Full);
    assert_eq!(store.get(&key("b")).await.expect_err("nothing").kind(), StoreErrorKind::NotFound);
    store.delete(&key("a")).await.expect("deleted");
    store.create(&key("b"), body()).await.expect("what the failed one took is free again");
}

#[tokio::test]
async fn the_stages_of_the_living_stay() {
    // Two stores on one folder: opening the second sweeps what the dead left and not what the first holds.
    let env = real::env();
    let folder = tempfile::tempdir().expect("a folder");
    let first = FileStore::open(&env, folder.path()).await.expect("opens");
    let staging = folder.path().join(".staging");
    let dead = staging.join("00000000000000aa-7");
    std::fs::write(&dead, b"half an obj").expect("written");
    let second = FileStore::open(&env, folder.path()).await.expect("opens beside it");
    assert!(!dead.exists(), "the stage of a dead process is swept");
    first.create(&key("a"), Body::from(b"1")).await.expect("the first still writes");
    let error = second.create(&key("a"), Body::from(b"2")).await.expect_err("taken");
    assert_eq!(error.kind(), StoreErrorKind::AlreadyExists);
    let locks = std::fs::read_dir(&staging).expect("listed").count();
    assert_eq!(locks, 2, "a lock each");
    // What is not ours in the folder is neither listed nor touched.
    std::fs::write(folder.path().join("not a key"), b"x").expect("written");
    assert_eq!(second.list(&Prefix::all(), None, 10).await.expect("listed").len(), 1);
}
