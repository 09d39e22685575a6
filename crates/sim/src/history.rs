//! What the clients saw, written down as they saw it: the only thing that the checkers believe.
//!
//! Owns: the record of attempts, acks, reads, ownership and of what was asked to go, and the checks that can be made at
//! once. Leaves to others: the checks that need the end of the run (`check`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forebay_types::{LeaderEpoch, Offset, Timestamp, TopicName};
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
    /// By its client's clock, and so its record's timestamp.
    pub at: Timestamp,
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

/// What of a topic its owner has said may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// All of it: it was deleted, and not brought back as far as anybody knows.
    All,
    /// Records that are older than this, in milliseconds.
    Older(i64),
}

/// An offset of a partition that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    LogStart,
    LastStable,
    HighWatermark,
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
    /// Records below this offset may be gone: somebody asked for that.
    pub cuts: BTreeMap<Place, Offset>,
    pub leaves: BTreeMap<TopicName, Leave>,
    /// Topics that were deleted and brought back.
    pub brought_back: BTreeSet<TopicName>,
    pub violations: Vec<Violation>,
    /// Where each log was seen to start, each time that it was further than before, and the latest time that a broker can
    /// have taken it for by then.
    pub starts: BTreeMap<Place, Vec<(Offset, Timestamp)>>,
    /// How far each edge was seen to be, and under which leader epoch.
    edges: BTreeMap<(Place, Edge), (LeaderEpoch, Offset)>,
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
    pub fn sending(&self, value: &str, place: &Place, at: Timestamp, transaction: Option<u64>) {
        let sent = Sent { place: place.clone(), at, transaction, fate: Fate::Unknown, acked_at: None };
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

    /// Somebody is about to ask that all records below `before` go.
    pub fn cutting(&self, place: &Place, before: Offset) {
        let mut seen = self.0.lock();
        let cut = seen.cuts.entry(place.clone()).or_insert(before);
        *cut = before.max(*cut);
    }

    /// A topic's owner is about to let go of it, or of its old records.
    pub fn leaving(&self, topic: &TopicName, leave: Leave) {
        self.0.lock().leaves.insert(topic.clone(), leave);
    }

    /// A topic is back from the trash, with all that was acknowledged.
    pub fn back(&self, topic: &TopicName) {
        let mut seen = self.0.lock();
        seen.leaves.remove(topic);
        seen.brought_back.insert(topic.clone());
    }

    /// Where an edge was seen to be so far. To be asked before the question that [`History::edge`] gets the answer to.
    pub fn edge_so_far(&self, place: &Place, edge: Edge) -> Option<(LeaderEpoch, Offset)> {
        self.0.lock().edges.get(&(place.clone(), edge)).copied()
    }

    /// An edge was seen. Checked at once: it has not gone back since `before`. An answer of an older leader epoch is that of
    /// a broker that does not know that it was replaced, and tells nothing.
    pub fn edge(
        &self,
        place: &Place,
        edge: Edge,
        before: Option<(LeaderEpoch, Offset)>,
        (epoch, offset): (LeaderEpoch, Offset),
    ) {
        if before.is_some_and(|(newest, _)| epoch < newest) {
            return;
        }
        let mut seen = self.0.lock();
        if let Some((_, last)) = before.filter(|(_, last)| offset < *last) {
            let what = format!("{}-{}: {edge:?} was {last} and is {offset} in epoch {epoch}", place.0, place.1);
            seen.violations.push(Violation { check: "offsets only grow", what });
        }
        let known = seen.edges.entry((place.clone(), edge)).or_insert((epoch, offset));
        *known = (epoch.max(known.0), offset.max(known.1));
    }

    /// A log was seen to start at an offset, at which time brokers' clocks were nowhere ahead of `clocks_highest`.
    pub fn starts(&self, place: &Place, offset: Offset, clocks_highest: Timestamp) {
        let mut seen = self.0.lock();
        let starts = seen.starts.entry(place.clone()).or_default();
        if starts.last().is_none_or(|(last, _)| *last < offset) {
            starts.push((offset, clocks_highest));
        }
    }

    pub fn violation(&self, check: &'static str, what: String) {
        self.0.lock().violations.push(Violation { check, what });
    }
}

impl Seen {
    /// Values that were acknowledged.
    pub fn acked(&self) -> usize {
        self.sent.values().filter(|sent| sent.acked_at.is_some()).count()
    }

    /// What happened how often.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let retired = self.edges.iter().filter(|(((topic, _), edge), (_, offset))| {
            let expires = matches!(self.leaves.get(topic), Some(Leave::Older(_)));
            expires && *edge == Edge::LogStart && *offset > Offset::ZERO
        });
        let deleted = self.leaves.values().filter(|leave| **leave == Leave::All).count() + self.brought_back.len();
        let counts = [
            ("acked", self.acked()),
            ("cut", self.cuts.len()),
            ("deleted", deleted),
            ("brought back", self.brought_back.len()),
            ("retired", retired.count()),
        ];
        counts.into_iter().map(|(what, count)| (what, count as u64)).collect()
    }
}
