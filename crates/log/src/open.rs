//! Opening partitions: ownership from the metadata, producer state from the last snapshot and the footers since.
//!
//! Owns: the order (ownership first, so that nobody else writes what is read then), and how much is read at once.
//! Leaves to others: what is in the WAL, which must be in the bucket before (`recover`).
//!
//! Retries: while the bucket or the metadata is away as a whole it is asked again until it answers. What cannot be read at
//! all, or does not answer though the bucket does, leaves the partitions closed that need it, with an error in the log; all
//! others open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::Env;
use forebay_format::{PartitionProducers, ProducerSnapshotIndex, Section, SnapshotIndexParse};
use forebay_metadata::command::{Opened, PARTITIONS_PER_OPEN_MAX};
use forebay_metadata::state::SnapshotRef;
use forebay_metadata::{BrokerLife, Command, Metadata, Reply, SubmitError};
use forebay_store::{Key, Span, Store};
use forebay_types::{LogId, Offset, TopicPartition};
use forebay_wal::Wal;
use futures::StreamExt;

use crate::cold::{ColdError, ColdReader, Patience, Source, Unread, reread};
use crate::partition::{Partition, PartitionHead, PartitionParts, Planted, ProducerSnapshot};
use crate::producers::Producers;

/// Partitions whose state is read at once: as many GETs are in flight, and as many states in memory.
const OPENS_IN_FLIGHT_MAX: usize = 16;

/// Partitions asked for in one command: their epochs rise together, and others need not wait for all of them.
const OPEN_BATCH: usize = 1_000;
const _: () = assert!(OPEN_BATCH <= PARTITIONS_PER_OPEN_MAX);

/// Partitions that one line of the log names.
const CLOSED_NAMED_MAX: usize = 20;

/// Between tries against a metadata that does not answer.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// Opens partitions for one broker epoch.
pub(crate) struct Opener {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub metadata: Arc<dyn Metadata>,
    pub life: BrokerLife,
    pub wal: Wal,
    pub cold: Arc<ColdReader>,
    /// See [`crate::LogConfig::sabotage_forget_producers`].
    pub forget_producers: bool,
    pub planted: Planted,
}

impl Opener {
    pub fn metadata(&self) -> &dyn Metadata {
        &*self.metadata
    }

    /// Opens the given partitions; those that cannot be are left out.
    pub async fn open(&self, wanted: Vec<TopicPartition>) -> BTreeMap<TopicPartition, Partition> {
        let patience = Patience::new(&self.env, &self.store);
        let mut open = BTreeMap::new();
        let mut closed: BTreeMap<String, Vec<TopicPartition>> = BTreeMap::new();
        for some in wanted.chunks(OPEN_BATCH) {
            let opened = self.own(some.to_vec()).await;
            let one_open = |one| self.open_one(one, &patience);
            let mut states = futures::stream::iter(opened).map(one_open).buffered(OPENS_IN_FLIGHT_MAX);
            while let Some((id, partition)) = states.next().await {
                match partition {
                    Ok(partition) => drop(open.insert(id, partition)),
                    Err(Unread::Silent(what)) => closed.entry(what).or_default().push(id),
                    Err(Unread::Cold(error)) => {
                        tracing::error!(
                            partition = self.name(id),
                            error = &error as &dyn std::error::Error,
                            "the partition stays closed: its producer state cannot be read"
                        );
                    }
                }
            }
        }
        for (what, partitions) in closed {
            let named =
                partitions.iter().take(CLOSED_NAMED_MAX).map(|id| self.name(*id)).collect::<Vec<_>>().join(", ");
            tracing::error!(
                what,
                count = partitions.len(),
                partitions = named,
                "partitions stay closed: what they are opened from does not answer"
            );
        }
        open
    }

    /// For the log: as an operator knows it.
    fn name(&self, id: TopicPartition) -> String {
        let topic = self.metadata.topics().by_id(id.topic);
        topic.map_or_else(|| id.to_string(), |topic| format!("{}-{}", topic.name, id.partition))
    }

