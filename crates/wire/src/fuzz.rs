//! What a fuzzer calls: any bytes at all go in, and a panic is a bug.
//!
//! Each function also checks what must hold of input that is accepted: that `kafka-protocol` reads the same from it,
//! that a stamped batch still has its checksum, that records survive being written again. `corpus/<function>/` keeps
//! small inputs worth trying first; a test runs them.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::Decodable;

use crate::batch::{self, BatchBuilder, BatchHeader, Batches, Record};
use crate::{ProduceRequest, decode_produce, decode_request, decode_request_header, read_frame};

/// Bounds what one input may cost, in frames and in what it decompresses to.
const BYTES_MAX: usize = 1 << 20;

/// A stream of frames, each with a request's header.
pub fn frame(data: &[u8]) {
    let (mut reader, mut buf) = (data, BytesMut::new());
    loop {
        let read = pin!(read_frame(&mut reader, &mut buf, BYTES_MAX));
        let Poll::Ready(frame) = read.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("a slice always has its next bytes, or ends");
        };
        let Ok(Some(mut frame)) = frame else { return };
        let size = frame.len();
        if decode_request_header(&mut frame).is_ok() {
            assert!(frame.len() < size, "a header takes bytes");
        }
    }
}

/// A produce request: its version in the first byte, then its body.
pub fn produce(data: &[u8]) {
    let Some((version, body)) = data.split_first() else { return };
    let version = i16::from(*version);
    let Ok(ours) = decode_produce(BytesMut::from(body), version) else { return };
    let mut rest = body;
    let theirs = messages::ProduceRequest::decode(&mut rest, version).expect("what is read by hand is a request");
    assert!(rest.is_empty(), "nothing trails a request that was accepted");
    assert_same_request(&ours, &theirs);
    for records in ours.topics.iter().flat_map(|t| &t.partitions).filter_map(|p| p.records.as_ref()) {
        let _magic = batch::magic(records);
        Batches::new(records).for_each(drop);
    }
}

fn assert_same_request(ours: &ProduceRequest, theirs: &messages::ProduceRequest) {
    assert_eq!(ours.transactional_id.as_deref(), theirs.transactional_id.as_ref().map(|id| id.as_str()));
    assert_eq!((ours.acks, ours.timeout_ms), (theirs.acks, theirs.timeout_ms));
    assert_eq!(ours.topics.len(), theirs.topic_data.len());
    for (ours, theirs) in ours.topics.iter().zip(&theirs.topic_data) {
        assert_eq!(ours.name, **theirs.name);
        assert_eq!(ours.topic_id.unwrap_or_default(), theirs.topic_id);
        assert_eq!(ours.partitions.len(), theirs.partition_data.len());
        for (ours, theirs) in ours.partitions.iter().zip(&theirs.partition_data) {
            assert_eq!((ours.index, ours.records.as_deref()), (theirs.index, theirs.records.as_deref()));
        }
    }
}

/// Record batches, one after the other.
pub fn batch(data: &[u8]) {
    for batch in Batches::new(data).map_while(Result::ok) {
        let (header, bytes) = (batch.header, batch.bytes);
        assert_eq!(header.size(), bytes.len());
        assert!(header.last_offset() >= header.base_offset);
        let _ = (header.codec(), header.last_sequence(), batch::parse_marker(bytes));
        if batch::check_crc(bytes).is_ok() {
            let mut bytes = bytes.to_vec();
            batch::patch(&mut bytes, 1 << 40, 77);
            batch::check_crc(&bytes).expect("base offset and leader epoch are outside the checksum");
            batch::set_log_append_time(&mut bytes, 1 << 41);
            batch::check_crc(&bytes).expect("the checksum was made new");
            let header = BatchHeader::parse(&bytes).expect("only stamped");
            assert_eq!((header.base_offset, header.leader_epoch, header.max_timestamp), (1 << 40, 77, 1 << 41));
        }
    }
}

