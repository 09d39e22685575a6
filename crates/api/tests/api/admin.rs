//! Configurations, the cluster, log directories, and the small answers that Kafka's tools want.

use std::fmt::Write;

use forebay_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use forebay_wire::kafka::messages::describe_log_dirs_request::DescribableLogDirTopic;
use forebay_wire::kafka::messages::elect_leaders_request::TopicPartitions;
use forebay_wire::kafka::messages::{
    AlterConfigsRequest, ApiVersionsRequest, DescribeAclsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest,
    alter_configs_request, incremental_alter_configs_request,
};
use forebay_wire::kafka::protocol::StrBytes;

use crate::script::{Step, check, check_in, code, told};
use crate::world::World;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The resource's type, and its name: the empty one is written `""`.
fn resource(step: &Step<'_>) -> (i8, StrBytes) {
    let kind = match step.word(1) {
        "topic" => 2,
        "broker" => 4,
        "logger" => 8,
        other => other.parse().expect("a type's number"),
    };
    (kind, text(step.word(2).trim_matches('"')))
}

pub async fn describe(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (kind, name) = resource(step);
    let keys = step.words.get(3).filter(|word| word.contains('.') || **word == "root");
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name)
        .with_configuration_keys(keys.map(|keys| keys.split(',').map(text).collect()));
    let version = step.version(4);
    let mut request =
        DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(step.has("synonyms"));
    if version >= 3 {
        request.include_documentation = step.has("docs");
    }
    let response = world.call(version, &request).await?;
    let result = &response.results[0];
    if result.error_code != 0 {
        return Ok(told(result.error_code, result.error_message.as_deref()));
    }
    if keys.is_none() {
        return Ok(format!("{} keys", result.configs.len()));
    }
    let shown = result.configs.iter().map(|config| {
        let value = config.value.as_deref().unwrap_or("null");
        let synonyms: Vec<_> = config
            .synonyms
            .iter()
            .map(|synonym| {
                format!("{}:{}={}", synonym.source, synonym.name.as_str(), synonym.value.as_deref().unwrap_or("null"))
            })
            .collect();
        let mut shown = format!("{}={value} source={}", config.name.as_str(), config.config_source);
        if version >= 3 {
            write!(shown, " type={}", config.config_type).expect("a string takes all");
        }
        if config.read_only {
            shown.push_str(" read-only");
        }
        if step.has("synonyms") {
            write!(shown, " [{}]", synonyms.join(" ")).expect("a string takes all");
        }
        assert_eq!(config.documentation.as_deref().is_some_and(|doc| !doc.is_empty()), step.has("docs"));
        shown
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

pub async fn alter(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (kind, name) = resource(step);
    let configs = step.configs().into_iter().map(|(name, value)| {
        alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)).filter(|value| value.as_str() != "null"))
    });
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name)
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_validate_only(step.has("validate")).with_resources(vec![
        resource;
        if step.has("twice") {
            2
        } else {
            1
        }
    ]);
    let response = world.call(step.version(2), &request).await?;
    Ok(told(response.responses[0].error_code, response.responses[0].error_message.as_deref()))
}

/// Options are `key=set:value`, `key=delete:`, `key=append:item` or `key=subtract:item`.
pub async fn edit(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (kind, name) = resource(step);
    let configs = step.configs().into_iter().map(|(name, change)| {
        let (operation, value) = change.split_once(':').expect("OPERATION:VALUE");
        let operations = ["set", "delete", "append", "subtract"];
        let number = operations.iter().position(|known| *known == operation).unwrap_or(9);
        incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(i8::try_from(number).expect("few operations"))
            .with_value(Some(text(value)).filter(|value| !value.is_empty()))
    });
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name)
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default()
        .with_validate_only(step.has("validate"))
        .with_resources(vec![resource; if step.has("twice") { 2 } else { 1 }]);
    let response = world.call(step.version(1), &request).await?;
    Ok(told(response.responses[0].error_code, response.responses[0].error_message.as_deref()))
}

