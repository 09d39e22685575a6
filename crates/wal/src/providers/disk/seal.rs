//! Sealing a WAL on a local disk: find every block of the epoch, judge what is missing, replay the rest.
//!
//! The process lock on the data folder is the fence: whoever seals here is the only process that writes here. So
//! sealing reads, makes durable what it read, and changes nothing; doing it again gives the same.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_env::{Env, SECTOR_SIZE};
use forebay_format::{BlockClass, LogEnd, SegmentHead, WalEntry, WalExpect};
use forebay_types::{BrokerEpoch, BrokerId, ClusterId, WalSequence};
use parking_lot::Mutex;

use super::files::Folder;
use super::scan::{self, Bad, Window};
use super::sectors::Sectors;
use super::verdict::judge;
use crate::seal::{Ledger, Replay, ReplaySource};
use crate::{CorruptRange, SealError, Sealed, SealedContents, Sealer};

/// Bytes of batches that a replay reads ahead in one go.
const REPLAY_AHEAD_BYTES: usize = 4 << 20;

/// Seals epochs whose segments lie in one folder.
pub struct DiskSealer {
    env: Env,
    folder: Arc<Folder>,
    cluster: ClusterId,
}

impl DiskSealer {
    pub fn new(env: &Env, folder: PathBuf, cluster: ClusterId) -> Self {
        Self { env: env.clone(), folder: Arc::new(Folder::new(env.disk(), folder)), cluster }
    }
}

#[async_trait]
impl Sealer for DiskSealer {
    async fn seal(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        committed: Option<WalSequence>,
    ) -> Result<Sealed, SealError> {
        let (folder, cluster) = (Arc::clone(&self.folder), self.cluster.clone());
        let start = committed.map_or(WalSequence::ZERO, WalSequence::next);
        let whole = self
            .env
            .blocking("wal-seal", move || {
                let mut blocks = Blocks {
                    broker,
                    epoch,
                    segments: segments_of(&folder, &cluster, broker, epoch)?,
                    at: BTreeMap::new(),
                };
                blocks.skip_committed(start)?;
                blocks.seal(start)
            })
            .await?;
        let (end, blocks, corrupt) = whole;
        let queue = blocks.at.range(start..).map(|(sequence, at)| (*sequence, *at)).collect();
        let state = ReplayState { blocks, queue, window: None, ready: VecDeque::new() };
        let replay = DiskReplay { env: self.env.clone(), state: Arc::new(Mutex::new(state)) };
        Ok(Sealed { end, contents: SealedContents::Entries(Replay::new(replay)), corrupt })
    }
}

/// One use of a segment by the epoch.
struct Segment {
    sectors: Arc<Sectors>,
    nonce: u64,
    /// `None` where the segment's header is unreadable.
    number: Option<u64>,
}

impl Segment {
    fn name(&self) -> &str {
        &self.sectors.file().name
    }
}

/// Where a block is.
#[derive(Clone, Copy)]
struct At {
    segment: usize,
    position: u64,
}

struct Blocks {
    broker: BrokerId,
    epoch: BrokerEpoch,
    segments: Vec<Segment>,
    at: BTreeMap<WalSequence, At>,
}

fn disk_error(what: &'static str, subject: &str) -> impl Fn(io::Error) -> SealError {
    let subject = subject.to_owned();
    move |source| SealError::Disk { what, subject: subject.clone(), source: Arc::new(source) }
}

/// The segments that the epoch wrote last, by their numbers.
fn segments_of(
    folder: &Folder,
    cluster: &ClusterId,
    broker: BrokerId,
    epoch: BrokerEpoch,
) -> Result<Vec<Segment>, SealError> {
    let mut segments = Vec::new();
    for slot in folder.slots().map_err(disk_error("list the segments of", "the WAL"))? {
        let name = folder.name_of(slot);
        let file = folder.open(slot).map_err(disk_error("open", &name))?;
        let sectors = Arc::new(Sectors::new(file));
        match sectors.head().map_err(disk_error("read", &name))? {
            Ok(None) => {}
            Ok(Some(SegmentHead { cluster: c, broker: b, broker_epoch: e, segment, nonce, .. })) => {
                if (&c, b, e) == (cluster, broker, epoch) {
                    segments.push(Segment { sectors, nonce, number: Some(segment) });
                }
            }
            Err(error) => {
                // A header is one sector, so it cannot be torn: it decayed. Its first block knows the rest.
                let head = scan::first_head(&mut Window::new(&sectors), broker, epoch);
                let head = head.map_err(disk_error("read", &name))?;
                let (found, error) = (head.is_some(), sectors.what_is_wrong(error, SECTOR_SIZE));
                tracing::error!(
                    error,
                    found,
                    "a WAL segment's header is unreadable; its blocks are looked for without"
                );
                if let Some(head) = head.filter(|h| (h.broker, h.broker_epoch) == (broker, epoch)) {
                    segments.push(Segment { sectors, nonce: head.nonce, number: None });
                }
            }
        }
    }
    segments.sort_by_key(|s| s.number);
    Ok(segments)
}

