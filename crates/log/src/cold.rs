//! Reads from the bucket: history that memory no longer holds.
//!
//! A read goes from an offset to an extent (metadata), from the extent to a block (the object's footer), from the
//! block to batches. Footers and chunks of blocks are cached; a chunk is what one GET brings.
//!
//! Owns: what to GET, in which pieces, and what to read ahead. Leaves to others: which offsets may be seen
//! (`partition`), eviction and single flight (`cache`), retries (`store`).
//!
//! Invariants:
//! 1. A chunk is cut the same way for every reader, so all who miss it share one GET.
//! 2. Bytes are handed out only after their block's checksum was found right. What is wrong is read again, and called
//!    damaged only after [`READS_MAX`](reread::READS_MAX) reads.
//! 3. Offsets that are lost are answered as lost, never skipped: a reader must not believe that it saw everything.
//! 4. Reading ahead is bounded by [`READ_AHEAD_CHUNKS_MAX`] per reader and [`READ_AHEAD_GETS_MAX`] in all.
//!
//! Sources: D9.

mod layout;
mod reread;
mod seek;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_cache::{ByteCache, CacheCounts};
use forebay_env::{Env, Task};
use forebay_format::{BlockIndex, Footer, FooterParse, FormatError, Section};
use forebay_metadata::service::ErrorKind;
use forebay_metadata::state::SnapshotRef;
use forebay_metadata::{Extent, LookupError, Metadata};
use forebay_store::{Key, Store, StoreError, StoreErrorKind};
use forebay_types::{ByteSize, LogId, Offset, OffsetRange, TopicPartition};
use forebay_wire::{BatchError, BatchHeader};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use layout::{Chunk, Layout, ParseCached};
use reread::READS_MAX;

pub(crate) use reread::reread;

/// Chunks that one sequential reader has read ahead of it at most: 4 MiB.
const READ_AHEAD_CHUNKS_MAX: usize = 4;

/// GETs that read ahead for all readers together. Reads that a client waits for are not counted: they never wait for these.
const READ_AHEAD_GETS_MAX: usize = 8;

/// How long damage is believed without reading again: a client that asks for damaged records all the time must not cost
/// three GETs each time.
const DAMAGE_BELIEVED: Duration = Duration::from_mins(1);

/// Extents asked for at once. A sequential reader asks again after as many objects.
const EXTENTS_PAGE: usize = 16;

/// Why history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// Try again: the store or the metadata did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Metadata(#[from] LookupError),
    /// The bytes in the bucket are not what was written.
    #[error(transparent)]
    Corrupt(#[from] FormatError),
    /// The records were acknowledged, and are gone for good.
    #[error("partition {partition}: the records at offsets {range} were lost to a corrupt WAL block")]
    Lost { partition: TopicPartition, range: OffsetRange },
    /// A batch whose block is whole does not hold the records that its producer said it does.
    #[error("the records in {object} at byte {position} cannot be read")]
    Records {
        object: String,
        position: u64,
        #[source]
        error: BatchError,
    },
    /// Metadata names a snapshot object that does not hold the partition's state.
    #[error("{object} holds no producer state of partition {partition} at offset {at}")]
    NoSnapshot { object: String, partition: TopicPartition, at: Offset },
    /// Metadata knows no object for an offset that should be in the bucket: only while the log start passes it.
    #[error("partition {partition}: no object holds offset {offset}")]
    NoExtent { partition: TopicPartition, offset: Offset },
}

impl ColdError {
    /// Whether asking again may help: what did not answer may answer yet.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Metadata(error) => error.kind() == ErrorKind::Retry,
            Self::Corrupt(_)
            | Self::Lost { .. }
            | Self::Records { .. }
            | Self::NoExtent { .. }
            | Self::NoSnapshot { .. } => false,
        }
    }

    /// Whether the bytes were not what was written, or what was read of them at least.
    fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt(_) => true,
            Self::Store(error) => error.kind() == StoreErrorKind::Corrupt,
            _ => false,
        }
    }

    pub(crate) fn no_snapshot(snapshot: &SnapshotRef, partition: TopicPartition) -> Self {
        Self::NoSnapshot { object: snapshot.object.clone(), partition, at: snapshot.at }
    }
}

/// The log to read, under the name for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub partition: TopicPartition,
    pub log: LogId,
}

