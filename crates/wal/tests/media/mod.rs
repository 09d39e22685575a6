//! The media under test: a simulated disk, a real one, a bucket that can go wrong.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_env::real::RealDisk;
use forebay_env::simulated::{self, SimDisk, Trace};
use forebay_env::{AlignedBuf, Disk, Env, OpenMode, Parts, SECTOR_SIZE, Threads};
use forebay_format::{Footer, FooterParse, LogEnd, ObjectName, WAL_BLOCK_HEADER_SIZE};
use forebay_store::memory::MemoryStore;
use forebay_store::{FaultRates, Faulty, Key, Retrying, Store};
use forebay_types::{ByteSize, WalSequence};
use forebay_wal::conformance::{Decays, Medium, split_batches};
use forebay_wal::providers::disk::{DiskConfig, DiskProvider, DiskSealer};
use forebay_wal::providers::memory::MemoryWal;
use forebay_wal::providers::object::{ObjectConfig, ObjectProvider, ObjectSealer};
use forebay_wal::{Provider, SealError, SealedContents, Sealer, WalError, WalOwner};
use parking_lot::Mutex;

/// Small segments, so that a short test fills and reuses them.
pub fn disk_config(folder: impl Into<PathBuf>) -> DiskConfig {
    DiskConfig { folder: folder.into(), total: ByteSize::mib(2), segment: ByteSize::new(256 << 10) }
}

async fn replay(contents: SealedContents) -> Result<Vec<(WalSequence, Vec<Bytes>)>, SealError> {
    let SealedContents::Entries(replay) = contents else { panic!("a disk holds entries") };
    let groups = replay.collect().await?;
    Ok(groups.into_iter().map(|(s, entries)| (s, entries.into_iter().map(|e| e.records).collect())).collect())
}

/// What of a block goes bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Header,
    Tally,
    Entries,
}

/// The file and position of a block, and its first sector. Sectors that cannot be read are passed over.
fn find_block(disk: &dyn Disk, folder: &Path, of: &WalOwner, group: WalSequence) -> (PathBuf, u64, AlignedBuf) {
    for name in disk.list(folder).expect("there") {
        let path = folder.join(name);
        let file = disk.open_direct(&path, OpenMode::Read).expect("there");
        let mut sector = AlignedBuf::with_capacity(SECTOR_SIZE);
        sector.resize(SECTOR_SIZE, 0);
        for position in (SECTOR_SIZE as u64..file.size().expect("there")).step_by(SECTOR_SIZE) {
            if file.read_exact_at(&mut sector, position).is_err() {
                continue;
            }
            let number = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes"));
            if sector.starts_with(b"FBWB") && (number(24), number(40)) == (of.epoch.get(), group.get()) {
                return (path, position, sector);
            }
        }
    }
    panic!("there is no group {group}");
}

/// Flips a bit of a block on a disk, which makes that part unreadable; once more, and it is as it was.
pub fn flip_block(disk: &dyn Disk, folder: &Path, of: &WalOwner, group: WalSequence, part: Part) {
    let (path, position, mut sector) = find_block(disk, folder, of, group);
    let ends = u32::from_le_bytes(sector[64..68].try_into().expect("four bytes")) as usize;
    let at = match part {
        Part::Header => 76,
        Part::Tally => WAL_BLOCK_HEADER_SIZE,
        Part::Entries => WAL_BLOCK_HEADER_SIZE + ends * LogEnd::SIZE + 100,
    };
    sector[at] ^= 1;
    let file = disk.open_direct(&path, OpenMode::Write).expect("there");
    file.write_all_at(&sector, position).expect("there");
    file.sync().expect("there");
}

/// The `disk` kind on a disk that forgets what was not synced.
pub struct OnSimDisk {
    pub disk: SimDisk,
    /// Done to the disk once a provider is open on it.
    pub after_open: fn(&SimDisk),
    pub decay: Decay,
}