impl Blocks {
    fn expect(&self, segment: usize, sequence: WalSequence) -> WalExpect {
        let nonce = self.segments[segment].nonce;
        WalExpect { broker: self.broker, broker_epoch: self.epoch, nonce, sequence }
    }

    /// Leaves out the segments whose successor begins at or below `start`: all they hold is committed, and a start after
    /// long uptime must not read the whole WAL.
    fn skip_committed(&mut self, start: WalSequence) -> Result<(), SealError> {
        let mut firsts = Vec::new();
        for segment in &self.segments {
            let head = scan::first_head(&mut Window::new(&segment.sectors), self.broker, self.epoch)
                .map_err(disk_error("read", segment.name()))?;
            firsts.push(head.filter(|h| h.nonce == segment.nonce).map(|h| h.sequence));
        }
        let numbers: Vec<_> = self.segments.iter().map(|s| s.number).collect();
        let mut index = 0;
        self.segments.retain(|_| {
            let follows = |a: Option<u64>, b: Option<u64>| a.is_some_and(|a| b == Some(a + 1));
            let next = index + 1;
            let skip = next < numbers.len()
                && follows(numbers[index], numbers[next])
                && firsts[next].is_some_and(|first| first <= start);
            index += 1;
            !skip
        });
        Ok(())
    }

    /// Finds the blocks and judges what is missing.
    fn seal(mut self, start: WalSequence) -> Result<(WalSequence, Self, Vec<CorruptRange>), SealError> {
        let mut bad = Vec::new();
        let mut torn = BTreeMap::new();
        let mut acknowledged = WalSequence::ZERO;
        for index in 0..self.segments.len() {
            let segment = &self.segments[index];
            // What the dead process wrote and did not sync is read here; after this it cannot vanish any more.
            segment.sectors.file().handle.sync().map_err(disk_error("sync", segment.name()))?;
            let found = scan::scan(&mut Window::new(&segment.sectors), self.expect(index, WalSequence::ZERO));
            let found = found.map_err(disk_error("read", segment.name()))?;
            acknowledged = acknowledged.max(found.acknowledged);
            for bad in &found.bad {
                torn.extend(bad.header_at.map(|position| (bad.sequence, At { segment: index, position })));
            }
            bad.extend(found.bad);
            for block in found.blocks {
                self.at.entry(block.sequence).or_insert(At { segment: index, position: block.position });
            }
        }
        let verdict = judge(self.at.range(start..).map(|(sequence, _)| *sequence), start, acknowledged);
        self.at.split_off(&verdict.end);
        torn.retain(|sequence, _| !self.at.contains_key(sequence));

        let mut ledger = Ledger::default();
        for sequence in torn.range(..start).map(|(sequence, _)| *sequence) {
            lose(&mut ledger, &bad, (sequence, sequence.next()), true);
        }
        if !verdict.lost.is_empty() {
            self.tell(start, verdict.end, &torn, &bad, &mut ledger)?;
        }
        Ok((verdict.end, self, ledger.finish()))
    }

