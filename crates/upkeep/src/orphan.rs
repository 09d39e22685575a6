//! Orphans: objects that were made and never named, left by a crash or a zombie. Told by their names alone.
//!
//! Age proves nothing (D12): an object of a life that is not closed may be committed at any moment, however old it is.
//! Once its life is closed no command can name it any more, and if no row does then it is an orphan.
//!
//! Owns: the sweep over the bucket, one for each time lives were closed, some pages at a time. Leaves to others: the
//! proof itself, which `metadata::apply` makes again when the object is condemned; deleting (`collect`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_format::ObjectName;
use forebay_metadata::command::Refusal;
use forebay_metadata::service::Standing;
use forebay_metadata::state::WalEpochState;
use forebay_metadata::{BrokerLife, Command, SubmitError};
use forebay_store::{Key, ObjectMeta, Prefix};
use forebay_types::{LeaderEpoch, Timestamp, TopicPartition};
use futures::future::join_all;

use crate::driver::{COMMANDS_AT_ONCE, UpkeepParts};
use crate::error::UpkeepError;

/// Objects listed at once, as many as S3 gives.
const OBJECTS_PER_PAGE: usize = 1_000;
/// Pages in one round: a bucket of ten million objects takes a thousand rounds, a second apart.
const PAGES_PER_ROUND: usize = 10;

/// What an object's name says about an object that no row names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No command can ever name it.
    Orphan,
    /// Whoever made it may still name it.
    Undecided,
    /// The number at which a closed WAL ends: a fence, kept for ever (D6).
    Fence,
    /// A number below the end of a closed WAL: it was committed once, or could not be read and is kept for a person to see.
    Committed,
    /// Not collected by its name.
    Journal,
    /// A life that the metadata never knew.
    Stranger,
}

/// Whose proof an object waits for, and what is known of it.
pub(crate) fn origin(
    name: ObjectName,
    state_of: impl Fn(BrokerLife) -> Option<WalEpochState>,
    leader_epoch_of: impl Fn(TopicPartition) -> Option<Option<LeaderEpoch>>,
) -> Origin {
    match name {
        ObjectName::Data { broker, epoch, .. } | ObjectName::ProducerSnapshot { broker, epoch, .. } => {
            match state_of(BrokerLife { broker, epoch }) {
                Some(WalEpochState::Closed { .. }) => Origin::Orphan,
                Some(WalEpochState::Open | WalEpochState::Sealed { .. }) => Origin::Undecided,
                None => Origin::Stranger,
            }
        }
        ObjectName::Wal { broker, epoch, sequence } => match state_of(BrokerLife { broker, epoch }) {
            Some(WalEpochState::Closed { end }) if sequence > end => Origin::Orphan,
            Some(WalEpochState::Closed { end }) if sequence == end => Origin::Fence,
            Some(WalEpochState::Closed { .. }) => Origin::Committed,
            Some(WalEpochState::Open | WalEpochState::Sealed { .. }) => Origin::Undecided,
            None => Origin::Stranger,
        },
        ObjectName::CoordinatorSnapshot { partition, leader_epoch, .. } => match leader_epoch_of(partition) {
            None => Origin::Orphan,
            Some(Some(current)) if leader_epoch < current => Origin::Orphan,
            Some(_) => Origin::Undecided,
        },
        ObjectName::Journal { .. } => Origin::Journal,
    }
}

/// The life that an object's name carries.
fn life_of(name: ObjectName) -> Option<BrokerLife> {
    match name {
        ObjectName::Data { broker, epoch, .. }
        | ObjectName::Wal { broker, epoch, .. }
        | ObjectName::ProducerSnapshot { broker, epoch, .. } => Some(BrokerLife { broker, epoch }),
        ObjectName::CoordinatorSnapshot { .. } | ObjectName::Journal { .. } => None,
    }
}

/// What is remembered from one round to the next. A new process sweeps once from the beginning.
#[derive(Default)]
pub(crate) struct Orphans {
    /// Closed lives whose objects were all looked at after they were closed.
    swept: BTreeSet<BrokerLife>,
    under_way: Option<Sweep>,
}

