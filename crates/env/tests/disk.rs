//! Both disks keep the contract of `Disk`, shown by one suite; the simulated one also forgets as its seed says.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use forebay_env::real::RealDisk;
use forebay_env::simulated::{DiskFault, SimDisk, Trace};
use forebay_env::{AlignedBuf, Disk, DiskFile, OpenMode, SECTOR_SIZE, is_unreadable};

fn conformance(disk: &dyn Disk, root: &Path) {
    let kind = |error: std::io::Error| error.kind();

    // Folders: made with all above them, and again without harm.
    let folder = root.join("a/b");
    assert_eq!(disk.list(&folder).map_err(kind), Err(ErrorKind::NotFound));
    disk.create_dir_all(&folder).expect("made");
    disk.create_dir_all(&folder).expect("made twice");
    assert_eq!(disk.list(&root.join("a")).expect("lists"), ["b/"]);

    // Files: created once, read and written at offsets, holes are zeros, the end is the end.
    let one = folder.join("one");
    assert_eq!(disk.open(&one, OpenMode::Read).err().map(kind), Some(ErrorKind::NotFound));
    let file = disk.open(&one, OpenMode::CreateNew).expect("created");
    assert_eq!(disk.open(&one, OpenMode::CreateNew).err().map(kind), Some(ErrorKind::AlreadyExists));
    file.write_all_at(b"later", 5_000).expect("written");
    file.write_all_at(b"first", 0).expect("written");
    file.sync().expect("synced");
    let mut read = [1; 5_005];
    file.read_exact_at(&mut read, 0).expect("read");
    assert_eq!((&read[..6], &read[4_999..]), (&b"first\0"[..], &b"\0later"[..]));
    assert_eq!(file.read_exact_at(&mut read, 1).map_err(kind), Err(ErrorKind::UnexpectedEof));
    file.set_size(4_100).expect("cut");
    file.set_size(5_005).expect("extended");
    file.read_exact_at(&mut read, 0).expect("read");
    assert_eq!(&read[4_999..], &[0; 6], "what was cut off is gone");
    file.allocate(20_000).expect("allocated");
    file.allocate(10).expect("allocating never cuts");
    assert_eq!(file.size().expect("known"), 20_000);
    assert!(disk.open(&one, OpenMode::Read).expect("opened").write_all_at(b"x", 0).is_err(), "opened for reading");

    // Direct: aligned buffers do.
    let mut buf = AlignedBuf::with_capacity(2 * SECTOR_SIZE);
    buf.resize(2 * SECTOR_SIZE, 7);
    let direct = disk.open_direct(&folder.join("direct"), OpenMode::CreateNew).expect("created");
    direct.allocate(1 << 20).expect("allocated");
    direct.write_all_at(&buf, SECTOR_SIZE as u64).expect("written");
    direct.sync().expect("synced");
    let direct = disk.open_direct(&folder.join("direct"), OpenMode::Write).expect("opened");
    buf.resize(3 * SECTOR_SIZE, 0);
    direct.read_exact_at(&mut buf, 0).expect("read");
    assert!(buf[..SECTOR_SIZE].iter().all(|b| *b == 0) && buf[SECTOR_SIZE..].iter().all(|b| *b == 7));

    // Names: a link loses to one that is there, a rename replaces it.
    let two = folder.join("two");
    disk.hard_link(&one, &two).expect("linked");
    assert_eq!(disk.hard_link(&one, &two).map_err(kind), Err(ErrorKind::AlreadyExists));
    assert_eq!(disk.hard_link(&folder.join("none"), &folder.join("x")).map_err(kind), Err(ErrorKind::NotFound));
    disk.remove(&one).expect("removed");
    assert_eq!(disk.remove(&one).map_err(kind), Err(ErrorKind::NotFound));
    disk.rename(&folder.join("direct"), &two).expect("renamed");
    disk.sync_dir(&folder).expect("synced");
    assert_eq!(disk.list(&folder).expect("lists"), ["two"]);
    assert_eq!(disk.open(&two, OpenMode::Read).expect("opened").size().expect("known"), 1 << 20);
    assert_eq!(file.size().expect("an open file outlives its names"), 20_000);

    // The lock: one holder.
    let lock = disk.lock(&root.join("lock")).expect("free");
    assert_eq!(disk.lock(&root.join("lock")).err().map(kind), Some(ErrorKind::WouldBlock));
    drop(lock);
    disk.lock(&root.join("lock")).expect("free again");
}

#[test]
fn the_real_disk_conforms() {
    let root = tempfile::tempdir().expect("a folder");
    conformance(&RealDisk, root.path());
}

#[test]
fn the_simulated_disk_conforms() {
    conformance(&SimDisk::new(1, Trace::default()), Path::new("/data"));
}

const FILE: &str = "/file";

/// A file of eight sectors of `0`, synced, then overwritten with `1` and not synced, crashed; its first bytes by sector.
fn after_crash(seed: u64, before_crash: impl Fn(&SimDisk, &dyn DiskFile)) -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::new(seed, Trace::default());
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew).expect("created");
    file.write_all_at(&vec![b'0'; 8 * SECTOR_SIZE], 0).expect("written");
    file.sync().expect("synced");
    disk.sync_dir(Path::new("/")).expect("synced");
    file.write_all_at(&vec![b'1'; 8 * SECTOR_SIZE], 0).expect("written");
    before_crash(&disk, &*file);
    disk.crash();
    assert_eq!(file.size().expect_err("dead").kind(), ErrorKind::BrokenPipe, "a dead process reads nothing");
    let mut bytes = vec![0; 8 * SECTOR_SIZE];
    let file = disk.open(Path::new(FILE), OpenMode::Read).expect("its name was synced");
    file.read_exact_at(&mut bytes, 0).expect("its size was synced");
    let sectors = bytes.chunks(SECTOR_SIZE).map(|sector| {
        assert!(sector.iter().all(|b| *b == sector[0]), "a sector is never torn");
        sector[0]
    });
    let sectors = sectors.collect();
    (disk, sectors)
}

