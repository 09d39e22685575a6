//! The fuzz targets over the kept corpus, over every cut of it, and over bytes that were changed or made up.
//!
//! A find of a fuzzer goes into the target's folder under `corpus/`, and stays. Files named `sample-…` and `hostile-…`
//! are made by the code below (see `golden.rs` for how).

use std::fs;

use forebay_format::WAL_BLOCK_HEADER_SIZE;
use forebay_format::fuzz::{TARGETS, Target};
use proptest::prelude::*;

use crate::golden::{folder, writing};
use crate::object::whole;
use crate::samples::{
    ENTRIES_AT, coordinator_snapshot, data_object, encode_block, fence, folder_marker, journal, object_head,
    producer_snapshot, segment_head, small_object, snapshot_head, wal_block_head, wal_entries,
};

/// Valid bytes for a target.
fn sample(target: &str) -> Vec<u8> {
    let object = small_object();
    let position = usize::try_from(object.footer_position).expect("in memory");
    let small = whole(&object);
    match target {
        "coordinator_snapshot" => coordinator_snapshot().encode().to_vec(),
        "coordinator_snapshot_body" => coordinator_snapshot().encode()[32..].to_vec(),
        "data_block" => small[..position].to_vec(),
        "data_object" => whole(&data_object()).to_vec(),
        "data_object_body" => {
            let empty = whole(&forebay_format::ObjectWriter::new(object_head()).finish());
            empty[..empty.len() - 40].to_vec()
        }
        "fence" => fence().encode().to_vec(),
        "fence_body" => fence().encode()[32..].to_vec(),
        "folder_marker" => folder_marker().encode().into_bytes(),
        "journal" => journal().encode().to_vec(),
        "journal_body" => journal().encode()[32..].to_vec(),
        "object_name" => b"b9/data/1/00000000000000000007/00000000000000000042".to_vec(),
        "producer_block_body" => producer_snapshot().chunks[1].to_vec(),
        "producer_snapshot" => producer_snapshot().chunks.concat(),
        "producer_snapshot_body" => {
            let empty = forebay_format::ProducerSnapshotWriter::new(snapshot_head()).finish().chunks.concat();
            empty[..empty.len() - 40].to_vec()
        }
        "section_index" => {
            let trailer = &small[small.len() - 40..];
            let footer = u64::from_le_bytes(trailer[8..16].try_into().expect("eight bytes"));
            small[position..usize::try_from(footer).expect("in memory")].to_vec()
        }
        "wal_block" => encode_block(&wal_block_head(9), &wal_entries()),
        "wal_block_body" => {
            let entries = wal_entries();
            let size: usize = entries.iter().map(forebay_format::WalEntry::encoded_size).sum();
            let block = encode_block(&wal_block_head(9), &entries);
            [&3_u32.to_le_bytes()[..], &block[ENTRIES_AT..ENTRIES_AT + size]].concat()
        }
        "wal_tally_body" => {
            let block = encode_block(&wal_block_head(9), &wal_entries());
            let (from, count, ends) = (&block[56..64], &block[64..68], &block[WAL_BLOCK_HEADER_SIZE..ENTRIES_AT]);
            [from, count, ends].concat()
        }
        "wal_segment" => {
            let mut segment = segment_head().encode();
            segment.extend(encode_block(&wal_block_head(0), &wal_entries()));
            segment.extend([0xff; 4096]);
            segment.extend(encode_block(&wal_block_head(2), &wal_entries()[..1]));
            segment.extend([0; 4096]);
            segment
        }
        other => panic!("no sample for target {other}"),
    }
}

/// The sample with the four bytes at `at` all ones: a count or length that nothing can hold.
fn huge(target: &str, at: usize) -> Vec<u8> {
    let mut bytes = sample(target);
    bytes[at..at + 4].fill(0xff);
    bytes
}

/// Counts and lengths that lie.
fn hostile(target: &str) -> Option<Vec<u8>> {
    Some(match target {
        "coordinator_snapshot_body" => huge(target, 64),
        "data_object_body" => huge(target, 60),
        "journal_body" => huge(target, 40),
        "producer_block_body" => huge(target, 20),
        "producer_snapshot_body" => huge(target, 28),
        "section_index" => huge(target, 4),
        "wal_block_body" => huge(target, 0),
        "wal_tally_body" => huge(target, 8),
        "object_name" => "00/snap/coordinator/é/1/2/3".as_bytes().to_vec(),
        _ => return None,
    })
}

/// Every file of every target's folder, and each of its beginnings.
#[test]
fn the_kept_corpus_passes() {
    for (name, target) in TARGETS {
        let folder = folder("corpus").join(name);
        if writing() {
            fs::create_dir_all(&folder).expect("the corpus can be written");
            fs::write(folder.join("sample-1"), sample(name)).expect("the corpus can be written");
            if let Some(bytes) = hostile(name) {
                fs::write(folder.join("hostile-1"), bytes).expect("the corpus can be written");
            }
        }
        let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("target {name} has no corpus: {e}"));
        let mut count = 0;
        for file in files {
            let bytes = fs::read(file.expect("a readable folder").path()).expect("a readable file");
            let step = (bytes.len() / 512).max(1);
            for end in (0..bytes.len()).step_by(step) {
                target(&bytes[..end]);
            }
            target(&bytes);
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}

fn targets() -> impl Strategy<Value = (&'static str, Target)> {
    prop::sample::select(TARGETS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_pass((_, target) in targets(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        target(&bytes);
    }

    /// Valid bytes with a few changed, put in or taken out.
    #[test]
    fn changed_bytes_pass(
        (name, target) in targets(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, prop_oneof![Just(0), Just(0xff), Just(0x80), any::<u8>()]), 1..6),
    ) {
        let mut bytes = sample(name);
        for (at, how, value) in edits {
            let at = at.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = value,
                1 => bytes.insert(at, value),
                _ if at < bytes.len() => { bytes.remove(at); }
                _ => {}
            }
        }
        target(&bytes);
    }
}