/// How a block on a simulated disk goes bad.
pub enum Decay {
    /// A bit of its entries flips.
    Flips,
    /// Its first sector cannot be read. Holds those that cannot now, by group.
    Unreadable(Mutex<BTreeMap<WalSequence, (PathBuf, u64)>>),
}

impl OnSimDisk {
    pub fn new(seed: u64) -> Self {
        Self { disk: SimDisk::new(seed, Trace::default()), after_open: |_| (), decay: Decay::Flips }
    }
}

#[async_trait]
impl Medium for OnSimDisk {
    fn parts(&self, seed: u64) -> Parts {
        simulated::parts(seed, &self.disk)
    }

    async fn open(&self, env: &Env, owner: &WalOwner) -> Result<Box<dyn Provider>, WalError> {
        let provider = DiskProvider::open(env, disk_config("/wal"), owner.clone(), |_, _, _| true).await?;
        (self.after_open)(&self.disk);
        Ok(Box::new(provider))
    }

    fn sealer(&self, env: &Env, by: &WalOwner) -> Box<dyn Sealer> {
        Box::new(DiskSealer::new(env, "/wal".into(), by.cluster.clone()))
    }

    fn crash(&self) {
        self.disk.crash();
    }

    async fn read(&self, contents: SealedContents) -> Result<Vec<(WalSequence, Vec<Bytes>)>, SealError> {
        replay(contents).await
    }
}

#[async_trait]
impl Decays for OnSimDisk {
    async fn decay(&self, of: &WalOwner, group: WalSequence) {
        let folder = Path::new("/wal");
        let Decay::Unreadable(unreadable) = &self.decay else {
            return flip_block(&self.disk, folder, of, group, Part::Entries);
        };
        let mut unreadable = unreadable.lock();
        if unreadable.remove(&group).is_none() {
            let (path, position, _) = find_block(&self.disk, folder, of, group);
            unreadable.insert(group, (path, position));
        }
        self.disk.heal();
        for (path, position) in unreadable.values() {
            self.disk.fail_reads(path, *position..*position + SECTOR_SIZE as u64).expect("there");
        }
    }
}

/// The `disk` kind on this machine's disk and threads. A process can die here, the machine cannot.
pub struct OnRealDisk(pub tempfile::TempDir);

#[async_trait]
impl Medium for OnRealDisk {
    fn parts(&self, seed: u64) -> Parts {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let unused = SimDisk::new(0, Trace::default());
        Parts { disk, threads: Threads::Many, ..simulated::parts(seed, &unused) }
    }

    async fn open(&self, env: &Env, owner: &WalOwner) -> Result<Box<dyn Provider>, WalError> {
        let config = disk_config(self.0.path().join("wal"));
        Ok(Box::new(DiskProvider::open(env, config, owner.clone(), |_, _, _| true).await?))
    }

    fn sealer(&self, env: &Env, by: &WalOwner) -> Box<dyn Sealer> {
        Box::new(DiskSealer::new(env, self.0.path().join("wal"), by.cluster.clone()))
    }

    fn crash(&self) {}

    async fn read(&self, contents: SealedContents) -> Result<Vec<(WalSequence, Vec<Bytes>)>, SealError> {
        replay(contents).await
    }
}

#[async_trait]
impl Decays for OnRealDisk {
    async fn decay(&self, of: &WalOwner, group: WalSequence) {
        flip_block(&RealDisk, &self.0.path().join("wal"), of, group, Part::Entries);
    }
}

/// The `object` kind on a bucket in memory, with a network before it that goes wrong.
pub struct InBucket {
    pub bare: Arc<MemoryStore>,
    pub faulty: Arc<Faulty>,
    pub store: Arc<dyn Store>,
    pub config: ObjectConfig,
}

impl InBucket {
    /// Called within a runtime.
    pub fn new(seed: u64, rates: FaultRates) -> Self {
        let env = Env::new(simulated::parts(seed, &SimDisk::new(seed, Trace::default())));
        let bare = Arc::new(MemoryStore::new(&env));
        let faulty = Arc::new(Faulty::with_seed(&env, Arc::<MemoryStore>::clone(&bare), seed));
        faulty.set_rates(rates);
        let store: Arc<dyn Store> = Arc::new(Retrying::new(&env, Arc::<Faulty>::clone(&faulty)));
        Self { bare, faulty, store, config: ObjectConfig::default() }
    }
}

