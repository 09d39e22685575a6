//! Reading ahead: the GETs that a reader will wait for next are sent before it asks, so that one's way there hides behind
//! the other's.
//!
//! What lies ahead is a row of *pieces*, each one GET: the chunks of this object that hold the partition, then for each
//! extent that follows its object's footer and first chunk, or the whole object where it is small. A read sends for the
//! pieces that it needs itself, and a sequential reader's for some more. Whoever comes to a piece that is under way waits
//! for that one.
//!
//! Invariants:
//! 1. A piece is fetched ahead once, however many readers want it.
//! 2. Ahead of one reader are at most [`READ_AHEAD_PIECES_MAX`] pieces and about [`READ_AHEAD_BYTES_MAX`]; of all readers
//!    together [`READ_AHEAD_GETS_MAX`] pieces. Who waits for a client is not counted, and never waits for these.
//! 3. Nothing here fails: whoever needs a piece that did not come fetches it, and meets the error.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use forebay_env::Task;
use forebay_metadata::Extent;
use forebay_types::{Offset, TopicPartition};

use super::extents::{Page, PageKey};
use super::layout::{CHUNK_SIZE_TARGET, Layout, is_small};
use super::trails::READ_AHEAD_PIECES_MAX;
use super::{ColdError, ColdReader, Source};

/// GETs that read ahead for all readers together: half of what one layer of requests lets through.
pub(super) const READ_AHEAD_GETS_MAX: usize = 16;

/// Bytes ahead of one reader beyond which no further piece is sent for.
const READ_AHEAD_BYTES_MAX: u64 = 4 << 20;

/// What is being read ahead. Finished tasks are cleared by the next that starts.
#[derive(Default)]
pub(super) struct UnderWay(BTreeMap<Piece, Task<()>>);

/// One GET, or two where an object's footer is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    /// A small object, whoever's records are in it.
    Whole(Arc<str>),
    Chunk(Arc<str>, u64),
    /// The footer of an object, and the first chunk that holds the partition.
    First(Arc<str>, TopicPartition),
    Page(PageKey),
}

/// How much lies ahead of a reader that should be sent for.
#[derive(Clone, Copy)]
pub(super) struct Want {
    /// At least so many pieces after the one at hand.
    pub pieces: usize,
    /// And as many as hold so many bytes of the partition, with the one at hand.
    pub bytes: usize,
}

/// Where a reader is.
pub(super) struct Place<'a> {
    pub source: Source,
    pub next: Offset,
    /// The object at hand, where its footer is known.
    pub layout: Option<&'a Arc<Layout>>,
    pub page: &'a Arc<Page>,
    /// Its extent in the page.
    pub index: usize,
}

/// Counts what lies ahead.
struct Tally {
    want: Want,
    pieces: usize,
    /// Of the partition's own.
    bytes: u64,
    /// Of all that is fetched with it.
    fetched: u64,
}

impl Tally {
    /// Whether another piece should be sent for.
    fn wants(&self) -> bool {
        let wanted = self.pieces < self.want.pieces || self.bytes < self.want.bytes as u64;
        wanted && self.pieces < READ_AHEAD_PIECES_MAX && self.fetched < READ_AHEAD_BYTES_MAX
    }

    fn count(&mut self, own: u64, fetched: u64) {
        self.pieces += 1;
        self.bytes += own;
        self.fetched += fetched;
    }
}

impl ColdReader {
    /// Sends for what lies ahead of a place, as far as it is wanted and not there or under way.
    pub(super) fn read_ahead(self: &Arc<Self>, place: &Place<'_>, want: Want) {
        let mut tally = Tally { want, pieces: 0, bytes: 0, fetched: 0 };
        let at_hand = &place.page.extents()[place.index];
        match place.layout {
            None => tally.bytes = at_hand.bytes,
            Some(layout) => {
                let mut chunks = layout.chunks_of(place.source, place.next).into_iter();
                tally.bytes = chunks.next().map_or(0, |(_, own)| own);
                for (plan, own) in chunks {
                    if !tally.wants() {
                        return;
                    }
                    tally.count(own, plan.end - plan.start);
                    self.chunk_ahead(layout, plan);
                }
            }
        }
        for extent in &place.page.extents()[place.index + 1..] {
            if !tally.wants() {
                return;
            }
            self.extent_ahead(place.source, extent, &mut tally);
        }
        let Some(key) = place.page.next_key().filter(|_| tally.wants()) else { return };
        match self.pages.peek(&key) {
            Some(page) => {
                for extent in page.extents() {
                    if !tally.wants() {
                        return;
                    }
                    self.extent_ahead(place.source, extent, &mut tally);
                }
            }
            // What it names is sent for at the next read.
            None => self.start(Piece::Page(key), |reader| async move { reader.fetch_page(key).await.map(|_| ()) }),
        }
    }

    fn chunk_ahead(self: &Arc<Self>, layout: &Arc<Layout>, plan: Range<u64>) {
        if self.chunks.peek(&(Arc::clone(&layout.object), plan.start)).is_none() {
            let layout = Arc::clone(layout);
            let piece = Piece::Chunk(Arc::clone(&layout.object), plan.start);
            self.start(piece, move |reader| async move { reader.chunk(&layout, plan.start, 1).await.map(|_| ()) });
        }
    }

    fn extent_ahead(self: &Arc<Self>, source: Source, extent: &Extent, tally: &mut Tally) {
        let name: Arc<str> = extent.object.as_str().into();
        let small = is_small(extent);
        tally.count(extent.bytes, if small { extent.size } else { extent.bytes.min(CHUNK_SIZE_TARGET) });
        let there = self.footers.peek(&name).is_some_and(|layout| {
            let first = layout.chunks_of(source, extent.range.start()).into_iter().next();
            first.is_none_or(|(plan, _)| self.chunks.peek(&(Arc::clone(&name), plan.start)).is_some())
        });
        if !there {
            let extent = extent.clone();
            let piece = if small { Piece::Whole(name) } else { Piece::First(name, source.partition) };
            self.start(piece, move |reader| async move { reader.fetch_first(source, &extent).await });
        }
    }

    /// The footer of an extent's object, and the first chunk that holds the partition.
    async fn fetch_first(&self, source: Source, extent: &Extent) -> Result<(), ColdError> {
        let layout = self.layout(extent).await?;
        if let Some((plan, _)) = layout.chunks_of(source, extent.range.start()).into_iter().next() {
            self.chunk(&layout, plan.start, 1).await?;
        }
        Ok(())
    }

    fn start<F>(self: &Arc<Self>, piece: Piece, fetch: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = Result<(), ColdError>> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        under_way.0.retain(|_, task| !task.is_finished());
        if under_way.0.len() >= READ_AHEAD_GETS_MAX || under_way.0.contains_key(&piece) {
            return;
        }
        let fetch = fetch(Arc::clone(self));
        // Boxed, because it may start others of its own kind one day; and whoever wants the piece will meet the error, with a
        // client to tell it to.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move { drop(fetch.await) });
        under_way.0.insert(piece, self.env.spawn("read-ahead", task));
    }
}
