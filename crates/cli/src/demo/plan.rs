//! The kill schedule: what is killed, how, and after how many acknowledged events. A function of the seed.
//!
//! Invariants:
//! 1. Every kind of kill comes before any comes twice, as far as the number of kills goes.
//! 2. Kills are far enough apart that each finds traffic: a point that nothing passes would kill nobody.

use std::fmt;

use forebay_env::FailPoint;

use super::Sabotage;
use crate::settings::Wal;

/// Where the pipeline can kill itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelinePoint {
    /// Everything of a transaction is in the log, nothing is decided.
    SentNotCommitted,
    /// The commit is on its way, its answer is not awaited.
    CommitSent,
}

impl PipelinePoint {
    pub const fn name(self) -> &'static str {
        match self {
            Self::SentNotCommitted => "sent-not-committed",
            Self::CommitSent => "commit-sent",
        }
    }
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The broker kills itself at the n-th pass of a fail point.
    Broker {
        point: FailPoint,
        passes: u64,
    },
    /// The broker is killed from outside, a moment after events go on.
    BrokerAnytime {
        after_ms: u64,
    },
    Pipeline {
        point: PipelinePoint,
        passes: u64,
    },
    PipelineAnytime {
        after_ms: u64,
    },
    /// The pipeline is killed, and then the broker at a fail point with nothing going on but the feed: what it loses or
    /// repeats is the feed's.
    Both {
        point: FailPoint,
    },
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { point, .. } => write!(f, "broker at {point}"),
            Self::BrokerAnytime { .. } => f.write_str("broker at any moment"),
            Self::Pipeline { point, .. } => write!(f, "pipeline at {}", point.name()),
            Self::PipelineAnytime { .. } => f.write_str("pipeline at any moment"),
            Self::Both { point } => write!(f, "pipeline, then broker at {point}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Begins once so many events are acknowledged.
    pub at: usize,
    pub blow: Blow,
}

/// SplitMix64: the same numbers for a seed in every version, which a library does not promise.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.between(0, len as u64 - 1)).expect("below a length")
    }
}

/// The kinds of kills, each with its own details drawn.
const KINDS: usize = 9;

fn blow(kind: usize, wal: Wal, draw: &mut Draw) -> Blow {
    match kind {
        0 => Blow::BrokerAnytime { after_ms: draw.between(30, 200) },
        1 => Blow::Both { point: FailPoint::DurableNotAcked },
        2 => Blow::Pipeline { point: PipelinePoint::SentNotCommitted, passes: draw.between(1, 2) },
        3 => Blow::Broker { point: FailPoint::DurableNotAcked, passes: draw.between(1, 6) },
        4 => match wal {
            Wal::Disk => Blow::Broker { point: FailPoint::AckedNotUploaded, passes: 1 },
            // The group is the upload: what is acknowledged is in the bucket, and a step earlier it is not.
            Wal::Object => Blow::Broker { point: FailPoint::WalBeforeWrite, passes: draw.between(1, 6) },
        },
        5 => Blow::Broker { point: FailPoint::PreparedNotMarked, passes: draw.between(1, 2) },
        6 => Blow::Broker { point: FailPoint::WalBeforeSync, passes: draw.between(1, 6) },
        7 => Blow::Pipeline { point: PipelinePoint::CommitSent, passes: draw.between(1, 2) },
        _ => Blow::PipelineAnytime { after_ms: draw.between(10, 200) },
    }
}

/// The schedule of a seed. A planted fault has the kill that shows it first: `ack-before-write` any kill of the broker,
/// `forget-producer-state` one that makes the feed repeat a batch, `ignore-aborts` one that leaves a transaction behind.
pub fn plan(seed: u64, wal: Wal, kills: u32, events: usize, sabotage: Option<Sabotage>) -> Vec<Kill> {
    let mut draw = Draw(seed);
    let mut kinds: Vec<usize> = (0..KINDS).collect();
    for last in (1..KINDS).rev() {
        kinds.swap(last, draw.index(last + 1));
    }
    let first = sabotage.map(|sabotage| match sabotage {
        Sabotage::AckBeforeWrite => 0,
        Sabotage::ForgetProducerState => 1,
        Sabotage::IgnoreAborts => 2,
    });
    if let Some(first) = first {
        kinds.retain(|kind| *kind != first);
        kinds.insert(0, first);
    }
    let kills = kills as usize;
    while kinds.len() < kills {
        kinds.push(draw.index(KINDS));
    }
    // From 2 % to 94 % of the events, one kill in the middle half of each slot.
    let (from, to) = (events * 2 / 100, events * 94 / 100);
    let slot = (to - from) / kills;
    let place = |(number, kind): (usize, usize)| {
        let within = draw.between(slot as u64 / 4, slot as u64 * 3 / 4);
        let at = from + number * slot + usize::try_from(within).expect("within a slot");
        Kill { at, blow: blow(kind, wal, &mut draw) }
    };
    kinds.into_iter().take(kills).enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EVENTS: usize = 27_004;

    /// A seed gives one schedule, another seed another one.
    #[test]
    fn a_seed_is_a_schedule() {
        let of = |seed| plan(seed, Wal::Disk, 12, EVENTS, None);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    /// For many seeds and numbers of kills: enough kinds, in order, apart, and inside the file.
    #[test]
    fn kills_are_of_every_kind_and_apart() {
        for seed in 0..200 {
            for kills in [1, 3, 9, 12, 40] {
                let plan = plan(seed, Wal::Object, kills, EVENTS, None);
                assert_eq!(plan.len(), kills as usize);
                let kinds: BTreeSet<_> = plan.iter().take(KINDS).map(|kill| kill.blow.to_string()).collect();
                assert_eq!(kinds.len(), KINDS.min(kills as usize), "seed {seed}: {plan:?}");
                assert!(plan.windows(2).all(|two| two[1].at >= two[0].at + 200), "seed {seed}: {plan:?}");
                assert!(plan.iter().all(|kill| kill.at > 0 && kill.at < EVENTS - 1000), "seed {seed}: {plan:?}");
                let disk_only = "acked-not-uploaded";
                assert!(!plan.iter().any(|kill| kill.blow.to_string().contains(disk_only)), "seed {seed}: {plan:?}");
            }
        }
    }

    /// What shows a planted fault comes first, even where it is the only kill.
    #[test]
    fn a_planted_fault_meets_its_kill() {
        let first = |sabotage| plan(3, Wal::Disk, 1, EVENTS, Some(sabotage)).remove(0).blow;
        assert!(matches!(first(Sabotage::AckBeforeWrite), Blow::BrokerAnytime { .. }));
        assert!(matches!(first(Sabotage::ForgetProducerState), Blow::Both { .. }));
        assert!(matches!(first(Sabotage::IgnoreAborts), Blow::Pipeline { point: PipelinePoint::SentNotCommitted, .. }));
    }
}
