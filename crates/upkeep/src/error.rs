//! What can go wrong here, told by what the caller does about it.

use forebay_metadata::service::ErrorKind;
use forebay_metadata::{LookupError, OpenError, SubmitError};
use forebay_store::{StoreError, StoreErrorKind};

/// A round of upkeep was cut short. Nothing is half done: the next round goes on from what the metadata says.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    #[error("upkeep could not ask the bucket")]
    Store(#[from] StoreError),
    #[error("upkeep could not change the metadata")]
    Metadata(#[from] SubmitError),
    #[error("upkeep could not read the metadata")]
    Lookup(#[from] LookupError),
    #[error("upkeep could not read the metadata for what an earlier process left undone")]
    Resume(#[from] OpenError),
}

impl UpkeepError {
    /// `Stop` where no later round can succeed; all else is tried again.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Metadata(error) if error.kind() == ErrorKind::Stop => ErrorKind::Stop,
            Self::Lookup(error) => error.kind(),
            Self::Metadata(_) | Self::Store(_) | Self::Resume(_) => ErrorKind::Retry,
        }
    }
}

/// A tool could not do its work. What it found before is not a result.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("could not open the metadata in the bucket")]
    Open(#[from] OpenError),
    #[error("could not read the metadata in the bucket")]
    Lookup(#[from] LookupError),
    #[error("the metadata in the bucket belongs to no cluster yet")]
    NoCluster,
    #[error("the metadata in the bucket went on while it was read: a broker is at work there; stop it, or try again")]
    Moved,
    #[error("could not list the bucket")]
    List(#[source] StoreError),
}

impl ToolError {
    /// Whether running the tool again may help without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Open(OpenError::Timeout) | Self::Moved => true,
            Self::Lookup(error) => error.kind() == ErrorKind::Retry,
            Self::List(error) => matches!(error.kind(), StoreErrorKind::DidNotHappen),
            Self::Open(_) | Self::NoCluster => false,
        }
    }
}
