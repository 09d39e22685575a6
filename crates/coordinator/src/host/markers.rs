//! Transaction markers on their way from a Prepare record to every partition of the transaction.
//!
//! Owns: waiting for the Prepare record, finding partitions, and repeating what did not work. Leaves to others: whether
//! a marker is there already (`log`), and what comes after the last one (`machine::txn`).
//!
//! Consistency: a marker carries the offset of its Prepare record, so that a partition tells a repetition from a new
//! transaction's (D14). It goes to the topic that the transaction wrote to, by its id: into the trash too, from where the
//! topic may come back, and never to a topic created since under the same name. Retries: without end, since the
//! transaction can end in no other way; a topic that is purged meanwhile is done. Crash: the next owner of the
//! transaction's partition sends all of its markers again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use forebay_env::{Env, FailPoint};
use forebay_format::{CoordinatorKind, MarkerKind, MarkerSummary, PrepareRef};
use forebay_log::{LogError, Partition, Partitions, ProducerError, prepared_marker};
use forebay_types::{ProducerEpoch, ProducerId, TopicPartition, WalPosition};
use forebay_wal::Wal;
use futures::StreamExt;
use tokio::sync::oneshot;

use super::groups::GroupInput;
use super::ledger::Ended;
use super::seats::Backoff;
use super::{Coordinators, Shared, internal};
use crate::machine::txn::{Input, Markers, Outcome, TxnPartition};

/// Markers of one transaction that are written at once.
const WRITES_IN_FLIGHT_MAX: usize = 64;

/// Bytes of a marker, a little rounded up.
pub(super) const MARKER_BYTES: usize = 128;

/// A partition that is being opened is back within a second.
const RETRY: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));

/// Why a marker could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    /// To be tried again: the partition has no owner at the moment, or it did not answer.
    #[error("the partition cannot be written at the moment")]
    Retry,
    /// The producer has a newer epoch in the partition: its transaction is not open there, and there is nothing to end.
    #[error("the partition knows a newer epoch of the producer")]
    Superseded,
    /// The partition knows a later coordinator of the transaction: stop.
    #[error("another coordinator has the transaction")]
    Fenced,
    /// This broker epoch is over: stop.
    #[error("the broker epoch is over")]
    Ended,
}

/// Writes markers into partitions, wherever their owner is.
#[async_trait]
pub trait MarkerSink: Send + Sync {
    /// Returns once the marker is durable, from this call or an earlier one. Cancel safe: it may then be written or not.
    ///
    /// # Errors
    /// See [`MarkerError`].
    async fn write(
        &self,
        partition: TopicPartition,
        producer: (ProducerId, ProducerEpoch),
        marker: MarkerSummary,
    ) -> Result<(), MarkerError>;
}

/// Writes into the partitions of this process.
pub struct LocalMarkers {
    env: Env,
    partitions: Arc<Partitions>,
    wal: Wal,
}

impl LocalMarkers {
    pub fn new(env: Env, partitions: Arc<Partitions>, wal: Wal) -> Self {
        Self { env, partitions, wal }
    }
}

#[async_trait]
impl MarkerSink for LocalMarkers {
    async fn write(
        &self,
        partition: TopicPartition,
        producer: (ProducerId, ProducerEpoch),
        marker: MarkerSummary,
    ) -> Result<(), MarkerError> {
        let partition = self.partitions.get(partition).map_err(|_| match self.partitions.ended() {
            Some(_) => MarkerError::Ended,
            None => MarkerError::Retry,
        })?;
        let mut admission = self.wal.admit_own(MARKER_BYTES).await.map_err(|_| MarkerError::Ended)?;
        let appended = partition.append_marker(producer, marker, self.env.now(), &mut admission);
        let position = appended.map_err(|error| refused(&partition, &error))?.position;
        self.wal.durable(position).await.map_err(|_| MarkerError::Ended)
    }
}

