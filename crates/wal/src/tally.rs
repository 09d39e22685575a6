//! What the next group can tell of those before it: how far each brought the logs it held.
//!
//! Of a log only the latest end matters, so a group is told whole by the ends of those of its logs that no later group
//! held, and the more the same logs are written the further back a tally of some bytes reaches: to the beginning, where
//! a broker writes to few. What no tally could hold is forgotten, so memory is bounded by [`TALLY_BYTES_MAX`] and one
//! group. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_format::{LogEnd, Tally, WalEntry};
use forebay_types::{LogId, TopicPartition, WalSequence};

/// Bytes of a tally, beyond what the one group before it takes: the ends of some four hundred logs.
pub const TALLY_BYTES_MAX: usize = 16 << 10;

type LogKey = (TopicPartition, LogId);

/// The groups of this life so far, as far as a tally may still tell of them.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The last group that held each log.
    by_log: BTreeMap<LogKey, WalSequence>,
    /// And how far that brought it.
    by_age: BTreeMap<(WalSequence, LogKey), LogEnd>,
    /// All that groups from here on held is above.
    from: WalSequence,
    /// The number of the next group.
    next: WalSequence,
}

/// What was before a group. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Before {
    /// The first group that is told whole.
    from: WalSequence,
    /// By the group that held the log last, latest first.
    ends: Arc<[(WalSequence, LogEnd)]>,
}

impl Recent {
    /// Takes in the next group, and gives what was before it.
    pub fn push(&mut self, entries: &[WalEntry]) -> Before {
        let before = self.before();
        let sequence = self.next;
        self.next = sequence.next();
        for entry in entries {
            let key = (entry.partition, entry.log);
            let end = entry.summary.last_offset.next();
            let end = LogEnd { partition: entry.partition, log: entry.log, leader_epoch: entry.leader_epoch, end };
            if let Some(older) = self.by_log.insert(key, sequence) {
                self.by_age.remove(&(older, key));
            }
            self.by_age.insert((sequence, key), end);
        }
        self.forget(sequence);
        before
    }

    fn before(&self) -> Before {
        let ends = self.by_age.iter().rev().map(|((sequence, _), end)| (*sequence, *end));
        Before { from: self.from, ends: ends.collect() }
    }

    /// Lets go of the oldest groups where there are too many ends, but not of the newest.
    fn forget(&mut self, newest: WalSequence) {
        while let Some((sequence, key)) = self.by_age.first_key_value().map(|(key, _)| *key) {
            let too_many = self.by_log.len() * LogEnd::SIZE > TALLY_BYTES_MAX && sequence < newest;
            // Half a group is of no use to anybody.
            if !too_many && sequence >= self.from {
                return;
            }
            self.by_age.pop_first();
            self.by_log.remove(&key);
            self.from = sequence.next();
        }
    }
}

impl Before {
    /// Nothing was: for the first group of an epoch.
    pub fn nothing() -> Self {
        Recent::default().before()
    }

    /// Bytes of the smallest tally: that of the one group before.
    pub fn least(&self) -> usize {
        self.groups().next().map_or(0, <[_]>::len) * LogEnd::SIZE
    }

    /// The tally of the group before and, within `bytes_max`, of as many before that as are told whole.
    pub fn tally(&self, bytes_max: usize) -> Tally {
        let (mut taken, mut from) = (0, self.from);
        for group in self.groups() {
            if taken > 0 && (taken + group.len()) * LogEnd::SIZE > bytes_max {
                from = group[0].0.next();
                break;
            }
            taken += group.len();
        }
        let mut ends: Vec<LogEnd> = self.ends[..taken].iter().map(|(_, end)| *end).collect();
        ends.sort_unstable_by_key(|end| (end.partition, end.log));
        Tally { from, ends }
    }

    /// The ends by the group that brought them, latest first.
    fn groups(&self) -> impl Iterator<Item = &[(WalSequence, LogEnd)]> {
        self.ends.chunk_by(|(a, _), (b, _)| a == b)
    }
}

