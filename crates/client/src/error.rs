//! What can go wrong, told by whether it may have taken effect.
//!
//! Invariant: an error whose [`ClientError::outcome`] is [`Outcome::DidNotHappen`] left nothing behind at the broker;
//! only then may the caller do the same thing again without thinking. Everything unsure is `MayHaveHappened`.

use std::sync::Arc;
use std::time::Duration;

use forebay_wire::ErrorCode;

/// Whether a failed operation may have taken effect at the broker all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing took effect; repeating is safe.
    DidNotHappen,
    /// Nobody here can tell; look before repeating.
    MayHaveHappened,
}

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same call may succeed later.
    Retry,
    /// The open transaction is lost: abort it, then go on.
    Abort,
    /// Another producer of the same transactional id has taken over: stop for good.
    Fenced,
    /// The broker refuses this request, or the caller broke the order of calls: change the request.
    Reject,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker answered with an error code.
    #[error("{what}: the broker answers {code}{}", message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused { what: String, code: ErrorCode, message: Option<String> },

    /// A newer instance of the transactional id is at work, or the transaction timed out and its producer was fenced.
    #[error("{what}: this producer is fenced by a newer one of its transactional id ({code})")]
    Fenced { what: String, code: ErrorCode },

    /// Something in the open transaction failed: it cannot be committed any more.
    #[error("{what}: the transaction can only be aborted: {cause}")]
    MustAbort { what: String, cause: Box<ClientError> },

    /// The request never reached a socket.
    #[error("{what}: nothing was sent to {address}: {reason}")]
    NotSent { what: String, address: String, reason: Arc<std::io::Error> },

    /// The request was handed to a socket, whole or in part, and no answer came back.
    #[error("{what}: {address} gave no answer: {reason}")]
    NoAnswer { what: String, address: String, reason: String },

    /// The answer came and cannot be read.
    #[error("{what}: the answer of {address} cannot be read: {reason}")]
    Malformed { what: String, address: String, reason: String },

    /// What was stored is not a valid batch.
    #[error("{what}: {reason}")]
    Corrupt { what: String, reason: String },

    /// The request cannot be written in the version agreed on.
    #[error("{what}: the request cannot be encoded: {reason}")]
    Unencodable { what: String, reason: String },

    /// Broker and client share no version of the API.
    #[error("{what}: {address} speaks versions {theirs} of API key {key}, this client {ours}")]
    NoCommonVersion { what: String, address: String, key: i16, theirs: String, ours: String },

    /// Retries used up the time allowed.
    #[error("gave up after {} ms: {last}", after.as_millis())]
    GaveUp { after: Duration, outcome: Outcome, last: Box<ClientError> },

    /// The calls came in an order that has no meaning, such as a commit without a transaction.
    #[error("{what}: {reason}")]
    Misuse { what: String, reason: &'static str },
}

impl ClientError {
    pub(crate) fn refused(what: impl Into<String>, code: ErrorCode) -> Self {
        Self::Refused { what: what.into(), code, message: None }
    }

    /// [`ClientError::Fenced`] for the codes that say so, else [`ClientError::Refused`].
    pub(crate) fn of_producer(what: impl Into<String>, code: ErrorCode) -> Self {
        match code {
            ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch => Self::Fenced { what: what.into(), code },
            _ => Self::refused(what, code),
        }
    }

    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused { code, .. } => match code {
                // Written or not, the broker could not tell in time; a duplicate was written before.
                ErrorCode::RequestTimedOut
                | ErrorCode::NotEnoughReplicasAfterAppend
                | ErrorCode::DuplicateSequenceNumber
                | ErrorCode::UnknownServerError => Outcome::MayHaveHappened,
                _ => Outcome::DidNotHappen,
            },
            Self::NoAnswer { .. } | Self::Malformed { .. } => Outcome::MayHaveHappened,
            Self::GaveUp { outcome, .. } => *outcome,
            Self::Fenced { .. }
            | Self::MustAbort { .. }
            | Self::NotSent { .. }
            | Self::Corrupt { .. }
            | Self::Unencodable { .. }
            | Self::NoCommonVersion { .. }
            | Self::Misuse { .. } => Outcome::DidNotHappen,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused { code, .. } if is_retriable(*code) => Kind::Retry,
            Self::NotSent { .. } | Self::NoAnswer { .. } | Self::GaveUp { .. } => Kind::Retry,
            Self::MustAbort { .. } => Kind::Abort,
            Self::Fenced { .. } => Kind::Fenced,
            Self::Refused { .. }
            | Self::Malformed { .. }
            | Self::Corrupt { .. }
            | Self::Unencodable { .. }
            | Self::NoCommonVersion { .. }
            | Self::Misuse { .. } => Kind::Reject,
        }
    }

    /// Kafka's code, where the broker gave one; of a wrapped error, the innermost.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } | Self::Fenced { code, .. } => Some(*code),
            Self::MustAbort { cause: inner, .. } | Self::GaveUp { last: inner, .. } => inner.code(),
            _ => None,
        }
    }
}

/// Kafka's retriable codes, and the one that says "the last transaction is still being completed".
pub(crate) fn is_retriable(code: ErrorCode) -> bool {
    code.is_retriable() || code == ErrorCode::ConcurrentTransactions
}

/// The codes after which the leader must be looked up again.
pub(crate) fn is_stale_leader(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::InconsistentTopicId
            | ErrorCode::KafkaStorageError
    )
}
