//! A crash at every step, again and again on the same medium.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_env::{Env, FailPoint};
use forebay_types::WalSequence;

use super::life::{Life, check_groups, owner, seal};
use super::{Medium, Violation, check};

/// The steps inside a WAL at which a crash can strike; the simulated disk tears what was in flight.
pub const CRASH_POINTS: [FailPoint; 3] =
    [FailPoint::WalBeforeWrite, FailPoint::WalBeforeSync, FailPoint::DurableNotAcked];

/// Lives per run: each opens what the one before left.
const LIVES: u64 = 8;

/// Bytes that a life may append between two commits.
const ROOM_NEEDED: u64 = 1 << 20;

/// Lets a broker live several lives on one medium. Each ends by a crash at a point and a time that `seed` and the life
/// choose, some between a commit and the trim behind it; then the epoch is sealed twice and replayed. Gives the points
/// at which a life ended: the others were cut off from outside, with groups queued or in flight.
pub async fn every_crash(medium: &dyn Medium, seed: u64) -> Result<Vec<FailPoint>, Violation> {
    let mut struck = Vec::new();
    for epoch in 1..=LIVES {
        let choice = seed.wrapping_mul(31).wrapping_add(epoch);
        let point = CRASH_POINTS[usize::try_from(choice % 3).expect("small")];
        let dead = one_life(medium, epoch, choice, point).await?;
        struck.extend(dead.struck.then_some(point));
        seal_twice(medium, epoch, choice, dead)
            .await
            .map_err(|violation| Violation(format!("seed {seed}, life {epoch}, crash at {point}: {violation}")))?;
    }
    Ok(struck)
}

/// What the dead broker had committed and acknowledged.
struct Remembered {
    /// The last group in committed data objects, and the number after the last entry in it.
    committed: Option<(WalSequence, u64)>,
    acked: u64,
    appended: u64,
    /// Whether the life ended at its fail point.
    struck: bool,
}

async fn one_life(medium: &dyn Medium, epoch: u64, choice: u64, point: FailPoint) -> Result<Remembered, Violation> {
    let mut life = Life::begin(medium, epoch, choice).await?;
    // Most lives are short; a long one fills the medium's parts and uses them again.
    let long = choice.is_multiple_of(5);
    let passes = choice / 3 % if long { 60 } else { 7 };
    let crashed = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&crashed);
    life.fail_points.arm(point, passes, move || mark.store(true, Ordering::Relaxed));
    let mut committed = None;
    for step in 0..if long { 150 } else { 40 } {
        let size = [50, 700, 4_000, 50_000][usize::try_from((choice + step) % 4).expect("small")];
        if life.append(size).await.is_err() {
            break;
        }
        if step % 3 == choice % 3 {
            life.wal.flush();
            life.settle().await;
        }
        if step % 8 == 7 {
            committed = commit(&life, choice + step);
        }
        if crashed.load(Ordering::Relaxed) {
            break;
        }
    }
    medium.crash();
    life.verdict()?;
    let struck = crashed.load(Ordering::Relaxed);
    Ok(Remembered { committed, acked: life.acked(), appended: life.appended, struck })
}

/// Commits all that is published; every other time the trim behind the commit is not reached, unless room is needed.
fn commit(life: &Life, choice: u64) -> Option<(WalSequence, u64)> {
    let ledger = life.witness.0.lock();
    let last = ledger.next_sequence.get().checked_sub(1).map(WalSequence::new)?;
    let entries = ledger.published.len() as u64;
    drop(ledger);
    if choice.is_multiple_of(2) || life.wal.room() < ROOM_NEEDED {
        life.wal.trim(last);
    }
    Some((last, entries))
}

async fn seal_twice(medium: &dyn Medium, epoch: u64, choice: u64, dead: Remembered) -> Result<(), Violation> {
    let env = Env::new(medium.parts(choice));
    let of = owner(epoch);
    let (through, first) = dead.committed.map_or((None, 0), |(through, entries)| (Some(through), entries));
    let mut ends = Vec::new();
    for _ in 0..2 {
        let sealed = seal(&*medium.sealer(&env, &owner(epoch + 1)), epoch, through).await?;
        let (end, corrupt) = (sealed.end, sealed.corrupt);
        check(corrupt.is_empty(), || format!("nothing decayed, yet {corrupt:?}"))?;
        let groups = medium.read(sealed.contents).await?;
        let upto = check_groups(&groups, of.epoch, first)?;
        check(upto >= dead.acked, || {
            format!("{} entries were acknowledged, {upto} came back: acknowledged records are lost", dead.acked)
        })?;
        check(upto <= dead.appended, || format!("{upto} entries came back, {} were appended", dead.appended))?;
        ends.push((end, upto));
        // The machine may crash again in the midst of taking over.
        medium.crash();
    }
    check(ends[0] == ends[1], || format!("sealed once the end was {:?}, sealed again {:?}", ends[0], ends[1]))
}
