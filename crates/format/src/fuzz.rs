//! Fuzz targets: plain functions over any bytes. None may panic, hang, or allocate much more than it was given; and
//! since every layout has one encoding only, whatever parses must encode to the same bytes again.
//!
//! The names of [`TARGETS`] are the folders of `corpus/`. Targets that end in `_body` or `_index` give the bytes valid
//! checksums first, so that a fuzzer gets past them.

use bytes::Bytes;
use forebay_types::{BrokerEpoch, BrokerId, ClusterId, WalSequence};
use forebay_types::{LeaderEpoch, LogId, Offset, OffsetRange, PartitionIndex, Timestamp, TopicId, TopicPartition};

use crate::block::{BLOCK_HEADER_SIZE, BlockKind, encode_header};
use crate::crc::crc32c;
use crate::cursor::{Reader, Writer};
use crate::object::footer::{encode_tail, read_index, write_index};
use crate::tally::Tally;
use crate::trailer::{Trailer, TrailerKind};
use crate::{
    BlockClass, CoordinatorSnapshot, Fence, FolderMarker, Footer, FooterParse, JournalEntry, ObjectName,
    ProducerSnapshotIndex, ProducerSnapshotWriter, Section, SectionHead, SegmentHead, SnapshotHead, SnapshotIndexParse,
    SnapshotRef, WalEntry, WalExpect, WalObject, WalObjectParse, classify_wal_block, coordinator_snapshot, fence,
    journal,
};

/// One target: a function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("coordinator_snapshot", coordinator_snapshot),
    ("coordinator_snapshot_body", coordinator_snapshot_body),
    ("data_block", data_block),
    ("data_object", data_object),
    ("data_object_body", data_object_body),
    ("fence", fence),
    ("fence_body", fence_body),
    ("folder_marker", folder_marker),
    ("journal", journal),
    ("journal_body", journal_body),
    ("object_name", object_name),
    ("producer_block_body", producer_block_body),
    ("producer_snapshot", producer_snapshot),
    ("producer_snapshot_body", producer_snapshot_body),
    ("section_index", section_index),
    ("wal_block", wal_block),
    ("wal_block_body", wal_block_body),
    ("wal_segment", wal_segment),
    ("wal_tally_body", wal_tally_body),
];

/// A data object, whole and by its tail.
pub fn data_object(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let size = bytes.len() as u64;
    let by_tail = read_from_end(&bytes, |tail| match WalObject::parse(tail, size) {
        Ok(WalObjectParse::NeedMore { from }) => Err(from),
        Ok(WalObjectParse::Whole(object)) => Ok(Some(object)),
        Err(_) => Ok(None),
    });
    let Ok(FooterParse::Whole(footer)) = Footer::parse(&bytes, size) else { return };
    assert_eq!(by_tail, Some(WalObject::Data(footer.clone())), "a footer is the same however much of it is read first");
    let mut index_position = 0;
    for section in &footer.sections {
        for index in &section.blocks {
            let (start, end) = (at(index.position), at(index.position + u64::from(index.length)));
            // Either outcome is right: the index's checksum does not vouch for the block.
            let _checked = section.parse_block(&bytes.slice(start..end), index);
            index_position = end;
        }
    }
    let again = encode_tail(&footer.head, &footer.tally, &footer.sections, index_position as u64);
    assert_eq!(again, bytes.slice(index_position..), "one footer, one encoding");
}

/// The footer of a data object without sections' indexes.
pub fn data_object_body(data: &[u8]) {
    data_object(&with_trailer(TrailerKind::Data, data));
}

/// The index of a section that spans all offsets.
pub fn section_index(data: &[u8]) {
    let topic = TopicId::from_random([1; 16]);
    let end = Offset::new(i64::MAX - 1).expect("not negative");
    let mut section = Section {
        head: SectionHead {
            partition: TopicPartition { topic, partition: PartitionIndex::ZERO },
            log: LogId::ZERO,
            leader_epoch: LeaderEpoch::ZERO,
            epoch_start: Offset::ZERO,
            producer_snapshot: None,
        },
        range: OffsetRange::new(Offset::ZERO, end).expect("in order"),
        min_timestamp: Timestamp::default(),
        max_timestamp: Timestamp::default(),
        records: 0,
        bytes: 0,
        blocks: Vec::new(),
        changes: Vec::new(),
        aborted: Vec::new(),
        lost: Vec::new(),
    };
    let Ok(parts) = read_index(data, &section, &mut 0) else { return };
    (section.blocks, section.changes, section.aborted, section.lost) = parts;
    let mut w = Writer::default();
    write_index(&section, &mut w);
    assert_eq!(w.written(), data, "one index, one encoding");
}

