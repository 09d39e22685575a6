//! Produce, key 0, versions 3 to 11. KIP-98 (transactions), KIP-110 (zstd), KIP-219 (throttle time), KIP-467 (errors per
//! record), KIP-890 part 1 (a first transactional batch is verified).
//!
//! A request whose bytes do not fit what may be under way waits, and nothing more is read from its connection meanwhile.
//! The answer's throttle time says how long that was, so that the client slows down by itself (KIP-219, semantic 28).
//!
//! In two phases: the records get their order here, in the order of the connection's requests; the answer waits until
//! they are durable, while the next request is already decoded.
//!
//! Differs from Kafka: `acks=1` and `acks=all` are the same, every record is durable before its ack; `timeout.ms` is not
//! looked at, a durable write either happens or the broker epoch ends. A throttle time comes from the room of the
//! write-ahead log, not from quotas; its request has waited before the answer, where Kafka mutes the channel after it. The
//! current leader is not told (KIP-951): there is one broker. Records inside a batch are read only where the topic asks for
//! what the header does not tell, see `log::validate`: by default their times are bounded by the header's highest.
//! Versions 0 to 2 are advertised and refused, as in Kafka 4 (KAFKA-18659).

use std::sync::Arc;
use std::time::Duration;

use forebay_log::{Appended, Partition, Unavailable, Validated, Verification, VerificationGuard};
use forebay_types::{ProducerEpoch, ProducerId, Timestamp, WalPosition};
use forebay_wal::{Admission, WalEnded};
use forebay_wire::kafka::messages::ProduceResponse;
use forebay_wire::kafka::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use forebay_wire::{ErrorCode, ProducePartition, decode_produce, encode_response};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors::{self, ProduceRefusal};
use crate::lookup::{self, Topic, text};

/// The first version whose answer has the log start offset.
const LOG_START_VERSION: i16 = 5;

/// The first version whose answer says more of an error than its code (KIP-467).
const MESSAGE_VERSION: i16 = 8;

/// The longest throttle time that is told. A client pauses for as long again; once a bucket that was away for minutes is
/// back, producers must not idle for minutes.
const THROTTLE_TIME_MAX: Duration = Duration::from_secs(1);

/// One partition's records, checked and waiting for the others'.
struct Checked {
    partition: Arc<Partition>,
    batch: Validated,
    /// Where the coordinator has confirmed that the batch begins its transaction here.
    guard: Option<VerificationGuard>,
}

/// One partition's answer.
struct Outcome {
    index: i32,
    result: Result<Done, ProduceRefusal>,
}

struct Done {
    partition: Arc<Partition>,
    appended: Appended,
}

pub(crate) async fn handle(context: &Context, call: Call<'_>) -> Result<Reply, CallError> {
    let version = call.version();
    let correlation_id = call.header.correlation_id;
    let request = decode_produce(call.body, version)?;
    let acks = request.acks;
    let transactional_id = request.transactional_id.as_deref();

    // All checks come before the admission: the coordinator, which some of them ask, must not wait for room in the WAL
    // that is kept from it here.
    let mut bytes = 0;
    let mut checked = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let open = lookup::by_name(context, &topic.name);
        let mut each = Vec::with_capacity(topic.partitions.len());
        for produced in topic.partitions {
            let index = produced.index;
            let result = match acks {
                -1..=1 => check(context, &open, produced, version, transactional_id).await,
                _ => Err(ProduceRefusal::code(ErrorCode::InvalidRequiredAcks)),
            };
            bytes += result.as_ref().map_or(0, |checked| checked.batch.size());
            each.push((index, result));
        }
        checked.push((topic.name, each));
    }

    let asked_at = context.env.monotonic();
    let mut admission = match bytes {
        0 => None,
        bytes => context.wal.admit(bytes).await.ok(),
    };
    let throttle_time_ms = throttle_time_ms(context, context.env.monotonic() - asked_at);
    let mut outcomes = Vec::with_capacity(checked.len());
    let mut position = WalPosition::START;
    for (name, each) in checked {
        let mut topic = Vec::with_capacity(each.len());
        for (index, checked) in each {
            let result = checked.and_then(|checked| append(checked, admission.as_mut()));
            if let Ok(done) = &result {
                position = position.max(done.appended.position);
            }
            topic.push(Outcome { index, result });
        }
        outcomes.push((name, topic));
    }
    drop(admission);
    if acks == 0 {
        // No answer can tell of an error, so the connection's end does, as in Kafka.
        let refused = outcomes.iter().flat_map(|(_, each)| each).find_map(|outcome| outcome.result.as_ref().err());
        return refused.map_or(Ok(Reply::Nothing), |refusal| Err(CallError::Unacknowledged(refusal.code.name())));
    }
    let wal = context.wal.clone();
    Ok(Reply::Later(Box::pin(async move {
        let durable = wal.durable(position).await;
        let response = respond(outcomes, durable.as_ref(), version).with_throttle_time_ms(throttle_time_ms);
        let frame = encode_response(correlation_id, version, &response)?;
        Ok(vec![frame.freeze()])
    })))
}