#[cfg(test)]
mod tests {
    use forebay_types::{Offset, TopicId};

    use super::*;
    use crate::conformance::Numbered;

    /// Groups by the partitions that they give one record each; what the group behind them tells with room for so many
    /// ends: `from the first group covered: partition up to its end, …`.
    fn told(groups: &[&[i32]], ends_max: usize) -> String {
        let mut recent = Recent::default();
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for partitions in groups {
            let entry = |index: &i32| {
                let offset = next.entry(*index).or_default();
                *offset += 1;
                entry(*index, *offset - 1)
            };
            recent.push(&partitions.iter().map(entry).collect::<Vec<_>>());
        }
        let tally = recent.before().tally(ends_max * LogEnd::SIZE);
        let ends = tally.ends.iter().map(|end| format!("{} up to {}", end.partition.partition, end.end));
        format!("from {}: {}", tally.from, ends.collect::<Vec<_>>().join(", "))
    }

    fn entry(index: i32, offset: i64) -> WalEntry {
        let mut entry = Numbered { epoch: crate::conformance::owner(1).epoch, number: 0 }.entry(10);
        let partition = forebay_types::PartitionIndex::new(index).expect("not negative");
        entry.partition = TopicPartition { topic: TopicId::from_random([2; 16]), partition };
        let offset = Offset::new(offset).expect("not negative");
        (entry.summary.base_offset, entry.summary.last_offset) = (offset, offset);
        entry
    }

    #[test]
    fn a_tally_reaches_as_far_back_as_its_room() {
        assert_eq!(told(&[], 9), "from 0: ", "nothing is before the first group");
        assert_eq!(told(&[&[1, 2]], 9), "from 0: 1 up to 1, 2 up to 1");
        assert_eq!(told(&[&[1, 1, 1]], 9), "from 0: 1 up to 3", "a log once");
        assert_eq!(told(&[&[1], &[1], &[1], &[1]], 1), "from 0: 1 up to 4", "one log needs no more room, however long");
        assert_eq!(told(&[&[1], &[2], &[3]], 2), "from 1: 2 up to 1, 3 up to 1");
        assert_eq!(told(&[&[1, 2], &[3], &[2]], 3), "from 0: 1 up to 1, 2 up to 2, 3 up to 1");
        assert_eq!(told(&[&[1, 2], &[3], &[2]], 2), "from 1: 2 up to 2, 3 up to 1", "group 0 held 1, too");
        assert_eq!(told(&[&[9], &[1, 2, 3]], 1), "from 1: 1 up to 1, 2 up to 1, 3 up to 1", "the one before is told");
        assert_eq!(told(&[&[1, 2], &[7], &[1, 2]], 2), "from 2: 1 up to 2, 2 up to 2", "7 has no room, and ends it");
    }

    #[test]
    fn what_no_tally_can_hold_is_forgotten() {
        let most = i32::try_from(TALLY_BYTES_MAX / LogEnd::SIZE).expect("small");
        let mut recent = Recent::default();
        for index in 0..3 * most {
            recent.push(&[entry(index, 0)]);
        }
        assert_eq!(recent.by_log.len(), recent.by_age.len());
        assert_eq!(i32::try_from(recent.by_log.len()), Ok(most));
        let tally = recent.before().tally(TALLY_BYTES_MAX);
        assert_eq!(
            (tally.from.get(), tally.ends.len()),
            (u64::from(2 * most.unsigned_abs()), most.unsigned_abs() as usize)
        );
        let wide: Vec<_> = (0..2 * most).map(|index| entry(index, 1)).collect();
        recent.push(&wide);
        assert_eq!(
            recent.before().tally(TALLY_BYTES_MAX).ends.len(),
            wide.len(),
            "the last group is told, however wide"
        );
        recent.push(&[entry(0, 2)]);
        assert_eq!((recent.by_log.len(), recent.by_age.len()), (1, 1), "and forgotten when it is not the last");
    }
}
