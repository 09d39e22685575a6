//! OffsetDelete, key 47, version 0. KIP-496.
//!
//! Offsets of a topic that is gone cannot be deleted: they go with it.

use forebay_coordinator::machine::group::{DeleteOffsets, Reply as GroupReply, Request};
use forebay_types::TopicName;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use forebay_wire::kafka::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: OffsetDeleteRequest = call.decode()?;
    let exists = |name: &str| lookup::row(context, name).map(|row| row.name.clone());
    let known: Vec<Option<TopicName>> = request.topics.iter().map(|topic| exists(&topic.name)).collect();
    let delete = DeleteOffsets {
        group: request.group_id.as_str().to_owned(),
        topics: request
            .topics
            .iter()
            .zip(&known)
            .filter_map(|(topic, name)| {
                Some((name.clone()?, topic.partitions.iter().map(|p| p.partition_index).collect()))
            })
            .collect(),
    };
    let results = match context.coordinators.group(Request::DeleteOffsets(delete)).await {
        Ok(GroupReply::DeleteOffsets(Ok(results))) => results,
        Ok(GroupReply::DeleteOffsets(Err(error))) => return refuse(&call, errors::coordinator::group(error)),
        Ok(other) => unreachable!("a deletion of offsets is answered as one, not with {other:?}"),
        Err(error) => return refuse(&call, errors::coordinator::coordinator(error)),
    };
    let mut results = results.into_iter();
    let topics = request.topics.iter().zip(&known).map(|(topic, name)| {
        let codes: Vec<(i32, ErrorCode)> = match name {
            Some(_) => {
                let deleted = results.next().expect("the coordinator answers for each topic");
                let code = |(index, result): (i32, Result<(), _>)| {
                    (index, result.map_or_else(errors::coordinator::group, |()| ErrorCode::None))
                };
                deleted.partitions.into_iter().map(code).collect()
            }
            None => topic.partitions.iter().map(|p| (p.partition_index, ErrorCode::UnknownTopicOrPartition)).collect(),
        };
        let partitions = codes.into_iter().map(|(index, code)| {
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code.code())
        });
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    call.answer(&OffsetDeleteResponse::default().with_topics(topics.collect()))
}

fn refuse(call: &Call<'_>, code: ErrorCode) -> Result<Reply, CallError> {
    call.answer(&OffsetDeleteResponse::default().with_error_code(code.code()))
}
