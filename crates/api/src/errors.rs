//! Kafka's error code for every error below, each type in one exhaustive match: a new error does not compile until
//! somebody has decided what a client does about it.
//!
//! Newer codes go to those request versions only that know them (semantic 36); what a version lacks is told by the code
//! that it had before. `UNKNOWN_SERVER_ERROR` is never the answer to something a client can retry: it is fatal in Kafka's
//! Java producer.

pub(crate) mod coordinator;

use forebay_log::{ColdError, LogError, ProducerError, RecordFault, Unavailable, ValidateError};
use forebay_metadata::SubmitError;
use forebay_metadata::command::Refusal;
use forebay_metadata::config::ConfigError;
use forebay_metadata::service::LookupError;
use forebay_types::LeaderEpoch;
use forebay_wire::{BatchError, ErrorCode};

/// The first Produce version that knows TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_PRODUCE_VERSION: i16 = 11;

/// The first Produce version that has INVALID_RECORD with the records' errors (KIP-467).
const RECORD_ERRORS_PRODUCE_VERSION: i16 = 8;

/// The first Fetch version that knows KAFKA_STORAGE_ERROR.
const STORAGE_ERROR_FETCH_VERSION: i16 = 6;

pub(crate) fn unavailable(why: Unavailable) -> ErrorCode {
    match why {
        Unavailable::Unknown => ErrorCode::UnknownTopicOrPartition,
        Unavailable::NoLeader => ErrorCode::NotLeaderOrFollower,
    }
}

pub(crate) fn log(error: &LogError) -> ErrorCode {
    match error {
        LogError::Ended(_) => ErrorCode::NotLeaderOrFollower,
        LogError::Producer(error) => producer(error),
        LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        LogError::Cold(error) => {
            tracing::error!(error = error as &dyn std::error::Error, "history could not be read");
            cold(error)
        }
        LogError::Full(_) => ErrorCode::InvalidRecord,
    }
}

fn cold(error: &ColdError) -> ErrorCode {
    match error {
        // Retriable in every client: KAFKA_STORAGE_ERROR makes it ask again after a metadata refresh.
        ColdError::Store(_) | ColdError::NoExtent { .. } => ErrorCode::KafkaStorageError,
        ColdError::Metadata(error) => lookup(error),
        ColdError::Corrupt(_) | ColdError::Lost { .. } | ColdError::NoSnapshot { .. } => ErrorCode::CorruptMessage,
    }
}

fn lookup(error: &LookupError) -> ErrorCode {
    match error {
        LookupError::Unavailable | LookupError::Database(_) => ErrorCode::KafkaStorageError,
        LookupError::Corrupt(_) => ErrorCode::CorruptMessage,
    }
}

fn producer(error: &ProducerError) -> ErrorCode {
    match error {
        ProducerError::InvalidEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        ProducerError::OutOfOrderSequence { .. }
        | ProducerError::NewEpochSequence { .. }
        | ProducerError::NotTheFirst { .. } => ErrorCode::OutOfOrderSequenceNumber,
        // A version that does not know the code gets INVALID_TXN_STATE: `ProduceRefusal::code_for`.
        ProducerError::NotVerified { .. } => ErrorCode::TransactionAbortable,
        ProducerError::NotTransactional { .. } => ErrorCode::InvalidTxnState,
        ProducerError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
    }
}

/// What a producer is told where the transaction coordinator does not confirm its transaction (KIP-890 part 1). A
/// producer looks up partition leaders, not coordinators: what it may retry comes as NOT_ENOUGH_REPLICAS, as in Kafka.
pub(crate) fn verification(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::InvalidTxnState => ErrorCode::TransactionAbortable,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        code if code.is_retriable() => ErrorCode::NotEnoughReplicas,
        code => code,
    }
}

/// A partition's code as a Fetch of this version may carry it: what old clients do not know sends them to look for the
/// leader again, as in Kafka.
pub(crate) fn fetch(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::KafkaStorageError if version < STORAGE_ERROR_FETCH_VERSION => ErrorCode::NotLeaderOrFollower,
        code => code,
    }
}