/// A data block, with an index entry that fits its length.
pub fn data_block(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let payload = bytes.get(BLOCK_HEADER_SIZE..).unwrap_or_default();
    let index = crate::BlockIndex {
        position: 0,
        length: u32::try_from(data.len()).unwrap_or(u32::MAX),
        base_offset: Offset::ZERO,
        last_offset: Offset::ZERO,
        max_timestamp: Timestamp::default(),
        crc: crc32c(payload),
    };
    if let Ok(batches) = crate::Block::parse(&bytes, &index) {
        assert_eq!(batches, payload, "a block's batches are its payload");
    }
}

/// A WAL block as the one that is looked for, and what follows it.
pub fn wal_block(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut expect = sample_expect();
    if let BlockClass::Stale(head) = classify_wal_block(&bytes, 0, &expect) {
        let (broker, broker_epoch) = (head.broker, head.broker_epoch);
        expect = WalExpect { broker, broker_epoch, nonce: head.nonce, sequence: head.sequence };
    }
    match classify_wal_block(&bytes, 0, &expect) {
        BlockClass::Valid(block) => {
            assert!(block.size() <= bytes.len(), "a valid block lies in what was read");
            if let (Ok(tally), Ok(entries)) = (block.tally(&bytes), block.entries(&bytes)) {
                let size = crate::wal_block_size(tally.size(), &entries);
                assert_eq!(size, block.size(), "tally and entries fill their block");
            }
        }
        BlockClass::NeedMore { size } => assert!(size > bytes.len(), "more is more"),
        BlockClass::Torn { block, .. } => {
            assert!(block.size() <= bytes.len(), "a block is judged by all of it");
            // Either outcome is right: the tally has a checksum of its own.
            let _tally = block.tally(&bytes);
        }
        BlockClass::Zero | BlockClass::Stale(_) | BlockClass::NoHeader(_) | BlockClass::Unsupported(_) => {}
    }
}

/// The entries of a WAL block: the number of entries, then the payload.
pub fn wal_block_body(data: &[u8]) {
    let Some((count, payload)) = data.split_first_chunk() else { return };
    let count = u32::from_le_bytes(*count);
    let Ok(entries) = WalEntry::parse_all(&Bytes::copy_from_slice(payload), 0, at(count.into())) else { return };
    let mut w = Writer::default();
    for entry in &entries {
        entry.write_head(&mut w);
        w.bytes(&entry.records);
    }
    assert_eq!(w.written(), payload, "one entry, one encoding");
}

/// The ends of a tally: from which write on it covers, the number of ends, the ends. It is that of the last write.
pub fn wal_tally_body(data: &[u8]) {
    let Some((from, rest)) = data.split_first_chunk() else { return };
    let Some((count, ends)) = rest.split_first_chunk() else { return };
    let (from, count) = (WalSequence::new(u64::from_le_bytes(*from)), u32::from_le_bytes(*count));
    let carrier = WalSequence::new(u64::MAX);
    let mut r = Reader::new(ends, "ends");
    let Ok(tally) = Tally::read_ends(&mut r, at(count.into()), from, carrier) else { return };
    let mut w = Writer::default();
    tally.write_ends(carrier, &mut w);
    assert_eq!(w.written(), &ends[..r.position()], "one tally, one encoding");
}

/// A WAL segment: its header, then block after block, past bad ones to the next header.
pub fn wal_segment(data: &[u8]) {
    let Ok(Some(head)) = SegmentHead::parse(data) else { return };
    assert_eq!(head.encode(), data[..crate::SECTOR_SIZE], "one header, one encoding");
    let bytes = Bytes::copy_from_slice(data);
    let mut expect = WalExpect {
        broker: head.broker,
        broker_epoch: head.broker_epoch,
        nonce: head.nonce,
        sequence: WalSequence::ZERO,
    };
    let mut position = crate::SECTOR_SIZE;
    while position < bytes.len() {
        let rest = bytes.slice(position..);
        let next = |sequence: WalSequence| WalSequence::new(sequence.get().saturating_add(1));
        position += match classify_wal_block(&rest, position as u64, &expect) {
            BlockClass::Valid(block) => {
                // Either outcome is right: the block's checksum does not vouch for its entries.
                let _entries = block.entries(&rest);
                expect.sequence = next(expect.sequence);
                block.size()
            }
            BlockClass::Torn { block, .. } => {
                expect.sequence = next(expect.sequence);
                block.size()
            }
            BlockClass::Stale(head) if head.nonce == expect.nonce && head.sequence > expect.sequence => {
                (expect.broker, expect.broker_epoch) = (head.broker, head.broker_epoch);
                expect.sequence = head.sequence;
                continue;
            }
            _ => crate::SECTOR_SIZE,
        };
    }
}

/// A fence.
pub fn fence(data: &[u8]) {
    if let Ok(fence) = Fence::parse(&Bytes::copy_from_slice(data)) {
        assert_eq!(fence.encode(), data, "one fence, one encoding");
    }
}