/// What to read: batches that hold offsets from `from` up to `end`, of about `bytes_max`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColdRead {
    pub from: Offset,
    pub end: Offset,
    pub bytes_max: usize,
    /// The first batch comes whole, even where it is larger than `bytes_max`.
    pub at_least_one: bool,
}

/// What one partition's readers have done, to know a sequential one. Small, because every partition has one.
#[derive(Debug, Default)]
pub(crate) struct ReadPattern(Mutex<Option<Box<Trail>>>);

#[derive(Debug)]
struct Trail {
    /// Where the last read ended: one that begins here goes on with it.
    next: Offset,
    /// How many chunks to read ahead: grows while reads go on, from 0.
    ahead: usize,
    /// The last extents looked up, in order.
    extents: Vec<Extent>,
}

pub struct ColdReader {
    env: Env,
    store: Arc<dyn Store>,
    metadata: Arc<dyn Metadata>,
    footers: ByteCache<Arc<str>, Arc<Layout>>,
    chunks: ByteCache<(Arc<str>, u64), Arc<Chunk>>,
    read_ahead: Semaphore,
    /// Reads ahead under way. Finished ones are cleared by the next that starts.
    tasks: Mutex<Vec<Task<()>>>,
}

impl ColdReader {
    pub fn new(env: Env, store: Arc<dyn Store>, metadata: Arc<dyn Metadata>, budget: ByteSize) -> Arc<Self> {
        // Footers weigh a thousandth of their objects; a sixteenth of the budget serves sixty times the chunks' history.
        let footers = ByteCache::new(ByteSize::new(budget.get() / 16));
        let chunks = ByteCache::new(ByteSize::new(budget.get() - budget.get() / 16));
        let read_ahead = Semaphore::new(READ_AHEAD_GETS_MAX);
        Arc::new(Self { env, store, metadata, footers, chunks, read_ahead, tasks: Mutex::new(Vec::new()) })
    }

    /// Hits, misses and bytes held of the chunk cache.
    pub fn counts(&self) -> CacheCounts {
        self.chunks.counts()
    }

    /// Reads whole batches in offset order, from the one that holds `from`. Gives fewer than asked for rather than
    /// wait for a second object once it has something.
    pub(crate) async fn read(
        self: &Arc<Self>,
        source: Source,
        read: ColdRead,
        pattern: &ReadPattern,
    ) -> Result<Vec<Bytes>, ColdError> {
        let mut taken = Taken { batches: Vec::new(), room: read.bytes_max, next: read.from };
        let ahead = pattern.begin(read.from);
        while taken.next < read.end && taken.room > 0 {
            let before = taken.next;
            match self.read_extent(source, read, &mut taken, pattern, ahead).await {
                Ok(()) => {}
                // What was read before is whole, and nobody gets it if it goes down with the rest: the next read begins
                // where this one failed, and is told.
                Err(_) if !taken.batches.is_empty() => break,
                Err(error) => return Err(error),
            }
            if taken.next == before {
                break;
            }
        }
        pattern.end(read.from, taken.next);
        Ok(taken.batches)
    }

    /// Takes what the object has of the read that holds its next offset.
    async fn read_extent(
        self: &Arc<Self>,
        source: Source,
        read: ColdRead,
        taken: &mut Taken,
        pattern: &ReadPattern,
        ahead: usize,
    ) -> Result<(), ColdError> {
        let extent = self.extent(source, taken.next, Some(pattern)).await?;
        let layout = match self.layout(&extent).await {
            Err(ColdError::Store(error)) if matches!(error.kind(), StoreErrorKind::NotFound) => {
                // The object was merged away or collected after the lookup: look again, once.
                pattern.forget_extents();
                let extent = self.extent(source, taken.next, None).await?;
                self.layout(&extent).await?
            }
            other => other?,
        };
        self.read_object(source, &layout, read, taken, ahead).await
    }

    /// Takes what one object has of the read.
    async fn read_object(
        self: &Arc<Self>,
        source: Source,
        layout: &Arc<Layout>,
        read: ColdRead,
        taken: &mut Taken,
        ahead: usize,
    ) -> Result<(), ColdError> {
        for section in layout.footer.sections_of(source.partition, source.log) {
            for block in section.blocks_from(taken.next) {
                if block.base_offset >= read.end {
                    return Ok(());
                }
                if let Some(range) = section.lost.iter().find(|range| range.contains(taken.next)) {
                    return if taken.batches.is_empty() {
                        Err(ColdError::Lost { partition: source.partition, range: *range })
                    } else {
                        Ok(())
                    };
                }
                let payload = self.block(layout, section, block).await?;
                self.read_ahead(layout, block.position, ahead);
                if !taken.take(&payload, read) {
                    return Ok(());
                }
            }
            if let Some(range) = section.lost.iter().find(|range| range.contains(taken.next))
                && taken.batches.is_empty()
            {
                return Err(ColdError::Lost { partition: source.partition, range: *range });
            }
        }
        Ok(())
    }