/// One record batch and its records.
pub fn records(data: &[u8]) {
    let Ok(records) = batch::records(&Bytes::copy_from_slice(data), BYTES_MAX) else { return };
    let header = *records.header();
    let Ok(records) = records.collect::<Result<Vec<Record>, _>>() else { return };
    assert_eq!(i32::try_from(records.len()), Ok(header.records_count));
    batch::check_count(data).expect("records that were all read are as many as the header says");
    if records.is_empty() {
        return;
    }
    let mut builder = BatchBuilder::new(header.base_timestamp);
    for record in &records {
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    let again = batch::records(&builder.build().freeze(), usize::MAX).expect("built above");
    let mut count = 0;
    for ((again, first), delta) in again.zip(&records).zip(0..) {
        let first = Record { offset_delta: delta, ..first.clone() };
        assert_eq!(again.expect("built above"), first, "a record is read as it was written");
        count += 1;
    }
    assert_eq!(count, records.len());
}

/// A request: its API key and version in the first four bytes, then its body.
pub fn request_any(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk::<4>() else { return };
    let [key, version] = [[head[0], head[1]], [head[2], head[3]]].map(i16::from_be_bytes);
    if let Ok(key) = ApiKey::try_from(key) {
        decode_any(key, version, Bytes::copy_from_slice(body));
    }
}

macro_rules! decode_any {
    ($($key:ident $request:ident,)*) => {
        /// Every API that a broker of ours may serve.
        pub const KEYS: &[ApiKey] = &[$(ApiKey::$key,)*];

        fn decode_any(key: ApiKey, version: i16, body: Bytes) {
            match key {
                $(ApiKey::$key => drop(decode_request::<messages::$request>(body, version)),)*
                _ => {}
            }
        }
    };
}

decode_any! {
    Produce ProduceRequest,
    Fetch FetchRequest,
    ListOffsets ListOffsetsRequest,
    Metadata MetadataRequest,
    OffsetCommit OffsetCommitRequest,
    OffsetFetch OffsetFetchRequest,
    FindCoordinator FindCoordinatorRequest,
    JoinGroup JoinGroupRequest,
    Heartbeat HeartbeatRequest,
    LeaveGroup LeaveGroupRequest,
    SyncGroup SyncGroupRequest,
    DescribeGroups DescribeGroupsRequest,
    ListGroups ListGroupsRequest,
    SaslHandshake SaslHandshakeRequest,
    ApiVersions ApiVersionsRequest,
    CreateTopics CreateTopicsRequest,
    DeleteTopics DeleteTopicsRequest,
    DeleteRecords DeleteRecordsRequest,
    InitProducerId InitProducerIdRequest,
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest,
    AddPartitionsToTxn AddPartitionsToTxnRequest,
    AddOffsetsToTxn AddOffsetsToTxnRequest,
    EndTxn EndTxnRequest,
    WriteTxnMarkers WriteTxnMarkersRequest,
    TxnOffsetCommit TxnOffsetCommitRequest,
    DescribeAcls DescribeAclsRequest,
    CreateAcls CreateAclsRequest,
    DeleteAcls DeleteAclsRequest,
    DescribeConfigs DescribeConfigsRequest,
    AlterConfigs AlterConfigsRequest,
    DescribeLogDirs DescribeLogDirsRequest,
    SaslAuthenticate SaslAuthenticateRequest,
    CreatePartitions CreatePartitionsRequest,
    DeleteGroups DeleteGroupsRequest,
    ElectLeaders ElectLeadersRequest,
    IncrementalAlterConfigs IncrementalAlterConfigsRequest,
    AlterPartitionReassignments AlterPartitionReassignmentsRequest,
    ListPartitionReassignments ListPartitionReassignmentsRequest,
    OffsetDelete OffsetDeleteRequest,
    DescribeClientQuotas DescribeClientQuotasRequest,
    AlterClientQuotas AlterClientQuotasRequest,
    DescribeUserScramCredentials DescribeUserScramCredentialsRequest,
    AlterUserScramCredentials AlterUserScramCredentialsRequest,
    DescribeQuorum DescribeQuorumRequest,
    UpdateFeatures UpdateFeaturesRequest,
    DescribeCluster DescribeClusterRequest,
    DescribeProducers DescribeProducersRequest,
    DescribeTransactions DescribeTransactionsRequest,
    ListTransactions ListTransactionsRequest,
    ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest,
    ConsumerGroupDescribe ConsumerGroupDescribeRequest,
    ListConfigResources ListConfigResourcesRequest,
    DescribeTopicPartitions DescribeTopicPartitionsRequest,
}
