//! Reading a segment of which some sectors may have gone bad.
//!
//! A sector that cannot be read is as damaged as one with a flipped byte: it is filled with bytes that nothing begins with
//! and no checksum fits, and judged with the rest. It counts as that only where
//! 1. the file was opened, and the error is of those that the medium gives for a place ([`is_unreadable`]);
//! 2. it fails [`TRIES`] times, and after each of them another sector of the same file can be read: a disk that was
//!    unplugged, or is not all there yet, gives the same error for every sector. The reads are past the page cache, where
//!    the file system can, so that it is the disk that answers.
//!
//! Any other error is the caller's, who seals or opens again: nothing is called lost because of it. So a file of which
//! nothing can be read is no corruption either; whoever knows that it is lost takes it away.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use forebay_env::{AlignedBuf, SECTOR_SIZE, is_unreadable};
use forebay_format::{FormatError, SegmentHead};
use parking_lot::Mutex;

use super::files::SegmentFile;

/// How often a sector has to fail: a disk may find by the second time what it did not by the first.
const TRIES: u32 = 3;
/// Sectors, spread over the file, that are asked whether the disk still answers.
const WITNESSES: u64 = 32;
/// What an unreadable sector is filled with. Not zeros, which say that nothing was ever written there.
const FILL: u8 = 0xff;

/// The sectors of one segment.
pub(super) struct Sectors {
    file: SegmentFile,
    /// What the disk said of each unreadable sector, by position: all readings of the segment agree on them, and none
    /// waits for them again.
    bad: Mutex<BTreeMap<u64, Arc<io::Error>>>,
}

impl Sectors {
    pub fn new(file: SegmentFile) -> Self {
        Self { file, bad: Mutex::default() }
    }

    pub fn file(&self) -> &SegmentFile {
        &self.file
    }

    /// Fills `bytes`, whole sectors, from `position` on.
    ///
    /// # Errors
    /// None that the medium gives for a place, unless the whole file answers like that: nothing is known, so try again.
    pub fn read(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        let bad = &mut *self.bad.lock();
        if bad.range(position..position + bytes.len() as u64).next().is_none() {
            match self.file.handle.read_exact_at(bytes, position) {
                Err(error) if is_unreadable(&error) => {}
                read => return read,
            }
        }
        for (index, sector) in bytes.chunks_mut(SECTOR_SIZE).enumerate() {
            let at = position + (index * SECTOR_SIZE) as u64;
            if !bad.contains_key(&at)
                && let Some(error) = self.read_sector(sector, at, bad)?
            {
                let segment = &self.file.name;
                tracing::warn!(segment, position = at, %error, "a sector of the WAL cannot be read and counts as damaged");
                bad.insert(at, Arc::new(error));
            }
            if bad.contains_key(&at) {
                sector.fill(FILL);
            }
        }
        Ok(())
    }

