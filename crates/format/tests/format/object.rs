//! The data object: what is pushed is read back, however the object is read.

use bytes::Bytes;
use forebay_format::{
    BLOCK_SIZE_TARGET, EncodedObject, Footer, FooterParse, NO_TIMESTAMP, ObjectWriter, SectionHead, Tally, WalEntry,
    WalObject, WalObjectParse, fold_changes,
};
use forebay_types::{Offset, OffsetRange};
use proptest::prelude::*;

use crate::samples::{
    cluster, data_object, entries, fence, leader_epoch, log, object_head, offset, partition, plain, range,
    small_object, tally,
};

pub fn whole(object: &EncodedObject) -> Bytes {
    let bytes = Bytes::from(object.chunks.concat());
    assert_eq!(bytes.len() as u64, object.size, "an object is as long as was said");
    bytes
}

pub fn footer_of(bytes: &Bytes) -> Footer {
    match Footer::parse(bytes, bytes.len() as u64) {
        Ok(FooterParse::Whole(footer)) => footer,
        other => panic!("the footer of a whole object is there, not {other:?}"),
    }
}

/// The batches of every block of a section, concatenated.
fn batches_of(bytes: &Bytes, footer: &Footer, section: usize) -> Vec<u8> {
    let section = &footer.sections[section];
    let block = |index: &forebay_format::BlockIndex| {
        let start = usize::try_from(index.position).expect("in memory");
        let block = bytes.slice(start..start + index.length as usize);
        section.parse_block(&block, index).expect("an undamaged block")
    };
    section.blocks.iter().map(block).collect::<Vec<_>>().concat()
}

fn section_head(index: i32, epoch: i32) -> SectionHead {
    SectionHead {
        partition: partition(1, index),
        log: log(10),
        leader_epoch: leader_epoch(epoch),
        epoch_start: Offset::ZERO,
        producer_snapshot: None,
    }
}

fn write(partitions: &[Vec<WalEntry>]) -> EncodedObject {
    let mut w = ObjectWriter::new(object_head());
    for (i, entries) in partitions.iter().enumerate() {
        w.section(section_head(i32::try_from(i).expect("few"), 0));
        for entry in entries {
            w.push(&entry.summary, entry.aborted.as_ref(), &entry.records);
        }
    }
    w.finish()
}

proptest! {
    /// Batches, producer changes, aborted transactions and ranges come back as they were pushed.
    #[test]
    fn an_object_reads_back(partitions in prop::collection::vec(entries().prop_filter("not empty", |e| !e.is_empty()), 0..4)) {
        let object = write(&partitions);
        let bytes = whole(&object);
        let footer = footer_of(&bytes);
        prop_assert_eq!(&footer.head, &object_head());
        prop_assert_eq!(footer.sections.len(), partitions.len());
        for (i, (section, entries)) in footer.sections.iter().zip(&partitions).enumerate() {
            let pushed: Vec<u8> = entries.iter().flat_map(|e| e.records.to_vec()).collect();
            prop_assert_eq!(section.bytes, pushed.len() as u64);
            prop_assert_eq!(batches_of(&bytes, &footer, i), pushed);
            let (first, last) = (&entries[0].summary, &entries[entries.len() - 1].summary);
            let range = OffsetRange::new(first.base_offset, last.last_offset.next()).expect("in order");
            prop_assert_eq!(section.range, range);
            prop_assert_eq!(section.records, entries.iter().map(|e| u64::from(e.summary.records)).sum::<u64>());
            prop_assert_eq!(&section.changes, &fold_changes(entries.iter().map(|e| &e.summary)));
            prop_assert_eq!(&section.aborted, &entries.iter().filter_map(|e| e.aborted).collect::<Vec<_>>());
            prop_assert_eq!(Some(section.max_timestamp), entries.iter().map(|e| e.summary.max_timestamp).max());
            prop_assert_eq!(Some(section.min_timestamp), entries.iter().map(|e| e.summary.max_timestamp).min());
            let kept = object.ranges[i];
            prop_assert_eq!((kept.partition, kept.range, kept.bytes), (section.head.partition, section.range, section.bytes));
        }
    }

    /// A tail that is too short says from where more is needed; the answer is always enough, and asks at most twice.
    #[test]
    fn a_short_tail_says_what_is_missing(entries in entries().prop_filter("not empty", |e| !e.is_empty()), guess in 0..1000_u64) {
        let object = write(&[entries]);
        let bytes = whole(&object);
        let mut from = object.size.saturating_sub(guess);
        let mut asked = 0;
        let footer = loop {
            let tail = bytes.slice(usize::try_from(from).expect("in memory")..);
            match Footer::parse(&tail, object.size).expect("undamaged") {
                FooterParse::Whole(footer) => break footer,
                FooterParse::NeedMore { from: earlier } => (from, asked) = (earlier, asked + 1),
            }
        };
        prop_assert!(asked <= 2);
        prop_assert_eq!(footer, footer_of(&bytes));
        let tail = bytes.slice(usize::try_from(object.footer_position).expect("in memory")..);
        prop_assert!(matches!(Footer::parse(&tail, object.size), Ok(FooterParse::Whole(_))), "metadata's position is enough");
    }
}

