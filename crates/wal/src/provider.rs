//! The seam between the WAL and the medium.

use std::fmt;

use async_trait::async_trait;
use forebay_types::WalSequence;

use crate::{Group, Pacing, WalError, WrittenObject};

/// A kind of WAL (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalKind {
    Disk,
    Object,
    /// Nothing survives: for tests.
    Memory,
}

impl fmt::Display for WalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Object => "object",
            Self::Memory => "memory",
        })
    }
}

/// What became of a group that is durable.
#[derive(Clone, Debug)]
pub struct Written {
    /// The data object that the group is, where it is one.
    pub object: Option<WrittenObject>,
    /// Bytes on the medium.
    pub bytes: u64,
    /// Syncs of the disk, or objects created.
    pub syncs: u64,
}

/// A medium that groups are written to, for one broker epoch.
///
/// Crash: a group whose [`Provider::write`] returned is found by the kind's sealer, with all below it that returned too;
/// one whose write did not return may be found. Retries: a provider repeats what is known not to have happened, or what
/// is the same when repeated; an error from here is final. Cancellation: a dropped write may happen or not.
#[async_trait]
pub trait Provider: Send + Sync {
    fn kind(&self) -> WalKind;

    /// What is lost together with this WAL, for an operator: the disk in this machine, the bucket.
    fn fault_domain(&self) -> String;

    fn pacing(&self) -> Pacing;

    /// The largest batch that fits the medium, in bytes.
    fn entry_bytes_max(&self) -> usize;

    /// About how many bytes can be written before something must be trimmed. Where it was too high, a write waits.
    fn room(&self) -> u64;

    /// Makes a group durable. Called in sequence order, with up to [`Pacing::groups_in_flight_max`] not yet returned.
    /// Waits for a trim where there is no room.
    ///
    /// # Errors
    /// The group is not known to be durable and never will be: the WAL ends.
    async fn write(&self, group: Group) -> Result<Written, WalError>;

    /// Lets go of what only groups up to `through`, inclusive, need: they are in committed data objects.
    fn trim(&self, through: WalSequence);
}
