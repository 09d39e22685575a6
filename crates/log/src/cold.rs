//! Reads from the bucket: history that memory no longer holds.
//!
//! A read goes from an offset to an extent (metadata), from the extent to a block (the object's footer), from the
//! block to batches. Extents, footers and chunks of blocks are cached; a chunk is what one GET brings, and a small object
//! comes whole.
//!
//! Owns: what to GET, in which pieces, and what to read ahead. Leaves to others: which offsets may be seen
//! (`partition`), eviction and single flight (`cache`), retries (`store`).
//!
//! Invariants:
//! 1. A chunk is cut the same way for every reader, so all who miss it share one GET.
//! 2. Bytes are handed out only after their block's checksum was found right. What is wrong is read again, and called
//!    damaged only after [`READS_MAX`] reads.
//! 3. Offsets that are lost are answered as lost, never skipped: a reader must not believe that it saw everything.
//! 4. Reading ahead is bounded, per reader and in all (`ahead`).
//! 5. What stands before an error is served; the error is the next read's, which begins there.
//! 6. What is handed out keeps a chunk in memory only where it is more than little of it ([`KEPT_MAX`]).
//!
//! Sources: D9.

mod ahead;
mod extents;
mod layout;
mod patience;
mod reread;
mod seek;
#[cfg(test)]
mod tests;
mod trails;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_cache::{ByteCache, CacheCounts};
use forebay_env::Env;
use forebay_format::{BlockIndex, Footer, FooterParse, FormatError, Section};
use forebay_metadata::service::ErrorKind;
use forebay_metadata::state::SnapshotRef;
use forebay_metadata::{Extent, LookupError, Metadata};
use forebay_store::{Key, Store, StoreError, StoreErrorKind};
use forebay_types::{ByteSize, LogId, Offset, OffsetRange, TopicPartition};
use forebay_wire::BatchHeader;
use parking_lot::Mutex;

use crate::inflate::Inflater;
use ahead::{Place, UnderWay, Want};
use extents::{EXTENTS_PAGE, Page, PageKey};
use layout::{CHUNK_SIZE_TARGET, Chunk, Layout, ParseCached, blocks_end, is_small};
use reread::READS_MAX;
use trails::Trail;

pub(crate) use patience::{Patience, Unread};
pub(crate) use reread::reread;
pub(crate) use trails::ReadPattern;

/// How long a read that has something goes on to further objects: many small ones must not take a fetch's whole time.
const READ_TIME_TARGET: Duration = Duration::from_millis(500);

/// How long damage is believed without reading again: a client that asks for damaged records all the time must not cost
/// three GETs each time.
const DAMAGE_BELIEVED: Duration = Duration::from_mins(1);

/// By reference a few bytes keep the whole chunk that they came with, for as long as a client takes to read them: where
/// the chunk has more than so many times the bytes, they are copied.
const KEPT_MAX: u64 = 4;

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
            Self::Corrupt(_) | Self::Lost { .. } | Self::NoExtent { .. } | Self::NoSnapshot { .. } => false,
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
    /// See [`crate::LogConfig::sabotage_stray_records`].
    pub of_any_partition: bool,
}

impl ColdRead {
    /// Whether the records from `next` on are read from this section.
    fn is_from(&self, section: &Section, source: Source, next: Offset) -> bool {
        let head = &section.head;
        let stray = self.of_any_partition && head.partition.topic == source.partition.topic;
        (head.partition, head.log) == (source.partition, source.log) || stray && section.range.contains(next)
    }
}

pub struct ColdReader {
    env: Env,
    store: Arc<dyn Store>,
    metadata: Arc<dyn Metadata>,
    pages: ByteCache<PageKey, Arc<Page>>,
    footers: ByteCache<Arc<str>, Arc<Layout>>,
    chunks: ByteCache<(Arc<str>, u64), Arc<Chunk>>,
    under_way: Mutex<UnderWay>,
    inflater: Inflater,
}

impl ColdReader {
    pub fn new(env: Env, store: Arc<dyn Store>, metadata: Arc<dyn Metadata>, budget: ByteSize) -> Arc<Self> {
        // Footers weigh a thousandth of their objects; a sixteenth of the budget serves sixty times the chunks' history.
        // Extents weigh less still.
        let (footers, pages) = (budget.get() / 16, budget.get() / 32);
        let chunks = ByteCache::new(ByteSize::new(budget.get() - footers - pages));
        let (footers, pages) = (ByteCache::new(ByteSize::new(footers)), ByteCache::new(ByteSize::new(pages)));
        let (under_way, inflater) = (Mutex::default(), Inflater::new(&env));
        Arc::new(Self { env, store, metadata, pages, footers, chunks, under_way, inflater })
    }

