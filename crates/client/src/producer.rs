//! A producer: idempotent always, transactional where it has a transactional id.
//!
//! Owns: choosing partitions, cutting batches, the order of calls in a transaction. Leaves to `producer::sender` what
//! goes over the wire and when, to `producer::lane` sequences and retries of one partition.
//!
//! Invariants:
//! 1. A batch is at most [`ProducerConfig::batch_size_bytes_max`] before compression, unless one record alone is larger.
//! 2. Unsent and unacknowledged records take at most [`BUFFER_SIZE_MAX`]; then `send` waits.
//! 3. Within a transaction no batch leaves before its partition was added to the transaction.
//!
//! Cancel safety: a call dropped half-way may have handed over some of its batches; in a transaction, abort it.

mod lane;
mod sender;
mod transaction;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_env::Task;
use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp, TopicName};
use forebay_wire::kafka::messages;
use forebay_wire::kafka::messages::InitProducerIdRequest;
use forebay_wire::kafka::messages::ProduceRequest;
use forebay_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use forebay_wire::{Codec, ErrorCode};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::cluster::{CoordinatorKind, Repeat, Target, retriable};
use crate::kafka::{Partition, code, optional_text, wire_topic, wire_transactional};
use crate::partitioner::partition_for_key;
use crate::{Client, ClientError};

pub use transaction::GroupMembership;

/// Records handed over and not yet acknowledged, in bytes (Kafka's `buffer.memory` default).
const BUFFER_SIZE_MAX: usize = 32 << 20;

/// Batches between the handle and the sender; the byte limit binds first, this bounds batches that are nearly empty.
const HANDOVER_MAX: usize = 1024;

/// What a record costs beyond its key, value and headers, at most: varints, deltas, attributes.
const RECORD_OVERHEAD: usize = 32;

#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// Makes the producer transactional.
    pub transactional_id: Option<String>,
    /// After how long the coordinator aborts a transaction by itself.
    pub transaction_timeout: Duration,
    pub codec: Codec,
    /// Uncompressed size at which `send` begins another batch.
    pub batch_size_bytes_max: usize,
    /// How long a batch may take from `send` to its acknowledgement, retries included.
    pub delivery_deadline: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            transactional_id: None,
            transaction_timeout: Duration::from_mins(1),
            codec: Codec::None,
            batch_size_bytes_max: 512 << 10,
            delivery_deadline: Duration::from_mins(2),
        }
    }
}

/// A record to produce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// Names and values, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The environment's clock where it is not given.
    pub timestamp: Option<Timestamp>,
}

impl Record {
    pub fn new(key: Option<Bytes>, value: Bytes) -> Self {
        Self { key, value: Some(value), ..Self::default() }
    }

    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Bytes::len) + 10).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers + RECORD_OVERHEAD
    }
}

/// A batch that the broker acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub partition: Partition,
    /// Offset of the first record; the others follow without a gap.
    pub base_offset: Offset,
    pub records: u32,
    /// CRC32C of the batch as it was sent, which the broker keeps.
    pub crc: u32,
    /// Where the topic stamps records with the time of their arrival.
    pub log_append_time: Option<Timestamp>,
}

/// The acknowledgement of one batch, to come. Dropping it forgets the answer, not the batch.
#[derive(Debug)]
pub struct Delivery {
    partition: Partition,
    answer: oneshot::Receiver<Result<Ack, ClientError>>,
}

impl Delivery {
    pub fn partition(&self) -> &Partition {
        &self.partition
    }
}

impl Future for Delivery {
    type Output = Result<Ack, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(answer.unwrap_or_else(|_| Err(producer_gone(&self.partition))))
    }
}

/// Id and epoch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
}

pub struct Producer {
    client: Client,
    config: ProducerConfig,
    identity: Identity,
    state: transaction::State,
    commands: mpsc::Sender<sender::Command>,
    room: Arc<Semaphore>,
    /// Batches without keys, so far: they go round.
    unkeyed: u64,
    /// The sender ends with the producer.
    _sender: Task<()>,
}

impl Producer {
    /// Gets a producer id. With a transactional id this fences every older producer of that id and completes what it
    /// left open, which may take until its transaction is aborted.
    pub async fn new(client: &Client, config: ProducerConfig) -> Result<Self, ClientError> {
        let client = client.with_own_connections();
        let identity = init_producer_id(&client, &config, None).await?;
        let (commands, queue) = mpsc::channel(HANDOVER_MAX);
        let sender = sender::Sender::new(client.clone(), config.clone(), identity, queue);
        let task = client.env().spawn("client-producer", sender.run());
        let unkeyed = client.env().random_u64();
        let room = Arc::new(Semaphore::new(BUFFER_SIZE_MAX));
        let state = transaction::State::new(config.transactional_id.is_some());
        Ok(Self { client, config, identity, state, commands, room, unkeyed, _sender: task })
    }

