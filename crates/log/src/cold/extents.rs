//! Where a log's records are: pages of extents, as metadata gave them.
//!
//! A page once looked up is kept: each costs a scan of the database. It may be behind what metadata says by now: objects are
//! merged away and collected. An object that is not there any more sends its reader back to metadata.

use std::sync::Arc;

use forebay_cache::Weigh;
use forebay_metadata::Extent;
use forebay_types::{LogId, Offset};

use super::{ColdError, ColdReader, Source};

/// Extents asked for at once. A sequential reader asks again after as many objects.
pub(super) const EXTENTS_PAGE: usize = 16;

/// Where in the cache a page is: the log, and the offset that was looked for.
pub(super) type PageKey = (LogId, Offset);

/// Extents of a log, in order and without a gap.
#[derive(Debug)]
pub(super) struct Page {
    pub key: PageKey,
    extents: Vec<Extent>,
}

impl Page {
    /// Which extent holds an offset.
    pub fn find(&self, at: Offset) -> Option<usize> {
        let index = self.extents.partition_point(|extent| extent.range.end() <= at);
        self.extents.get(index).filter(|extent| extent.range.contains(at)).map(|_| index)
    }

    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The next page; `None` where this one was the last when it was looked up.
    pub fn next_key(&self) -> Option<PageKey> {
        let last = self.extents.last().filter(|_| self.extents.len() == EXTENTS_PAGE)?;
        Some((self.key.0, last.range.end()))
    }
}

impl Weigh for Page {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.extents.iter().map(|e| size_of::<Extent>() + e.object.len()).sum::<usize>()
    }
}

impl ColdReader {
    /// A page that holds `at`: `known`, where that does.
    pub(super) async fn page(
        &self,
        source: Source,
        at: Offset,
        known: Option<&Arc<Page>>,
    ) -> Result<(Arc<Page>, usize), ColdError> {
        if let Some(page) = known
            && let Some(index) = page.find(at)
        {
            return Ok((Arc::clone(page), index));
        }
        let page = self.fetch_page((source.log, at)).await?;
        let Some(index) = page.find(at) else {
            // Nothing there now is no answer for later.
            self.forget_page(&page);
            return Err(ColdError::NoExtent { partition: source.partition, offset: at });
        };
        Ok((page, index))
    }

    pub(super) async fn fetch_page(&self, key: PageKey) -> Result<Arc<Page>, ColdError> {
        let fetch = async {
            let extents = self.metadata.extents(key.0, key.1, EXTENTS_PAGE).await?;
            Ok(Arc::new(Page { key, extents }))
        };
        self.pages.get_or_fetch(&key, fetch).await
    }

    /// What a page says is no longer so.
    pub(super) fn forget_page(&self, page: &Arc<Page>) {
        self.pages.remove_if(&page.key, |held| Arc::ptr_eq(held, page));
    }
}
