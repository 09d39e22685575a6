//! Reading a segment: which blocks of an epoch are in it, and what is wrong with the others.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use forebay_env::{AlignedBuf, SECTOR_SIZE};
use forebay_format::{BlockClass, WalBlock, WalBlockHead, WalExpect, classify_wal_block};
use forebay_types::{BrokerEpoch, BrokerId, WalSequence};

use super::sectors::Sectors;

/// Bytes read at a time, unless one block needs more.
const WINDOW_BYTES: usize = 1 << 20;

/// A part of a segment in memory, which follows the reader.
pub(super) struct Window {
    sectors: Arc<Sectors>,
    start: u64,
    bytes: AlignedBuf,
}

impl Window {
    pub fn new(sectors: &Arc<Sectors>) -> Self {
        Self { sectors: Arc::clone(sectors), start: 0, bytes: AlignedBuf::default() }
    }

    /// The bytes from `position`, a sector's start, on: at least `size` of them, or fewer at the segment's end.
    pub fn at(&mut self, position: u64, size: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.sectors.file().size.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = size.next_multiple_of(SECTOR_SIZE).min(left);
        let held = position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = held
            && self.bytes.len() >= skip + wanted
        {
            return Ok(&self.bytes[skip..]);
        }
        self.bytes.resize(wanted.max(WINDOW_BYTES.min(left)), 0);
        self.start = position;
        if let Err(error) = self.sectors.read(&mut self.bytes, position) {
            // What is held now is neither the old window nor the new one.
            self.bytes.clear();
            return Err(error);
        }
        Ok(&self.bytes)
    }

    /// Says what is at `position`, having read all of it.
    pub fn classify(&mut self, position: u64, expect: &WalExpect) -> io::Result<BlockClass> {
        match classify_wal_block(self.at(position, SECTOR_SIZE)?, position, expect) {
            BlockClass::NeedMore { size } => Ok(classify_wal_block(self.at(position, size)?, position, expect)),
            class => Ok(class),
        }
    }

    /// A block that was classified as valid, as bytes of its own.
    pub fn bytes_of(&mut self, position: u64, block: &WalBlock) -> io::Result<Bytes> {
        let bytes = self.at(position, block.size())?;
        Ok(Bytes::copy_from_slice(&bytes[..block.size().min(bytes.len())]))
    }
}

/// A readable block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub sequence: WalSequence,
    pub position: u64,
}

/// A place where a block should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// The number that was looked for there, or found in a whole header.
    pub sequence: WalSequence,
    /// Where a whole header of this segment's use is: it is known that the block was, too, and its tally may be.
    pub header_at: Option<u64>,
    pub what: String,
}

/// What a segment holds of one epoch.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub blocks: Vec<Found>,
    pub bad: Vec<Bad>,
    /// The highest `acknowledged` in any whole header, those of unreadable blocks included.
    pub acknowledged: WalSequence,
}

/// The first block's header in a segment, whoever wrote it: it tells the nonce where the segment's header is lost.
pub(super) fn first_head(
    window: &mut Window,
    broker: BrokerId,
    epoch: BrokerEpoch,
) -> io::Result<Option<WalBlockHead>> {
    // No block has this nonce but by a chance of 2^-64, so whatever is there is reported as stale.
    let nobody = WalExpect { broker, broker_epoch: epoch, nonce: 0, sequence: WalSequence::ZERO };
    Ok(match classify_wal_block(window.at(SECTOR_SIZE as u64, SECTOR_SIZE)?, SECTOR_SIZE as u64, &nobody) {
        BlockClass::Stale(head) => Some(head),
        BlockClass::Valid(block) | BlockClass::Torn { block, .. } => Some(*block.head()),
        BlockClass::NeedMore { .. } | BlockClass::Zero | BlockClass::NoHeader(_) | BlockClass::Unsupported(_) => None,
    })
}

/// Walks a segment from its first block. After a bad place it goes on sector by sector, because what comes later
/// decides whether this was corruption or the torn end of the log.
///
/// Nothing but the nonce keeps the inside of a client's records from passing for a block, so only headers with this
/// segment's nonce count for anything.
pub(super) fn scan(window: &mut Window, mut expect: WalExpect) -> io::Result<Scan> {
    let sector = SECTOR_SIZE as u64;
    let mut scan = Scan::default();
    let mut position = sector;
    let mut searching = false;
    let sectors = Arc::clone(&window.sectors);
    while position < sectors.file().size {
        let class = window.classify(position, &expect)?;
        let ours = |head: &WalBlockHead| {
            (head.broker, head.broker_epoch, head.nonce) == (expect.broker, expect.broker_epoch, expect.nonce)
        };
        match class {
            BlockClass::Valid(block) => {
                let head = block.head();
                scan.acknowledged = scan.acknowledged.max(head.acknowledged);
                scan.blocks.push(Found { sequence: head.sequence, position });
                expect.sequence = head.sequence.next();
                position += block.size() as u64;
                searching = false;
                continue;
            }
            BlockClass::Stale(head) if ours(&head) && head.sequence > expect.sequence => {
                // Blocks between are missing, or this is the first block of the segment.
                expect.sequence = head.sequence;
                continue;
            }
            BlockClass::Torn { block, error } => {
                let head = block.head();
                scan.acknowledged = scan.acknowledged.max(head.acknowledged);
                let what = sectors.what_is_wrong(error, block.size());
                scan.bad.push(Bad { sequence: head.sequence, header_at: Some(position), what });
            }
            BlockClass::NoHeader(error) | BlockClass::Unsupported(error) if !searching => {
                let what = sectors.what_is_wrong(error, SECTOR_SIZE);
                scan.bad.push(Bad { sequence: expect.sequence, header_at: None, what });
            }
            BlockClass::Zero
            | BlockClass::Stale(_)
            | BlockClass::NoHeader(_)
            | BlockClass::Unsupported(_)
            | BlockClass::NeedMore { .. } => {}
        }
        searching = true;
        position += sector;
    }
    Ok(scan)
}
