//! Why a WAL ended, and why one could not be sealed.

use std::io;
use std::sync::Arc;

use forebay_format::FormatError;
use forebay_store::StoreError;
use forebay_types::{BrokerEpoch, BrokerId, ByteSize, ClusterId, WalSequence};

/// What a caller does about the end of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalErrorKind {
    /// It was asked to stop. Nothing was lost; appends since then never become durable.
    Stopped,
    /// Another broker epoch has sealed this one: stop serving these partitions for good.
    Fenced,
    /// The medium failed: end this broker epoch, drop its state, and open again as a new one.
    Failed,
}

/// Why a WAL accepts nothing more. Shared by all who waited, so cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    #[error("the WAL was stopped")]
    Stopped,
    #[error("the WAL's task ended before it was asked to stop")]
    TaskGone,
    #[error("this WAL was sealed by another broker epoch: a fence is at {name}")]
    Fenced { name: String },
    #[error("the WAL number {name} is taken by an object that this broker epoch did not write")]
    Foreign { name: String },
    #[error("could not {what} of the WAL segment {segment}")]
    Disk { what: &'static str, segment: String, source: Arc<io::Error> },
    #[error("could not prepare the WAL in {folder}")]
    Prepare { folder: String, source: Arc<io::Error> },
    #[error(
        "the WAL segment {segment} belongs to broker {broker} epoch {epoch} of cluster {cluster}, which is not closed"
    )]
    NotClosed { segment: String, cluster: ClusterId, broker: BrokerId, epoch: BrokerEpoch },
    #[error("a WAL of {total} in segments of {segment} is too small: it needs two segments of {least} or more")]
    Small { total: ByteSize, segment: ByteSize, least: ByteSize },
    #[error(
        "the disk is too full for another segment of the WAL: {folder} needs {needed} for it; free some space, or set \
         forebay.wal.segment.bytes lower"
    )]
    DiskFull { folder: String, needed: ByteSize, source: Arc<io::Error> },
}

impl WalError {
    pub fn kind(&self) -> WalErrorKind {
        match self {
            Self::Stopped => WalErrorKind::Stopped,
            Self::Fenced { .. } => WalErrorKind::Fenced,
            Self::TaskGone
            | Self::Foreign { .. }
            | Self::Disk { .. }
            | Self::Prepare { .. }
            | Self::NotClosed { .. }
            | Self::Small { .. }
            | Self::DiskFull { .. } => WalErrorKind::Failed,
        }
    }
}

/// The WAL has ended: what was waited for is not durable as far as this broker epoch will ever know.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the WAL has ended")]
pub struct WalEnded {
    #[source]
    pub reason: Arc<WalError>,
}

impl WalEnded {
    pub fn kind(&self) -> WalErrorKind {
        self.reason.kind()
    }
}

/// What a caller does about a failed seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealErrorKind {
    /// The medium did not answer: seal again, which goes on where this stopped.
    Retry,
    /// What is there cannot be read by this build, or contradicts itself: a person decides.
    Report,
}

/// Why a WAL epoch could not be sealed or replayed. Nothing is lost by trying again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SealError {
    #[error("could not {what} {subject} while sealing")]
    Disk { what: &'static str, subject: String, source: Arc<io::Error> },
    #[error("could not reach the bucket while sealing")]
    Store(#[from] StoreError),
    #[error("could not read WAL data while sealing")]
    Format(#[from] FormatError),
    #[error("the WAL block {sequence} in {segment} was readable when the epoch was sealed and no longer is")]
    Changed { sequence: WalSequence, segment: String },
    #[error("the WAL object {name} holds {found}, which its name contradicts")]
    Misplaced { name: String, found: String },
    #[error("the WAL number {name} could be neither created nor read")]
    Unsettled { name: String },
}

impl SealError {
    pub fn kind(&self) -> SealErrorKind {
        match self {
            Self::Store(error) if error.is_transient() => SealErrorKind::Retry,
            // Sealed again, a block that went bad since is corruption.
            Self::Disk { .. } | Self::Unsettled { .. } | Self::Changed { .. } => SealErrorKind::Retry,
            Self::Store(_) | Self::Format(_) | Self::Misplaced { .. } => SealErrorKind::Report,
        }
    }
}
