//! Named points at which a crash is interesting: the demo kills the broker at some, the simulation crashes it at all.

use std::fmt;
use std::str::FromStr;

/// Every point, in the order a record passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailPoint {
    /// A WAL group is encoded, nothing of it is written.
    WalBeforeWrite,
    /// A WAL group is written but not synced.
    WalBeforeSync,
    /// A WAL group is durable, nobody was told.
    DurableNotAcked,
    /// Records were acknowledged, their data object is not yet written (`disk` WAL).
    AckedNotUploaded,
    /// A data object is in the bucket, its commit is not in the metadata.
    UploadedNotCommitted,
    /// An upload is committed, the WAL behind it is not yet trimmed.
    CommittedNotTrimmed,
    /// A transaction's Prepare record is durable, no marker is written.
    PreparedNotMarked,
}

impl FailPoint {
    pub const ALL: [Self; 7] = [
        Self::WalBeforeWrite,
        Self::WalBeforeSync,
        Self::DurableNotAcked,
        Self::AckedNotUploaded,
        Self::UploadedNotCommitted,
        Self::CommittedNotTrimmed,
        Self::PreparedNotMarked,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::WalBeforeWrite => "wal-before-write",
            Self::WalBeforeSync => "wal-before-sync",
            Self::DurableNotAcked => "durable-not-acked",
            Self::AckedNotUploaded => "acked-not-uploaded",
            Self::UploadedNotCommitted => "uploaded-not-committed",
            Self::CommittedNotTrimmed => "committed-not-trimmed",
            Self::PreparedNotMarked => "prepared-not-marked",
        }
    }
}

impl fmt::Display for FailPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no fail point has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no fail point is named {0:?}; the names are {names}", names = FailPoint::ALL.map(FailPoint::name).join(", "))]
pub struct UnknownFailPoint(String);

impl FromStr for FailPoint {
    type Err = UnknownFailPoint;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| UnknownFailPoint(name.to_owned()))
    }
}

/// What happens at a fail point.
pub trait FailPoints: Send + Sync {
    /// Returns, or ends the process (or the simulated node) and never returns.
    fn hit(&self, point: FailPoint);
}

/// Nothing armed: every point is passed.
pub struct NoFailPoints;

impl FailPoints for NoFailPoints {
    fn hit(&self, _: FailPoint) {}
}