/// One walk over the bucket.
struct Sweep {
    /// Lives that were closed when it began and not swept before.
    lives: BTreeSet<BrokerLife>,
    after: Option<Key>,
}

impl Orphans {
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Looks at some of the bucket, if there is reason to; says how many orphans were condemned.
    pub async fn run(&mut self, parts: &UpkeepParts, now: Timestamp) -> Result<usize, UpkeepError> {
        if self.under_way.is_none() {
            self.under_way = self.begin(parts);
        }
        let mut condemned = 0;
        for _ in 0..PAGES_PER_ROUND {
            let Some(sweep) = &mut self.under_way else { break };
            let (some, last) = sweep.page(parts, now).await?;
            condemned += some;
            if last {
                self.swept.append(&mut sweep.lives);
                self.under_way = None;
            }
        }
        Ok(condemned)
    }

    /// A new sweep, where lives were closed since the last one began.
    fn begin(&self, parts: &UpkeepParts) -> Option<Sweep> {
        let is_closed = |state: WalEpochState| matches!(state, WalEpochState::Closed { .. });
        let closed = parts.metadata.wal_epochs().into_iter().filter(|(_, epoch)| is_closed(epoch.state));
        let lives: BTreeSet<BrokerLife> =
            closed.map(|(life, _)| life).filter(|life| !self.swept.contains(life)).collect();
        (!lives.is_empty()).then_some(Sweep { lives, after: None })
    }
}

/// The database's folder sorts behind all names that begin with two digits of a hash.
pub(crate) fn is_database(key: &Key) -> bool {
    key.as_str().split('/').next() == Some(ObjectName::METADATA_FOLDER)
}

impl Sweep {
    /// The next objects of the bucket: how many were condemned, and whether they were the last.
    async fn page(&mut self, parts: &UpkeepParts, now: Timestamp) -> Result<(usize, bool), UpkeepError> {
        let page = parts.store.list(&Prefix::all(), self.after.as_ref(), OBJECTS_PER_PAGE).await?;
        if let Some(age) = parts.config.sabotage_collect_by_age {
            delete_by_age(parts, &page, age, now).await?;
        }
        let suspects = self.suspects(parts, &page);
        let mut condemned = 0;
        for some in suspects.chunks(COMMANDS_AT_ONCE) {
            for one in join_all(some.iter().map(|meta| condemn_unknown(parts, meta, now))).await {
                condemned += usize::from(one?);
            }
        }
        let last = page.len() < OBJECTS_PER_PAGE || page.last().is_some_and(|meta| is_database(&meta.key));
        self.after = page.into_iter().next_back().map(|meta| meta.key).or(self.after.take());
        Ok((condemned, last))
    }

    /// The objects that the metadata should be asked about. Exactly where a WAL ends it knows itself.
    fn suspects<'a>(&self, parts: &UpkeepParts, page: &'a [ObjectMeta]) -> Vec<&'a ObjectMeta> {
        let states: BTreeMap<BrokerLife, WalEpochState> =
            parts.metadata.wal_epochs().into_iter().map(|(life, epoch)| (life, epoch.state)).collect();
        let topics = parts.metadata.topics();
        let leader_epoch_of = |id: TopicPartition| {
            let topic = topics.by_id(id.topic)?;
            topic.partition(id.partition).map(|row| row.leader_epoch())
        };
        let is_suspect = |meta: &&ObjectMeta| {
            let Ok(name) = meta.key.as_str().parse::<ObjectName>() else { return false };
            life_of(name).is_none_or(|life| self.lives.contains(&life))
                && origin(name, |life| states.get(&life).copied(), leader_epoch_of) == Origin::Orphan
        };
        page.iter().filter(is_suspect).collect()
    }
}

/// See [`crate::UpkeepConfig::sabotage_collect_by_age`].
async fn delete_by_age(
    parts: &UpkeepParts,
    page: &[ObjectMeta],
    age: Duration,
    now: Timestamp,
) -> Result<(), UpkeepError> {
    for meta in page {
        let is_data = matches!(meta.key.as_str().parse(), Ok(ObjectName::Data { .. } | ObjectName::Wal { .. }));
        if is_data && u128::from(now.millis_since(meta.modified).unsigned_abs()) > age.as_millis() {
            parts.store.delete(&meta.key).await?;
        }
    }
    Ok(())
}

