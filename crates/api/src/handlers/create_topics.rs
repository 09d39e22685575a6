//! CreateTopics, key 19, versions 2 to 7. KIP-464 (defaults), KIP-525 (configs in the answer), KIP-516 (topic ids).
//!
//! A topic that is answered is open: the next request may produce to it.
//!
//! Differs from Kafka: any replication factor and any brokers in an assignment are accepted, since records are durable
//! without replicas; the answer says 1, as Metadata does.

use std::collections::{BTreeMap, BTreeSet};

use forebay_metadata::Command;
use forebay_metadata::command::{PARTITIONS_PER_TOPIC_MAX, TopicCreated};
use forebay_metadata::config as topic_config;
use forebay_types::{TopicId, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use forebay_wire::kafka::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use forebay_wire::kafka::messages::{CreateTopicsRequest, CreateTopicsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::described;
use crate::errors::Refused;
use crate::handlers::in_order;
use crate::lookup::{Collisions, text};

/// Commands of one request that wait for the metadata at once. They share its write batches, so more would not be much
/// faster; and other requests want their turn.
pub(crate) const SUBMITS_IN_FLIGHT_MAX: usize = 64;

/// The first version whose answer has the topic's configuration.
const CONFIGS_VERSION: i16 = 5;

/// A topic as it is to be.
pub(crate) struct NewTopic {
    pub name: TopicName,
    pub partitions: i32,
    pub config: Vec<(String, String)>,
}

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: CreateTopicsRequest = call.decode()?;
    let version = call.version();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let collisions = Collisions::new(context);
    let collisions = &collisions;
    let create = |topic: &CreatableTopic| {
        let once = times[topic.name.as_str()] == 1;
        let topic = topic.clone();
        async move {
            let made = if once {
                create_one(context, &topic, collisions, request.validate_only).await
            } else {
                Err(Refused::invalid("Duplicate topic name."))
            };
            answer(context, topic, made, version)
        }
    };
    // Of one name that stands twice, there is one answer.
    let mut seen = BTreeSet::new();
    let distinct = request.topics.iter().filter(|topic| seen.insert(topic.name.as_str()));
    let topics = in_order(distinct.map(create).collect(), SUBMITS_IN_FLIGHT_MAX).await;
    if !request.validate_only {
        context.caught_up().await;
    }
    call.answer(&CreateTopicsResponse::default().with_topics(topics))
}

async fn create_one(
    context: &Context,
    topic: &CreatableTopic,
    collisions: &Collisions<'_>,
    validate_only: bool,
) -> Result<TopicCreated, Refused> {
    let new = check(context, topic)?;
    if !validate_only {
        return create(context, new).await;
    }
    match collisions.find(&new.name) {
        Some(other) if *other == new.name => {
            Err(Refused::new(ErrorCode::TopicAlreadyExists, format!("topic {} exists", new.name)))
        }
        Some(other) => {
            let message = format!("topic {} collides with {other}", new.name);
            Err(Refused::new(ErrorCode::InvalidTopicException, message))
        }
        None => Ok(TopicCreated {
            topic: draw_id(context),
            partitions: new.partitions,
            config: new.config.into_iter().collect(),
        }),
    }
}

/// Everything that can be said of a new topic without the metadata.
fn check(context: &Context, topic: &CreatableTopic) -> Result<NewTopic, Refused> {
    let name = TopicName::new(&topic.name)
        .map_err(|error| Refused::new(ErrorCode::InvalidTopicException, error.to_string()))?;
    let partitions = if topic.assignments.is_empty() {
        match topic.num_partitions {
            -1 => context.config.num_partitions(),
            asked => asked,
        }
    } else {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            return Err(Refused::invalid(
                "Both numPartitions (or replicationFactor) and replicasAssignments were set. Both cannot be used at \
                 the same time.",
            ));
        }
        check_assignments(&topic.assignments)?
    };
    if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
        let message = format!("{partitions} partitions: a topic has 1 to {PARTITIONS_PER_TOPIC_MAX}");
        return Err(Refused::new(ErrorCode::InvalidPartitions, message));
    }
    if topic.replication_factor < 1 && topic.replication_factor != -1 {
        let message =
            format!("replication factor {}: it is 1 or more, or -1 for the default", topic.replication_factor);
        return Err(Refused::new(ErrorCode::InvalidReplicationFactor, message));
    }
    let mut config = Vec::with_capacity(topic.configs.len());
    for entry in &topic.configs {
        let Some(value) = &entry.value else {
            let message = format!("topic config {} has no value", entry.name);
            return Err(Refused::new(ErrorCode::InvalidConfig, message));
        };
        config.push((entry.name.to_string(), value.to_string()));
    }
    topic_config::validate(&config.iter().cloned().collect())?;
    Ok(NewTopic { name, partitions, config })
}

/// The number of partitions that an assignment makes.
fn check_assignments(assignments: &[CreatableReplicaAssignment]) -> Result<i32, Refused> {
    let refuse = |message: &str| Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
    let mut indexes: Vec<i32> = assignments.iter().map(|assignment| assignment.partition_index).collect();
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..indexes.len().try_into().unwrap_or(i32::MAX)) {
        return refuse("partitions should be a consecutive 0-based integer sequence");
    }
    for assignment in assignments {
        let brokers: BTreeSet<i32> = assignment.broker_ids.iter().map(|id| id.0).collect();
        if brokers.is_empty() || brokers.len() < assignment.broker_ids.len() {
            return refuse("each partition is assigned to at least one broker, and to none twice");
        }
    }
    Ok(i32::try_from(indexes.len()).unwrap_or(i32::MAX))
}

/// Creates a topic. The caller waits for it to be open.
pub(crate) async fn create(context: &Context, new: NewTopic) -> Result<TopicCreated, Refused> {
    let command = Command::CreateTopic {
        name: new.name,
        id: draw_id(context),
        partitions: new.partitions,
        config: new.config.into_iter().collect(),
        now: context.env.now(),
    };
    Ok(context.metadata.submit(command).await?.into_topic_created())
}

fn draw_id(context: &Context) -> TopicId {
    let mut bits = [0; 16];
    context.env.fill_random(&mut bits);
    TopicId::from_random(bits)
}

fn answer(
    context: &Context,
    topic: CreatableTopic,
    made: Result<TopicCreated, Refused>,
    version: i16,
) -> CreatableTopicResult {
    let response = CreatableTopicResult::default().with_name(topic.name).with_error_message(None);
    match made {
        Err(Refused { code, message }) => response.with_error_code(code.code()).with_error_message(Some(text(message))),
        Ok(made) if version >= CONFIGS_VERSION => response
            .with_topic_id(made.topic.get())
            .with_num_partitions(made.partitions)
            .with_replication_factor(1)
            .with_configs(Some(configs(context, &made.config))),
        Ok(_) => response,
    }
}

fn configs(context: &Context, config: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    let described = described::topic(&context.config, config).into_iter().map(|key| {
        CreatableTopicConfigs::default()
            .with_name(key.name.into())
            .with_value(key.value.map(text))
            .with_read_only(key.read_only)
            .with_config_source(key.source as i8)
    });
    described.collect()
}
