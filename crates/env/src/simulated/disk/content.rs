//! The bytes of one simulated file, twice: as they read now, and as a crash would find them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;

use super::super::SimRandom;
use super::input_output_error;
use crate::SECTOR_SIZE;

/// A file without its names.
pub(super) struct Inode {
    pub(super) id: u64,
    live: Content,
    durable: Content,
    /// Changes that `durable` lacks, oldest first.
    pending: VecDeque<(Change, Fate)>,
    /// What a read may not touch.
    unreadable: Vec<Range<u64>>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetSize(u64),
}

/// What a crash does with a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Decided by the seed, unless a sync comes first.
    Unsynced,
    /// Decided by the seed: the write or its sync failed.
    InDoubt,
    /// Kept. Waits only for older changes in doubt to be decided, as order counts where they overlap.
    Synced,
}

impl Inode {
    pub(super) fn new(id: u64) -> Self {
        let (live, durable) = (Content::default(), Content::default());
        Self { id, live, durable, pending: VecDeque::new(), unreadable: Vec::new() }
    }

    pub(super) fn size(&self) -> u64 {
        self.live.size
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        if self.unreadable.iter().any(|range| range.start < end && offset < range.end) {
            return Err(input_output_error());
        }
        self.live.read(bytes, offset)
    }

    pub(super) fn fail_reads(&mut self, range: Range<u64>) {
        self.unreadable.push(range);
    }

    pub(super) fn heal(&mut self) {
        self.unreadable.clear();
    }

    pub(super) fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.pending.push_back((change, Fate::Unsynced));
    }

    pub(super) fn sync(&mut self) {
        for (_, fate) in &mut self.pending {
            if *fate == Fate::Unsynced {
                *fate = Fate::Synced;
            }
        }
        while let Some((_, Fate::Synced)) = self.pending.front() {
            let (change, _) = self.pending.pop_front().expect("just seen");
            self.durable.apply(&change);
        }
    }

    pub(super) fn doubt_unsynced(&mut self) {
        for (_, fate) in &mut self.pending {
            if *fate == Fate::Unsynced {
                *fate = Fate::InDoubt;
            }
        }
    }

    pub(super) fn flip(&mut self, offset: u64) -> io::Result<()> {
        self.live.flip(offset)?;
        // Where nothing is durable yet, decay finds nothing to spoil.
        let _ = self.durable.flip(offset);
        Ok(())
    }

    pub(super) fn crash(&mut self, random: &SimRandom) {
        for (change, fate) in std::mem::take(&mut self.pending) {
            match (fate, change) {
                (Fate::Synced, change) => self.durable.apply(&change),
                (_, Change::SetSize(size)) => {
                    if random.below(2) == 0 {
                        self.durable.apply(&Change::SetSize(size));
                    }
                }
                (_, Change::Write { offset, bytes }) => match random.below(3) {
                    0 => self.durable.write(offset, &bytes),
                    1 => {}
                    _ => {
                        for (at, piece) in pieces(offset, &bytes) {
                            if random.below(2) == 0 {
                                self.durable.write(at, piece);
                            }
                        }
                    }
                },
            }
        }
        self.live = self.durable.clone();
    }
}

/// A write cut at sector borders.
fn pieces(mut offset: u64, mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (at, room) = (offset, SECTOR_SIZE - within(offset));
        let (piece, rest) = bytes.split_at(room.min(bytes.len()));
        offset += piece.len() as u64;
        bytes = rest;
        Some((at, piece))
    })
}

/// Where in its sector a byte lies.
fn within(offset: u64) -> usize {
    usize::try_from(offset % SECTOR_SIZE as u64).expect("less than a sector")
}

/// Bytes by sector; a sector that is not there is zeros, so that a preallocated file costs nothing.
#[derive(Clone, Default)]
struct Content {
    size: u64,
    sectors: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::SetSize(size) => self.set_size(*size),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, piece) in pieces(offset, bytes) {
            let sector = self.sectors.entry(at / SECTOR_SIZE as u64).or_insert_with(|| vec![0; SECTOR_SIZE]);
            sector[within(at)..within(at) + piece.len()].copy_from_slice(piece);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    fn set_size(&mut self, size: u64) {
        let whole = size / SECTOR_SIZE as u64;
        let mut beyond = self.sectors.split_off(&whole);
        if let Some(mut last) = beyond.remove(&whole) {
            last[within(size)..].fill(0);
            self.sectors.insert(whole, last);
        }
        self.size = size;
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if end > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let length = (SECTOR_SIZE - within(at)).min(bytes.len() - done);
            let target = &mut bytes[done..done + length];
            match self.sectors.get(&(at / SECTOR_SIZE as u64)) {
                Some(sector) => target.copy_from_slice(&sector[within(at)..within(at) + length]),
                None => target.fill(0),
            }
            done += length;
        }
        Ok(())
    }

    fn flip(&mut self, offset: u64) -> io::Result<()> {
        let mut byte = [0];
        self.read(&mut byte, offset)?;
        self.write(offset, &[!byte[0]]);
        Ok(())
    }
}
