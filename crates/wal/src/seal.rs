//! The end of an earlier epoch: where it ends for good, and what it left that is not yet in committed data objects (D6).

use async_trait::async_trait;
use forebay_format::WalEntry;
use forebay_types::{BrokerEpoch, BrokerId, WalSequence};

use crate::{SealError, WrittenObject};

mod corruption;

pub(crate) use corruption::Ledger;
pub use corruption::{CorruptRange, OffsetGap};

/// Seals a WAL epoch. There is one for each kind of WAL.
///
/// Idempotence: sealing the same epoch again, by the same or another sealer, and after a crash at any step, gives the
/// same end. The epoch must be marked as sealed in the metadata before, so that no commit of the old owner counts.
#[async_trait]
pub trait Sealer: Send + Sync {
    /// Ends `epoch` of `broker` and gives what lies behind `committed`, the last sequence whose data object is
    /// committed; `None` where none is.
    ///
    /// # Errors
    /// See [`SealError::kind`].
    async fn seal(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        committed: Option<WalSequence>,
    ) -> Result<Sealed, SealError>;
}

/// A sealed epoch.
#[derive(Debug)]
pub struct Sealed {
    /// Exclusive: nothing at or above this was acknowledged, and nothing ever will be written there.
    pub end: WalSequence,
    pub contents: SealedContents,
    /// Groups that were acknowledged and cannot be read, in order.
    pub corrupt: Vec<CorruptRange>,
}

/// What lies from behind `committed` up to the end, in order.
#[derive(Debug)]
pub enum SealedContents {
    /// Entries to be written into data objects.
    Entries(Replay),
    /// Data objects that only lack their commit.
    Objects(Vec<WrittenObject>),
}

/// The groups of a sealed epoch one by one, read as they are asked for.
pub struct Replay(Box<dyn ReplaySource>);

/// Where replayed groups come from.
#[async_trait]
pub(crate) trait ReplaySource: Send {
    async fn next(&mut self) -> Result<Option<(WalSequence, Vec<WalEntry>)>, SealError>;
}

impl Replay {
    pub(crate) fn new(source: impl ReplaySource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// The next readable group, or `None` after the last.
    ///
    /// # Errors
    /// A group that was readable when the epoch was sealed no longer is.
    pub async fn next(&mut self) -> Result<Option<(WalSequence, Vec<WalEntry>)>, SealError> {
        self.0.next().await
    }

    /// Everything that is left, for callers that know it to be little.
    ///
    /// # Errors
    /// As [`Replay::next`].
    pub async fn collect(mut self) -> Result<Vec<(WalSequence, Vec<WalEntry>)>, SealError> {
        let mut all = Vec::new();
        while let Some(group) = self.next().await? {
            all.push(group);
        }
        Ok(all)
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replay")
    }
}
