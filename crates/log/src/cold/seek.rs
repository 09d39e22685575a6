//! Finding a record by its time in the bucket: extents and blocks that are too old are passed over by their index.

use forebay_types::{Offset, Timestamp};

use super::{ColdError, ColdReader, Fetch, Source};
use crate::search::{TimestampedOffset, Wanted, search};

/// Extents looked at per page of a search.
const EXTENTS_PAGE: usize = 256;

impl ColdReader {
    /// Looks through offsets `[from, end)` of a log, which must all be in the bucket.
    pub(crate) async fn search(
        &self,
        source: Source,
        from: Offset,
        end: Offset,
        wanted: Wanted,
    ) -> Result<Option<TimestampedOffset>, ColdError> {
        let mut best: Option<TimestampedOffset> = None;
        let mut next = from;
        while next < end {
            let page = self.metadata.extents(source.log, next, EXTENTS_PAGE).await?;
            let Some(last) = page.last() else {
                return Err(ColdError::NoExtent { partition: source.partition, offset: next });
            };
            next = last.range.end();
            for extent in &page {
                if !promising(wanted, best, extent.max_timestamp) {
                    continue;
                }
                let layout = self.layout(extent, Fetch::Whole).await?;
                for section in layout.footer.sections_of(source.partition, source.log) {
                    for block in section.blocks_from(from) {
                        if block.base_offset >= end || !promising(wanted, best, block.max_timestamp) {
                            continue;
                        }
                        let payload = self.block(&layout, section, block).await?;
                        let found = search(&payload, from, end, wanted).map_err(|error| ColdError::Records {
                            object: layout.object.to_string(),
                            position: block.position,
                            error,
                        })?;
                        match (wanted, found) {
                            (Wanted::AtOrAfter(_), Some(found)) => return Ok(Some(found)),
                            (Wanted::Latest, Some(found)) if best.is_none_or(|b| found.timestamp > b.timestamp) => {
                                best = Some(found);
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        Ok(best)
    }
}

/// Whether something whose newest record is of this time can hold what is wanted.
fn promising(wanted: Wanted, best: Option<TimestampedOffset>, newest: Timestamp) -> bool {
    match wanted {
        Wanted::AtOrAfter(time) => newest >= time,
        Wanted::Latest => best.is_none_or(|best| newest > best.timestamp),
    }
}
