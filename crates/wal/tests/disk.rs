//! The `disk` kind where it differs: damage, a full disk, failing I/O, segments that come round again.

mod media;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_env::simulated::{DiskFault, SimDisk, Trace};
use forebay_env::{Disk, Env, OpenMode};
use forebay_format::{LogEnd, WalEntry};
use forebay_types::{ByteSize, LogId, PartitionIndex, WalSequence};
use forebay_wal::conformance::{Numbered, owner};
use forebay_wal::providers::disk::{DiskConfig, DiskProvider, DiskSealer};
use forebay_wal::{
    CorruptRange, DurableGroup, Publisher, SealError, SealErrorKind, Sealed, SealedContents, Sealer, Wal, WalConfig,
    WalEnded, WalError, WalErrorKind, WalOwner,
};
use media::{Part, disk_config, flip_block};

struct Nobody;

impl Publisher for Nobody {
    fn publish(&self, _: DurableGroup) {}
    fn ended(&self, _: &WalError) {}
}

fn env(disk: &SimDisk) -> Env {
    Env::new(forebay_env::simulated::parts(1, disk))
}

fn new_disk() -> SimDisk {
    SimDisk::new(1, Trace::default())
}

async fn open(disk: &SimDisk, config: DiskConfig) -> Result<Wal, WalError> {
    let env = env(disk);
    let provider = DiskProvider::open(&env, config, owner(1), |_, _, _| true).await?;
    Ok(Wal::start(&env, Box::new(provider), Arc::new(Nobody), WalConfig::default()))
}

/// Writes entries from..to, each a group of its own.
async fn write(wal: &Wal, numbers: std::ops::Range<u64>, size: usize) -> Result<(), WalEnded> {
    for number in numbers {
        let entry = Numbered { epoch: owner(1).epoch, number }.entry(size);
        let mut admission = wal.admit(entry.encoded_size()).await?;
        let position = wal.append(&mut admission, entry);
        drop(admission);
        wal.durable(position).await?;
    }
    Ok(())
}

async fn try_seal(disk: &SimDisk, of: &WalOwner, committed: Option<u64>) -> Result<Sealed, SealError> {
    let sealer = DiskSealer::new(&env(disk), "/wal".into(), of.cluster.clone());
    sealer.seal(of.broker, of.epoch, committed.map(WalSequence::new)).await
}

async fn seal(disk: &SimDisk, committed: Option<u64>) -> Sealed {
    try_seal(disk, &owner(1), committed).await.expect("the disk answers")
}

/// The numbers of the entries that come back.
async fn replayed(sealed: Sealed) -> Vec<u64> {
    let SealedContents::Entries(replay) = sealed.contents else { panic!("a disk holds entries") };
    let groups = replay.collect().await.expect("the disk answers");
    let records: Vec<Bytes> = groups.into_iter().flat_map(|(_, entries)| entries).map(|e| e.records).collect();
    records.iter().map(|r| Numbered::of(r).expect("whole").number).collect()
}

fn segment(slot: u64) -> PathBuf {
    format!("/wal/{slot:08}.segment").into()
}

