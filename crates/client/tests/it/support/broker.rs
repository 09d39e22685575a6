//! The broker's connections: one request after the other, answers in order.

use bytes::{Bytes, BytesMut};
use forebay_client::ErrorCode;
use forebay_wire::kafka::messages::api_versions_response::ApiVersion;
use forebay_wire::kafka::messages::create_topics_response::CreatableTopicResult;
use forebay_wire::kafka::messages::find_coordinator_response::Coordinator;
use forebay_wire::kafka::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, ApiKey, ApiVersionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, EndTxnRequest, EndTxnResponse, FetchRequest, FindCoordinatorRequest,
    FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, InitProducerIdRequest, InitProducerIdResponse,
    JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, ProduceRequest, ProducerId, SyncGroupRequest, SyncGroupResponse, TxnOffsetCommitRequest,
};
use forebay_wire::kafka::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use forebay_wire::{decode_request, decode_request_header, encode_response, read_frame};
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::answers::{
    add_partitions, commit, commit_in_transaction, committed, fetched, has_news, join, list_offsets, metadata, produce,
};
use super::state::State;
use super::{Broker, Fault};

/// Serves until the client goes, or a fault ends the connection.
pub async fn serve(broker: Broker, stream: DuplexStream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::new();
    while let Ok(Some(mut frame)) = read_frame(&mut reader, &mut buffer, 1 << 20).await {
        let header = decode_request_header(&mut frame).expect("the client's headers are whole");
        let call = Call { key: header.api_key, version: header.api_version, id: header.correlation_id };
        let fault = {
            let mut state = broker.0.lock();
            state.faults.get_mut(&call.key).and_then(std::collections::VecDeque::pop_front)
        };
        if matches!(fault, Some(Fault::LoseRequest)) {
            return;
        }
        let answer = call.answer(&broker, &frame.freeze(), fault).await;
        match fault {
            Some(Fault::LoseAnswer) => return,
            Some(Fault::Silence) => continue,
            _ => {}
        }
        if writer.write_all(&answer).await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy)]
struct Call {
    key: i16,
    version: i16,
    id: i32,
}

impl Call {
    async fn answer(self, broker: &Broker, body: &Bytes, fault: Option<Fault>) -> BytesMut {
        let key = ApiKey::try_from(self.key).expect("the client calls known APIs");
        let refused = match fault {
            Some(Fault::Refuse(code)) => Some(code as i16),
            _ => None,
        };
        let id = if matches!(fault, Some(Fault::WrongId)) { self.id + 1000 } else { self.id };
        let call = Self { id, ..self };
        if key == ApiKey::Fetch {
            return call.fetch(broker, body, refused).await;
        }
        let mut state = broker.0.lock();
        let state = &mut *state;
        let code = refused.unwrap_or(0);
        match key {
            ApiKey::ApiVersions => call.api_versions(state),
            ApiKey::Metadata => call.reply::<MetadataRequest>(state, body, |s, r| metadata(s, &r)),
            ApiKey::Produce => call.reply::<ProduceRequest>(state, body, |s, r| produce(s, &r, refused)),
            ApiKey::InitProducerId => call.reply::<InitProducerIdRequest>(state, body, |s, r| {
                let name = r.transactional_id.as_ref().map(|id| id.to_string());
                s.note(
                    key,
                    format!("init {} {}/{}", name.as_deref().unwrap_or("-"), r.producer_id.0, r.producer_epoch),
                );
                let (id, epoch) = if code == 0 { s.init_producer(name.as_deref()) } else { (-1, -1) };
                InitProducerIdResponse::default()
                    .with_error_code(code)
                    .with_producer_id(ProducerId(id))
                    .with_producer_epoch(epoch)
            }),
            ApiKey::FindCoordinator => call.reply::<FindCoordinatorRequest>(state, body, |s, r| {
                s.note(key, format!("coordinator of {:?}", r.coordinator_keys));
                let found = Coordinator::default()
                    .with_key(r.coordinator_keys.first().cloned().unwrap_or_default())
                    .with_error_code(code)
                    .with_host(StrBytes::from_static_str("broker"))
                    .with_port(9092);
                FindCoordinatorResponse::default().with_coordinators(vec![found])
            }),
            ApiKey::AddPartitionsToTxn => {
                call.reply::<AddPartitionsToTxnRequest>(state, body, |s, r| add_partitions(s, &r, code))
            }
            ApiKey::AddOffsetsToTxn => call.reply::<AddOffsetsToTxnRequest>(state, body, |s, r| {
                s.note(key, format!("add offsets of {}", r.group_id.as_str()));
                AddOffsetsToTxnResponse::default().with_error_code(code)
            }),
            ApiKey::TxnOffsetCommit => {
                call.reply::<TxnOffsetCommitRequest>(state, body, |s, r| commit_in_transaction(s, &r, code))
            }
            ApiKey::EndTxn => call.reply::<EndTxnRequest>(state, body, |s, r| {
                s.note(key, format!("end {} commit={}", r.transactional_id.as_str(), r.committed));
                let id = r.transactional_id.to_string();
                let code = match s.transactions.get(&id) {
                    _ if code != 0 => code,
                    Some(known) if known.epoch == r.producer_epoch => 0,
                    _ => ErrorCode::ProducerFenced as i16,
                };
                if code == 0 {
                    s.end(&id, r.committed);
                }
                EndTxnResponse::default().with_error_code(code)
            }),
            ApiKey::CreateTopics => call.reply::<CreateTopicsRequest>(state, body, |s, r| {
                let topic = r.topics.first().expect("one topic");
                s.note(key, format!("create {}", topic.name.as_str()));
                if code == 0 {
                    s.create_topic(topic.name.as_str(), topic.num_partitions);
                }
                let one = CreatableTopicResult::default()
                    .with_name(topic.name.clone())
                    .with_error_code(code)
                    .with_error_message(Some(StrBytes::from_static_str("as asked")));
                CreateTopicsResponse::default().with_topics(vec![one])
            }),
            ApiKey::ListOffsets => call.reply::<ListOffsetsRequest>(state, body, |s, r| list_offsets(s, &r, code)),
            ApiKey::JoinGroup => call.reply::<JoinGroupRequest>(state, body, |s, r| join(s, &r, code)),
            ApiKey::SyncGroup => call.reply::<SyncGroupRequest>(state, body, |s, r| {
                s.note(key, format!("sync {} generation {}", r.member_id.as_str(), r.generation_id));
                let ours = r.assignments.first().map(|one| one.assignment.clone()).unwrap_or_default();
                SyncGroupResponse::default().with_error_code(code).with_assignment(ours)
            }),
            ApiKey::Heartbeat => call.reply::<HeartbeatRequest>(state, body, |s, r| {
                s.note(key, format!("heartbeat {}", r.member_id.as_str()));
                HeartbeatResponse::default().with_error_code(code)
            }),
            ApiKey::LeaveGroup => call.reply::<LeaveGroupRequest>(state, body, |s, r| {
                s.note(key, format!("leave {}", r.members.first().map_or("-", |m| m.member_id.as_str())));
                LeaveGroupResponse::default().with_error_code(code)
            }),
            ApiKey::OffsetCommit => call.reply::<OffsetCommitRequest>(state, body, |s, r| commit(s, &r, code)),
            ApiKey::OffsetFetch => call.reply::<OffsetFetchRequest>(state, body, |s, r| committed(s, &r, code)),
            other => panic!("the client calls {other:?}, which this broker has not learnt"),
        }
    }