/// What to do about a marker that a partition did not take.
pub(super) fn refused(partition: &Partition, error: &LogError) -> MarkerError {
    match error {
        LogError::Ended(_) => MarkerError::Retry,
        LogError::Producer(ProducerError::InvalidEpoch { .. }) => MarkerError::Superseded,
        LogError::Producer(ProducerError::CoordinatorFenced { .. }) => MarkerError::Fenced,
        error => {
            let error: &dyn std::error::Error = error;
            tracing::error!(partition = %partition.id(), error, "a transaction marker was not taken; it will be tried again");
            MarkerError::Retry
        }
    }
}

/// Carries out one Prepare record, which stands at `prepared` in the WAL, or is durable. Gives what the machine is told.
pub(super) async fn carry_out(
    shared: Arc<Shared>,
    host: Weak<Coordinators>,
    markers: Markers,
    prepared: WalPosition,
) -> Result<Input, Ended> {
    if prepared > WalPosition::START {
        shared.wal.durable(prepared).await?;
        shared.env.fail_point(FailPoint::PreparedNotMarked);
    }
    let kind = match markers.outcome {
        Outcome::Commit => MarkerKind::Commit,
        Outcome::Abort => MarkerKind::Abort,
    };
    let prepare = PrepareRef { txn_leader_epoch: markers.coordinator_epoch, prepare_offset: markers.prepare_offset };
    let marker = prepared_marker(kind, markers.coordinator_epoch.get(), prepare);
    let producer = (markers.producer.id, markers.producer.epoch);
    let write = |partition: &TxnPartition| write_one(&shared, &host, partition.clone(), producer, marker);
    let count = if shared.config.sabotage_half_markers { 1 } else { markers.partitions.len() };
    let written = futures::stream::iter(markers.partitions.iter().take(count)).map(write);
    let written = written.buffer_unordered(WRITES_IN_FLIGHT_MAX);
    let written = written.collect::<Vec<Result<(), Ended>>>().await;
    written.into_iter().collect::<Result<(), Ended>>()?;
    let Markers { transactional_id, prepare_offset, partitions, .. } = markers;
    Ok(Input::MarkersWritten { transactional_id, prepare_offset, partitions })
}

/// Writes one marker, however often it takes.
async fn write_one(
    shared: &Shared,
    host: &Weak<Coordinators>,
    partition: TxnPartition,
    producer: (ProducerId, ProducerEpoch),
    marker: MarkerSummary,
) -> Result<(), Ended> {
    let mut backoff = RETRY;
    loop {
        if shared.is_over() {
            return Err(Ended);
        }
        let (topics, index) = (shared.metadata.topics(), partition.partition);
        let topic = match partition.topic_id {
            Some(id) => topics.by_id(id),
            // As Kafka would find it, who wrote the transaction down.
            None => topics.by_name(&partition.topic),
        };
        // Purged; or, by name, created again with fewer partitions.
        let Some(topic) = topic.filter(|topic| topic.partition(index).is_some()) else { return Ok(()) };
        let written = if topic.is_live() && topic.name == *internal::name(CoordinatorKind::Group) {
            // The group machine must see its markers in the order of its log.
            let inputs = host.upgrade().ok_or(Ended)?.group_inputs(index);
            let (reply, answer) = oneshot::channel();
            inputs.send(GroupInput::Marker { producer, marker, reply }).await;
            answer.await.unwrap_or(Err(MarkerError::Retry))
        } else {
            let id = TopicPartition { topic: topic.id, partition: index };
            shared.markers.write(id, producer, marker).await
        };
        match written {
            Ok(()) => return Ok(()),
            Err(MarkerError::Retry) => backoff.wait(&shared.env).await,
            Err(MarkerError::Superseded) => {
                tracing::warn!(%partition, producer = %producer.0, epoch = %producer.1,
                    "a transaction had nothing to end in a partition that knows a newer epoch of its producer");
                return Ok(());
            }
            Err(MarkerError::Fenced) => {
                tracing::error!(%partition, producer = %producer.0, epoch = marker.coordinator_epoch,
                    "a transaction's marker was refused: a later coordinator has written there");
                return Err(Ended);
            }
            Err(MarkerError::Ended) => return Err(Ended),
        }
    }
}
