//! What the broker answers where it takes more than a line.

use forebay_client::ErrorCode;
use forebay_wire::BatchHeader;
use forebay_wire::kafka::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use forebay_wire::kafka::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use forebay_wire::kafka::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use forebay_wire::kafka::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use forebay_wire::kafka::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use forebay_wire::kafka::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use forebay_wire::kafka::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use forebay_wire::kafka::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use forebay_wire::kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey, BrokerId, FetchRequest, FetchResponse,
    JoinGroupRequest, JoinGroupResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, ProduceRequest,
    ProduceResponse, ProducerId, TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
    join_group_response::JoinGroupResponseMember,
};
use forebay_wire::kafka::protocol::StrBytes;
use uuid::Uuid;

use super::state::State;

/// A topic's id, told from its name alone.
fn id_of(name: &str) -> Uuid {
    Uuid::from_u128(name.bytes().fold(1, |id, byte| id * 257 + u128::from(byte)))
}

pub fn metadata(state: &mut State, request: &MetadataRequest) -> MetadataResponse {
    let asked: Vec<String> = match &request.topics {
        None => state.topics.keys().cloned().collect(),
        Some(topics) => topics.iter().filter_map(|t| t.name.as_ref()).map(|name| name.to_string()).collect(),
    };
    state.note(ApiKey::Metadata, format!("metadata {}", asked.join(" ")));
    let topics = asked.into_iter().map(|name| {
        let topic = MetadataResponseTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.clone()))));
        match state.topics.get(&name) {
            None => topic.with_error_code(ErrorCode::UnknownTopicOrPartition as i16),
            Some(partitions) => {
                let one = |index: &i32| MetadataResponsePartition::default().with_partition_index(*index);
                topic.with_topic_id(id_of(&name)).with_partitions(partitions.keys().map(one).collect())
            }
        }
    });
    let broker = MetadataResponseBroker::default().with_host(StrBytes::from_static_str("broker")).with_port(9092);
    MetadataResponse::default().with_brokers(vec![broker]).with_controller_id(BrokerId(0)).with_topics(topics.collect())
}

pub fn produce(state: &mut State, request: &ProduceRequest, refused: Option<i16>) -> ProduceResponse {
    let mut topics = Vec::new();
    for topic in &request.topic_data {
        let mut partitions = Vec::new();
        for data in &topic.partition_data {
            let batch = data.records.clone().unwrap_or_default();
            let header = BatchHeader::parse(&batch).expect("a whole batch");
            let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
            let what = format!("{}-{} epoch {epoch} sequence {sequence}", topic.name.as_str(), data.index);
            state.note(ApiKey::Produce, what);
            let result = match (refused, state.log_mut(topic.name.as_str(), data.index)) {
                (Some(code), _) => Err(code),
                (None, Some(log)) => log.append(&batch).map_err(|code| code as i16),
                (None, None) => Err(ErrorCode::UnknownTopicOrPartition as i16),
            };
            let (code, base) = result.map_or_else(|code| (code, -1), |base| (0, base));
            partitions.push(
                PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_error_code(code)
                    .with_base_offset(base)
                    .with_log_append_time_ms(-1),
            );
        }
        topics.push(TopicProduceResponse::default().with_name(topic.name.clone()).with_partition_responses(partitions));
    }
    ProduceResponse::default().with_responses(topics)
}

pub fn has_news(partition: &PartitionData) -> bool {
    partition.error_code != 0 || partition.records.as_ref().is_some_and(|records| !records.is_empty())
}

pub fn fetched(state: &mut State, request: &FetchRequest, refused: Option<i16>) -> FetchResponse {
    let by_id = |id: Uuid| state.topics.keys().find(|name| id_of(name) == id).cloned();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let name = if topic.topic_id.is_nil() { Some(topic.topic.to_string()) } else { by_id(topic.topic_id) };
        let logs = name.as_ref().and_then(|name| state.topics.get(name));
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let answer = PartitionData::default().with_partition_index(asked.partition);
            let Some(log) = logs.and_then(|logs| logs.get(&asked.partition)) else {
                partitions.push(answer.with_error_code(ErrorCode::UnknownTopicId as i16));
                continue;
            };
            let committed_only = request.isolation_level == 1;
            let end = if committed_only { log.last_stable() } else { log.end };
            if let Some(code) = refused.or((asked.fetch_offset > log.end).then_some(ErrorCode::OffsetOutOfRange as i16))
            {
                partitions.push(answer.with_error_code(code));
                continue;
            }
            let header = |batch: &bytes::Bytes| BatchHeader::parse(batch).expect("checked when appended");
            let wanted = log
                .batches
                .iter()
                .filter(|batch| header(batch).last_offset() >= asked.fetch_offset && header(batch).base_offset < end);
            let records: Vec<u8> = wanted.flat_map(|batch| batch.to_vec()).collect();
            let aborted = log.aborted.iter().filter(|(_, _, marker)| *marker >= asked.fetch_offset);
            let aborted = aborted.map(|(producer, first, _)| {
                AbortedTransaction::default().with_producer_id(ProducerId(*producer)).with_first_offset(*first)
            });
            partitions.push(
                answer
                    .with_high_watermark(log.end)
                    .with_last_stable_offset(log.last_stable())
                    .with_log_start_offset(0)
                    .with_aborted_transactions(committed_only.then(|| aborted.collect()))
                    .with_records(Some(records.into())),
            );
        }
        topics.push(
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions),
        );
    }
    FetchResponse::default().with_responses(topics)
}

