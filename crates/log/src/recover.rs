//! The takeover of oneself: what earlier lives of this broker left in their WALs goes to the bucket before any
//! partition is opened (D1, D6).
//!
//! Per life, oldest first: mark it sealed in the metadata, seal its WAL, move what is not committed into data objects
//! (`disk`) or only commit the objects that are there (`object`), then close it. Each step may be repeated after a crash.
//!
//! What corrupt WAL writes took is committed like what others held, as lost offsets: they stay taken, and a reader there
//! is told. Which offsets those are the tallies of later writes say. Where none does, every partition of that life that
//! nothing shows the end of is moved on past all that the writes can have held.
//!
//! Owns: that order. Leaves to others: what is torn and what is corrupt, and what a corrupt write held (`wal`), whether a
//! commit counts (`metadata`).
//!
//! Invariants:
//! 1. A life is closed only when all that it acknowledged is committed, as records or as lost offsets.
//! 2. No commit counts a corrupt write as done before all that it took is committed: a recovery that breaks off finds the
//!    rest again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use forebay_env::{Env, FailPoint};
use forebay_format::{EncodedObject, ObjectHead, ObjectName};
use forebay_metadata::command::{CommitUpload, Registered, Unclosed};
use forebay_metadata::service::{PartitionRow, TopicRow};
use forebay_metadata::state::{WalEpochState, WalKind};
use forebay_metadata::{BrokerLife, Command, Metadata, Reply, SubmitError};
use forebay_store::{Body, Store};
use forebay_types::{ByteSize, ClusterId, LogId, Offset, OffsetRange, TopicPartition, WalSequence};
use forebay_wal::{CorruptRange, Replay, SealError, Sealed, SealedContents, Sealer, WrittenObject};

use crate::upload::{
    EncodedUpload, Gathered, LostOffsets, UploadError, commit_upload, create_object, encode, encode_lost, object_head,
};

/// Logs in one object of lost offsets. Each of them reads its footer when it is opened, some 300 KB then.
const LOST_PER_OBJECT_MAX: usize = 2_000;

/// Losses that are named one by one.
const LOST_NAMED_MAX: usize = 1_000;

/// Why an earlier life could not be taken over. Nothing is lost; starting again goes on from here.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("could not seal the WAL of {life}")]
    Seal {
        life: BrokerLife,
        #[source]
        source: SealError,
    },
    #[error("could not record the takeover of {life}")]
    Metadata {
        life: BrokerLife,
        #[source]
        source: SubmitError,
    },
    #[error("could not move what {life} left in its WAL to the bucket")]
    Upload {
        life: BrokerLife,
        #[source]
        source: UploadError,
    },
    #[error("no sealer for the WAL of {life}, which is of another kind or on another disk: {wal:?}")]
    NoSealer { life: BrokerLife, wal: WalKind },
}

/// Finds the sealer for a life's WAL: that of its kind, on its disk.
pub trait Sealers: Send + Sync {
    /// `None` where that WAL cannot be reached from here.
    fn sealer(&self, wal: WalKind) -> Option<Arc<dyn Sealer>>;
}

/// What recovery did, for the log and for the report of a drill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Earlier lives closed.
    pub lives: usize,
    /// Batches that were in a WAL only.
    pub batches: u64,
    pub bytes: u64,
    /// What corrupt WAL writes took, in words: the writes, and the offsets of each partition, or the first thousand.
    pub lost: Vec<String>,
    /// Data objects made, and so the first free number of this life.
    pub next_sequence: WalSequence,
}

/// Everything recovery works with.
pub struct Recovery {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub metadata: Arc<dyn Metadata>,
    pub cluster: ClusterId,
    /// The life that takes over.
    pub life: BrokerLife,
    pub size_target: ByteSize,
}

impl Recovery {
    /// Closes every earlier life that registration named.
    pub async fn run(&self, registered: &Registered, sealers: &dyn Sealers) -> Result<Recovered, RecoverError> {
        let mut recovered = Recovered::default();
        for unclosed in &registered.unclosed {
            self.close(unclosed, sealers, &mut recovered).await?;
            recovered.lives += 1;
        }
        Ok(recovered)
    }

    async fn close(
        &self,
        unclosed: &Unclosed,
        sealers: &dyn Sealers,
        recovered: &mut Recovered,
    ) -> Result<(), RecoverError> {
        let life = unclosed.life;
        let metadata = |source| RecoverError::Metadata { life, source };
        let reply = self.metadata.submit(Command::SealEpoch { life, by: self.life }).await.map_err(metadata)?;
        let Reply::Sealed(sealed) = reply else { unreachable!("sealing is answered with the seal, not {reply:?}") };
        if matches!(sealed.state, WalEpochState::Closed { .. }) {
            return Ok(());
        }
        let sealer = sealers.sealer(sealed.wal).ok_or(RecoverError::NoSealer { life, wal: sealed.wal })?;
        let contents = sealer.seal(life.broker, life.epoch, sealed.committed_through).await;
        let Sealed { end, contents, corrupt } = contents.map_err(|source| RecoverError::Seal { life, source })?;
        for range in &corrupt {
            let (first, end, what) = (range.first, range.end, &range.what);
            tracing::error!(%life, %first, %end, committed = range.committed, unknown = range.unknown, "corrupt WAL: {what}");
        }
        let corrupt = corrupt.into_iter().filter(|range| !range.committed).collect();
        let mut closing =
            Closing { recovery: self, life, committed_through: sealed.committed_through, corrupt, recovered };
        match contents {
            SealedContents::Objects(objects) => closing.objects(objects).await?,
            SealedContents::Entries(replay) => closing.replay(replay).await?,
        }
        closing.lose_below(None).await?;
        self.metadata.submit(Command::CloseEpoch { life, end, by: self.life }).await.map_err(metadata)?;
        Ok(())
    }
}

