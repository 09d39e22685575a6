//! Metadata, CreateTopics, DeleteTopics, CreatePartitions.

use forebay_types::TopicName;
use forebay_wire::kafka::messages::create_partitions_request::CreatePartitionsTopic;
use forebay_wire::kafka::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use forebay_wire::kafka::messages::delete_topics_request::DeleteTopicState;
use forebay_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use forebay_wire::kafka::messages::metadata_response::MetadataResponseTopic;
use forebay_wire::kafka::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
};
use forebay_wire::kafka::protocol::StrBytes;
use uuid::Uuid;

use crate::script::{Step, check, check_in, code, told};
use crate::world::World;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The id of a live topic, or one that no topic has.
fn id_of(world: &World, topic: &str) -> Uuid {
    let name = TopicName::new(topic).expect("a topic's name");
    world.context().metadata.topics().by_name(&name).map_or(Uuid::from_u128(9), |row| row.id.get())
}

/// Takes a topic's random id out of a message.
fn anonymous(world: &World, message: &str) -> String {
    let topics = world.context().metadata.topics().list();
    topics.iter().fold(message.to_owned(), |shown, row| shown.replace(&row.id.to_string(), "ID"))
}

pub async fn create(world: &World, step: &Step<'_>) -> Result<String, String> {
    let configs = step.configs().into_iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)).filter(|v| v.as_str() != "null"))
    });
    let assignments = step.options.get("assign").map(|all| {
        let assignment = |one: &str| {
            let (index, brokers) = one.split_once(':').expect("INDEX:BROKERS");
            let brokers = brokers.split('+').map(|id| id.parse::<i32>().expect("a broker's number").into()).collect();
            CreatableReplicaAssignment::default()
                .with_partition_index(index.parse().expect("a partition's number"))
                .with_broker_ids(brokers)
        };
        all.split(',').map(assignment).collect::<Vec<_>>()
    });
    let default = -1;
    let topic = CreatableTopic::default()
        .with_name(text(step.word(1)).into())
        .with_num_partitions(step.number("partitions", default))
        .with_replication_factor(step.number("rf", -1))
        .with_assignments(assignments.unwrap_or_default())
        .with_configs(configs.collect());
    let topics = vec![topic; if step.has("twice") { 2 } else { 1 }];
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(1000)
        .with_validate_only(step.has("validate"))
        .with_topics(topics);
    let response = world.call(step.version(7), &request).await?;
    assert_eq!(response.topics.len(), 1);
    let made = &response.topics[0];
    let shown = told(made.error_code, made.error_message.as_deref());
    if made.error_code != 0 || !step.has("show") {
        return Ok(shown);
    }
    let key = step.words.last().expect("a key");
    let config = made.configs.iter().flatten().find(|config| config.name.as_str() == *key);
    let config = config.map_or("-".to_owned(), |config| {
        format!("{} source={}", config.value.as_deref().unwrap_or("null"), config.config_source)
    });
    Ok(format!("{shown} partitions={} rf={} {key}={config}", made.num_partitions, made.replication_factor))
}