pub fn list_offsets(state: &mut State, request: &ListOffsetsRequest, code: i16) -> ListOffsetsResponse {
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let log = state.log_mut(topic.name.as_str(), asked.partition_index).expect("a known partition");
            let offset = match asked.timestamp {
                -2 => 0,
                -1 if request.isolation_level == 1 => log.last_stable(),
                -1 => log.end,
                _ => -1,
            };
            partitions.push(
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code)
                    .with_offset(offset)
                    .with_timestamp(-1),
            );
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

pub fn add_partitions(state: &mut State, request: &AddPartitionsToTxnRequest, code: i16) -> AddPartitionsToTxnResponse {
    let id = request.v3_and_below_transactional_id.to_string();
    let mut topics = Vec::new();
    for topic in &request.v3_and_below_topics {
        let mut partitions = Vec::new();
        for index in &topic.partitions {
            state.note(ApiKey::AddPartitionsToTxn, format!("add {}-{index}", topic.name.as_str()));
            let known = state.transactions.get_mut(&id);
            let found = match known.filter(|known| known.epoch == request.v3_and_below_producer_epoch) {
                _ if code != 0 => code,
                Some(known) => {
                    known.partitions.insert((topic.name.to_string(), *index));
                    0
                }
                None => ErrorCode::ProducerFenced as i16,
            };
            partitions.push(
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(*index)
                    .with_partition_error_code(found),
            );
        }
        topics.push(
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(partitions),
        );
    }
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics)
}

pub fn commit_in_transaction(
    state: &mut State,
    request: &TxnOffsetCommitRequest,
    code: i16,
) -> TxnOffsetCommitResponse {
    let group = request.group_id.to_string();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for one in &topic.partitions {
            let (name, index, offset) = (topic.name.to_string(), one.partition_index, one.committed_offset);
            state.note(ApiKey::TxnOffsetCommit, format!("offset {name}-{index} {offset}"));
            let known = state.transactions.get_mut(request.transactional_id.as_str()).expect("a known id");
            if code == 0 {
                known.offsets.push((group.clone(), name, index, offset));
            }
            partitions
                .push(TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code));
        }
        topics.push(TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}

pub fn join(state: &mut State, request: &JoinGroupRequest, code: i16) -> JoinGroupResponse {
    let asked = request.member_id.to_string();
    state.note(ApiKey::JoinGroup, format!("join as {asked:?}"));
    if code != 0 {
        return JoinGroupResponse::default().with_error_code(code);
    }
    if asked.is_empty() {
        state.generation += 10;
        let member = StrBytes::from_string(format!("member-{}", state.generation));
        return JoinGroupResponse::default().with_error_code(ErrorCode::MemberIdRequired as i16).with_member_id(member);
    }
    state.generation += 1;
    let metadata = request.protocols.first().map(|protocol| protocol.metadata.clone()).unwrap_or_default();
    let member = JoinGroupResponseMember::default().with_member_id(request.member_id.clone()).with_metadata(metadata);
    JoinGroupResponse::default()
        .with_generation_id(state.generation)
        .with_protocol_type(Some(request.protocol_type.clone()))
        .with_protocol_name(request.protocols.first().map(|protocol| protocol.name.clone()))
        .with_leader(request.member_id.clone())
        .with_member_id(request.member_id.clone())
        .with_members(vec![member])
}

pub fn commit(state: &mut State, request: &OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
    let group = request.group_id.to_string();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for one in &topic.partitions {
            let (name, index, offset) = (topic.name.to_string(), one.partition_index, one.committed_offset);
            let generation = request.generation_id_or_member_epoch;
            state.note(ApiKey::OffsetCommit, format!("commit {name}-{index} {offset} generation {generation}"));
            if code == 0 {
                state.committed.insert((group.clone(), name, index), offset);
            }
            partitions.push(OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code));
        }
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    OffsetCommitResponse::default().with_topics(topics)
}

pub fn committed(state: &mut State, request: &OffsetFetchRequest, code: i16) -> OffsetFetchResponse {
    let asked = request.groups.first().expect("a request of version 8 or later");
    let group = asked.group_id.to_string();
    let mut topics = Vec::new();
    for topic in asked.topics.iter().flatten() {
        let mut partitions = Vec::new();
        for index in &topic.partition_indexes {
            let offset = state.committed.get(&(group.clone(), topic.name.to_string(), *index)).copied();
            partitions.push(
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(*index)
                    .with_committed_offset(offset.unwrap_or(-1))
                    .with_error_code(code),
            );
        }
        topics.push(OffsetFetchResponseTopics::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    let group = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone()).with_topics(topics);
    OffsetFetchResponse::default().with_groups(vec![group])
}
