//! Transactions, as of Kafka 3.9 (Transactions V1): begin, add partitions, send offsets, commit, abort.
//!
//! Owns: the order of calls and what each error means for the open transaction. Leaves to others: batches (`sender`).
//!
//! Consistency: a commit waits for every batch; a batch that failed makes it impossible. Retries: every request here may
//! be repeated without harm, and is, until the deadline; CONCURRENT_TRANSACTIONS (the last one is still being
//! completed) is one more reason to repeat. Crash: the next producer of the id fences this one and completes or aborts
//! what it left. Fencing: the first answer that says so ends the producer; every later call says so again.

use std::collections::BTreeSet;

use forebay_types::Offset;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use forebay_wire::kafka::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use forebay_wire::kafka::messages::{
    self, AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use tokio::sync::oneshot;

use super::sender::Command;
use super::{Producer, init_producer_id, sender_gone};
use crate::cluster::{CoordinatorKind, Repeat, Target, retriable};
use crate::kafka::{Partition, by_topic, first_code, text, wire_group, wire_topic, wire_transactional};
use crate::{ClientError, Kind, Outcome};

/// Which member of which group an offset commit comes from; the broker refuses a member that is not current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMembership {
    pub group: String,
    /// -1 for a consumer without a group protocol.
    pub generation: i32,
    pub member: String,
}

impl GroupMembership {
    /// Offsets kept under a group's name by who assigns itself its partitions.
    pub fn alone(group: &str) -> Self {
        Self { group: group.to_owned(), generation: -1, member: String::new() }
    }
}

pub(super) enum State {
    /// No transactional id: batches just go.
    Plain,
    Ready,
    Open {
        added: BTreeSet<Partition>,
        offsets: bool,
    },
    /// Only an abort is left.
    Broken {
        /// Whether the coordinator surely knows of the transaction.
        known: bool,
        cause: ClientError,
    },
    /// For good.
    Ended(ClientError),
}

impl State {
    pub(super) fn new(transactional: bool) -> Self {
        if transactional { Self::Ready } else { Self::Plain }
    }
}

impl Producer {
    /// Begins a transaction; nothing is sent.
    pub fn begin(&mut self) -> Result<(), ClientError> {
        match &self.state {
            State::Ready => {
                self.state = State::Open { added: BTreeSet::new(), offsets: false };
                Ok(())
            }
            State::Plain => Err(self.misuse("the producer has no transactional id")),
            State::Open { .. } => Err(self.misuse("a transaction is open already")),
            State::Broken { cause, .. } => Err(self.must_abort(cause.clone())),
            State::Ended(error) => Err(error.clone()),
        }
    }

    /// Makes the group's offsets part of the transaction: committed with it, or not at all.
    pub async fn send_offsets(
        &mut self,
        group: &GroupMembership,
        offsets: &[(Partition, Offset)],
    ) -> Result<(), ClientError> {
        self.require_open()?;
        let result = self.try_send_offsets(group, offsets).await;
        self.note(result.map_err(|error| self.broken_if_unsure(error)))
    }