    /// Tells the ledger of every group from `start` up to `end`, readable or lost, in order. Of one that is lost, and of
    /// one that was cut off right behind the end, the tally may still be there.
    fn tell(
        &self,
        start: WalSequence,
        end: WalSequence,
        torn: &BTreeMap<WalSequence, At>,
        bad: &[Bad],
        ledger: &mut Ledger,
    ) -> Result<(), SealError> {
        let readable = self.at.range(start..).map(|(sequence, at)| (*sequence, *at, true));
        let torn = torn.range(start..=end).map(|(sequence, at)| (*sequence, *at, false));
        let mut blocks: Vec<(WalSequence, At, bool)> = readable.chain(torn).collect();
        blocks.sort_unstable_by_key(|(sequence, ..)| *sequence);
        let mut window = None;
        // The first group that the ledger was not told of.
        let mut next = start;
        for (sequence, at, is_readable) in blocks {
            let segment = &self.segments[at.segment];
            let (window, class) = self.classify(&mut window, sequence, at)?;
            let (BlockClass::Valid(block) | BlockClass::Torn { block, .. }) = class else {
                return Err(SealError::Changed { sequence, segment: segment.name().to_owned() });
            };
            let bytes = window.bytes_of(at.position, &block).map_err(disk_error("read", segment.name()))?;
            let tally = block.tally(&bytes).map_err(|error| error.in_object(segment.name()));
            if next < sequence && (is_readable || tally.is_ok()) {
                lose(ledger, bad, (next, sequence), false);
                next = sequence;
            }
            match tally {
                Ok(tally) => ledger.tally(&tally),
                Err(error) => tracing::error!(%error, "what the WAL blocks before held cannot be told from this one"),
            }
            if is_readable {
                for entry in block.entries(&bytes).map_err(|error| error.in_object(segment.name()))? {
                    let WalEntry { partition, log, leader_epoch, summary, .. } = entry;
                    let end = summary.last_offset.next();
                    ledger.seen(LogEnd { partition, log, leader_epoch, end }, summary.base_offset);
                }
                next = sequence.next();
            }
        }
        if next < end {
            lose(ledger, bad, (next, end), false);
        }
        Ok(())
    }

    /// Says what is where a block was found before.
    fn classify<'a>(
        &self,
        window: &'a mut Option<(usize, Window)>,
        sequence: WalSequence,
        at: At,
    ) -> Result<(&'a mut Window, BlockClass), SealError> {
        let segment = &self.segments[at.segment];
        if window.as_ref().is_none_or(|(of, _)| *of != at.segment) {
            *window = Some((at.segment, Window::new(&segment.sectors)));
        }
        let (_, window) = window.as_mut().expect("just made sure");
        let class = window.classify(at.position, &self.expect(at.segment, sequence));
        Ok((window, class.map_err(disk_error("read", segment.name()))?))
    }

    /// Reads a block that was found readable.
    fn read(
        &self,
        window: &mut Option<(usize, Window)>,
        sequence: WalSequence,
        at: At,
    ) -> Result<Vec<WalEntry>, SealError> {
        let segment = &self.segments[at.segment];
        let (window, class) = self.classify(window, sequence, at)?;
        let BlockClass::Valid(block) = class else {
            return Err(SealError::Changed { sequence, segment: segment.name().to_owned() });
        };
        let bytes = window.bytes_of(at.position, &block).map_err(disk_error("read", segment.name()))?;
        Ok(block.entries(&bytes).map_err(|error| error.in_object(segment.name()))?)
    }
}

/// Groups, the second number exclusive, were acknowledged and cannot be read.
fn lose(ledger: &mut Ledger, bad: &[Bad], (first, end): (WalSequence, WalSequence), committed: bool) {
    let what = bad.iter().find(|b| first <= b.sequence && b.sequence < end);
    let what = what.map_or("there is no block of that number".to_owned(), |b| b.what.clone());
    tracing::error!(%first, %end, committed, what, "acknowledged WAL blocks are unreadable");
    ledger.lost(first, end, committed, what);
}

struct DiskReplay {
    env: Env,
    state: Arc<Mutex<ReplayState>>,
}

struct ReplayState {
    blocks: Blocks,
    /// Not yet read.
    queue: VecDeque<(WalSequence, At)>,
    window: Option<(usize, Window)>,
    /// Read ahead.
    ready: VecDeque<(WalSequence, Vec<WalEntry>)>,
}

impl ReplayState {
    fn fill(&mut self) -> Result<(), SealError> {
        let mut bytes = 0;
        while bytes < REPLAY_AHEAD_BYTES
            && let Some((sequence, at)) = self.queue.front().copied()
        {
            let entries = self.blocks.read(&mut self.window, sequence, at)?;
            bytes += entries.iter().map(|e| e.records.len()).sum::<usize>();
            self.ready.push_back((sequence, entries));
            self.queue.pop_front();
        }
        Ok(())
    }
}

#[async_trait]
impl ReplaySource for DiskReplay {
    async fn next(&mut self) -> Result<Option<(WalSequence, Vec<WalEntry>)>, SealError> {
        let ready = self.state.lock().ready.pop_front();
        if ready.is_some() {
            return Ok(ready);
        }
        let state = Arc::clone(&self.state);
        self.env.blocking("wal-replay", move || state.lock().fill()).await?;
        Ok(self.state.lock().ready.pop_front())
    }
}
