//! How many rows name an object: when the last one goes, the object is garbage.

use std::collections::BTreeMap;

use super::{Stop, View};
use crate::state::{Garbage, Key, Object, Row};

/// References that a command adds to objects and takes from them.
#[derive(Default)]
pub(super) struct References(BTreeMap<String, i64>);

impl References {
    pub(super) fn add(&mut self, object: &str) {
        *self.0.entry(object.to_owned()).or_default() += 1;
    }

    pub(super) fn take(&mut self, object: &str) {
        *self.0.entry(object.to_owned()).or_default() -= 1;
    }

    /// Writes the objects' new counts to `rows`. `new` is an object that may have no row yet, with its size.
    ///
    /// # Panics
    /// Where more references go than there are: then an object would be collected that something still names.
    pub(super) fn settle(
        self,
        view: View<'_>,
        new: Option<(&str, u64)>,
        rows: &mut BTreeMap<Key, Option<Row>>,
    ) -> Result<(), Stop> {
        view.require(self.0.keys().map(|object| Key::Object(object.clone())))?;
        for (object, delta) in self.0 {
            let key = Key::Object(object.clone());
            let held = match view.cold(key.clone())? {
                Some(Row::Object(held)) => *held,
                Some(other) => panic!("row {key:?} holds {other:?}"),
                None => match new {
                    Some((name, size)) if name == object => Object { size, references: 0 },
                    _ => panic!("{object} is named by a row and has none of its own"),
                },
            };
            let references = u32::try_from(i64::from(held.references) + delta)
                .unwrap_or_else(|_| panic!("{object} has {} references, {delta} more cannot be", held.references));
            // While an upload is being folded its object is reached by the upload's own row.
            if references == 0 && !view.tables.has_upload_in(&object) {
                rows.insert(key, None);
                let garbage = Garbage { size: held.size, condemned_at: None };
                rows.insert(Key::Garbage(object), Some(Row::Garbage(garbage)));
            } else {
                rows.insert(key, Some(Row::Object(Object { references, ..held })));
            }
        }
        Ok(())
    }
}
