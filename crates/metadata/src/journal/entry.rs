//! One entry: what kind it is, by whom, and its rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_format::{FormatError, JournalChange, JournalEntry};
use forebay_types::{ClusterId, Timestamp};

use crate::codec::{self, CodecError};
use crate::state::{CommitNumber, Key, Row};

/// The kind of the change that heads an entry; no table has this number.
const HEAD_KIND: u16 = 0;
const HEAD_VERSION: u8 = 1;
/// Version, part, parts, term, commit.
const HEAD_SIZE: usize = 1 + 4 + 4 + 8 + 8;

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
    /// Part `part` of `parts` of all rows, counted from 0.
    Full { part: u32, parts: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub number: u64,
    pub extent: Extent,
    pub term: u64,
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
        let (part, parts) = match self.extent {
            Extent::Delta => (0, 0),
            Extent::Full { part, parts } => (part, parts),
        };
        let mut head = Vec::with_capacity(HEAD_SIZE);
        head.push(HEAD_VERSION);
        head.extend_from_slice(&part.to_le_bytes());
        head.extend_from_slice(&parts.to_le_bytes());
        head.extend_from_slice(&self.term.to_le_bytes());
        head.extend_from_slice(&self.commit.get().to_le_bytes());
        head
    }

    /// An entry, and the cluster that it is of.
    pub(super) fn parse(bytes: &Bytes) -> Result<(ClusterId, Self), JournalError> {
        let entry = JournalEntry::parse(bytes)?;
        let number = entry.number;
        let head = entry.changes.first().filter(|change| change.kind == HEAD_KIND);
        let head = head.and_then(|change| parse_head(change.value.as_deref()?)).ok_or(JournalError::Head { number })?;
        let (extent, term, commit) = head;
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
        Ok((entry.cluster, Self { number, extent, term, commit, rows }))
    }
}

fn parse_head(bytes: &[u8]) -> Option<(Extent, u64, CommitNumber)> {
    let bytes: &[u8; HEAD_SIZE] = bytes.try_into().ok()?;
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let extent = match (bytes[0], u32_at(1), u32_at(5)) {
        (HEAD_VERSION, 0, 0) => Extent::Delta,
        (HEAD_VERSION, part, parts) if part < parts => Extent::Full { part, parts },
        _ => return None,
    };
    Some((extent, u64_at(9), CommitNumber::new(u64_at(17))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head is in buckets already: a change needs a new version of it. Rows have golden bytes in `codec`.
    #[test]
    fn the_head_has_its_golden_bytes() {
        let entry = Entry {
            number: 9,
            extent: Extent::Full { part: 1, parts: 2 },
            term: 3,
            commit: CommitNumber::new(4),
            rows: BTreeMap::new(),
        };
        let golden = [&[1_u8][..], &[1, 0, 0, 0], &[2, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0, 0], &[4, 0, 0, 0, 0, 0, 0, 0]];
        assert_eq!(entry.head(), golden.concat());
        assert_eq!(parse_head(&golden.concat()), Some((entry.extent, entry.term, entry.commit)));
        assert_eq!(parse_head(&golden[..4].concat()), None, "cut short");
    }
}
