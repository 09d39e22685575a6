//! All transactional ids of one partition: entries in slots, and an index from text to slot.
//!
//! Owns: where an entry lies, how it is found, and what all of them cost. Leaves to others: what is in an entry, when
//! it comes and goes.
//!
//! Invariants:
//! 1. A slot names one id for as long as the id lives; timers hold slots, never text.
//! 2. Slots lie in chunks that never move: the millionth id costs no copy of the others.
//! 3. The index is looked up, never walked: its random hash seed cannot show in any output.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::entry::{ENTRY_SIZE, Entry};

/// Entries in one chunk: 72 KiB, one allocation for a thousand ids.
const CHUNK_SLOTS: usize = 1024;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

impl Slot {
    fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("fewer than four billion transactional ids in one partition"))
    }

    fn index(self) -> usize {
        usize::try_from(self.0).expect("a u32 fits in usize")
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    chunks: Vec<Vec<Option<Entry>>>,
    free: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: RandomState,
    text_bytes: usize,
}

impl Table {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn find(&self, id: &str) -> Option<Slot> {
        self.index.find(self.hasher.hash_one(id), |slot| *self.get(*slot).id == *id).copied()
    }

    pub fn get(&self, slot: Slot) -> &Entry {
        at(&self.chunks, slot)
    }

    pub fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        let entry = &mut self.chunks[slot.index() / CHUNK_SLOTS][slot.index() % CHUNK_SLOTS];
        entry.as_mut().expect("a slot is held only while its id lives")
    }

    /// # Panics
    /// Where the id is there already: two entries for one id could open two transactions.
    pub fn insert(&mut self, entry: Entry) -> Slot {
        assert!(self.find(&entry.id).is_none(), "transactional id {:?} has an entry already", entry.id);
        let hash = self.hasher.hash_one(&*entry.id);
        self.text_bytes += entry.id.len();
        let slot = if let Some(slot) = self.free.pop() {
            self.chunks[slot.index() / CHUNK_SLOTS][slot.index() % CHUNK_SLOTS] = Some(entry);
            slot
        } else {
            if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_SLOTS) {
                self.chunks.push(Vec::with_capacity(CHUNK_SLOTS));
            }
            let before = (self.chunks.len() - 1) * CHUNK_SLOTS;
            let chunk = self.chunks.last_mut().expect("pushed above");
            chunk.push(Some(entry));
            Slot::new(before + chunk.len() - 1)
        };
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| hasher.hash_one(&*at(chunks, *slot).id));
        slot
    }

    pub fn remove(&mut self, slot: Slot) -> Entry {
        let hash = self.hasher.hash_one(&*self.get(slot).id);
        let found = self.index.find_entry(hash, |other| *other == slot);
        found.expect("every entry is in the index").remove();
        let place = &mut self.chunks[slot.index() / CHUNK_SLOTS][slot.index() % CHUNK_SLOTS];
        let entry = place.take().expect("a slot is held only while its id lives");
        self.text_bytes -= entry.id.len();
        self.free.push(slot);
        entry
    }

    /// In the order of the slots: the same for the same history.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        let places = self.chunks.iter().flatten().enumerate();
        places.filter_map(|(index, entry)| Some((Slot::new(index), entry.as_ref()?)))
    }

    /// Heap bytes held for the ids, their text included, the partitions of open transactions not.
    pub fn heap_bytes(&self) -> usize {
        let chunk_bytes = CHUNK_SLOTS * ENTRY_SIZE + size_of::<Vec<Option<Entry>>>();
        self.chunks.len() * chunk_bytes
            + self.index.allocation_size()
            + self.free.capacity() * size_of::<Slot>()
            + self.text_bytes
    }
}

fn at(chunks: &[Vec<Option<Entry>>], slot: Slot) -> &Entry {
    let entry = &chunks[slot.index() / CHUNK_SLOTS][slot.index() % CHUNK_SLOTS];
    entry.as_ref().expect("a slot is held only while its id lives")
}
