//! One entry: what kind it is, by whom, and its rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_format::{FormatError, JournalChange, JournalEntry};
use forebay_types::{ClusterId, Timestamp};

use crate::codec::{self, CodecError};
use crate::state::{CommitNumber, Key, Row};

/// The kind of the change that heads an entry; no table has this number.
const HEAD_KIND: u16 = 0;
const HEAD_VERSION: u8 = 2;
/// Version, kind, reserved, part, first, begins, term, commit.
const HEAD_SIZE: usize = 1 + 1 + 2 + 4 + 8 + 8 + 8 + 8;
/// The version before, which is still read: version, part, parts, term, commit.
const HEAD_1_VERSION: u8 = 1;
const HEAD_1_SIZE: usize = 1 + 4 + 4 + 8 + 8;

/// A journal that cannot be read whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("journal entry {number} has no legal head")]
    Head { number: u64 },
    #[error("journal entry {number}: {error}")]
    Row { number: u64, error: CodecError },
    #[error("journal entry {number} is of cluster {found}, not {wanted}")]
    OtherCluster { number: u64, found: String, wanted: String },
    #[error("journal entry {number} is missing")]
    Gap { number: u64 },
    #[error("the journal has no entry")]
    Empty,
}

/// How an entry stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Rows that changed.
    Delta,
    /// The part after `part` others, from 0, of a full state whose part 0 is entry `first`: the rows whose keys come after
    /// that part's, as they stood at this entry. Deltas may lie between the parts.
    Part { first: u64, part: u32, last: bool },
    /// Of version 1: part `part` of `parts` of all rows, at consecutive numbers.
    Consecutive { part: u32, parts: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub number: u64,
    pub extent: Extent,
    pub term: u64,
    /// Where the term goes on: what older terms wrote from here on was never committed. `None` in version 1.
    pub begins: Option<u64>,
    /// The last command whose changes the entry holds.
    pub commit: CommitNumber,
    pub rows: BTreeMap<Key, Option<Row>>,
}

impl Entry {
    pub(super) fn encode(&self, cluster: &ClusterId, written_at: Timestamp) -> Bytes {
        let head = JournalChange { kind: HEAD_KIND, key: Bytes::new(), value: Some(self.head().into()) };
        let rows = self.rows.iter().map(|(key, row)| JournalChange {
            kind: codec::journal_kind(key),
            key: codec::encode_key(key).into(),
            value: row.as_ref().map(|row| codec::encode_row(row).into()),
        });
        let changes = std::iter::once(head).chain(rows).collect();
        JournalEntry { cluster: cluster.clone(), number: self.number, written_at, changes }.encode()
    }

    fn head(&self) -> Vec<u8> {
        let (kind, part, first) = match self.extent {
            Extent::Delta => (0, 0, 0),
            Extent::Part { first, part, last: false } => (1, part, first),
            Extent::Part { first, part, last: true } => (2, part, first),
            Extent::Consecutive { .. } => unreachable!("a full state is written in parts of their own numbers"),
        };
        let begins = self.begins.expect("whoever writes knows where its term goes on");
        let mut head = Vec::with_capacity(HEAD_SIZE);
        head.extend_from_slice(&[HEAD_VERSION, kind, 0, 0]);
        head.extend_from_slice(&part.to_le_bytes());
        for number in [first, begins, self.term, self.commit.get()] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        head
    }

    /// An entry, and the cluster that it is of.
    pub(super) fn parse(bytes: &Bytes) -> Result<(ClusterId, Self), JournalError> {
        let entry = JournalEntry::parse(bytes)?;
        let number = entry.number;
        let head = entry.changes.first().filter(|change| change.kind == HEAD_KIND);
        let head = head.and_then(|change| parse_head(change.value.as_deref()?)).ok_or(JournalError::Head { number })?;
        let Head { extent, begins, term, commit } = head;
        if let Extent::Part { first, part, .. } = extent
            && number.checked_sub(u64::from(part)).is_none_or(|earliest| first > earliest)
        {
            return Err(JournalError::Head { number });
        }
        let mut rows = BTreeMap::new();
        for change in &entry.changes[1..] {
            let wrong = |error| JournalError::Row { number, error };
            let key = codec::decode_key(&change.key).map_err(wrong)?;
            let row = change.value.as_deref().map(|bytes| codec::decode_row(&key, bytes)).transpose().map_err(wrong)?;
            if change.kind != codec::journal_kind(&key) {
                return Err(JournalError::Head { number });
            }
            rows.insert(key, row);
        }
        Ok((entry.cluster, Self { number, extent, term, begins, commit, rows }))
    }
}