/// Whether the client knows the partition's leader epoch (KIP-320); -1 is a client that does not say.
pub(crate) fn check_leader_epoch(asked: i32, current: LeaderEpoch) -> Result<(), ErrorCode> {
    match asked {
        ..0 => Ok(()),
        old if old < current.get() => Err(ErrorCode::FencedLeaderEpoch),
        new if new > current.get() => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// Why something in a request is refused, in words for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: ErrorCode,
    pub message: String,
}

impl Refused {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    pub fn unknown_topic() -> Self {
        Self::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")
    }
}

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        let code = match &error {
            SubmitError::Refused(refusal) => self::refusal(refusal),
            // Whether it was done is not known, or it was not: the client asks again.
            SubmitError::Unavailable | SubmitError::Unknown => ErrorCode::RequestTimedOut,
            SubmitError::Ended(_) => ErrorCode::NotController,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::InvalidConfig, error.to_string())
    }
}

fn refusal(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
        Refusal::TopicCollides { .. } => ErrorCode::InvalidTopicException,
        Refusal::UnknownTopic(_) | Refusal::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
        Refusal::PartitionCount { .. } | Refusal::PartitionsNotMore { .. } => ErrorCode::InvalidPartitions,
        Refusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
        Refusal::Pinned { .. } | Refusal::PinOfTrash(_) => ErrorCode::PolicyViolation,
        Refusal::TooMany { .. }
        | Refusal::NotInTrash(_)
        | Refusal::TrashWindowOpen { .. }
        | Refusal::PinBelowLogStart { .. }
        | Refusal::PinInvalid
        | Refusal::UnknownPin(_) => ErrorCode::InvalidRequest,
        // The id was drawn at random: another try draws another.
        Refusal::TopicIdUsed(_) => ErrorCode::RequestTimedOut,
        // This broker epoch is over: whoever owns the partition now is found in the metadata.
        Refusal::UnknownBroker(_)
        | Refusal::UnknownEpoch { .. }
        | Refusal::StaleBrokerEpoch { .. }
        | Refusal::EpochSealed { .. }
        | Refusal::EpochClosed { .. }
        | Refusal::OwnerNotClosed { .. }
        | Refusal::NotOwner { .. } => ErrorCode::NotLeaderOrFollower,
        Refusal::OtherCluster { .. } => ErrorCode::InconsistentClusterId,
        // Answers to commands that no request sends, and counters that no cluster uses up.
        Refusal::SealsItself { .. }
        | Refusal::EpochNotSealed { .. }
        | Refusal::EndBelowCommitted { .. }
        | Refusal::NotAtCommittedEnd { .. }
        | Refusal::EmptyRange { .. }
        | Refusal::LogTwice { .. }
        | Refusal::ThroughWentBack { .. }
        | Refusal::PartitionTwice { .. }
        | Refusal::SnapshotWentBack { .. }
        | Refusal::ObjectReachable { .. }
        | Refusal::ObjectCondemned { .. }
        | Refusal::ObjectNotCondemned { .. }
        | Refusal::NotAnOrphan { .. }
        | Refusal::ObjectForeign { .. }
        | Refusal::Exhausted(_) => ErrorCode::UnknownServerError,
    }
}

/// Why one partition of a Produce request is refused.
pub(crate) struct ProduceRefusal {
    pub code: ErrorCode,
    pub message: Option<String>,
    /// Records at fault by their index in the batch.
    pub records: Vec<(i32, Option<String>)>,
}

impl ProduceRefusal {
    pub fn code(code: ErrorCode) -> Self {
        Self { code, message: None, records: Vec::new() }
    }

    /// The code as a request of this version may carry it.
    pub fn code_for(&self, version: i16) -> ErrorCode {
        match self.code {
            ErrorCode::TransactionAbortable if version < ABORTABLE_PRODUCE_VERSION => ErrorCode::InvalidTxnState,
            ErrorCode::InvalidRecord if version < RECORD_ERRORS_PRODUCE_VERSION => ErrorCode::CorruptMessage,
            code => code,
        }
    }

    pub fn of_append(error: &LogError) -> Self {
        Self { message: Some(error.to_string()), ..Self::code(log(error)) }
    }

