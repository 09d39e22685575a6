//! The files of a `disk` WAL: finding them, making them, telling whose they are.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_env::{Disk, DiskFile, OpenMode, SECTOR_SIZE};
use forebay_format::SegmentHead;
use forebay_types::{BrokerEpoch, BrokerId, ByteSize, ClusterId};

use super::sectors::Sectors;
use crate::WalError;

const SUFFIX: &str = ".segment";

/// The folder of a WAL.
pub(super) struct Folder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

/// A segment's file, open.
#[derive(Clone)]
pub(super) struct SegmentFile {
    pub slot: u64,
    pub name: String,
    pub handle: Arc<dyn DiskFile>,
    /// Bytes, a whole number of sectors.
    pub size: u64,
}

impl Folder {
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path }
    }

    /// The segments' slots, in order. A folder that is not there has none.
    pub fn slots(&self) -> io::Result<Vec<u64>> {
        let names = match self.disk.list(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names?,
        };
        let mut slots: Vec<u64> = names.iter().filter_map(|n| n.strip_suffix(SUFFIX)?.parse().ok()).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    fn path_of(&self, slot: u64) -> PathBuf {
        self.path.join(format!("{slot:08}{SUFFIX}"))
    }

    pub fn name_of(&self, slot: u64) -> String {
        self.path_of(slot).display().to_string()
    }

    pub fn open(&self, slot: u64) -> io::Result<SegmentFile> {
        let handle: Arc<dyn DiskFile> = Arc::from(self.disk.open_direct(&self.path_of(slot), OpenMode::Write)?);
        let sector = SECTOR_SIZE as u64;
        let size = handle.size()? / sector * sector;
        Ok(SegmentFile { slot, name: self.name_of(slot), handle, size })
    }

    /// Makes a segment's file, all of it allocated and its name durable.
    pub fn create(&self, slot: u64, size: u64) -> Result<SegmentFile, WalError> {
        let path = self.path_of(slot);
        let make = || -> io::Result<SegmentFile> {
            self.disk.create_dir_all(&self.path)?;
            let handle: Arc<dyn DiskFile> = Arc::from(self.disk.open_direct(&path, OpenMode::CreateNew)?);
            handle.allocate(size)?;
            handle.sync()?;
            self.disk.sync_dir(&self.path)?;
            Ok(SegmentFile { slot, name: self.name_of(slot), handle, size })
        };
        make().map_err(|error| {
            let folder = self.path.display().to_string();
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            // Half a segment is of no use to anybody, and its space is: a failure to remove it changes nothing.
            let _ = self.disk.remove(&path);
            let source = Arc::new(error);
            if full {
                WalError::DiskFull { folder, needed: ByteSize::new(size), source }
            } else {
                WalError::Prepare { folder, source }
            }
        })
    }

    /// Takes over the segments that are there, for new use. Those of another size than is wanted now, those beyond `total`
    /// bytes, and those whose first sector the disk cannot give back are removed.
    pub fn reclaim(
        &self,
        segment_bytes: u64,
        total: u64,
        is_closed: &dyn Fn(&ClusterId, BrokerId, BrokerEpoch) -> bool,
    ) -> Result<Vec<SegmentFile>, WalError> {
        let prepare = |source| WalError::Prepare { folder: self.path.display().to_string(), source: Arc::new(source) };
        let mut kept = Vec::new();
        let mut removed = false;
        for slot in self.slots().map_err(prepare)? {
            let file = self.open(slot).map_err(prepare)?;
            let sectors = Sectors::new(file.clone());
            // Where the header is unreadable the sealer has said so; nothing more can be learned from this file.
            if let Ok(Some(head)) = sectors.head().map_err(prepare)?
                && !is_closed(&head.cluster, head.broker, head.broker_epoch)
            {
                let SegmentHead { cluster, broker, broker_epoch: epoch, .. } = head;
                return Err(WalError::NotClosed { segment: file.name, cluster, broker, epoch });
            }
            let fits = (kept.len() as u64 + 1) * segment_bytes <= total;
            let bad = sectors.unreadable(0, SECTOR_SIZE);
            if let Some((_, error)) = &bad {
                tracing::warn!(segment = file.name, %error, "a WAL segment is not used again: its header cannot be read");
            }
            if file.size == segment_bytes && fits && bad.is_none() {
                kept.push(file);
            } else {
                self.disk.remove(&self.path_of(slot)).map_err(prepare)?;
                removed = true;
            }
        }
        if removed {
            self.disk.sync_dir(&self.path).map_err(prepare)?;
        }
        Ok(kept)
    }
}
