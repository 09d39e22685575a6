//! What corrupt groups took, told from the groups that can be read: by the offsets at which the logs go on, and by the
//! tallies, which every group carries of those before it. Pure.
//!
//! Invariants:
//! 1. A gap is told at the first corrupt range since the log was last known, so that whoever commits in order commits
//!    it before anything behind it.
//! 2. Each lost group is either covered by a tally that was read, or counted as unknown.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_format::{LogEnd, Tally};
use forebay_types::{LeaderEpoch, LogId, Offset, TopicPartition, WalSequence};

use crate::GROUP_OFFSETS_MAX;

/// Groups that were acknowledged and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRange {
    /// The first group lost.
    pub first: WalSequence,
    /// Exclusive.
    pub end: WalSequence,
    /// Where, and what is wrong with it, for an operator.
    pub what: String,
    /// Whether committed data objects hold these groups, so that nothing is lost.
    pub committed: bool,
    /// How far logs had come behind these groups, where groups that can be read show that offsets are missing.
    pub gaps: Vec<OffsetGap>,
    /// How many of the groups, counted from the first, no tally tells of.
    pub unknown: u64,
    shown: Shown,
}

type LogKey = (TopicPartition, LogId);

/// Whose ends are known.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Shown {
    /// Which corrupt range it is, counted from 0.
    index: usize,
    /// How many corrupt ranges lie before the last that is known of each log. The same for all ranges.
    ranges: Arc<BTreeMap<LogKey, usize>>,
}

/// Offsets of one partition that were in corrupt groups: from where the log ends before them up to `end`. A log that
/// ends there before them lost nothing: a tally also tells of logs that are not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetGap {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    /// Exclusive.
    pub end: Offset,
}

impl CorruptRange {
    /// How many offsets a log may have been given by groups of this range, where nothing that can be read shows
    /// how far it came: those groups, each with as many as one can give. 0 where [`Self::gaps`] says all there is to say.
    pub fn unknown_offsets(&self, partition: TopicPartition, log: LogId) -> u64 {
        let Shown { index, ranges } = &self.shown;
        let is_shown = ranges.get(&(partition, log)).is_some_and(|ranges| ranges > index);
        if is_shown { 0 } else { self.unknown.saturating_mul(GROUP_OFFSETS_MAX) }
    }
}

/// Follows the groups of an epoch that are not committed, readable or not, in order: for each range of corrupt groups
/// [`Self::lost`], for each group that something can be read of [`Self::tally`], then [`Self::seen`].
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    known: BTreeMap<LogKey, Known>,
    corrupt: Vec<CorruptRange>,
}

/// What is known of a log; nothing at first.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    end: Offset,
    /// How many corrupt ranges lie before the group that showed it.
    ranges: usize,
}

impl Ledger {
    /// Groups from `first` up to `end` are unreadable. `committed` ones come before all others.
    pub fn lost(&mut self, first: WalSequence, end: WalSequence, committed: bool, what: String) {
        assert!(first < end, "a corrupt range holds a group");
        let unknown = if committed { 0 } else { end.get() - first.get() };
        let range = CorruptRange { first, end, what, committed, gaps: Vec::new(), unknown, shown: Shown::default() };
        self.corrupt.push(range);
    }

    /// The tally of the next group, or of one that can otherwise not be read.
    pub fn tally(&mut self, tally: &Tally) {
        for range in self.corrupt.iter_mut().rev().take_while(|range| range.end > tally.from) {
            range.unknown = range.unknown.min(tally.from.get().saturating_sub(range.first.get()));
        }
        for LogEnd { partition, log, leader_epoch, end } in &tally.ends {
            self.reached(*partition, *log, *leader_epoch, *end);
        }
    }

    /// The next group holds these offsets of a log, `end` exclusive.
    pub fn seen(&mut self, log: LogEnd, start: Offset) {
        let LogEnd { partition, log, leader_epoch, end } = log;
        self.reached(partition, log, leader_epoch, start);
        self.reached(partition, log, leader_epoch, end);
    }

    /// Groups up to here gave a log all offsets below `end`. In a WAL each log's offsets are dense, so what lies between
    /// this and what was known before was in corrupt groups.
    fn reached(&mut self, partition: TopicPartition, log: LogId, leader_epoch: LeaderEpoch, end: Offset) {
        let key = (partition, log);
        let Known { end: before, ranges: since } = self.known.get(&key).copied().unwrap_or_default();
        self.known.insert(key, Known { end: end.max(before), ranges: self.corrupt.len() });
        if before < end
            && let Some(range) = self.corrupt[since..].iter_mut().find(|range| !range.committed)
        {
            range.gaps.push(OffsetGap { partition, log, leader_epoch, end });
        }
    }

    pub fn finish(mut self) -> Vec<CorruptRange> {
        let ranges = self.known.into_iter().map(|(log, known)| (log, known.ranges));
        let ranges: Arc<BTreeMap<LogKey, usize>> = Arc::new(ranges.collect());
        for (index, range) in self.corrupt.iter_mut().enumerate() {
            range.shown = Shown { index, ranges: Arc::clone(&ranges) };
        }
        self.corrupt
    }
}

#[cfg(test)]
mod tests {
    use forebay_types::{PartitionIndex, TopicId};

    use super::*;

    const LOGS: [&str; 4] = ["a", "b", "c", "d"];

    fn partition(name: &str) -> TopicPartition {
        let index = LOGS.iter().position(|log| *log == name).unwrap_or_else(|| panic!("no log {name}"));
        let partition = PartitionIndex::new(i32::try_from(index).expect("few")).expect("not negative");
        TopicPartition { topic: TopicId::from_random([7; 16]), partition }
    }

