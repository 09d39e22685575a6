//! The WAL in the bucket: each group is a data object, created under its number and never touched again (D4, D6).
//!
//! Consistency: a number belongs to whoever created it first, the writer or a sealer's fence. Retries: a number's bytes
//! are fixed before its first send; an unknown outcome is met by sending them again, for as long as the bucket is away,
//! while appends wait. Cancellation: a dropped create may happen; its number is then found by the sealer. Crash:
//! numbers in flight may leave gaps, the epoch ends at the lowest one.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forebay_env::{Env, FailPoint};
use forebay_format::{EncodedObject, Fence, ObjectHead, ObjectName, ObjectWriter, SectionHead};
use forebay_store::{Body, CreateError, Key, Store, create_exact};
use forebay_types::{BrokerEpoch, BrokerId, ByteSize, WalSequence};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Group, Pacing, Provider, TALLY_BYTES_MAX, WalError, WalKind, WalOwner, Written, WrittenObject};

mod seal;

pub use seal::ObjectSealer;

/// Bytes of batches that are encoded without leaving the runtime's thread: a checksum of them takes half a millisecond.
const ENCODE_INLINE_BYTES_MAX: usize = 4 << 20;

/// Batches stay in memory until their object is committed. As much as the `disk` kind's room is by default, so that a
/// broker's memory does not depend on its WAL: sixteen full groups, four times what is in flight.
const BYTES_UNCOMMITTED_MAX: ByteSize = ByteSize::mib(256);

/// Pause before a create is tried again after the store's own retries have given up.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Bounds of an `object` WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectConfig {
    /// How long a record may wait for company, unless the broker was idle.
    pub wait: Duration,
    /// K: creates in flight. Also in the metadata's row of the epoch, because sealing depends on it.
    pub groups_in_flight_max: NonZeroUsize,
    /// What the WAL may cost: at 10 a second, $130 a month on S3.
    pub groups_per_second_max: NonZeroUsize,
    pub group_bytes_max: usize,
    /// U: objects written and not yet trimmed. Bounds what a sealer has to read.
    pub groups_uncommitted_max: NonZeroUsize,
    /// Bytes of batches in objects written and not yet trimmed. Bounds memory. A group larger than it is written alone.
    pub bytes_uncommitted_max: ByteSize,
    /// A planted bug: a group counts as written although a sealer's fence has its number.
    pub sabotage_ignore_fence: bool,
}

impl Default for ObjectConfig {
    fn default() -> Self {
        let count = |n| NonZeroUsize::new(n).expect("not 0");
        Self {
            wait: Duration::from_millis(100),
            groups_in_flight_max: count(4),
            groups_per_second_max: count(10),
            group_bytes_max: 16 << 20,
            groups_uncommitted_max: count(1_000),
            bytes_uncommitted_max: BYTES_UNCOMMITTED_MAX,
            sabotage_ignore_fence: false,
        }
    }
}

/// Writes groups as numbered objects of one broker epoch.
pub struct ObjectProvider {
    env: Env,
    store: Arc<dyn Store>,
    owner: WalOwner,
    config: ObjectConfig,
    progress: Mutex<Progress>,
    /// Something was trimmed, or it is the next group's turn to start.
    moved: Notify,
}

/// Groups that have started and are not trimmed.
#[derive(Default)]
struct Progress {
    /// Exclusive.
    started: WalSequence,
    /// Bytes of the batches of each one, the oldest first.
    sizes: VecDeque<u64>,
    /// The sum of `sizes`.
    bytes: u64,
}

impl Progress {
    /// Takes a group in, if it is its turn and there is room. In order: one that overtook could take the room for good
    /// that the one before it waits for, as nothing above a waiting group is ever committed.
    fn start(&mut self, sequence: WalSequence, bytes: u64, config: &ObjectConfig) -> bool {
        let fits = self.sizes.is_empty() || self.bytes.saturating_add(bytes) <= config.bytes_uncommitted_max.get();
        if sequence != self.started || self.sizes.len() >= config.groups_uncommitted_max.get() || !fits {
            return false;
        }
        self.started = sequence.next();
        self.sizes.push_back(bytes);
        self.bytes += bytes;
        true
    }

    fn trim(&mut self, through: WalSequence) {
        assert!(through < self.started, "only what was written is trimmed: {through}");
        let kept = self.started.get() - through.next().get();
        while self.sizes.len() as u64 > kept {
            self.bytes -= self.sizes.pop_front().expect("longer than what is kept");
        }
    }

    fn room(&self, config: &ObjectConfig) -> u64 {
        if self.sizes.len() >= config.groups_uncommitted_max.get() {
            return 0;
        }
        config.bytes_uncommitted_max.get().saturating_sub(self.bytes)
    }
}

fn batch_bytes(group: &Group) -> usize {
    group.entries.iter().map(|entry| entry.records.len()).sum()
}