    pub fn of_validation(error: ValidateError) -> Self {
        let message = Some(error.to_string());
        let (code, records) = match error {
            ValidateError::ZstdTooOld => (ErrorCode::UnsupportedCompressionType, Vec::new()),
            ValidateError::TooLarge { .. } | ValidateError::Inflated { .. } => (ErrorCode::MessageTooLarge, Vec::new()),
            ValidateError::Corrupt(error) => (corrupt(&error), Vec::new()),
            ValidateError::Timestamp(_) => (ErrorCode::InvalidTimestamp, Vec::new()),
            ValidateError::BadRecords(bad) => {
                // Of several faults the time's gives the code, as in Kafka.
                let of_time = bad.iter().any(|bad| matches!(bad.fault, RecordFault::Timestamp { .. }));
                let code = if of_time { ErrorCode::InvalidTimestamp } else { ErrorCode::InvalidRecord };
                (code, bad.into_iter().map(|bad| (bad.index, Some(bad.fault.to_string()))).collect())
            }
            ValidateError::OldMagic(_)
            | ValidateError::ManyBatches(_)
            | ValidateError::Empty
            | ValidateError::BaseOffset(_)
            | ValidateError::Count { .. }
            | ValidateError::Records(_)
            | ValidateError::Control
            | ValidateError::Producer { .. }
            | ValidateError::NoProducer => (ErrorCode::InvalidRecord, Vec::new()),
        };
        Self { code, message, records }
    }
}

fn corrupt(error: &BatchError) -> ErrorCode {
    match error {
        // As for an old one: Kafka takes the one format that it knows.
        BatchError::Magic { .. } => ErrorCode::InvalidRecord,
        BatchError::Codec { .. } => ErrorCode::UnsupportedCompressionType,
        BatchError::Short { .. }
        | BatchError::Length { .. }
        | BatchError::Count { .. }
        | BatchError::Offset { .. }
        | BatchError::Crc { .. }
        | BatchError::Compression(_)
        | BatchError::Record { .. }
        | BatchError::Trailing { .. }
        | BatchError::Marker(_) => ErrorCode::CorruptMessage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code that a version does not know is told by the one it had before.
    #[test]
    fn codes_follow_the_version() {
        let refusal = |code| ProduceRefusal::code(code);
        let abortable = refusal(verification(ErrorCode::InvalidTxnState));
        assert_eq!(abortable.code_for(11), ErrorCode::TransactionAbortable);
        assert_eq!(abortable.code_for(10), ErrorCode::InvalidTxnState);
        assert_eq!(refusal(ErrorCode::InvalidRecord).code_for(7), ErrorCode::CorruptMessage);
        assert_eq!(refusal(ErrorCode::InvalidRecord).code_for(8), ErrorCode::InvalidRecord);
    }

    /// An old consumer would fail on the code of a store that does not answer: it asks for the leader and comes back.
    #[test]
    fn an_old_fetch_is_told_to_look_for_the_leader() {
        let no_store = log(&LogError::Cold(ColdError::Metadata(LookupError::Unavailable)));
        let told = |version| fetch(no_store, version);
        assert_eq!([4, 5].map(told), [ErrorCode::NotLeaderOrFollower; 2]);
        assert_eq!([6, 17].map(told), [ErrorCode::KafkaStorageError; 2]);
        assert_eq!(fetch(ErrorCode::OffsetOutOfRange, 4), ErrorCode::OffsetOutOfRange);
    }

    /// A producer is never sent to look for another coordinator, and is told of its fence by the code it knows.
    #[test]
    fn a_coordinators_codes_become_a_producers() {
        for (told, becomes) in [
            (ErrorCode::CoordinatorLoadInProgress, ErrorCode::NotEnoughReplicas),
            (ErrorCode::NotCoordinator, ErrorCode::NotEnoughReplicas),
            (ErrorCode::ConcurrentTransactions, ErrorCode::NotEnoughReplicas),
            (ErrorCode::ProducerFenced, ErrorCode::InvalidProducerEpoch),
            (ErrorCode::InvalidProducerIdMapping, ErrorCode::InvalidProducerIdMapping),
        ] {
            assert_eq!(verification(told), becomes);
        }
    }

    /// Older is fenced, newer is unknown, and a client that does not say is let through.
    #[test]
    fn a_leader_epoch_is_compared() {
        let current = LeaderEpoch::new(5).expect("not negative");
        let answer = |asked| check_leader_epoch(asked, current);
        assert_eq!((answer(-1), answer(5)), (Ok(()), Ok(())));
        assert_eq!((answer(4), answer(6)), (Err(ErrorCode::FencedLeaderEpoch), Err(ErrorCode::UnknownLeaderEpoch)));
    }
}
