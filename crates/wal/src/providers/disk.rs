//! The WAL on a local disk: one block per group commit, in preallocated segments that are used again and again.
//!
//! ```text
//! free segments ──▶ current segment ──(no room for the next block)──▶ full segments ──(trim)──▶ free segments
//! ```
//!
//! Consistency: a block is acknowledged only after `sync` returned. Retries: none; a write or sync that failed ends the
//! WAL, because nothing can be said of those bytes any more, whatever a later sync says. Cancellation: a block handed
//! to the worker is written even if nobody waits. Crash: a segment's header goes out with its first block under one
//! sync; a torn one leaves the older header, or blocks under a nonce that no header names, and neither was acknowledged.
//!
//! Invariants:
//! 1. One block is in flight at a time, so each block's `acknowledged` is its own number.
//! 2. A segment is used again only when all its blocks are trimmed, or its epoch is closed.
//! 3. Blocks are written to allocated space, so a full disk is met when a segment is made, not when a record waits.
//!
//! Sources: LWN 752063 (fsync errors), D3, D6.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forebay_env::{AlignedBuf, Env, FailPoint, SECTOR_SIZE, Worker};
use forebay_format::{
    LogEnd, SegmentHead, WalBlockHead, WalEntry, encode_wal_block, wal_block_padding, wal_block_size,
};
use forebay_types::{BrokerEpoch, BrokerId, ByteSize, ClusterId, WalSequence};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Group, Pacing, Provider, TALLY_BYTES_MAX, WalError, WalKind, WalOwner, Written};

mod files;
mod scan;
mod seal;
mod sectors;
mod segments;
mod verdict;

use files::Folder;
pub use seal::DiskSealer;
use segments::{Next, Place, Segments};

/// Encoded bytes in one group: writing and syncing them takes about a millisecond and a half.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// A block buffer above this is given back after use: one huge batch must not cost its memory for ever.
const BUFFER_KEPT_BYTES_MAX: usize = 2 * GROUP_BYTES_MAX;
/// Below this a segment would hold too few blocks to be worth its header.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;

/// Where a `disk` WAL lies and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Holds segments and nothing else.
    pub folder: PathBuf,
    /// All segments together; appends wait where nothing of it can be used again.
    pub total: ByteSize,
    pub segment: ByteSize,
}

impl DiskConfig {
    fn check(&self) -> Result<(), WalError> {
        let (total, segment) = (self.total.get(), self.segment.get());
        let whole = segment.is_multiple_of(SECTOR_SIZE as u64);
        if segment < SEGMENT_BYTES_MIN || total / 2 < segment || !whole {
            let least = ByteSize::new(SEGMENT_BYTES_MIN);
            return Err(WalError::Small { total: self.total, segment: self.segment, least });
        }
        Ok(())
    }

    /// The largest batch that a segment holds, in bytes.
    pub fn entry_bytes_max(&self) -> usize {
        // One sector for the segment's header, one for those of block and entry, and the tally of the group before.
        let taken = 2 * SECTOR_SIZE + self.tally_bytes_least_max().next_multiple_of(SECTOR_SIZE);
        usize::try_from(self.segment.get()).map_or(usize::MAX, |segment| segment.saturating_sub(taken))
    }

    fn group_bytes_max(&self) -> usize {
        // A quarter of a segment, so that little is wasted at its end.
        usize::try_from(self.segment.get() / 4).map_or(GROUP_BYTES_MAX, |quarter| quarter.min(GROUP_BYTES_MAX))
    }

    /// The largest that the smallest tally can be: each entry of the group before in a log of its own.
    fn tally_bytes_least_max(&self) -> usize {
        self.group_bytes_max() / WalEntry::HEAD_SIZE * LogEnd::SIZE
    }
}

/// Writes groups as blocks, on a thread of its own.
pub struct DiskProvider {
    env: Env,
    owner: WalOwner,
    config: DiskConfig,
    worker: Worker,
    folder: Arc<Folder>,
    segments: Mutex<Segments>,
    trimmed: Notify,
    buffer: Arc<Mutex<AlignedBuf>>,
}

impl DiskProvider {
    /// Opens the folder for a fresh broker epoch. Every segment there is used again, so `is_closed` has to say of each
    /// epoch found that it is sealed and its records are in committed data objects.
    ///
    /// # Errors
    /// An epoch is not closed, the disk is full or fails, or the configuration is too small.
    pub async fn open(
        env: &Env,
        config: DiskConfig,
        owner: WalOwner,
        is_closed: impl Fn(&ClusterId, BrokerId, BrokerEpoch) -> bool + Send + 'static,
    ) -> Result<Self, WalError> {
        config.check()?;
        let folder = Arc::new(Folder::new(env.disk(), config.folder.clone()));
        let (at, segment_bytes, total) = (Arc::clone(&folder), config.segment.get(), config.total.get());
        let segments = env.blocking("wal-open", move || at.reclaim(segment_bytes, total, &is_closed)).await?;
        let prepare =
            |source| WalError::Prepare { folder: config.folder.display().to_string(), source: Arc::new(source) };
        let worker = env.worker("wal-disk").map_err(prepare)?;
        let buffer = Arc::new(Mutex::new(AlignedBuf::with_capacity(SECTOR_SIZE)));
        let provider = Self {
            env: env.clone(),
            owner,
            worker,
            folder,
            segments: Mutex::new(Segments::new(segments, segment_bytes, total)),
            trimmed: Notify::new(),
            buffer,
            config,
        };
        if provider.segments.lock().is_empty() {
            provider.grow().await?;
        }
        Ok(provider)
    }