impl ObjectProvider {
    /// The writer of a fresh broker epoch: none of its numbers is in the bucket.
    pub fn new(env: &Env, store: Arc<dyn Store>, owner: WalOwner, config: ObjectConfig) -> Self {
        Self { env: env.clone(), store, owner, config, progress: Mutex::default(), moved: Notify::new() }
    }

    /// Waits until what is uncommitted leaves room for a group.
    async fn wait_for_commits(&self, sequence: WalSequence, bytes: u64) {
        loop {
            let moved = self.moved.notified();
            if self.progress.lock().start(sequence, bytes, &self.config) {
                self.moved.notify_waiters();
                return;
            }
            moved.await;
        }
    }

    async fn encode(&self, group: Group) -> EncodedObject {
        let head = ObjectHead {
            cluster: self.owner.cluster.clone(),
            broker: self.owner.broker,
            broker_epoch: self.owner.epoch,
            sequence: group.sequence,
            generation: 0,
            written_at: self.env.now(),
        };
        if batch_bytes(&group) <= ENCODE_INLINE_BYTES_MAX {
            return encode(head, &group);
        }
        self.env.blocking("wal-encode", move || encode(head, &group)).await
    }
}

/// A group as a data object: partitions sorted, a section for each partition and leader epoch.
fn encode(head: ObjectHead, group: &Group) -> EncodedObject {
    let mut order: Vec<_> = group.entries.iter().collect();
    // Stable: within a section the order is that of the positions, which is that of the offsets.
    order.sort_by_key(|e| (e.partition, e.log, e.leader_epoch));
    let mut writer = ObjectWriter::new(head).with_tally(group.before.tally(TALLY_BYTES_MAX));
    let mut section = None;
    for entry in order {
        let key = (entry.partition, entry.log, entry.leader_epoch);
        if section != Some(key) {
            section = Some(key);
            writer.section(SectionHead {
                partition: entry.partition,
                log: entry.log,
                leader_epoch: entry.leader_epoch,
                epoch_start: entry.epoch_start,
                producer_snapshot: None,
            });
        }
        writer.push(&entry.summary, entry.aborted.as_ref(), &entry.records);
    }
    writer.finish()
}

/// The name of a number.
fn key_of(broker: BrokerId, epoch: BrokerEpoch, sequence: WalSequence) -> Key {
    let name = ObjectName::Wal { broker, epoch, sequence }.to_string();
    Key::new(&name).expect("our names are keys")
}

#[async_trait]
impl Provider for ObjectProvider {
    fn kind(&self) -> WalKind {
        WalKind::Object
    }

    fn fault_domain(&self) -> String {
        format!("the bucket {}", self.store.name())
    }

    fn pacing(&self) -> Pacing {
        Pacing {
            wait: self.config.wait,
            groups_in_flight_max: self.config.groups_in_flight_max,
            groups_per_second_max: Some(self.config.groups_per_second_max),
            group_bytes_max: self.config.group_bytes_max,
        }
    }

    fn entry_bytes_max(&self) -> usize {
        // An object holds the batch, its index and its footer, and is read whole where it must be.
        usize::try_from(forebay_store::OBJECT_SIZE_MAX / 2).expect("fits memory")
    }

    fn room(&self) -> u64 {
        self.progress.lock().room(&self.config)
    }

    async fn write(&self, group: Group) -> Result<Written, WalError> {
        let sequence = group.sequence;
        self.wait_for_commits(sequence, batch_bytes(&group) as u64).await;
        let object = self.encode(group).await;
        let key = key_of(self.owner.broker, self.owner.epoch, sequence);
        self.env.fail_point(FailPoint::WalBeforeWrite);
        // From here on these are the bytes of this number, whatever becomes of each attempt.
        let body = Body::new(object.chunks);
        loop {
            let error = match create_exact(&self.env, &*self.store, &key, body.clone()).await {
                Ok(_) => break,
                Err(CreateError::Theirs { .. }) if self.config.sabotage_ignore_fence => break,
                Err(CreateError::Theirs { found, .. }) => {
                    let name = key.to_string();
                    let fenced = Fence::is_fence(&found);
                    return Err(if fenced { WalError::Fenced { name } } else { WalError::Foreign { name } });
                }
                Err(CreateError::Store(error)) => error,
            };
            // The bucket is away, full, or refuses us: nothing is lost by waiting until somebody mends it, and appends
            // wait with us.
            tracing::warn!(%error, %sequence, "the WAL cannot reach its bucket and waits");
            self.env.sleep(RETRY_PAUSE).await;
        }
        self.env.fail_point(FailPoint::WalBeforeSync);
        let written = WrittenObject {
            sequence,
            name: key.to_string(),
            size: object.size,
            footer_position: object.footer_position,
            ranges: object.ranges,
        };
        Ok(Written { bytes: written.size, object: Some(written), syncs: 1 })
    }

    fn trim(&self, through: WalSequence) {
        self.progress.lock().trim(through);
        self.moved.notify_waiters();
    }
}