/// Blocks close near their target, never inside a batch, and a batch larger than the target has one of its own.
#[test]
fn sections_split_into_blocks() {
    let sizes = [100 << 10, 100 << 10, 100 << 10, 300 << 10, 1];
    let mut w = ObjectWriter::new(object_head());
    w.section(section_head(0, 0));
    for (base, size) in (0..).zip(sizes) {
        w.push(&plain(base, 1), None, &vec![7; size].into());
    }
    let object = w.finish();
    let footer = footer_of(&whole(&object));
    let blocks: Vec<_> =
        footer.sections[0].blocks.iter().map(|b| (b.base_offset.get(), b.last_offset.get(), b.length)).collect();
    assert_eq!(blocks, [(0, 1, (200 << 10) + 32), (2, 2, (100 << 10) + 32), (3, 3, (300 << 10) + 32), (4, 4, 33)]);
    assert!(blocks.iter().all(|(first, last, length)| first == last || *length as usize <= BLOCK_SIZE_TARGET + 32));
    let from = |at| footer.sections[0].blocks_from(offset(at)).first().map(|b| b.base_offset.get());
    assert_eq!([from(0), from(1), from(2), from(4), from(5)], [Some(0), Some(0), Some(2), Some(4), None]);
}

/// The batches of an object are the bytes that were pushed, not copies of them.
#[test]
fn writing_copies_no_batch() {
    let records = Bytes::from(vec![1; 1000]);
    let mut w = ObjectWriter::new(object_head());
    w.section(section_head(0, 0));
    w.push(&plain(0, 1), None, &records);
    let object = w.finish();
    assert!(object.chunks.iter().any(|chunk| chunk.as_ptr() == records.as_ptr()));
}

/// Offsets that were lost are in the range of their section, and readers are told which they are.
#[test]
fn lost_offsets_are_covered_and_named() {
    let object = data_object();
    let footer = footer_of(&whole(&object));
    assert_eq!(footer.sections[1].lost, [range(0, 3)]);
    assert_eq!(footer.sections[1].range, range(0, 4));
    assert_eq!(object.ranges[1].range, range(0, 4));
}

/// A section may have lost ranges only: it has offsets and neither block, bytes nor time.
#[test]
fn a_section_may_be_lost_as_a_whole() {
    let mut w = ObjectWriter::new(object_head());
    w.section(section_head(0, 0));
    w.lost(range(5, 8));
    w.lost(range(8, 1 << 40));
    w.section(section_head(1, 0));
    w.push(&plain(3, 2), None, &Bytes::from_static(b"x"));
    let object = w.finish();
    let bytes = whole(&object);
    let footer = footer_of(&bytes);
    let [lost, kept] = &footer.sections[..] else { panic!("two sections: {footer:?}") };
    assert_eq!((lost.range, &lost.lost[..]), (range(5, 1 << 40), &[range(5, 8), range(8, 1 << 40)][..]));
    assert_eq!((lost.blocks.len(), lost.records, lost.bytes, lost.max_timestamp), (0, 0, 0, NO_TIMESTAMP));
    assert!(lost.blocks_from(offset(6)).is_empty());
    assert_eq!((object.ranges[0].range, object.ranges[0].max_timestamp), (lost.range, NO_TIMESTAMP));
    assert_eq!(kept.blocks[0].position, 0, "a section without blocks takes no place among them");
    // An object of nothing but lost ranges is all index and footer.
    let mut w = ObjectWriter::new(object_head());
    w.section(section_head(0, 0));
    w.lost(range(0, 1));
    let object = w.finish();
    assert_eq!(object.footer_position, 0);
    assert_eq!(footer_of(&whole(&object)).sections[0].lost, [range(0, 1)]);
}

