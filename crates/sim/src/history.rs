//! What the clients saw, written down as they saw it: the only thing that the checkers believe.
//!
//! Owns: the record of attempts, acks, reads and ownership, and the checks that can be made at once. Leaves to others:
//! the checks that need the end of the run (`check`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forebay_types::{Offset, TopicName};
use parking_lot::Mutex;

/// A partition by its topic's name and number.
pub type Place = (TopicName, i32);

/// What became of one value that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No answer that says.
    Unknown,
    /// Acknowledged at this offset, outside of any transaction or in one that committed.
    Acked(Offset),
    /// In a transaction that was aborted, or never committed.
    Aborted,
}

/// One value: who sent it where, in which transaction, and what became of it. Values are unique in a run.
#[derive(Clone, Debug)]
pub struct Sent {
    pub place: Place,
    /// The transaction it was part of.
    pub transaction: Option<u64>,
    pub fate: Fate,
    /// Where it was acknowledged, whatever became of its transaction.
    pub acked_at: Option<Offset>,
}

/// How a transaction ended as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Committed,
    Aborted,
    Unknown,
}

/// A broken promise, in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which checker found it.
    pub check: &'static str,
    pub what: String,
}

#[derive(Default)]
pub struct Seen {
    pub sent: BTreeMap<String, Sent>,
    pub transactions: BTreeMap<u64, Ended>,
    /// What any reader ever saw at an offset: it never changes.
    pub read: BTreeMap<(Place, Offset), String>,
    /// Values that a reader of committed data was ever given.
    pub committed: BTreeSet<String>,
    /// Who owned a partition in a generation of a group.
    pub owned: BTreeMap<(String, i32, Place), String>,
    pub violations: Vec<Violation>,
    next_transaction: u64,
}

/// The shared history of a run.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Seen>>);

impl History {
    pub fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock())
    }

    /// A value is about to be sent.
    pub fn sending(&self, value: &str, place: &Place, transaction: Option<u64>) {
        let sent = Sent { place: place.clone(), transaction, fate: Fate::Unknown, acked_at: None };
        let before = self.0.lock().sent.insert(value.to_owned(), sent);
        assert!(before.is_none(), "values are unique, {value} is not");
    }

    /// A value was acknowledged at an offset.
    pub fn acked(&self, value: &str, offset: Offset) {
        let mut seen = self.0.lock();
        let sent = seen.sent.get_mut(value).expect("only what was sent is acknowledged");
        sent.acked_at = Some(offset);
        if sent.transaction.is_none() {
            sent.fate = Fate::Acked(offset);
        }
    }

    pub fn begin(&self) -> u64 {
        let mut seen = self.0.lock();
        let number = seen.next_transaction;
        seen.next_transaction += 1;
        seen.transactions.insert(number, Ended::Unknown);
        number
    }

    pub fn ended(&self, transaction: u64, ended: Ended) {
        let mut seen = self.0.lock();
        seen.transactions.insert(transaction, ended);
        for sent in seen.sent.values_mut().filter(|sent| sent.transaction == Some(transaction)) {
            sent.fate = match (ended, sent.acked_at) {
                (Ended::Committed, Some(offset)) => Fate::Acked(offset),
                (Ended::Aborted, _) => Fate::Aborted,
                _ => Fate::Unknown,
            };
        }
    }

    /// A reader saw a value. Checked at once: an offset never changes its record.
    pub fn read(&self, place: &Place, offset: Offset, value: &str) {
        let mut seen = self.0.lock();
        let before = seen.read.insert((place.clone(), offset), value.to_owned());
        if let Some(before) = before.filter(|before| before != value) {
            let what = format!("{}-{} at offset {offset} was {before} and is now {value}", place.0, place.1);
            seen.violations.push(Violation { check: "offsets never diverge", what });
        }
    }

    /// A member was given a partition in a generation. Checked at once: nobody else has it in that generation.
    pub fn owns(&self, group: &str, generation: i32, member: &str, place: &Place) {
        let mut seen = self.0.lock();
        let key = (group.to_owned(), generation, place.clone());
        let before = seen.owned.insert(key, member.to_owned());
        if let Some(before) = before.filter(|before| before != member) {
            let what = format!("{}-{} is owned by {before} and {member} in generation {generation}", place.0, place.1);
            seen.violations.push(Violation { check: "one owner per generation", what });
        }
    }

    pub fn violation(&self, check: &'static str, what: String) {
        self.0.lock().violations.push(Violation { check, what });
    }
}
