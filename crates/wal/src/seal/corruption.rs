//! What a corrupt range took, told from the readable groups around it.

use std::collections::BTreeMap;

use forebay_types::{LogId, Offset, TopicPartition, WalSequence};

use super::{CorruptRange, OffsetGap};

/// Follows the groups of an epoch in order, readable or not. In a WAL each log's offsets are dense, so a jump of a log
/// across unreadable groups is what they held of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The next offset of each log seen so far.
    next: BTreeMap<(TopicPartition, LogId), Offset>,
    /// Logs not yet seen again since the last corrupt range.
    unsure: BTreeMap<(TopicPartition, LogId), Offset>,
    corrupt: Vec<CorruptRange>,
}

impl Ledger {
    /// Groups from `first` up to `end` are unreadable.
    pub fn lost(&mut self, first: WalSequence, end: WalSequence, committed: bool, what: String) {
        assert!(first < end, "a corrupt range holds a group");
        self.unsure.append(&mut self.next);
        self.corrupt.push(CorruptRange { first, end, what, committed, gaps: Vec::new() });
    }

    /// A readable group holds these offsets of a log, `end` exclusive.
    pub fn seen(&mut self, partition: TopicPartition, log: LogId, start: Offset, end: Offset) {
        let key = (partition, log);
        if self.next.insert(key, end).is_some() {
            return;
        }
        let Some(corrupt) = self.corrupt.last_mut() else { return };
        let from = self.unsure.remove(&key);
        if from != Some(start) {
            corrupt.gaps.push(OffsetGap { partition, log, from, end: start });
        }
    }

    pub fn finish(self) -> Vec<CorruptRange> {
        self.corrupt
    }
}

#[cfg(test)]
mod tests {
    use forebay_types::{PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn a_corrupt_range_is_told_by_the_jumps_across_it() {
        let partition = |n| TopicPartition {
            topic: TopicId::from_random([7; 16]),
            partition: PartitionIndex::new(n).expect("not negative"),
        };
        let at = |raw| Offset::new(raw).expect("not negative");
        let (log, number) = (LogId::ZERO, WalSequence::new);
        let mut ledger = Ledger::default();
        ledger.seen(partition(0), log, at(0), at(5));
        ledger.seen(partition(1), log, at(10), at(12));
        ledger.lost(number(3), number(5), false, "bit rot".to_owned());
        ledger.seen(partition(0), log, at(8), at(9));
        ledger.seen(partition(0), log, at(9), at(10));
        ledger.seen(partition(1), log, at(12), at(13));
        ledger.seen(partition(2), log, at(40), at(41));
        let gaps = &ledger.finish()[0].gaps;
        assert_eq!(
            gaps[..],
            [
                OffsetGap { partition: partition(0), log, from: Some(at(5)), end: at(8) },
                OffsetGap { partition: partition(2), log, from: None, end: at(40) },
            ],
            "partition 0 lost three, partition 1 none, partition 2 is not known from before"
        );
    }
}
