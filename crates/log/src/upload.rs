//! From the WAL to history: durable batches become data objects in the bucket, and their commits let the WAL be trimmed.
//!
//! With a `disk` WAL the uploader gathers groups into one data object, by size and age. With an `object` WAL each group
//! is a data object already (D4) and only its commit is left. Objects may be created side by side; commits go one by
//! one, in WAL order.
//!
//! Owns: what goes into which object, the order of commits, when memory is let go and the WAL trimmed. Leaves to
//! others: the object's layout (`format`), whether a commit counts (`metadata`), room in the WAL (`wal`).
//!
//! Consistency: a group is in at most one upload, uploads are committed in WAL order, and the WAL is trimmed only after
//! the commit of everything below (an upload that was created but not committed is an orphan, and is uploaded again by
//! whoever seals this epoch). Retries: a create that did not happen or may have happened is repeated with the same
//! bytes under the same name for as long as the broker lives; the WAL's room is what bounds the wait. Cancellation: the
//! task may be dropped at any point; nothing is lost. Crash: as cancellation; see the fail points.
//!
//! Invariants:
//! 1. `through` of a commit covers whole groups, all of which are in this upload or in earlier ones.
//! 2. A commit that metadata refuses ends the broker epoch: somebody else has sealed it.

mod encode;

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Env, FailPoint, Instant, Task};
use forebay_format::{ObjectName, ProducerChange};
use forebay_metadata::command::{CommitUpload, RANGES_PER_UPLOAD_MAX};
use forebay_metadata::{BrokerLife, Command, Metadata, SubmitError};
use forebay_store::{Body, CreateError, Key, Store, create_exact};
use forebay_types::{ByteSize, ClusterId, OffsetRange, TopicPartition, WalSequence};
use forebay_wal::{DurableGroup, GROUP_ENTRIES_MAX, Wal, WrittenObject};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::partitions::Partitions;
use crate::snapshot::Snapshots;
use crate::warm::Warm;

pub(crate) use encode::{EncodedUpload, Gathered, LostOffsets, encode, encode_lost, object_head};

/// Data objects being created at once: hides one store's latency behind another's transfer.
const CREATES_IN_FLIGHT_MAX: usize = 4;

/// Entries in one object, each of which may be of another log: any group fits.
const ENTRIES_PER_UPLOAD_MAX: usize = RANGES_PER_UPLOAD_MAX;
const _: () = assert!(GROUP_ENTRIES_MAX <= ENTRIES_PER_UPLOAD_MAX);

/// Waits between tries against a store or a metadata that does not answer.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);

/// When a data object is cut: also once half of the WAL's room is used, as small groups fill it long before their bytes
/// make a large object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadConfig {
    /// At this many bytes of batches.
    pub size_target: ByteSize,
    /// Or once the oldest batch waits this long.
    pub age_max: Duration,
    /// Commits between producer snapshots: so many footers at most are read to open a partition.
    pub commits_per_snapshot: NonZeroU64,
}

impl Default for UploadConfig {
    fn default() -> Self {
        let commits_per_snapshot = NonZeroU64::new(64).expect("not 0");
        Self { size_target: ByteSize::mib(16), age_max: Duration::from_secs(5), commits_per_snapshot }
    }
}

/// Why the move to the bucket has ended for good.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UploadError {
    #[error("could not commit {object}")]
    Commit {
        object: String,
        #[source]
        reason: SubmitError,
    },
    #[error("{name} is taken by an object that this broker epoch did not write")]
    Foreign { name: String },
}

/// Everything the uploader works with.
pub(crate) struct UploadParts {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub metadata: Arc<dyn Metadata>,
    pub cluster: ClusterId,
    pub life: BrokerLife,
    pub config: UploadConfig,
    /// The first free number of this life's data objects: recovery may have used some.
    pub next_sequence: WalSequence,
    pub warm: Arc<Warm>,
    pub snapshots: Arc<Snapshots>,
}

