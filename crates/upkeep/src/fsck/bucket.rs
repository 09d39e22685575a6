//! What is in the bucket that no row names: orphans, uncommitted objects, fences, the journal, and strangers.

use std::collections::{BTreeMap, BTreeSet};

use forebay_format::ObjectName;
use forebay_metadata::BrokerLife;
use forebay_metadata::state::{Partition, WalEpochState, WalKind};
use forebay_store::{Key, ObjectMeta, Prefix, Store};

use super::{Finding, Report, Severity};
use crate::ToolError;
use crate::catalog::Catalog;
use crate::orphan::{Origin, is_database, origin};

/// Objects listed at once, as many as S3 gives.
const OBJECTS_PER_PAGE: usize = 1_000;

/// Objects that are to be looked into although no row names them.
#[derive(Default)]
pub(super) struct Unnamed {
    /// Of `object` WALs that are not closed: they may hold acknowledged records.
    pub in_wal: Vec<String>,
    /// The journal's entries by number.
    pub journal: BTreeMap<u64, Key>,
}

/// Lists the whole bucket.
pub(super) async fn list(store: &dyn Store, catalog: &Catalog, report: &mut Report) -> Result<Unnamed, ToolError> {
    let mut unnamed = Unnamed::default();
    let mut numbers: BTreeMap<BrokerLife, BTreeSet<u64>> = BTreeMap::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store.list(&Prefix::all(), after.as_ref(), OBJECTS_PER_PAGE).await.map_err(ToolError::List)?;
        for meta in &page {
            one(catalog, meta, report, &mut unnamed, &mut numbers);
        }
        if page.len() < OBJECTS_PER_PAGE {
            break;
        }
        after = page.into_iter().next_back().map(|meta| meta.key);
    }
    report.add(missing_writes(catalog, &numbers));
    Ok(unnamed)
}

fn one(
    catalog: &Catalog,
    meta: &ObjectMeta,
    report: &mut Report,
    unnamed: &mut Unnamed,
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
                unnamed.in_wal.push(key.to_owned());
            }
        }
        Origin::Fence => report.counts.fences += 1,
        Origin::Journal => {
            if let ObjectName::Journal { number } = name {
                unnamed.journal.insert(number, meta.key.clone());
            }
        }
        Origin::Committed => {
            let what = "it was committed and let go once, and is there again: nobody needs it";
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
fn missing_writes(catalog: &Catalog, numbers: &BTreeMap<BrokerLife, BTreeSet<u64>>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (life, epoch) in &catalog.wal_epochs {
        let (WalKind::Object { in_flight_max }, false) = (epoch.wal, is_closed(epoch.state)) else { continue };
        let Some(numbers) = numbers.get(life) else { continue };
        let first = catalog.committed_through.get(life).map_or(0, |through| through.get() + 1);
        let Some(last) = numbers.last() else { continue };
        for missing in (first..*last).filter(|number| !numbers.contains(number)) {
            if last - missing >= u64::from(in_flight_max) {
                let what = format!("WAL write {missing} of {life} is missing, and writes up to {last} are there");
                found.push(Finding::new(Severity::Error, what));
            }
        }
    }
    found
}

pub(super) fn is_closed(state: WalEpochState) -> bool {
    matches!(state, WalEpochState::Closed { .. })
}
