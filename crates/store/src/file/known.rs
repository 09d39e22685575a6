//! Which folders hold only names that are durable.
//!
//! Each folder is counted: how many names in it were given and not yet synced. A folder that is not known may hold names
//! that a process before this one gave and did not live to sync.
//!
//! Invariants:
//! 1. A folder known with the count 0 holds only durable names, and its own name and those above it are durable.
//! 2. A name whose sync failed is never counted down: each later look at its folder syncs it again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_env::Disk;
use parking_lot::Mutex;

/// Folders remembered; those with nothing under way are forgotten beyond this, which costs a sync each when seen next.
const KNOWN_MAX: usize = 4096;

pub(super) struct KnownFolders {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// One at a time becomes known: nobody takes a folder for durable because it exists while another still makes it.
    learning: Mutex<()>,
    unsynced: Mutex<BTreeMap<String, u64>>,
}

/// A name that is being given. Dropped without [`Publishing::end`] it stays in doubt.
#[must_use]
pub(super) struct Publishing<'a> {
    known: &'a KnownFolders,
    folder: &'a str,
}

impl Publishing<'_> {
    /// The name is durable, or was not given.
    pub(super) fn end(self) {
        let mut unsynced = self.known.unsynced.lock();
        let count = unsynced.get_mut(self.folder).expect("counted up when this was made, and only zeros are forgotten");
        *count -= 1;
    }
}

/// A folder and those above it, the root (empty) first.
fn levels(folder: &str) -> impl Iterator<Item = &str> {
    let ends = folder.match_indices('/').map(|(at, _)| at).chain((!folder.is_empty()).then_some(folder.len()));
    std::iter::once("").chain(ends.map(|end| &folder[..end]))
}

impl KnownFolders {
    pub(super) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        Self { disk, root, learning: Mutex::default(), unsynced: Mutex::default() }
    }

    /// Makes `folder` and those above it where they are missing, durably.
    pub(super) fn make(&self, folder: &str) -> io::Result<()> {
        if self.unsynced.lock().contains_key(folder) {
            return Ok(());
        }
        let _one = self.learning.lock();
        self.disk.create_dir_all(&self.root.join(folder))?;
        self.learn(folder)
    }

    /// Counts a name in `folder`, which was made, as given and not yet synced.
    pub(super) fn begin<'a>(&'a self, folder: &'a str) -> Publishing<'a> {
        *self.unsynced.lock().entry(folder.to_owned()).or_insert(0) += 1;
        Publishing { known: self, folder }
    }

    /// Sees to it that the names there are in `folder` stay.
    pub(super) fn settle(&self, folder: &str) -> io::Result<()> {
        let count = self.unsynced.lock().get(folder).copied();
        match count {
            Some(0) => Ok(()),
            Some(_) => self.disk.sync_dir(&self.root.join(folder)),
            None => {
                let _one = self.learning.lock();
                self.learn(folder)
            }
        }
    }

    /// Syncs what is not known of `folder` and those above it. `learning` is held.
    fn learn(&self, folder: &str) -> io::Result<()> {
        for level in levels(folder) {
            if self.unsynced.lock().contains_key(level) {
                continue;
            }
            self.disk.sync_dir(&self.root.join(level))?;
            let mut unsynced = self.unsynced.lock();
            if unsynced.len() >= KNOWN_MAX {
                unsynced.retain(|_, count| *count > 0);
            }
            // A name given meanwhile keeps its count.
            unsynced.entry(level.to_owned()).or_insert(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::levels;

    #[test]
    fn levels_go_from_the_root_down() {
        assert_eq!(levels("").collect::<Vec<_>>(), [""]);
        assert_eq!(levels("a/b/c").collect::<Vec<_>>(), ["", "a", "a/b", "a/b/c"]);
    }
}
