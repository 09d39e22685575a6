//! Golden bytes: each layout as it was first written, in `golden/`, as `hexdump -C` shows it.
//!
//! These files say what is on disks and in buckets already. Where one of these tests fails, the layout has changed: give
//! it a new version, write down the decision, and keep reading the old one. To add a layout, or while none is released:
//! `FOREBAY_GOLDEN=write cargo test -p forebay-format` writes golden files and corpus anew; read the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use forebay_format::{
    BatchSummary, CoordinatorSnapshot, Fence, FolderMarker, JournalEntry, ObjectName, SegmentHead, fold_changes,
};
use forebay_types::WalSequence;

use crate::object::{footer_of, whole};
use crate::samples::{self, broker, broker_epoch, leader_epoch, offset, partition};

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Whether the files are to be written rather than compared.
pub fn writing() -> bool {
    std::env::var("FOREBAY_GOLDEN").is_ok_and(|v| v == "write")
}

/// Compares `text` with a golden file.
fn compare(file: &str, text: &str) {
    let path = folder("golden").join(file);
    if writing() {
        fs::write(&path, text).expect("the golden folder can be written");
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|e| panic!("no golden file {file}: {e}"));
    assert_eq!(text, golden, "{file} has changed: see the head of this file");
}

/// Sixteen bytes a line: position, bytes, characters. Lines that repeat the one above are a `*`.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut last: Option<&[u8]> = None;
    for (i, line) in bytes.chunks(16).enumerate() {
        if last == Some(line) {
            if !text.ends_with("*\n") {
                text.push_str("*\n");
            }
            continue;
        }
        last = Some(line);
        let digits: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let shown: String = line.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '.' }).collect();
        writeln!(text, "{:08x}  {:<47}  |{shown}|", i * 16, digits.join(" ")).expect("a string takes all");
    }
    writeln!(text, "{:08x}", bytes.len()).expect("a string takes all");
    text
}

#[test]
fn data_object() {
    let bytes = whole(&samples::data_object());
    compare("data_object.hex", &hex(&bytes));
    let footer = footer_of(&bytes);
    let batches: Vec<BatchSummary> = samples::wal_entries().iter().map(|e| e.summary).collect();
    assert_eq!(footer.sections[0].changes, fold_changes(&batches), "the golden object is read as it was meant");
}

#[test]
fn producer_snapshot() {
    let snapshot = samples::producer_snapshot();
    let bytes = snapshot.chunks.concat();
    compare("producer_snapshot.hex", &hex(&bytes));
    let block = bytes[..snapshot.refs[0].length as usize].to_vec();
    assert_eq!(snapshot.refs[0].parse(&block.into()), Ok(samples::producer_states()));
}

#[test]
fn coordinator_snapshot() {
    let bytes = samples::coordinator_snapshot().encode();
    compare("coordinator_snapshot.hex", &hex(&bytes));
    assert_eq!(CoordinatorSnapshot::parse(&bytes), Ok(samples::coordinator_snapshot()));
}

#[test]
fn journal_entry() {
    let bytes = samples::journal().encode();
    compare("journal.hex", &hex(&bytes));
    assert_eq!(JournalEntry::parse(&bytes), Ok(samples::journal()));
}

#[test]
fn fence() {
    let bytes = samples::fence().encode();
    compare("fence.hex", &hex(&bytes));
    assert_eq!(Fence::parse(&bytes), Ok(samples::fence()));
}

#[test]
fn wal_segment() {
    let head = samples::segment_head().encode();
    let block = samples::encode_block(&samples::wal_block_head(9), &samples::wal_entries());
    compare("wal_segment.hex", &hex(&[head.clone(), block].concat()));
    assert_eq!(SegmentHead::parse(&head), Ok(Some(samples::segment_head())));
}

#[test]
fn folder_marker() {
    let text = samples::folder_marker().encode();
    compare("folder_marker.txt", &text);
    assert_eq!(FolderMarker::parse(text.as_bytes()), Ok(samples::folder_marker()));
}

#[test]
fn names() {
    let (broker, epoch, sequence) = (broker(1), broker_epoch(7), WalSequence::new(42));
    let (partition, leader_epoch, at) = (partition(1, 49), leader_epoch(6), offset(98_765));
    let names = [
        ObjectName::Data { broker, epoch, sequence },
        ObjectName::Wal { broker, epoch, sequence },
        ObjectName::ProducerSnapshot { broker, epoch, number: 2 },
        ObjectName::CoordinatorSnapshot { partition, leader_epoch, at },
        ObjectName::Journal { number: 5 },
    ];
    compare("names.txt", &names.map(|name| format!("{name}\n")).concat());
    for name in names {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
}
