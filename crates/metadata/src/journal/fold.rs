//! Reading a journal: entries in, rows out.
//!
//! A full state is written in parts with deltas between them. Each part holds its stretch of keys as they stood at its own
//! number, so laying parts and deltas over each other in the order of their numbers, from part 0 on, gives the state: what
//! changed before a part in its stretch is in the part, what changed after it comes after it.

use std::collections::BTreeMap;
use std::ops::Bound;

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

/// The rows that the entries come to. `entries` are the objects' bytes, in any order; what lies before the last whole full
/// state may be left out.
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
    let committed = Committed::of(by_number.values());
    let base = last_full(by_number.values().filter(|entry| committed.counts(entry)));
    let mut folded = Folded { cluster, term: 0, commit: CommitNumber::ZERO, rows: BTreeMap::new(), next };
    let first = base.unwrap_or(0);
    for (expected, entry) in (first..).zip(by_number.split_off(&first).into_values()) {
        if entry.number != expected {
            return Err(JournalError::Gap { number: expected });
        }
        // The parts of a full state that was broken off repeat what the last one and the deltas tell.
        let of_other = full_of(&entry).is_some_and(|first| Some(first) != base);
        if !committed.counts(&entry) || of_other {
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

/// Up to where the entries of each term count: where a newer term goes on, what older ones wrote was never committed.
struct Committed(BTreeMap<u64, u64>);

impl Committed {
    /// `entries` in the order of their numbers.
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut begins = BTreeMap::new();
        for entry in entries {
            // An entry of version 1 does not tell. Its term wrote nothing before it.
            begins.entry(entry.term).or_insert(entry.begins.unwrap_or(entry.number));
        }
        Self(begins)
    }

    fn counts(&self, entry: &Entry) -> bool {
        let newer = self.0.range((Bound::Excluded(entry.term), Bound::Unbounded));
        newer.into_iter().all(|(_, begins)| entry.number < *begins)
    }
}

/// The number at which the full state begins that an entry is a part of.
fn full_of(entry: &Entry) -> Option<u64> {
    match entry.extent {
        Extent::Delta => None,
        Extent::Part { first, .. } => Some(first),
        Extent::Consecutive { part, .. } => entry.number.checked_sub(u64::from(part)),
    }
}

/// Where the last full state begins of which every part is there. `entries` are those that count, in order.
fn last_full<'a>(entries: impl Iterator<Item = &'a Entry>) -> Option<u64> {
    let mut found = None;
    // The full state that is being read: its first number, its term, the next part.
    let mut begun: Option<(u64, u64, u32)> = None;
    for entry in entries {
        let (part, last) = match entry.extent {
            Extent::Delta => continue,
            Extent::Part { part, last, .. } => (part, last),
            Extent::Consecutive { part, parts } => (part, part + 1 == parts),
        };
        let Some(first) = full_of(entry) else { continue };
        if part == 0 && first == entry.number {
            begun = Some((first, entry.term, 0));
        }
        begun = begun
            .filter(|wanted| *wanted == (first, entry.term, part))
            .map(|(first, term, part)| (first, term, part + 1));
        if last && let Some((first, ..)) = begun.take() {
            found = Some(first);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use forebay_format::JournalEntry;
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

    fn entry(number: u64, (term, begins): (u64, u64), extent: Extent, rows: &[(i32, Option<u64>)]) -> Bytes {
        let rows = rows.iter().map(|(id, epoch)| (key(*id), epoch.map(row))).collect();
        let commit = CommitNumber::new(number + 10);
        let entry = Entry { number, extent, term, begins: Some(begins), commit, rows };
        let bytes = entry.encode(&cluster(), Timestamp::from_millis(5));
        assert_eq!(
            Entry::parse(&bytes).expect("what was written"),
            (cluster(), entry),
            "an entry reads back as written"
        );
        bytes
    }

    /// Of a term that began with the journal.
    fn delta(number: u64, term: u64, rows: &[(i32, Option<u64>)]) -> Bytes {
        entry(number, (term, 0), Extent::Delta, rows)
    }

    fn delta_of(number: u64, term: (u64, u64), rows: &[(i32, Option<u64>)]) -> Bytes {
        entry(number, term, Extent::Delta, rows)
    }

    fn part(number: u64, term: (u64, u64), (first, part, last): (u64, u32, bool), rows: &[(i32, u64)]) -> Bytes {
        let rows: Vec<(i32, Option<u64>)> = rows.iter().map(|(id, epoch)| (*id, Some(*epoch))).collect();
        entry(number, term, Extent::Part { first, part, last }, &rows)
    }

    /// An entry as version 1 wrote it.
    fn old(number: u64, term: u64, parts: Option<(u32, u32)>, rows: &[(i32, Option<u64>)]) -> Bytes {
        let (part, parts) = parts.unwrap_or((0, 0));
        let mut head = vec![1];
        head.extend_from_slice(&part.to_le_bytes());
        head.extend_from_slice(&parts.to_le_bytes());
        head.extend_from_slice(&term.to_le_bytes());
        head.extend_from_slice(&(number + 10).to_le_bytes());
        let entry = JournalEntry::parse(&delta(number, term, rows)).expect("just written");
        let mut changes = entry.changes;
        changes[0].value = Some(head.into());
        JournalEntry { changes, ..entry }.encode()
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
    fn parts_and_the_deltas_between_them_are_one_state() {
        // Keys 1 and 2 are in part 0, 5 in part 1, 8 in part 2. Between them: 2 changes behind the parts, 5 and 6 before
        // them, 6 is gone again before part 1, 1 goes behind, 9 comes after all.
        let term = (1, 0);
        let entries = vec![
            part(4, term, (4, 0, false), &[(1, 1), (2, 1)]),
            delta(5, 1, &[(2, Some(2)), (5, Some(2)), (6, Some(2))]),
            delta(6, 1, &[(6, None), (1, None)]),
            part(7, term, (4, 1, false), &[(5, 2)]),
            delta(8, 1, &[(5, Some(3))]),
            part(9, term, (4, 2, true), &[(8, 1)]),
            delta(10, 1, &[(9, Some(9))]),
        ];
        let expected = [(key(2), row(2)), (key(5), row(3)), (key(8), row(1)), (key(9), row(9))];
        assert_eq!(rows_of(entries.clone()), expected);
        // Without one of the parts there is no full state, and the journal does not begin at 0.
        for missing in [3, 5] {
            let mut entries = entries.clone();
            let number = 4 + u64::try_from(missing).expect("small");
            entries[missing] = delta(number, 1, &[]);
            assert_eq!(fold(entries), Err(JournalError::Gap { number: 0 }), "without part at {number}");
        }
    }

    #[test]
    fn what_lies_before_a_full_state_may_be_gone() {
        let term = (1, 0);
        let whole = [
            part(4, term, (4, 0, false), &[(1, 1)]),
            part(5, term, (4, 1, true), &[(2, 2)]),
            delta(6, 1, &[(3, Some(3))]),
        ];
        assert_eq!(rows_of(whole.to_vec()), [(key(1), row(1)), (key(2), row(2)), (key(3), row(3))]);
        assert_eq!(fold(vec![delta(6, 1, &[])]), Err(JournalError::Gap { number: 0 }));
        assert_eq!(
            fold(vec![whole[0].clone(), whole[1].clone(), delta(7, 1, &[])]),
            Err(JournalError::Gap { number: 6 })
        );
    }

    #[test]
    fn a_full_state_that_was_broken_off_leaves_the_one_before_it() {
        let term = (1, 0);
        let mut entries = vec![
            part(0, term, (0, 0, true), &[(1, 1), (2, 1)]),
            delta(1, 1, &[(2, None)]),
            part(2, term, (2, 0, false), &[(1, 1)]),
            delta(3, 1, &[(3, Some(3))]),
        ];
        assert_eq!(rows_of(entries.clone()), [(key(1), row(1)), (key(3), row(3))], "while it is being written");
        // The writer is followed by another, which begins anew after the last commit.
        entries.push(delta_of(4, (2, 4), &[(1, Some(2))]));
        entries.push(part(5, (2, 4), (2, 1, true), &[(7, 7)]));
        assert_eq!(
            rows_of(entries.clone()),
            [(key(1), row(2)), (key(3), row(3))],
            "a part of another term is none of it"
        );
        entries.push(part(6, (2, 4), (6, 0, true), &[(1, 2), (3, 3)]));
        assert_eq!(rows_of(entries), [(key(1), row(2)), (key(3), row(3))]);
    }

    #[test]
    fn what_was_never_committed_is_not_heard_once_the_next_term_writes() {
        // The database knew of entries up to 1 when term 2 began: the parts and the delta after it were not committed.
        let mut entries = vec![
            delta(0, 1, &[(1, Some(1))]),
            delta(1, 1, &[(2, Some(2))]),
            part(2, (1, 0), (2, 0, true), &[(1, 1), (2, 2)]),
            delta(3, 1, &[(9, Some(9)), (2, None)]),
        ];
        entries.push(delta_of(4, (2, 2), &[(3, Some(3))]));
        assert_eq!(rows_of(entries.clone()), [(key(1), row(1)), (key(2), row(2)), (key(3), row(3))]);
        // A third term, which found the same: the second never committed either.
        entries.push(delta_of(5, (3, 2), &[(4, Some(4))]));
        assert_eq!(rows_of(entries), [(key(1), row(1)), (key(2), row(2)), (key(4), row(4))]);
    }

    #[test]
    fn a_writer_that_was_followed_by_another_is_not_heard() {
        let entries = vec![
            part(0, (2, 0), (0, 0, true), &[(1, 2)]),
            delta(1, 1, &[(1, Some(1))]),
            part(2, (1, 0), (2, 0, true), &[]),
        ];
        assert_eq!(rows_of(entries), [(key(1), row(2))]);
    }

    #[test]
    fn a_journal_of_version_1_goes_on_in_version_2() {
        let mut entries = vec![
            old(0, 1, None, &[(1, Some(1))]),
            old(1, 1, Some((0, 2)), &[(1, Some(1))]),
            old(2, 1, Some((1, 2)), &[(2, Some(2))]),
            // Never committed.
            old(3, 1, None, &[(2, None), (9, Some(9))]),
        ];
        assert_eq!(rows_of(entries[..3].to_vec()), [(key(1), row(1)), (key(2), row(2))]);
        assert_eq!(rows_of(entries[1..3].to_vec()), [(key(1), row(1)), (key(2), row(2))]);
        entries.push(delta_of(4, (2, 3), &[(3, Some(3))]));
        assert_eq!(rows_of(entries.clone()), [(key(1), row(1)), (key(2), row(2)), (key(3), row(3))]);
        // In version 1 a full entry undoes what was never committed.
        let undone =
            vec![entries[0].clone(), old(1, 1, None, &[(9, Some(9))]), old(2, 2, Some((0, 1)), &[(1, Some(1))])];
        assert_eq!(rows_of(undone), [(key(1), row(1))]);
        let broken =
            vec![entries[0].clone(), old(1, 1, Some((0, 2)), &[(2, Some(2))]), old(2, 2, None, &[(3, Some(3))])];
        assert_eq!(rows_of(broken), [(key(1), row(1)), (key(3), row(3))], "a full entry that was broken off");
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(fold(Vec::new()), Err(JournalError::Empty));
        let mut bytes = delta(0, 1, &[(1, Some(1))]).to_vec();
        *bytes.last_mut().expect("not empty") ^= 1;
        assert!(matches!(fold(vec![Bytes::from(bytes)]), Err(JournalError::Format(_))));
        let (extent, commit, rows) = (Extent::Delta, CommitNumber::ZERO, BTreeMap::new());
        let stranger = Entry { number: 1, extent, term: 1, begins: Some(0), commit, rows };
        let stranger = stranger.encode(&ClusterId::from_random([4; 16]), Timestamp::from_millis(5));
        let error = fold(vec![delta(0, 1, &[]), stranger]).expect_err("two clusters");
        assert!(matches!(error, JournalError::OtherCluster { number: 1, .. }), "{error}");
    }
}
