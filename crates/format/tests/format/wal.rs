//! The WAL block and what a reader of a segment can tell: whole, torn, never written, left over.

use bytes::Bytes;
use forebay_format::{
    BlockClass, ErrorKind, SECTOR_SIZE, SegmentHead, WAL_BLOCK_HEADER_SIZE, WalBlockHead, WalEntry, WalExpect,
    classify_wal_block, crc32c,
};
use forebay_types::WalSequence;
use proptest::prelude::*;

use crate::samples::{
    ENTRIES_AT, broker_epoch, encode_block, encode_block_with, entries, plain, segment_head, tallies, tally,
    wal_block_head, wal_entries,
};

fn expect(sequence: u64) -> WalExpect {
    let WalBlockHead { broker, broker_epoch, nonce, sequence, .. } = wal_block_head(sequence);
    WalExpect { broker, broker_epoch, nonce, sequence }
}

fn read(bytes: &[u8], sequence: u64) -> Result<Vec<WalEntry>, BlockClass> {
    match classify_wal_block(bytes, 0, &expect(sequence)) {
        BlockClass::Valid(block) => Ok(block.entries(&Bytes::copy_from_slice(bytes)).expect("whole entries")),
        other => Err(other),
    }
}

/// Puts the right checksum on a header that was changed.
fn reseal(block: &mut [u8]) {
    let crc = crc32c(&block[..WAL_BLOCK_HEADER_SIZE - 4]);
    block[WAL_BLOCK_HEADER_SIZE - 4..WAL_BLOCK_HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
}

/// Puts the right checksum on a payload that was changed, and on the header.
fn reseal_payload(block: &mut [u8]) {
    let length = u32::from_le_bytes(block[12..16].try_into().expect("four bytes")) as usize;
    let crc = crc32c(&block[ENTRIES_AT..ENTRIES_AT + length]);
    block[72..76].copy_from_slice(&crc.to_le_bytes());
    reseal(block);
}

proptest! {
    #[test]
    fn a_block_reads_back(
        entries in entries(),
        (sequence, tally) in (2..u64::MAX).prop_flat_map(|sequence| (Just(sequence), tallies(sequence))),
        after in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = encode_block_with(&wal_block_head(sequence), &tally, &entries);
        prop_assert_eq!(bytes.len() % SECTOR_SIZE, 0, "a block is whole sectors");
        bytes.extend(after);
        let BlockClass::Valid(block) = classify_wal_block(&bytes, 0, &expect(sequence)) else { panic!("a whole block") };
        prop_assert_eq!(block.tally(&bytes), Ok(tally));
        prop_assert_eq!(read(&bytes, sequence), Ok(entries));
    }

    /// A write that was cut at any sector, over zeros or over what was there before, never passes for whole.
    #[test]
    fn a_torn_block_is_never_valid(cut in 0..12_usize, left_over: bool) {
        let entry = |base, byte| WalEntry {
            records: vec![byte; 15_000].into(),
            summary: plain(base, 1),
            ..wal_entries()[1].clone()
        };
        let new = encode_block(&wal_block_head(9), &[0, 1, 2].map(|base| entry(base, 0xab)));
        let old = encode_block(&wal_block_head(5), &[50, 51, 52].map(|base| entry(base, 0xcd)));
        prop_assert_eq!((new.len(), old.len()), (12 * SECTOR_SIZE, 12 * SECTOR_SIZE));
        let mut torn = if left_over { old } else { vec![0; new.len()] };
        torn[..cut * SECTOR_SIZE].copy_from_slice(&new[..cut * SECTOR_SIZE]);
        let class = classify_wal_block(&torn, 0, &expect(9));
        let right = match (cut, left_over) {
            (0, false) => class == BlockClass::Zero,
            (0, true) => class == BlockClass::Stale(wal_block_head(5)),
            _ => matches!(class, BlockClass::Torn { block, .. } if *block.head() == wal_block_head(9) && block.size() == new.len()),
        };
        prop_assert!(right, "cut after {cut} sectors: {class:?}");
    }
}

/// The segment's header says whose the file is; a new file has none yet; a torn one is an error.
#[test]
fn a_segment_header_reads_back() {
    let sector = segment_head().encode();
    assert_eq!(sector.len(), SECTOR_SIZE);
    assert_eq!(SegmentHead::parse(&sector), Ok(Some(segment_head())));
    assert_eq!(SegmentHead::parse(&[0; SECTOR_SIZE]), Ok(None));
    let torn = SegmentHead::parse(&[&sector[..60], &[0; SECTOR_SIZE - 60]].concat()).expect_err("torn");
    assert_eq!(torn.kind(), ErrorKind::Corrupt);
}

/// Blocks of another epoch, number or use of the file are left-overs, however whole they are.
#[test]
fn left_overs_are_told_by_epoch_number_and_nonce() {
    let block = encode_block(&wal_block_head(9), &wal_entries());
    let stale = |expect: WalExpect| classify_wal_block(&block, 0, &expect) == BlockClass::Stale(wal_block_head(9));
    assert!(stale(WalExpect { broker_epoch: broker_epoch(8), ..expect(9) }));
    assert!(stale(WalExpect { sequence: WalSequence::new(10), ..expect(9) }));
    assert!(stale(WalExpect { nonce: 1, ..expect(9) }));
    assert!(!stale(expect(9)));
}

/// A reader that has too little of a block is told how much it takes.
#[test]
fn a_block_that_goes_on_asks_for_more() {
    let entry = WalEntry { records: vec![7; 10_000].into(), ..wal_entries()[1].clone() };
    let block = encode_block(&wal_block_head(9), &[entry]);
    assert_eq!(classify_wal_block(&block[..100], 0, &expect(9)), BlockClass::NeedMore { size: SECTOR_SIZE });
    assert_eq!(classify_wal_block(&block[..SECTOR_SIZE], 0, &expect(9)), BlockClass::NeedMore { size: block.len() });
}

/// After a bad header the next block is found by its own, and nothing else is taken for one: not the inside of a
/// client's record, even where the client wrote a block of this very WAL into it, because it cannot know the nonce.
#[test]
fn a_record_cannot_pass_for_a_block() {
    let forged = encode_block(&WalBlockHead { nonce: 1, ..wal_block_head(50) }, &wal_entries());
    let before = SECTOR_SIZE - ENTRIES_AT - WalEntry::HEAD_SIZE;
    let records = [vec![0; before], forged.clone()].concat();
    let hostile = WalEntry { records: records.into(), ..wal_entries()[1].clone() };
    let mut segment = encode_block(&wal_block_head(9), &[hostile]);
    assert_eq!(&segment[SECTOR_SIZE..SECTOR_SIZE + forged.len()], forged, "the forged block lies on a sector");
    let next = segment.len();
    segment.extend(encode_block(&wal_block_head(10), &wal_entries()));
    segment[..SECTOR_SIZE].fill(0xff);

    assert!(matches!(classify_wal_block(&segment, 0, &expect(9)), BlockClass::NoHeader(_)));
    let ours = |at: &usize| match classify_wal_block(&segment[*at..], 0, &expect(9)) {
        BlockClass::Stale(head) => head.nonce == segment_head().nonce,
        BlockClass::Zero | BlockClass::NoHeader(_) => false,
        other => panic!("no block 9 is left: {other:?}"),
    };
    let found: Vec<usize> = (0..segment.len()).step_by(SECTOR_SIZE).filter(ours).collect();
    assert_eq!(found, [next], "only the real block has the nonce");
}

/// Codec, key and version that this build does not know are not damage; the same in a left-over is only a left-over.
#[test]
fn what_is_not_known_is_not_called_torn() {
    for (at, feature) in [(4, "format version"), (5, "codec"), (6, "reserved bits"), (8, "encryption key")] {
        let mut block = encode_block(&wal_block_head(9), &wal_entries());
        block[at] = 9;
        assert!(matches!(classify_wal_block(&block, 0, &expect(9)), BlockClass::NoHeader(_)), "{feature} is checked");
        reseal(&mut block);
        let BlockClass::Unsupported(error) = classify_wal_block(&block, 0, &expect(9)) else { panic!("{feature}") };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(feature), "{error}");
        assert!(matches!(classify_wal_block(&block, 0, &expect(10)), BlockClass::Stale(_)));
    }
}

