//! `TransactionLogKey` v0 and `TransactionLogValue` v0–1: the state of one transactional id.

use bytes::Bytes;

use super::{Reader, SchemaError, Writer};

/// Which transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionLogKey {
    pub transactional_id: String,
}

impl TransactionLogKey {
    /// # Errors
    /// The bytes are not such a key. A key of another version is a kind of record that a newer Kafka may write.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        let mut reader = Reader::new("TransactionLogKey", bytes);
        reader.version(0)?;
        let key = Self { transactional_id: reader.string("TransactionalId", false)? };
        reader.end()?;
        Ok(key)
    }

    pub fn encode(transactional_id: &str) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(0);
        writer.string(transactional_id);
        writer.finish()
    }
}

/// The state. Version 0 is written: Transactions V1 has nothing to say in version 1's tagged fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionLogValue {
    pub producer_id: i64,
    /// The producer id of the last committed transaction; -1 for none. Only read (version 1).
    pub previous_producer_id: i64,
    /// The producer id last given to the client; -1 for none. Only read (version 1).
    pub next_producer_id: i64,
    pub producer_epoch: i16,
    pub timeout_ms: i32,
    /// 0 Empty, 1 Ongoing, 2 PrepareCommit, 3 PrepareAbort, 4 CompleteCommit, 5 CompleteAbort, 6 Dead, 7 PrepareEpochFence.
    pub status: i8,
    /// `None` in state Empty, as Kafka writes it.
    pub partitions: Option<Vec<TransactionLogTopic>>,
    /// Milliseconds since 1970.
    pub last_update_ms: i64,
    /// Milliseconds since 1970; -1 for none.
    pub start_ms: i64,
    /// 0 for Transactions V1. Only read (version 1).
    pub client_transaction_version: i16,
}

/// Partitions of one topic in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionLogTopic {
    pub topic: String,
    pub partitions: Vec<i32>,
}

impl TransactionLogValue {
    /// # Errors
    /// The bytes are not such a value, or one of a version that is not known.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        let mut reader = Reader::new("TransactionLogValue", bytes);
        let flexible = reader.version(1)? >= 1;
        let mut value = Self {
            producer_id: reader.i64("ProducerId")?,
            previous_producer_id: -1,
            next_producer_id: -1,
            producer_epoch: reader.i16("ProducerEpoch")?,
            timeout_ms: reader.i32("TransactionTimeoutMs")?,
            status: reader.i8("TransactionStatus")?,
            partitions: read_topics(&mut reader, flexible)?,
            last_update_ms: reader.i64("TransactionLastUpdateTimestampMs")?,
            start_ms: reader.i64("TransactionStartTimestampMs")?,
            client_transaction_version: 0,
        };
        if flexible {
            reader.tagged(|tag, field| {
                match tag {
                    0 => value.previous_producer_id = field.i64("PreviousProducerId")?,
                    1 => value.next_producer_id = field.i64("NextProducerId")?,
                    2 => value.client_transaction_version = field.i16("ClientTransactionVersion")?,
                    _ => {}
                }
                Ok(())
            })?;
        }
        reader.end()?;
        Ok(value)
    }

    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(0);
        writer.i64(self.producer_id);
        writer.i16(self.producer_epoch);
        writer.i32(self.timeout_ms);
        writer.i8(self.status);
        match &self.partitions {
            None => writer.i32(-1),
            Some(topics) => {
                writer.count(topics.len());
                for topic in topics {
                    writer.string(&topic.topic);
                    writer.count(topic.partitions.len());
                    for partition in &topic.partitions {
                        writer.i32(*partition);
                    }
                }
            }
        }
        writer.i64(self.last_update_ms);
        writer.i64(self.start_ms);
        writer.finish()
    }
}

fn read_topics(reader: &mut Reader<'_>, flexible: bool) -> Result<Option<Vec<TransactionLogTopic>>, SchemaError> {
    let Some(count) = reader.count("TransactionPartitions", flexible)? else { return Ok(None) };
    let mut topics = Vec::new();
    for _ in 0..count {
        let topic = reader.string("Topic", flexible)?;
        let mut partitions = Vec::new();
        for _ in 0..reader.count("PartitionIds", flexible)?.unwrap_or(0) {
            partitions.push(reader.i32("PartitionIds")?);
        }
        if flexible {
            reader.tagged(|_, _| Ok(()))?;
        }
        topics.push(TransactionLogTopic { topic, partitions });
    }
    Ok(Some(topics))
}