/// Groups that are durable and not yet in an upload, in WAL order. Filled by the WAL's publisher, which never waits;
/// bounded by the WAL's room.
pub(crate) struct Pending {
    queue: Mutex<Queue>,
    changed: Notify,
    /// Groups committed since the start.
    committed: watch::Sender<u64>,
    /// Why there will be no more commits.
    failed: watch::Sender<Option<Arc<UploadError>>>,
}

#[derive(Default)]
struct Queue {
    groups: VecDeque<(DurableGroup, Instant)>,
    bytes: usize,
    /// Groups that came since the start.
    pushed: u64,
    /// Cut what is here now, whatever its size and age.
    hurry: bool,
}

impl Default for Pending {
    fn default() -> Self {
        let (committed, failed) = (watch::Sender::new(0), watch::Sender::new(None));
        Self { queue: Mutex::default(), changed: Notify::new(), committed, failed }
    }
}

impl Pending {
    pub fn push(&self, group: DurableGroup, now: Instant) {
        let mut queue = self.queue.lock();
        queue.bytes += group_bytes(&group);
        queue.pushed += 1;
        queue.groups.push_back((group, now));
        self.changed.notify_one();
    }

    /// Uploads what is here now, and returns once it is committed.
    ///
    /// # Errors
    /// Uploads have ended for good.
    pub async fn flush(&self) -> Result<(), Arc<UploadError>> {
        let wanted = {
            let mut queue = self.queue.lock();
            queue.hurry = true;
            queue.pushed
        };
        self.changed.notify_one();
        let (mut committed, mut failed) = (self.committed.subscribe(), self.failed.subscribe());
        // Both senders live in `self`, so waiting ends with what was waited for.
        tokio::select! {
            biased;
            _ = committed.wait_for(|committed| *committed >= wanted) => Ok(()),
            failed = failed.wait_for(Option::is_some) => match failed.as_deref() {
                Ok(Some(error)) => Err(Arc::clone(error)),
                _ => Ok(()),
            },
        }
    }

    pub fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    /// The next groups to go into one object; or when to look again. All there is where the WAL is `filling`.
    fn cut(&self, config: UploadConfig, now: Instant, filling: bool) -> Cut {
        let mut queue = self.queue.lock();
        let Some((first, arrived)) = queue.groups.front() else {
            queue.hurry = false;
            return Cut::Idle;
        };
        if first.upload.is_some() {
            let (mut group, _) = queue.groups.pop_front().expect("the front was just seen");
            queue.bytes -= group_bytes(&group);
            let object = group.upload.take().expect("just seen");
            return Cut::Written(object, group);
        }
        let target = usize::try_from(config.size_target.get()).unwrap_or(usize::MAX);
        let due = *arrived + config.age_max;
        if queue.bytes < target && now < due && !queue.hurry && !filling {
            return Cut::At(due);
        }
        let mut groups = Vec::new();
        let (mut bytes, mut entries) = (0, 0);
        while bytes < target
            && let Some((group, _)) =
                queue.groups.pop_front_if(|(group, _)| entries + group.entries.len() <= ENTRIES_PER_UPLOAD_MAX)
        {
            entries += group.entries.len();
            bytes += group_bytes(&group);
            groups.push(group);
        }
        queue.bytes -= bytes;
        Cut::Gather(groups)
    }
}

enum Cut {
    Idle,
    At(Instant),
    Gather(Vec<DurableGroup>),
    Written(WrittenObject, DurableGroup),
}

fn group_bytes(group: &DurableGroup) -> usize {
    group.entries.iter().map(|entry| entry.records.len()).sum()
}

/// An object in the bucket, and what its commit changes here.
struct Uploaded {
    object: WrittenObject,
    /// How many groups it holds.
    groups: u64,
    through: WalSequence,
    parts: Vec<UploadedRange>,
}

/// What one partition has in an upload.
#[derive(Debug)]
pub(crate) struct UploadedRange {
    pub partition: TopicPartition,
    pub range: OffsetRange,
    pub bytes: usize,
    pub changes: Vec<ProducerChange>,
}

