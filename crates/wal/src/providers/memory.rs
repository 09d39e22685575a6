//! A WAL that survives nothing but its own handle, for the tests of what lies above it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forebay_env::{Env, FailPoint};
use forebay_format::{LogEnd, Tally, WalEntry};
use forebay_types::{BrokerEpoch, BrokerId, WalSequence};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::seal::{Ledger, Replay, ReplaySource};
use crate::{
    Group, Pacing, Provider, SealError, Sealed, SealedContents, Sealer, TALLY_BYTES_MAX, WalError, WalKind, WalOwner,
    Written,
};

/// The memory that outlives a broker epoch in a test. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryWal {
    epochs: Arc<Mutex<Epochs>>,
    stalled: watch::Sender<bool>,
}

type Groups = BTreeMap<WalSequence, Stored>;

#[derive(Clone, Debug)]
struct Stored {
    entries: Arc<Vec<WalEntry>>,
    tally: Tally,
    /// Its entries and its tally cannot be read.
    decayed: bool,
}

#[derive(Debug, Default)]
struct Epochs {
    groups: BTreeMap<(BrokerId, BrokerEpoch), Groups>,
    sealed: BTreeMap<(BrokerId, BrokerEpoch), WalSequence>,
}

impl MemoryWal {
    pub fn provider(&self, env: &Env, owner: &WalOwner) -> MemoryProvider {
        MemoryProvider { env: env.clone(), memory: self.clone(), epoch: (owner.broker, owner.epoch) }
    }

    /// Writes wait for as long as this is so, as on a disk that hangs.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Makes a group unreadable, as bytes on a disk become; done once more, it is as it was.
    ///
    /// # Panics
    /// There is no such group.
    pub fn decay(&self, broker: BrokerId, epoch: BrokerEpoch, group: WalSequence) {
        let epochs = &mut *self.epochs.lock();
        let stored = epochs.groups.get_mut(&(broker, epoch)).and_then(|groups| groups.get_mut(&group));
        let stored = stored.unwrap_or_else(|| panic!("there is no group {group}"));
        stored.decayed = !stored.decayed;
    }

    /// Loses a group and all behind it, as a disk does whose syncs were a lie: nothing is left that tells of them.
    pub fn lose(&self, broker: BrokerId, epoch: BrokerEpoch, from: WalSequence) {
        if let Some(groups) = self.epochs.lock().groups.get_mut(&(broker, epoch)) {
            groups.split_off(&from);
        }
    }
}

/// Writes groups into a [`MemoryWal`].
pub struct MemoryProvider {
    env: Env,
    memory: MemoryWal,
    epoch: (BrokerId, BrokerEpoch),
}

#[async_trait]
impl Provider for MemoryProvider {
    fn kind(&self) -> WalKind {
        WalKind::Memory
    }

    fn fault_domain(&self) -> String {
        "this process's memory".to_owned()
    }

    fn pacing(&self) -> Pacing {
        Pacing {
            wait: Duration::ZERO,
            groups_in_flight_max: NonZeroUsize::MIN,
            groups_per_second_max: None,
            group_bytes_max: 1 << 20,
        }
    }

    fn entry_bytes_max(&self) -> usize {
        64 << 20
    }

    fn room(&self) -> u64 {
        u64::MAX
    }

    async fn write(&self, group: Group) -> Result<Written, WalError> {
        self.env.fail_point(FailPoint::WalBeforeWrite);
        let mut stalled = self.memory.stalled.subscribe();
        stalled.wait_for(|stalled| !stalled).await.expect("the sender lives in self");
        let epochs = &mut *self.memory.epochs.lock();
        if let Some(end) = epochs.sealed.get(&self.epoch) {
            return Err(WalError::Fenced { name: format!("memory {end}") });
        }
        let bytes = group.entries.iter().map(|e| e.records.len() as u64).sum();
        let stored = Stored { tally: group.before.tally(TALLY_BYTES_MAX), entries: group.entries, decayed: false };
        let before = epochs.groups.entry(self.epoch).or_default().insert(group.sequence, stored);
        assert!(before.is_none(), "a sequence is written once");
        Ok(Written { object: None, bytes, syncs: 0 })
    }

    fn trim(&self, through: WalSequence) {
        if let Some(groups) = self.memory.epochs.lock().groups.get_mut(&self.epoch) {
            *groups = groups.split_off(&through.next());
        }
    }
}

#[async_trait]
impl Sealer for MemoryWal {
    async fn seal(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        committed: Option<WalSequence>,
    ) -> Result<Sealed, SealError> {
        let start = committed.map_or(WalSequence::ZERO, WalSequence::next);
        let epochs = &mut *self.epochs.lock();
        let groups = epochs.groups.entry((broker, epoch)).or_default();
        let groups: Groups = groups.range(start..).map(|(sequence, stored)| (*sequence, stored.clone())).collect();
        let end = groups.last_key_value().map_or(start, |(last, _)| last.next());
        epochs.sealed.insert((broker, epoch), end);
        let mut ledger = Ledger::default();
        for (sequence, Stored { entries, tally, decayed }) in &groups {
            if *decayed {
                ledger.lost(*sequence, sequence.next(), false, format!("group {sequence} in memory has decayed"));
                continue;
            }
            ledger.tally(tally);
            for WalEntry { partition, log, leader_epoch, summary, .. } in entries.iter() {
                let (partition, log, leader_epoch) = (*partition, *log, *leader_epoch);
                let end = summary.last_offset.next();
                ledger.seen(LogEnd { partition, log, leader_epoch, end }, summary.base_offset);
            }
        }
        let readable = groups.into_iter().filter(|(_, stored)| !stored.decayed);
        let replay = Replay::new(MemoryReplay(readable.map(|(sequence, stored)| (sequence, stored.entries)).collect()));
        Ok(Sealed { end, contents: SealedContents::Entries(replay), corrupt: ledger.finish() })
    }
}

struct MemoryReplay(BTreeMap<WalSequence, Arc<Vec<WalEntry>>>);

#[async_trait]
impl ReplaySource for MemoryReplay {
    async fn next(&mut self) -> Result<Option<(WalSequence, Vec<WalEntry>)>, SealError> {
        Ok(self.0.pop_first().map(|(sequence, entries)| (sequence, entries.to_vec())))
    }
}