    /// Commits: waits for every batch, then for the coordinator. Where it fails with [`Kind::Retry`], the outcome is
    /// unknown and calling `commit` again finds out; with [`Kind::Abort`] the transaction must be aborted.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.require_open()?;
        if let Err(error) = self.flush().await {
            return self.note(Err(self.broken(error)));
        }
        if self.is_known() {
            let result = self.end(true).await;
            self.note(result)?;
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Aborts: gives up what was not sent, waits for what was, then for the coordinator. May be called again where it
    /// fails with [`Kind::Retry`].
    pub async fn abort(&mut self) -> Result<(), ClientError> {
        let known = match &self.state {
            State::Open { .. } => self.is_known(),
            State::Broken { known, .. } => *known,
            State::Ended(error) => return Err(error.clone()),
            State::Plain | State::Ready => return Err(self.misuse("no transaction is open")),
        };
        let broken = matches!(self.state, State::Broken { .. });
        let (done, answer) = oneshot::channel();
        self.command(Command::Discard(done)).await?;
        let spent = answer.await.map_err(|_| sender_gone())?;
        if known || broken {
            match self.end(false).await {
                // The coordinator has lost the id's state, or wants another epoch: getting one aborts as well.
                Err(error) if error.kind() == Kind::Abort => {}
                // What broke the transaction was its first request, which never arrived.
                Err(error) if !known && error.code() == Some(ErrorCode::InvalidTxnState) => {}
                result => self.note(result)?,
            }
        }
        if spent || broken {
            // Sequences of batches given up are never used again: another epoch begins from 0 (KIP-360).
            let renewed = init_producer_id(&self.client, &self.config, Some(self.identity)).await;
            let renewed = match renewed {
                Ok(identity) => identity,
                Err(error) => return self.note(Err(error)),
            };
            self.identity = renewed;
            self.command(Command::Renew(renewed)).await?;
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Adds a partition to the open transaction before its first batch.
    pub(super) async fn join_transaction(&mut self, partition: &Partition) -> Result<(), ClientError> {
        match &self.state {
            State::Plain => return Ok(()),
            State::Open { added, .. } if added.contains(partition) => return Ok(()),
            _ => self.require_open()?,
        }
        let result = self.add_partition(partition).await;
        self.note(result.map_err(|error| self.broken_if_unsure(error)))?;
        if let State::Open { added, .. } = &mut self.state {
            added.insert(partition.clone());
        }
        Ok(())
    }

    async fn add_partition(&mut self, partition: &Partition) -> Result<(), ClientError> {
        let what = format!("add {partition} to the transaction");
        let id = self.transactional_id();
        let build = |_| {
            let topic = AddPartitionsToTxnTopic::default()
                .with_name(wire_topic(&partition.topic))
                .with_partitions(vec![partition.index.get()]);
            AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(wire_transactional(id))
                .with_v3_and_below_producer_id(messages::ProducerId(self.identity.id.get()))
                .with_v3_and_below_producer_epoch(self.identity.epoch.get())
                .with_v3_and_below_topics(vec![topic])
        };
        let target = Target::Coordinator(CoordinatorKind::Transaction, id);
        let again = |r: &AddPartitionsToTxnResponse| retriable(added_codes(r));
        let response = self.client.call(&what, target, Repeat::Harmless, build, again).await?;
        match first_code(added_codes(&response), |_| true) {
            None => Ok(()),
            Some(code) => Err(transaction_error(what, code)),
        }
    }

    async fn try_send_offsets(
        &mut self,
        group: &GroupMembership,
        offsets: &[(Partition, Offset)],
    ) -> Result<(), ClientError> {
        let id = self.transactional_id();
        let (producer, epoch) = (messages::ProducerId(self.identity.id.get()), self.identity.epoch.get());
        let what = format!("add the offsets of group {} to the transaction", group.group);
        let build = |_| {
            AddOffsetsToTxnRequest::default()
                .with_transactional_id(wire_transactional(id))
                .with_producer_id(producer)
                .with_producer_epoch(epoch)
                .with_group_id(wire_group(&group.group))
        };
        let again = |r: &AddOffsetsToTxnResponse| retriable([r.error_code].into_iter());
        let target = Target::Coordinator(CoordinatorKind::Transaction, id);
        let response = self.client.call(&what, target, Repeat::Harmless, build, again).await?;
        if let Some(code) = first_code([response.error_code].into_iter(), |_| true) {
            return Err(transaction_error(what, code));
        }
        if let State::Open { offsets, .. } = &mut self.state {
            *offsets = true;
        }
        let id = self.transactional_id();
        let what = format!("commit offsets of group {} in the transaction", group.group);
        let build = |version: i16| {
            let topics = by_topic(offsets.iter().cloned()).into_iter().map(|(topic, partitions)| {
                let partition = |(index, offset): (i32, Offset)| {
                    TxnOffsetCommitRequestPartition::default()
                        .with_partition_index(index)
                        .with_committed_offset(offset.get())
                        .with_committed_metadata(Some(text("")))
                };
                TxnOffsetCommitRequestTopic::default()
                    .with_name(wire_topic(&topic))
                    .with_partitions(partitions.into_iter().map(partition).collect())
            });
            let request = TxnOffsetCommitRequest::default()
                .with_transactional_id(wire_transactional(id))
                .with_group_id(wire_group(&group.group))
                .with_producer_id(producer)
                .with_producer_epoch(epoch)
                .with_topics(topics.collect());
            // Before version 3 nobody could fence a member by its generation.
            if version >= 3 {
                request.with_generation_id(group.generation).with_member_id(text(&group.member))
            } else {
                request
            }
        };
        let again = |r: &TxnOffsetCommitResponse| retriable(committed_codes(r));
        let target = Target::Coordinator(CoordinatorKind::Group, &group.group);
        let response = self.client.call(&what, target, Repeat::Harmless, build, again).await?;
        match first_code(committed_codes(&response), |_| true) {
            None => Ok(()),
            Some(code) => Err(transaction_error(what, code)),
        }
    }

    async fn end(&mut self, committed: bool) -> Result<(), ClientError> {
        let what = if committed { "commit the transaction" } else { "abort the transaction" };
        let id = self.transactional_id();
        let build = |_| {
            EndTxnRequest::default()
                .with_transactional_id(wire_transactional(id))
                .with_producer_id(messages::ProducerId(self.identity.id.get()))
                .with_producer_epoch(self.identity.epoch.get())
                .with_committed(committed)
        };
        let again = |r: &EndTxnResponse| retriable([r.error_code].into_iter());
        let target = Target::Coordinator(CoordinatorKind::Transaction, id);
        let response = self.client.call(what, target, Repeat::Harmless, build, again).await?;
        match first_code([response.error_code].into_iter(), |_| true) {
            None => Ok(()),
            Some(code) => Err(transaction_error(what.to_owned(), code)),
        }
    }

    fn require_open(&self) -> Result<(), ClientError> {
        match &self.state {
            State::Open { .. } => Ok(()),
            State::Plain => Err(self.misuse("the producer has no transactional id")),
            State::Ready => Err(self.misuse("no transaction is open")),
            State::Broken { cause, .. } => Err(self.must_abort(cause.clone())),
            State::Ended(error) => Err(error.clone()),
        }
    }

    /// Keeps what an error means for the calls to come.
    fn note(&mut self, result: Result<(), ClientError>) -> Result<(), ClientError> {
        let Err(error) = result else { return Ok(()) };
        match error.kind() {
            // Still open: the call may be made again.
            Kind::Retry => {}
            Kind::Abort => {
                let known = match &self.state {
                    State::Broken { known, .. } => *known,
                    _ => self.is_known(),
                };
                let cause = match &error {
                    ClientError::MustAbort { cause, .. } => (**cause).clone(),
                    other => other.clone(),
                };
                self.state = State::Broken { known, cause };
            }
            Kind::Fenced | Kind::Reject => self.state = State::Ended(error.clone()),
        }
        Err(error)
    }

    /// Whether the coordinator surely has the open transaction.
    fn is_known(&self) -> bool {
        matches!(&self.state, State::Open { added, offsets } if !added.is_empty() || *offsets)
    }

    /// A partition or group that may or may not have been added: only an abort makes that sure.
    fn broken_if_unsure(&self, error: ClientError) -> ClientError {
        let unsure = error.kind() == Kind::Retry && error.outcome() == Outcome::MayHaveHappened;
        if unsure { self.must_abort(error) } else { error }
    }

    fn broken(&self, cause: ClientError) -> ClientError {
        match cause.kind() {
            Kind::Fenced | Kind::Abort => cause,
            _ => self.must_abort(cause),
        }
    }

    fn must_abort(&self, cause: ClientError) -> ClientError {
        ClientError::MustAbort { what: format!("transactional id {}", self.transactional_id()), cause: Box::new(cause) }
    }

    fn misuse(&self, reason: &'static str) -> ClientError {
        let id = self.config.transactional_id.as_deref().unwrap_or("none");
        ClientError::Misuse { what: format!("transactional id {id}"), reason }
    }

    fn transactional_id(&self) -> &str {
        self.config.transactional_id.as_deref().expect("only a producer with a transactional id gets here")
    }
}

/// What a code from a coordinator means (Kafka's `TransactionManager`, its handlers).
fn transaction_error(what: String, code: ErrorCode) -> ClientError {
    match code {
        ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch => ClientError::Fenced { what, code },
        ErrorCode::UnknownProducerId
        | ErrorCode::InvalidProducerIdMapping
        | ErrorCode::TransactionAbortable
        | ErrorCode::UnknownMemberId
        | ErrorCode::IllegalGeneration
        | ErrorCode::FencedInstanceId
        | ErrorCode::OffsetMetadataTooLarge
        | ErrorCode::OperationNotAttempted
        | ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed => {
            let cause = Box::new(ClientError::refused(&what, code));
            ClientError::MustAbort { what, cause }
        }
        _ => ClientError::refused(what, code),
    }
}

fn added_codes(response: &AddPartitionsToTxnResponse) -> impl Iterator<Item = i16> {
    let topics = response.results_by_topic_v3_and_below.iter();
    topics.flat_map(|topic| topic.results_by_partition.iter().map(|partition| partition.partition_error_code))
}

fn committed_codes(response: &TxnOffsetCommitResponse) -> impl Iterator<Item = i16> {
    response.topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| partition.error_code))
}