/// The running uploader. Dropping it stops it where it is, which loses nothing.
pub(crate) struct Uploader {
    pending: Arc<Pending>,
    /// Asks for a producer snapshot of all that was touched; answered when it is taken.
    finish: mpsc::Sender<oneshot::Sender<()>>,
    _task: Task<()>,
}

impl Uploader {
    pub fn start(parts: UploadParts, wal: Wal, partitions: Arc<Partitions>) -> Self {
        let pending = partitions.pending();
        let (finish, finishes) = mpsc::channel(1);
        let env = parts.env.clone();
        let work = Work {
            pending: Arc::clone(&pending),
            next_sequence: parts.next_sequence,
            parts,
            room_low: wal.room() / 2,
            wal,
            partitions: Arc::clone(&partitions),
            creates: VecDeque::new(),
            commits: 0,
            touched: BTreeSet::new(),
            has_looked_back: false,
            finishes,
        };
        let ended = Arc::clone(&pending);
        let task = env.spawn("uploader", async move {
            let error = Arc::new(work.run().await);
            tracing::error!(error = &*error as &dyn Error, "uploads have ended: this broker epoch is over");
            partitions.end_all(&error.to_string());
            ended.failed.send_replace(Some(error));
        });
        Self { pending, finish, _task: task }
    }

    /// Bytes that are durable in the WAL only.
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// Returns once uploads have ended for good, and why. Cancel safe.
    pub async fn ended(&self) -> Arc<UploadError> {
        let mut failed = self.pending.failed.subscribe();
        let error = failed.wait_for(Option::is_some).await.expect("the sender lives in self");
        Arc::clone(error.as_ref().expect("just seen"))
    }

    /// Moves to the bucket what is durable now, with a producer snapshot, so that the next start has little to read.
    ///
    /// # Errors
    /// Uploads have ended for good.
    pub async fn drain(&self) -> Result<(), Arc<UploadError>> {
        self.pending.flush().await?;
        let (done, finished) = oneshot::channel();
        // The uploader is gone only where it has failed, which the flush has told.
        if self.finish.send(done).await.is_ok() {
            let _ = finished.await;
        }
        Ok(())
    }
}