    fn reply<R>(self, state: &mut State, body: &Bytes, apply: impl FnOnce(&mut State, R) -> R::Response) -> BytesMut
    where
        R: Request + Decodable,
        R::Response: Encodable + HeaderVersion,
    {
        let request = decode_request::<R>(body.clone(), self.version).expect("the client's requests are whole");
        encode_response(self.id, self.version, &apply(state, request)).expect("an answer in the request's version")
    }

    fn api_versions(self, state: &mut State) -> BytesMut {
        state.note(ApiKey::ApiVersions, format!("versions v{}", self.version));
        let newest = |key: i16, max: i16| state.version_max.get(&key).copied().unwrap_or(max);
        let keys = ApiKey::iter().map(|key| {
            let max = newest(key as i16, key.valid_versions().max);
            ApiVersion::default().with_api_key(key as i16).with_min_version(0).with_max_version(max)
        });
        let response = ApiVersionsResponse::default().with_api_keys(keys.collect());
        if self.version > newest(18, 4) {
            let refused = response.with_error_code(ErrorCode::UnsupportedVersion as i16);
            return encode_response(self.id, 0, &refused).expect("an answer in version 0");
        }
        encode_response(self.id, self.version, &response).expect("an answer in the request's version")
    }

    /// Waits for a record as long as the request says.
    async fn fetch(self, broker: &Broker, body: &Bytes, refused: Option<i16>) -> BytesMut {
        let request =
            decode_request::<FetchRequest>(body.clone(), self.version).expect("the client's requests are whole");
        let pause = std::time::Duration::from_millis(10);
        for _ in 0..(request.max_wait_ms / 10).max(1) {
            let found = fetched(&mut broker.0.lock(), &request, refused);
            if refused.is_some() || found.responses.iter().any(|t| t.partitions.iter().any(has_news)) {
                return encode_response(self.id, self.version, &found).expect("an answer in the request's version");
            }
            // The simulated clock jumps over this.
            #[allow(clippy::disallowed_methods)]
            tokio::time::sleep(pause).await;
        }
        let found = fetched(&mut broker.0.lock(), &request, refused);
        encode_response(self.id, self.version, &found).expect("an answer in the request's version")
    }
}
