//! Files that are written before they have their names.
//!
//! A process stages in `.staging/` under names that begin with its own random id and holds the lock of that id while it
//! lives. Stages whose lock can be taken belong to the dead and are swept.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_env::{AlignedBuf, Disk, DiskFile, DiskLock, OpenMode, SECTOR_SIZE};
use parking_lot::Mutex;

use crate::Body;

/// Its dot keeps it apart from every key.
const FOLDER: &str = ".staging";
const LOCK_SUFFIX: &str = ".lock";

/// Objects from this size on go past the page cache: the first touch of cache pages costs more than the disk does. What
/// is smaller is metadata, mostly read again soon.
const DIRECT_SIZE_MIN: u64 = 64 * 1024;
/// One direct write: near the disk's full rate, and little to keep.
const PIECE_SIZE: usize = 1024 * 1024;
/// Buffers of one piece kept for the next object: as many writers as are at work at once on a small machine.
const PIECES_KEPT_MAX: usize = 4;

pub(super) struct StageArea {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    id: u64,
    next: AtomicU64,
    pieces: Mutex<Vec<AlignedBuf>>,
    _lock: Box<dyn DiskLock>,
}

/// A durable file without a name of its own yet. Dropping it removes the stage, which leaves a link to it alone.
pub(super) struct Staged<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

impl Staged<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // Gone already where it was renamed; a stage that stays is swept at the next start.
        let _ = self.disk.remove(&self.path);
    }
}

fn lock_name(id: &str) -> String {
    format!("{id}{LOCK_SUFFIX}")
}

impl StageArea {
    pub(super) fn open(disk: Arc<dyn Disk>, root: &Path, id: u64) -> io::Result<Self> {
        let folder = root.join(FOLDER);
        disk.create_dir_all(&folder)?;
        // The lock comes before any stage: whoever sees a stage of ours finds it held.
        let lock = disk.lock(&folder.join(lock_name(&format!("{id:016x}"))))?;
        let area = Self { disk, folder, id, next: AtomicU64::new(0), pieces: Mutex::default(), _lock: lock };
        area.sweep()?;
        Ok(area)
    }

    /// Removes what processes that ended have left.
    fn sweep(&self) -> io::Result<()> {
        let names = self.disk.list(&self.folder)?;
        let owner =
            |name: &str| name.get(..16).filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned);
        let owners: BTreeSet<String> = names.iter().filter_map(|name| owner(name)).collect();
        for id in owners {
            // Our own lock is held too, so our own stages stay.
            let lock = match self.disk.lock(&self.folder.join(lock_name(&id))) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let stages = names.iter().filter(|name| name.starts_with(&id) && !name.ends_with(LOCK_SUFFIX));
            for name in stages {
                tracing::debug!(name, "removing what an earlier process had staged");
                remove_if_there(&*self.disk, &self.folder.join(name))?;
            }
            // The lock's file goes last: a stage without one could not be told from one of the living.
            remove_if_there(&*self.disk, &self.folder.join(lock_name(&id)))?;
            drop(lock);
        }
        Ok(())
    }

    /// Writes and syncs a new file with `body`.
    pub(super) fn write(&self, body: &Body) -> io::Result<Staged<'_>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{:016x}-{number}", self.id));
        let direct = body.len() >= DIRECT_SIZE_MIN;
        let file = if direct {
            self.disk.open_direct(&path, OpenMode::CreateNew)?
        } else {
            self.disk.open(&path, OpenMode::CreateNew)?
        };
        let staged = Staged { disk: &*self.disk, path };
        if direct {
            self.fill_direct(&*file, body)?;
        } else {
            fill(&*file, body)?;
        }
        file.sync()?;
        assert_eq!(file.size()?, body.len(), "a staged file is as long as its object");
        Ok(staged)
    }

    fn fill_direct(&self, file: &dyn DiskFile, body: &Body) -> io::Result<()> {
        file.allocate(body.len().next_multiple_of(SECTOR_SIZE as u64))?;
        let mut piece = self.pieces.lock().pop().unwrap_or_else(|| AlignedBuf::with_capacity(PIECE_SIZE));
        let written = write_pieces(file, body, &mut piece);
        piece.clear();
        let mut pieces = self.pieces.lock();
        if pieces.len() < PIECES_KEPT_MAX {
            pieces.push(piece);
        }
        drop(pieces);
        written?;
        file.set_size(body.len())
    }
}

/// Writes whole sectors, the last filled up with zeros.
fn write_pieces(file: &dyn DiskFile, body: &Body, piece: &mut AlignedBuf) -> io::Result<()> {
    let mut position = 0;
    for chunk in body.chunks() {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE_SIZE - piece.len()));
            piece.extend_from_slice(now);
            rest = later;
            if piece.len() == PIECE_SIZE {
                file.write_all_at(piece, position)?;
                position += PIECE_SIZE as u64;
                piece.clear();
            }
        }
    }
    if !piece.is_empty() {
        piece.pad_to_sector();
        file.write_all_at(piece, position)?;
    }
    Ok(())
}

fn fill(file: &dyn DiskFile, body: &Body) -> io::Result<()> {
    let mut position = 0;
    for chunk in body.chunks() {
        file.write_all_at(chunk, position)?;
        position += chunk.len() as u64;
    }
    Ok(())
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