/// What heads an entry.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    extent: Extent,
    begins: Option<u64>,
    term: u64,
    commit: CommitNumber,
}

fn parse_head(bytes: &[u8]) -> Option<Head> {
    match *bytes.first()? {
        HEAD_VERSION => parse_head_2(bytes.try_into().ok()?),
        HEAD_1_VERSION => parse_head_1(bytes.try_into().ok()?),
        _ => None,
    }
}

fn parse_head_2(bytes: &[u8; HEAD_SIZE]) -> Option<Head> {
    let (part, first) = (u32_at(bytes, 4), u64_at(bytes, 8));
    let extent = match (bytes[1], part, first) {
        (0, 0, 0) => Extent::Delta,
        (kind @ 1..=2, part, first) => Extent::Part { first, part, last: kind == 2 },
        _ => return None,
    };
    let (begins, term, commit) = (Some(u64_at(bytes, 16)), u64_at(bytes, 24), CommitNumber::new(u64_at(bytes, 32)));
    (bytes[2..4] == [0, 0]).then_some(Head { extent, begins, term, commit })
}

fn parse_head_1(bytes: &[u8; HEAD_1_SIZE]) -> Option<Head> {
    let extent = match (u32_at(bytes, 1), u32_at(bytes, 5)) {
        (0, 0) => Extent::Delta,
        (part, parts) if part < parts => Extent::Consecutive { part, parts },
        _ => return None,
    };
    Some(Head { extent, begins: None, term: u64_at(bytes, 9), commit: CommitNumber::new(u64_at(bytes, 17)) })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head is in buckets already: a change needs a new version of it. Rows have golden bytes in `codec`.
    #[test]
    fn the_head_has_its_golden_bytes() {
        let entry = Entry {
            number: 9,
            extent: Extent::Part { first: 6, part: 2, last: true },
            term: 3,
            begins: Some(5),
            commit: CommitNumber::new(4),
            rows: BTreeMap::new(),
        };
        let long = |number: u8| [number, 0, 0, 0, 0, 0, 0, 0];
        let golden = [&[2_u8, 2, 0, 0][..], &[2, 0, 0, 0], &long(6), &long(5), &long(3), &long(4)].concat();
        assert_eq!(entry.head(), golden);
        let Entry { extent, begins, term, commit, .. } = entry;
        assert_eq!(parse_head(&golden), Some(Head { extent, begins, term, commit }));
        assert_eq!(parse_head(&golden[..39]), None, "cut short");
        let changed = |at: usize, to: u8| {
            parse_head(&golden.iter().enumerate().map(|(i, b)| if i == at { to } else { *b }).collect::<Vec<_>>())
        };
        assert_eq!(changed(1, 1).expect("legal").extent, Extent::Part { first: 6, part: 2, last: false });
        for (at, to) in [(0, 3), (1, 0), (1, 3), (2, 1), (3, 1)] {
            assert_eq!(changed(at, to), None, "byte {at} is {to}");
        }
    }

    #[test]
    fn the_head_of_version_1_is_still_read() {
        let golden = [&[1_u8][..], &[1, 0, 0, 0], &[2, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0], &[4, 0, 0, 0, 0, 0, 0, 0]];
        let extent = Extent::Consecutive { part: 1, parts: 2 };
        let head = Head { extent, begins: None, term: 3, commit: CommitNumber::new(4) };
        assert_eq!(parse_head(&golden.concat()), Some(head));
        assert_eq!(parse_head(&golden[..4].concat()), None, "cut short");
    }
}
