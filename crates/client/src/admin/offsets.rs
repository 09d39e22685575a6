//! Offsets: where a log begins and ends, and what groups have committed.

use forebay_types::{LeaderEpoch, Offset, Timestamp};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use forebay_wire::kafka::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use forebay_wire::kafka::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use forebay_wire::kafka::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};

use super::Admin;
use crate::cluster::{CoordinatorKind, Repeat, Target, retriable};
use crate::consumer::list_offset;
use crate::kafka::{
    Partition, by_topic, check, first_code, offset, optional_text, partition, text, wire_group, wire_topic,
};
use crate::{Client, ClientError, GroupMembership, Isolation};

/// Which offset of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The log start offset.
    Earliest,
    /// The end: the high watermark, or the last stable offset for read-committed.
    Latest,
    /// The record with the highest timestamp.
    MaxTimestamp,
    /// The first record with this timestamp or a later one.
    Timestamp(Timestamp),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    pub offset: Offset,
    /// The record's, where a record was looked for.
    pub timestamp: Option<Timestamp>,
    /// Of the leader that answered, or of the record; from brokers that tell it.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// An offset that a group has committed: of the next record it will read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub partition: Partition,
    pub offset: Offset,
    pub metadata: Option<String>,
}

impl Admin {
    /// `None` where no record fits.
    pub async fn list_offset(
        &self,
        partition: &Partition,
        at: OffsetAt,
        isolation: Isolation,
    ) -> Result<Option<PartitionOffset>, ClientError> {
        let raw = match at {
            OffsetAt::Earliest => -2,
            OffsetAt::Latest => -1,
            OffsetAt::MaxTimestamp => -3,
            OffsetAt::Timestamp(at) => at.as_millis().max(0),
        };
        list_offset(&self.client, partition, raw, isolation).await
    }

    /// What a group has committed: in the partitions named, or everywhere. Partitions without an offset are left out,
    /// and a group that does not exist has none. Waits for transactions that have offsets of these partitions open.
    pub async fn committed_offsets(
        &self,
        group: &str,
        partitions: Option<&[Partition]>,
    ) -> Result<Vec<CommittedOffset>, ClientError> {
        fetch_committed(&self.client, group, partitions).await
    }

    /// Sets a group's offsets from outside; refused while the group has members.
    pub async fn commit_offsets(&self, group: &str, offsets: &[(Partition, Offset)]) -> Result<(), ClientError> {
        commit(&self.client, &GroupMembership::alone(group), offsets).await
    }

    /// Removes a group's offsets of some partitions; refused for topics that a member subscribes to.
    pub async fn delete_offsets(&self, group: &str, partitions: &[Partition]) -> Result<(), ClientError> {
        let what = format!("delete offsets of group {group}");
        let build = |_| {
            let topics = by_topic(partitions.iter().map(|p| (p.clone(), ()))).into_iter().map(|(topic, partitions)| {
                let one = |(index, ())| OffsetDeleteRequestPartition::default().with_partition_index(index);
                OffsetDeleteRequestTopic::default()
                    .with_name(wire_topic(&topic))
                    .with_partitions(partitions.into_iter().map(one).collect())
            });
            OffsetDeleteRequest::default().with_group_id(wire_group(group)).with_topics(topics.collect())
        };
        let codes = |r: &OffsetDeleteResponse| {
            let partitions = r.topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| p.error_code));
            std::iter::once(r.error_code).chain(partitions).collect::<Vec<_>>()
        };
        let again = |r: &OffsetDeleteResponse| {
            retriable(codes(r).into_iter()).filter(|code| *code != ErrorCode::UnknownTopicOrPartition)
        };
        let target = Target::Coordinator(CoordinatorKind::Group, group);
        let response = self.client.call(&what, target, Repeat::Harmless, build, again).await?;
        match first_code(codes(&response).into_iter(), |_| true) {
            None => Ok(()),
            Some(code) => Err(ClientError::refused(what, code)),
        }
    }
}