pub async fn log_dirs(world: &World, step: &Step<'_>) -> Result<String, String> {
    let topics = step
        .words
        .get(1)
        .map(|name| vec![DescribableLogDirTopic::default().with_topic(text(name).into()).with_partitions(vec![0, 7])]);
    let response = world.call(step.version(4), &DescribeLogDirsRequest::default().with_topics(topics)).await?;
    let dir = &response.results[0];
    let topics = dir.topics.iter().map(|topic| {
        let sizes: Vec<_> = topic
            .partitions
            .iter()
            .map(|partition| format!("{}={}", partition.partition_index, partition.partition_size))
            .collect();
        format!(" {}: {}", topic.name.as_str(), sizes.join(" "))
    });
    Ok(format!("{}{}", dir.log_dir.as_str(), topics.collect::<String>()))
}

pub async fn elect(world: &World, step: &Step<'_>) -> Result<String, String> {
    let topics = step.words.get(1).map(|_| {
        let (topic, index) = step.partition();
        vec![TopicPartitions::default().with_topic(text(topic).into()).with_partitions(vec![index])]
    });
    let response = world.call(step.version(2), &ElectLeadersRequest::default().with_topic_partitions(topics)).await?;
    let results = response.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
    Ok(format!("{:?}", results.map(|result| code(result.error_code)).collect::<Vec<_>>()))
}

pub async fn cluster(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(1);
    let mut request =
        DescribeClusterRequest::default().with_include_cluster_authorized_operations(step.has("operations"));
    if version >= 1 {
        request.endpoint_type = step.number("type", 1);
    }
    let response = world.call(version, &request).await?;
    if response.error_code != 0 {
        return Ok(told(response.error_code, response.error_message.as_deref()));
    }
    assert_eq!(response.cluster_id.as_str(), world.context().cluster.as_str());
    let brokers = response
        .brokers
        .iter()
        .map(|broker| format!("{}={}:{}", broker.broker_id.0, broker.host.as_str(), broker.port));
    let operations = match response.cluster_authorized_operations {
        i32::MIN => String::new(),
        bits => format!(" operations={bits}"),
    };
    Ok(format!("controller={} {}{operations}", response.controller_id.0, brokers.collect::<Vec<_>>().join(" ")))
}

pub async fn acls(world: &World, step: &Step<'_>) -> Result<String, String> {
    let request = DescribeAclsRequest::default().with_resource_type_filter(1).with_pattern_type_filter(3);
    let response = world.call(step.version(3), &request).await?;
    Ok(told(response.error_code, response.error_message.as_deref()))
}

pub async fn reassignments(world: &World, step: &Step<'_>) -> Result<String, String> {
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    let response = world.call(step.version(0), &request).await?;
    Ok(format!("{} {}", code(response.error_code), response.topics.len()))
}

/// Every key of a topic is described, with its source and what it would be else; changes show at once and outlive the
/// broker (34).
#[tokio::test(start_paused = true)]
async fn topics_are_configured() {
    let mut world = World::with(&[("log.retention.hours", "1")]).await;
    check_in(
        &mut world,
        "create a cleanup.policy=compact -> NONE
         describe topic a -> 37 keys
         describe topic a cleanup.policy,retention.ms -> cleanup.policy=compact source=1 type=7, retention.ms=3600000 source=4 type=5
         describe topic a cleanup.policy synonyms docs -> cleanup.policy=compact source=1 type=7 [1:cleanup.policy=compact 5:log.cleanup.policy=delete]
         describe topic a cleanup.policy v=1 -> cleanup.policy=compact source=1
         describe topic nowhere -> UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition.
         describe topic a/b -> INVALID_TOPIC_EXCEPTION: the topic name \"a/b\" has a character other than ASCII letters, digits, '.', '_' and '-'
         # one key at a time
         edit topic a cleanup.policy=append:delete retention.ms=set:5 -> NONE
         describe topic a cleanup.policy,retention.ms -> cleanup.policy=compact,delete source=1 type=7, retention.ms=5 source=1 type=5
         edit topic a retention.ms=delete: cleanup.policy=subtract:compact -> NONE
         describe topic a cleanup.policy,retention.ms -> cleanup.policy=delete source=1 type=7, retention.ms=3600000 source=4 type=5
         edit topic a retention.ms=append:5 -> INVALID_CONFIG: topic config retention.ms is not a list: append and subtract do not apply
         edit topic a retention.ms=set: -> INVALID_REQUEST: Null value not supported for : retention.ms
         edit topic a retention.ms=double:2 -> INVALID_REQUEST: Unknown operation type 9 for config retention.ms
         edit topic a retention.sm=set:5 -> INVALID_CONFIG: unknown topic config retention.sm; did you mean retention.ms?
         edit topic a retention.ms=set:7 validate -> NONE
         edit topic a retention.ms=set:7 twice -> INVALID_REQUEST: Each resource must appear at most once.
         edit topic nowhere retention.ms=set:7 -> UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition.
         # all at once
         alter topic a max.message.bytes=80 -> NONE
         describe topic a cleanup.policy,max.message.bytes -> cleanup.policy=delete source=5 type=7, max.message.bytes=80 source=1 type=3
         produce a/0 0123456789012345 -> MESSAGE_TOO_LARGE
         alter topic a max.message.bytes=many -> INVALID_CONFIG: invalid value \"many\" for topic config max.message.bytes: it must be a whole number from 0 to 2147483647
         alter topic a max.message.bytes=null -> INVALID_REQUEST: Null value not supported for : max.message.bytes
         alter topic a validate -> NONE
         alter topic a twice -> INVALID_REQUEST: Each resource must appear at most once.
         restart -> started
         describe topic a max.message.bytes -> max.message.bytes=80 source=1 type=3",
    )
    .await;
}

