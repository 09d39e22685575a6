//! Reading a journal: entries in, rows out.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_types::ClusterId;

use super::JournalError;
use super::entry::{Entry, Extent};
use crate::state::{CommitNumber, Key, Row};

/// What a journal tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    pub cluster: ClusterId,
    /// The term and the last command that wrote an entry which counts.
    pub term: u64,
    pub commit: CommitNumber,
    pub rows: BTreeMap<Key, Row>,
    /// The number for the next entry.
    pub next: u64,
}

/// The rows that the entries come to. `entries` are the objects' bytes, in any order; what lies before the last whole
/// full entry may be left out.
///
/// # Errors
/// An entry is damaged, of another cluster, or missing.
pub fn fold(entries: impl IntoIterator<Item = Bytes>) -> Result<Folded, JournalError> {
    let mut by_number = BTreeMap::new();
    let mut cluster: Option<ClusterId> = None;
    for bytes in entries {
        let (of, entry) = Entry::parse(&bytes)?;
        let wanted = cluster.get_or_insert_with(|| of.clone());
        if *wanted != of {
            let (number, found, wanted) = (entry.number, of.to_string(), wanted.to_string());
            return Err(JournalError::OtherCluster { number, found, wanted });
        }
        by_number.insert(entry.number, entry);
    }
    let (Some(cluster), Some((last, _))) = (cluster, by_number.last_key_value()) else {
        return Err(JournalError::Empty);
    };
    let next = last + 1;
    let counting = without_stale(by_number.into_values());
    let base = last_full(&counting);
    let mut folded = Folded { cluster, term: 0, commit: CommitNumber::ZERO, rows: BTreeMap::new(), next };
    let first = base.unwrap_or(0);
    let needed = counting.into_iter().skip_while(|(entry, _)| entry.number < first);
    for (expected, (entry, counts)) in (first..).zip(needed) {
        if entry.number != expected {
            return Err(JournalError::Gap { number: expected });
        }
        // The parts of a full entry that was broken off say nothing that was committed.
        let broken = matches!(entry.extent, Extent::Full { .. }) && !base.is_some_and(|base| is_part_of(&entry, base));
        if !counts || broken {
            continue;
        }
        folded.term = entry.term;
        folded.commit = entry.commit.max(folded.commit);
        for (key, row) in entry.rows {
            match row {
                Some(row) => drop(folded.rows.insert(key, row)),
                None => drop(folded.rows.remove(&key)),
            }
        }
    }
    Ok(folded)
}

/// Entries in order, each with whether it counts: not where an entry of a newer term came before it.
fn without_stale(entries: impl Iterator<Item = Entry>) -> Vec<(Entry, bool)> {
    let mut newest = 0;
    entries
        .map(|entry| {
            newest = entry.term.max(newest);
            let counts = entry.term == newest;
            (entry, counts)
        })
        .collect()
}

fn is_part_of(entry: &Entry, base: u64) -> bool {
    matches!(entry.extent, Extent::Full { part, .. } if entry.number.checked_sub(u64::from(part)) == Some(base))
}