/// A fence's body.
pub fn fence_body(data: &[u8]) {
    fence(&fence::ENVELOPE.wrap(data));
}

/// A journal entry.
pub fn journal(data: &[u8]) {
    if let Ok(entry) = JournalEntry::parse(&Bytes::copy_from_slice(data)) {
        assert_eq!(entry.encode(), data, "one entry, one encoding");
    }
}

/// A journal entry's body.
pub fn journal_body(data: &[u8]) {
    journal(&journal::ENVELOPE.wrap(data));
}

/// A coordinator snapshot.
pub fn coordinator_snapshot(data: &[u8]) {
    if let Ok(snapshot) = CoordinatorSnapshot::parse(&Bytes::copy_from_slice(data)) {
        assert_eq!(snapshot.encode(), data, "one snapshot, one encoding");
    }
}

/// A coordinator snapshot's body.
pub fn coordinator_snapshot_body(data: &[u8]) {
    coordinator_snapshot(&coordinator_snapshot::ENVELOPE.wrap(data));
}

/// A producer snapshot, whole and by its tail, and every partition in it.
pub fn producer_snapshot(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let size = bytes.len() as u64;
    let by_tail = read_from_end(&bytes, |tail| match ProducerSnapshotIndex::parse(tail, size) {
        Ok(SnapshotIndexParse::NeedMore { from }) => Err(from),
        Ok(SnapshotIndexParse::Whole(index)) => Ok(Some(index)),
        Err(_) => Ok(None),
    });
    let Some(index) = by_tail else { return };
    let mut writer = ProducerSnapshotWriter::new(index.head.clone());
    for part in &index.refs {
        let (start, end) = (at(part.position), at(part.position + u64::from(part.length)));
        let Ok(producers) = part.parse(&bytes.slice(start..end)) else { return };
        writer.push(part.partition, part.log, part.at, &producers);
    }
    assert_eq!(writer.finish().chunks.concat(), data, "one snapshot, one encoding");
}

/// A producer snapshot's footer, with no blocks before it.
pub fn producer_snapshot_body(data: &[u8]) {
    producer_snapshot(&with_trailer(TrailerKind::Producers, data));
}

/// The payload of one partition in a producer snapshot.
pub fn producer_block_body(data: &[u8]) {
    let mut r = Reader::new(data, "payload");
    let mut identity = || Some((r.partition().ok()?, r.u32().ok()?, r.log().ok()?, r.offset("at").ok()?));
    let Some((partition, _count, log, at)) = identity() else { return };
    let Ok(length) = u32::try_from(data.len()) else { return };
    let crc = crc32c(data);
    let header = encode_header(BlockKind::Producers, length, at.get(), crc);
    let bytes = Bytes::from([&header, data].concat());
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let Ok(producers) = (SnapshotRef { partition, log, at, position: 0, length, crc }).parse(&bytes) else { return };
    let mut writer = ProducerSnapshotWriter::new(sample_snapshot_head());
    writer.push(partition, log, at, &producers);
    assert_eq!(writer.finish().chunks[1], data, "one partition, one encoding");
}

/// The data folder's marker.
pub fn folder_marker(data: &[u8]) {
    if let Ok(marker) = FolderMarker::parse(data) {
        assert_eq!(marker.encode().as_bytes(), data, "one marker, one encoding");
    }
}

/// An object's name.
pub fn object_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<ObjectName>() {
        assert_eq!(name.to_string(), text, "one object, one name");
    }
}

/// Reads an object from its end as a broker does: a first guess of one byte, then what `parse` asks for with `Err`.
fn read_from_end<T>(bytes: &Bytes, parse: impl Fn(&Bytes) -> Result<Option<T>, u64>) -> Option<T> {
    let mut from = (bytes.len() as u64).saturating_sub(1);
    loop {
        match parse(&bytes.slice(at(from)..)) {
            Ok(result) => return result,
            Err(earlier) => {
                assert!(earlier < from, "more is more");
                from = earlier;
            }
        }
    }
}

fn with_trailer(kind: TrailerKind, footer: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes(footer);
    let trailer = Trailer { index_position: 0, footer_position: 0, footer_crc: crc32c(footer) };
    trailer.write(kind, &mut w, footer.len());
    w.finish()
}

fn sample_expect() -> WalExpect {
    WalExpect { broker: BrokerId::ZERO, broker_epoch: BrokerEpoch::ZERO, nonce: 0, sequence: WalSequence::ZERO }
}

fn sample_snapshot_head() -> SnapshotHead {
    SnapshotHead {
        cluster: ClusterId::from_random([1; 16]),
        broker: BrokerId::ZERO,
        broker_epoch: BrokerEpoch::ZERO,
        number: 0,
        written_at: Timestamp::default(),
    }
}

fn at(position: u64) -> usize {
    usize::try_from(position).expect("inside the bytes that were given")
}
