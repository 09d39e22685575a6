//! Which segment the next block goes to: pure bookkeeping, no I/O.

use std::collections::VecDeque;

use forebay_env::SECTOR_SIZE;
use forebay_types::WalSequence;

use super::files::SegmentFile;

pub(super) struct Segments {
    segment_bytes: u64,
    total_bytes: u64,
    /// The last one freed is used first: its blocks are allocated, written once, and perhaps still warm.
    free: Vec<SegmentFile>,
    current: Option<Current>,
    /// Oldest first, with the last sequence in each.
    full: VecDeque<(WalSequence, SegmentFile)>,
    /// The number of the next segment in this epoch.
    next_segment: u64,
    next_slot: u64,
    may_grow: bool,
    /// The highest block that was ever trimmed.
    trimmed: Option<WalSequence>,
}

struct Current {
    file: SegmentFile,
    segment: u64,
    nonce: u64,
    position: u64,
    last: WalSequence,
}

/// Where a block goes.
pub(super) struct Place {
    pub file: SegmentFile,
    pub segment: u64,
    pub nonce: u64,
    pub position: u64,
    /// The block is the segment's first: the header goes with it.
    pub opens: bool,
}

pub(super) enum Next {
    Place(Place),
    /// Make another segment, then ask again.
    Grow,
    /// Nothing is free before a trim.
    Wait,
}

impl Segments {
    pub fn new(free: Vec<SegmentFile>, segment_bytes: u64, total_bytes: u64) -> Self {
        let next_slot = free.iter().map(|file| file.slot + 1).max().unwrap_or(0);
        Self {
            segment_bytes,
            total_bytes,
            free,
            current: None,
            full: VecDeque::new(),
            next_segment: 0,
            next_slot,
            may_grow: true,
            trimmed: None,
        }
    }

