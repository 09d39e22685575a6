//! The one task of upkeep: a round now and then, each the same steps in the same order.
//!
//! ```text
//! clocks ─▶ producers ─▶ retention ─▶ release ─▶ trash ─▶ collect ─▶ orphans
//! ```
//!
//! Owns: when a round runs, and what a failed one means. Leaves to others: every step.
//!
//! Retries: an error cuts the round short, and the next one begins anew. Cancellation and crash: at any await; every
//! command may be repeated, and what is remembered between rounds only saves reads.
//!
//! Pace: commands go out [`COMMANDS_AT_ONCE`] at a time, so that a round shares the metadata's writer with clients;
//! lists are walked a few pages per round, and a round that has more to do is followed by the next after [`RESUME_WAIT`].

use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Env, Task};
use forebay_log::Partitions;
use forebay_metadata::service::ErrorKind;
use forebay_metadata::{BrokerLife, Metadata};
use forebay_store::Store;

use crate::clocks::agreed_time;
use crate::collect::{CONDEMNED_GRACE, Collect, Collected};
use crate::error::UpkeepError;
use crate::orphan::Orphans;
use crate::release::Release;
use crate::retention::Retention;
use crate::trash::Trash;

/// Commands and deletions under way at the same time: an eighth of one group of the metadata's writer.
pub(crate) const COMMANDS_AT_ONCE: usize = 32;
/// Extents looked up at once.
pub(crate) const EXTENTS_PER_PAGE: usize = 256;

/// Before the next round where the last one had more to do.
const RESUME_WAIT: Duration = Duration::from_secs(1);
/// Before the next round where the last one failed; or the interval, where that is shorter.
const RETRY_WAIT: Duration = Duration::from_mins(1);

/// When upkeep runs, and what waits how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpkeepConfig {
    /// Before the first round, so that a start is not slowed (Kafka's `LogManager.InitialTaskDelayMs`).
    pub first_wait: Duration,
    /// Between rounds (Kafka's `log.retention.check.interval.ms`).
    pub interval: Duration,
    /// After so long without a batch an idle producer is forgotten (Kafka's `producer.id.expiration.ms`).
    pub producer_expiration_ms: i64,
    /// From an object's being condemned to its being deleted; see [`CONDEMNED_GRACE`].
    pub condemned_grace: Duration,
    /// A planted bug: an object that is older than this goes without the metadata being asked.
    pub sabotage_collect_by_age: Option<Duration>,
    /// A planted bug: topics leave the trash whether or not their window is over.
    pub sabotage_purge_early: bool,
    /// A planted bug: records are old after half of the time that their topic keeps them.
    pub sabotage_retire_early: bool,
}

impl Default for UpkeepConfig {
    /// Kafka's.
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(30),
            interval: Duration::from_mins(5),
            producer_expiration_ms: 24 * 60 * 60 * 1_000,
            condemned_grace: CONDEMNED_GRACE,
            sabotage_collect_by_age: None,
            sabotage_purge_early: false,
            sabotage_retire_early: false,
        }
    }
}

/// What upkeep works with.
pub struct UpkeepParts {
    pub env: Env,
    /// Metered for [`forebay_store::Purpose::Collect`].
    pub store: Arc<dyn Store>,
    pub metadata: Arc<dyn Metadata>,
    pub partitions: Arc<Partitions>,
    pub life: BrokerLife,
    pub config: UpkeepConfig,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Whether this clock and the store's agreed: otherwise nothing was done.
    pub clocks_agree: bool,
    /// Partitions whose log start retention raised.
    pub retired: usize,
    /// Extents below log starts that were let go.
    pub released: usize,
    /// Deleted topics whose trash window was over.
    pub purged: usize,
    /// Objects condemned, orphans included.
    pub condemned: usize,
    /// Objects never committed.
    pub orphans: usize,
    pub deleted: usize,
    pub deleted_bytes: u64,
    /// There is more to do right away.
    pub more: bool,
}

/// Upkeep of one broker epoch, round by round.
pub struct Upkeep {
    parts: UpkeepParts,
    retention: Retention,
    release: Release,
    trash: Trash,
    collect: Collect,
    orphans: Orphans,
}

/// Starts upkeep. It ends with the broker epoch or the metadata, or when the task is dropped.
pub fn start(parts: UpkeepParts) -> Task<()> {
    let env = parts.env.clone();
    env.spawn("upkeep", Upkeep::new(parts).run())
}

impl Upkeep {
    pub fn new(parts: UpkeepParts) -> Self {
        Self {
            parts,
            retention: Retention::default(),
            release: Release::default(),
            trash: Trash::default(),
            collect: Collect::default(),
            orphans: Orphans::default(),
        }
    }

    async fn run(mut self) {
        let env = self.parts.env.clone();
        env.sleep(self.parts.config.first_wait).await;
        while self.parts.partitions.ended().is_none() {
            let wait = match self.run_once().await {
                Ok(round) if round.more => RESUME_WAIT,
                Ok(_) => self.parts.config.interval,
                Err(error) if error.kind() == ErrorKind::Stop => {
                    tracing::error!(error = &error as &dyn std::error::Error, "upkeep ends");
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a round of upkeep will be tried again");
                    RETRY_WAIT.min(self.parts.config.interval)
                }
            };
            env.sleep(wait).await;
        }
    }

    /// One round.
    ///
    /// # Errors
    /// The bucket or the metadata did not answer: the steps behind that were not taken.
    pub async fn run_once(&mut self) -> Result<Round, UpkeepError> {
        let parts = &self.parts;
        let Some(now) = agreed_time(&parts.env, &*parts.store).await? else { return Ok(Round::default()) };
        expire_producers(parts);
        let retired = self.retention.run(parts, now).await?;
        let released = self.release.run(parts, now).await?;
        let purged = self.trash.run(parts, now).await?;
        let Collected { condemned, deleted, bytes } = self.collect.run(parts, now).await?;
        let orphans = self.orphans.run(parts, now).await?;
        let round = Round {
            clocks_agree: true,
            retired,
            released,
            purged,
            condemned: condemned + orphans,
            orphans,
            deleted,
            deleted_bytes: bytes,
            more: self.collect.is_under_way() || self.orphans.is_under_way(),
        };
        if round != (Round { clocks_agree: true, ..Round::default() }) {
            tracing::info!(?round, "upkeep");
        }
        Ok(round)
    }
}

/// Expires by silence, never by retention (D8).
fn expire_producers(parts: &UpkeepParts) {
    let period = Duration::from_millis(u64::try_from(parts.config.producer_expiration_ms).unwrap_or(0));
    for topic in parts.partitions.all() {
        for partition in topic.partitions() {
            partition.expire_producers(period);
        }
    }
}
