//! The blocking half of a bucket in a folder: one method per request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forebay_env::{Disk, DiskFile, OpenMode};
use forebay_types::Timestamp;
use parking_lot::Mutex;

use super::known::KnownFolders;
use super::recent::Recent;
use super::stage::StageArea;
use crate::{Body, Key, OBJECT_SIZE_MAX, Object, ObjectMeta, Operation, Prefix, Span, StoreError, StoreErrorKind};

/// How a staged file gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    IfAbsent,
    InPlace,
}

impl Publish {
    const fn operation(self) -> Operation {
        match self {
            Self::IfAbsent => Operation::Create,
            Self::InPlace => Operation::Put,
        }
    }
}

pub(super) struct Folder {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    stage: StageArea,
    known: KnownFolders,
    recent: Mutex<Recent>,
}

/// The folder part of a key, empty for a key at the root.
fn parent(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// What an I/O error means where nothing of ours was published yet.
fn unpublished(operation: Operation, key: &Key, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        // A key that is another's folder, a folder that is a file: names of a bucket that was not written by us.
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::InvalidInput => StoreErrorKind::Refused,
        _ => StoreErrorKind::DidNotHappen,
    };
    StoreError::new(operation, key, kind).because(error)
}

fn unread(operation: Operation, subject: &impl ToString, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            StoreErrorKind::NotFound
        }
        io::ErrorKind::PermissionDenied => StoreErrorKind::Refused,
        // A file is whole before it has its name, so one that ends early was cut by somebody else.
        io::ErrorKind::UnexpectedEof => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::DidNotHappen,
    };
    StoreError::new(operation, subject, kind).because(error)
}

impl Folder {
    pub(super) fn open(disk: Arc<dyn Disk>, root: PathBuf, id: u64, now: Timestamp) -> io::Result<Self> {
        disk.create_dir_all(&root)?;
        let stage = StageArea::open(Arc::clone(&disk), &root, id)?;
        let known = KnownFolders::new(Arc::clone(&disk), root.clone());
        Ok(Self { disk, root, stage, known, recent: Mutex::new(Recent::since(now)) })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    pub(super) fn publish(&self, key: &Key, body: &Body, how: Publish, now: Timestamp) -> Result<(), StoreError> {
        let operation = how.operation();
        let path = self.path(key);
        let folder = parent(key.as_str());
        self.known.make(folder).map_err(|error| unpublished(operation, key, error))?;
        // Saves writing what cannot be published; the link below decides.
        if how == Publish::IfAbsent && self.disk.open(&path, OpenMode::Read).is_ok() {
            return Err(self.taken(key, folder));
        }
        let staged = self.stage.write(body).map_err(|error| unpublished(operation, key, error))?;

        let publishing = self.known.begin(folder);
        let named = match how {
            Publish::IfAbsent => self.disk.hard_link(staged.path(), &path),
            Publish::InPlace => self.disk.rename(staged.path(), &path),
        };
        match named {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && how == Publish::IfAbsent => {
                publishing.end();
                return Err(self.taken(key, folder));
            }
            Err(error) => {
                let error = unpublished(operation, key, error);
                // The network may have lost the answer of a link that was made (NFS); a full disk or a refusal is sure.
                if error.kind() == StoreErrorKind::DidNotHappen {
                    return Err(error.of_kind(StoreErrorKind::MayHaveHappened));
                }
                publishing.end();
                return Err(error);
            }
        }
        let synced = self.disk.sync_dir(&self.root.join(folder));
        synced.map_err(|error| StoreError::new(operation, key, StoreErrorKind::MayHaveHappened).because(error))?;
        publishing.end();
        self.recent.lock().note(key, now);
        Ok(())
    }

    /// "Already exists", said only once the name that is there will stay.
    fn taken(&self, key: &Key, folder: &str) -> StoreError {
        match self.known.settle(folder) {
            Ok(()) => StoreError::new(Operation::Create, key, StoreErrorKind::AlreadyExists),
            Err(error) => StoreError::new(Operation::Create, key, StoreErrorKind::MayHaveHappened).because(error),
        }
    }

    /// Opens a file under a name that will stay.
    fn open_settled(&self, operation: Operation, key: &Key) -> Result<(Box<dyn DiskFile>, ObjectMeta), StoreError> {
        let file = self.disk.open(&self.path(key), OpenMode::Read).map_err(|error| unread(operation, key, error))?;
        self.known.settle(parent(key.as_str())).map_err(|error| unread(operation, key, error))?;
        // A folder can be opened and has a size; only reading tells it from a file, and it is no object.
        match file.read_exact_at(&mut [0], 0) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(unread(operation, key, error)),
            _ => {}
        }
        let size = file.size().map_err(|error| unread(operation, key, error))?;
        Ok((file, self.meta(key, size)))
    }