/// A sealed life on its way to be closed.
struct Closing<'a> {
    recovery: &'a Recovery,
    life: BrokerLife,
    committed_through: Option<WalSequence>,
    /// What is not yet committed as lost, in order.
    corrupt: VecDeque<CorruptRange>,
    recovered: &'a mut Recovered,
}

/// What one partition lost.
struct Loss {
    topic: Arc<TopicRow>,
    offsets: LostOffsets,
    /// Some of the offsets may never have been given out.
    unsure: bool,
}

impl Closing<'_> {
    /// Commits the data objects that the WAL's writes are.
    async fn objects(&mut self, objects: Vec<WrittenObject>) -> Result<(), RecoverError> {
        for object in objects {
            self.lose_below(Some(object.sequence)).await?;
            self.recovered.bytes += object.size;
            let through = object.sequence;
            self.commit(object, Some(through)).await?;
        }
        Ok(())
    }

    /// Moves replayed entries into data objects of about the target size.
    async fn replay(&mut self, mut replay: Replay) -> Result<(), RecoverError> {
        let mut gathered = Gathered::default();
        let mut bytes = 0;
        let mut through = None;
        loop {
            let group = replay.next().await.map_err(|source| RecoverError::Seal { life: self.life, source })?;
            let next = group.as_ref().map(|(sequence, _)| *sequence);
            let entries = group.as_ref().map_or(0, |(_, entries)| entries.len());
            let full = bytes >= self.recovery.size_target.get() || !gathered.has_room_for(entries);
            let due = next.is_none() || self.has_lost_below(next) || full;
            if due && !gathered.is_empty() {
                self.recovered.bytes += bytes;
                bytes = 0;
                self.upload(std::mem::take(&mut gathered), through).await?;
            }
            self.lose_below(next).await?;
            let Some((sequence, entries)) = group else { return Ok(()) };
            through = Some(sequence);
            for entry in entries {
                self.recovered.batches += 1;
                bytes += entry.records.len() as u64;
                gathered.push(entry);
            }
        }
    }

    async fn upload(&mut self, gathered: Gathered, through: Option<WalSequence>) -> Result<(), RecoverError> {
        let head = self.next_head();
        let sequence = head.sequence;
        let encode = move || encode(head, &gathered, &|_| None);
        let EncodedUpload { object, .. } = self.recovery.env.blocking("encode-recovered", encode).await;
        self.create_and_commit(sequence, object, through).await
    }

    fn has_lost_below(&self, next: Option<WalSequence>) -> bool {
        self.corrupt.front().is_some_and(|range| next.is_none_or(|next| range.first < next))
    }

    /// Commits as lost what the corrupt writes before `next` took; all that are left, where nothing follows. Everything
    /// before them is committed, so each log lost what follows its committed end.
    async fn lose_below(&mut self, next: Option<WalSequence>) -> Result<(), RecoverError> {
        let mut ranges = Vec::new();
        while self.has_lost_below(next) {
            ranges.extend(self.corrupt.pop_front());
        }
        let Some(last) = ranges.last() else { return Ok(()) };
        let through = last.end.get().checked_sub(1).map(WalSequence::new);
        let losses = self.losses(&ranges);
        self.name(&ranges, &losses);
        let lost: Vec<LostOffsets> = losses.into_values().map(|loss| loss.offsets).collect();
        let mut some = lost.chunks(LOST_PER_OBJECT_MAX).peekable();
        while let Some(lost) = some.next() {
            let head = self.next_head();
            let (sequence, object) = (head.sequence, encode_lost(head, lost));
            // Not before the last of them are the writes done with.
            let through = if some.peek().is_some() { self.committed_through } else { through };
            self.create_and_commit(sequence, object, through).await?;
        }
        Ok(())
    }

    /// What each partition lost to some corrupt ranges.
    fn losses(&self, ranges: &[CorruptRange]) -> BTreeMap<TopicPartition, Loss> {
        let topics = self.recovery.metadata.topics();
        // A log that would have to be moved on further ends there, and takes no more records.
        let last_end = Offset::new(i64::MAX).expect("not negative");
        let mut losses = BTreeMap::new();
        for range in ranges {
            for gap in &range.gaps {
                // The records of a topic that is being purged are nobody's any more.
                let Some(topic) = topics.by_id(gap.partition.topic) else { continue };
                let Some(row) = topic.partition(gap.partition.partition).cloned() else { continue };
                if self.wrote(&row, gap.log) && row.leader_epoch() == Some(gap.leader_epoch) {
                    self.lose(&mut losses, &topic, &row, |end| gap.end.max(end), false);
                }
            }
            if range.unknown == 0 {
                continue;
            }
            for topic in topics.list().into_iter().chain(topics.trash()) {
                for row in topic.partitions.iter().filter(|row| self.wrote(row, row.log)) {
                    let count = i64::try_from(range.unknown_offsets(row.id, row.log)).unwrap_or(i64::MAX);
                    let past = |end: Offset| end.checked_add(count).unwrap_or(last_end);
                    self.lose(&mut losses, &topic, row, past, count > 0);
                }
            }
        }
        losses.retain(|_, loss| !loss.offsets.range.is_empty());
        losses
    }

    /// Whether the life wrote that log: a partition stays with its owner until the owner's life is closed.
    fn wrote(&self, row: &PartitionRow, log: LogId) -> bool {
        row.owner == Some(self.life) && row.log == log
    }

    /// Moves what a partition lost, nothing at first, to an end that is not below the one it has.
    fn lose(
        &self,
        losses: &mut BTreeMap<TopicPartition, Loss>,
        topic: &Arc<TopicRow>,
        row: &PartitionRow,
        to: impl Fn(Offset) -> Offset,
        unsure: bool,
    ) {
        let loss = losses.entry(row.id).or_insert_with(|| {
            let epoch = row.epochs.last().expect("a partition with an owner has an epoch");
            // A log start above all that was committed was found when the partition was opened: it begins there.
            let start = self.recovery.metadata.log_size(row.log).committed_end.max(epoch.start);
            let range = OffsetRange::new(start, start).expect("an empty range");
            let (partition, log, leader_epoch, epoch_start) = (row.id, row.log, epoch.epoch, epoch.start);
            let offsets = LostOffsets { partition, log, leader_epoch, epoch_start, range };
            Loss { topic: Arc::clone(topic), offsets, unsure: false }
        });
        let range = loss.offsets.range;
        loss.offsets.range = OffsetRange::new(range.start(), to(range.end())).expect("an end that does not go back");
        loss.unsure |= unsure;
    }

    fn name(&mut self, ranges: &[CorruptRange], losses: &BTreeMap<TopicPartition, Loss>) {
        let lost = &mut self.recovered.lost;
        for CorruptRange { first, end, what, .. } in ranges {
            lost.push(format!("WAL writes {first} up to, not including, {end} of {}: {what}", self.life));
        }
        for loss in losses.values().take(LOST_NAMED_MAX) {
            let (partition, range) = (loss.offsets.partition.partition, loss.offsets.range);
            let lost_them = if loss.unsure { "may have lost some of" } else { "lost" };
            lost.push(format!("{}-{partition} {lost_them} the records at offsets {range}", loss.topic.name));
        }
        let more = losses.len().saturating_sub(LOST_NAMED_MAX);
        lost.extend((more > 0).then(|| format!("{more} more partitions lost records, or may have")));
    }

    /// That of the next data object of the life that takes over.
    fn next_head(&mut self) -> ObjectHead {
        let Recovery { env, cluster, life, .. } = self.recovery;
        let sequence = self.recovered.next_sequence;
        self.recovered.next_sequence = sequence.next();
        object_head(cluster.clone(), *life, sequence, env.now())
    }

    /// Puts an object into the bucket under its number, and commits it.
    async fn create_and_commit(
        &mut self,
        sequence: WalSequence,
        object: EncodedObject,
        through: Option<WalSequence>,
    ) -> Result<(), RecoverError> {
        let Recovery { env, store, life: BrokerLife { broker, epoch }, .. } = self.recovery;
        let name = ObjectName::Data { broker: *broker, epoch: *epoch, sequence }.to_string();
        let failed = |source| RecoverError::Upload { life: self.life, source };
        create_object(env, &**store, &name, Body::from(object.chunks)).await.map_err(failed)?;
        env.fail_point(FailPoint::UploadedNotCommitted);
        let EncodedObject { size, footer_position, ranges, .. } = object;
        self.commit(WrittenObject { sequence, name, size, footer_position, ranges }, through).await
    }

    async fn commit(&mut self, object: WrittenObject, through: Option<WalSequence>) -> Result<(), RecoverError> {
        let Recovery { env, metadata, life: sealer, .. } = self.recovery;
        let command = Command::CommitUpload(CommitUpload {
            life: self.life,
            sealer: Some(*sealer),
            through,
            object: object.name.clone(),
            size: object.size,
            footer_position: object.footer_position,
            ranges: object.ranges,
        });
        let committed = commit_upload(env, &**metadata, &object.name, command).await;
        committed.map_err(|source| RecoverError::Upload { life: self.life, source })?;
        self.committed_through = through;
        Ok(())
    }
}