/// Keys that went with Kafka 4.0 are what they are in 3.9: taken, told with type, default and source, and of effect where
/// they have one there.
#[tokio::test(start_paused = true)]
async fn deprecated_keys_are_kept() {
    const KEYS: &str = "message.downconversion.enable,message.format.version,message.timestamp.difference.max.ms";
    let mut world = World::with(&[("log.message.format.version", "2.8")]).await;
    let script = format!(
        "create a -> NONE
         describe topic a {KEYS} synonyms docs -> message.downconversion.enable=true source=5 type=1 [5:log.message.downconversion.enable=true], message.format.version=2.8 source=4 type=2 [4:log.message.format.version=2.8 5:log.message.format.version=3.0-IV1], message.timestamp.difference.max.ms=9223372036854775807 source=5 type=5 [5:log.message.timestamp.difference.max.ms=9223372036854775807]
         describe broker 1 log.message.format.version -> log.message.format.version=2.8 source=4 type=2 read-only
         produce a/0 x time=5 -> base=0
         edit topic a message.format.version=set:0.10.0-IV1 message.downconversion.enable=set:false -> NONE
         edit topic a message.timestamp.difference.max.ms=set:1000 -> NONE
         produce a/0 x time=5 -> INVALID_TIMESTAMP records=[0]
         produce a/0 y -> base=1
         alter topic a message.format.version=0.1 -> INVALID_CONFIG: invalid value \"0.1\" for topic config message.format.version: it must be a version of Kafka's up to 4.0, such as 2.8 or 3.0-IV1
         edit topic a message.timestamp.difference.max.ms=set:-1 -> INVALID_CONFIG: invalid value \"-1\" for topic config message.timestamp.difference.max.ms: it must be a whole number of 0 or more
         restart -> started
         describe topic a {KEYS} -> message.downconversion.enable=false source=1 type=1, message.format.version=0.10.0-IV1 source=1 type=2, message.timestamp.difference.max.ms=1000 source=1 type=5
         create b message.timestamp.difference.max.ms=0 message.timestamp.before.max.ms=9999999999999 show message.timestamp.difference.max.ms -> NONE partitions=1 rf=1 message.timestamp.difference.max.ms=0 source=1
         produce b/0 x time=5 -> base=0
         create c message.format.version=next -> INVALID_CONFIG: invalid value \"next\" for topic config message.format.version: it must be a version of Kafka's up to 4.0, such as 2.8 or 3.0-IV1"
    );
    check_in(&mut world, &script).await;
}

