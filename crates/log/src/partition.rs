//! One partition as its owner runs it: the place where offsets are given out and where readers learn how far they may see.
//!
//! ```text
//!  log start      committed end     last stable      high watermark       log end
//!  ──┤────────────────┤─────────────────┤──────────────────┤──────────────────┤──▶ offset
//!    in the bucket       in the WAL and in memory            reserved only
//! ```
//!
//! An append goes *reserved* (offsets given, producer state moved, handed to the WAL) → *durable* (the WAL says so) →
//! *published* (readers see it) (D1). All three are moves of one state under one lock, held for no I/O.
//!
//! Owns: offsets, the tail, producer state, what a reader may see. Leaves to others: durability (`wal`), what a batch
//! must look like (`validate`), history (`cold`), the move to the bucket (`upload`).
//!
//! Invariants:
//! 1. log start ≤ last stable offset ≤ high watermark ≤ log end, committed end ≤ high watermark; none goes back.
//! 2. Offsets are dense: each batch begins at the log end it found (semantic 15).
//! 3. Batches are handed to the WAL in offset order, under the lock that gave the offsets.
//! 4. No answer leaves before what it rests on is durable: appends and duplicates give the WAL position to wait for.
//! 5. Once the WAL has ended, nothing is appended and nothing is read past what was published.
//! 6. While its topic is in the trash it takes markers and nothing else, and is not read: a transaction that ends then has
//!    ended here too when the topic comes back.
//!
//! Sources: Kafka's `UnifiedLog`; D1, D8, D9; semantics 1–3, 10–12, 15–19 of Kafka's wire behaviour.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_env::Env;
use forebay_format::{
    AbortedTxn, BatchProducer, BatchSummary, MarkerKind, MarkerSummary, PartitionProducers, PrepareRef, ProducerChange,
    WalEntry,
};
use forebay_metadata::state::EpochStart;
use forebay_types::{
    LeaderEpoch, LogId, Offset, OffsetRange, ProducerEpoch, ProducerId, Timestamp, TopicPartition, WalPosition,
};
use forebay_wal::{Admission, Wal};
use forebay_wire::BatchHeader;
use parking_lot::{Mutex, MutexGuard};

use crate::cold::{ColdError, ColdRead, ColdReader, ReadPattern, Source};
use crate::inflate::Inflater;
use crate::producers::{
    MarkerVerdict, ProducerDescription, ProducerError, Producers, Verdict, Verification, VerificationGuard,
};
use crate::search::{TimestampedOffset, Wanted};
use crate::tail::{Looked, Tail, TailBatch};
use crate::validate::Validated;
use crate::waiters::{Bell, Waiters};

/// Why a partition does not take or give what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// This broker epoch has ended here, or the topic is deleted: look up the owner again.
    #[error("partition {0} is not served here any more")]
    Ended(TopicPartition),
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("offset {asked} of partition {partition} is not within [{start}, {end}]")]
    OffsetOutOfRange { partition: TopicPartition, asked: Offset, start: Offset, end: Offset },
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The log is at the end of its offsets, which only a forged batch brings about.
    #[error("partition {0} has no offsets left for so many records")]
    Full(TopicPartition),
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Of the batch, or of the one that it repeats.
    pub base_offset: Offset,
    /// What a producer is told: the time of the append where the topic stamps it.
    pub log_append_time: Option<Timestamp>,
    /// To be waited for before anybody is told.
    pub position: WalPosition,
    /// The batch was here already.
    pub duplicate: bool,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    pub log_start: Offset,
    pub last_stable: Offset,
    pub high_watermark: Offset,
}

impl Offsets {
    /// The first offset that a reader of this isolation may not see.
    pub fn end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
        }
    }
}

/// How far a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, and told which transactions were aborted.
    ReadCommitted,
}

/// A read of whole batches.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub from: Offset,
    pub isolation: Isolation,
    pub bytes_max: usize,
    /// The first batch comes whole, even where it is larger than `bytes_max` (KIP-74).
    pub at_least_one: bool,
}

