//! A WAL that survives nothing but its own handle, for the tests of what lies above it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forebay_env::{Env, FailPoint};
use forebay_format::WalEntry;
use forebay_types::{BrokerEpoch, BrokerId, WalSequence};
use parking_lot::Mutex;

use crate::seal::{Replay, ReplaySource};
use crate::{Group, Pacing, Provider, SealError, Sealed, SealedContents, Sealer, WalError, WalKind, WalOwner, Written};

/// The memory that outlives a broker epoch in a test. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryWal(Arc<Mutex<Epochs>>);

type Groups = BTreeMap<WalSequence, Arc<Vec<WalEntry>>>;

#[derive(Debug, Default)]
struct Epochs {
    groups: BTreeMap<(BrokerId, BrokerEpoch), Groups>,
    sealed: BTreeMap<(BrokerId, BrokerEpoch), WalSequence>,
}

impl MemoryWal {
    pub fn provider(&self, env: &Env, owner: &WalOwner) -> MemoryProvider {
        MemoryProvider { env: env.clone(), memory: self.clone(), epoch: (owner.broker, owner.epoch) }
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
        let epochs = &mut *self.memory.0.lock();
        if let Some(end) = epochs.sealed.get(&self.epoch) {
            return Err(WalError::Fenced { name: format!("memory {end}") });
        }
        let bytes = group.entries.iter().map(|e| e.records.len() as u64).sum();
        let before = epochs.groups.entry(self.epoch).or_default().insert(group.sequence, group.entries);
        assert!(before.is_none(), "a sequence is written once");
        Ok(Written { object: None, bytes, syncs: 0 })
    }

    fn trim(&self, through: WalSequence) {
        if let Some(groups) = self.memory.0.lock().groups.get_mut(&self.epoch) {
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
        let epochs = &mut *self.0.lock();
        let groups = epochs.groups.entry((broker, epoch)).or_default().split_off(&start);
        let end = groups.last_key_value().map_or(start, |(last, _)| last.next());
        epochs.sealed.insert((broker, epoch), end);
        epochs.groups.insert((broker, epoch), groups.clone());
        let replay = Replay::new(MemoryReplay(groups));
        Ok(Sealed { end, contents: SealedContents::Entries(replay), corrupt: Vec::new() })
    }
}

struct MemoryReplay(Groups);

#[async_trait]
impl ReplaySource for MemoryReplay {
    async fn next(&mut self) -> Result<Option<(WalSequence, Vec<WalEntry>)>, SealError> {
        Ok(self.0.pop_first().map(|(sequence, entries)| (sequence, entries.to_vec())))
    }
}