/// A broker shows what it was started with, and changes none of it while it runs.
#[tokio::test(start_paused = true)]
async fn brokers_are_described() {
    let mut world = World::with(&[("node.id", "1")]).await;
    check_in(
        &mut world,
        "describe broker 1 node.id,advertised.listeners -> advertised.listeners=null source=5 type=2 read-only, node.id=1 source=4 type=3 read-only
         describe broker 1 node.id synonyms -> node.id=1 source=4 type=3 read-only [4:node.id=1 5:node.id=1]
         describe broker 1 forebay.upload.ms,forebay.wal.max.bytes -> forebay.upload.ms=5000 source=5 type=5 read-only, forebay.wal.max.bytes=268435456 source=5 type=5 read-only
         describe broker \"\" -> 0 keys
         describe broker 2 -> INVALID_REQUEST: Unexpected broker id, expected 1, but received 2
         describe broker one -> INVALID_REQUEST: Broker id must be an integer, but it is: one
         describe logger 1 root -> root=OFF source=6 type=2 read-only
         describe 16 metrics -> INVALID_REQUEST: resource type 16 has no configuration here
         edit broker 1 num.partitions=set:3 -> INVALID_REQUEST: the broker's configuration is read at its start: change it there
         alter broker \"\" num.partitions=3 -> INVALID_REQUEST: the broker's configuration is read at its start: change it there
         edit broker 2 num.partitions=set:3 -> INVALID_REQUEST: Unexpected broker id, expected 1, but received 2
         edit 16 metrics interval.ms=set:3 -> INVALID_REQUEST: resource type 16 has no configuration here",
    )
    .await;
}

/// One broker that is also the controller; sizes of what is in the write-ahead log and in the bucket; and what Kafka's tools ask in passing.
#[tokio::test(start_paused = true)]
async fn the_cluster_is_described() {
    check(
        "cluster -> controller=1 1=broker.test:9092
         cluster v=0 operations -> controller=1 1=broker.test:9092 operations=8096
         cluster type=2 -> MISMATCHED_ENDPOINT_TYPE: This is an endpoint of brokers, not of controllers.
         cluster type=9 -> UNSUPPORTED_ENDPOINT_TYPE: There are no endpoints of this type.
         create a partitions=2 -> NONE
         produce a/1 x -> base=0
         # in the write-ahead log only, then in the bucket, then in both
         logdirs -> /bucket a: 0=0 1=69
         restart -> started
         logdirs -> /bucket a: 0=0 1=69
         produce a/1 y -> base=1
         logdirs -> /bucket a: 0=0 1=138
         logdirs a v=1 -> /bucket a: 0=0
         logdirs nowhere -> /bucket
         elect a/0 -> [\"ELECTION_NOT_NEEDED\"]
         elect a/2 v=0 -> [\"UNKNOWN_TOPIC_OR_PARTITION\"]
         elect -> []
         acls -> SECURITY_DISABLED: No Authorizer is configured.
         reassignments -> NONE 0",
    )
    .await;
}

/// The versions that clients are told are the table's; an unknown version is answered in version 0 with this API's own
/// row; software without a name is refused (KIP-511).
#[tokio::test(start_paused = true)]
async fn versions_are_told() {
    let world = World::new().await;
    let named = ApiVersionsRequest::default()
        .with_client_software_name(text("apache-kafka-java"))
        .with_client_software_version(text("3.9.1"));
    for version in 0..=4 {
        let request = if version >= 3 { named.clone() } else { ApiVersionsRequest::default() };
        let response = world.call(version, &request).await.expect("an answer");
        let told: Vec<_> =
            response.api_keys.iter().map(|key| (key.api_key, key.min_version, key.max_version)).collect();
        let table = forebay_api::apis::APIS;
        let expected: Vec<_> = table.iter().map(|api| (api.key, api.advertised_from, *api.versions.end())).collect();
        assert_eq!(told, expected);
        assert_eq!((told[0], response.error_code), ((0, 0, 11), 0), "old librdkafka wants Produce from 0");
        assert!(response.finalized_features.is_empty() && response.supported_features.is_empty());
    }
    let unnamed = world.call(3, &named.with_client_software_name(text("no name"))).await.expect("an answer");
    assert_eq!(code(unnamed.error_code), "INVALID_REQUEST");

    let mut frame = crate::world::frame(4, &ApiVersionsRequest::default());
    frame[3] = 99;
    let answer = world.send(frame).await.expect("an answer").expect("a frame");
    // Correlation id, UNSUPPORTED_VERSION, one row: key 18 from 0 to 4. No throttle time, no tags.
    assert_eq!(answer[..], [0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
}
