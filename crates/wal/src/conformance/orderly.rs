//! A life without accidents: order, acks, trimming, stopping, sealing behind what is committed.

use forebay_types::WalSequence;

use super::life::{Life, check_groups, owner, seal};
use super::{Medium, Violation, check};
use crate::WalErrorKind;

/// Appends in bursts of many sizes, stops, seals from the start and from behind a commit, twice each.
pub async fn orderly(medium: &dyn Medium) -> Result<(), Violation> {
    let mut life = Life::begin(medium, 1, 1).await?;
    for (burst, size) in [(1, 100), (40, 70), (7, 9_000), (3, 60_000), (1, 1)] {
        for _ in 0..burst {
            life.append(size).await?;
        }
        life.wal.flush();
        life.settle().await;
        let (acked, appended) = (life.acked(), life.appended);
        check(acked == appended, || format!("{acked} of {appended} were acknowledged"))?;
    }
    // What is queued when the WAL is stopped is still written; what comes later is refused, and said so.
    for _ in 0..5 {
        life.append(200).await?;
    }
    let mut admission = life.wal.admit(10).await?;
    life.wal.stop().await?;
    life.settle().await;
    let (acked, appended) = (life.acked(), life.appended);
    check(acked == appended, || format!("{acked} of {appended} were acknowledged when the WAL had stopped"))?;
    check(life.wal.admit(10).await.is_err(), || "a stopped WAL admitted".to_owned())?;
    let late = super::Numbered { epoch: life.epoch, number: appended }.entry(10);
    let position = life.wal.append(&mut admission, late);
    let kind = life.wal.durable(position).await.map_err(|ended| ended.kind());
    check(kind == Err(WalErrorKind::Stopped), || format!("a late entry became {kind:?}"))?;
    life.verdict()?;
    check(!life.witness.0.lock().ended, || "a WAL that was stopped is no failure".to_owned())?;

    let sealer = medium.sealer(&life.env, &owner(2));
    let of = owner(1);
    let end = life.witness.0.lock().next_sequence;
    for committed in
        [None, Some(WalSequence::ZERO), Some(WalSequence::new(end.get() / 2)), Some(WalSequence::new(end.get() - 1))]
    {
        for time in ["first", "second"] {
            let sealed = seal(&*sealer, 1, committed).await?;
            check(sealed.end == end, || format!("{time} seal: the end is {}, not {end}", sealed.end))?;
            check(sealed.corrupt.is_empty(), || format!("{time} seal: {:?}", sealed.corrupt))?;
            let groups = medium.read(sealed.contents).await?;
            let start = committed.map_or(WalSequence::ZERO, WalSequence::next);
            let numbers: Vec<_> = groups.iter().map(|(sequence, _)| *sequence).collect();
            let wanted: Vec<_> = (start.get()..end.get()).map(WalSequence::new).collect();
            check(numbers == wanted, || format!("{time} seal behind {committed:?} gave {numbers:?}"))?;
            let held: u64 = groups.iter().map(|(_, batches)| batches.len() as u64).sum();
            let upto = check_groups(&groups, of.epoch, appended - held)?;
            check(upto == appended, || format!("entries up to {upto} came back, {appended} were acknowledged"))?;
        }
    }
    Ok(())
}
