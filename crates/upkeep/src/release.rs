//! Letting go of extents that lie below their log's start, whoever moved it: retention, DeleteRecords or a coordinator.
//!
//! Only extents that have rows of their own can go, so uploads are folded first where one is in the way. Only what no
//! partition is opened from can go, so producers are snapshotted first where footers are still needed for them: one object
//! for all partitions whose log start has passed their snapshot. What a pin holds stays, and is looked at again in the
//! next round.

use std::collections::{BTreeMap, BTreeSet};

use forebay_metadata::{Command, Reply, SubmitError};
use forebay_types::{LogId, Offset, Timestamp, TopicPartition};
use futures::future::join_all;

use crate::driver::{COMMANDS_AT_ONCE, UpkeepParts};
use crate::error::UpkeepError;

/// What is remembered from one round to the next.
#[derive(Default)]
pub(crate) struct Release {
    /// Log starts below which nothing is left.
    clear_below: BTreeMap<LogId, Offset>,
}

/// A log start to look below.
#[derive(Clone, Copy)]
struct Look {
    partition: TopicPartition,
    log: LogId,
    log_start: Offset,
}

impl Release {
    /// Drops what lies below log starts; says how many extents.
    pub async fn run(&mut self, parts: &UpkeepParts, now: Timestamp) -> Result<usize, UpkeepError> {
        let mut clear = BTreeMap::new();
        let mut looks = Vec::new();
        for topic in parts.metadata.topics().list() {
            for row in topic.partitions.iter().filter(|row| row.log_start > Offset::ZERO) {
                match self.clear_below.get(&row.log) {
                    Some(below) if *below == row.log_start => drop(clear.insert(row.log, *below)),
                    _ => looks.push(Look { partition: row.id, log: row.log, log_start: row.log_start }),
                }
            }
        }
        self.clear_below = clear;
        let (mut dropped, blocked) = self.pass(parts, looks, now).await?;
        if !blocked.is_empty() {
            let snapshotted = snapshot_producers(parts, &blocked).await;
            if fold_uploads(parts).await? > 0 || snapshotted {
                dropped += self.pass(parts, blocked, now).await?.0;
            }
        }
        Ok(dropped)
    }

    /// Drops what can go; gives the extents' number and the logs in which something is left.
    async fn pass(
        &mut self,
        parts: &UpkeepParts,
        looks: Vec<Look>,
        now: Timestamp,
    ) -> Result<(usize, Vec<Look>), UpkeepError> {
        let (mut dropped, mut blocked) = (0, Vec::new());
        for some in looks.chunks(COMMANDS_AT_ONCE) {
            let cleared = join_all(some.iter().map(|look| clear(parts, *look, now))).await;
            for (look, cleared) in some.iter().zip(cleared) {
                let (extents, is_clear) = cleared?;
                dropped += extents;
                if is_clear {
                    self.clear_below.insert(look.log, look.log_start);
                } else {
                    blocked.push(*look);
                }
            }
        }
        Ok((dropped, blocked))
    }
}

/// Takes snapshots of the partitions that are opened from below their log start; whether there were any.
async fn snapshot_producers(parts: &UpkeepParts, looks: &[Look]) -> bool {
    let needs_one = |look: &&Look| {
        let partition = parts.partitions.get(look.partition);
        // Records that were deleted before they were committed are passed by the snapshot after their commit.
        partition.is_ok_and(|it| it.opens_from() < look.log_start.min(it.committed_end()))
    };
    let wanted: BTreeSet<TopicPartition> = looks.iter().filter(needs_one).map(|look| look.partition).collect();
    let any = !wanted.is_empty();
    if any {
        parts.partitions.snapshot_producers(wanted).await;
    }
    any
}

/// Drops what can go of one log; whether nothing is left below its start.
async fn clear(parts: &UpkeepParts, look: Look, now: Timestamp) -> Result<(usize, bool), UpkeepError> {
    if is_clear(parts, look).await? {
        return Ok((0, true));
    }
    let (dropped, _) = drop_extents(parts, look.partition, now).await?;
    Ok((dropped, is_clear(parts, look).await?))
}

async fn is_clear(parts: &UpkeepParts, look: Look) -> Result<bool, UpkeepError> {
    let first = parts.metadata.extents(look.log, Offset::ZERO, 1).await?;
    Ok(first.first().is_none_or(|extent| extent.range.end() > look.log_start))
}

/// Drops all that a partition may let go of: how many extents, and whether the partition was there.
pub(crate) async fn drop_extents(
    parts: &UpkeepParts,
    partition: TopicPartition,
    now: Timestamp,
) -> Result<(usize, bool), UpkeepError> {
    let mut dropped = 0;
    loop {
        match parts.metadata.submit(Command::DropExtents { partition, now }).await {
            Ok(Reply::Dropped { extents, more }) => {
                dropped += extents;
                if !more {
                    return Ok((dropped, true));
                }
            }
            Ok(other) => unreachable!("dropping extents is answered with their number, not with {other:?}"),
            Err(SubmitError::Refused(refusal)) => {
                tracing::debug!(%partition, %refusal, "no extents to drop");
                return Ok((dropped, false));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives every committed range a row of its own; says how many uploads were folded.
pub(crate) async fn fold_uploads(parts: &UpkeepParts) -> Result<usize, UpkeepError> {
    let mut folded = 0;
    loop {
        match parts.metadata.submit(Command::IndexUploads).await? {
            Reply::Indexed { uploads, remaining } => {
                folded += uploads;
                if remaining == 0 {
                    return Ok(folded);
                }
            }
            other => unreachable!("folding uploads is answered with their number, not with {other:?}"),
        }
    }
}
