//! Metadata, key 3, versions 0 to 12. KIP-430 (authorized operations), KIP-516 (topic ids), KIP-320 (leader epochs).
//!
//! Differs from Kafka: a topic that is created because a client asked about it is in the answer at once, where Kafka
//! answers LEADER_NOT_AVAILABLE first and has it the next time. Every partition has one replica, its owner: durability
//! is not a matter of replicas here. Internal topics are not created by asking about them.

use std::collections::BTreeSet;

use forebay_metadata::service::TopicRow;
use forebay_types::{PartitionIndex, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use forebay_wire::kafka::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use forebay_wire::kafka::messages::{MetadataRequest, MetadataResponse};
use forebay_wire::kafka::protocol::StrBytes;
use uuid::Uuid;

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors::Refused;
use crate::handlers::create_topics::{self, NewTopic, SUBMITS_IN_FLIGHT_MAX};
use crate::handlers::in_order;
use crate::lookup::{self, text};

/// From here on topics may be asked for by id, and a topic may have no name in the answer.
const TOPIC_ID_VERSION: i16 = 12;

/// Everything that may be done to a topic, as bits by Kafka's numbers: there is no authorizer.
/// READ 3, WRITE 4, CREATE 5, DELETE 6, ALTER 7, DESCRIBE 8, DESCRIBE_CONFIGS 10, ALTER_CONFIGS 11.
const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// CREATE 5, ALTER 7, DESCRIBE 8, CLUSTER_ACTION 9, DESCRIBE_CONFIGS 10, ALTER_CONFIGS 11, IDEMPOTENT_WRITE 12.
pub(super) const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// What is said of operations that were not asked about.
pub(super) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// One topic of the request.
enum Asked {
    Name(StrBytes),
    Id(Uuid),
    /// Neither, or an id in a version that has them in answers only.
    Invalid(Option<StrBytes>),
}

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: MetadataRequest = call.decode()?;
    let version = call.version();
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { OPERATIONS_NOT_ASKED };
    // Version 0 has no null: there, none named means all.
    let topics = match &request.topics {
        Some(topics) if version > 0 || !topics.is_empty() => {
            let asked = distinct(topics, version);
            if request.allow_auto_topic_creation && context.config.auto_create_topics() {
                create_missing(context, &asked).await;
            }
            asked.into_iter().map(|asked| answer(context, asked, operations)).collect()
        }
        _ => context.metadata.topics().list().iter().map(|row| known(context, row, operations)).collect(),
    };
    let mut response = MetadataResponse::default()
        .with_brokers(vec![
            MetadataResponseBroker::default()
                .with_node_id(context.broker().get().into())
                .with_host(text(&*context.advertised.host))
                .with_port(i32::from(context.advertised.port))
                .with_rack(None),
        ])
        .with_cluster_id(Some(text(context.cluster.as_str())))
        .with_controller_id(context.broker().get().into())
        .with_topics(topics);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    call.answer(&response)
}

/// The topics asked about, each once, in the order of the request.
fn distinct(topics: &[MetadataRequestTopic], version: i16) -> Vec<Asked> {
    let mut seen = BTreeSet::new();
    let mut asked = Vec::with_capacity(topics.len());
    for topic in topics {
        let name = topic.name.as_ref().map(|name| name.0.clone());
        if !seen.insert((name.as_ref().map(|name| name.as_str().to_owned()), topic.topic_id)) {
            continue;
        }
        asked.push(match name {
            name if version < TOPIC_ID_VERSION && !topic.topic_id.is_nil() => Asked::Invalid(name),
            _ if !topic.topic_id.is_nil() => Asked::Id(topic.topic_id),
            Some(name) => Asked::Name(name),
            None => Asked::Invalid(None),
        });
    }
    asked
}

/// Creates the topics that are asked about and are not there. One that cannot be created is unknown to the answer.
async fn create_missing(context: &Context, asked: &[Asked]) {
    let topics = context.metadata.topics();
    let missing = asked.iter().filter_map(|asked| match asked {
        Asked::Name(name) => {
            TopicName::new(name).ok().filter(|name| !name.is_internal() && topics.by_name(name).is_none())
        }
        Asked::Id(_) | Asked::Invalid(_) => None,
    });
    let create = |name: TopicName| async move {
        let partitions = context.config.num_partitions();
        let created = create_topics::create(context, NewTopic { name: name.clone(), partitions, config: Vec::new() });
        match created.await {
            Ok(_) => tracing::info!(topic = %name, partitions, "a topic was created because a client asked about it"),
            Err(Refused { code: ErrorCode::TopicAlreadyExists, .. }) => {}
            Err(refused) => tracing::warn!(topic = %name, error = refused.message, "a topic could not be created"),
        }
    };
    let missing: Vec<TopicName> = missing.collect();
    if missing.is_empty() {
        return;
    }
    in_order(missing.into_iter().map(create).collect(), SUBMITS_IN_FLIGHT_MAX).await;
    context.caught_up().await;
}

fn answer(context: &Context, asked: Asked, operations: i32) -> MetadataResponseTopic {
    let failed = |code: ErrorCode| MetadataResponseTopic::default().with_error_code(code.code());
    match asked {
        Asked::Id(id) => match lookup::row_by_id(context, id) {
            Some(row) => known(context, &row, operations),
            None => failed(ErrorCode::UnknownTopicId).with_topic_id(id).with_name(None),
        },
        Asked::Invalid(name) => failed(ErrorCode::InvalidRequest).with_name(Some(name.unwrap_or_default().into())),
        Asked::Name(name) => match TopicName::new(&name) {
            Err(_) => failed(ErrorCode::InvalidTopicException).with_name(Some(name.into())),
            Ok(valid) => match context.metadata.topics().by_name(&valid) {
                Some(row) => known(context, &row, operations),
                // Also where the name collides with a topic's and so cannot be one: INVALID_TOPIC_EXCEPTION would be
                // fatal to a client that only asked.
                None => failed(ErrorCode::UnknownTopicOrPartition).with_name(Some(name.into())),
            },
        },
    }
}

fn known(context: &Context, row: &TopicRow, operations: i32) -> MetadataResponseTopic {
    let open = context.partitions.by_id(row.id).ok();
    let broker = || vec![context.broker().get().into()];
    let partition = |index: PartitionIndex| {
        let response =
            MetadataResponsePartition::default().with_partition_index(index.get()).with_replica_nodes(broker());
        match open.as_ref().and_then(|open| open.partition(index).ok()) {
            Some(partition) => response
                .with_leader_id(context.broker().get().into())
                .with_leader_epoch(partition.leader_epoch().get())
                .with_isr_nodes(broker()),
            None => response
                .with_error_code(ErrorCode::LeaderNotAvailable.code())
                .with_leader_id((-1).into())
                .with_offline_replicas(broker()),
        }
    };
    MetadataResponseTopic::default()
        .with_name(Some(text(row.name.as_str()).into()))
        .with_topic_id(row.id.get())
        .with_is_internal(row.internal)
        .with_topic_authorized_operations(operations)
        .with_partitions(row.partitions.iter().map(|row| partition(row.id.partition)).collect())
}