/// A WAL's write says what the ones before it held; any other object says that it does not.
#[test]
fn a_footer_carries_the_tally() {
    assert_eq!(footer_of(&whole(&data_object())).tally, tally(42));
    assert_eq!(footer_of(&whole(&small_object())).tally, Tally::nothing(object_head().sequence));
}

#[test]
#[should_panic(expected = "cannot have")]
fn a_tally_of_later_writes_is_never_written() {
    ObjectWriter::new(object_head()).with_tally(tally(45)).finish();
}

/// A reader goes from block to block: none may lead it past what is lost.
#[test]
fn no_block_spans_lost_offsets() {
    let mut w = ObjectWriter::new(object_head());
    w.section(section_head(0, 0));
    w.push(&plain(0, 2), None, &Bytes::from_static(b"x"));
    w.lost(range(2, 5));
    w.push(&plain(5, 2), None, &Bytes::from_static(b"y"));
    let footer = footer_of(&whole(&w.finish()));
    let blocks: Vec<_> = footer.sections[0].blocks.iter().map(|b| (b.base_offset.get(), b.last_offset.get())).collect();
    assert_eq!(blocks, [(0, 1), (5, 6)]);
}

/// One log under two leader epochs has two sections, found by partition and log.
#[test]
fn a_log_may_have_a_section_per_leader_epoch() {
    let mut w = ObjectWriter::new(object_head());
    for epoch in 0..2 {
        w.section(section_head(0, epoch));
        w.push(&plain(epoch.into(), 1), None, &Bytes::from_static(b"x"));
    }
    let footer = footer_of(&whole(&w.finish()));
    let epochs: Vec<i32> = footer.sections_of(partition(1, 0), log(10)).map(|s| s.head.leader_epoch.get()).collect();
    assert_eq!(epochs, [0, 1]);
    assert_eq!(footer.sections_of(partition(1, 0), log(11)).count(), 0);
}

/// Under a WAL name lies a data object or a fence, and a reader that knows neither learns which.
#[test]
fn a_wal_object_is_data_or_a_fence() {
    let encoded = fence().encode();
    let parse = |bytes: &Bytes, from: usize| WalObject::parse(&bytes.slice(from..), bytes.len() as u64);
    assert_eq!(parse(&encoded, 0), Ok(WalObjectParse::Whole(WalObject::Fence(fence()))));
    assert_eq!(parse(&encoded, 10), Ok(WalObjectParse::NeedMore { from: 0 }), "a fence is read whole");
    let object = whole(&small_object());
    let Ok(WalObjectParse::Whole(WalObject::Data(footer))) = parse(&object, 0) else { panic!("a data object") };
    assert_eq!(footer.head.cluster, cluster());
}

#[test]
#[should_panic(expected = "comes after")]
fn offsets_that_go_back_are_never_written() {
    let mut w = ObjectWriter::new(object_head());
    w.section(section_head(0, 0));
    w.push(&plain(5, 2), None, &Bytes::from_static(b"x"));
    w.push(&plain(6, 2), None, &Bytes::from_static(b"y"));
}

#[test]
#[should_panic(expected = "sections of an object ascend")]
fn a_section_is_never_written_twice() {
    let mut w = ObjectWriter::new(object_head());
    for _ in 0..2 {
        w.section(section_head(0, 0));
        w.push(&plain(5, 2), None, &Bytes::from_static(b"x"));
    }
}
