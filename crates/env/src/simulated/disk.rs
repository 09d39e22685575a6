//! A disk in memory that keeps, at a crash, what `sync` promised and a seeded part of the rest.
//!
//! Invariants:
//! 1. After [`SimDisk::crash`] a file holds every write that a successful `sync` followed; each other write is kept,
//!    lost, or torn at sector borders by the seed, each independently of the others.
//! 2. A name whose folder was synced afterwards is as it was; each other change of names is kept or lost by the seed.
//! 3. Files opened before a crash answer nothing after it: a dead process does no I/O.
//! 4. A `sync` that failed leaves its writes in doubt for ever, whatever later syncs say (LWN 752063).

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{SimRandom, Trace};
use crate::{Disk, DiskFile, DiskLock, OpenMode, SECTOR_SIZE};

mod content;

use content::{Change, Inode};

/// A handle on one simulated disk. Clones are the same disk: a restarted node gets a clone and sees what survived.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// All files together may hold this many bytes, then `StorageFull`.
    Capacity(u64),
    /// After so many more writes one fails with an I/O error; part of it may be on the disk.
    WriteFails { after: u64 },
    /// After so many more syncs one fails with an I/O error.
    SyncFails { after: u64 },
    /// Every sync says yes and does nothing: a lying device, or code that forgot to sync.
    SyncLies,
}

struct State {
    random: SimRandom,
    trace: Trace,
    /// Counts crashes; what was opened in an earlier life is dead.
    life: u64,
    next_inode: u64,
    live: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    unsynced: Vec<NameChange>,
    locks: BTreeMap<PathBuf, u64>,
    next_lock: u64,
    capacity: Option<u64>,
    write_fails_after: Option<u64>,
    sync_fails_after: Option<u64>,
    sync_lies: bool,
}

#[derive(Clone)]
enum Entry {
    Folder,
    File(Arc<Mutex<Inode>>),
}

#[derive(Clone)]
enum NameChange {
    Set { path: PathBuf, file: Entry },
    Removed { path: PathBuf },
    Renamed { from: PathBuf, to: PathBuf, file: Entry },
}

impl NameChange {
    /// The folder whose sync makes this durable; a rename is one step, and its new name is the one to keep.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Set { path, .. } | Self::Removed { path } | Self::Renamed { to: path, .. } => path.parent(),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            Self::Set { path, file } => _ = names.insert(path, file),
            Self::Removed { path } => _ = names.remove(&path),
            Self::Renamed { from, to, file } => {
                names.remove(&from);
                names.insert(to, file);
            }
        }
    }
}

impl SimDisk {
    pub fn new(seed: u64, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: SimRandom::new(seed),
            trace,
            life: 0,
            next_inode: 0,
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            unsynced: Vec::new(),
            locks: BTreeMap::new(),
            next_lock: 0,
            capacity: None,
            write_fails_after: None,
            sync_fails_after: None,
            sync_lies: false,
        })))
    }

    /// The power goes and comes back. Open files and locks are gone; faults that count down are forgotten.
    pub fn crash(&self) {
        let state = &mut *self.0.lock();
        state.life += 1;
        state.trace.observe("disk crash", &state.life.to_string(), b"");
        state.locks.clear();
        state.write_fails_after = None;
        state.sync_fails_after = None;
        for change in std::mem::take(&mut state.unsynced) {
            if state.random.below(2) == 0 {
                change.apply(&mut state.durable);
            }
        }
        state.live.clone_from(&state.durable);
        for entry in state.live.values() {
            if let Entry::File(inode) = entry {
                inode.lock().crash(&state.random);
            }
        }
    }

    pub fn inject(&self, fault: DiskFault) {
        let state = &mut *self.0.lock();
        match fault {
            DiskFault::Capacity(bytes) => state.capacity = Some(bytes),
            DiskFault::WriteFails { after } => state.write_fails_after = Some(after),
            DiskFault::SyncFails { after } => state.sync_fails_after = Some(after),
            DiskFault::SyncLies => state.sync_lies = true,
        }
    }

    /// Ends every injected fault.
    pub fn heal(&self) {
        let state = &mut *self.0.lock();
        state.capacity = None;
        state.write_fails_after = None;
        state.sync_fails_after = None;
        state.sync_lies = false;
        for entry in state.live.values() {
            if let Entry::File(inode) = entry {
                inode.lock().heal();
            }
        }
    }

    /// Makes every read that touches these bytes of a file fail with an I/O error, under whatever name and after a crash
    /// too: sectors that the medium cannot give back. [`SimDisk::heal`] ends it.
    ///
    /// # Errors
    /// No such file.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.trace.observe("disk fail reads", &format!("{} {range:?}", path.display()), b"");
        state.file(path)?.lock().fail_reads(range);
        Ok(())
    }

    /// Turns all bits of one byte over, durably: decay on the medium.
    ///
    /// # Errors
    /// No such file, or it is shorter.
    pub fn flip_byte(&self, path: &Path, offset: u64) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.trace.observe("disk flip", &format!("{} {offset}", path.display()), b"");
        state.file(path)?.lock().flip(offset)
    }

    /// Where all that the disk does is told.
    pub fn trace(&self) -> Trace {
        self.0.lock().trace.clone()
    }

    /// Every file there is, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.0.lock();
        state.live.iter().filter(|(_, e)| matches!(e, Entry::File(_))).map(|(path, _)| path.clone()).collect()
    }
}