    /// Where records are read that take long to read.
    pub(crate) fn inflater(&self) -> &Inflater {
        &self.inflater
    }

    /// Hits, misses and bytes held of the chunk cache.
    pub fn counts(&self) -> CacheCounts {
        self.chunks.counts()
    }

    /// Reads whole batches in offset order, from the one that holds `from`: as many as are asked for, or fewer where they
    /// lie in so many objects that it takes longer than [`READ_TIME_TARGET`].
    pub(crate) async fn read(
        self: &Arc<Self>,
        source: Source,
        read: ColdRead,
        pattern: &ReadPattern,
    ) -> Result<Vec<Bytes>, ColdError> {
        let deadline = self.env.monotonic() + READ_TIME_TARGET;
        let mut taken = Taken { batches: Vec::new(), room: read.bytes_max, next: read.from, chunk: (0, 0) };
        let mut trail = pattern.begin(read.from);
        while taken.next < read.end && taken.room > 0 {
            if !taken.batches.is_empty() && self.env.monotonic() >= deadline {
                break;
            }
            let before = taken.next;
            let mut done = self.read_extent(source, read, &mut taken, &mut trail).await;
            if let Err(ColdError::Store(error)) = &done
                && matches!(error.kind(), StoreErrorKind::NotFound)
                && let Some(page) = trail.page.take()
            {
                // The object was merged away or collected after the lookup: look again, once.
                self.forget_page(&page);
                done = self.read_extent(source, read, &mut taken, &mut trail).await;
            }
            match done {
                Err(error) if taken.batches.is_empty() => return Err(error),
                Ok(()) if taken.next > before => {}
                Ok(()) | Err(_) => break,
            }
        }
        pattern.end(trail, taken.next, taken.next >= read.end);
        taken.end_chunk();
        Ok(taken.batches)
    }

    /// Takes what the next extent has of the read.
    async fn read_extent(
        self: &Arc<Self>,
        source: Source,
        read: ColdRead,
        taken: &mut Taken,
        trail: &mut Trail,
    ) -> Result<(), ColdError> {
        let (page, index) = self.page(source, taken.next, trail.page.as_ref()).await?;
        let extent = &page.extents()[index];
        trail.page = Some(Arc::clone(&page));
        let ahead = Ahead { page: &page, index, pieces: trail.ahead };
        if extent.bytes < CHUNK_SIZE_TARGET {
            // What lies ahead is in other objects; this one's footer need not be waited for.
            self.read_ahead(&ahead.place(source, taken, None), ahead.want(taken));
        }
        let layout = self.layout(extent).await?;
        self.read_object(source, &layout, read, taken, ahead).await
    }