#[test]
fn a_crash_keeps_what_was_synced_and_may_keep_lose_or_tear_the_rest() {
    let ends: BTreeSet<_> = (0..40).map(|seed| after_crash(seed, |_, _| ()).1).collect();
    assert!(ends.contains(&vec![b'0'; 8]) && ends.contains(&vec![b'1'; 8]), "some seed loses it, some keeps it");
    assert!(ends.len() > 4, "and some tear it");
    for seed in 0..40 {
        assert_eq!(after_crash(seed, |_, file| file.sync().expect("synced")).1, [b'1'; 8], "synced is synced");
        assert_eq!(after_crash(seed, |_, _| ()).1, after_crash(seed, |_, _| ()).1, "a seed decides");
    }
}

#[test]
fn neither_a_failed_sync_nor_a_lying_one_makes_anything_durable() {
    let failed = |disk: &SimDisk, file: &dyn DiskFile| {
        disk.inject(DiskFault::SyncFails { after: 0 });
        assert!(file.sync().is_err());
        file.sync().expect("a later sync succeeds, and promises nothing about what was written before");
    };
    let lied = |disk: &SimDisk, file: &dyn DiskFile| {
        disk.inject(DiskFault::SyncLies);
        file.sync().expect("says yes");
    };
    assert!((0..20).any(|seed| after_crash(seed, failed).1 != [b'1'; 8]));
    assert!((0..20).any(|seed| after_crash(seed, lied).1 != [b'1'; 8]));
}

#[test]
fn names_are_durable_only_after_their_folder_was_synced() {
    let survives = |seed, sync: bool| {
        let disk = SimDisk::new(seed, Trace::default());
        let file = disk.open(Path::new(FILE), OpenMode::CreateNew).expect("created");
        file.sync().expect("synced");
        if sync {
            disk.sync_dir(Path::new("/")).expect("synced");
        }
        disk.crash();
        !disk.files().is_empty()
    };
    assert!((0..20).all(|seed| survives(seed, true)));
    let kept = (0..20).filter(|seed| survives(*seed, false)).count();
    assert!((1..20).contains(&kept), "{kept} of 20 unsynced names were kept");
}

#[test]
fn faults_come_at_their_turn() {
    let disk = SimDisk::new(3, Trace::default());
    let file = disk.open_direct(Path::new(FILE), OpenMode::CreateNew).expect("created");
    assert_eq!(file.write_all_at(b"short", 0).unwrap_err().kind(), ErrorKind::InvalidInput, "not aligned");
    let mut sector = AlignedBuf::with_capacity(SECTOR_SIZE);
    sector.resize(SECTOR_SIZE, 1);
    disk.inject(DiskFault::Capacity(2 * SECTOR_SIZE as u64));
    file.write_all_at(&sector, 0).expect("fits");
    file.write_all_at(&sector, 4096).expect("fits");
    file.write_all_at(&sector, 0).expect("overwriting needs no room");
    assert_eq!(file.write_all_at(&sector, 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.allocate(8193).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.heal();
    disk.inject(DiskFault::WriteFails { after: 1 });
    file.write_all_at(&sector, 8192).expect("not its turn");
    assert!(file.write_all_at(&sector, 8192).is_err(), "its turn");
    file.write_all_at(&sector, 8192).expect("once only");
    disk.flip_byte(Path::new(FILE), 100).expect("there");
    file.read_exact_at(&mut sector, 0).expect("read");
    assert_eq!((sector[99], sector[100]), (1, 0xfe));
}

#[test]
fn a_bad_sector_fails_every_read_that_touches_it() {
    let disk = SimDisk::new(3, Trace::default());
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew).expect("created");
    file.write_all_at(&[7; 4 * SECTOR_SIZE], 0).expect("written");
    file.sync().expect("synced");
    disk.sync_dir(Path::new("/")).expect("synced");
    disk.fail_reads(Path::new(FILE), 4096..8192).expect("there");
    disk.rename(Path::new(FILE), Path::new("/moved")).expect("there");
    disk.sync_dir(Path::new("/")).expect("synced");
    disk.crash();
    let file = disk.open(Path::new("/moved"), OpenMode::Read).expect("there");
    let reads = |offset, size| file.read_exact_at(&mut vec![0; size], offset);
    for (offset, size) in [(4096, 4096), (0, 4097), (8191, 1), (0, 16384)] {
        assert!(is_unreadable(&reads(offset, size).expect_err("touches it")), "{size} from {offset}");
    }
    reads(0, 4096).expect("before it");
    reads(8192, 8192).expect("behind it");
    assert!(!is_unreadable(&reads(8192, 8193).expect_err("past the end")));
    disk.heal();
    reads(0, 16384).expect("well again");
}

#[test]
fn one_seed_leaves_one_trace() {
    let run = |seed| {
        let trace = Trace::default();
        let disk = SimDisk::new(seed, trace.clone());
        conformance(&disk, Path::new("/data"));
        disk.crash();
        (trace.digest(), trace.events(), disk.files())
    };
    assert_eq!(run(5), run(5));
    assert!(run(5).1 > 20, "every change is seen");
}
