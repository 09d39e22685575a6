//! Torn or corrupt: what the blocks of an epoch, found or not, say about where it ends. Pure.
//!
//! A number that is missing below any position that was acknowledged was durable once and is lost: corruption, and
//! replay goes on behind it. A number missing above all of those was never acknowledged: the log ends there, and what
//! lies behind it was never acknowledged either.

use forebay_types::WalSequence;

/// The end of an epoch, and what is missing before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Exclusive.
    pub end: WalSequence,
    /// Numbers that were acknowledged and are not there: from the first up to, exclusive, the second.
    pub lost: Vec<(WalSequence, WalSequence)>,
}

/// Judges the readable blocks, given in ascending order and none below `start`. All below `start` is committed and may
/// be gone; every number below `acknowledged` was acknowledged.
pub(super) fn judge(
    readable: impl IntoIterator<Item = WalSequence>,
    start: WalSequence,
    acknowledged: WalSequence,
) -> Verdict {
    let mut next = start;
    let mut lost = Vec::new();
    for sequence in readable {
        assert!(sequence >= next, "readable blocks ascend: {sequence} where {next} is next");
        if sequence > next && sequence > acknowledged {
            // Torn: some number in between was never acknowledged, and so neither was this one.
            break;
        }
        if sequence > next {
            lost.push((next, sequence));
        }
        next = sequence.next();
    }
    if next < acknowledged {
        lost.push((next, acknowledged));
        next = acknowledged;
    }
    Verdict { end: next, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(readable: &[u64], start: u64, acknowledged: u64) -> String {
        let number = WalSequence::new;
        let verdict = judge(readable.iter().copied().map(number), number(start), number(acknowledged));
        let end = [format!("end {}", verdict.end)].into_iter();
        let lost = verdict.lost.iter().map(|(first, end)| format!("lost {first} to {end}"));
        end.chain(lost).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_missing_is_judged_by_what_was_acknowledged() {
        assert_eq!(case(&[], 0, 0), "end 0", "an empty log");
        assert_eq!(case(&[], 7, 3), "end 7", "all of it committed");
        assert_eq!(case(&[0, 1, 2], 0, 2), "end 3", "whole");
        assert_eq!(case(&[2, 3], 2, 3), "end 4", "the rest is committed");
        assert_eq!(case(&[0, 1, 2, 4], 0, 2), "end 3", "3 is torn, 4 was never acknowledged");
        assert_eq!(case(&[0, 2, 3], 0, 3), "end 4, lost 1 to 2", "3 says that 1 was acknowledged");
        assert_eq!(case(&[0, 2], 0, 2), "end 3, lost 1 to 2", "2 says so itself");
        assert_eq!(case(&[0, 1], 0, 3), "end 3, lost 2 to 3", "the head of a torn 3 says so too");
        assert_eq!(case(&[2, 3], 0, 3), "end 4, lost 0 to 2", "a lost first segment");
        assert_eq!(case(&[6, 8, 9], 5, 9), "end 10, lost 5 to 6, lost 7 to 8");
        assert_eq!(case(&[0, 4, 5], 0, 2), "end 2, lost 1 to 2", "4 and 5 were never acknowledged");
    }
}