#[async_trait]
impl Medium for InBucket {
    fn parts(&self, seed: u64) -> Parts {
        simulated::parts(seed, &SimDisk::new(seed, Trace::default()))
    }

    async fn open(&self, env: &Env, owner: &WalOwner) -> Result<Box<dyn Provider>, WalError> {
        Ok(Box::new(ObjectProvider::new(env, Arc::clone(&self.store), owner.clone(), self.config)))
    }

    fn sealer(&self, env: &Env, by: &WalOwner) -> Box<dyn Sealer> {
        Box::new(ObjectSealer::new(env, Arc::clone(&self.store), by.clone(), self.config.groups_in_flight_max))
    }

    /// A bucket does not crash.
    fn crash(&self) {}

    async fn read(&self, contents: SealedContents) -> Result<Vec<(WalSequence, Vec<Bytes>)>, SealError> {
        let SealedContents::Objects(objects) = contents else { panic!("a bucket holds objects") };
        let mut groups = Vec::new();
        for object in objects {
            let key = Key::new(&object.name).expect("a sealer gives keys");
            let bytes = self.bare.get(&key).await?;
            assert_eq!(object.size, bytes.len() as u64, "the commit gets the object's size");
            let tail = bytes.slice(usize::try_from(object.footer_position).expect("fits")..);
            let FooterParse::Whole(footer) = Footer::parse(&tail, object.size)? else {
                panic!("the commit gets the position from which the footer can be read");
            };
            let mut batches = Vec::new();
            for (section, range) in footer.sections.iter().zip(&object.ranges) {
                assert_eq!((section.range, section.bytes), (range.range, range.bytes), "the commit gets the ranges");
                for block in &section.blocks {
                    let at = usize::try_from(block.position).expect("fits");
                    let bytes = bytes.slice(at..at + block.length as usize);
                    batches.extend(split_batches(section.parse_block(&bytes, block)?));
                }
            }
            groups.push((object.sequence, batches));
        }
        Ok(groups)
    }
}

impl InBucket {
    pub fn key(of: &WalOwner, group: WalSequence) -> Key {
        let name = ObjectName::Wal { broker: of.broker, epoch: of.epoch, sequence: group };
        Key::new(&name.to_string()).expect("a name is a key")
    }
}

#[async_trait]
impl Decays for InBucket {
    async fn decay(&self, of: &WalOwner, group: WalSequence) {
        let key = Self::key(of, group);
        let mut bytes = self.bare.get(&key).await.expect("there").to_vec();
        let middle_of_the_footer = bytes.len() - 60;
        bytes[middle_of_the_footer] ^= 1;
        self.bare.put(&key, bytes.into()).await.expect("put");
    }
}

/// The `memory` kind.
#[derive(Default)]
pub struct InMemory(pub MemoryWal);

#[async_trait]
impl Decays for InMemory {
    async fn decay(&self, of: &WalOwner, group: WalSequence) {
        self.0.decay(of.broker, of.epoch, group);
    }
}

#[async_trait]
impl Medium for InMemory {
    fn parts(&self, seed: u64) -> Parts {
        simulated::parts(seed, &SimDisk::new(seed, Trace::default()))
    }

    async fn open(&self, env: &Env, owner: &WalOwner) -> Result<Box<dyn Provider>, WalError> {
        Ok(Box::new(self.0.provider(env, owner)))
    }

    fn sealer(&self, _: &Env, _: &WalOwner) -> Box<dyn Sealer> {
        Box::new(self.0.clone())
    }

    fn crash(&self) {}

    async fn read(&self, contents: SealedContents) -> Result<Vec<(WalSequence, Vec<Bytes>)>, SealError> {
        replay(contents).await
    }
}
