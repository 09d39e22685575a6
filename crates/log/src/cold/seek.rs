//! Finding a record by its time in the bucket: extents and blocks that are too old are passed over by their index.
//!
//! Of the latest record, what has the newest index is looked at first: then little else can hold a newer one. In a log whose
//! times rise everything is newer than what lies before it, and going in order would read all of it.

use std::cmp::Reverse;

use forebay_format::{BlockIndex, Section};
use forebay_metadata::Extent;
use forebay_types::Offset;

use super::{ColdError, ColdReader, Source};
use crate::search::{TimestampedOffset, Wanted};

/// Extents looked at per page of a search.
const EXTENTS_PAGE: usize = 256;

/// A search of offsets `[from, end)` of a log.
#[derive(Clone, Copy)]
struct Search {
    source: Source,
    from: Offset,
    end: Offset,
    wanted: Wanted,
}

impl ColdReader {
    /// Looks through offsets `[from, end)` of a log, which must all be in the bucket.
    pub(crate) async fn search(
        &self,
        source: Source,
        from: Offset,
        end: Offset,
        wanted: Wanted,
    ) -> Result<Option<TimestampedOffset>, ColdError> {
        let search = Search { source, from, end, wanted };
        let mut best = None;
        if matches!(wanted, Wanted::Latest)
            && let Some(newest) = self.newest_extent(search).await?
        {
            best = self.search_extent(search, &newest, best).await?;
        }
        let mut next = from;
        while next < end && !wanted.is_met(best) {
            let page = self.extents_page(search, &mut next).await?;
            for extent in page.iter().take_while(|extent| extent.range.start() < end) {
                if wanted.promises(extent.max_timestamp, best) && !wanted.is_met(best) {
                    best = self.search_extent(search, extent, best).await?;
                }
            }
        }
        Ok(best)
    }

    /// The extent with the newest record, by its index; of several the first.
    async fn newest_extent(&self, search: Search) -> Result<Option<Extent>, ColdError> {
        let mut newest: Option<Extent> = None;
        let mut next = search.from;
        while next < search.end {
            let page = self.extents_page(search, &mut next).await?;
            for extent in page.into_iter().take_while(|extent| extent.range.start() < search.end) {
                if newest.as_ref().is_none_or(|newest| extent.max_timestamp > newest.max_timestamp) {
                    newest = Some(extent);
                }
            }
        }
        Ok(newest)
    }

    /// The extents from `next` on, which goes to where they end.
    async fn extents_page(&self, search: Search, next: &mut Offset) -> Result<Vec<Extent>, ColdError> {
        let page = self.metadata.extents(search.source.log, *next, EXTENTS_PAGE).await?;
        let nothing = ColdError::NoExtent { partition: search.source.partition, offset: *next };
        *next = page.last().ok_or(nothing)?.range.end();
        Ok(page)
    }

    async fn search_extent(
        &self,
        search: Search,
        extent: &Extent,
        mut best: Option<TimestampedOffset>,
    ) -> Result<Option<TimestampedOffset>, ColdError> {
        let Search { source, from, end, wanted } = search;
        let layout = self.layout(extent).await?;
        let sections = layout.footer.sections_of(source.partition, source.log);
        let blocks = sections.flat_map(|section| section.blocks_from(from).iter().map(move |block| (section, block)));
        let mut blocks: Vec<(&Section, &BlockIndex)> = blocks.filter(|(_, block)| block.base_offset < end).collect();
        if matches!(wanted, Wanted::Latest) {
            blocks.sort_by_key(|(_, block)| (Reverse(block.max_timestamp), block.base_offset));
        }
        for (section, block) in blocks {
            if wanted.is_met(best) || !wanted.promises(block.max_timestamp, best) {
                continue;
            }
            let payload = self.block(&layout, section, block).await?;
            best = wanted.better(best, self.inflater.search(payload, from, end, wanted).await);
        }
        Ok(best)
    }
}
