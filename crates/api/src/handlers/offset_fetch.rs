//! OffsetFetch, key 9, versions 1 to 9. KIP-447 (stable offsets only), KIP-709 (many groups at once), KIP-848 (v9).
//!
//! A group or partition without a committed offset is answered with -1 and no error (semantic 31).
//!
//! Differs from Kafka: offsets that were committed for an earlier topic of the same name are not given, and those of a
//! topic in the trash neither, until it comes back.

use std::collections::BTreeSet;

use forebay_coordinator::machine::group::{
    Fetch, FetchTopic, FetchedPartition, FetchedTopic, GroupError, Position, Reply as GroupReply, Request,
};
use forebay_types::TopicId;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use forebay_wire::kafka::messages::{OffsetFetchRequest, OffsetFetchResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::handlers::in_order;
use crate::lookup::{self, text};

/// The first version that asks for many groups.
const BATCH_VERSION: i16 = 8;

/// The first version with a code for the whole answer.
const GROUP_CODE_VERSION: i16 = 2;

/// Groups of one request that are asked at once.
const GROUPS_IN_FLIGHT_MAX: usize = 16;

/// What is asked of one group: topics by name, or all.
struct Asked {
    group: String,
    topics: Option<Vec<(String, Vec<i32>)>>,
}

/// What is answered for one topic.
struct Answered {
    name: String,
    partitions: Vec<(i32, Result<Option<Position>, GroupError>)>,
}

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: OffsetFetchRequest = call.decode()?;
    let stable = request.require_stable;
    if call.version() < BATCH_VERSION {
        let topics = request.topics.as_ref();
        let topics = topics.map(|topics| distinct(topics.iter().map(|it| (&**it.name, &it.partition_indexes[..]))));
        let asked = Asked { group: request.group_id.as_str().to_owned(), topics };
        let fetched = fetch(context, &asked, stable).await;
        return call.answer(&single(asked, fetched, call.version()));
    }
    let mut seen = BTreeSet::new();
    let groups = request.groups.iter().filter(|group| seen.insert(group.group_id.as_str())).map(|group| {
        let topics = group.topics.as_ref();
        let topics = topics.map(|topics| distinct(topics.iter().map(|it| (&**it.name, &it.partition_indexes[..]))));
        Asked { group: group.group_id.as_str().to_owned(), topics }
    });
    let one = |asked: Asked| async move {
        let fetched = fetch(context, &asked, stable).await;
        let response = OffsetFetchResponseGroup::default().with_group_id(text(asked.group).into());
        match fetched {
            Ok(topics) => response.with_topics(topics.into_iter().map(topic_of_many).collect()),
            Err(code) => response.with_error_code(code.code()),
        }
    };
    let groups = in_order(groups.map(one).collect(), GROUPS_IN_FLIGHT_MAX).await;
    call.answer(&OffsetFetchResponse::default().with_groups(groups))
}

/// Topics and their partitions, each once: an offset can have much longer metadata than its question.
fn distinct<'a>(topics: impl Iterator<Item = (&'a str, &'a [i32])>) -> Vec<(String, Vec<i32>)> {
    let mut seen = BTreeSet::new();
    let once = |(name, indexes): (&'a str, &[i32])| {
        (name.to_owned(), indexes.iter().copied().filter(|index| seen.insert((name, *index))).collect())
    };
    topics.map(once).collect()
}

