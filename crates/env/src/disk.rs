//! The local disk behind a trait. Calls block: run them in [`crate::Env::blocking`] or on a [`crate::Worker`].
//!
//! What survives a crash is stated here, because the simulated disk keeps nothing else:
//! 1. bytes written are durable after [`DiskFile::sync`] on that file returned, not before; an unsynced write may be
//!    kept, lost, or torn at any multiple of [`SECTOR_SIZE`];
//! 2. a name created, linked, renamed or removed is durable after [`Disk::sync_dir`] on its folder returned;
//! 3. a `sync` that failed says nothing about the bytes, and a later success does not mend it (fsyncgate, LWN 752063).

use std::io;
use std::path::Path;

/// The unit that a disk writes whole, and the alignment that direct I/O asks for.
pub const SECTOR_SIZE: usize = 4096;

/// Whether a read that failed so says that the medium cannot give these bytes back, as it may say of one sector. What else
/// fails (no such device, no permission) says nothing about the bytes. A device that has just gone answers like this too,
/// whatever is read of it.
///
/// Source: `blk_errors` in Linux' `block/blk-core.c`; EBADMSG and EUCLEAN are what file systems say of their own checksums.
pub fn is_unreadable(error: &io::Error) -> bool {
    use rustix::io::Errno;
    #[cfg(target_os = "linux")]
    let medium = [Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::BADMSG, Errno::UCLEAN];
    #[cfg(not(target_os = "linux"))]
    let medium = [Errno::IO];
    error.raw_os_error().is_some_and(|raw| medium.iter().any(|errno| errno.raw_os_error() == raw))
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file; one of that name already there is an error.
    CreateNew,
}

pub trait Disk: Send + Sync {
    /// Opens a file through the page cache.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file past the page cache where the file system can (`O_DIRECT`), else as [`Disk::open`]. Reads and
    /// writes must then be aligned: offset, length and buffer, each to [`SECTOR_SIZE`]; [`AlignedBuf`] is.
    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// The names in a folder, sorted; folders among them end in `/`.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Creates a folder and those above it; one that is there is fine. Durable when this returns.
    fn create_dir_all(&self, folder: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames within one file system, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives `from` a second name; `AlreadyExists` where `to` is there: of many callers one succeeds.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;

    /// Takes the process's lock on `path`, which is created; `WouldBlock` where another process holds it.
    /// Released when dropped and when the process ends.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// A held lock; dropping it releases it.
pub trait DiskLock: Send + Sync {}

pub trait DiskFile: Send + Sync {
    fn size(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset`; `UnexpectedEof` past the end, [`is_unreadable`] where the medium lost some of them.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; not durable before [`DiskFile::sync`]. `StorageFull` where the disk is.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves blocks up to `size` and makes the file that long; what was not written reads as zeros.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Makes every completed write of this file durable (`fdatasync`), its size included.
    fn sync(&self) -> io::Result<()>;
}

/// A growable buffer whose first byte is aligned to [`SECTOR_SIZE`], for direct I/O. Made to be cleared and used again.
#[derive(Debug, Default)]
pub struct AlignedBuf {
    /// Holds up to one sector of slack before the aligned start.
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBuf {
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::<u8>::with_capacity(capacity.next_multiple_of(SECTOR_SIZE) + SECTOR_SIZE);
        let start = bytes.as_ptr().align_offset(SECTOR_SIZE);
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn capacity(&self) -> usize {
        self.bytes.capacity() - self.start
    }

    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    pub fn extend_from_slice(&mut self, more: &[u8]) {
        self.grow_for(more.len());
        self.bytes.extend_from_slice(more);
    }

    /// Makes the buffer `len` bytes long, with `fill` in what is new.
    pub fn resize(&mut self, len: usize, fill: u8) {
        self.grow_for(len.saturating_sub(self.len()));
        self.bytes.resize(self.start + len, fill);
    }

    /// Fills up with zeros to a whole number of sectors.
    pub fn pad_to_sector(&mut self) {
        self.resize(self.len().next_multiple_of(SECTOR_SIZE), 0);
    }

    /// Moves to a larger allocation where `more` bytes do not fit: growing in place could lose the alignment.
    fn grow_for(&mut self, more: usize) {
        let needed = self.len() + more;
        if self.bytes.capacity() - self.start < needed {
            let mut larger = Self::with_capacity(needed.max(self.capacity() * 2));
            larger.bytes.extend_from_slice(&self.bytes[self.start..]);
            *self = larger;
        }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_stays_aligned_as_it_grows() {
        let mut buf = AlignedBuf::with_capacity(10);
        for i in 0..10_000_u32 {
            buf.extend_from_slice(&i.to_le_bytes());
            assert_eq!(buf.as_ptr().align_offset(SECTOR_SIZE), 0, "aligned at {} bytes", buf.len());
        }
        assert_eq!(buf[4 * 9_999..], 9_999_u32.to_le_bytes());
        buf.pad_to_sector();
        assert_eq!(buf.len(), 40_960);
        let held = buf.capacity();
        buf.clear();
        assert!(buf.is_empty() && buf.capacity() == held, "a cleared buffer keeps its memory");
    }
}
