//! Garbage collection in two steps: condemn what nothing reaches, then, after the grace, delete it (D12).
//!
//! Owns: the order and the pace. Leaves to others: whether an object is reached (`metadata::apply`, which keeps count
//! and refuses), finding objects that were never named (`orphan`).
//!
//! Crash: between any two steps the garbage row still stands and the next round goes on. An object is forgotten only
//! once it is deleted, so none is left behind.

use std::time::Duration;

use forebay_metadata::state::Garbage;
use forebay_metadata::{Command, SubmitError};
use forebay_store::Key;
use forebay_types::Timestamp;
use futures::future::join_all;

use crate::driver::{COMMANDS_AT_ONCE, UpkeepParts};
use crate::error::UpkeepError;

/// From being condemned to being deleted. Longer than the slowest reader holds on to an object: a fetch looks its
/// object up and reads it within the store's time limits, minutes at most; a check of a whole bucket reads the metadata
/// first and its last object an hour later at most, or finds it gone and is run again.
pub const CONDEMNED_GRACE: Duration = Duration::from_hours(1);

/// Garbage rows read at once.
const ROWS_PER_PAGE: usize = 256;
/// Pages in one round.
const PAGES_PER_ROUND: usize = 16;

/// What is remembered from one round to the next.
#[derive(Default)]
pub(crate) struct Collect {
    /// Where the next round goes on in the list of garbage.
    after: Option<String>,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub condemned: usize,
    pub deleted: usize,
    pub bytes: u64,
}

impl Collect {
    pub fn is_under_way(&self) -> bool {
        self.after.is_some()
    }

    pub async fn run(&mut self, parts: &UpkeepParts, now: Timestamp) -> Result<Collected, UpkeepError> {
        let mut collected = Collected::default();
        for _ in 0..PAGES_PER_ROUND {
            let page = parts.metadata.garbage(self.after.as_deref(), ROWS_PER_PAGE).await?;
            self.after = page.last().filter(|_| page.len() == ROWS_PER_PAGE).map(|(name, _)| name.clone());
            for some in page.chunks(COMMANDS_AT_ONCE) {
                self.some(parts, some, now, &mut collected).await?;
            }
            if self.after.is_none() {
                break;
            }
        }
        Ok(collected)
    }

    async fn some(
        &self,
        parts: &UpkeepParts,
        garbage: &[(String, Garbage)],
        now: Timestamp,
        collected: &mut Collected,
    ) -> Result<(), UpkeepError> {
        let mut condemns = Vec::new();
        let mut deletes = Vec::new();
        for (object, row) in garbage {
            match row.condemned_at {
                None => condemns.push(condemn(parts, object, row.size, now)),
                Some(since) if is_over(since, now, parts.config.condemned_grace) => {
                    deletes.push(delete(parts, object, row.size));
                }
                Some(_) => {}
            }
        }
        for condemned in join_all(condemns).await {
            collected.condemned += usize::from(condemned?);
        }
        for deleted in join_all(deletes).await {
            if let Some(bytes) = deleted? {
                collected.deleted += 1;
                collected.bytes += bytes;
            }
        }
        Ok(())
    }
}

/// Whether an object that was condemned then may be deleted now.
fn is_over(condemned_at: Timestamp, now: Timestamp, grace: Duration) -> bool {
    u128::from(now.millis_since(condemned_at).unsigned_abs()) >= grace.as_millis()
}

async fn condemn(parts: &UpkeepParts, object: &str, size: u64, now: Timestamp) -> Result<bool, UpkeepError> {
    match parts.metadata.submit(Command::CondemnObject { object: object.to_owned(), size, now }).await {
        Ok(_) => Ok(true),
        Err(SubmitError::Refused(refusal)) => {
            // Named again since the list was read.
            tracing::debug!(object, %refusal, "not garbage any more");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes a condemned object, then forgets it; gives its size. One that cannot be deleted does not hold up the others.
async fn delete(parts: &UpkeepParts, object: &str, size: u64) -> Result<Option<u64>, UpkeepError> {
    let Ok(key) = Key::new(object) else {
        tracing::error!(object, "garbage under a name that no object can have");
        return Ok(None);
    };
    if let Err(error) = parts.store.delete(&key).await {
        tracing::warn!(object, error = &error as &dyn std::error::Error, "deleting garbage will be tried again");
        return Ok(None);
    }
    match parts.metadata.submit(Command::ForgetObject { object: object.to_owned() }).await {
        Ok(_) => {
            tracing::debug!(object, size, "garbage deleted");
            Ok(Some(size))
        }
        Err(SubmitError::Refused(refusal)) => {
            tracing::error!(object, %refusal, "an object was deleted that the metadata does not let go of");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UpkeepConfig;

    #[test]
    fn the_grace_is_an_hour_by_a_clock_that_may_go_back() {
        let is_over = |since, now| {
            is_over(Timestamp::from_millis(since), Timestamp::from_millis(now), UpkeepConfig::default().condemned_grace)
        };
        let hour = 60 * 60 * 1_000;
        assert!(!is_over(5_000, 5_000) && !is_over(5_000, 5_000 + hour - 1));
        assert!(is_over(5_000, 5_000 + hour));
        assert!(!is_over(5_000, 0), "a clock set back makes nothing old");
    }
}