struct Work {
    parts: UploadParts,
    pending: Arc<Pending>,
    wal: Wal,
    /// Below this, what is in the WAL is uploaded whatever its size and age.
    room_low: u64,
    partitions: Arc<Partitions>,
    next_sequence: WalSequence,
    /// Objects being created, in the order in which they will be committed.
    creates: VecDeque<Task<Result<Uploaded, UploadError>>>,
    commits: u64,
    /// Partitions with commits since the last producer snapshot, of this life or an earlier one. Those without producers
    /// too: their snapshot says that there are none, and the footers below need not be read to open them.
    touched: BTreeSet<TopicPartition>,
    /// Whether partitions that earlier lives left behind their snapshots are among them.
    has_looked_back: bool,
    finishes: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Work {
    async fn run(mut self) -> UploadError {
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    /// One event: something to cut, or the oldest create done.
    async fn step(&mut self) -> Result<(), UploadError> {
        let now = self.parts.env.monotonic();
        let room = self.creates.len() < CREATES_IN_FLIGHT_MAX;
        // One at a time: what comes while it is created makes the next one larger.
        let filling = self.creates.is_empty() && self.wal.room() < self.room_low;
        let look_again = match if room { self.pending.cut(self.parts.config, now, filling) } else { Cut::Idle } {
            Cut::Gather(groups) => {
                self.start_create(groups);
                return Ok(());
            }
            Cut::Written(object, group) => {
                assert!(self.creates.is_empty(), "one WAL is of one kind");
                let parts = Gathered::of(&[group]).into_ranges();
                let through = object.sequence;
                return self.commit(Uploaded { object, groups: 1, through, parts }).await;
            }
            Cut::At(due) => Some(due),
            Cut::Idle => None,
        };
        let env = self.parts.env.clone();
        let timer = async {
            match look_again {
                Some(due) => env.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let oldest = async {
            match self.creates.front_mut() {
                Some(create) => create.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            created = oldest => {
                self.creates.pop_front();
                let uploaded = created.expect("a create is aborted only with the uploader")?;
                self.commit(uploaded).await
            }
            () = self.pending.changed.notified(), if room => Ok(()),
            () = timer => Ok(()),
            Some(done) = self.finishes.recv() => {
                self.take_snapshot().await;
                let _ = done.send(());
                Ok(())
            }
        }
    }

    fn start_create(&mut self, groups: Vec<DurableGroup>) {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.next();
        let life = self.parts.life;
        let name = ObjectName::Data { broker: life.broker, epoch: life.epoch, sequence };
        let (env, store) = (self.parts.env.clone(), Arc::clone(&self.parts.store));
        let cluster = self.parts.cluster.clone();
        let partitions = Arc::clone(&self.partitions);
        let create = async move {
            let through = groups.last().expect("a cut has groups").sequence;
            let count = groups.len() as u64;
            let gathered = Gathered::of(&groups);
            drop(groups);
            let snapshot_of = move |id| partitions.producer_snapshot(id);
            let head = object_head(cluster, life, sequence, env.now());
            let EncodedUpload { object, parts } =
                env.blocking("encode-upload", move || encode(head, &gathered, &snapshot_of)).await;
            env.fail_point(FailPoint::AckedNotUploaded);
            let name = name.to_string();
            create_object(&env, &*store, &name, Body::from(object.chunks)).await?;
            env.fail_point(FailPoint::UploadedNotCommitted);
            let (size, ranges, footer_position) = (object.size, object.ranges, object.footer_position);
            let object = WrittenObject { sequence, name, size, footer_position, ranges };
            Ok(Uploaded { object, groups: count, through, parts })
        };
        self.creates.push_back(self.parts.env.spawn("upload", create));
    }

    async fn commit(&mut self, uploaded: Uploaded) -> Result<(), UploadError> {
        let Uploaded { object, groups, through, parts } = uploaded;
        let command = Command::CommitUpload(CommitUpload {
            life: self.parts.life,
            sealer: None,
            through: Some(through),
            object: object.name.clone(),
            size: object.size,
            footer_position: object.footer_position,
            ranges: object.ranges,
        });
        commit_upload(&self.parts.env, &*self.parts.metadata, &object.name, command).await?;
        self.parts.env.fail_point(FailPoint::CommittedNotTrimmed);
        for part in &parts {
            if let Ok(partition) = self.partitions.get(part.partition) {
                partition.committed(part.range, &part.changes);
                self.touched.insert(part.partition);
            }
        }
        let kept = parts.iter().map(|part| (part.partition, part.range.end(), part.bytes));
        for (partition, end) in self.parts.warm.keep(kept) {
            if let Ok(partition) = self.partitions.get(partition) {
                partition.release_tail(end);
            }
        }
        self.wal.trim(through);
        self.pending.committed.send_modify(|committed| *committed += groups);
        self.commits += 1;
        if self.commits.is_multiple_of(self.parts.config.commits_per_snapshot.get()) {
            self.take_snapshot().await;
        }
        Ok(())
    }

    async fn take_snapshot(&mut self) {
        if !std::mem::replace(&mut self.has_looked_back, true) {
            self.touched.extend(self.partitions.behind());
        }
        self.parts.snapshots.take(&self.partitions, self.touched.clone()).await;
        // What could not be written is in the next one. Nothing was committed meanwhile: this task does that.
        let partitions = &self.partitions;
        self.touched.retain(|id| partitions.get(*id).is_ok_and(|partition| partition.is_behind()));
    }
}

/// Creates an object, however long the store takes to answer.
pub(crate) async fn create_object(env: &Env, store: &dyn Store, name: &str, body: Body) -> Result<(), UploadError> {
    let key = Key::new(name).expect("names of ours are keys");
    let mut wait = RETRY_WAIT_MIN;
    loop {
        let error = match create_exact(env, store, &key, body.clone()).await {
            Ok(_) => return Ok(()),
            Err(CreateError::Theirs { .. }) => return Err(UploadError::Foreign { name: name.to_owned() }),
            Err(CreateError::Store(error)) => error,
        };
        // Refused: the keys were changed or the bucket is gone. An operator can mend it, and until then the WAL holds all.
        tracing::warn!(object = name, error = &error as &dyn Error, "creating an object will be tried again");
        env.sleep(wait).await;
        wait = (wait * 2).min(RETRY_WAIT_MAX);
    }
}

/// Commits an upload, however long metadata takes to answer. Repeating a commit changes nothing.
pub(crate) async fn commit_upload(
    env: &Env,
    metadata: &dyn Metadata,
    object: &str,
    command: Command,
) -> Result<(), UploadError> {
    let mut wait = RETRY_WAIT_MIN;
    loop {
        match metadata.submit(command.clone()).await {
            Ok(_) => return Ok(()),
            Err(reason @ (SubmitError::Refused(_) | SubmitError::Ended(_))) => {
                return Err(UploadError::Commit { object: object.to_owned(), reason });
            }
            Err(error) => tracing::warn!(object, error = &error as &dyn Error, "a commit will be tried again"),
        }
        env.sleep(wait).await;
        wait = (wait * 2).min(RETRY_WAIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use forebay_format::{BatchSummary, WalEntry};
    use forebay_types::{LeaderEpoch, LogId, Offset, PartitionIndex, Timestamp, TopicId};

    use super::*;

    /// A group with the first batches of so many partitions, from the one numbered `first` on.
    fn group(sequence: u64, first: usize, partitions: usize) -> DurableGroup {
        let entry = |n: usize| {
            let partition = PartitionIndex::new(i32::try_from(n).expect("small")).expect("not negative");
            let summary = BatchSummary {
                base_offset: Offset::ZERO,
                last_offset: Offset::ZERO,
                max_timestamp: Timestamp::from_millis(0),
                records: 1,
                producer: None,
                transactional: false,
                marker: None,
            };
            WalEntry {
                partition: TopicPartition { topic: TopicId::from_random([1; 16]), partition },
                log: LogId::new(n as u64).expect("small"),
                leader_epoch: LeaderEpoch::ZERO,
                epoch_start: Offset::ZERO,
                summary,
                aborted: None,
                records: vec![0; 70].into(),
            }
        };
        let entries = (first..first + partitions).map(entry).collect();
        DurableGroup { sequence: WalSequence::new(sequence), entries, upload: None }
    }

    /// Batches of more logs than one commit takes go into two objects, however few bytes they are, and none is left.
    #[test]
    fn an_object_holds_no_more_logs_than_a_commit_takes() {
        let now = forebay_env::real::env().monotonic();
        let config = UploadConfig { size_target: ByteSize::mib(64), ..UploadConfig::default() };
        let pending = Pending::default();
        for (sequence, first, partitions) in [(0, 0, 40_000), (1, 40_000, 25_536), (2, 65_536, 1), (3, 65_537, 65_536)]
        {
            pending.push(group(sequence, first, partitions), now);
        }
        let cut = || match pending.cut(config, now, true) {
            Cut::Gather(groups) => groups.iter().map(|group| group.entries.len()).collect(),
            _ => Vec::new(),
        };
        assert_eq!([cut(), cut(), cut(), cut()], [vec![40_000, 25_536], vec![1], vec![65_536], vec![]]);
        assert_eq!(pending.bytes(), 0);

        let mut gathered = Gathered::of(&[group(0, 0, 65_535)]);
        assert!(gathered.has_room_for(1) && !gathered.has_room_for(2));
        for _ in 0..2 {
            gathered.push(group(1, 65_535, 1).entries.remove(0));
            assert!(gathered.has_room_for(0) && !gathered.has_room_for(1), "the same log again takes no room");
        }
    }
}
