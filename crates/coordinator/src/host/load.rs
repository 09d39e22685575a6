//! Opening a machine: the newest snapshot, then every record of the log from there on (D14).
//!
//! Owns: what is read, in what pieces, and that all of it is durable. Leaves to others: what records mean (`machine`).
//!
//! Invariants:
//! 1. Reading begins after everything that an earlier machine of this broker epoch appended is durable.
//! 2. Records are taken in the order of their offsets, each once, from the snapshot's offset up to the log end. Those
//!    that a corrupt WAL took are passed over and named: as in Kafka, a coordinator goes on with what its log has.
//! 3. A machine never knows more than its log: the next record's offset would have been used before, and what is
//!    appended below a snapshot is not replayed by the next opening. Such a partition stays closed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_format::{CoordinatorKind, CoordinatorSnapshot, FormatError};
use forebay_log::{ColdError, Isolation, LogError, Partition, ReadRequest};
use forebay_metadata::state::SnapshotRef;
use forebay_metadata::{Command, Reply, SubmitError};
use forebay_store::{Key, StoreError};
use forebay_types::{Offset, PartitionIndex, ProducerId};
use forebay_wire::batch::{Batches, parse_marker, records};
use forebay_wire::{BatchError, MarkerKind};

use super::Shared;
use super::ledger::Ended;
use super::seats::Backoff;
use crate::machine::txn;
use crate::schema::SchemaError;

/// Bytes of the log read and replayed at once: a few milliseconds of work.
const READ_BYTES: usize = 4 << 20;

