//! One suite for every kind of WAL: what was acknowledged survives, in order, whatever step a crash strikes at.
//!
//! A kind is put under test as a [`Medium`]: what outlives the broker. Each check drives whole lives of a broker on it:
//! start, append, wait, crash or stop, seal, replay. A check answers with the first [`Violation`] instead of panicking,
//! so that a planted bug can be shown to be found. Runs on a current-thread runtime with a paused clock.

mod crash;
mod decay;
mod life;
mod orderly;
mod zombie;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_env::{Env, Parts};
use forebay_types::WalSequence;

pub use crash::{CRASH_POINTS, every_crash};
pub use decay::{Decays, decay};
pub use life::{Numbered, owner, split_batches};
pub use orderly::orderly;
pub use zombie::zombie;

use crate::{Provider, SealError, SealedContents, Sealer, WalError, WalOwner};

/// What outlives a broker: a disk, a bucket.
#[async_trait]
pub trait Medium: Send + Sync {
    /// The machine for one life of a broker.
    fn parts(&self, seed: u64) -> Parts;

    /// A provider for a fresh epoch; those before it are closed.
    async fn open(&self, env: &Env, owner: &WalOwner) -> Result<Box<dyn Provider>, WalError>;

    fn sealer(&self, env: &Env, by: &WalOwner) -> Box<dyn Sealer>;

    /// The machine stops dead. What was not durable may be gone, in whole or in part.
    fn crash(&self);

    /// The batches of each sealed group, in the order in which the medium keeps them.
    async fn read(&self, contents: SealedContents) -> Result<Vec<(WalSequence, Vec<Bytes>)>, SealError>;
}

/// A promise that a WAL broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

/// The violation, unless it holds.
fn check(holds: bool, violation: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(violation())) }
}

impl From<WalError> for Violation {
    fn from(error: WalError) -> Self {
        Self(format!("the WAL failed where nothing was broken: {error:?}"))
    }
}

impl From<SealError> for Violation {
    fn from(error: SealError) -> Self {
        Self(format!("sealing failed where nothing was broken: {error:?}"))
    }
}

impl From<crate::WalEnded> for Violation {
    fn from(ended: crate::WalEnded) -> Self {
        Self(format!("the WAL ended where nothing was broken: {:?}", ended.reason))
    }
}
