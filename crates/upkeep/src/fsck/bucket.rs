//! What is in the bucket that no row names: orphans, uncommitted objects, fences, the journal, and strangers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use forebay_format::ObjectName;
use forebay_metadata::BrokerLife;
use forebay_metadata::state::{Partition, WalEpochState, WalKind};
use forebay_store::{Key, ObjectMeta, Prefix, Store, StoreErrorKind};
use forebay_types::WalSequence;

use super::{Finding, Report, Severity};
use crate::ToolError;
use crate::catalog::Catalog;
use crate::orphan::{Origin, is_database, origin};

/// Objects listed at once, as many as S3 gives.
const OBJECTS_PER_PAGE: usize = 1_000;

/// Lists the whole bucket. Gives the objects of `object` WALs that no row names and whose life is not closed: they may
/// hold acknowledged records.
pub(super) async fn list(store: &dyn Store, catalog: &Catalog, report: &mut Report) -> Result<Vec<String>, ToolError> {
    let mut in_wal = Vec::new();
    let mut numbers: BTreeMap<BrokerLife, BTreeSet<u64>> = BTreeMap::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store.list(&Prefix::all(), after.as_ref(), OBJECTS_PER_PAGE).await.map_err(ToolError::List)?;
        for meta in &page {
            one(catalog, meta, report, &mut in_wal, &mut numbers);
        }
        if page.len() < OBJECTS_PER_PAGE {
            break;
        }
        after = page.into_iter().next_back().map(|meta| meta.key);
    }
    report.add(missing_writes(store, catalog, &numbers).await?);
    Ok(in_wal)
}

fn one(
    catalog: &Catalog,
    meta: &ObjectMeta,
    report: &mut Report,
    in_wal: &mut Vec<String>,
    numbers: &mut BTreeMap<BrokerLife, BTreeSet<u64>>,
) {
    let key = meta.key.as_str();
    let Ok(name) = key.parse::<ObjectName>() else {
        if !is_database(&meta.key) {
            report.add([Finding::new(Severity::Note, "Forebay has no use for an object of this name").in_object(key)]);
        }
        return;
    };
    if let ObjectName::Wal { broker, epoch, sequence } = name {
        numbers.entry(BrokerLife { broker, epoch }).or_default().insert(sequence.get());
    }
    if catalog.objects.contains_key(key) {
        return;
    }
    if catalog.garbage.contains_key(key) {
        report.counts.garbage.add(meta.size);
        return;
    }
    let state_of = |life| catalog.wal_epochs.get(&life).map(|epoch| epoch.state);
    let leader_epoch_of = |id| catalog.partitions.get(&id).map(Partition::leader_epoch);
    match origin(name, state_of, leader_epoch_of) {
        Origin::Orphan => report.counts.orphans.add(meta.size),
        Origin::Undecided => {
            report.counts.uncommitted.add(meta.size);
            if matches!(name, ObjectName::Wal { .. }) {
                in_wal.push(key.to_owned());
            }
        }
        Origin::Fence => report.counts.fences += 1,
        // Read by their numbers.
        Origin::Journal => {}
        Origin::Committed => {
            let what = "nobody needs it: its WAL is closed, and it was committed and let go, or was unreadable then";
            report.add([Finding::new(Severity::Note, what).in_object(key)]);
        }
        Origin::Stranger => {
            let what = "it is named by a life of a broker that the metadata never knew";
            report.add([Finding::new(Severity::Warning, what).in_object(key)]);
        }
    }
}

/// Numbers that an `object` WAL lacks although more writes lie behind them than can be in flight: the writes were
/// acknowledged. Only those of lives that are not closed matter: of the others all is committed.
///
/// A running broker writes behind the listing's back, so that a later number may be listed without an earlier one: what
/// seems to be missing is asked for.
async fn missing_writes(
    store: &dyn Store,
    catalog: &Catalog,
    numbers: &BTreeMap<BrokerLife, BTreeSet<u64>>,
) -> Result<Vec<Finding>, ToolError> {
    let mut found = Vec::new();
    for (life, epoch) in &catalog.wal_epochs {
        let (WalKind::Object { in_flight_max }, false) = (epoch.wal, is_closed(epoch.state)) else { continue };
        let Some(numbers) = numbers.get(life) else { continue };
        let first = catalog.committed_through.get(life).map_or(0, |through| through.get().saturating_add(1));
        for gap in gaps(numbers, first, u64::from(in_flight_max)) {
            let Some(missing) = first_missing(store, *life, gap.clone()).await? else { continue };
            let which = match gap.end - 1 {
                last if last == missing => format!("write {last} of {life} is"),
                last => format!("writes {missing} to {last} of {life} are"),
            };
            let seen = numbers.last().copied().unwrap_or(gap.end);
            let what = format!("WAL {which} missing, and writes up to {seen} are there");
            found.push(Finding::new(Severity::Error, what));
        }
    }
    Ok(found)
}

/// The numbers from `first` on that are not among `numbers` and lie so far below the last that they are no longer in
/// flight.
fn gaps(numbers: &BTreeSet<u64>, first: u64, in_flight_max: u64) -> Vec<Range<u64>> {
    let Some(last) = numbers.last() else { return Vec::new() };
    // The lowest number that may still be in flight.
    let open = last.saturating_add(1).saturating_sub(in_flight_max);
    let mut gaps = Vec::new();
    let mut next = first;
    for number in numbers.range(first..) {
        let end = open.min(*number);
        if next < end {
            gaps.push(next..end);
        }
        next = number.saturating_add(1);
    }
    gaps
}

/// The first number of a gap whose write is not there. Not more are asked for than are there.
async fn first_missing(store: &dyn Store, life: BrokerLife, gap: Range<u64>) -> Result<Option<u64>, ToolError> {
    let BrokerLife { broker, epoch } = life;
    for number in gap {
        let name = ObjectName::Wal { broker, epoch, sequence: WalSequence::new(number) }.to_string();
        let key = Key::new(&name).expect("the names of our objects are legal keys");
        match store.head(&key).await {
            Ok(_) => {}
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(Some(number)),
            Err(error) => return Err(ToolError::List(error)),
        }
    }
    Ok(None)
}

pub(super) fn is_closed(state: WalEpochState) -> bool {
    matches!(state, WalEpochState::Closed { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number is missing where it lies below all that may still be in flight; what is committed matters no more.
    #[test]
    fn a_gap_ends_where_writes_may_be_in_flight() {
        let case = |numbers: &[u64], first| {
            let gaps = gaps(&numbers.iter().copied().collect(), first, 3);
            gaps.iter().map(|gap| (gap.start, gap.end)).collect::<Vec<_>>()
        };
        assert_eq!(case(&[0, 1, 2, 3], 0), []);
        assert_eq!(case(&[0, 3], 0), [], "1 and 2 may be on their way");
        assert_eq!(case(&[0, 4], 0), [(1, 2)]);
        assert_eq!(case(&[0, 4, 9], 0), [(1, 4), (5, 7)]);
        assert_eq!(case(&[0, 4, 9], 6), [(6, 7)]);
        assert_eq!(case(&[u64::MAX], u64::MAX), []);
    }
}