/// What a read gave. Offsets and aborted transactions are of one moment.
#[derive(Clone, Debug)]
pub struct ReadBatches {
    pub offsets: Offsets,
    /// In order; the first may begin before the offset asked for.
    pub batches: Vec<Bytes>,
    /// With `ReadCommitted`: transactions whose records must be passed over, by first offset.
    pub aborted: Vec<AbortedTxn>,
}

/// What memory has for a read, or that the bucket must be asked.
#[derive(Debug)]
pub enum TailRead {
    Done(ReadBatches),
    /// Memory no longer holds the offset: [`Partition::read`] does.
    Cold,
}

/// Who a partition is, and where it begins: what metadata says when it is opened.
#[derive(Clone, Debug)]
pub struct PartitionHead {
    pub partition: TopicPartition,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    /// The first offset of this epoch.
    pub epoch_start: Offset,
    /// All epochs above the log start, this one last.
    pub epochs: Vec<EpochStart>,
}

/// What all partitions of a broker epoch work with.
#[derive(Clone)]
pub(crate) struct PartitionParts {
    pub env: Env,
    pub wal: Wal,
    pub cold: Arc<ColdReader>,
}

/// Bugs put into a partition on purpose: a proof that cannot fail on them is none. See [`crate::LogConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Planted {
    pub ignore_aborts: bool,
    pub serve_before_durable: bool,
    pub stray_records: bool,
}

pub struct Partition {
    head: PartitionHead,
    parts: PartitionParts,
    pattern: ReadPattern,
    state: Mutex<State>,
}

/// The full producer state that the partition is opened from, and the offset that it stands at.
#[derive(Clone, Debug)]
pub(crate) struct ProducerSnapshot {
    pub object: Arc<str>,
    pub at: Offset,
}

/// What a partition does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Everything,
    /// Its topic is in the trash.
    Markers,
    /// The WAL has ended, or the topic is gone for good. There is no way back.
    Nothing,
}

struct State {
    log_start: Offset,
    committed_end: Offset,
    high_watermark: Offset,
    log_end: Offset,
    /// Of the last append; nothing above it is in the WAL.
    position: WalPosition,
    tail: Tail,
    producers: Producers,
    producer_snapshot: Option<ProducerSnapshot>,
    waiters: Waiters,
    service: Service,
    planted: Planted,
}

impl Partition {
    pub(crate) fn open(
        head: PartitionHead,
        log_start: Offset,
        end: Offset,
        producers: Producers,
        producer_snapshot: Option<ProducerSnapshot>,
        parts: PartitionParts,
    ) -> Self {
        assert!(log_start <= end, "a partition opens at or above its log start");
        let state = State {
            log_start,
            committed_end: end,
            high_watermark: end,
            log_end: end,
            position: WalPosition::START,
            tail: Tail::new(end),
            producers,
            producer_snapshot,
            waiters: Waiters::default(),
            service: Service::Everything,
            planted: Planted::default(),
        };
        Self { head, parts, pattern: ReadPattern::default(), state: Mutex::new(state) }
    }

    pub(crate) fn planted(mut self, planted: Planted) -> Self {
        self.state.get_mut().planted = planted;
        self
    }

    pub fn id(&self) -> TopicPartition {
        self.head.partition
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.head.leader_epoch
    }

    pub fn log(&self) -> LogId {
        self.head.log
    }

    /// Gives a client's batch its offsets and hands it to the WAL; or recognises a batch that has them already.
    /// `guard` as [`Partition::verification`] gave it, where the batch is the first of its transaction here.
    pub fn append(
        &self,
        batch: Validated,
        guard: Option<VerificationGuard>,
        admission: &mut Admission,
    ) -> Result<Appended, LogError> {
        let header = batch.header;
        let mut state = self.lock_open()?;
        if let Some(producer) = producer_of(&header) {
            match state.producers.check(&producer, header.is_transactional(), guard)? {
                Verdict::Append => {}
                Verdict::Duplicate(original) => {
                    // The original may itself not be durable yet; the partition's last position is at or above its own.
                    return Ok(Appended {
                        base_offset: original.base_offset,
                        log_append_time: batch.log_append_time.map(|_| original.timestamp),
                        position: state.position,
                        duplicate: true,
                    });
                }
            }
        }
        self.reserve(&mut state, batch.bytes, &header, batch.log_append_time, None, admission)
    }

