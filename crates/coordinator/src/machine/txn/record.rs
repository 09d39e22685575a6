//! An entry as a record of `__transaction_state`, and back.
//!
//! Owns: the conversion, with Kafka's -1 at the edge. Leaves to others: the bytes (`schema`).
//!
//! Invariants:
//! 1. The record holds the whole entry, deadlines and marker progress aside: reading it gives the entry that wrote it.
//! 2. Value and key are what Kafka 3.9 writes. What has no room in them stands in headers, which Kafka's readers pass
//!    over: the producer before a bump of its own (`lastProducerId`, `lastProducerEpoch`, which Kafka keeps in memory
//!    only), and the ids of the value's topics. Two topics of one name are two entries of the value.

use std::collections::BTreeSet;

use bytes::Bytes;
use forebay_types::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicName};
use uuid::Uuid;

use super::super::{Producer, Record};
use super::entry::{Entry, state_of};
use super::io::{TxnPartition, TxnStatus};
use crate::schema::{SchemaError, TransactionLogKey, TransactionLogTopic, TransactionLogValue};

/// Producer id (8 bytes) and epoch (2 bytes), big-endian.
const PREVIOUS: &str = "forebay.previous-producer";
/// The ids of the value's topics, 16 bytes each, in the value's order; nil for one that is not known. Absent where none is.
pub(super) const TOPIC_IDS: &str = "forebay.topic-ids";
/// Kafka's "no timestamp".
const NO_START: i64 = -1;

/// Why a record of the log tells no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("{field} of transactional id {id:?} cannot be {value}")]
    Value { id: String, field: &'static str, value: String },
}

pub(super) fn of(entry: &Entry) -> Record {
    let mut topics: Vec<TransactionLogTopic> = Vec::new();
    let mut ids: Vec<Option<TopicId>> = Vec::new();
    for TxnPartition { topic, topic_id, partition } in entry.partitions().into_iter().flatten() {
        match topics.last_mut() {
            Some(last) if last.topic == topic.as_str() && ids.last() == Some(topic_id) => {
                last.partitions.push(partition.get());
            }
            _ => {
                let partitions = vec![partition.get()];
                topics.push(TransactionLogTopic { topic: topic.as_str().to_owned(), partitions });
                ids.push(*topic_id);
            }
        }
    }
    let status = entry.status();
    let producer = entry.producer();
    let value = TransactionLogValue {
        producer_id: producer.id.get(),
        previous_producer_id: -1,
        next_producer_id: -1,
        producer_epoch: producer.epoch.get(),
        timeout_ms: entry.timeout_ms,
        status: status.id(),
        partitions: (status != TxnStatus::Empty).then_some(topics),
        last_update_ms: entry.updated.as_millis(),
        start_ms: entry.started().map_or(NO_START, Timestamp::as_millis),
        client_transaction_version: 0,
    };
    let previous = entry.previous().map(|previous| {
        let mut bytes = previous.id.get().to_be_bytes().to_vec();
        bytes.extend(previous.epoch.get().to_be_bytes());
        (PREVIOUS, Bytes::from(bytes))
    });
    let known = ids.iter().any(Option::is_some);
    let topic_ids = known.then(|| (TOPIC_IDS, ids.into_iter().flat_map(bytes_of).collect::<Bytes>()));
    Record {
        key: TransactionLogKey::encode(&entry.id),
        value: Some(value.encode()),
        headers: previous.into_iter().chain(topic_ids).collect(),
    }
}

pub(super) fn tombstone(id: &str) -> Record {
    Record { key: TransactionLogKey::encode(id), value: None, headers: Vec::new() }
}

/// The entry that wrote the record at `offset`.
pub(super) fn read(
    offset: Offset,
    id: &str,
    value: &[u8],
    headers: &[(Bytes, Option<Bytes>)],
) -> Result<Entry, RecordProblem> {
    let value = TransactionLogValue::parse(value)?;
    let bad = |field, value: &dyn std::fmt::Display| RecordProblem::Value {
        id: id.to_owned(),
        field,
        value: value.to_string(),
    };
    let producer = Producer {
        id: ProducerId::new(value.producer_id).map_err(|_| bad("producer id", &value.producer_id))?,
        epoch: ProducerEpoch::new(value.producer_epoch).map_err(|_| bad("producer epoch", &value.producer_epoch))?,
    };
    let status = TxnStatus::from_id(value.status).ok_or_else(|| bad("state", &value.status))?;
    let topics = value.partitions.unwrap_or_default();
    let ids = match header(headers, TOPIC_IDS) {
        None => vec![None; topics.len()],
        Some(bytes) => read_topic_ids(bytes, topics.len())
            .ok_or_else(|| bad("topic ids", &format!("{bytes:?} for {} topics", topics.len())))?,
    };
    let mut partitions = BTreeSet::new();
    for (TransactionLogTopic { topic, partitions: indexes }, topic_id) in topics.into_iter().zip(ids) {
        let topic = TopicName::new(&topic).map_err(|_| bad("topic", &topic))?;
        for index in indexes {
            let partition = PartitionIndex::new(index).map_err(|_| bad("partition", &index))?;
            partitions.insert(TxnPartition { topic: topic.clone(), topic_id, partition });
        }
    }
    let previous = match header(headers, PREVIOUS) {
        None => None,
        Some(bytes) => Some(read_previous(bytes).ok_or_else(|| bad("previous producer", &format!("{bytes:?}")))?),
    };
    let mut entry = Entry::new(id, producer, value.timeout_ms);
    entry.set_producer(producer, previous);
    entry.state = state_of(status, Timestamp::from_millis(value.start_ms), partitions);
    entry.updated = Timestamp::from_millis(value.last_update_ms);
    entry.last_offset = offset;
    Ok(entry)
}

/// The value of a header, empty where it is null.
fn header<'a>(headers: &'a [(Bytes, Option<Bytes>)], name: &str) -> Option<&'a [u8]> {
    let found = headers.iter().rev().find(|(key, _)| key[..] == *name.as_bytes());
    found.map(|(_, value)| value.as_deref().unwrap_or_default())
}

/// A topic's id, nil where it is not known.
pub(super) fn bytes_of(id: Option<TopicId>) -> [u8; 16] {
    id.map_or([0; 16], |id| id.get().into_bytes())
}

pub(super) fn topic_id_of(bytes: [u8; 16]) -> Option<TopicId> {
    TopicId::new(Uuid::from_bytes(bytes)).ok()
}

/// One id for each of so many topics.
fn read_topic_ids(bytes: &[u8], topics: usize) -> Option<Vec<Option<TopicId>>> {
    let (ids, rest) = bytes.as_chunks::<16>();
    (rest.is_empty() && ids.len() == topics).then(|| ids.iter().map(|id| topic_id_of(*id)).collect())
}

fn read_previous(bytes: &[u8]) -> Option<Producer> {
    let (id, epoch) = bytes.split_first_chunk::<8>()?;
    let id = ProducerId::new(i64::from_be_bytes(*id)).ok()?;
    let epoch = ProducerEpoch::new(i16::from_be_bytes(epoch.try_into().ok()?)).ok()?;
    Some(Producer { id, epoch })
}