    fn end_of(name: &str, end: &str) -> LogEnd {
        let end = Offset::new(end.parse().expect("a number")).expect("not negative");
        LogEnd { partition: partition(name), log: LogId::ZERO, leader_epoch: LeaderEpoch::ZERO, end }
    }

    /// Groups from number 0 on, one a line, as what can be read of each:
    ///
    /// - `a 0 5, b 10 12`: a group that can be read, with offsets 0 to 4 of a, and 10 and 11 of b;
    /// - `lost 3`: three that cannot; `committed 1`: one that cannot, and that the bucket has;
    /// - `tally 2: a 5, b 12`: that of the group on the next line, which covers from group 2 on.
    ///
    /// Gives a line for each corrupt range: what is known to be missing there, how many groups nothing is known of, and
    /// which logs may have been in them.
    fn told(script: &str) -> String {
        let mut ledger = Ledger::default();
        let mut number = 0;
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (word, rest) = line.split_once(' ').expect("a word and more");
            let groups = |rest: &str| WalSequence::new(number + rest.parse::<u64>().expect("a number"));
            match word {
                "lost" | "committed" => {
                    ledger.lost(WalSequence::new(number), groups(rest), word == "committed", String::new());
                    number = groups(rest).get();
                }
                "tally" => {
                    let (from, ends) = rest.split_once(':').expect("a number and ends");
                    let ends = ends.split(',').filter_map(|end| end.trim().split_once(' '));
                    let ends = ends.map(|(name, end)| end_of(name, end)).collect();
                    ledger.tally(&Tally { from: WalSequence::new(from.parse().expect("a number")), ends });
                }
                _ => {
                    for part in line.split(',') {
                        let words: Vec<&str> = part.split_whitespace().collect();
                        let [name, start, end] = words[..] else { panic!("{part}") };
                        ledger.seen(end_of(name, end), end_of(name, start).end);
                    }
                    number += 1;
                }
            }
        }
        let tell = |range: CorruptRange| {
            let name = |id: TopicPartition| LOGS[usize::try_from(id.partition.get()).expect("not negative")];
            let mut parts: Vec<String> =
                range.gaps.iter().map(|gap| format!("{} up to {}", name(gap.partition), gap.end)).collect();
            parts.extend((range.unknown > 0).then(|| {
                let logs = LOGS.iter().filter(|log| range.unknown_offsets(partition(log), LogId::ZERO) > 0);
                format!("{} unknown of {}", range.unknown, logs.copied().collect::<Vec<_>>().join(" "))
            }));
            format!("{} to {}: {}", range.first, range.end, parts.join(", "))
        };
        ledger.finish().into_iter().map(tell).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_follows_shows_what_was_lost() {
        let jumps = "a 0 5, b 10 12
                     lost 2
                     tally 3:
                     a 8 9, b 12 13, c 40 41";
        // Partition b lost nothing; what c had before is for the bucket to say.
        assert_eq!(told(jumps), "1 to 3: a up to 8, c up to 40, 2 unknown of d");
    }

    #[test]
    fn the_tally_shows_what_nothing_follows() {
        let last = "a 0 5, b 10 12
                    lost 1
                    tally 1: a 8, c 3
                    b 12 13";
        assert_eq!(told(last), "1 to 2: a up to 8, c up to 3");
        let several = "a 0 5
                       lost 3
                       tally 0: a 9, b 2
                       c 0 1";
        assert_eq!(told(several), "1 to 4: a up to 9, b up to 2");
        let nothing_behind = "a 0 5
                              lost 1
                              tally 0: a 6
                              lost 1";
        assert_eq!(told(nothing_behind), "1 to 2: a up to 6\n2 to 3: 1 unknown of a b c d");
    }

    #[test]
    fn a_tally_that_falls_short_leaves_the_rest_unknown() {
        let short = "a 0 5, b 0 1
                     lost 4
                     tally 4: a 9
                     d 0 1";
        assert_eq!(told(short), "1 to 5: a up to 9, 3 unknown of b c");
        let later = "a 0 5, b 0 1
                     lost 4
                     tally 4: a 9
                     d 0 1
                     tally 1: a 9, b 7, d 1
                     d 1 2";
        assert_eq!(told(later), "1 to 5: a up to 9, b up to 7", "a later one may reach further");
        let unreadable = "a 0 5
                          lost 1
                          b 0 1
                          tally 2: b 1
                          b 1 2";
        assert_eq!(told(unreadable), "1 to 2: 1 unknown of a c d", "the tally right behind is damaged, too");
    }

    #[test]
    fn what_is_shown_later_is_known() {
        let seen_later = "a 0 5, b 0 1
                          lost 1
                          c 0 1
                          a 7 8";
        assert_eq!(told(seen_later), "1 to 2: a up to 7, 1 unknown of b d");
    }

    #[test]
    fn a_gap_is_told_where_it_may_have_begun() {
        let two = "a 0 5, b 0 1
                   lost 1
                   tally 1: b 2
                   b 2 3
                   lost 1
                   tally 3: a 6
                   a 6 7";
        assert_eq!(
            told(two),
            "1 to 2: b up to 2, a up to 6\n3 to 4: ",
            "whoever committed range 1 has not to wait for 3"
        );
        let between = "a 0 5
                       lost 1
                       tally 1: a 6
                       a 6 7
                       lost 1
                       tally 3: a 9
                       b 0 1";
        assert_eq!(told(between), "1 to 2: a up to 6\n3 to 4: a up to 9");
    }

    #[test]
    fn what_the_bucket_has_is_not_missing() {
        let committed = "committed 1
                         a 5 6
                         lost 1
                         tally 0: a 9, b 4
                         a 9 10";
        assert_eq!(told(committed), "0 to 1: \n2 to 3: a up to 9, b up to 4");
    }
}
