//! Topics: create, delete, describe, add partitions, delete records.

use forebay_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::create_partitions_request::CreatePartitionsTopic;
use forebay_wire::kafka::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use forebay_wire::kafka::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use forebay_wire::kafka::messages::delete_topics_request::DeleteTopicState;
use forebay_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use forebay_wire::kafka::messages::metadata_response::MetadataResponseTopic;
use forebay_wire::kafka::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest,
};

use super::Admin;
use crate::ClientError;
use crate::cluster::{Repeat, Target, retriable};
use crate::kafka::{Partition, check, malformed, only, text, wire_topic};

/// How long a broker may take over a change, as Kafka's admin client asks.
const CHANGE_LIMIT_MS: i32 = 30_000;

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: TopicName,
    /// The broker's default where it is not given.
    pub partitions: Option<u32>,
    pub configs: Vec<(String, String)>,
}

impl NewTopic {
    pub fn new(name: TopicName, partitions: u32) -> Self {
        Self { name, partitions: Some(partitions), configs: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: TopicName,
    /// From brokers that have topic ids.
    pub id: Option<TopicId>,
    pub is_internal: bool,
    /// By number.
    pub partitions: Vec<PartitionDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    pub index: PartitionIndex,
    pub leader: Option<BrokerId>,
    pub leader_epoch: Option<LeaderEpoch>,
    pub replicas: Vec<BrokerId>,
    pub in_sync: Vec<BrokerId>,
}

impl Admin {
    /// Creates a topic and returns its id, from brokers that tell it.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<Option<TopicId>, ClientError> {
        let what = format!("create topic {}", topic.name);
        let build = |_| {
            let config = |(name, value): &(String, String)| {
                CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
            };
            let partitions = topic.partitions.map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX));
            let topic = CreatableTopic::default()
                .with_name(wire_topic(&topic.name))
                .with_num_partitions(partitions)
                .with_replication_factor(-1)
                .with_configs(topic.configs.iter().map(config).collect());
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(CHANGE_LIMIT_MS)
        };
        let again = |r: &CreateTopicsResponse| retriable(r.topics.iter().map(|topic| topic.error_code));
        let response = self.client.call(&what, Target::Controller, Repeat::Harmful, build, again).await?;
        let found = only(&what, response.topics)?;
        check(&what, found.error_code, found.error_message.as_ref())?;
        Ok(TopicId::new(found.topic_id).ok())
    }

    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), ClientError> {
        let what = format!("delete topic {name}");
        let build = |version: i16| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(CHANGE_LIMIT_MS);
            if version >= 6 {
                request.with_topics(vec![DeleteTopicState::default().with_name(Some(wire_topic(name)))])
            } else {
                request.with_topic_names(vec![wire_topic(name)])
            }
        };
        // A topic that is not there stays so: Kafka calls that retriable.
        let again = |r: &DeleteTopicsResponse| {
            retriable(r.responses.iter().map(|topic| topic.error_code))
                .filter(|code| *code != ErrorCode::UnknownTopicOrPartition)
        };
        let response = self.client.call(&what, Target::Controller, Repeat::Harmful, build, again).await?;
        let found = only(&what, response.responses)?;
        check(&what, found.error_code, found.error_message.as_ref())?;
        self.client.forget_topic(name);
        Ok(())
    }

    /// Gives a topic more partitions, `total` in all.
    pub async fn create_partitions(&self, name: &TopicName, total: u32) -> Result<(), ClientError> {
        let what = format!("give topic {name} {total} partitions");
        let build = |_| {
            let count = i32::try_from(total).unwrap_or(i32::MAX);
            let topic =
                CreatePartitionsTopic::default().with_name(wire_topic(name)).with_count(count).with_assignments(None);
            CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(CHANGE_LIMIT_MS)
        };
        let again = |r: &CreatePartitionsResponse| {
            retriable(r.results.iter().map(|topic| topic.error_code))
                .filter(|code| *code != ErrorCode::UnknownTopicOrPartition)
        };
        let response = self.client.call(&what, Target::Controller, Repeat::Harmful, build, again).await?;
        let found = only(&what, response.results)?;
        check(&what, found.error_code, found.error_message.as_ref())?;
        self.client.forget_topic(name);
        Ok(())
    }

    /// All topics, by name.
    pub async fn list_topics(&self) -> Result<Vec<TopicDescription>, ClientError> {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        self.describe("list topics", &request).await
    }

    pub async fn describe_topic(&self, name: &TopicName) -> Result<TopicDescription, ClientError> {
        let what = format!("describe topic {name}");
        let asked = MetadataRequestTopic::default().with_name(Some(wire_topic(name)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
        only(&what, self.describe(&what, &request).await?)
    }

    async fn describe(&self, what: &str, request: &MetadataRequest) -> Result<Vec<TopicDescription>, ClientError> {
        let mut retry = self.client.retry();
        let response = loop {
            match self.client.metadata(request).await {
                Ok(response) => break response,
                Err(error) if error.kind() == crate::Kind::Retry => retry.pause(error).await?,
                Err(error) => return Err(error),
            }
        };
        let mut topics = Vec::new();
        for topic in response.topics {
            check(what, topic.error_code, None)?;
            topics.push(describe_topic(what, &topic)?);
        }
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Removes the records before `before`, or all that are readable now, and returns the new log start offset.
    pub async fn delete_records(&self, partition: &Partition, before: Option<Offset>) -> Result<Offset, ClientError> {
        let what = format!("delete records of {partition}");
        let build = |_| {
            let one = DeleteRecordsPartition::default()
                .with_partition_index(partition.index.get())
                .with_offset(before.map_or(-1, Offset::get));
            let topic =
                DeleteRecordsTopic::default().with_name(wire_topic(&partition.topic)).with_partitions(vec![one]);
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(CHANGE_LIMIT_MS)
        };
        let again = |r: &DeleteRecordsResponse| {
            retriable(r.topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| p.error_code)))
        };
        let response = self.client.call(&what, Target::Leader(partition), Repeat::Harmless, build, again).await?;
        let found = only(&what, response.topics.into_iter().flat_map(|topic| topic.partitions).collect())?;
        check(&what, found.error_code, None)?;
        Offset::new(found.low_watermark).map_err(|error| malformed(&what, error.to_string()))
    }
}

fn describe_topic(what: &str, topic: &MetadataResponseTopic) -> Result<TopicDescription, ClientError> {
    let name = topic.name.as_ref().map_or("", |name| name.as_str());
    let name = TopicName::new(name).map_err(|error| malformed(what, error.to_string()))?;
    let brokers = |raw: &[forebay_wire::kafka::messages::BrokerId]| {
        raw.iter().filter_map(|id| BrokerId::new(id.0).ok()).collect::<Vec<_>>()
    };
    let mut partitions = Vec::new();
    for partition in &topic.partitions {
        let index = PartitionIndex::new(partition.partition_index);
        partitions.push(PartitionDescription {
            index: index.map_err(|error| malformed(what, error.to_string()))?,
            leader: BrokerId::new(partition.leader_id.0).ok(),
            leader_epoch: LeaderEpoch::new(partition.leader_epoch).ok(),
            replicas: brokers(&partition.replica_nodes),
            in_sync: brokers(&partition.isr_nodes),
        });
    }
    partitions.sort_unstable_by_key(|partition| partition.index);
    Ok(TopicDescription { name, id: TopicId::new(topic.topic_id).ok(), is_internal: topic.is_internal, partitions })
}
