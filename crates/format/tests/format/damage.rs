//! Damage: every byte is under a checksum, and an error says where it is and which records are behind it.

use bytes::Bytes;
use forebay_format::{
    BlockClass, CoordinatorSnapshot, ErrorKind, Fence, FolderMarker, Footer, FooterParse, FormatError, JournalEntry,
    ObjectName, ProducerSnapshotIndex, SegmentHead, SnapshotIndexParse, WAL_BLOCK_HEADER_SIZE, WalExpect,
    classify_wal_block,
};
use forebay_types::WalSequence;

use crate::object::{footer_of, whole};
use crate::samples::{
    ENTRIES_AT, broker, broker_epoch, coordinator_snapshot, data_object, encode_block, fence, folder_marker, journal,
    producer_snapshot, segment_head, wal_block_head, wal_entries,
};

/// Everything in an object read, as a check of the bucket does.
fn read_object(bytes: &Bytes) -> Result<(), FormatError> {
    let FooterParse::Whole(footer) = Footer::parse(bytes, bytes.len() as u64)? else { panic!("all of it is there") };
    for section in &footer.sections {
        for index in &section.blocks {
            let start = usize::try_from(index.position).expect("in memory");
            section.parse_block(&bytes.slice(start..start + index.length as usize), index)?;
        }
    }
    Ok(())
}

fn read_snapshot(bytes: &Bytes) -> Result<(), FormatError> {
    let parsed = ProducerSnapshotIndex::parse(bytes, bytes.len() as u64)?;
    let SnapshotIndexParse::Whole(index) = parsed else { panic!("all of it is there") };
    for part in &index.refs {
        let start = usize::try_from(part.position).expect("in memory");
        part.parse(&bytes.slice(start..start + part.length as usize))?;
    }
    Ok(())
}

/// Flips each bit of a layout in turn, and cuts it at each length: no reader may take the result for whole.
fn every_byte_counts(layout: &str, bytes: &[u8], read: impl Fn(&Bytes) -> bool) {
    assert!(read(&Bytes::copy_from_slice(bytes)), "{layout} is whole to begin with");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(!read(&damaged.into()), "{layout}: bit {bit} of byte {at} is not checked");
        }
        assert!(!read(&Bytes::copy_from_slice(&bytes[..at])), "{layout}: {at} bytes pass for all of it");
    }
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unseen() {
    every_byte_counts("data object", &whole(&data_object()), |b| read_object(b).is_ok());
    every_byte_counts("producer snapshot", &producer_snapshot().chunks.concat(), |b| read_snapshot(b).is_ok());
    every_byte_counts("fence", &fence().encode(), |b| Fence::parse(b).is_ok());
    every_byte_counts("journal entry", &journal().encode(), |b| JournalEntry::parse(b).is_ok());
    let coordinator = coordinator_snapshot().encode();
    every_byte_counts("coordinator snapshot", &coordinator, |b| CoordinatorSnapshot::parse(b).is_ok());
    every_byte_counts("folder marker", folder_marker().encode().as_bytes(), |b| FolderMarker::parse(b).is_ok());
}

/// Of a segment's header and of a block all bytes but the zeros that fill up the last sector are checked.
#[test]
fn no_flipped_bit_of_the_wal_goes_unseen() {
    let sector = segment_head().encode();
    for at in 0..sector.len() {
        let mut damaged = sector.clone();
        damaged[at] ^= 0x10;
        assert!(SegmentHead::parse(&damaged).is_err(), "byte {at} of the segment header is not checked");
    }
    let (head, entries) = (wal_block_head(9), wal_entries());
    let used: usize = ENTRIES_AT + entries.iter().map(forebay_format::WalEntry::encoded_size).sum::<usize>();
    let block = encode_block(&head, &entries);
    let (broker, broker_epoch, nonce) = (head.broker, head.broker_epoch, head.nonce);
    let expect = WalExpect { broker, broker_epoch, nonce, sequence: head.sequence };
    for at in 0..used {
        let mut damaged = block.clone();
        damaged[at] ^= 0x10;
        let is_tally = (WAL_BLOCK_HEADER_SIZE..ENTRIES_AT).contains(&at);
        match classify_wal_block(&damaged, 0, &expect) {
            BlockClass::Valid(block) if is_tally => {
                assert!(block.tally(&damaged).is_err(), "byte {at} of the tally is not checked");
            }
            BlockClass::Valid(_) => panic!("byte {at} of the block is not checked"),
            _ => assert!(!is_tally, "a damaged tally costs no entries"),
        }
    }
}

/// An operator reads which object, which block, which checksums and which records.
#[test]
fn an_error_names_object_block_and_records() {
    let name = ObjectName::Data { broker: broker(1), epoch: broker_epoch(7), sequence: WalSequence::new(42) };
    let mut bytes = whole(&data_object()).to_vec();
    bytes[40] ^= 1;
    let error = read_object(&bytes.into()).expect_err("damaged").in_object(name);
    assert_eq!(
        error.to_string(),
        "b9/data/1/00000000000000000007/00000000000000000042: the data block at byte 0 (partition \
         AQEBAQEBQQGBAQEBAQEBAQ-0, offsets 100 to 107) cannot be read: its payload has checksum 0x379613fe and was \
         written with 0x789e14a2"
    );
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// A block of another object or place is whole, and still refused: the index knows which one it should be.
#[test]
fn a_block_from_elsewhere_is_refused() {
    let bytes = whole(&data_object());
    let footer = footer_of(&bytes);
    let [first, second] = [&footer.sections[0].blocks[0], &footer.sections[1].blocks[0]];
    let start = usize::try_from(second.position).expect("in memory");
    let other = bytes.slice(start..start + second.length as usize);
    let error = footer.sections[0].parse_block(&other, first).expect_err("another block");
    assert!(error.to_string().ends_with("offset cannot be 3, the index says 100"), "{error}");
}

/// An object that is not one of ours, or is cut, is told in words.
#[test]
fn what_is_no_object_is_named() {
    let error = |bytes: &[u8]| read_object(&Bytes::copy_from_slice(bytes)).expect_err("no object").to_string();
    assert_eq!(
        error(b""),
        "the data object trailer at byte 0 cannot be read: it ends too early: 40 bytes are needed for its trailer, 0 are left"
    );
    assert!(error(&[0; 100]).starts_with("the data object trailer at byte 60 cannot be read: it begins with"));
}