/// Where the entries are bad the tally still tells, and where the tally is bad the entries are still read.
#[test]
fn tally_and_entries_do_not_share_their_damage() {
    let whole = encode_block(&wal_block_head(9), &wal_entries());
    let mut block = whole.clone();
    block[ENTRIES_AT + 200] ^= 1;
    let BlockClass::Torn { block: torn, .. } = classify_wal_block(&block, 4096, &expect(9)) else { panic!("torn") };
    assert_eq!(torn.tally(&block), Ok(tally(9)));
    let mut block = whole;
    block[WAL_BLOCK_HEADER_SIZE + 50] ^= 1;
    let BlockClass::Valid(valid) = classify_wal_block(&block, 4096, &expect(9)) else {
        panic!("the entries are whole")
    };
    let error = valid.tally(&block).expect_err("its checksum is wrong").to_string();
    assert!(error.starts_with("the WAL tally at byte 4176 cannot be read: its ends has checksum"), "{error}");
    assert_eq!(read(&block, 9), Ok(wal_entries()));
}

/// A tally of writes that are not before the block, or of writes that held nothing, was never written.
#[test]
fn a_tally_covers_earlier_blocks_only() {
    let block = encode_block(&wal_block_head(9), &wal_entries());
    for (from, ends) in [(10_u64, 2_u32), (9, 2), (7, 0)] {
        let mut block = block.clone();
        block[56..64].copy_from_slice(&from.to_le_bytes());
        block[64..68].copy_from_slice(&ends.to_le_bytes());
        reseal(&mut block);
        assert!(
            matches!(classify_wal_block(&block, 0, &expect(9)), BlockClass::NoHeader(_)),
            "{ends} ends from {from}"
        );
    }
    let first = encode_block(&wal_block_head(0), &wal_entries());
    let BlockClass::Valid(valid) = classify_wal_block(&first, 0, &expect(0)) else { panic!("a whole block") };
    assert_eq!(valid.tally(&first), Ok(forebay_format::Tally::nothing(WalSequence::ZERO)));
}

