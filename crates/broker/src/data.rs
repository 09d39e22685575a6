//! The data folder: one process at a time, one cluster for ever.
//!
//! ```text
//! forebay-data/
//!   lock             held while a broker runs here
//!   forebay-folder   the marker: format, cluster, this disk's own id
//!   wal/             segments of the `disk` WAL
//!   bucket/          the embedded bucket
//!   scratch-wal/     the `disk` WAL of a broker whose bucket is in memory; emptied at every start
//! ```
//!
//! Owns: the lock, the marker, the names of what lies beside them. Leaves to others: the marker's bytes (`format`), what
//! is in the folders (`wal`, `store`).
//!
//! Invariants:
//! 1. Nothing in the folder is read or written without the lock.
//! 2. A marker is written once and never changed: the disk's id is what a local WAL is known by (D3).

use std::io;
use std::path::{Path, PathBuf};

use forebay_env::{Disk, DiskLock, Env, OpenMode};
use forebay_format::{DiskId, Fault, FolderMarker, FormatError};
use forebay_types::ClusterId;

/// More than any marker has.
const MARKER_SIZE_MAX: u64 = 4096;

/// A data folder that this process holds.
pub(crate) struct DataFolder {
    root: PathBuf,
    marker: Option<FolderMarker>,
    _lock: Box<dyn DiskLock>,
}

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("could not {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the data folder {} is in use by another process: stop that one, or choose another folder",
        folder.display()
    )]
    InUse { folder: PathBuf },
    #[error(
        "the data folder {} has format {seen}, and this version of Forebay reads format {known}: start the version that \
         wrote it, or choose another folder",
        folder.display()
    )]
    OtherVersion { folder: PathBuf, seen: u16, known: u16 },
    #[error(
        "the data folder's marker {} cannot be read: put it back from a copy, its disk id is what the write-ahead log \
         here is known by",
        path.display()
    )]
    Marker { path: PathBuf, source: FormatError },
    #[error(
        "the data folder {} belongs to cluster {ours}, and {bucket} to cluster {found}: use the bucket that the folder \
         was made with, or another data folder",
        folder.display()
    )]
    OtherCluster { folder: PathBuf, ours: ClusterId, bucket: String, found: ClusterId },
    #[error(
        "the data folder {} belongs to cluster {ours}, and {bucket} is empty: use the bucket that the folder was made \
         with, or another data folder",
        folder.display()
    )]
    EmptyBucket { folder: PathBuf, ours: ClusterId, bucket: String },
}

impl DataFolder {
    /// Takes the folder, which is made where there is none.
    pub async fn open(env: &Env, root: &Path) -> Result<Self, DataError> {
        let (disk, root) = (env.disk(), root.to_path_buf());
        env.blocking("data-folder-open", move || {
            disk.create_dir_all(&root).map_err(failed("make the data folder", &root))?;
            let path = root.join("lock");
            let lock = disk.lock(&path).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => DataError::InUse { folder: root.clone() },
                _ => failed("lock the data folder by", &path)(error),
            })?;
            let marker = read_marker(&*disk, &root)?;
            Ok(Self { root, marker, _lock: lock })
        })
        .await
    }

    /// The cluster that the folder belongs to; `None` before its first start has succeeded.
    pub fn cluster(&self) -> Option<&ClusterId> {
        self.marker.as_ref().map(|marker| &marker.cluster)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub fn bucket(&self) -> PathBuf {
        self.root.join("bucket")
    }

    /// Binds the folder to a cluster, at its first start, and gives its disk's id.
    pub async fn claim(&mut self, env: &Env, cluster: &ClusterId) -> Result<DiskId, DataError> {
        if let Some(marker) = &self.marker {
            // The metadata was opened for the marker's cluster or not at all.
            assert_eq!(marker.cluster, *cluster, "a folder never changes its cluster");
            return Ok(marker.disk);
        }
        let marker = FolderMarker { cluster: cluster.clone(), disk: random_disk(env) };
        let (disk, root, written) = (env.disk(), self.root.clone(), marker.clone());
        env.blocking("data-folder-claim", move || write_marker(&*disk, &root, &written)).await?;
        tracing::info!(folder = %self.root.display(), %cluster, disk = %marker.disk, "new data folder");
        Ok(self.marker.insert(marker).disk)
    }

    /// An empty folder for a WAL that nothing will be recovered from, because its bucket ends with this process, and an
    /// id for it.
    pub async fn scratch_wal(&self, env: &Env) -> Result<(PathBuf, DiskId), DataError> {
        let (disk, folder) = (env.disk(), self.root.join("scratch-wal"));
        let emptied = folder.clone();
        env.blocking("data-folder-scratch", move || {
            disk.create_dir_all(&emptied).map_err(failed("make", &emptied))?;
            for name in disk.list(&emptied).map_err(failed("list", &emptied))? {
                let path = emptied.join(name);
                disk.remove(&path).map_err(failed("remove", &path))?;
            }
            Ok(())
        })
        .await?;
        Ok((folder, random_disk(env)))
    }
}

