//! Committed offsets: OffsetCommit, TxnOffsetCommit, OffsetFetch, OffsetDelete, and how they come to an end.
//!
//! Sources: Kafka 3.9 `GroupCoordinator.doCommitOffsets`, `doTxnCommitOffsets`, `handleDeleteOffsets`,
//! `GroupMetadata.removeExpiredOffsets`; KIP-211 (expiry), KIP-447 (fencing of transactional commits), KIP-496 (delete).

use bytes::Bytes;
use forebay_types::{ProducerId, Timestamp, TopicId, TopicName};

use super::TOPIC_ID_HEADER;
use super::offsets::Committed;
use super::request::{
    Caller, Commit, CommitPartition, CommitTopic, DeleteOffsets, Fetch, FetchedPartition, FetchedTopic, GroupError,
    Position, TopicResults,
};
use super::state::{Group, Phase};
use super::step::Step;
use crate::schema::{GroupMetadataKey, OffsetCommitKey, OffsetCommitValue, STRING_BYTES_MAX};

impl Group {
    pub fn commit(&mut self, step: &mut Step, commit: &Commit) -> Result<Vec<TopicResults>, GroupError> {
        self.check_commit(&commit.caller, false)?;
        if matches!(self.phase, Phase::Completing { .. }) {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(commit.caller.member_id.as_str()) {
            member.heard(step.now);
        }
        Ok(self.store(step, commit, None))
    }

    /// The offsets wait for the end of the producer's transaction.
    pub fn commit_in_transaction(
        &mut self,
        step: &mut Step,
        producer: ProducerId,
        commit: &Commit,
    ) -> Result<Vec<TopicResults>, GroupError> {
        self.check_commit(&commit.caller, true)?;
        Ok(self.store(step, commit, Some(producer)))
    }

    fn check_commit(&self, caller: &Caller, in_transaction: bool) -> Result<(), GroupError> {
        let empty = self.phase == Phase::Empty;
        if caller.generation < 0 && empty {
            // An operator, or a consumer that keeps its offsets here and nothing else.
            Ok(())
        } else if caller.generation >= 0 || !caller.member_id.is_empty() || caller.instance_id.is_some() {
            self.check_caller(caller)
        } else if in_transaction || empty {
            // Before version 3 a transactional commit did not say which member it came from.
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    fn store(&mut self, step: &mut Step, commit: &Commit, producer: Option<ProducerId>) -> Vec<TopicResults> {
        let expires_at = commit.retention_ms.filter(|ms| *ms >= 0).map(|ms| step.now.wall.saturating_add(ms));
        let mut results = Vec::with_capacity(commit.topics.len());
        for topic in &commit.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let long = partition.metadata.len() > STRING_BYTES_MAX
                    || partition.metadata.encode_utf16().count() > step.config.offset_metadata_size_max;
                let result = if long { Err(GroupError::OffsetMetadataTooLarge) } else { Ok(()) };
                if result.is_ok() {
                    self.store_one(step, topic, partition, expires_at, producer);
                }
                partitions.push((partition.index, result));
            }
            results.push(TopicResults { topic: topic.topic.clone(), partitions });
        }
        results
    }

    fn store_one(
        &mut self,
        step: &mut Step,
        topic: &CommitTopic,
        partition: &CommitPartition,
        expires_at: Option<Timestamp>,
        producer: Option<ProducerId>,
    ) {
        let value = OffsetCommitValue {
            offset: partition.offset,
            // The version that holds an expiry has no room for it, and the clients that name one do not have it.
            leader_epoch: if expires_at.is_some() { -1 } else { partition.leader_epoch },
            metadata: partition.metadata.clone(),
            commit_timestamp: step.now.wall.as_millis(),
            expire_timestamp: expires_at.map_or(-1, Timestamp::as_millis),
            topic_id: [0; 16],
        };
        let key = OffsetCommitKey::encode(&self.id, topic.topic.as_str(), partition.index);
        let id = topic.topic_id.map(|id| (TOPIC_ID_HEADER, Bytes::copy_from_slice(id.get().as_bytes())));
        let record = step.append(key, Some(value.encode()), id.into_iter().collect());
        let committed = Committed {
            position: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.into(),
            written_at: step.now.wall,
            expires_at,
            topic_id: topic.topic_id,
            record,
        };
        match producer {
            Some(producer) => self.offsets.stage(producer, &topic.topic, partition.index, committed),
            None => self.offsets.commit(&topic.topic, partition.index, committed),
        }
    }

    /// Whatever the group is doing: who keeps only offsets here has no state.
    pub fn fetch(&self, fetch: &Fetch) -> Vec<FetchedTopic> {
        let one = |topic: &TopicName, index: i32, committed: Option<&Committed>| FetchedPartition {
            index,
            position: if fetch.require_stable && self.offsets.is_staged(topic, index) {
                Err(GroupError::UnstableOffsetCommit)
            } else {
                Ok(committed.map(position))
            },
        };
        match &fetch.topics {
            None => {
                let all = self.offsets.committed().iter();
                let row = |(topic, partitions): (&TopicName, &std::collections::BTreeMap<i32, Box<Committed>>)| {
                    let partitions = partitions.iter().map(|(index, committed)| one(topic, *index, Some(committed)));
                    FetchedTopic { topic: topic.clone(), partitions: partitions.collect() }
                };
                all.map(row).collect()
            }
            Some(topics) => {
                let row = |asked: &super::request::FetchTopic| {
                    let found = |index| self.offsets.get(&asked.topic, index).filter(|it| it.is_for(asked.topic_id));
                    let partitions = asked.partitions.iter().map(|index| one(&asked.topic, *index, found(*index)));
                    FetchedTopic { topic: asked.topic.clone(), partitions: partitions.collect() }
                };
                topics.iter().map(row).collect()
            }
        }
    }

    pub fn delete_offsets(&mut self, step: &mut Step, delete: &DeleteOffsets) -> Result<Vec<TopicResults>, GroupError> {
        let empty = self.phase == Phase::Empty;
        if !empty && !self.is_consumer() {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut results = Vec::with_capacity(delete.topics.len());
        for (topic, partitions) in &delete.topics {
            let subscribed = !empty && self.is_subscribed_to(topic.as_str());
            let mut row = Vec::with_capacity(partitions.len());
            for partition in partitions {
                if !subscribed && self.offsets.has(topic, *partition) {
                    self.forget(step, topic, *partition);
                }
                row.push((*partition, if subscribed { Err(GroupError::GroupSubscribedToTopic) } else { Ok(()) }));
            }
            results.push(TopicResults { topic: topic.clone(), partitions: row });
        }
        Ok(results)
    }

    /// The topic with that id is gone; one of the same name that came after it keeps its offsets.
    pub fn forget_topic(&mut self, step: &mut Step, topic: &TopicName, id: TopicId) {
        let newer = self.offsets.partitions(|name, it| name == topic && !it.is_for(Some(id)));
        for (topic, partition) in self.offsets.partitions(|name, it| name == topic && it.is_for(Some(id))) {
            // A tombstone takes all of a partition; where something newer stands, the id alone hides the older.
            if newer.binary_search(&(topic.clone(), partition)).is_err() {
                self.forget(step, &topic, partition);
            }
        }
    }

    /// All that is recorded of an empty group goes.
    pub fn delete(&mut self, step: &mut Step) -> Result<(), GroupError> {
        if self.phase != Phase::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        for (topic, partition) in self.offsets.partitions(|_, _| true) {
            self.forget(step, &topic, partition);
        }
        self.pending.clear();
        if self.recorded.take().is_some() {
            step.append(GroupMetadataKey::encode(&self.id), None, Vec::new());
        }
        assert!(self.is_vacant(), "what is deleted leaves nothing that a replay would find");
        Ok(())
    }

    fn forget(&mut self, step: &mut Step, topic: &TopicName, partition: i32) {
        step.append(OffsetCommitKey::encode(&self.id, topic.as_str(), partition), None, Vec::new());
        self.offsets.remove(topic, partition);
    }

    /// Drops offsets whose time is over, and the group if nothing is left of it.
    pub fn sweep(&mut self, step: &mut Step) {
        for (topic, partition) in self.expired(step) {
            self.forget(step, &topic, partition);
        }
        if self.phase == Phase::Empty && self.offsets.is_empty() && self.pending.is_empty() {
            self.delete(step).expect("an empty group can be deleted");
        }
    }

    fn expired(&self, step: &Step) -> Vec<(TopicName, i32)> {
        let now = step.now.wall;
        let empty = self.phase == Phase::Empty;
        let stable = matches!(self.phase, Phase::Stable { .. });
        let had_members = self.protocol_type.is_some();
        // Consumers' offsets count while they read the topic; of other kinds of members we cannot know.
        if had_members && !empty && !(stable && self.is_consumer()) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        for (topic, partitions) in self.offsets.committed() {
            if had_members && !empty && self.is_subscribed_to(topic.as_str()) {
                continue;
            }
            for (partition, committed) in partitions {
                let left = if had_members && empty { self.since } else { None };
                let base = left.unwrap_or(committed.written_at);
                let over = match (committed.expires_at, step.config.offsets_retention) {
                    (Some(end), _) => now >= end,
                    (None, Some(retention)) => {
                        i128::from(now.millis_since(base)) >= retention.as_millis().cast_signed()
                    }
                    (None, None) => false,
                };
                if over && !self.offsets.is_staged(topic, *partition) {
                    expired.push((topic.clone(), *partition));
                }
            }
        }
        expired
    }
}

fn position(committed: &Committed) -> Position {
    Position {
        offset: committed.position,
        leader_epoch: committed.leader_epoch,
        metadata: committed.metadata.to_string(),
        topic_id: committed.topic_id,
    }
}
