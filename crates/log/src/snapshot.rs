//! Full producer state, packed for many partitions in one object, so that opening a partition reads few footers (D8), and
//! so that footers below a log start may go: until a snapshot stands above them they are needed to open.
//!
//! Taken by the uploader now and then and when it drains, and by whoever waits to let footers go (`upkeep`).
//!
//! Cancellation and crash: a snapshot that was created but not committed is garbage, and the next one is as good. No
//! error here is more than a warning: without a snapshot, opening reads more footers.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_env::Env;
use forebay_format::{EncodedSnapshot, ObjectName, PartitionProducers, ProducerSnapshotWriter, SnapshotHead};
use forebay_metadata::command::{SNAPSHOTS_PER_COMMAND_MAX, SnapshotAt};
use forebay_metadata::{BrokerLife, Command, Metadata};
use forebay_store::{Body, Key, Store, create_exact};
use forebay_types::{ClusterId, LogId, TopicPartition};
use tokio::sync::Mutex;

use crate::partition::Partition;
use crate::partitions::Partitions;

/// Takes snapshots for one broker epoch.
pub(crate) struct Snapshots {
    env: Env,
    store: Arc<dyn Store>,
    metadata: Arc<dyn Metadata>,
    cluster: ClusterId,
    life: BrokerLife,
    /// Held while a snapshot is written: of two at once, the later could be referenced first, and the other be refused.
    next_number: Mutex<u64>,
}

impl Snapshots {
    pub fn new(
        env: Env,
        store: Arc<dyn Store>,
        metadata: Arc<dyn Metadata>,
        cluster: ClusterId,
        life: BrokerLife,
    ) -> Self {
        Self { env, store, metadata, cluster, life, next_number: Mutex::new(0) }
    }

    /// Writes the state that the given partitions have at their committed ends.
    pub async fn take(&self, partitions: &Partitions, wanted: BTreeSet<TopicPartition>) {
        let open: Vec<Arc<Partition>> = wanted.into_iter().filter_map(|id| partitions.get(id).ok()).collect();
        let mut next_number = self.next_number.lock().await;
        for some in open.chunks(SNAPSHOTS_PER_COMMAND_MAX) {
            let number = *next_number;
            *next_number += 1;
            if let Err(error) = self.write(number, some).await {
                tracing::warn!(error = &*error, "a producer snapshot could not be written; the next one will be");
            }
        }
    }

    async fn write(
        &self,
        number: u64,
        partitions: &[Arc<Partition>],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let BrokerLife { broker, epoch } = self.life;
        let head = SnapshotHead {
            cluster: self.cluster.clone(),
            broker,
            broker_epoch: epoch,
            number,
            written_at: self.env.now(),
        };
        let states: Vec<Taken> = partitions.iter().map(|partition| Taken::of(partition)).collect();
        let taken = states.iter().map(|state| state.at).collect::<Vec<SnapshotAt>>();
        let encoded = self.env.blocking("encode-producers", move || encode(head, &states)).await;
        let EncodedSnapshot { chunks, size, .. } = encoded;
        let object = ObjectName::ProducerSnapshot { broker, epoch, number }.to_string();
        create_exact(&self.env, &*self.store, &Key::new(&object)?, Body::from(chunks)).await?;
        let name: Arc<str> = object.as_str().into();
        let command = Command::PutProducerSnapshot { life: self.life, object, size, partitions: taken.clone() };
        self.metadata.submit(command).await?;
        for (partition, SnapshotAt { at, .. }) in partitions.iter().zip(taken) {
            partition.set_producer_snapshot(Arc::clone(&name), at);
        }
        Ok(())
    }
}

/// One partition's state, shared with the partition.
struct Taken {
    log: LogId,
    at: SnapshotAt,
    producers: PartitionProducers,
}

impl Taken {
    fn of(partition: &Partition) -> Self {
        let (at, producers) = partition.snapshot_producers();
        let at = SnapshotAt { partition: partition.id(), leader_epoch: partition.leader_epoch(), at };
        Self { log: partition.log(), at, producers }
    }
}

/// Work that grows with the producers, so not for the runtime's threads.
fn encode(head: SnapshotHead, states: &[Taken]) -> EncodedSnapshot {
    let mut writer = ProducerSnapshotWriter::new(head);
    for Taken { log, at, producers } in states {
        writer.push(at.partition, *log, at.at, producers);
    }
    writer.finish()
}