/// The disk's id as the metadata's rows hold it.
pub(crate) fn disk_number(disk: DiskId) -> u128 {
    u128::from_str_radix(&disk.to_string(), 16).expect("a disk id is shown as 32 hexadecimal digits")
}

fn random_disk(env: &Env) -> DiskId {
    let mut bits = [0; 16];
    env.fill_random(&mut bits);
    DiskId::from_random(bits)
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> DataError {
    move |source| DataError::Io { what, path: path.to_path_buf(), source }
}

fn read_marker(disk: &dyn Disk, root: &Path) -> Result<Option<FolderMarker>, DataError> {
    let path = root.join(FolderMarker::FILE_NAME);
    let failed = failed("read", &path);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let size = file.size().map_err(&failed)?.min(MARKER_SIZE_MAX);
    let mut bytes = vec![0; usize::try_from(size).expect("a few KiB")];
    file.read_exact_at(&mut bytes, 0).map_err(&failed)?;
    FolderMarker::parse(&bytes).map(Some).map_err(|error| match *error.fault() {
        Fault::Version { seen, known } => DataError::OtherVersion { folder: root.to_path_buf(), seen, known },
        _ => DataError::Marker { path: path.clone(), source: error },
    })
}

/// Whole or not at all: written aside, then renamed.
fn write_marker(disk: &dyn Disk, root: &Path, marker: &FolderMarker) -> Result<(), DataError> {
    let path = root.join(FolderMarker::FILE_NAME);
    let aside = path.with_extension("new");
    match disk.remove(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &aside)(error)),
        _ => {}
    }
    let write = || {
        let file = disk.open(&aside, OpenMode::CreateNew)?;
        file.write_all_at(marker.encode().as_bytes(), 0)?;
        file.sync()?;
        disk.rename(&aside, &path)?;
        disk.sync_dir(root)
    };
    write().map_err(failed("write", &path))
}

#[cfg(test)]
mod tests {
    use forebay_env::simulated::{SimDisk, Trace, parts};

    use super::*;

    fn machine() -> (SimDisk, Env) {
        let disk = SimDisk::new(3, Trace::default());
        let env = Env::new(parts(3, &disk));
        (disk, env)
    }

    fn cluster(fill: u8) -> ClusterId {
        ClusterId::from_random([fill; 16])
    }

    /// A folder is bound to its cluster at the first start, durably, and has the same disk id ever after.
    #[tokio::test]
    async fn a_folder_remembers_its_cluster_and_disk() {
        let (disk, env) = machine();
        let root = Path::new("/data");
        let mut folder = DataFolder::open(&env, root).await.expect("a new folder");
        assert_eq!(folder.cluster(), None);
        let first = folder.claim(&env, &cluster(1)).await.expect("claimed");
        drop(folder);
        disk.crash();
        let mut folder = DataFolder::open(&env, root).await.expect("the folder is there after a crash");
        assert_eq!(folder.cluster(), Some(&cluster(1)));
        assert_eq!(folder.claim(&env, &cluster(1)).await.expect("claimed again"), first);
        assert_eq!(format!("{:032x}", disk_number(first)), first.to_string());
    }

    /// While one holds the folder, nobody else does; then anybody may.
    #[tokio::test]
    async fn a_folder_has_one_user() {
        let (_, env) = machine();
        let held = DataFolder::open(&env, Path::new("/data")).await.expect("free");
        let error = DataFolder::open(&env, Path::new("/data")).await.err().expect("held").to_string();
        assert_eq!(
            error,
            "the data folder /data is in use by another process: stop that one, or choose another folder"
        );
        drop(held);
        assert!(DataFolder::open(&env, Path::new("/data")).await.is_ok());
    }

    /// A marker that this build cannot read is told apart: a version, and damage.
    #[tokio::test]
    async fn a_marker_of_another_version_is_named() {
        let (disk, env) = machine();
        disk.create_dir_all(Path::new("/data")).expect("made");
        let file = disk.open(Path::new("/data/forebay-folder"), OpenMode::CreateNew).expect("made");
        file.write_all_at(b"forebay data folder\nformat 9\n", 0).expect("written");
        let open = || async { DataFolder::open(&env, Path::new("/data")).await.err().expect("refused").to_string() };
        assert_eq!(
            open().await,
            "the data folder /data has format 9, and this version of Forebay reads format 1: start the version that \
             wrote it, or choose another folder"
        );
        file.write_all_at(b"X", 0).expect("written");
        assert!(open().await.starts_with("the data folder's marker /data/forebay-folder cannot be read"));
    }
}