/// The number of the first part of the last full entry of which every part is there and counts.
fn last_full(entries: &[(Entry, bool)]) -> Option<u64> {
    let mut found = None;
    let mut begun: Option<(u64, u64)> = None;
    for (entry, counts) in entries {
        let Extent::Full { part, parts } = entry.extent else {
            begun = None;
            continue;
        };
        if *counts && part == 0 {
            begun = Some((entry.number, entry.term));
        }
        let Some((first, term)) = begun else { continue };
        if !counts || entry.term != term || entry.number != first + u64::from(part) {
            begun = None;
        } else if part + 1 == parts {
            found = Some(first);
            begun = None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use forebay_types::{BrokerEpoch, BrokerId, Timestamp};

    use super::*;
    use crate::state::Broker;

    fn key(id: i32) -> Key {
        Key::Broker(BrokerId::new(id).expect("not negative"))
    }

    fn row(epoch: u64) -> Row {
        Row::Broker(Broker { epoch: BrokerEpoch::new(epoch).expect("not negative"), incarnation: 7 })
    }

    fn cluster() -> ClusterId {
        ClusterId::from_random([3; 16])
    }

    fn entry(number: u64, term: u64, extent: Extent, rows: &[(i32, Option<u64>)]) -> Bytes {
        let rows = rows.iter().map(|(id, epoch)| (key(*id), epoch.map(row))).collect();
        let entry = Entry { number, extent, term, commit: CommitNumber::new(number + 10), rows };
        let bytes = entry.encode(&cluster(), Timestamp::from_millis(5));
        assert_eq!(
            Entry::parse(&bytes).expect("what was written"),
            (cluster(), entry),
            "an entry reads back as written"
        );
        bytes
    }

    fn delta(number: u64, term: u64, rows: &[(i32, Option<u64>)]) -> Bytes {
        entry(number, term, Extent::Delta, rows)
    }

    fn full(number: u64, term: u64, part: u32, parts: u32, rows: &[(i32, Option<u64>)]) -> Bytes {
        entry(number, term, Extent::Full { part, parts }, rows)
    }

    fn rows_of(entries: Vec<Bytes>) -> Vec<(Key, Row)> {
        fold(entries).expect("a whole journal").rows.into_iter().collect()
    }

    #[test]
    fn the_last_word_on_a_row_counts() {
        let entries = vec![delta(1, 1, &[(1, Some(2)), (2, None)]), delta(0, 1, &[(1, Some(1)), (2, Some(1))])];
        let folded = fold(entries).expect("a whole journal");
        assert_eq!(folded.rows, BTreeMap::from([(key(1), row(2))]));
        assert_eq!((folded.term, folded.commit, folded.next), (1, CommitNumber::new(11), 2));
    }

    #[test]
    fn what_lies_before_a_full_entry_may_be_gone() {
        let whole =
            [full(4, 1, 0, 2, &[(1, Some(1))]), full(5, 1, 1, 2, &[(2, Some(2))]), delta(6, 1, &[(3, Some(3))])];
        assert_eq!(rows_of(whole.to_vec()), [(key(1), row(1)), (key(2), row(2)), (key(3), row(3))]);
        assert_eq!(fold(vec![delta(6, 1, &[])]), Err(JournalError::Gap { number: 0 }));
        assert_eq!(
            fold(vec![whole[0].clone(), whole[1].clone(), delta(7, 1, &[])]),
            Err(JournalError::Gap { number: 6 })
        );
    }

    #[test]
    fn a_full_entry_that_was_broken_off_says_nothing() {
        let entries =
            vec![delta(0, 1, &[(1, Some(1))]), full(1, 1, 0, 2, &[(2, Some(2))]), delta(2, 2, &[(3, Some(3))])];
        assert_eq!(rows_of(entries), [(key(1), row(1)), (key(3), row(3))]);
    }

    #[test]
    fn an_entry_that_was_never_committed_is_undone_by_the_full_one_after_it() {
        let entries =
            vec![delta(0, 1, &[(1, Some(1))]), delta(1, 1, &[(9, Some(9))]), full(2, 2, 0, 1, &[(1, Some(1))])];
        assert_eq!(rows_of(entries), [(key(1), row(1))]);
    }

    #[test]
    fn a_writer_that_was_followed_by_another_is_not_heard() {
        let entries = vec![full(0, 2, 0, 1, &[(1, Some(2))]), delta(1, 1, &[(1, Some(1))]), full(2, 1, 0, 1, &[])];
        assert_eq!(rows_of(entries), [(key(1), row(2))]);
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(fold(Vec::new()), Err(JournalError::Empty));
        let mut bytes = delta(0, 1, &[(1, Some(1))]).to_vec();
        *bytes.last_mut().expect("not empty") ^= 1;
        assert!(matches!(fold(vec![Bytes::from(bytes)]), Err(JournalError::Format(_))));
        let stranger =
            Entry { number: 1, extent: Extent::Delta, term: 1, commit: CommitNumber::ZERO, rows: BTreeMap::new() };
        let stranger = stranger.encode(&ClusterId::from_random([4; 16]), Timestamp::from_millis(5));
        let error = fold(vec![delta(0, 1, &[]), stranger]).expect_err("two clusters");
        assert!(matches!(error, JournalError::OtherCluster { number: 1, .. }), "{error}");
    }
}