pub(crate) async fn commit(
    client: &Client,
    member: &GroupMembership,
    offsets: &[(Partition, Offset)],
) -> Result<(), ClientError> {
    let what = format!("commit offsets of group {}", member.group);
    let build = |_| {
        let topics = by_topic(offsets.iter().cloned()).into_iter().map(|(topic, partitions)| {
            let one = |(index, offset): (i32, Offset)| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(offset.get())
                    .with_committed_metadata(Some(text("")))
            };
            OffsetCommitRequestTopic::default()
                .with_name(wire_topic(&topic))
                .with_partitions(partitions.into_iter().map(one).collect())
        });
        OffsetCommitRequest::default()
            .with_group_id(wire_group(&member.group))
            .with_generation_id_or_member_epoch(member.generation)
            .with_member_id(text(&member.member))
            .with_topics(topics.collect())
    };
    let codes = |r: &OffsetCommitResponse| {
        r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect::<Vec<_>>()
    };
    let again = |r: &OffsetCommitResponse| retriable(codes(r).into_iter());
    let target = Target::Coordinator(CoordinatorKind::Group, &member.group);
    let response = client.call(&what, target, Repeat::Harmless, build, again).await?;
    match first_code(codes(&response).into_iter(), |_| true) {
        None => Ok(()),
        Some(code) => Err(ClientError::refused(what, code)),
    }
}

pub(crate) async fn fetch_committed(
    client: &Client,
    group: &str,
    partitions: Option<&[Partition]>,
) -> Result<Vec<CommittedOffset>, ClientError> {
    let what = format!("committed offsets of group {group}");
    let topics = partitions.map(|partitions| by_topic(partitions.iter().map(|partition| (partition.clone(), ()))));
    let build = |version: i16| {
        let indexes = |partitions: &[(i32, ())]| partitions.iter().map(|(index, ())| *index).collect::<Vec<_>>();
        let request = OffsetFetchRequest::default();
        let request = if version >= 7 { request.with_require_stable(true) } else { request };
        if version >= 8 {
            let topics = topics.as_ref().map(|topics| {
                let one = |(topic, partitions): &(_, Vec<_>)| {
                    OffsetFetchRequestTopics::default()
                        .with_name(wire_topic(topic))
                        .with_partition_indexes(indexes(partitions))
                };
                topics.iter().map(one).collect()
            });
            let one = OffsetFetchRequestGroup::default().with_group_id(wire_group(group)).with_topics(topics);
            request.with_groups(vec![one])
        } else {
            let topics = topics.as_ref().map(|topics| {
                let one = |(topic, partitions): &(_, Vec<_>)| {
                    OffsetFetchRequestTopic::default()
                        .with_name(wire_topic(topic))
                        .with_partition_indexes(indexes(partitions))
                };
                topics.iter().map(one).collect()
            });
            request.with_group_id(wire_group(group)).with_topics(topics)
        }
    };
    // Transactions that have offsets of these partitions open answer UNSTABLE_OFFSET_COMMIT, which is retriable.
    let again = |r: &OffsetFetchResponse| retriable(found(r).into_iter().map(|one| one.code));
    let target = Target::Coordinator(CoordinatorKind::Group, group);
    let response = client.call(&what, target, Repeat::Harmless, build, again).await?;
    let mut committed = Vec::new();
    for one in found(&response) {
        check(&what, one.code, None)?;
        // -1: nothing committed.
        if let (Some(partition), Some(offset)) = (one.partition, offset(one.offset)) {
            committed.push(CommittedOffset { partition, offset, metadata: one.metadata });
        }
    }
    committed.sort_unstable_by(|a, b| a.partition.cmp(&b.partition));
    Ok(committed)
}

/// One line of an answer to OffsetFetch; without a partition where it speaks of the whole group.
struct Found {
    partition: Option<Partition>,
    offset: i64,
    metadata: Option<String>,
    code: i16,
}

/// The lines of an answer, in either of its two forms.
fn found(response: &OffsetFetchResponse) -> Vec<Found> {
    let whole = |code| Found { partition: None, offset: -1, metadata: None, code };
    let mut lines = vec![whole(response.error_code)];
    for topic in &response.topics {
        lines.extend(topic.partitions.iter().map(|p| Found {
            partition: partition(topic.name.as_str(), p.partition_index),
            offset: p.committed_offset,
            metadata: optional_text(p.metadata.as_ref()),
            code: p.error_code,
        }));
    }
    for group in &response.groups {
        lines.push(whole(group.error_code));
        for topic in &group.topics {
            lines.extend(topic.partitions.iter().map(|p| Found {
                partition: partition(topic.name.as_str(), p.partition_index),
                offset: p.committed_offset,
                metadata: optional_text(p.metadata.as_ref()),
                code: p.error_code,
            }));
        }
    }
    lines
}
