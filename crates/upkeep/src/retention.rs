//! Retention: log starts rise past extents that are old or too many, for topics whose policy is `delete`.
//!
//! Owns: which partitions are looked at, and reading their extents. Leaves to others: what is old or too many
//! ([`picker`]), how far the pins let a log start go (`metadata::apply`), letting go of the extents (`release`),
//! internal topics, whose coordinators move their log starts themselves.
//!
//! Reads: a partition's first extent that stays is remembered, so a partition in which nothing is due costs no read.
//!
//! Source: Kafka's `UnifiedLog.deleteOldSegments`.

mod picker;

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_log::{OpenTopic, Partition};
use forebay_metadata::command::{AdvanceReason, LogStart};
use forebay_metadata::{Command, Extent, Reply, SubmitError};
use forebay_store::{Key, StoreErrorKind};
use forebay_types::{LogId, Offset, Timestamp, TopicName};
use futures::future::join_all;

use crate::driver::{COMMANDS_AT_ONCE, EXTENTS_PER_PAGE, UpkeepParts};
use crate::error::UpkeepError;
use picker::{Policy, Verdict, Walk};

/// The first extent that stayed when a log was last looked at: nothing is due before it is.
#[derive(Clone, Copy, Debug)]
struct Front {
    log_start: Offset,
    newest: Timestamp,
}

/// What is remembered from one round to the next.
#[derive(Default)]
pub(crate) struct Retention {
    fronts: BTreeMap<LogId, Front>,
}

/// A partition that something may be due in.
struct Candidate {
    topic: TopicName,
    partition: Arc<Partition>,
    log_start: Offset,
    policy: Policy,
    size: u64,
}

/// What is to be done about one.
struct Picked {
    to: Option<Offset>,
    front: Option<Front>,
    old: usize,
    excess: usize,
}

impl Retention {
    /// Raises log starts; says of how many partitions.
    pub async fn run(&mut self, parts: &UpkeepParts, now: Timestamp) -> Result<usize, UpkeepError> {
        let mut fronts = BTreeMap::new();
        let mut candidates = Vec::new();
        for topic in parts.partitions.all() {
            self.look_at(parts, &topic, now, &mut fronts, &mut candidates);
        }
        // Logs that are gone, or are kept for ever now, are forgotten.
        self.fronts = fronts;
        let mut moved = 0;
        for some in candidates.chunks(COMMANDS_AT_ONCE) {
            let picks = join_all(some.iter().map(|candidate| pick(parts, candidate, now))).await;
            let mut advances = Vec::new();
            for (candidate, picked) in some.iter().zip(picks) {
                let picked = picked?;
                if let Some(front) = picked.front {
                    self.fronts.insert(candidate.partition.log(), front);
                }
                if let Some(to) = picked.to {
                    let (topic, id) = (&candidate.topic, candidate.partition.id().partition);
                    tracing::debug!(%topic, partition = %id, %to, old = picked.old, excess = picked.excess, "retiring records");
                    advances.push(advance(parts, candidate, to, now));
                }
            }
            for advanced in join_all(advances).await {
                moved += usize::from(advanced?);
            }
        }
        Ok(moved)
    }

    fn look_at(
        &self,
        parts: &UpkeepParts,
        topic: &OpenTopic,
        now: Timestamp,
        fronts: &mut BTreeMap<LogId, Front>,
        candidates: &mut Vec<Candidate>,
    ) {
        let config = &topic.config;
        let mut policy = Policy { retention_ms: config.retention_ms, retention_bytes: config.retention_bytes };
        if parts.config.sabotage_retire_early {
            policy.retention_ms = policy.retention_ms.map(|ms| ms / 2);
        }
        if topic.row.internal || !config.cleanup.delete || policy.keeps_all() {
            return;
        }
        for row in &topic.row.partitions {
            // One that is not open has its turn when it is.
            let Ok(partition) = topic.partition(row.id.partition) else { continue };
            let size = parts.metadata.log_size(row.log).bytes;
            if size == 0 {
                continue;
            }
            if let Some(front) = self.fronts.get(&row.log).filter(|front| front.log_start == row.log_start) {
                fronts.insert(row.log, *front);
                let within = policy.retention_bytes.is_none_or(|limit| size < limit);
                if within && !policy.is_old(front.newest, now) {
                    continue;
                }
            }
            let (topic, partition) = (topic.row.name.clone(), Arc::clone(partition));
            candidates.push(Candidate { topic, partition, log_start: row.log_start, policy, size });
        }
    }
}

/// Walks over a log's extents until the first that stays.
async fn pick(parts: &UpkeepParts, candidate: &Candidate, now: Timestamp) -> Result<Picked, UpkeepError> {
    let Candidate { partition, log_start, policy, size, .. } = candidate;
    let mut walk = Walk::new(*policy, now, *log_start, *size);
    let mut picked = Picked { to: None, front: None, old: 0, excess: 0 };
    let mut from = Offset::ZERO;
    'log: loop {
        let page = parts.metadata.extents(partition.log(), from, EXTENTS_PER_PAGE).await?;
        for extent in &page {
            let newest = newest_record(parts, extent, now).await?;
            match walk.judge(extent.range, extent.bytes, newest) {
                Verdict::Released => {}
                Verdict::Old => picked.old += 1,
                Verdict::Excess => picked.excess += 1,
                Verdict::Kept => {
                    picked.front = Some(Front { log_start: walk.log_start(), newest });
                    break 'log;
                }
            }
        }
        match page.last() {
            Some(last) if page.len() == EXTENTS_PER_PAGE => from = last.range.end(),
            _ => break,
        }
    }
    picked.to = Some(walk.log_start()).filter(|to| to > log_start);
    Ok(picked)
}

/// The time of an extent's newest record. Records without one are as old as their object, as in Kafka, where they are
/// as old as their file.
async fn newest_record(parts: &UpkeepParts, extent: &Extent, now: Timestamp) -> Result<Timestamp, UpkeepError> {
    if extent.max_timestamp >= Timestamp::default() {
        return Ok(extent.max_timestamp);
    }
    let Ok(key) = Key::new(&extent.object) else { return Ok(now) };
    match parts.store.head(&key).await {
        Ok(meta) => Ok(meta.modified),
        // Damage is for a person to see, not a reason to retire.
        Err(error) if error.kind() == StoreErrorKind::NotFound => {
            tracing::error!(object = extent.object, "an object that the metadata names is missing");
            Ok(now)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the log start moved.
async fn advance(parts: &UpkeepParts, candidate: &Candidate, to: Offset, now: Timestamp) -> Result<bool, UpkeepError> {
    let partition = &candidate.partition;
    let command = Command::AdvanceLogStart {
        life: parts.life,
        partition: partition.id(),
        leader_epoch: partition.leader_epoch(),
        to,
        reason: AdvanceReason::Retention,
        now,
    };
    match parts.metadata.submit(command).await {
        Ok(Reply::LogStart(LogStart { log_start, stopped_by })) => {
            if let Some(pin) = stopped_by {
                tracing::debug!(partition = %partition.id(), %log_start, %pin, "a pin holds what retention would retire");
            }
            // The follower of the metadata tells it too, a little later; a log start never goes back.
            partition.advance_log_start(log_start);
            Ok(log_start > candidate.log_start)
        }
        Ok(other) => unreachable!("advancing a log start is answered with it, not with {other:?}"),
        Err(SubmitError::Refused(refusal)) => {
            // Deleted meanwhile, or owned by somebody else.
            tracing::debug!(partition = %partition.id(), %refusal, "retention passes a partition over");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