impl State {
    fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
        match self.live.get(path) {
            Some(Entry::File(inode)) => Ok(Arc::clone(inode)),
            Some(Entry::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn is_folder(&self, folder: &Path) -> bool {
        let root = folder.as_os_str().is_empty() || folder == Path::new("/");
        root || matches!(self.live.get(folder), Some(Entry::Folder))
    }

    fn need_folder_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.is_folder(folder) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change_names(&mut self, what: &'static str, change: NameChange) {
        let about = match &change {
            NameChange::Set { path, .. } | NameChange::Removed { path } => path.display().to_string(),
            NameChange::Renamed { from, to, .. } => format!("{} {}", from.display(), to.display()),
        };
        self.trace.observe(what, &about, b"");
        change.clone().apply(&mut self.live);
        self.unsynced.push(change);
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Arc<Mutex<Inode>>> {
        if mode != OpenMode::CreateNew {
            return self.file(path);
        }
        if self.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.need_folder_of(path)?;
        let inode = Arc::new(Mutex::new(Inode::new(self.next_inode)));
        self.next_inode += 1;
        let file = Entry::File(Arc::clone(&inode));
        self.change_names("disk create", NameChange::Set { path: path.to_path_buf(), file });
        Ok(inode)
    }

    /// Whether the disk can hold `more` bytes.
    fn need_room(&self, more: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let mut sizes = BTreeMap::new();
        for entry in self.live.values() {
            if let Entry::File(inode) = entry {
                let inode = inode.lock();
                sizes.insert(inode.id, inode.size());
            }
        }
        if sizes.values().sum::<u64>() + more > capacity { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// Counts one call down to a fault that waits for its turn.
fn is_due(counter: &mut Option<u64>) -> bool {
    match counter {
        Some(0) => {
            *counter = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// `EIO`, which has no kind of its own.
fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.open_as(path, mode, false)
    }

    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.open_as(path, mode, true)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        if !state.is_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let children = state.live.iter().filter(|(path, _)| path.parent() == Some(folder));
        let mut names: Vec<String> = children
            .filter_map(|(path, entry)| {
                let name = path.file_name()?.to_str()?;
                Some(if matches!(entry, Entry::Folder) { format!("{name}/") } else { name.to_owned() })
            })
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        for level in folder.ancestors() {
            if matches!(state.live.get(level), Some(Entry::File(_))) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if !state.is_folder(level) {
                state.trace.observe("disk folder", &level.display().to_string(), b"");
                state.live.insert(level.to_path_buf(), Entry::Folder);
                state.durable.insert(level.to_path_buf(), Entry::Folder);
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        state.file(path)?;
        state.change_names("disk remove", NameChange::Removed { path: path.to_path_buf() });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        let file = Entry::File(state.file(from)?);
        state.need_folder_of(to)?;
        let change = NameChange::Renamed { from: from.to_path_buf(), to: to.to_path_buf(), file };
        state.change_names("disk rename", change);
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        let file = Entry::File(state.file(from)?);
        state.need_folder_of(to)?;
        if state.live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_names("disk link", NameChange::Set { path: to.to_path_buf(), file });
        Ok(())
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        if !state.is_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.trace.observe("disk sync folder", &folder.display().to_string(), b"");
        if is_due(&mut state.sync_fails_after) {
            return Err(input_output_error());
        }
        if state.sync_lies {
            return Ok(());
        }
        let (synced, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.unsynced).into_iter().partition(|change| change.folder() == Some(folder));
        state.unsynced = rest;
        for change in synced {
            change.apply(&mut state.durable);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let state = &mut *self.0.lock();
        if state.locks.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match state.open(path, OpenMode::CreateNew) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let number = state.next_lock;
        state.next_lock += 1;
        state.locks.insert(path.to_path_buf(), number);
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf(), number }))
    }
}

impl SimDisk {
    fn open_as(&self, path: &Path, mode: OpenMode, direct: bool) -> io::Result<Box<dyn DiskFile>> {
        let state = &mut *self.0.lock();
        let inode = state.open(path, mode)?;
        let name = path.display().to_string();
        Ok(Box::new(SimFile {
            disk: self.clone(),
            life: state.life,
            inode,
            name,
            direct,
            writable: mode != OpenMode::Read,
        }))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    number: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let state = &mut *self.disk.0.lock();
        // A crash released it already, and the path may since be another's.
        if state.locks.get(&self.path) == Some(&self.number) {
            state.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    life: u64,
    inode: Arc<Mutex<Inode>>,
    name: String,
    direct: bool,
    writable: bool,
}

impl SimFile {
    /// Runs `work` on the file, unless the life it was opened in is over.
    fn with<T>(&self, work: impl FnOnce(&mut State, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        let state = &mut *self.disk.0.lock();
        if state.life != self.life {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the machine that opened this file has crashed"));
        }
        // `need_room` locks every inode in turn, so a file's own lock is never held while it runs.
        let inode = Arc::clone(&self.inode);
        let mut inode = inode.lock();
        work(state, &mut inode)
    }

    fn need_room(&self, end: u64) -> io::Result<()> {
        let state = self.disk.0.lock();
        let size = self.inode.lock().size();
        state.need_room(end.saturating_sub(size))
    }

    fn need_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Direct I/O refuses what is not aligned, as `O_DIRECT` does.
    fn need_aligned(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let sector = SECTOR_SIZE as u64;
        let aligned = offset.is_multiple_of(sector)
            && bytes.len().is_multiple_of(SECTOR_SIZE)
            && bytes.as_ptr().align_offset(SECTOR_SIZE) == 0;
        if self.direct && !aligned {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "direct I/O must be aligned to sectors"));
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|_, inode| Ok(inode.size()))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.need_aligned(bytes, offset)?;
        self.with(|_, inode| inode.read(bytes, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.need_writable()?;
        self.need_aligned(bytes, offset)?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        self.need_room(end)?;
        self.with(|state, inode| {
            state.trace.observe("disk write", &format!("{} {offset}", self.name), bytes);
            inode.change(Change::Write { offset, bytes: bytes.to_vec() });
            if is_due(&mut state.write_fails_after) {
                // Part of it may be there: the change stays, and no sync will promise it.
                inode.doubt_unsynced();
                return Err(input_output_error());
            }
            Ok(())
        })
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.need_writable()?;
        self.need_room(size)?;
        self.with(|state, inode| {
            state.trace.observe("disk allocate", &format!("{} {size}", self.name), b"");
            if size > inode.size() {
                inode.change(Change::SetSize(size));
            }
            Ok(())
        })
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.need_writable()?;
        self.need_room(size)?;
        self.with(|state, inode| {
            state.trace.observe("disk set size", &format!("{} {size}", self.name), b"");
            inode.change(Change::SetSize(size));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, inode| {
            state.trace.observe("disk sync", &self.name, b"");
            if is_due(&mut state.sync_fails_after) {
                inode.doubt_unsynced();
                return Err(input_output_error());
            }
            if !state.sync_lies {
                inode.sync();
            }
            Ok(())
        })
    }
}