    /// Takes ownership under new leader epochs.
    async fn own(&self, partitions: Vec<TopicPartition>) -> Vec<Opened> {
        let command = Command::OpenPartitions { life: self.life, partitions };
        loop {
            match self.metadata.submit(command.clone()).await {
                Ok(Reply::Opened(opened)) => return opened,
                Ok(other) => unreachable!("opening partitions is answered with them, not with {other:?}"),
                Err(error @ (SubmitError::Refused(_) | SubmitError::Ended(_))) => {
                    // A topic deleted meanwhile, or this broker epoch is over: the metadata's next change tells.
                    tracing::warn!(error = &error as &dyn std::error::Error, "partitions could not be opened");
                    return Vec::new();
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "opening partitions will be tried again");
                }
            }
            self.env.sleep(RETRY_WAIT).await;
        }
    }

    async fn open_one(&self, opened: Opened, patience: &Patience) -> (TopicPartition, Result<Partition, Unread>) {
        let producers = self.producers(&opened, patience).await;
        (opened.partition, producers.map(|producers| self.partition(opened, producers)))
    }

    fn partition(&self, opened: Opened, producers: Producers) -> Partition {
        let snapshot = opened.producer_snapshot.as_ref();
        let snapshot = snapshot.map(|s| ProducerSnapshot { object: Arc::from(s.object.as_str()), at: s.at });
        let head = PartitionHead {
            partition: opened.partition,
            log: opened.log,
            leader_epoch: opened.leader_epoch,
            epoch_start: opened.epoch_start,
            epochs: opened.epochs,
        };
        let parts = PartitionParts { env: self.env.clone(), wal: self.wal.clone(), cold: Arc::clone(&self.cold) };
        let partition = Partition::open(head, opened.log_start, opened.committed_end, producers, snapshot, parts);
        partition.planted(self.planted)
    }

    /// The state at the committed end: the snapshot's, moved past every footer since, of records below the log start too.
    async fn producers(&self, opened: &Opened, patience: &Patience) -> Result<Producers, Unread> {
        if self.forget_producers {
            return Ok(Producers::default());
        }
        let source = Source { partition: opened.partition, log: opened.log };
        let (mut producers, at) = match &opened.producer_snapshot {
            Some(snapshot) => {
                let once = || read_snapshot(&*self.store, snapshot, opened.partition, opened.log);
                let read = || async { Ok(reread(once).await?) };
                let found = patience.read(&snapshot.object, read).await?;
                (Producers::restore(found, self.env.monotonic()), snapshot.at)
            }
            None => (Producers::default(), Offset::ZERO),
        };
        let now = self.env.monotonic();
        let absorb = |section: &Section| producers.absorb(&section.changes, &section.aborted, now);
        self.cold.for_each_section(source, at, opened.committed_end, patience, absorb).await?;
        producers.forget_below(opened.log_start);
        Ok(producers)
    }
}

/// Reads one partition's producers out of a snapshot object.
async fn read_snapshot(
    store: &dyn Store,
    snapshot: &SnapshotRef,
    partition: TopicPartition,
    log: LogId,
) -> Result<PartitionProducers, ColdError> {
    /// More than the index of a few hundred partitions.
    const FIRST_READ: u64 = 64 << 10;
    let key = Key::new(&snapshot.object).map_err(|_| ColdError::no_snapshot(snapshot, partition))?;
    let mut span = Span::Last(FIRST_READ);
    let (index, tail_start, tail) = loop {
        let object = store.read(&key, span).await?;
        let size = object.meta.size;
        match ProducerSnapshotIndex::parse(&object.bytes, size).map_err(|e| e.in_object(&key))? {
            SnapshotIndexParse::Whole(index) => break (index, object.start, object.bytes),
            SnapshotIndexParse::NeedMore { from } if from < object.start => span = Span::From(from),
            SnapshotIndexParse::NeedMore { .. } => return Err(ColdError::no_snapshot(snapshot, partition)),
        }
    };
    let found = index.find(partition, log).filter(|found| found.at == snapshot.at);
    let place = found.ok_or_else(|| ColdError::no_snapshot(snapshot, partition))?;
    let (start, end) = (place.position, place.position + u64::from(place.length));
    let bytes = if start >= tail_start {
        let at = |position: u64| usize::try_from(position - tail_start).expect("within what was read");
        tail.slice(at(start)..at(end))
    } else {
        store.get_range(&key, start..end).await?
    };
    place.parse(&bytes).map_err(|error| error.in_object(&key).into())
}