/// Condemns an object if no row names it.
async fn condemn_unknown(parts: &UpkeepParts, meta: &ObjectMeta, now: Timestamp) -> Result<bool, UpkeepError> {
    let object = meta.key.as_str();
    if parts.metadata.standing(object).await? != Standing::Unknown {
        return Ok(false);
    }
    let command = Command::CondemnObject { object: object.to_owned(), size: meta.size, now };
    match parts.metadata.submit(command).await {
        Ok(_) => {
            tracing::info!(object, size = meta.size, "an object that was never committed is condemned");
            Ok(true)
        }
        Err(SubmitError::Refused(refusal @ (Refusal::ObjectReachable { .. } | Refusal::NotAnOrphan { .. }))) => {
            tracing::debug!(object, %refusal, "not an orphan");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use forebay_types::{BrokerEpoch, BrokerId, Offset, PartitionIndex, TopicId, WalSequence};

    use super::*;

    /// Broker 0: epoch 1 is closed at 5, epoch 2 is sealed, epoch 3 is open. A partition is in leader epoch 7.
    fn told(name: ObjectName) -> Origin {
        let state_of = |life: BrokerLife| match (life.broker.get(), life.epoch.get()) {
            (0, 1) => Some(WalEpochState::Closed { end: WalSequence::new(5) }),
            (0, 2) => Some(WalEpochState::Sealed { by: life }),
            (0, 3) => Some(WalEpochState::Open),
            _ => None,
        };
        let leader_epoch_of =
            |id: TopicPartition| (id == partition(0)).then(|| Some(LeaderEpoch::new(7).expect("not negative")));
        origin(name, state_of, leader_epoch_of)
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition {
            topic: TopicId::from_random([3; 16]),
            partition: PartitionIndex::new(index).expect("not negative"),
        }
    }

    fn epoch(raw: u64) -> BrokerEpoch {
        BrokerEpoch::new(raw).expect("not negative")
    }

    #[test]
    fn only_a_closed_epoch_makes_an_orphan() {
        let broker = BrokerId::ZERO;
        let data = |e| told(ObjectName::Data { broker, epoch: epoch(e), sequence: WalSequence::new(99) });
        assert_eq!([data(1), data(2), data(3)], [Origin::Orphan, Origin::Undecided, Origin::Undecided]);
        assert_eq!(data(4), Origin::Stranger, "a life that never was proves nothing");
        let snapshot = |e| told(ObjectName::ProducerSnapshot { broker, epoch: epoch(e), number: 0 });
        assert_eq!([snapshot(1), snapshot(3)], [Origin::Orphan, Origin::Undecided]);
        assert_eq!(told(ObjectName::Journal { number: 1 }), Origin::Journal);
    }

    #[test]
    fn a_closed_wal_keeps_its_fence_and_what_lies_below() {
        let wal =
            |e, n| told(ObjectName::Wal { broker: BrokerId::ZERO, epoch: epoch(e), sequence: WalSequence::new(n) });
        assert_eq!([wal(1, 4), wal(1, 5), wal(1, 6)], [Origin::Committed, Origin::Fence, Origin::Orphan]);
        assert_eq!([wal(2, 1_000), wal(3, 1_000)], [Origin::Undecided; 2], "before the end is known none lies past it");
    }

    #[test]
    fn a_coordinators_snapshot_is_fenced_by_its_leader_epoch() {
        let snapshot = |index, leader_epoch| {
            let leader_epoch = LeaderEpoch::new(leader_epoch).expect("not negative");
            told(ObjectName::CoordinatorSnapshot { partition: partition(index), leader_epoch, at: Offset::ZERO })
        };
        assert_eq!([snapshot(0, 6), snapshot(0, 7)], [Origin::Orphan, Origin::Undecided]);
        assert_eq!(snapshot(1, 7), Origin::Orphan, "its partition is gone");
    }
}
