//! ElectLeaders, key 43, versions 0 to 2. KIP-183, KIP-460. A partition has one owner, which is the preferred one.
//!
//! Asked about all partitions, the answer is empty: Kafka, too, leaves out those that need no election.

use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::elect_leaders_request::TopicPartitions;
use forebay_wire::kafka::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use forebay_wire::kafka::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::lookup::{self, text};

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: ElectLeadersRequest = call.decode()?;
    let results = request.topic_partitions.iter().flatten().map(|topic| elect(context, topic));
    call.answer(&ElectLeadersResponse::default().with_replica_election_results(results.collect()))
}

fn elect(context: &Context, topic: &TopicPartitions) -> ReplicaElectionResult {
    let row = lookup::row(context, &topic.topic);
    let partitions = topic.partitions.iter().map(|index| {
        let exists = usize::try_from(*index).ok().zip(row.as_ref()).is_some_and(|(at, row)| at < row.partitions.len());
        let code = if exists { ErrorCode::ElectionNotNeeded } else { ErrorCode::UnknownTopicOrPartition };
        PartitionResult::default()
            .with_partition_id(*index)
            .with_error_code(code.code())
            .with_error_message(Some(text(code.name())))
    });
    ReplicaElectionResult::default().with_topic(topic.topic.clone()).with_partition_result(partitions.collect())
}
