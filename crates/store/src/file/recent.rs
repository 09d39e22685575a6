//! When objects were written, as far as this process knows.
//!
//! The disk's own times are not asked for: they can be set, and the simulated disk has none. An object that this process
//! wrote has the time it wrote it; any other one was written before some moment, and that moment is given instead. So an
//! object is never taken for older than it is (see [`crate::ObjectMeta::modified`]).

use std::collections::{BTreeMap, VecDeque};

use forebay_types::Timestamp;

use crate::Key;

/// Objects remembered, some 2 MiB; what was written longest ago is forgotten first.
const RECENT_MAX: usize = 16_384;

pub(super) struct Recent {
    /// What is not remembered was written at this time or before it.
    floor: Timestamp,
    by_key: BTreeMap<Key, Timestamp>,
    order: VecDeque<(Timestamp, Key)>,
}

impl Recent {
    pub(super) fn since(opened: Timestamp) -> Self {
        Self { floor: opened, by_key: BTreeMap::new(), order: VecDeque::new() }
    }

    pub(super) fn note(&mut self, key: &Key, now: Timestamp) {
        self.by_key.insert(key.clone(), now);
        self.order.push_back((now, key.clone()));
        if self.order.len() > RECENT_MAX
            && let Some((written, key)) = self.order.pop_front()
        {
            if self.by_key.get(&key) == Some(&written) {
                self.by_key.remove(&key);
            }
            self.floor = self.floor.max(written);
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.by_key.remove(key);
    }

    pub(super) fn modified(&self, key: &Key) -> Timestamp {
        self.by_key.get(key).copied().unwrap_or(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_never_taken_for_older_than_it_is() {
        let key = |n: usize| Key::new(&format!("k{n}")).expect("legal");
        let at = |n: usize| Timestamp::from_millis(i64::try_from(n).expect("small"));
        let mut recent = Recent::since(at(5));
        assert_eq!(recent.modified(&key(0)), at(5), "an object from before was written by then");
        for n in 0..=RECENT_MAX {
            recent.note(&key(n), at(10 + n));
        }
        assert_eq!(recent.modified(&key(RECENT_MAX)), at(10 + RECENT_MAX));
        assert_eq!(recent.modified(&key(1)), at(11), "still remembered");
        assert!(recent.modified(&key(0)) >= at(10), "forgotten, and not younger than that");
        recent.note(&key(1), at(50_000));
        assert_eq!(recent.modified(&key(1)), at(50_000), "written again");
    }
}
