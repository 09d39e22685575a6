//! The journal: whether the metadata could be built again from it (D5).

use std::collections::BTreeMap;

use forebay_metadata::journal::fold;
use forebay_store::{Key, Store};

use super::object::told;
use super::{Finding, Severity};
use crate::catalog::Catalog;

/// Reads what a restore would read: the last full state and what comes behind it.
pub(super) async fn check(store: &dyn Store, catalog: &Catalog, entries: &BTreeMap<u64, Key>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut read = Vec::new();
    for key in entries.range(catalog.journal.full..).map(|(_, key)| key) {
        match store.get(key).await {
            Ok(bytes) => match forebay_format::JournalEntry::parse(&bytes) {
                Ok(_) => read.push(bytes),
                Err(error) => found.push(Finding::new(Severity::Error, error.to_string()).in_object(key.as_str())),
            },
            Err(error) => found.push(Finding::new(Severity::Error, told(&error, None)).in_object(key.as_str())),
        }
    }
    if !found.is_empty() {
        return found;
    }
    match fold(read) {
        Ok(folded) if folded.cluster == catalog.cluster => {}
        Ok(folded) => {
            let what = format!("the journal is of cluster {}, the metadata of {}", folded.cluster, catalog.cluster);
            found.push(Finding::new(Severity::Error, what));
        }
        Err(error) => {
            let what = format!("the metadata could not be restored from the journal: {error}");
            found.push(Finding::new(Severity::Error, what));
        }
    }
    found
}