pub async fn delete(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(6);
    let names = &step.words[1..];
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(1000);
    if version < 6 {
        request.topic_names = names.iter().map(|name| text(name).into()).collect();
    } else {
        let state = |name: &&str| match name.strip_prefix("id:") {
            Some(name) => DeleteTopicState::default().with_topic_id(id_of(world, name)).with_name(None),
            None if *name == "none" => DeleteTopicState::default().with_name(None),
            None => DeleteTopicState::default().with_name(Some(text(name).into())),
        };
        request.topics = names.iter().map(state).collect();
    }
    let response = world.call(version, &request).await?;
    let shown = response.responses.iter().map(|one| {
        let message = one.error_message.as_deref().map(|message| anonymous(world, message));
        told(one.error_code, message.as_deref())
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

pub async fn grow(world: &World, step: &Step<'_>) -> Result<String, String> {
    let topic = CreatePartitionsTopic::default()
        .with_name(text(step.word(1)).into())
        .with_count(step.word(2).parse().expect("a count"))
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_timeout_ms(1000)
        .with_validate_only(step.has("validate"))
        .with_topics(vec![topic; if step.has("twice") { 2 } else { 1 }]);
    let response = world.call(step.version(3), &request).await?;
    Ok(told(response.results[0].error_code, response.results[0].error_message.as_deref()))
}

pub async fn metadata(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(12);
    let flags = ["noauto", "all", "operations"];
    let topics: Vec<_> = step.words[1..].iter().filter(|word| !flags.contains(word)).collect();
    let topics = topics.into_iter().map(|name| match name.strip_prefix("id:") {
        Some(name) => MetadataRequestTopic::default().with_topic_id(id_of(world, name)).with_name(None),
        None => MetadataRequestTopic::default().with_name(Some(text(name).into())),
    });
    let mut request = MetadataRequest::default()
        .with_topics(if step.has("all") { None } else { Some(topics.collect()) })
        .with_include_topic_authorized_operations(step.has("operations"));
    if version >= 4 {
        request.allow_auto_topic_creation = !step.has("noauto");
    }
    let response = world.call(version, &request).await?;
    assert_eq!(response.brokers.len(), 1);
    if version >= 2 {
        assert_eq!(response.cluster_id.as_deref(), Some(world.context().cluster.as_str()));
    }
    let shown: Vec<_> = response.topics.iter().map(|topic| show(topic, version)).collect();
    Ok(if shown.is_empty() { "none".to_owned() } else { shown.join("; ") })
}

fn show(topic: &MetadataResponseTopic, version: i16) -> String {
    let name = topic.name.as_ref().map_or("-", |name| name.as_str());
    if topic.error_code != 0 {
        return format!("{name}: {}", code(topic.error_code));
    }
    assert!(version < 10 || !topic.topic_id.is_nil(), "a topic has an id");
    let partitions = topic.partitions.iter().map(|partition| match partition.error_code {
        0 => {
            assert_eq!(partition.isr_nodes, partition.replica_nodes);
            format!("{} leader={} epoch={}", partition.partition_index, partition.leader_id.0, partition.leader_epoch)
        }
        error => format!("{} {}", partition.partition_index, code(error)),
    });
    let operations = match topic.topic_authorized_operations {
        i32::MIN => String::new(),
        bits => format!(" operations={bits}"),
    };
    format!("{name}: {}{operations}", partitions.collect::<Vec<_>>().join(", "))
}

/// A topic is created as it is asked for, and open when that is answered; what cannot be is refused in Kafka's words
/// and codes, whether or not it is only to be checked (33, 35).
#[tokio::test(start_paused = true)]
async fn topics_are_created() {
    check(
        "create a partitions=2 rf=3 show retention.ms -> NONE partitions=2 rf=1 retention.ms=604800000 source=5
         create b retention.ms=5 show retention.ms -> NONE partitions=1 rf=1 retention.ms=5 source=1
         create c assign=1:1+2,0:9 show retention.ms -> NONE partitions=2 rf=1 retention.ms=604800000 source=5
         create d v=2 -> NONE
         produce d/0 x -> base=0
         create a -> TOPIC_ALREADY_EXISTS: topic a exists
         create a validate -> TOPIC_ALREADY_EXISTS: topic a exists
         create x.y -> NONE
         create x_y -> INVALID_TOPIC_EXCEPTION: topic x_y collides with x.y: '.' and '_' count as the same in names
         create x_y validate -> INVALID_TOPIC_EXCEPTION: topic x_y collides with x.y
         create a/b -> INVALID_TOPIC_EXCEPTION: the topic name \"a/b\" has a character other than ASCII letters, digits, '.', '_' and '-'
         create e partitions=0 -> INVALID_PARTITIONS: 0 partitions: a topic has 1 to 4000
         create e partitions=4001 -> INVALID_PARTITIONS: 4001 partitions: a topic has 1 to 4000
         create e rf=0 -> INVALID_REPLICATION_FACTOR: replication factor 0: it is 1 or more, or -1 for the default
         create e assign=0:1,2:1 -> INVALID_REPLICA_ASSIGNMENT: partitions should be a consecutive 0-based integer sequence
         create e assign=0:1+1 -> INVALID_REPLICA_ASSIGNMENT: each partition is assigned to at least one broker, and to none twice
         create e retention.sm=5 -> INVALID_CONFIG: unknown topic config retention.sm; did you mean retention.ms?
         create e retention.ms=soon validate -> INVALID_CONFIG: invalid value \"soon\" for topic config retention.ms: it must be a whole number of -1 or more
         create e retention.ms=null -> INVALID_CONFIG: topic config retention.ms has no value
         create e twice -> INVALID_REQUEST: Duplicate topic name.
         create e validate -> NONE
         metadata e noauto -> e: UNKNOWN_TOPIC_OR_PARTITION
         create e v=8 -> closed: CreateTopics is served in versions 2 to 7, not in 8",
    )
    .await;
}

/// What a client asks about is created where it may be, and told at once; null and empty mean what they do in each
/// version; ids are for looking up from version 12 on (33).
#[tokio::test(start_paused = true)]
async fn metadata_creates_and_tells() {
    check(
        "metadata a noauto -> a: UNKNOWN_TOPIC_OR_PARTITION
         metadata all -> none
         metadata a -> a: 0 leader=1 epoch=0
         metadata a a v=1 -> a: 0 leader=1 epoch=-1
         metadata a operations -> a: 0 leader=1 epoch=0 operations=3576
         metadata b/c -> b/c: INVALID_TOPIC_EXCEPTION
         create x.y partitions=2 -> NONE
         # a name that collides cannot be created, which a client that asks does not fail on
         metadata x_y -> x_y: UNKNOWN_TOPIC_OR_PARTITION
         metadata x_y noauto -> x_y: UNKNOWN_TOPIC_OR_PARTITION
         # all of them
         metadata v=0 -> a: 0 leader=1 epoch=-1; x.y: 0 leader=1 epoch=-1, 1 leader=1 epoch=-1
         metadata all v=1 -> a: 0 leader=1 epoch=-1; x.y: 0 leader=1 epoch=-1, 1 leader=1 epoch=-1
         metadata v=1 -> none
         # by id
         metadata id:a -> a: 0 leader=1 epoch=0
         metadata id:nowhere -> -: UNKNOWN_TOPIC_ID
         metadata __consumer_offsets -> __consumer_offsets: UNKNOWN_TOPIC_OR_PARTITION
         restart -> started
         metadata a -> a: 0 leader=1 epoch=1
         metadata a v=13 -> closed: Metadata is served in versions 0 to 12, not in 13",
    )
    .await;
}

/// Where topics are not to come into being by being asked about, they do not.
#[tokio::test(start_paused = true)]
async fn metadata_creates_only_where_allowed() {
    let mut world = World::with(&[("auto.create.topics.enable", "false"), ("num.partitions", "3")]).await;
    check_in(
        &mut world,
        "metadata a -> a: UNKNOWN_TOPIC_OR_PARTITION
         create a show retention.ms -> NONE partitions=3 rf=1 retention.ms=604800000 source=5",
    )
    .await;
}

/// A deleted topic is gone at once, by name and by id, its name is free, and what comes under it is another topic
/// (32).
#[tokio::test(start_paused = true)]
async fn topics_are_deleted() {
    check(
        "create a -> NONE
         produce a/0 x -> base=0
         delete a -> NONE
         metadata a noauto -> a: UNKNOWN_TOPIC_OR_PARTITION
         produce a/0 x -> UNKNOWN_TOPIC_OR_PARTITION
         fetch a/0 0 -> UNKNOWN_TOPIC_OR_PARTITION
         create a -> NONE
         fetch a/0 0 -> hw=0 lso=0 start=0
         create b -> NONE
         delete id:a b -> NONE, NONE
         delete a b v=3 -> UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_OR_PARTITION
         delete id:a -> UNKNOWN_TOPIC_ID: This server does not host this topic ID.
         delete none -> INVALID_REQUEST: Neither topic name nor id were specified.
         create c -> NONE
         delete c c -> INVALID_REQUEST: Duplicate topic., INVALID_REQUEST: Duplicate topic.
         delete c -> NONE",
    )
    .await;
}

/// A topic grows and never shrinks; its new partitions are open when that is answered.
#[tokio::test(start_paused = true)]
async fn topics_grow() {
    check(
        "create a -> NONE
         grow a 3 validate -> NONE
         produce a/2 x -> UNKNOWN_TOPIC_OR_PARTITION
         grow a 3 -> NONE
         produce a/2 x -> base=0
         grow a 3 -> INVALID_PARTITIONS: The topic a currently has 3 partition(s); 3 would not be an increase within the limit of 4000.
         grow a 5 twice -> INVALID_REQUEST: Duplicate topic name.
         grow nowhere 3 -> UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition.",
    )
    .await;
}