    /// Takes what one object has of the read.
    async fn read_object(
        self: &Arc<Self>,
        source: Source,
        layout: &Arc<Layout>,
        read: ColdRead,
        taken: &mut Taken,
        ahead: Ahead<'_>,
    ) -> Result<(), ColdError> {
        let mut chunk_end = 0;
        let from = taken.next;
        for section in layout.footer.sections.iter().filter(|section| read.is_from(section, source, from)) {
            for block in section.blocks_from(taken.next) {
                if block.base_offset >= read.end {
                    return Ok(());
                }
                if let Some(range) = section.lost.iter().find(|range| range.contains(taken.next)) {
                    return Err(ColdError::Lost { partition: source.partition, range: *range });
                }
                if block.position >= chunk_end {
                    let plan = layout.plan_of(block.position);
                    taken.end_chunk();
                    taken.chunk = (taken.batches.len(), plan.end - plan.start);
                    chunk_end = plan.end;
                    self.read_ahead(&ahead.place(source, taken, Some(layout)), ahead.want(taken));
                }
                let payload = self.block(layout, section, block).await?;
                if !taken.take(&payload, read) {
                    return Ok(());
                }
            }
            if let Some(range) = section.lost.iter().find(|range| range.contains(taken.next)) {
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
        patience: &Patience,
        mut visit: impl FnMut(&Section),
    ) -> Result<(), Unread> {
        let extents = format!("the extents of log {}", source.log);
        let mut next = from;
        while next < end {
            let page = || async {
                self.metadata
                    .extents(source.log, next, EXTENTS_PAGE)
                    .await
                    .map_err(|error| ColdError::from(error).into())
            };
            let page = patience.read(&extents, page).await?;
            // Below the log start there may be nothing: the first extent is the first above it.
            let Some(last) = page.last() else { return Ok(()) };
            next = last.range.end();
            for extent in &page {
                let layout = patience.read(&extent.object, || self.footer(extent, patience)).await?;
                layout.footer.sections_of(source.partition, source.log).for_each(&mut visit);
            }
        }
        Ok(())
    }

    /// An object's footer alone, unless it is silent.
    async fn footer(&self, extent: &Extent, patience: &Patience) -> Result<Arc<Layout>, Unread> {
        let name: Arc<str> = extent.object.as_str().into();
        let fetch = async {
            patience.check(&name)?;
            let footer = read_footer(&*self.store, &name, extent.size, extent.footer_position).await?;
            Ok(Arc::new(Layout::new(Arc::clone(&name), footer)))
        };
        self.footers.get_or_fetch(&name, fetch).await
    }

    /// An object's footer and how its blocks are cut into chunks. A small object comes whole: its records are wanted next.
    async fn layout(&self, extent: &Extent) -> Result<Arc<Layout>, ColdError> {
        let name: Arc<str> = extent.object.as_str().into();
        let fetch = async {
            let footer = if is_small(extent) {
                self.read_whole(&name, extent).await?
            } else {
                read_footer(&*self.store, &extent.object, extent.size, extent.footer_position).await?
            };
            Ok(Arc::new(Layout::new(Arc::clone(&name), footer)))
        };
        self.footers.get_or_fetch(&name, fetch).await
    }

    /// Reads a small object by one GET: its footer, and the one chunk that its blocks are, which goes into the cache.
    async fn read_whole(&self, name: &Arc<str>, extent: &Extent) -> Result<Footer, ColdError> {
        let key = object_key(name)?;
        let (bytes, footer) = reread(|| async {
            let bytes = self.store.get_range(&key, 0..extent.size).await?;
            match Footer::parse(&bytes, extent.size).map_err(|error| error.in_object(name))? {
                FooterParse::Whole(footer) => Ok((bytes, footer)),
                FooterParse::NeedMore { .. } => Err(senseless(&key)),
            }
        })
        .await?;
        let held = bytes.len();
        let end =
            usize::try_from(blocks_end(&footer)).expect("the blocks of a footer lie in its object, which is in memory");
        let chunk = Chunk { start: 0, bytes: bytes.slice(..end), held, reads: 1, read_at: self.env.monotonic() };
        self.chunks.insert((Arc::clone(name), 0), Arc::new(chunk));
        Ok(footer)
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
            let (held, read_at) = (bytes.len(), self.env.monotonic());
            Ok(Arc::new(Chunk { start: plan.start, bytes, held, reads, read_at }))
        };
        self.chunks.get_or_fetch(&key, fetch).await
    }
}

/// What lies ahead of an extent that is being read.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    page: &'a Arc<Page>,
    index: usize,
    pieces: usize,
}

impl<'a> Ahead<'a> {
    fn place(self, source: Source, taken: &Taken, layout: Option<&'a Arc<Layout>>) -> Place<'a> {
        Place { source, next: taken.next, layout, page: self.page, index: self.index }
    }

    fn want(self, taken: &Taken) -> Want {
        Want { pieces: self.pieces, bytes: taken.room }
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
            FooterParse::NeedMore { .. } => return Err(senseless(object)),
        }
    }
}

/// An object that asks for more than all of itself.
fn senseless(object: &Key) -> ColdError {
    ColdError::Store(StoreError::new(forebay_store::Operation::Read, object, StoreErrorKind::Corrupt))
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
    /// The first of them that is of the chunk at hand, and how large that is.
    chunk: (usize, u64),
}

impl Taken {
    /// Copies what was taken of the chunk at hand where that is little of it.
    fn end_chunk(&mut self) {
        let (first, size) = self.chunk;
        let runs = &self.batches[first..];
        let bytes: usize = runs.iter().map(Bytes::len).sum();
        if bytes > 0 && (bytes as u64).saturating_mul(KEPT_MAX) < size {
            let copy = runs.concat();
            self.batches.truncate(first);
            self.batches.push(copy.into());
        }
    }

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
