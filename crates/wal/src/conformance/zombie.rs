//! An owner that does not know that it was replaced: it goes on writing while another broker seals its WAL.

use std::time::Duration;

use super::life::{Life, check_groups, owner, seal};
use super::{Medium, Violation, check};
use crate::WalErrorKind;

/// By when a writer whose bucket can be reached most of the time must have met the fence.
const PATIENCE: Duration = Duration::from_mins(10);

/// Seals the WAL of a broker that is alive and writing, and checks that each of its acks is in what was sealed, and
/// that it learns of its end. For media that another machine can reach.
pub async fn zombie(medium: &dyn Medium, seed: u64) -> Result<(), Violation> {
    let mut life = Life::begin(medium, 1, seed).await?;
    let before = seed % 23;
    for _ in 0..before {
        life.append(300).await?;
        life.env.sleep(Duration::from_millis(seed % 7 * 20)).await;
    }
    let (env, by) = (life.env.clone(), medium.sealer(&life.env, &owner(2)));
    let sealing = env.spawn("conformance-sealer", async move { seal(&*by, 1, None).await });
    // It writes on, while anything may be slow, until it is told.
    let since = env.monotonic();
    let mut told = None;
    while told.is_none() && env.monotonic() - since < PATIENCE {
        told = life.append(300).await.err();
        env.sleep(Duration::from_millis(if life.appended < 200 { 10 } else { 200 })).await;
    }
    let kind = told.map(|ended| ended.kind());
    check(kind == Some(WalErrorKind::Fenced), || format!("the fenced writer ended as {kind:?}"))?;
    life.settle().await;
    life.verdict()?;
    check(life.witness.0.lock().ended, || "the fenced writer's partitions were not told".to_owned())?;

    let sealed = sealing.await.expect("nobody aborts it")?;
    let again = seal(&*medium.sealer(&env, &owner(3)), 1, None).await?;
    check(sealed.end == again.end, || format!("sealed once the end was {}, sealed again {}", sealed.end, again.end))?;
    for contents in [sealed.contents, again.contents] {
        let upto = check_groups(&medium.read(contents).await?, owner(1).epoch, 0)?;
        let acked = life.acked();
        check(upto >= acked, || format!("the zombie acknowledged {acked}, {upto} were sealed"))?;
    }
    Ok(())
}