    /// A place for a block of `size` bytes; waits for a trim where there is none.
    async fn place(&self, sequence: WalSequence, size: usize) -> Result<Place, WalError> {
        loop {
            let trimmed = self.trimmed.notified();
            let next = self.segments.lock().place(sequence, size as u64, || self.env.random_u64());
            match next {
                Next::Place(place) => return Ok(place),
                Next::Grow => match self.grow().await {
                    Err(error @ WalError::DiskFull { .. }) => {
                        // The segments there are go on: acks wait for an upload instead of failing.
                        tracing::warn!(%error, "the WAL cannot grow and waits for uploads");
                        self.segments.lock().cannot_grow();
                    }
                    grown => grown?,
                },
                Next::Wait => trimmed.await,
            }
        }
    }

    async fn grow(&self) -> Result<(), WalError> {
        let slot = self.segments.lock().next_slot();
        let (folder, size) = (Arc::clone(&self.folder), self.config.segment.get());
        let file = self.worker.run(move || folder.create(slot, size)).await?;
        self.segments.lock().add_free(file);
        Ok(())
    }
}

#[async_trait]
impl Provider for DiskProvider {
    fn kind(&self) -> WalKind {
        WalKind::Disk
    }

    fn fault_domain(&self) -> String {
        format!("the disk that holds {}", self.config.folder.display())
    }

    fn pacing(&self) -> Pacing {
        Pacing {
            wait: Duration::ZERO,
            groups_in_flight_max: NonZeroUsize::MIN,
            groups_per_second_max: None,
            group_bytes_max: self.config.group_bytes_max(),
        }
    }

    fn entry_bytes_max(&self) -> usize {
        self.config.entry_bytes_max()
    }

    fn room(&self) -> u64 {
        self.segments.lock().room().saturating_sub(self.config.group_bytes_max() as u64)
    }

    async fn write(&self, group: Group) -> Result<Written, WalError> {
        // The group before is told whatever it takes, those before it in what the last sector has left.
        let least = group.before.least();
        let tally = group.before.tally(TALLY_BYTES_MAX.min(least + wal_block_padding(least, &group.entries)));
        let size = wal_block_size(tally.size(), &group.entries);
        let place = self.place(group.sequence, size).await?;
        let head = WalBlockHead {
            broker: self.owner.broker,
            broker_epoch: self.owner.epoch,
            nonce: place.nonce,
            sequence: group.sequence,
            acknowledged: group.acknowledged,
        };
        let opening = place.opens.then(|| SegmentHead {
            cluster: self.owner.cluster.clone(),
            broker: self.owner.broker,
            broker_epoch: self.owner.epoch,
            segment: place.segment,
            size: place.file.size,
            nonce: place.nonce,
        });
        let (env, buffer) = (self.env.clone(), Arc::clone(&self.buffer));
        self.worker
            .run(move || {
                let buffer = &mut *buffer.lock();
                buffer.clear();
                let mut position = place.position;
                if let Some(head) = opening {
                    buffer.extend_from_slice(&head.encode());
                    position -= SECTOR_SIZE as u64;
                }
                encode_wal_block(&head, &tally, &group.entries, &mut |piece| buffer.extend_from_slice(piece));
                assert!(buffer.len().is_multiple_of(SECTOR_SIZE), "blocks fill whole sectors");
                let failed = |what| {
                    let segment = place.file.name.clone();
                    move |source| WalError::Disk { what, segment, source: Arc::new(source) }
                };
                env.fail_point(FailPoint::WalBeforeWrite);
                place.file.handle.write_all_at(buffer, position).map_err(failed("write a block"))?;
                env.fail_point(FailPoint::WalBeforeSync);
                place.file.handle.sync().map_err(failed("sync a block"))?;
                let bytes = buffer.len() as u64;
                if buffer.capacity() > BUFFER_KEPT_BYTES_MAX {
                    *buffer = AlignedBuf::with_capacity(SECTOR_SIZE);
                }
                Ok(Written { object: None, bytes, syncs: 1 })
            })
            .await
    }

    fn trim(&self, through: WalSequence) {
        self.segments.lock().trim(through);
        self.trimmed.notify_waiters();
    }
}