/// What a client is told of the time for which its request was held back: whole milliseconds, so a request that met an
/// open door is told 0.
fn throttle_time_ms(context: &Context, held_back: Duration) -> i32 {
    let told = i32::try_from(held_back.min(THROTTLE_TIME_MAX).as_millis()).expect("at most a second");
    if told > 0 {
        context.counters.held_back(held_back);
    }
    told
}

/// Everything that must hold of one partition's records before any are appended.
async fn check(
    context: &Context,
    topic: &Topic,
    produced: ProducePartition,
    version: i16,
    transactional_id: Option<&str>,
) -> Result<Checked, ProduceRefusal> {
    let partition = lookup::partition(topic, produced.index).map_err(ProduceRefusal::code)?;
    let topic = topic.as_ref().map_err(|code| ProduceRefusal::code(*code))?;
    if topic.row.internal {
        return Err(ProduceRefusal::code(ErrorCode::InvalidTopicException));
    }
    let records = produced.records.unwrap_or_default();
    let batch = partition.validate(records, &topic.config, version, context.env.now()).await;
    let batch = batch.map_err(ProduceRefusal::of_validation)?;
    if batch.size() > context.wal.entry_bytes_max() {
        return Err(ProduceRefusal::code(ErrorCode::MessageTooLarge));
    }
    let guard = verify(context, &partition, &batch, transactional_id).await?;
    Ok(Checked { partition, batch, guard })
}

/// Asks the transaction coordinator whether the batch belongs to a transaction that it knows, once per transaction and
/// partition (KIP-890 part 1).
async fn verify(
    context: &Context,
    partition: &Partition,
    batch: &Validated,
    transactional_id: Option<&str>,
) -> Result<Option<VerificationGuard>, ProduceRefusal> {
    let header = batch.header();
    if !header.is_transactional() {
        return Ok(None);
    }
    // Without an authorizer every id is allowed, but there must be one.
    let Some(transactional_id) = transactional_id else {
        return Err(ProduceRefusal::code(ErrorCode::TransactionalIdAuthorizationFailed));
    };
    let (Ok(id), Ok(epoch)) = (ProducerId::new(header.producer_id), ProducerEpoch::new(header.producer_epoch)) else {
        return Err(ProduceRefusal::code(ErrorCode::InvalidRecord));
    };
    let needed = partition.verification(id, epoch, header.base_sequence);
    match needed.map_err(|error| ProduceRefusal::of_append(&error))? {
        Verification::Done => Ok(None),
        Verification::Needed(guard) => {
            let verified = context.coordinators.verify(transactional_id, (id, epoch), partition.id()).await;
            match verified {
                Ok(()) => Ok(Some(guard)),
                Err(error) => {
                    let code = errors::coordinator::verify(error);
                    // Another request may hold the same guard: only a definite no takes it away.
                    if !code.is_retriable() {
                        partition.verification_failed(id, guard);
                    }
                    let code = errors::verification(code);
                    Err(ProduceRefusal { message: Some(error.to_string()), ..ProduceRefusal::code(code) })
                }
            }
        }
    }
}

fn append(checked: Checked, admission: Option<&mut Admission>) -> Result<Done, ProduceRefusal> {
    let Checked { partition, batch, guard } = checked;
    // The WAL has ended or is stopping: another broker epoch will take the records.
    let Some(admission) = admission else {
        return Err(ProduceRefusal::code(errors::unavailable(Unavailable::NoLeader)));
    };
    let appended = partition.append(batch, guard, admission).map_err(|error| ProduceRefusal::of_append(&error))?;
    Ok(Done { partition, appended })
}

fn respond(topics: Vec<(String, Vec<Outcome>)>, durable: Result<&(), &WalEnded>, version: i16) -> ProduceResponse {
    let topics = topics.into_iter().map(|(name, outcomes)| {
        let partitions = outcomes.into_iter().map(|outcome| {
            let result = match outcome.result {
                // The records may survive or not: the client asks the next leader, which knows duplicates.
                Ok(_) if durable.is_err() => Err(ProduceRefusal::code(ErrorCode::NotLeaderOrFollower)),
                other => other,
            };
            partition_response(outcome.index, result, version)
        });
        TopicProduceResponse::default().with_name(text(name).into()).with_partition_responses(partitions.collect())
    });
    ProduceResponse::default().with_responses(topics.collect())
}

fn partition_response(index: i32, result: Result<Done, ProduceRefusal>, version: i16) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index).with_error_message(None);
    match result {
        Ok(Done { partition, appended }) => {
            let response = response
                .with_base_offset(appended.base_offset.get())
                .with_log_append_time_ms(appended.log_append_time.map_or(-1, Timestamp::as_millis));
            match partition.offsets() {
                Ok(offsets) if version >= LOG_START_VERSION => response.with_log_start_offset(offsets.log_start.get()),
                _ => response,
            }
        }
        Err(refusal) => {
            let response = response.with_error_code(refusal.code_for(version).code()).with_base_offset(-1);
            if version < MESSAGE_VERSION {
                return response;
            }
            let records = refusal.records.iter().map(|(index, message)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*index)
                    .with_batch_index_error_message(message.clone().map(text))
            });
            response.with_record_errors(records.collect()).with_error_message(refusal.message.map(text))
        }
    }
}