/// Blocks of one entry of 300 bytes each take one sector, the first at sector 1.
fn sector(block: u64) -> u64 {
    (1 + block) * 4096
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_wrote_nothing_ends_where_it_began() {
    let disk = new_disk();
    assert_eq!(seal(&disk, None).await.end, WalSequence::ZERO, "without a folder");
    drop(open(&disk, disk_config("/wal")).await.expect("opens"));
    assert_eq!(seal(&disk, None).await.end, WalSequence::ZERO, "with a segment that was never used");
    assert_eq!(seal(&disk, Some(7)).await.end, WalSequence::new(8), "with all of it committed and gone");
}

#[tokio::test(start_paused = true)]
async fn a_bad_block_below_an_acknowledged_one_is_corruption_and_named() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..12, 300).await.expect("written");
    disk.flip_byte(&segment(0), sector(4) + 200).expect("there");
    let sealed = seal(&disk, None).await;
    assert_eq!(sealed.end, WalSequence::new(12));
    let [corrupt] = &sealed.corrupt[..] else { panic!("one corrupt range: {:?}", sealed.corrupt) };
    assert_eq!((corrupt.first.get(), corrupt.end.get(), corrupt.committed), (4, 5, false));
    assert!(corrupt.what.starts_with("/wal/00000000.segment: the WAL block at byte 20480 "), "{}", corrupt.what);
    let lost = Numbered { epoch: owner(1).epoch, number: 4 };
    let [gap] = &corrupt.gaps[..] else { panic!("one gap: {:?}", corrupt.gaps) };
    assert_eq!((gap.partition, gap.end, corrupt.unknown), (lost.partition(), lost.offset().next(), 0));
    assert_eq!(replayed(sealed).await, [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11], "replay goes on behind it");
    let behind = seal(&disk, Some(4)).await;
    assert!(behind.corrupt.iter().all(|c| c.committed), "what is committed is no loss: {:?}", behind.corrupt);
    assert_eq!(replayed(behind).await, [5, 6, 7, 8, 9, 10, 11]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_header_is_corruption_too_and_a_whole_lost_sector_is() {
    for damaged in [vec![0], vec![20, 2000]] {
        let disk = new_disk();
        write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..6, 300).await.expect("written");
        for byte in damaged {
            disk.flip_byte(&segment(0), sector(2) + byte).expect("there");
            disk.flip_byte(&segment(0), sector(3) + byte).expect("there");
        }
        let sealed = seal(&disk, None).await;
        let corrupt: Vec<_> = sealed.corrupt.iter().map(|c| (c.first.get(), c.end.get())).collect();
        assert_eq!((sealed.end.get(), &corrupt[..]), (6, &[(2, 4)][..]));
        assert_eq!(replayed(sealed).await, [0, 1, 4, 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_last_block_is_a_torn_write_and_cut() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..6, 300).await.expect("written");
    disk.flip_byte(&segment(0), sector(5) + 200).expect("there");
    let sealed = seal(&disk, None).await;
    assert!(sealed.corrupt.is_empty(), "nothing says that it was acknowledged: {:?}", sealed.corrupt);
    assert_eq!(sealed.end, WalSequence::new(5));
    assert_eq!(replayed(sealed).await, [0, 1, 2, 3, 4]);
    // The head of the torn block still tells what was acknowledged before it.
    disk.flip_byte(&segment(0), sector(4) + 200).expect("there");
    let sealed = seal(&disk, None).await;
    assert_eq!((sealed.end.get(), sealed.corrupt.len()), (5, 1));
    assert_eq!(replayed(sealed).await, [0, 1, 2, 3]);
}

/// What sealing gives, without the words in which a corrupt range is described.
async fn summary(disk: &SimDisk, committed: Option<u64>) -> String {
    let sealed = seal(disk, committed).await;
    let tell = |r: &CorruptRange| format!("{} {} {} {:?} {}", r.first, r.end, r.committed, r.gaps, r.unknown);
    let corrupt: Vec<String> = sealed.corrupt.iter().map(tell).collect();
    format!("end {}, corrupt {corrupt:?}, ", sealed.end) + &format!("replayed {:?}", replayed(sealed).await)
}

/// Over three segments: their headers, the first, second and last of the fifteen sectors of each block, the last block
/// too, and what was never written.
#[tokio::test(start_paused = true)]
async fn an_unreadable_sector_is_judged_as_a_flipped_byte_in_it_is() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..10, 60_000).await.expect("written");
    let mut outcomes = BTreeSet::new();
    let sectors = (0..3).flat_map(|slot| (0..64).map(move |sector| (slot, sector)));
    for (slot, sector) in sectors.filter(|(_, sector)| sector % 15 < 3) {
        for committed in [None, Some(4)] {
            disk.flip_byte(&segment(slot), sector * 4096).expect("there");
            let flipped = summary(&disk, committed).await;
            disk.flip_byte(&segment(slot), sector * 4096).expect("there");
            disk.fail_reads(&segment(slot), sector * 4096..(sector + 1) * 4096).expect("there");
            assert_eq!(summary(&disk, committed).await, flipped, "sector {sector} of {slot}, {committed:?} committed");
            disk.heal();
            outcomes.insert(flipped);
        }
    }
    assert!(outcomes.len() > 15, "each block is lost once, or cut off: {outcomes:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_sector_is_named_with_what_the_disk_said() {
    let named = async |lost: std::ops::Range<u64>| {
        let disk = new_disk();
        write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..6, 60_000).await.expect("written");
        disk.fail_reads(&segment(0), lost).expect("there");
        let sealed = seal(&disk, None).await;
        let [corrupt] = &sealed.corrupt[..] else { panic!("one corrupt range: {:?}", sealed.corrupt) };
        format!("{} to {}: {}", corrupt.first, corrupt.end, corrupt.what)
    };
    // Block 1 begins at sector 16.
    let block = "1 to 2: /wal/00000000.segment: the WAL block at byte 65536 cannot be read: the disk fails at byte";
    assert_eq!(named(65_536..65_537).await, format!("{block} 65536: Input/output error (os error 5)"), "its header");
    assert_eq!(named(90_000..99_000).await, format!("{block} 86016: Input/output error (os error 5)"), "its records");
}