    fn count(&self) -> u64 {
        (self.free.len() + self.full.len() + usize::from(self.current.is_some())) as u64
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    pub fn next_slot(&self) -> u64 {
        self.next_slot
    }

    pub fn add_free(&mut self, file: SegmentFile) {
        assert!(file.slot >= self.next_slot, "a new segment has a new slot");
        self.next_slot = file.slot + 1;
        self.free.push(file);
    }

    /// The disk is full: no more segments until some space may have come free.
    pub fn cannot_grow(&mut self) {
        self.may_grow = false;
    }

    /// A place for block `sequence` of `size` bytes, which is taken once it is given.
    pub fn place(&mut self, sequence: WalSequence, size: u64, nonce: impl FnOnce() -> u64) -> Next {
        assert!(size <= self.segment_bytes - SECTOR_SIZE as u64, "a block of {size} bytes fits a segment");
        if let Some(current) = self.current.take_if(|c| c.position + size > c.file.size) {
            self.full.push_back((current.last, current.file));
            // Its last block may have been trimmed while it was still being written to; no later trim would tell.
            if let Some(through) = self.trimmed {
                self.free_through(through);
            }
        }
        let mut opens = false;
        if self.current.is_none() {
            let Some(file) = self.free.pop() else {
                let fits = (self.count() + 1) * self.segment_bytes <= self.total_bytes;
                return if fits && self.may_grow { Next::Grow } else { Next::Wait };
            };
            opens = true;
            let segment = self.next_segment;
            self.next_segment += 1;
            self.current =
                Some(Current { file, segment, nonce: nonce(), position: SECTOR_SIZE as u64, last: sequence });
        }
        let current = self.current.as_mut().expect("just made sure");
        assert!(opens || current.last < sequence, "blocks go out in the order of their numbers");
        let place = Place {
            file: current.file.clone(),
            segment: current.segment,
            nonce: current.nonce,
            position: current.position,
            opens,
        };
        current.position += size;
        current.last = sequence;
        Next::Place(place)
    }

    /// Frees the segments whose blocks all lie at or below `through`.
    pub fn trim(&mut self, through: WalSequence) {
        self.may_grow = true;
        self.trimmed = self.trimmed.max(Some(through));
        self.free_through(through);
    }

    fn free_through(&mut self, through: WalSequence) {
        while let Some((_, file)) = self.full.pop_front_if(|(last, _)| *last <= through) {
            self.free.push(file);
        }
    }

    /// Bytes that blocks can take up before a trim is needed. With everything trimmed it is the whole, however full the
    /// current segment is: the first block that does not fit frees it. Those who wait for room would wait for ever
    /// otherwise, as there is nothing left to trim.
    pub fn room(&self) -> u64 {
        let usable = self.segment_bytes - SECTOR_SIZE as u64;
        let current = self
            .current
            .as_ref()
            .map_or(0, |c| if Some(c.last) <= self.trimmed { usable } else { c.file.size - c.position });
        let unmade =
            if self.may_grow { (self.total_bytes / self.segment_bytes).saturating_sub(self.count()) } else { 0 };
        current + (self.free.len() as u64 + unmade) * usable
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_env::simulated::{SimDisk, Trace};

    use super::*;
    use crate::providers::disk::Folder;

    const SEGMENT: u64 = 16 * 4096;

    fn segments(total: u64) -> (Folder, Segments) {
        let folder = Folder::new(Arc::new(SimDisk::new(0, Trace::default())), "/wal".into());
        (folder, Segments::new(Vec::new(), SEGMENT, total))
    }

    /// Where a block of so many sectors goes, as text.
    fn place(folder: &Folder, segments: &mut Segments, sequence: u64, sectors: u64) -> String {
        loop {
            match segments.place(WalSequence::new(sequence), sectors * 4096, || 0) {
                Next::Place(p) => {
                    let opens = if p.opens { " opens" } else { "" };
                    return format!("slot {} segment {} sector {}{opens}", p.file.slot, p.segment, p.position / 4096);
                }
                Next::Grow => {
                    let slot = segments.next_slot();
                    segments.add_free(folder.create(slot, SEGMENT).expect("room on the disk"));
                }
                Next::Wait => return "wait".to_owned(),
            }
        }
    }

    #[test]
    fn segments_fill_grow_wait_and_come_back() {
        let (folder, mut segments) = segments(2 * SEGMENT);
        assert_eq!(segments.room(), 2 * (SEGMENT - 4096));
        assert_eq!(place(&folder, &mut segments, 0, 10), "slot 0 segment 0 sector 1 opens");
        assert_eq!(place(&folder, &mut segments, 1, 5), "slot 0 segment 0 sector 11");
        assert_eq!(place(&folder, &mut segments, 2, 1), "slot 1 segment 1 sector 1 opens");
        assert_eq!(place(&folder, &mut segments, 3, 15), "wait");
        assert_eq!(segments.room(), 0);
        segments.trim(WalSequence::new(0));
        assert_eq!(place(&folder, &mut segments, 3, 15), "wait", "block 1 is still needed");
        segments.trim(WalSequence::new(1));
        assert_eq!(place(&folder, &mut segments, 3, 15), "slot 0 segment 2 sector 1 opens");
    }

    /// A current segment that is nearly full and wholly trimmed is room, also where it is the only one there can be.
    #[test]
    fn with_everything_trimmed_the_room_is_the_whole() {
        let whole = 2 * (SEGMENT - 4096);
        let (folder, mut segments) = segments(2 * SEGMENT);
        place(&folder, &mut segments, 0, 14);
        assert_eq!(segments.room(), whole - 14 * 4096);
        segments.trim(WalSequence::new(0));
        assert_eq!(segments.room(), whole);
        segments.cannot_grow();
        assert_eq!(segments.room(), whole / 2);
        assert_eq!(place(&folder, &mut segments, 1, 15), "slot 0 segment 1 sector 1 opens");
        assert_eq!(segments.room(), 0);
    }

    #[test]
    fn a_full_disk_is_asked_again_only_after_a_trim() {
        let (folder, mut segments) = segments(8 * SEGMENT);
        assert_eq!(place(&folder, &mut segments, 0, 15), "slot 0 segment 0 sector 1 opens");
        segments.cannot_grow();
        assert_eq!(place(&folder, &mut segments, 1, 15), "wait");
        segments.trim(WalSequence::new(0));
        assert_eq!(place(&folder, &mut segments, 1, 15), "slot 0 segment 1 sector 1 opens");
    }
}