    fn meta(&self, key: &Key, size: u64) -> ObjectMeta {
        ObjectMeta { key: key.clone(), size, modified: self.recent.lock().modified(key), version: None }
    }

    pub(super) fn read(&self, key: &Key, span: &Span) -> Result<Object, StoreError> {
        let (file, meta) = self.open_settled(Operation::Read, key)?;
        let error = |kind| StoreError::new(Operation::Read, key, kind);
        let Some(range) = span.within(meta.size) else {
            return Err(error(StoreErrorKind::OutOfRange { size: meta.size }));
        };
        let len = range.end - range.start;
        if len > OBJECT_SIZE_MAX {
            return Err(error(StoreErrorKind::Refused).because(format!("{len} bytes are more than {OBJECT_SIZE_MAX}")));
        }
        let mut bytes = vec![0; usize::try_from(len).expect("at most OBJECT_SIZE_MAX")];
        file.read_exact_at(&mut bytes, range.start).map_err(|e| unread(Operation::Read, key, e))?;
        Ok(Object { meta, start: range.start, bytes: Bytes::from(bytes) })
    }

    pub(super) fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.open_settled(Operation::Head, key).map(|(_, meta)| meta)
    }

    pub(super) fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut walk =
            Walk { folder: self, start_after: start_after.map_or("", Key::as_str), limit, found: Vec::new() };
        walk.visit(prefix).map_err(|error| unread(Operation::List, prefix, error))?;
        Ok(walk.found)
    }

    pub(super) fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let failed = |kind, error: io::Error| Err(StoreError::new(Operation::Delete, key, kind).because(error));
        match self.disk.remove(&self.path(key)) {
            Ok(()) => {}
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
                    io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::IsADirectory => failed(StoreErrorKind::Refused, error),
                    _ => failed(StoreErrorKind::MayHaveHappened, error),
                };
            }
        }
        self.recent.lock().forget(key);
        match self.disk.sync_dir(&self.root.join(parent(key.as_str()))) {
            Ok(()) => Ok(()),
            Err(error) => failed(StoreErrorKind::MayHaveHappened, error),
        }
    }
}

/// A walk through the folders in the order of their keys.
struct Walk<'a> {
    folder: &'a Folder,
    /// Empty for none: it comes before every key.
    start_after: &'a str,
    limit: usize,
    found: Vec<ObjectMeta>,
}

impl Walk<'_> {
    fn visit(&mut self, prefix: &Prefix) -> io::Result<()> {
        let mut names = match self.folder.disk.list(&self.folder.root.join(prefix.as_str())) {
            Ok(names) => names,
            // Nobody wrote here yet, or a walk before this one saw the folder go.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.folder.known.settle(prefix.as_str())?;
        // With its `/` a folder's name sorts where its keys do: `a-b`, `a.b`, `a/x`, `a0`.
        names.sort_unstable();
        let leading = prefix.leading();
        for name in names {
            if self.found.len() >= self.limit {
                break;
            }
            let path = format!("{leading}{name}");
            if name.ends_with('/') {
                // Every key in it comes before `start_after`, or its own name does not (`.staging`, somebody else's).
                let passed = path.as_str() < self.start_after && !self.start_after.starts_with(&path);
                if let (false, Ok(below)) = (passed, Prefix::new(&path)) {
                    self.visit(&below)?;
                }
            } else if let (true, Ok(key)) = (path.as_str() > self.start_after, Key::new(&path)) {
                match self.size(&self.folder.path(&key)) {
                    Ok(size) => self.found.push(self.folder.meta(&key, size)),
                    // Deleted since the folder was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.folder.disk.open(path, OpenMode::Read)?.size()
    }
}