    /// Reads a sector, or gives what makes it unreadable.
    fn read_sector(
        &self,
        sector: &mut [u8],
        at: u64,
        bad: &BTreeMap<u64, Arc<io::Error>>,
    ) -> io::Result<Option<io::Error>> {
        let mut failed = None;
        for _ in 0..TRIES {
            match self.file.handle.read_exact_at(sector, at) {
                Ok(()) => return Ok(None),
                Err(error) if is_unreadable(&error) => {
                    self.expect_answer(&error, |other| other != at && !bad.contains_key(&other))?;
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(failed)
    }

    /// Makes sure that the disk still gives some sector of the file.
    fn expect_answer(&self, failed: &io::Error, may_answer: impl Fn(u64) -> bool) -> io::Result<()> {
        let sector_size = SECTOR_SIZE as u64;
        let sectors = self.file.size / sector_size;
        let mut sector = AlignedBuf::with_capacity(SECTOR_SIZE);
        sector.resize(SECTOR_SIZE, 0);
        let spread = (0..WITNESSES.min(sectors)).map(|n| n * sectors / WITNESSES.min(sectors) * sector_size);
        for at in spread.filter(|at| may_answer(*at)) {
            match self.file.handle.read_exact_at(&mut sector, at) {
                Err(error) if is_unreadable(&error) => {}
                read => return read,
            }
        }
        let message = format!("no part of {} can be read: {failed}", self.file.name);
        Err(io::Error::new(failed.kind(), message))
    }

    /// What the disk said of the first of these bytes that cannot be read, and where that is. Only of what was read.
    pub fn unreadable(&self, position: u64, size: usize) -> Option<(u64, Arc<io::Error>)> {
        let bad = self.bad.lock();
        let first = bad.range(position..position + size as u64).next();
        first.map(|(at, error)| (*at, Arc::clone(error)))
    }

    /// Says for an operator what is wrong with `size` bytes that were read, and then parsed with that error.
    pub fn what_is_wrong(&self, error: FormatError, size: usize) -> String {
        let (layout, position) = (error.layout(), error.position());
        let error = error.in_object(&self.file.name);
        match self.unreadable(position, size) {
            Some((at, source)) => {
                let name = &self.file.name;
                format!("{name}: the {layout} at byte {position} cannot be read: the disk fails at byte {at}: {source}")
            }
            None => error.to_string(),
        }
    }

    /// Whose segment it is; `None` inside where it was never used.
    pub fn head(&self) -> io::Result<Result<Option<SegmentHead>, FormatError>> {
        if self.file.size < SECTOR_SIZE as u64 {
            return Ok(Ok(None));
        }
        let mut sector = AlignedBuf::with_capacity(SECTOR_SIZE);
        sector.resize(SECTOR_SIZE, 0);
        self.read(&mut sector, 0)?;
        Ok(SegmentHead::parse(&sector))
    }
}

#[cfg(test)]
mod tests {
    //! A disk that answers each read by script shows which errors count as damage, and when.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use forebay_env::DiskFile;

    use super::*;

    const SECTORS: u64 = 100;
    const EIO: i32 = 5;
    const ENXIO: i32 = 6;
    const EACCES: i32 = 13;

    /// Sector n holds bytes of the value n. Given the sector, or the first of several, and how many reads there were
    /// before: the error that the read ends with.
    struct Scripted<F> {
        reads: AtomicUsize,
        fails: F,
    }

    impl<F: Fn(u64, usize) -> Option<i32> + Send + Sync> DiskFile for Scripted<F> {
        fn size(&self) -> io::Result<u64> {
            Ok(SECTORS * 4096)
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let before = self.reads.fetch_add(1, Ordering::Relaxed);
            for (sector, bytes) in (offset / 4096..).zip(bytes.chunks_mut(SECTOR_SIZE)) {
                if let Some(errno) = (self.fails)(sector, before) {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                bytes.fill(u8::try_from(sector).expect("small"));
            }
            Ok(())
        }

        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!("sealing writes nothing")
        }

        fn allocate(&self, _: u64) -> io::Result<()> {
            unreachable!("sealing writes nothing")
        }

        fn set_size(&self, _: u64) -> io::Result<()> {
            unreachable!("sealing writes nothing")
        }

        fn sync(&self) -> io::Result<()> {
            unreachable!("not asked for here")
        }
    }

    /// Reads sectors 8 to 11: which of them are damaged, or the error.
    fn read(fails: impl Fn(u64, usize) -> Option<i32> + Send + Sync + 'static) -> String {
        let handle = Arc::new(Scripted { reads: AtomicUsize::new(0), fails });
        let sectors = Sectors::new(SegmentFile { slot: 0, name: "it".into(), handle, size: SECTORS * 4096 });
        let mut bytes = vec![0; 4 * SECTOR_SIZE];
        if let Err(error) = sectors.read(&mut bytes, 8 * 4096) {
            return error.to_string();
        }
        let mut damaged = Vec::new();
        for (sector, bytes) in (8..).zip(bytes.chunks(SECTOR_SIZE)) {
            let is_bad = sectors.unreadable(sector * 4096, SECTOR_SIZE).is_some();
            let wanted = if is_bad { FILL } else { u8::try_from(sector).expect("small") };
            assert!(bytes.iter().all(|b| *b == wanted), "sector {sector}");
            damaged.extend(is_bad.then_some(sector));
        }
        format!("damaged {damaged:?}")
    }

    #[test]
    fn only_a_sector_that_fails_alone_and_again_and_again_counts_as_damaged() {
        let gone = "no part of it can be read: Input/output error (os error 5)";
        assert_eq!(read(|_, _| None), "damaged []");
        assert_eq!(read(|sector, _| (sector == 9).then_some(EIO)), "damaged [9]");
        assert_eq!(read(|sector, _| [9, 11].contains(&sector).then_some(EIO)), "damaged [9, 11]");
        assert_eq!(read(|sector, _| (sector < 60).then_some(EIO)), "damaged [8, 9, 10, 11]", "the rest answers");
        assert_eq!(read(|_, before| (before == 0).then_some(EIO)), "damaged []", "it came right");
        assert_eq!(read(|sector, before| (sector == 9 && before < 5).then_some(EIO)), "damaged []", "at the third try");
        // The disk goes before, while or after the sector is read for the first time.
        for last in 0..8 {
            let script = move |sector: u64, before: usize| (sector == 9 || before > last).then_some(EIO);
            assert_eq!(read(script), gone, "after {last} reads");
        }
        assert_eq!(read(|_, _| Some(ENXIO)), "No such device or address (os error 6)");
        assert_eq!(read(|sector, _| (sector == 9).then_some(EACCES)), "Permission denied (os error 13)");
        let script = |sector: u64, before: usize| if sector == 9 { Some(EIO) } else { (before > 1).then_some(ENXIO) };
        assert_eq!(read(script), "No such device or address (os error 6)", "what the witness says is believed");
    }

    #[test]
    fn a_sector_once_found_bad_stays_so_and_is_not_waited_for_again() {
        let handle = Arc::new(Scripted {
            reads: AtomicUsize::new(0),
            fails: |sector: u64, before: usize| (sector == 9 && before < 20).then_some(EIO),
        });
        let file =
            SegmentFile { slot: 0, name: "it".into(), handle: Arc::<_>::clone(&handle) as _, size: SECTORS * 4096 };
        let sectors = Sectors::new(file);
        let mut bytes = vec![0; 2 * SECTOR_SIZE];
        sectors.read(&mut bytes, 9 * 4096).expect("the disk answers");
        handle.reads.store(20, Ordering::Relaxed);
        sectors.read(&mut bytes, 9 * 4096).expect("the disk answers");
        assert_eq!((bytes[0], bytes[SECTOR_SIZE]), (FILL, 10));
        assert_eq!(handle.reads.load(Ordering::Relaxed), 21, "only the sound one was read");
    }
}
