//! The end of deleted topics: purged once their trash window is over, then let go of, partition by partition.
//!
//! Owns: when to ask. Leaves to others: whether the window is over and no pin is left (`metadata::apply`).
//!
//! Crash: a topic that is being purged is shown to nobody any more, so what an earlier process left of one is looked up
//! once, in the rows themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_metadata::reader::Reader;
use forebay_metadata::state::{ConfigScope, Key, Row, TopicState};
use forebay_metadata::{Command, SubmitError};
use forebay_types::{BrokerId, Timestamp, TopicId, TopicPartition};

use crate::driver::UpkeepParts;
use crate::error::UpkeepError;
use crate::release::{drop_extents, fold_uploads};

/// Rows read at once.
const ROWS_PER_PAGE: usize = 1_024;

/// What is remembered from one round to the next.
#[derive(Default)]
pub(crate) struct Trash {
    /// Whether what an earlier process left was looked up.
    resumed: bool,
    /// Partitions of purged topics that are not yet gone.
    purging: BTreeSet<TopicPartition>,
}

impl Trash {
    /// Purges what is due; says how many topics.
    pub async fn run(&mut self, parts: &UpkeepParts, now: Timestamp) -> Result<usize, UpkeepError> {
        if !self.resumed {
            self.purging.extend(unfinished(parts).await?);
            self.resumed = true;
        }
        let mut purged = 0;
        for topic in parts.metadata.topics().trash() {
            let TopicState::Trash { purge_at, .. } = topic.state else { continue };
            let now = if parts.config.sabotage_purge_early { Timestamp::from_millis(i64::MAX) } else { now };
            if now < purge_at {
                continue;
            }
            match parts.metadata.submit(Command::PurgeTopic { topic: topic.id, now }).await {
                Ok(_) => {
                    tracing::info!(topic = %topic.name, id = %topic.id, "the trash window of a deleted topic is over");
                    purged += 1;
                    self.purging.extend(topic.partitions.iter().map(|partition| partition.id));
                }
                // A pin, or a window made longer by a takeover: the next round asks again.
                Err(SubmitError::Refused(refusal)) => {
                    tracing::debug!(topic = %topic.name, %refusal, "a deleted topic stays");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.purging.is_empty() {
            return Ok(purged);
        }
        while let Some(partition) = self.purging.first().copied() {
            drop_extents(parts, partition, now).await?;
            self.purging.remove(&partition);
        }
        // Ranges that have no rows yet are left out as they are folded: then their objects are free too.
        fold_uploads(parts).await?;
        Ok(purged)
    }
}

/// Partitions of topics whose purge was begun and not finished.
async fn unfinished(parts: &UpkeepParts) -> Result<Vec<TopicPartition>, UpkeepError> {
    let reader = Reader::open(&parts.env, Arc::clone(&parts.store)).await?;
    let found = purging_partitions(&reader).await;
    reader.close().await;
    found
}

async fn purging_partitions(reader: &Reader) -> Result<Vec<TopicPartition>, UpkeepError> {
    let mut purging: BTreeSet<TopicId> = BTreeSet::new();
    let mut found = Vec::new();
    // Topics come right after the brokers' configurations, their partitions right after them.
    let mut after = Key::BrokerConfig(ConfigScope::Broker(BrokerId::MAX));
    loop {
        let page = reader.rows(Some(&after), ROWS_PER_PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = last.clone();
        for (key, row) in page {
            match (key, row) {
                (Key::Topic(id), Row::Topic(topic)) => {
                    if topic.state == TopicState::Purging {
                        purging.insert(id);
                    }
                }
                (Key::Partition(id), _) if !purging.is_empty() => {
                    if purging.contains(&id.topic) {
                        found.push(id);
                    }
                }
                _ => return Ok(found),
            }
        }
    }
}