    /// As [`Partition::append`], for what a coordinator of this broker writes: it has no sequence, and vouches itself for
    /// the transaction that its batch belongs to.
    pub fn append_own(&self, batch: BytesMut, admission: &mut Admission) -> Result<Appended, LogError> {
        let header = BatchHeader::parse(&batch).expect("a coordinator builds whole batches");
        let mut state = self.lock_open()?;
        self.reserve(&mut state, batch, &header, None, None, admission)
    }

    /// Ends a producer's transaction here, if this Prepare record has not ended it yet (D14). Taken in the trash too.
    pub fn append_marker(
        &self,
        producer: (ProducerId, ProducerEpoch),
        marker: MarkerSummary,
        now: Timestamp,
        admission: &mut Admission,
    ) -> Result<Appended, LogError> {
        let (id, epoch) = producer;
        let mut state = self.lock_for_markers()?;
        match state.producers.check_marker(id, epoch, marker.coordinator_epoch, marker.prepare)? {
            MarkerVerdict::Append => {}
            MarkerVerdict::Done => {
                let (base_offset, position) = (state.log_end, state.position);
                return Ok(Appended { base_offset, log_append_time: None, position, duplicate: true });
            }
        }
        let batch = forebay_wire::batch::build_marker(
            id.get(),
            epoch.get(),
            forebay_wire::Marker {
                kind: match marker.kind {
                    MarkerKind::Commit => forebay_wire::MarkerKind::Commit,
                    MarkerKind::Abort => forebay_wire::MarkerKind::Abort,
                },
                coordinator_epoch: marker.coordinator_epoch,
            },
            now.as_millis(),
        );
        let header = BatchHeader::parse(&batch).expect("a marker is built as a whole batch");
        self.reserve(&mut state, batch, &header, None, Some(marker), admission)
    }

    /// Gives a batch the next offsets, moves producer state past it, and hands it to the WAL.
    fn reserve(
        &self,
        state: &mut State,
        mut batch: BytesMut,
        header: &BatchHeader,
        log_append_time: Option<Timestamp>,
        marker: Option<MarkerSummary>,
        admission: &mut Admission,
    ) -> Result<Appended, LogError> {
        let base_offset = state.log_end;
        let last_offset = base_offset
            .checked_add(i64::from(header.last_offset_delta))
            .filter(|last| last.get() < i64::MAX)
            .ok_or(LogError::Full(self.id()))?;
        forebay_wire::batch::patch(&mut batch, base_offset.get(), self.head.leader_epoch.get());
        let records = batch.freeze();
        let max_timestamp = log_append_time.unwrap_or(Timestamp::from_millis(header.max_timestamp));
        let summary = BatchSummary {
            base_offset,
            last_offset,
            max_timestamp,
            records: u32::try_from(header.records_count).unwrap_or(0),
            producer: producer_of(header),
            transactional: header.is_transactional(),
            marker,
        };
        let aborted = state.producers.append(&summary, self.parts.env.monotonic());
        state.tail.push(TailBatch { base_offset, last_offset, max_timestamp, bytes: records.clone() });
        state.log_end = last_offset.next();
        let entry = WalEntry {
            partition: self.head.partition,
            log: self.head.log,
            leader_epoch: self.head.leader_epoch,
            epoch_start: self.head.epoch_start,
            summary,
            aborted,
            records,
        };
        state.position = self.parts.wal.append(admission, entry);
        Ok(Appended { base_offset, log_append_time, position: state.position, duplicate: false })
    }

    /// The WAL made a batch durable: readers may see it. Called in offset order.
    pub(crate) fn publish(&self, batch: &BatchSummary) {
        let mut state = self.state.lock();
        assert_eq!(batch.base_offset, state.high_watermark, "batches become durable in offset order");
        state.high_watermark = batch.last_offset.next();
        state.waiters.ring();
    }

    /// An upload that holds a range of this log was committed.
    pub(crate) fn committed(&self, range: OffsetRange, changes: &[ProducerChange]) {
        let mut state = self.state.lock();
        assert_eq!(range.start(), state.committed_end, "uploads are committed in offset order");
        assert!(range.end() <= state.high_watermark, "only what is durable is uploaded");
        state.committed_end = range.end();
        state.producers.commit(changes, range.end());
    }

