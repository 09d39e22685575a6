//! One broker epoch while it runs: how its end is seen, and how it drains.
//!
//! Owns: what may follow an end. A WAL whose medium failed ends the epoch, and another may begin in this process: the
//! failed write has returned, so nothing of the old epoch is still under way to the disk. Every other end is final: a
//! fence or a refused commit means that somebody else has taken over, and a task that vanished means that an invariant
//! broke.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::Context;
use forebay_env::{Env, Task};
use forebay_log::{Owner, Recovered, UploadError};
use forebay_types::WalPosition;
use forebay_wal::{WalEnded, WalError, WalErrorKind};

/// How long coordinators may take for their last snapshots. Without one, opening reads more records.
const COORDINATORS_DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the last upload may take. Without it, the next start recovers from the WAL.
const LOG_DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// A broker epoch that serves.
pub(crate) struct Epoch {
    pub context: Arc<Context>,
    pub owner: Owner,
    pub recovered: Recovered,
    /// Retention, the trash, garbage.
    pub upkeep: Task<()>,
}

/// Why a broker epoch is over.
#[derive(Clone, Debug)]
pub(crate) enum EpochEnd {
    Wal(WalEnded),
    Uploads(Arc<UploadError>),
}

impl EpochEnd {
    /// Whether this process may begin another epoch.
    pub fn may_begin_again(&self) -> bool {
        match self {
            Self::Wal(ended) => ended.kind() == WalErrorKind::Failed && !matches!(*ended.reason, WalError::TaskGone),
            Self::Uploads(_) => false,
        }
    }
}

impl fmt::Display for EpochEnd {
    /// The whole chain: this is all that is told of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause: &dyn Error = match self {
            Self::Wal(ended) => &*ended.reason,
            Self::Uploads(error) => &**error,
        };
        write!(f, "{cause}")?;
        while let Some(source) = cause.source() {
            write!(f, ": {source}")?;
            cause = source;
        }
        Ok(())
    }
}

impl Epoch {
    /// Returns once this epoch can serve no more. Cancel safe.
    pub async fn ended(&self) -> EpochEnd {
        tokio::select! {
            biased;
            // No record ever gets this position, so only the WAL's end can answer.
            ended = self.owner.wal.durable(WalPosition::new(u64::MAX)) => match ended {
                Err(ended) => EpochEnd::Wal(ended),
                Ok(()) => unreachable!("no WAL reaches its last position"),
            },
            why = self.owner.uploads_ended() => EpochEnd::Uploads(why),
        }
    }

    /// Leaves as little as possible to the next start. What takes too long is left to it.
    pub async fn drain(&self, env: &Env) {
        self.upkeep.abort();
        if env.timeout(COORDINATORS_DRAIN_TIME_MAX, self.context.coordinators.stop()).await.is_none() {
            tracing::warn!("coordinators did not finish in time; the next start reads more of their logs");
        }
        match env.timeout(LOG_DRAIN_TIME_MAX, self.owner.drain()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!(error = &error as &dyn Error, "not everything is in the bucket");
            }
            None => tracing::warn!("the last upload did not finish in time; the next start recovers it from the WAL"),
        }
    }
}