    /// Visits what footers say of offsets `[from, end)` of a log, in order. `from` must be where a section begins.
    pub(crate) async fn for_each_section(
        &self,
        source: Source,
        from: Offset,
        end: Offset,
        mut visit: impl FnMut(&Section),
    ) -> Result<(), ColdError> {
        let mut next = from;
        while next < end {
            let page = self.metadata.extents(source.log, next, EXTENTS_PAGE).await?;
            // Below the log start there may be nothing: the first extent is the first above it.
            let Some(last) = page.last() else { return Ok(()) };
            next = last.range.end();
            for extent in &page {
                let layout = self.layout(extent).await?;
                layout.footer.sections_of(source.partition, source.log).for_each(&mut visit);
            }
        }
        Ok(())
    }

    /// The extent that holds an offset.
    async fn extent(&self, source: Source, at: Offset, pattern: Option<&ReadPattern>) -> Result<Extent, ColdError> {
        if let Some(extent) = pattern.and_then(|pattern| pattern.extent(at)) {
            return Ok(extent);
        }
        let page = self.metadata.extents(source.log, at, EXTENTS_PAGE).await?;
        let extent = page.iter().find(|extent| extent.range.contains(at)).cloned();
        if let Some(pattern) = pattern {
            pattern.keep_extents(page);
        }
        extent.ok_or(ColdError::NoExtent { partition: source.partition, offset: at })
    }

    /// An object's footer and how its blocks are cut into chunks.
    async fn layout(&self, extent: &Extent) -> Result<Arc<Layout>, ColdError> {
        let name: Arc<str> = extent.object.as_str().into();
        let fetch = async {
            let footer = read_footer(&*self.store, &extent.object, extent.size, extent.footer_position).await?;
            Ok(Arc::new(Layout::new(Arc::clone(&name), extent.footer_position, footer)))
        };
        self.footers.get_or_fetch(&name, fetch).await
    }

    /// A block's batches. A chunk in which the block is wrong is fetched again, at most until it was read
    /// [`READS_MAX`] times; the last stays in the cache, where its other blocks may be right.
    async fn block(&self, layout: &Layout, section: &Section, block: &BlockIndex) -> Result<Bytes, ColdError> {
        let mut reads = 1;
        loop {
            let chunk = self.chunk(layout, block.position, reads).await?;
            let error = match section.parse_cached(&chunk, layout, block) {
                Ok(payload) => return Ok(payload),
                Err(error) => error,
            };
            let last = chunk.reads >= READS_MAX;
            if last && self.env.monotonic() < chunk.read_at + DAMAGE_BELIEVED {
                return Err(error.into());
            }
            tracing::warn!(error = &error as &dyn Error, reads = chunk.reads, "a chunk is wrong and is fetched again");
            let key = (Arc::clone(&layout.object), chunk.start);
            self.chunks.remove_if(&key, |held| Arc::ptr_eq(held, &chunk));
            reads = if last { 1 } else { chunk.reads + 1 };
        }
    }

    /// The chunk that holds the block at `position`; where it has to be fetched, this is reading number `reads` of it.
    async fn chunk(&self, layout: &Layout, position: u64, reads: u32) -> Result<Arc<Chunk>, ColdError> {
        let plan = layout.plan_of(position);
        let key = (Arc::clone(&layout.object), plan.start);
        let fetch = async {
            let object = object_key(&layout.object)?;
            let bytes = self.store.get_range(&object, plan.clone()).await?;
            Ok(Arc::new(Chunk { start: plan.start, bytes, reads, read_at: self.env.monotonic() }))
        };
        self.chunks.get_or_fetch(&key, fetch).await
    }