/// The ends of a tally have one order: each log once.
#[test]
fn a_tally_has_one_encoding() {
    let mut block = encode_block(&wal_block_head(9), &wal_entries());
    let (first, rest) = block[WAL_BLOCK_HEADER_SIZE..ENTRIES_AT].split_at(forebay_format::LogEnd::SIZE);
    let swapped = [rest, first].concat();
    block[WAL_BLOCK_HEADER_SIZE..ENTRIES_AT].copy_from_slice(&swapped);
    block[68..72].copy_from_slice(&crc32c(&swapped).to_le_bytes());
    reseal(&mut block);
    let BlockClass::Valid(valid) = classify_wal_block(&block, 0, &expect(9)) else { panic!("the entries are whole") };
    let error = valid.tally(&block).expect_err("out of order").to_string();
    assert!(error.contains("order of ends"), "{error}");
}

/// A record kind of a later version is named, with its place in the segment.
#[test]
fn a_pointer_record_is_reserved() {
    let mut block = encode_block(&wal_block_head(9), &wal_entries());
    block[ENTRIES_AT] = 2;
    reseal_payload(&mut block);
    let BlockClass::Valid(valid) = classify_wal_block(&block, 8192, &expect(9)) else { panic!("a whole block") };
    let error = valid.entries(&block.into()).expect_err("kind 2 is reserved");
    assert_eq!(
        error.to_string(),
        "the WAL entry at byte 8352 cannot be read: it uses record kind 2, which this build does not know"
    );
}

/// Replay shares what was read.
#[test]
fn parsing_copies_no_records() {
    let block = Bytes::from(encode_block(&wal_block_head(9), &wal_entries()));
    let BlockClass::Valid(valid) = classify_wal_block(&block, 0, &expect(9)) else { panic!("a whole block") };
    let entries = valid.entries(&block).expect("whole entries");
    let inside = block.as_ptr_range();
    assert!(entries.iter().all(|e| inside.contains(&e.records.as_ptr())));
}