/// A disk that is gone gives the same error as a bad sector, wherever it is read.
#[tokio::test(start_paused = true)]
async fn a_segment_of_which_nothing_can_be_read_is_not_called_lost() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..10, 60_000).await.expect("written");
    for gone in [&[0, 1, 2][..], &[1]] {
        for slot in gone {
            disk.fail_reads(&segment(*slot), 0..u64::MAX).expect("there");
        }
        let refused = try_seal(&disk, &owner(1), None).await.expect_err("nothing is known");
        assert_eq!(refused.kind(), SealErrorKind::Retry);
        let source = std::error::Error::source(&refused).expect("the disk's").to_string();
        let name = segment(gone[0]).display().to_string();
        assert_eq!(source, format!("no part of {name} can be read: Input/output error (os error 5)"));
        let refused = open(&disk, disk_config("/wal")).await.expect_err("nothing is known");
        assert!(matches!(refused, WalError::Prepare { .. }), "{refused}");
        disk.heal();
        assert_eq!(disk.files().len(), 3, "no file was removed: {:?}", disk.files());
        assert_eq!(replayed(seal(&disk, None).await).await, (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_becomes_unreadable_during_replay_is_corruption_to_the_next_seal() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..6, 300).await.expect("written");
    let SealedContents::Entries(replay) = seal(&disk, None).await.contents else { panic!("a disk holds entries") };
    disk.fail_reads(&segment(0), sector(2)..sector(3)).expect("there");
    let broken = replay.collect().await.expect_err("block 2 is gone");
    assert!(matches!(broken, SealError::Changed { sequence, .. } if sequence.get() == 2), "{broken}");
    assert_eq!(broken.kind(), SealErrorKind::Retry);
    assert_eq!(replayed(seal(&disk, None).await).await, [0, 1, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_segment_with_an_unreadable_header_is_not_used_again() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..10, 60_000).await.expect("written");
    // The last one would be the first to be used.
    disk.fail_reads(&segment(2), 0..4096).expect("there");
    let env = env(&disk);
    let provider = DiskProvider::open(&env, disk_config("/wal"), owner(2), |_, _, _| true).await.expect("opens");
    assert_eq!(disk.files(), [segment(0), segment(1)]);
    let wal = Wal::start(&env, Box::new(provider), Arc::new(Nobody), WalConfig::default());
    write(&wal, 0..10, 60_000).await.expect("written");
    assert_eq!(disk.files(), [segment(0), segment(1), segment(2)], "another took its place");
    for slot in 0..3 {
        let file = disk.open(&segment(slot), OpenMode::Read).expect("there");
        file.read_exact_at(&mut [0; 4096], 0).expect("its header can be read");
    }
    let sealed = try_seal(&disk, &owner(2), None).await.expect("the disk answers");
    assert_eq!((sealed.end.get(), sealed.corrupt.len()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_segment_header_loses_nothing_and_a_lost_segment_is_named() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..10, 60_000).await.expect("written");
    assert_eq!(disk.files().len(), 3, "four blocks of sixteen sectors fill most of a segment: {:?}", disk.files());
    disk.flip_byte(&segment(1), 30).expect("there");
    assert_eq!(replayed(seal(&disk, None).await).await, (0..10).collect::<Vec<_>>());
    disk.remove(&segment(1)).expect("there");
    let sealed = seal(&disk, None).await;
    let corrupt: Vec<_> =
        sealed.corrupt.iter().map(|c| (c.first.get(), c.end.get(), c.gaps.len(), c.unknown)).collect();
    assert_eq!(corrupt, [(4, 8, 3, 0)], "entry 8 tells what all three partitions lost");
    assert_eq!(replayed(sealed).await, [0, 1, 2, 3, 8, 9]);
}

/// What group 10 of 12 held, where it and so many parts of others are unreadable: how far the sealer says that each
/// partition came, and what it cannot say.
async fn told(parts: &[(u64, Part)]) -> String {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..12, 300).await.expect("written");
    for (group, part) in parts {
        flip_block(&disk, Path::new("/wal"), &owner(1), WalSequence::new(*group), *part);
    }
    let sealed = seal(&disk, None).await;
    let tell = |range: &CorruptRange| {
        let gaps = range.gaps.iter().map(|gap| format!("{} up to {}", gap.partition.partition, gap.end));
        let mut words: Vec<String> = gaps.collect();
        let partitions = (0..3).map(|number| Numbered { epoch: owner(1).epoch, number }.partition());
        let unknown = partitions.filter(|p| range.unknown_offsets(*p, LogId::ZERO) > 0);
        words.extend(unknown.map(|p| format!("{} unknown", p.partition)));
        format!("{} to {}: {}", range.first, range.end, words.join(", "))
    };
    let corrupt: Vec<String> = sealed.corrupt.iter().map(tell).collect();
    format!("end {}; {}", sealed.end, corrupt.join("; "))
}

#[tokio::test(start_paused = true)]
async fn what_a_corrupt_block_held_is_told_by_any_tally_behind_it() {
    use Part::{Entries, Header, Tally};
    // Entry n is in partition n mod 3 at offset n div 3: the last of partition 1 is in group 10.
    assert_eq!(told(&[(10, Entries)]).await, "end 12; 10 to 11: 1 up to 4");
    assert_eq!(told(&[(10, Header)]).await, "end 12; 10 to 11: 1 up to 4");
    // The last block is torn, and its header still says that the ones before were acknowledged.
    assert_eq!(told(&[(10, Entries), (11, Entries)]).await, "end 11; 10 to 11: 1 up to 4");
    assert_eq!(
        told(&[(9, Entries), (10, Entries), (11, Entries)]).await,
        "end 11; 9 to 10: 0 up to 4; 10 to 11: 1 up to 4"
    );
    assert_eq!(
        told(&[(8, Entries), (10, Entries), (9, Header)]).await,
        "end 12; 8 to 10: 0 up to 4, 2 up to 3; 10 to 11: 1 up to 4"
    );
    // A damaged tally alone loses nothing, and one behind it tells the same.
    assert_eq!(told(&[(11, Tally)]).await, "end 12; ");
    assert_eq!(told(&[(9, Entries), (10, Tally)]).await, "end 12; 9 to 10: 0 up to 4");
    // Only where none is left is it not known what the group held: of the partition of group 11 it is.
    assert_eq!(told(&[(10, Entries), (11, Tally)]).await, "end 12; 10 to 11: 0 unknown, 1 unknown");
    // Each corrupt block has its own tally of those before it.
    assert_eq!(
        told(&[(8, Entries), (9, Entries), (10, Entries), (11, Tally)]).await,
        "end 12; 8 to 9: 2 up to 3; 9 to 10: 0 up to 4; 10 to 11: 0 unknown, 1 unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wal_without_room_waits_for_a_trim_and_uses_its_segments_again() {
    let disk = new_disk();
    let wal = open(&disk, disk_config("/wal")).await.expect("opens");
    let files = |disk: &SimDisk| disk.files().into_iter().collect::<BTreeSet<_>>();
    let mut written = 0;
    // Eight segments of four blocks each.
    while env(&disk).timeout(Duration::from_secs(5), write(&wal, written..written + 1, 60_000)).await.is_some() {
        written += 1;
    }
    assert!((28..=32).contains(&written), "{written} blocks fit 2 MiB");
    assert_eq!(files(&disk).len(), 8);
    // The coordinators' part is left.
    assert!(wal.room() < 60_000 + (64 << 10), "{} bytes of room", wal.room());
    let before = files(&disk);
    // Trimming lets the block that waits, and new ones, go on: in the same files, for ever.
    for round in 0..20 {
        let durable = wal.durable_position().get();
        wal.trim(WalSequence::new(durable - 1));
        let next = wal.appended_position().get();
        write(&wal, next..next + 5, 60_000).await.unwrap_or_else(|e| panic!("round {round}: {e:?}"));
    }
    assert_eq!(files(&disk), before, "no file was added or removed");
    let (trimmed, all) = (wal.durable_position().get() - 1, wal.appended_position().get());
    drop(wal);
    let sealed = seal(&disk, Some(trimmed - 4)).await;
    assert_eq!(sealed.end.get(), trimmed + 1);
    assert!(sealed.corrupt.is_empty(), "what older uses left is no corruption: {:?}", sealed.corrupt);
    assert_eq!(replayed(sealed).await, (all - 4..all).collect::<Vec<_>>());
}

/// Two segments, all of it trimmed and the current one nearly full: admissions that are all that may be in flight are
/// given, as nothing is left to trim that could make room for them.
#[tokio::test(start_paused = true)]
async fn a_trimmed_wal_of_two_segments_admits_all_that_may_be_in_flight() {
    let disk = new_disk();
    let two = DiskConfig { total: ByteSize::new(512 << 10), ..disk_config("/wal") };
    let wal = open(&disk, two).await.expect("opens");
    let half = usize::try_from(wal.room() / 2).expect("fits");
    for block in 0..9 {
        write(&wal, block..block + 1, 60_000).await.expect("written");
        wal.trim(WalSequence::new(block));
        let both = async {
            let (first, second) = tokio::join!(wal.admit(half), wal.admit_own(half));
            (first.is_ok(), second.is_ok())
        };
        let given = env(&disk).timeout(Duration::from_mins(1), both).await;
        assert_eq!(given, Some((true, true)), "after block {block}: {} bytes of room", wal.room());
    }
}

/// Clients that hold all they may have in flight, and wait for room, leave coordinators theirs.
#[tokio::test(start_paused = true)]
async fn coordinators_write_while_clients_wait_for_room() {
    let disk = new_disk();
    let wal = open(&disk, disk_config("/wal")).await.expect("opens");
    let env = env(&disk);
    let mut number = 0;
    // Until a client's turn does not come.
    while env.timeout(Duration::from_secs(1), wal.admit(usize::MAX)).await.is_some() {
        write(&wal, number..number + 1, 60_000).await.expect("written");
        number += 1;
    }
    let mut client = Box::pin(wal.admit(usize::MAX));
    assert!(env.timeout(Duration::from_secs(1), &mut client).await.is_none(), "{} bytes of room", wal.room());
    env.sleep(Duration::from_secs(5)).await;
    let now = env.monotonic();
    assert!(wal.time_stalled(now) >= Duration::from_secs(5), "clients wait");
    // Far more than the room that clients would have left.
    for number in number..number + 8 {
        let entry = Numbered { epoch: owner(1).epoch, number }.entry(60_000);
        let own = env.timeout(Duration::from_secs(1), wal.admit_own(entry.encoded_size())).await;
        let position = wal.append(&mut own.expect("at once").expect("running"), entry);
        wal.durable(position).await.expect("written");
    }
    assert!(wal.room() < 900_000, "{} bytes of room", wal.room());
    wal.trim(WalSequence::new(number));
    drop(client.await.expect("there is room again"));
}

/// The largest batch fits a segment also where the group before it held as many logs as a group can.
#[tokio::test(start_paused = true)]
async fn the_largest_batch_fits_behind_the_widest_group() {
    let disk = new_disk();
    let wal = open(&disk, disk_config("/wal")).await.expect("opens");
    let entry = |partition: i32, size: usize| {
        let mut entry = Numbered { epoch: owner(1).epoch, number: 0 }.entry(0);
        entry.partition.partition = PartitionIndex::new(partition).expect("not negative");
        entry.records = vec![7; size].into();
        entry
    };
    let mut admission = wal.admit(1 << 20).await.expect("running");
    // More than one group takes.
    for partition in 0..1_000 {
        wal.append(&mut admission, entry(partition, 1));
    }
    let largest = wal.entry_bytes_max();
    assert!(largest > 200 << 10, "{largest} bytes of a segment of 256 KiB");
    let last = wal.append(&mut admission, entry(0, largest));
    wal.durable(last).await.expect("written");
    drop(wal);
    let sealed = seal(&disk, None).await;
    let SealedContents::Entries(replay) = sealed.contents else { panic!("a disk holds entries") };
    let groups = replay.collect().await.expect("the disk answers");
    let sizes: Vec<usize> = groups.iter().map(|(_, entries)| entries.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 1_001);
    assert!(sizes[0] > 400 && sizes[sizes.len() - 1] == 1, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn committed_segments_are_not_read_again() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..20, 60_000).await.expect("written");
    // Damage inside a segment that is wholly committed is not even looked at; the next one is.
    disk.flip_byte(&segment(1), 4096 + 200).expect("there");
    disk.flip_byte(&segment(3), 4096 + 200).expect("there");
    let sealed = seal(&disk, Some(9)).await;
    let corrupt: Vec<_> = sealed.corrupt.iter().map(|c| (c.first.get(), c.end.get(), c.committed)).collect();
    assert_eq!(corrupt, [(12, 13, false)]);
    assert_eq!(replayed(sealed).await, (10..12).chain(13..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_start_and_later_only_the_growth() {
    let disk = new_disk();
    disk.inject(DiskFault::Capacity(100 << 10));
    let refused = open(&disk, disk_config("/wal")).await.expect_err("no room for one segment");
    assert_eq!(
        refused.to_string(),
        "the disk is too full for another segment of the WAL: /wal needs 256 KiB for it; free some space, or set \
         forebay.wal.segment.bytes lower"
    );
    assert!(disk.files().is_empty(), "nothing is left lying about: {:?}", disk.files());
    disk.inject(DiskFault::Capacity(600 << 10));
    let wal = open(&disk, disk_config("/wal")).await.expect("room for two");
    write(&wal, 0..8, 60_000).await.expect("two segments");
    let waits = env(&disk).timeout(Duration::from_secs(5), write(&wal, 8..9, 60_000)).await;
    assert!(waits.is_none() && wal.has_ended().is_none(), "a third has no room, and acks wait");
    let stalled = || wal.time_stalled(env(&disk).monotonic());
    assert_eq!(stalled(), Duration::from_secs(4), "and all but the first second of it stood still");
    wal.trim(WalSequence::new(3));
    write(&wal, 9..12, 60_000).await.expect("the first segment is used again");
    env(&disk).sleep(Duration::from_secs(5)).await;
    assert_eq!(stalled(), Duration::from_secs(4), "with nobody waiting it does not");
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_or_sync_ends_the_wal_for_good() {
    for fault in [DiskFault::SyncFails { after: 2 }, DiskFault::WriteFails { after: 2 }] {
        let disk = new_disk();
        let wal = open(&disk, disk_config("/wal")).await.expect("opens");
        write(&wal, 0..3, 300).await.expect("written");
        disk.inject(fault);
        write(&wal, 3..5, 300).await.expect("not its turn");
        let ended = write(&wal, 5..6, 300).await.expect_err("fails");
        assert_eq!(ended.kind(), WalErrorKind::Failed);
        assert!(ended.reason.to_string().contains("/wal/00000000.segment"), "{}", ended.reason);
        // The disk is well again, and still nothing is tried: what it did with those bytes is not known.
        assert!(wal.admit(1).await.is_err() && wal.stop().await.is_err());
        assert_eq!(wal.durable_position().get(), 5);
        drop(wal);
        disk.crash();
        let back = replayed(seal(&disk, None).await).await;
        assert!(back == [0, 1, 2, 3, 4] || back == [0, 1, 2, 3, 4, 5], "what was acknowledged is there: {back:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_is_not_closed_is_never_written_over() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..3, 300).await.expect("written");
    let refused = DiskProvider::open(&env(&disk), disk_config("/wal"), owner(2), |_, _, epoch| epoch.get() != 1).await;
    assert!(matches!(refused, Err(WalError::NotClosed { epoch, .. }) if epoch == owner(1).epoch));
    assert_eq!(replayed(seal(&disk, None).await).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_wal_of_another_size_takes_over_the_space_of_the_old_one() {
    let disk = new_disk();
    write(&open(&disk, disk_config("/wal")).await.expect("opens"), 0..20, 60_000).await.expect("written");
    let larger = DiskConfig { segment: ByteSize::mib(1), ..disk_config("/wal") };
    let wal = open(&disk, larger).await.expect("opens");
    assert_eq!(disk.files().len(), 1, "the small segments are gone: {:?}", disk.files());
    write(&wal, 0..20, 60_000).await.expect("written");
    let small = DiskConfig { total: ByteSize::mib(1), ..disk_config("/wal") };
    assert!(matches!(open(&disk, DiskConfig { total: ByteSize::mib(0), ..small }).await, Err(WalError::Small { .. })));
}

/// Kafka's clients choose the bytes of their records: none of them may pass for a block of the WAL.
#[tokio::test(start_paused = true)]
async fn records_that_look_like_blocks_are_not_taken_for_them() {
    let disk = new_disk();
    let wal = open(&disk, disk_config("/wal")).await.expect("opens");
    write(&wal, 0..3, 300).await.expect("written");
    // A client that has seen a WAL's file sends a whole later block as a record, aligned as it would have to be.
    let file = disk.open(&segment(0), OpenMode::Read).expect("there");
    let mut stolen = vec![0; 4096];
    file.read_exact_at(&mut stolen, sector(2)).expect("read");
    let mut entry = Numbered { epoch: owner(1).epoch, number: 3 }.entry(0);
    let plain = entry.clone();
    // Behind the block's header, a tally of three ends, and the entry's own head.
    let before = 80 + 3 * LogEnd::SIZE + WalEntry::HEAD_SIZE;
    entry.records = [vec![0; 4096 - before], stolen].concat().into();
    let mut admission = wal.admit(entry.encoded_size()).await.expect("running");
    let position = wal.append(&mut admission, entry);
    wal.durable(position).await.expect("written");
    drop(wal);
    // Another epoch uses the file again, crashes early, and is sealed: the block inside the old record is not its own.
    let env = env(&disk);
    let provider = DiskProvider::open(&env, disk_config("/wal"), owner(2), |_, _, _| true).await.expect("opens");
    let wal = Wal::start(&env, Box::new(provider), Arc::new(Nobody), WalConfig::default());
    let mut admission = wal.admit(plain.encoded_size()).await.expect("running");
    let position = wal.append(&mut admission, plain);
    wal.durable(position).await.expect("written");
    let sealer = DiskSealer::new(&env, "/wal".into(), owner(1).cluster);
    let sealed = sealer.seal(owner(2).broker, owner(2).epoch, None).await.expect("the disk answers");
    assert_eq!((sealed.end.get(), sealed.corrupt.len()), (1, 0));
}