    /// Starts to fetch the chunks after the one at `position`, as far as a sequential reader will soon want them.
    fn read_ahead(self: &Arc<Self>, layout: &Arc<Layout>, position: u64, ahead: usize) {
        for plan in layout.plans_after(position).take(ahead) {
            if self.chunks.peek(&(Arc::clone(&layout.object), plan.start)).is_some() {
                continue;
            }
            let (reader, layout) = (Arc::clone(self), Arc::clone(layout));
            let fetch: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                let Ok(_permit) = reader.read_ahead.try_acquire() else { return };
                // Whoever wants the chunk will meet the error, with a client to tell it to.
                let _ = reader.chunk(&layout, plan.start, 1).await;
            });
            let mut tasks = self.tasks.lock();
            tasks.retain(|task| !task.is_finished());
            if tasks.len() < READ_AHEAD_GETS_MAX {
                tasks.push(self.env.spawn("read-ahead", fetch));
            }
        }
    }
}

/// Reads and parses the footer of a data object, again where it is wrong.
///
/// # Errors
/// The store does not answer, or the footer is damaged; the error names the object.
pub async fn read_footer(
    store: &dyn Store,
    object: &str,
    size: u64,
    footer_position: u64,
) -> Result<Footer, ColdError> {
    let key = object_key(object)?;
    reread(|| read_footer_once(store, &key, size, footer_position)).await
}

async fn read_footer_once(
    store: &dyn Store,
    object: &Key,
    size: u64,
    footer_position: u64,
) -> Result<Footer, ColdError> {
    let mut from = footer_position;
    loop {
        let tail = store.get_range(object, from..size).await?;
        match Footer::parse(&tail, size).map_err(|error| error.in_object(object))? {
            FooterParse::Whole(footer) => return Ok(footer),
            // Each answer asks for more than the one before, so this ends at the object's start.
            FooterParse::NeedMore { from: earlier } if earlier < from => from = earlier,
            FooterParse::NeedMore { .. } => {
                return Err(ColdError::Store(StoreError::new(
                    forebay_store::Operation::Read,
                    object,
                    StoreErrorKind::Corrupt,
                )));
            }
        }
    }
}

fn object_key(object: &str) -> Result<Key, ColdError> {
    Key::new(object).map_err(|error| {
        let error = StoreError::new(forebay_store::Operation::Read, &object, StoreErrorKind::Corrupt).because(error);
        ColdError::Store(error)
    })
}

/// The batches taken so far.
struct Taken {
    batches: Vec<Bytes>,
    room: usize,
    next: Offset,
}

impl Taken {
    /// Takes from a block's batches what the read wants; false once it wants no more. One slice for the whole run.
    fn take(&mut self, payload: &Bytes, read: ColdRead) -> bool {
        let mut at = 0;
        let mut run: Option<(usize, usize)> = None;
        let mut more = true;
        while at < payload.len() {
            // The checksum was right, so these are the bytes that the broker wrote after it had parsed them.
            let header = BatchHeader::parse(&payload[at..]).expect("a checked block holds whole batches");
            let last = Offset::new(header.last_offset()).expect("offsets in a log are not negative");
            let base = Offset::new(header.base_offset).expect("offsets in a log are not negative");
            let size = header.size();
            if last >= self.next {
                let first = read.at_least_one && self.batches.is_empty() && run.is_none();
                if base >= read.end || (size > self.room && !first) {
                    more = false;
                    break;
                }
                self.room = self.room.saturating_sub(size);
                self.next = last.next();
                run = Some((run.map_or(at, |(start, _)| start), at + size));
            }
            at += size;
        }
        self.batches.extend(run.map(|(start, end)| payload.slice(start..end)));
        more && self.room > 0
    }
}

impl ReadPattern {
    /// How far to read ahead for a read from this offset.
    fn begin(&self, from: Offset) -> usize {
        self.0.lock().as_ref().filter(|trail| trail.next == from).map_or(0, |trail| trail.ahead)
    }

    fn end(&self, from: Offset, next: Offset) {
        let mut trail = self.0.lock();
        let trail = trail.get_or_insert_with(|| Box::new(Trail { next: from, ahead: 0, extents: Vec::new() }));
        trail.ahead = if trail.next == from { (trail.ahead * 2).clamp(1, READ_AHEAD_CHUNKS_MAX) } else { 0 };
        trail.next = next;
    }

    fn extent(&self, at: Offset) -> Option<Extent> {
        self.0.lock().as_ref()?.extents.iter().find(|extent| extent.range.contains(at)).cloned()
    }

    fn keep_extents(&self, extents: Vec<Extent>) {
        if let Some(trail) = self.0.lock().as_mut() {
            trail.extents = extents;
        }
    }

    fn forget_extents(&self) {
        self.keep_extents(Vec::new());
    }
}
