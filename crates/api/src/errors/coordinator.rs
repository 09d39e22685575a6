//! Codes of the coordinators. The machines already choose between codes by the request's version where Kafka does.

use forebay_coordinator::host::{CoordinatorError, VerifyError};
use forebay_coordinator::machine::group::GroupError;
use forebay_coordinator::machine::txn::Refusal;
use forebay_wire::ErrorCode;

/// The first TxnOffsetCommit version whose clients know COORDINATOR_LOAD_IN_PROGRESS (KAFKA-7296).
const LOADING_TXN_OFFSET_COMMIT_VERSION: i16 = 2;

/// The first TxnOffsetCommit version that knows TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_TXN_OFFSET_COMMIT_VERSION: i16 = 4;

pub(crate) fn coordinator(error: CoordinatorError) -> ErrorCode {
    match error {
        CoordinatorError::Loading => ErrorCode::CoordinatorLoadInProgress,
        CoordinatorError::Unavailable => ErrorCode::CoordinatorNotAvailable,
        CoordinatorError::NotCoordinator => ErrorCode::NotCoordinator,
    }
}

pub(crate) fn group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::UnstableOffsetCommit => ErrorCode::UnstableOffsetCommit,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::NameTooLong => ErrorCode::InvalidRequest,
        GroupError::GenerationTooLarge => ErrorCode::UnknownServerError,
    }
}

pub(crate) fn txn(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::TransactionalId => ErrorCode::InvalidRequest,
        Refusal::Timeout => ErrorCode::InvalidTransactionTimeout,
        Refusal::Mapping => ErrorCode::InvalidProducerIdMapping,
        Refusal::Fenced => ErrorCode::ProducerFenced,
        Refusal::Epoch => ErrorCode::InvalidProducerEpoch,
        Refusal::Concurrent => ErrorCode::ConcurrentTransactions,
        Refusal::State => ErrorCode::InvalidTxnState,
        Refusal::NotFound => ErrorCode::TransactionalIdNotFound,
        Refusal::NoProducerId => ErrorCode::CoordinatorLoadInProgress,
    }
}

/// The coordinator's own code for a transaction that it does not confirm.
pub(crate) fn verify(error: VerifyError) -> ErrorCode {
    match error {
        VerifyError::Coordinator(error) => coordinator(error),
        VerifyError::Refused(refusal) => txn(refusal),
        VerifyError::NotInTransaction => ErrorCode::InvalidTxnState,
    }
}

/// What a TxnOffsetCommit is told then: its client looks up the group's coordinator where it may try again.
pub(crate) fn txn_offset_commit(error: VerifyError, version: i16) -> ErrorCode {
    match verify(error) {
        ErrorCode::ConcurrentTransactions => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::CoordinatorLoadInProgress if version < LOADING_TXN_OFFSET_COMMIT_VERSION => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        // The older code is fatal to a client; by the newer one it aborts the transaction and goes on.
        ErrorCode::InvalidTxnState if version >= ABORTABLE_TXN_OFFSET_COMMIT_VERSION => ErrorCode::TransactionAbortable,
        code => code,
    }
}

/// The code of a result, `NONE` where it is one of success.
pub(crate) fn code_of<T, E>(result: &Result<T, E>, code: impl Fn(E) -> ErrorCode) -> i16
where
    E: Copy,
{
    result.as_ref().map_or_else(|error| code(*error), |_| ErrorCode::None).code()
}