    pub fn producer_id(&self) -> ProducerId {
        self.identity.id
    }

    /// The epoch that the coordinator gave; an idempotent producer without a transactional id raises its own at need.
    pub fn producer_epoch(&self) -> ProducerEpoch {
        self.identity.epoch
    }

    /// Hands over records: keyed ones to the partition of their key as Kafka's clients do, the others to one partition
    /// per call, in turn. Waits for room, not for acknowledgements.
    pub async fn send(&mut self, topic: &TopicName, records: Vec<Record>) -> Result<Vec<Delivery>, ClientError> {
        let partitions = self.client.partitions(topic).await?;
        let count = u32::try_from(partitions.len()).expect("partition numbers fit 31 bits");
        let turn = self.unkeyed % u64::from(count);
        let turn = usize::try_from(turn).expect("below the count");
        let mut shares: Vec<Vec<Record>> = partitions.iter().map(|_| Vec::new()).collect();
        for record in records {
            let place = match &record.key {
                Some(key) => usize::try_from(partition_for_key(key, count).get()).expect("not negative"),
                None => turn,
            };
            shares[place].push(record);
        }
        self.unkeyed = self.unkeyed.wrapping_add(1);
        let mut deliveries = Vec::new();
        for (partition, share) in partitions.iter().zip(shares) {
            for batch in cut(share, self.config.batch_size_bytes_max) {
                deliveries.push(self.send_to(partition, batch).await?);
            }
        }
        Ok(deliveries)
    }

    /// Hands over records as one batch to one partition. Waits for room, not for the acknowledgement.
    ///
    /// # Panics
    /// Without any record: Kafka has no empty batches from producers.
    pub async fn send_to(&mut self, partition: &Partition, records: Vec<Record>) -> Result<Delivery, ClientError> {
        assert!(!records.is_empty(), "a batch for {partition} has records");
        self.join_transaction(partition).await?;
        let size: usize = records.iter().map(Record::size).sum();
        let size = u32::try_from(size.min(BUFFER_SIZE_MAX)).expect("the buffer is smaller than 4 GiB");
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.expect("the semaphore is never closed");
        let (sender, answer) = oneshot::channel();
        let now = self.client.env().now();
        let records = records.into_iter().map(|r| Record { timestamp: r.timestamp.or(Some(now)), ..r }).collect();
        let batch = lane::Batch::new(records, self.client.env().monotonic(), sender, room);
        let command = sender::Command::Send(partition.clone(), batch);
        self.commands.send(command).await.map_err(|_| producer_gone(partition))?;
        Ok(Delivery { partition: partition.clone(), answer })
    }

    /// Hands over records and waits for all their acknowledgements, in the order of the batches.
    pub async fn produce(&mut self, topic: &TopicName, records: Vec<Record>) -> Result<Vec<Ack>, ClientError> {
        let mut acks = Vec::new();
        for delivery in self.send(topic, records).await? {
            acks.push(delivery.await?);
        }
        Ok(acks)
    }

    /// Waits until nothing is on its way. Fails with the first failure since the last flush, or, in a transaction,
    /// since it began.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        let (done, answer) = oneshot::channel();
        self.command(sender::Command::Flush(done)).await?;
        answer.await.map_err(|_| sender_gone())?
    }

    async fn command(&self, command: sender::Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| sender_gone())
    }
}

/// A produce request with one batch for each partition.
fn produce_request<'a>(
    transactional_id: Option<&str>,
    limit: Duration,
    batches: impl IntoIterator<Item = (&'a Partition, Bytes)>,
) -> ProduceRequest {
    let batches = batches.into_iter().map(|(partition, batch)| (partition.clone(), batch));
    let topics = crate::kafka::by_topic(batches).into_iter().map(|(topic, batches)| {
        let data = |(index, batch)| PartitionProduceData::default().with_index(index).with_records(Some(batch));
        let data = batches.into_iter().map(data).collect();
        TopicProduceData::default().with_name(wire_topic(&topic)).with_partition_data(data)
    });
    ProduceRequest::default()
        .with_transactional_id(transactional_id.map(wire_transactional))
        .with_acks(-1)
        .with_timeout_ms(millis(limit))
        .with_topic_data(topics.collect())
}