    /// Lets go of batches below `end` that are in the bucket; says how many bytes that freed.
    pub(crate) fn release_tail(&self, end: Offset) -> usize {
        let mut state = self.state.lock();
        let end = end.min(state.committed_end);
        state.tail.release(end)
    }

    /// From here on the partition does this and no more.
    pub(crate) fn serve(&self, service: Service) {
        let mut state = self.state.lock();
        if state.service == Service::Nothing {
            return;
        }
        if (state.service, service) == (Service::Markers, Service::Everything) {
            state.producers.renew(self.parts.env.monotonic());
        }
        state.service = service;
        state.waiters.ring();
    }

    pub fn offsets(&self) -> Result<Offsets, LogError> {
        Ok(self.lock_open()?.offsets())
    }

    /// The end of what was given out, durable or not. For one's own coordinators, which wait before they answer.
    pub fn log_end(&self) -> Offset {
        self.state.lock().log_end
    }

    /// The position to wait for so that all that was appended here is durable.
    pub fn position(&self) -> WalPosition {
        self.state.lock().position
    }

    pub fn committed_end(&self) -> Offset {
        self.state.lock().committed_end
    }

    /// Bytes of batches that are durable in the WAL and not yet in a committed data object.
    pub fn uncommitted_bytes(&self) -> u64 {
        let state = self.state.lock();
        let durable = state.tail.from(state.committed_end).take_while(|batch| batch.base_offset < state.high_watermark);
        durable.map(|batch| batch.bytes.len() as u64).sum()
    }

    /// Rings `bell` when the partition next moves.
    pub fn hang(&self, bell: &Bell) {
        self.state.lock().waiters.hang(bell);
    }

    /// Reads from memory, if memory has it. Never waits.
    pub fn read_tail(&self, request: ReadRequest) -> Result<TailRead, LogError> {
        let mut state = self.lock_open()?;
        let (offsets, end) = self.check_range(&mut state, request)?;
        if request.from < state.tail.start() && request.from < end {
            return Ok(TailRead::Cold);
        }
        let batches = state.tail.read(request.from, end, request.bytes_max, request.at_least_one);
        let aborted = state.aborted_in(request, &batches);
        Ok(TailRead::Done(ReadBatches { offsets, batches, aborted }))
    }