async fn fetch(context: &Context, asked: &Asked, require_stable: bool) -> Result<Vec<Answered>, ErrorCode> {
    // What no live topic is called has no offset, whatever the group may still hold.
    let topics = asked.topics.as_ref().map(|topics| {
        let found = |(name, partitions): &(String, Vec<i32>)| {
            let (row, partitions) = (lookup::row(context, name)?, partitions.clone());
            Some(FetchTopic { topic: row.name.clone(), topic_id: Some(row.id), partitions })
        };
        topics.iter().map(found).collect::<Vec<_>>()
    });
    let known = topics.as_ref().map(|topics| topics.iter().flatten().cloned().collect());
    let fetch = Fetch { group: asked.group.clone(), topics: known, require_stable };
    let fetched = match context.coordinators.group(Request::Fetch(fetch)).await {
        Ok(GroupReply::Fetch(fetched)) => fetched,
        Ok(other) => unreachable!("a fetch of offsets is answered as one, not with {other:?}"),
        Err(error) => return Err(errors::coordinator::coordinator(error)),
    };
    let (Some(asked), Some(found)) = (&asked.topics, topics) else {
        return Ok(fetched.into_iter().filter_map(|topic| still_there(context, topic)).collect());
    };
    let mut fetched = fetched.into_iter();
    let answered = asked.iter().zip(found).map(|((name, partitions), found)| match found {
        Some(_) => answered(fetched.next().expect("the coordinator answers for each topic")),
        None => {
            Answered { name: name.clone(), partitions: partitions.iter().map(|index| (*index, Ok(None))).collect() }
        }
    });
    Ok(answered.collect())
}

fn answered(topic: FetchedTopic) -> Answered {
    let partition = |FetchedPartition { index, position }| (index, position);
    Answered { name: topic.topic.to_string(), partitions: topic.partitions.into_iter().map(partition).collect() }
}

/// A topic of all that a group has committed, without what was committed for another topic of that name.
fn still_there(context: &Context, topic: FetchedTopic) -> Option<Answered> {
    let id: TopicId = lookup::row(context, topic.topic.as_str())?.id;
    let mut answered = answered(topic);
    let is_current = |position: &Option<Position>| {
        position.as_ref().is_some_and(|position| position.topic_id.is_none_or(|committed_for| committed_for == id))
    };
    answered.partitions.retain(|(_, position)| position.as_ref().map_or(true, is_current));
    Some(answered).filter(|answered| !answered.partitions.is_empty())
}

/// The answer about one group, in the form that knows only one.
fn single(asked: Asked, fetched: Result<Vec<Answered>, ErrorCode>, version: i16) -> OffsetFetchResponse {
    match fetched {
        Ok(topics) => OffsetFetchResponse::default().with_topics(topics.into_iter().map(topic_of_one).collect()),
        Err(code) if version < GROUP_CODE_VERSION => {
            let topics = asked.topics.unwrap_or_default().into_iter().map(|(name, partitions)| {
                let refused = |index| nothing_in(index).with_error_code(code.code());
                OffsetFetchResponseTopic::default()
                    .with_name(text(name).into())
                    .with_partitions(partitions.into_iter().map(refused).collect())
            });
            OffsetFetchResponse::default().with_topics(topics.collect())
        }
        Err(code) => OffsetFetchResponse::default().with_error_code(code.code()),
    }
}

fn nothing_in(index: i32) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(-1)
        .with_committed_leader_epoch(-1)
        .with_metadata(Some(text("")))
}

fn topic_of_one(topic: Answered) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|(index, position)| match position {
        Ok(None) => nothing_in(index),
        Ok(Some(position)) => nothing_in(index)
            .with_committed_offset(position.offset)
            .with_committed_leader_epoch(position.leader_epoch)
            .with_metadata(Some(text(position.metadata))),
        Err(error) => nothing_in(index).with_error_code(errors::coordinator::group(error).code()),
    });
    OffsetFetchResponseTopic::default().with_name(text(topic.name).into()).with_partitions(partitions.collect())
}

/// The same in the form of newer versions, which is a type of its own.
fn topic_of_many(topic: Answered) -> OffsetFetchResponseTopics {
    let OffsetFetchResponseTopic { name, partitions, .. } = topic_of_one(topic);
    let partitions = partitions.into_iter().map(|partition| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_metadata(partition.metadata)
            .with_error_code(partition.error_code)
    });
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
}