fn ack(
    what: &str,
    partition: Partition,
    found: &messages::produce_response::PartitionProduceResponse,
    records: u32,
    crc: u32,
) -> Result<Ack, ClientError> {
    let Ok(base_offset) = Offset::new(found.base_offset) else {
        return Err(ClientError::Malformed {
            what: what.to_owned(),
            address: format!("the leader of {partition}"),
            reason: format!("base offset {} in an acknowledgement", found.base_offset),
        });
    };
    let time = Some(found.log_append_time_ms).filter(|ms| *ms >= 0).map(Timestamp::from_millis);
    Ok(Ack { partition, base_offset, records, crc, log_append_time: time })
}

fn refusal(what: &str, code: ErrorCode, found: &messages::produce_response::PartitionProduceResponse) -> ClientError {
    match ClientError::of_producer(what, code) {
        ClientError::Refused { what, code, .. } => {
            ClientError::Refused { what, code, message: optional_text(found.error_message.as_ref()) }
        }
        other => other,
    }
}

fn missing(what: &str, partition: &Partition) -> ClientError {
    ClientError::Malformed {
        what: what.to_owned(),
        address: format!("the leader of {partition}"),
        reason: "the answer leaves the partition out".to_owned(),
    }
}

/// A fresh id, or, for a transactional id, the next epoch: of `current` where that is still the newest (KIP-360).
async fn init_producer_id(
    client: &Client,
    config: &ProducerConfig,
    current: Option<Identity>,
) -> Result<Identity, ClientError> {
    let id = config.transactional_id.as_deref();
    let what = format!("initialise producer {}", id.unwrap_or("without a transactional id"));
    let timeout_ms = if id.is_some() { millis(config.transaction_timeout) } else { i32::MAX };
    let build = |version: i16| {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(id.map(wire_transactional))
            .with_transaction_timeout_ms(timeout_ms);
        let (id, epoch) = current.map_or((-1, -1), |i| (i.id.get(), i.epoch.get()));
        if version >= 3 {
            request.with_producer_id(messages::ProducerId(id)).with_producer_epoch(epoch)
        } else {
            request
        }
    };
    let target = id.map_or(Target::Any, |id| Target::Coordinator(CoordinatorKind::Transaction, id));
    let again = |r: &messages::InitProducerIdResponse| retriable([r.error_code].into_iter());
    let response = client.call(&what, target, Repeat::Harmless, build, again).await?;
    match code(response.error_code) {
        ErrorCode::None => {}
        code => return Err(ClientError::of_producer(what, code)),
    }
    match (ProducerId::new(response.producer_id.0), ProducerEpoch::new(response.producer_epoch)) {
        (Ok(id), Ok(epoch)) => Ok(Identity { id, epoch }),
        (Err(error), _) | (_, Err(error)) => {
            Err(ClientError::Malformed { what, address: "the coordinator".to_owned(), reason: error.to_string() })
        }
    }
}

/// Records in the same order, in batches of at most `size_max` bytes each or of one record.
fn cut(records: Vec<Record>, size_max: usize) -> Vec<Vec<Record>> {
    let mut batches: Vec<Vec<Record>> = Vec::new();
    let mut size = 0;
    for record in records {
        let more = record.size();
        match batches.last_mut() {
            Some(batch) if size + more <= size_max => {
                size += more;
                batch.push(record);
            }
            _ => {
                size = more;
                batches.push(vec![record]);
            }
        }
    }
    batches
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn producer_gone(partition: &Partition) -> ClientError {
    ClientError::NoAnswer {
        what: format!("produce to {partition}"),
        address: "the producer".to_owned(),
        reason: "it was dropped first".to_owned(),
    }
}

fn sender_gone() -> ClientError {
    ClientError::Misuse { what: "producer".to_owned(), reason: "its sender has ended" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records are cut by size, in order, and one that is too large by itself still goes.
    #[test]
    fn batches_are_cut_by_size() {
        let record = |len: usize| Record::new(None, Bytes::from(vec![0; len]));
        let sizes = |records, max| cut(records, max).iter().map(Vec::len).collect::<Vec<_>>();
        let each = 100 - RECORD_OVERHEAD;
        assert_eq!(sizes(vec![record(each); 5], 200), [2, 2, 1]);
        assert_eq!(sizes(vec![record(each), record(5000), record(each)], 200), [1, 1, 1]);
        assert_eq!(sizes(vec![], 200), Vec::<usize>::new());
    }
}