    /// Reads from memory or from the bucket.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadBatches, LogError> {
        if let TailRead::Done(read) = self.read_tail(request)? {
            return Ok(read);
        }
        let (offsets, read) = {
            let mut state = self.lock_open()?;
            let (offsets, end) = self.check_range(&mut state, request)?;
            let read = ColdRead {
                from: request.from,
                // Past the committed end there is nothing in the bucket: the rest is the next read's, from memory.
                end: end.min(state.committed_end),
                bytes_max: request.bytes_max,
                at_least_one: request.at_least_one,
                of_any_partition: state.planted.stray_records,
            };
            (offsets, read)
        };
        let batches = match self.parts.cold.read(self.source(), read, &self.pattern).await {
            Ok(batches) => batches,
            Err(error) => {
                // The log start may have passed the offset while its object was looked for.
                self.check_range(&mut *self.lock_open()?, request)?;
                return Err(error.into());
            }
        };
        // A transaction that is aborted by now was open or aborted then: what lay below the last stable offset has not
        // changed. Unless the log start has passed the offset meanwhile: then aborted transactions were forgotten with it.
        let mut state = self.lock_open()?;
        self.check_range(&mut state, request)?;
        let aborted = state.aborted_in(request, &batches);
        Ok(ReadBatches { offsets, batches, aborted })
    }

    fn check_range(&self, state: &mut State, request: ReadRequest) -> Result<(Offsets, Offset), LogError> {
        let offsets = state.offsets();
        let asked = request.from;
        if asked < offsets.log_start || asked > offsets.high_watermark {
            let (start, end) = (offsets.log_start, offsets.high_watermark);
            return Err(LogError::OffsetOutOfRange { partition: self.id(), asked, start, end });
        }
        Ok((offsets, offsets.end(request.isolation)))
    }

    /// The end offset of the largest epoch at or below `epoch` (KIP-320); `None` for one that is not known here.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Result<Option<(LeaderEpoch, Offset)>, LogError> {
        let state = self.lock_open()?;
        if epoch > self.head.leader_epoch {
            return Ok(None);
        }
        let after = self.head.epochs.partition_point(|start| start.epoch <= epoch);
        let Some(at) = after.checked_sub(1).map(|i| self.head.epochs[i].epoch) else {
            // Older than all that is kept: it ended at or before the log start.
            let first = self.head.epochs.first().map_or(state.log_start, |first| first.start);
            return Ok(Some((epoch, first.max(state.log_start))));
        };
        let end = self.head.epochs.get(after).map_or(state.high_watermark, |next| next.start);
        Ok(Some((at, end)))
    }

    /// The leader epoch that a record was written in.
    pub fn epoch_of(&self, offset: Offset) -> LeaderEpoch {
        let after = self.head.epochs.partition_point(|start| start.start <= offset);
        after.checked_sub(1).map_or(self.head.leader_epoch, |i| self.head.epochs[i].epoch)
    }

    /// Whether a producer's transactional batch needs the coordinator's word first (KIP-890).
    /// `base_sequence` is the batch's, [`NO_SEQUENCE`](forebay_format::NO_SEQUENCE) where it has none.
    pub fn verification(
        &self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> Result<Verification, LogError> {
        Ok(self.lock_open()?.producers.verification(id, epoch, base_sequence, self.parts.env.monotonic()))
    }

    /// The coordinator said no.
    pub fn verification_failed(&self, id: ProducerId, guard: VerificationGuard) {
        self.state.lock().producers.verification_failed(id, guard);
    }

    pub fn describe_producers(&self) -> Result<Vec<ProducerDescription>, LogError> {
        Ok(self.lock_open()?.producers.describe())
    }

    /// The log start has moved, durably.
    pub fn advance_log_start(&self, to: Offset) {
        let mut state = self.state.lock();
        state.log_start = state.log_start.max(to);
        let log_start = state.log_start;
        state.producers.forget_below(log_start);
    }

    /// Forgets producers that have appended nothing here for so long.
    pub fn expire_producers(&self, period: Duration) {
        self.state.lock().producers.expire(self.parts.env.monotonic(), period);
    }

    /// Producer state at the committed end, which is given with it.
    pub(crate) fn snapshot_producers(&self) -> (Offset, PartitionProducers) {
        let state = self.state.lock();
        (state.committed_end, state.producers.snapshot(state.committed_end))
    }

    pub(crate) fn producer_snapshot(&self) -> Option<Arc<str>> {
        self.state.lock().producer_snapshot.as_ref().map(|snapshot| Arc::clone(&snapshot.object))
    }

    pub(crate) fn set_producer_snapshot(&self, object: Arc<str>, at: Offset) {
        self.state.lock().producer_snapshot = Some(ProducerSnapshot { object, at });
    }

    /// Whether there are footers to read when the partition is opened.
    pub(crate) fn is_behind(&self) -> bool {
        let state = self.state.lock();
        let from = state.producer_snapshot.as_ref().map_or(Offset::ZERO, |snapshot| snapshot.at);
        from < state.committed_end
    }

    /// From where on footers are read when the partition is opened: where its last producer snapshot stands.
    pub fn opens_from(&self) -> Offset {
        self.state.lock().producer_snapshot.as_ref().map_or(Offset::ZERO, |snapshot| snapshot.at)
    }

    /// The first record whose time is `timestamp` or later, below what this isolation may see.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: Timestamp,
        isolation: Isolation,
    ) -> Result<Option<TimestampedOffset>, LogError> {
        self.search(Wanted::AtOrAfter(timestamp), isolation).await
    }

    /// The record with the highest time; of several the first (KIP-734).
    pub async fn max_timestamp(&self) -> Result<Option<TimestampedOffset>, LogError> {
        self.search(Wanted::Latest, Isolation::ReadUncommitted).await
    }

    /// Looks through history and then memory, a page under the lock at a time. Where the log start passes or memory lets go
    /// of what was to be looked at next, it goes on from there.
    async fn search(&self, wanted: Wanted, isolation: Isolation) -> Result<Option<TimestampedOffset>, LogError> {
        let (mut next, end) = {
            let offsets = self.lock_open()?.offsets();
            (offsets.log_start, offsets.end(isolation))
        };
        let mut best = None;
        while next < end && !wanted.is_met(best) {
            let looked = {
                let state = self.lock_open()?;
                next = next.max(state.log_start);
                let tail_start = state.tail.start().min(end);
                if next < tail_start { Err(tail_start) } else { Ok(state.tail.look(next, end, wanted, best)) }
            };
            match looked {
                Err(tail_start) => match self.parts.cold.search(self.source(), next, tail_start, wanted).await {
                    Ok(found) => (best, next) = (wanted.better(best, found), tail_start),
                    Err(_) if self.lock_open()?.log_start > next => {}
                    Err(error) => return Err(error.into()),
                },
                Ok(Looked { batches, next: after }) => {
                    for batch in batches {
                        if wanted.promises(batch.max_timestamp, best) && !wanted.is_met(best) {
                            let found = self.parts.cold.inflater().search(batch.bytes, next, end, wanted).await;
                            best = wanted.better(best, found);
                        }
                    }
                    next = after;
                }
            }
        }
        Ok(best)
    }

    pub(crate) fn inflater(&self) -> &Inflater {
        self.parts.cold.inflater()
    }

    pub(crate) fn source(&self) -> Source {
        Source { partition: self.head.partition, log: self.head.log }
    }

    fn lock_open(&self) -> Result<MutexGuard<'_, State>, LogError> {
        self.lock_if(|service| service == Service::Everything)
    }

    fn lock_for_markers(&self) -> Result<MutexGuard<'_, State>, LogError> {
        self.lock_if(|service| service != Service::Nothing)
    }

    fn lock_if(&self, serves: impl FnOnce(Service) -> bool) -> Result<MutexGuard<'_, State>, LogError> {
        let state = self.state.lock();
        if serves(state.service) { Ok(state) } else { Err(LogError::Ended(self.id())) }
    }
}

