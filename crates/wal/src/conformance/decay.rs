//! Acknowledged groups that go bad on the medium: what they held is told whole, from the groups behind them.

use async_trait::async_trait;
use forebay_types::{Offset, WalSequence};

use super::life::{Life, Numbered, owner, seal};
use super::{Medium, Violation, check};
use crate::{CorruptRange, Sealed, WalOwner};

/// A medium whose bytes can be made to go bad.
#[async_trait]
pub trait Decays: Medium {
    /// Makes a group unreadable; done once more, the group is as it was.
    async fn decay(&self, of: &WalOwner, group: WalSequence);
}

/// Groups of one entry each.
const GROUPS: u64 = 12;

/// Which of them go bad, and through which the bucket has them. The last is always there: it says that the others were
/// acknowledged.
const CASES: [(&[u64], Option<u64>); 9] = [
    (&[10], None),
    (&[10], Some(4)),
    (&[4], None),
    (&[0], None),
    (&[8, 9, 10], None),
    (&[8, 9, 10], Some(8)),
    (&[2, 4, 9], None),
    (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], None),
    (&[1, 2], Some(5)),
];

/// Lets groups go bad here and there, at the very end of what a partition wrote too, and checks that the sealer says of
/// every partition how far it had come, no more and no less.
pub async fn decay(medium: &dyn Decays) -> Result<(), Violation> {
    let mut life = Life::begin(medium, 1, 1).await?;
    for _ in 0..GROUPS {
        life.append(300).await?;
        life.wal.flush();
        life.settle().await;
    }
    life.verdict()?;
    let groups = life.witness.0.lock().next_sequence;
    check(groups.get() == GROUPS, || format!("{GROUPS} entries, each alone, became {groups} groups"))?;
    let env = life.env.clone();
    drop(life);
    for (bad, committed) in CASES {
        for group in bad {
            medium.decay(&owner(1), WalSequence::new(*group)).await;
        }
        for _ in 0..2 {
            let sealer = medium.sealer(&env, &owner(2));
            let sealed = seal(&*sealer, 1, committed.map(WalSequence::new)).await?;
            told_whole(medium, sealed, bad, committed).await.map_err(|violation| {
                Violation(format!("groups {bad:?} are bad, {committed:?} committed: {violation}"))
            })?;
        }
        for group in bad {
            medium.decay(&owner(1), WalSequence::new(*group)).await;
        }
    }
    Ok(())
}

async fn told_whole(medium: &dyn Decays, sealed: Sealed, bad: &[u64], committed: Option<u64>) -> Result<(), Violation> {
    let Sealed { end, contents, corrupt } = sealed;
    check(end.get() == GROUPS, || format!("the end is {end}"))?;
    let first = committed.map_or(0, |through| through + 1);
    let lost: Vec<u64> = bad.iter().copied().filter(|group| *group >= first).collect();
    let corrupt: Vec<CorruptRange> = corrupt.into_iter().filter(|range| !range.committed).collect();
    let named: Vec<u64> = corrupt.iter().flat_map(|range| range.first.get()..range.end.get()).collect();
    check(named == lost, || format!("groups {lost:?} are lost, {named:?} are named"))?;
    check(corrupt.iter().all(|range| range.unknown == 0), || format!("not all is told: {corrupt:?}"))?;

    // Each group has one entry, of its own number.
    let entry = |number| Numbered { epoch: owner(1).epoch, number };
    let groups = medium.read(contents).await?;
    let read: Vec<u64> = groups.iter().map(|(sequence, _)| sequence.get()).collect();
    let rest: Vec<u64> = (first..GROUPS).filter(|group| !lost.contains(group)).collect();
    check(read == rest, || format!("groups {rest:?} can be read, {read:?} came back"))?;

    for group in &lost {
        // Whoever commits in order has to know by then.
        let (partition, offset) = (entry(*group).partition(), entry(*group).offset());
        let so_far = corrupt.iter().filter(|range| range.first.get() <= *group).flat_map(|range| &range.gaps);
        let is_told = so_far.filter(|gap| gap.partition == partition).any(|gap| gap.end > offset);
        check(is_told, || format!("group {group} held offset {offset} of {partition}: {corrupt:?}"))?;
    }
    for gap in corrupt.iter().flat_map(|range| &range.gaps) {
        let last = (0..GROUPS).rev().map(entry).find(|entry| entry.partition() == gap.partition);
        let end = last.map_or(Offset::ZERO, |last| last.offset().next());
        check(gap.end <= end, || format!("{gap:?}: the partition ends at {end}"))?;
    }
    Ok(())
}