/// What one batch may be decompressed to. Ours are not compressed; a topic copied from Kafka may have others.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Between tries to open a partition: what does not answer may do so soon, what cannot be read should not fill the log.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// Why a partition could not be opened. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the broker epoch is over")]
    Ended,
    #[error(transparent)]
    Metadata(#[from] SubmitError),
    #[error("could not read snapshot {object}")]
    Store { object: String, source: StoreError },
    #[error("could not read snapshot {object}")]
    Format { object: String, source: FormatError },
    #[error("snapshot {object} is not the one that the partition names: {what}")]
    Snapshot { object: String, what: &'static str },
    #[error(
        "{partition} ends at offset {end}, below offset {at} of its snapshot {object}: the device of the write-ahead log \
         lost what it had said to be durable; the partition stays closed, for those offsets were in use: use other group \
         or transactional ids, or put bucket and data folder back together from one backup"
    )]
    Cut { partition: String, end: Offset, at: Offset, object: String },
    #[error(
        "{partition} ends at offset {end}, but its snapshot or a record of it tells of records up to {known}, which this log \
         never had: put bucket and data folder back together from one backup"
    )]
    Ahead { partition: String, end: Offset, known: Offset },
    #[error("could not read the log")]
    Log(#[from] LogError),
    #[error("the log ends at offset {at}, before its end {end}")]
    Short { at: Offset, end: Offset },
    #[error("could not read the batch at offset {at}")]
    Batch { at: Offset, source: BatchError },
    #[error("the record at offset {at} has no key")]
    NoKey { at: Offset },
    #[error("could not read the record at offset {at}")]
    Record { at: Offset, source: SchemaError },
    #[error("could not read a snapshot of groups")]
    Groups(#[source] SchemaError),
    #[error(transparent)]
    Txns(#[from] txn::LoadError),
}

/// What replay hands over, in the order of the log.
pub(super) enum Entry<'a> {
    Record {
        offset: Offset,
        /// Where its batch is transactional.
        producer: Option<ProducerId>,
        key: &'a [u8],
        value: Option<&'a [u8]>,
        headers: &'a [(Bytes, Option<Bytes>)],
    },
    Marker {
        producer: ProducerId,
        committed: bool,
    },
}

/// A machine that is being loaded.
pub(super) trait Loader: Sized + Send + 'static {
    const KIND: CoordinatorKind;

    fn new(shared: &Shared) -> Self;

    /// From the bytes that a machine of the same kind put into a snapshot.
    fn restore(shared: &Shared, payload: &[u8]) -> Result<Self, LoadError>;

    fn take(&mut self, entry: Entry<'_>) -> Result<(), LoadError>;

    /// The offset behind the last record that it knows of, for a machine that keeps it.
    fn known_end(&self) -> Option<Offset> {
        None
    }
}

/// A machine that was loaded, and what of.
pub(super) struct Loaded<L> {
    pub loader: L,
    pub partition: Arc<Partition>,
    /// The snapshot that opening began with.
    pub snapshot_at: Option<Offset>,
    /// Records and markers read behind it.
    pub replayed: u64,
}

/// Loads the machine of a partition, again and again until it can be. `None` where the broker epoch ended meanwhile.
pub(super) async fn load<L: Loader>(shared: &Arc<Shared>, index: PartitionIndex) -> Option<Loaded<L>> {
    let mut backoff = RETRY;
    loop {
        if shared.is_over() {
            return None;
        }
        if let Some(partition) = shared.partition(L::KIND, index) {
            match load_once(shared, partition).await {
                Ok(loaded) => return Some(loaded),
                Err(LoadError::Ended) => return None,
                Err(error) => tracing::error!(
                    topic = %super::internal::name(L::KIND), partition = %index, error = &error as &dyn std::error::Error,
                    "a coordinator could not be opened; it will be tried again"
                ),
            }
        }
        tokio::select! {
            biased;
            () = shared.stopping.triggered() => return None,
            () = backoff.wait(&shared.env) => {}
        }
    }
}

async fn load_once<L: Loader>(shared: &Arc<Shared>, partition: Arc<Partition>) -> Result<Loaded<L>, LoadError> {
    let end = partition.log_end();
    shared.wal.durable(partition.position()).await.map_err(|_| LoadError::Ended)?;
    let snapshot = snapshot_of(shared, &partition).await?;
    let snapshot_at = snapshot.as_ref().map(|snapshot| snapshot.at);
    let name = || format!("{}-{}", super::internal::name(L::KIND), partition.id().partition);
    if let Some(SnapshotRef { object, at }) = snapshot.clone().filter(|snapshot| snapshot.at > end) {
        return Err(LoadError::Cut { partition: name(), end, at, object });
    }
    let mut loader = match snapshot {
        None => L::new(shared),
        Some(reference) => {
            let payload = read_snapshot::<L>(shared, &partition, &reference).await?;
            let shared = Arc::clone(shared);
            shared.env.clone().blocking("coordinator-restore", move || L::restore(&shared, &payload)).await?
        }
    };
    let from = snapshot_at.unwrap_or(Offset::ZERO).max(partition.offsets()?.log_start);
    let mut next = from;
    let mut replayed = 0;
    while next < end {
        let request = ReadRequest {
            from: next,
            isolation: Isolation::ReadUncommitted,
            bytes_max: READ_BYTES,
            at_least_one: true,
        };
        let read = match partition.read(request).await {
            Err(LogError::Cold(error @ ColdError::Lost { range, .. })) => {
                // Closed for ever, it would take every group or transaction of the partition with it.
                tracing::error!(
                    topic = %super::internal::name(L::KIND), error = &error as &dyn std::error::Error,
                    "a coordinator opens without some of its records: what they decided is forgotten"
                );
                next = range.end();
                continue;
            }
            read => read?,
        };
        let work = move || {
            let mut entries = 0;
            for run in &read.batches {
                entries += replay(run, from, &mut next, &mut loader)?;
            }
            Ok::<_, LoadError>((loader, next, entries))
        };
        let before = next;
        let entries: u64;
        (loader, next, entries) = shared.env.blocking("coordinator-replay", work).await?;
        replayed += entries;
        if next == before {
            return Err(LoadError::Short { at: next, end });
        }
    }
    if let Some(known) = loader.known_end().filter(|known| *known > end) {
        return Err(LoadError::Ahead { partition: name(), end, known });
    }
    assert_eq!(partition.log_end(), end, "nobody appends to a coordinator's partition while it is opened");
    Ok(Loaded { loader, partition, snapshot_at, replayed })
}

/// The newest snapshot of the partition. Opening a partition again under the same broker epoch changes nothing and
/// answers what it is opened from.
async fn snapshot_of(shared: &Shared, partition: &Partition) -> Result<Option<SnapshotRef>, LoadError> {
    let command = Command::OpenPartitions { life: shared.life, partitions: vec![partition.id()] };
    let opened = match shared.metadata.submit(command).await {
        Ok(Reply::Opened(opened)) => opened,
        Ok(other) => unreachable!("opening partitions is answered with them, not with {other:?}"),
        Err(SubmitError::Ended(_)) => return Err(LoadError::Ended),
        Err(error) => return Err(error.into()),
    };
    let opened = opened.into_iter().next().expect("one partition was asked for");
    assert_eq!(
        opened.leader_epoch,
        partition.leader_epoch(),
        "a broker epoch opens a partition under one leader epoch"
    );
    Ok(opened.coordinator_snapshot)
}

async fn read_snapshot<L: Loader>(
    shared: &Shared,
    partition: &Partition,
    reference: &SnapshotRef,
) -> Result<Bytes, LoadError> {
    let object = || reference.object.clone();
    let foreign = |what| LoadError::Snapshot { object: object(), what };
    let key = Key::new(&reference.object).map_err(|_| foreign("it has no name that an object can have"))?;
    let bytes = shared.store.get(&key).await.map_err(|source| LoadError::Store { object: object(), source })?;
    let snapshot =
        CoordinatorSnapshot::parse(&bytes).map_err(|source| LoadError::Format { object: object(), source })?;
    if snapshot.kind != L::KIND {
        return Err(foreign("it is of another kind of coordinator"));
    }
    if (snapshot.partition, snapshot.at) != (partition.id(), reference.at) {
        return Err(foreign("it is of another partition or offset"));
    }
    Ok(snapshot.payload)
}

/// Replays a run of batches from offset `from` on, and moves `next` behind them. Gives the number of entries.
fn replay(run: &Bytes, from: Offset, next: &mut Offset, loader: &mut impl Loader) -> Result<u64, LoadError> {
    let mut entries = 0;
    for batch in Batches::new(run) {
        let batch = batch.map_err(|source| LoadError::Batch { at: *next, source })?;
        let header = batch.header;
        let out_of_range =
            || LoadError::Batch { at: *next, source: BatchError::Offset { base_offset: header.base_offset } };
        let base = Offset::new(header.base_offset).map_err(|_| out_of_range())?;
        let end = Offset::new(header.last_offset()).map_err(|_| out_of_range())?.next();
        let failed = |source| LoadError::Batch { at: base, source };
        let producer = ProducerId::new(header.producer_id).ok().filter(|_| header.is_transactional());
        if header.is_control() {
            let marker = parse_marker(batch.bytes).map_err(failed)?;
            if let (Some(producer), true) = (producer, base >= from) {
                loader.take(Entry::Marker { producer, committed: marker.kind == MarkerKind::Commit })?;
                entries += 1;
            }
        } else {
            let bytes = run.slice(batch.position..batch.position + header.size());
            for record in records(&bytes, BATCH_BYTES_MAX).map_err(failed)? {
                let record = record.map_err(failed)?;
                let offset = base.checked_add(i64::from(record.offset_delta)).ok_or_else(out_of_range)?;
                if offset < from {
                    continue;
                }
                let key = record.key.as_deref().ok_or(LoadError::NoKey { at: offset })?;
                let (value, headers) = (record.value.as_deref(), &record.headers[..]);
                loader.take(Entry::Record { offset, producer, key, value, headers })?;
                entries += 1;
            }
        }
        *next = end.max(*next);
    }
    Ok(entries)
}

impl From<LoadError> for Ended {
    fn from(_: LoadError) -> Self {
        Self
    }
}