impl State {
    fn offsets(&mut self) -> Offsets {
        let high_watermark = if self.planted.serve_before_durable { self.log_end } else { self.high_watermark };
        // DeleteRecords may have taken the beginning of a transaction that is still open.
        let last_stable = self.producers.last_stable_offset(high_watermark).max(self.log_start);
        Offsets { log_start: self.log_start, last_stable, high_watermark }
    }

    /// What a `read_committed` reader must be told about the batches that it gets.
    fn aborted_in(&self, request: ReadRequest, batches: &[Bytes]) -> Vec<AbortedTxn> {
        let (Isolation::ReadCommitted, Some(last)) = (request.isolation, batches.last()) else { return Vec::new() };
        if self.planted.ignore_aborts {
            return Vec::new();
        }
        self.producers.aborted_between(request.from, end_of_run(last))
    }
}

/// The offset after the last batch of a run of whole batches.
fn end_of_run(run: &Bytes) -> Offset {
    let mut end = Offset::ZERO;
    let mut at = 0;
    while at < run.len() {
        let header = BatchHeader::parse(&run[at..]).expect("what is served was parsed before");
        end = Offset::new(header.last_offset()).expect("offsets in a log are not negative").next();
        at += header.size();
    }
    end
}

/// Who wrote a batch; `None` without idempotence.
fn producer_of(header: &BatchHeader) -> Option<BatchProducer> {
    let id = ProducerId::new(header.producer_id).ok()?;
    let epoch = ProducerEpoch::new(header.producer_epoch).ok()?;
    let base_sequence = header.base_sequence;
    Some(BatchProducer { id, epoch, base_sequence, last_sequence: header.last_sequence() })
}

/// A marker that carries out a Prepare record.
pub fn prepared_marker(kind: MarkerKind, coordinator_epoch: i32, prepare: PrepareRef) -> MarkerSummary {
    MarkerSummary { kind, coordinator_epoch, prepare: Some(prepare) }
}
