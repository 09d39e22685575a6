//! The journal: whether the metadata could be built again from it (D5).
//!
//! Entries are asked for by their numbers, which the metadata knows, and not taken from a listing: a listing is older
//! than the rows where it should be younger, or a broker has deleted meanwhile what it shows.

use bytes::Bytes;
use forebay_format::{JournalEntry, ObjectName};
use forebay_metadata::journal::{ENTRIES_PER_FULL, fold};
use forebay_store::{Key, Store, StoreError, StoreErrorKind};
use futures::StreamExt;

use super::object::told;
use super::{Finding, Severity};
use crate::catalog::Catalog;

/// Entries read at the same time.
const ENTRIES_IN_FLIGHT_MAX: usize = 8;

/// Bad entries that are told one by one: the metadata of a journal that lacks more is as lost as with these.
const BAD_ENTRIES_MAX: usize = 16;

/// Entries behind those that the metadata knows: one that was never committed, and what a running broker adds.
const ENTRIES_AHEAD_MAX: u64 = ENTRIES_PER_FULL;

/// Reads what a restore would read: the last full entry and those behind it. How many they are, and what is wrong.
pub(super) async fn check(store: &dyn Store, catalog: &Catalog) -> (u64, Vec<Finding>) {
    let (full, next) = (catalog.journal.full, catalog.journal.next);
    let (mut found, mut read) = (Vec::new(), Vec::new());
    let known = (full..next).map(|number| async move { (number, entry(store, number).await) });
    let mut known = futures::stream::iter(known).buffered(ENTRIES_IN_FLIGHT_MAX);
    while let Some((number, bytes)) = known.next().await {
        take(number, bytes, &mut read, &mut found);
        if found.len() >= BAD_ENTRIES_MAX {
            break;
        }
    }
    for number in next..next.saturating_add(ENTRIES_AHEAD_MAX) {
        let bytes = entry(store, number).await;
        if matches!(&bytes, Err(error) if error.kind() == StoreErrorKind::NotFound) {
            break;
        }
        take(number, bytes, &mut read, &mut found);
    }
    let count = read.len() as u64;
    if found.is_empty() {
        found.extend(contents(catalog, read));
    }
    (count, found)
}

fn key_of(number: u64) -> Key {
    Key::new(&ObjectName::Journal { number }.to_string()).expect("the names of our objects are legal keys")
}

async fn entry(store: &dyn Store, number: u64) -> Result<Bytes, StoreError> {
    store.get(&key_of(number)).await
}

fn take(number: u64, bytes: Result<Bytes, StoreError>, read: &mut Vec<Bytes>, found: &mut Vec<Finding>) {
    let what = match bytes {
        Ok(bytes) => match JournalEntry::parse(&bytes) {
            Ok(_) => return read.push(bytes),
            Err(error) => error.to_string(),
        },
        Err(error) => told(&error, None),
    };
    let what = format!("{what}: the metadata could not be restored from the journal");
    found.push(Finding::new(Severity::Error, what).in_object(key_of(number).as_str()));
}

/// Whether whole entries come to a whole journal, and to this cluster's.
fn contents(catalog: &Catalog, entries: Vec<Bytes>) -> Option<Finding> {
    let what = match fold(entries) {
        Ok(folded) if folded.cluster == catalog.cluster => return None,
        Ok(folded) => format!("the journal is of cluster {}, the metadata of {}", folded.cluster, catalog.cluster),
        Err(error) => format!("the metadata could not be restored from the journal: {error}"),
    };
    Some(Finding::new(Severity::Error, what))
}
