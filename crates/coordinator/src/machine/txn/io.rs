//! What goes into the transaction coordinator's machine and what comes out.
//!
//! Owns: the words of requests, answers, markers and refusals. Leaves to others: Kafka's request versions and error
//! codes (`api` turns [`Refusal`] into a code), what each request does (the files beside this one).
//!
//! Sources: Kafka's `TransactionCoordinator`, `InitProducerIdRequest`, `AddPartitionsToTxnRequest`, `EndTxnRequest`,
//! `ListTransactionsRequest`, `DescribeTransactionsRequest`; KIP-98, KIP-360, KIP-664, KIP-890.

use std::fmt;
use std::time::Duration;

use forebay_types::{LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicId, TopicName};

use super::super::{Producer, Record, Token};

/// A partition in a transaction: by its topic's name, as Kafka's record schema has it, and by its topic's id, so that one
/// created later under the same name is another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnPartition {
    pub topic: TopicName,
    /// `None` where a record tells names only: Kafka wrote it.
    pub topic_id: Option<TopicId>,
    pub partition: PartitionIndex,
}

impl fmt::Display for TxnPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic.as_str(), self.partition)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Commit,
    Abort,
}

/// Where a transactional id stands, in Kafka's words (`TransactionState`, without the two that never last).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxnStatus {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl TxnStatus {
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// The name that ListTransactions and DescribeTransactions carry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Kafka's number for it in a record of `__transaction_state`.
    pub const fn id(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::PrepareCommit => 2,
            Self::PrepareAbort => 3,
            Self::CompleteCommit => 4,
            Self::CompleteAbort => 5,
        }
    }

    /// `None` for Kafka's `Dead` and `PrepareEpochFence`, which no log holds, and for what is no state at all.
    pub fn from_id(id: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.id() == id)
    }

    /// Whether nothing of a transaction is left to do: only then may the id expire.
    pub const fn is_idle(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }
}

/// One thing that happened to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client, or a partition's owner, asks. Answered in the same [`TxnOutput`].
    Request { token: Token, request: Request },
    /// The markers of these partitions are durable, or their topic is gone for good. Repeats and strays change nothing.
    MarkersWritten { transactional_id: String, prepare_offset: Offset, partitions: Vec<TxnPartition> },
    /// Time went on: due at [`TxnOutput::deadline`]. Only this and [`Input::TimeOuts`] abort anything, and only this
    /// expires an id.
    Tick,
    /// As a tick, for a host that doubts its wall clock: transactions time out, nothing expires. The deadline in its
    /// output is that of the first time-out; when to ask about ids again is the host's affair.
    TimeOuts,
}

#[derive(Clone, Debug)]
pub enum Request {
    InitProducerId(InitProducerId),
    /// AddPartitionsToTxn up to v3; AddOffsetsToTxn is this with the group's partition of `__consumer_offsets`.
    AddPartitions(AddPartitions),
    EndTxn(EndTxn),
    /// A partition's owner asks before it takes a producer's first transactional batch (KIP-890 part 1).
    Verify(Verify),
    List(List),
    Describe {
        transactional_id: String,
    },
}

/// InitProducerId with a transactional id; one without needs no coordinator.
#[derive(Clone, Debug)]
pub struct InitProducerId {
    pub transactional_id: String,
    pub timeout_ms: i32,
    /// Who the client believes to be (v3 and later, KIP-360).
    pub expected: Option<Producer>,
    /// A producer id that nobody has, for a new transactional id or a spent epoch; [`TxnOutput::took_fresh`] says whether
    /// it was used. Without one, such a request is refused with [`Refusal::NoProducerId`].
    pub fresh: Option<ProducerId>,
    /// The request's version: it decides the name of being fenced.
    pub version: i16,
}

#[derive(Clone, Debug)]
pub struct AddPartitions {
    pub transactional_id: String,
    pub producer: Producer,
    /// Existing partitions that the client may write; `api` has checked.
    pub partitions: Vec<TxnPartition>,
    pub version: i16,
}

#[derive(Clone, Debug)]
pub struct EndTxn {
    pub transactional_id: String,
    pub producer: Producer,
    pub outcome: Outcome,
    pub version: i16,
}

#[derive(Clone, Debug)]
pub struct Verify {
    pub transactional_id: String,
    pub producer: Producer,
    pub partitions: Vec<TxnPartition>,
}

/// ListTransactions; an empty filter lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// As sent: a number that is no producer id matches nothing.
    pub producer_ids: Vec<i64>,
    pub states: Vec<String>,
    /// Only transactions that began more than this long ago. As in Kafka an id that began none passes.
    pub longer_than_ms: Option<i64>,
}

/// What the host has to do after one [`Input`], in this order.
#[derive(Debug)]
pub struct TxnOutput {
    /// To append to the partition of `__transaction_state` in one piece, at [`TxnOutput::base_offset`] and on. The state
    /// already includes them: a failed append ends the machine's life.
    pub records: Vec<Record>,
    /// The offset that the first of `records` must get.
    pub base_offset: Offset,
    pub replies: Vec<Reply>,
    pub markers: Vec<Markers>,
    /// The uptime at which to send [`Input::Tick`], at the latest; in the past when more is due than one tick does.
    pub deadline: Option<Duration>,
    /// Whether [`InitProducerId::fresh`] now belongs to a transactional id.
    pub took_fresh: bool,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub token: Token,
    /// The answer may leave once the log is durable up to, not including, this offset (D1).
    pub rests_on: Offset,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    InitProducerId(Result<Producer, Refusal>),
    AddPartitions(Result<(), Refusal>),
    EndTxn(Result<(), Refusal>),
    Verify(Result<Verified, Refusal>),
    List(Listing),
    Describe(Result<Description, Refusal>),
}

/// The partitions of a [`Verify`] that the ongoing transaction does not hold: a batch for one of these is refused
/// (INVALID_TXN_STATE up to Produce v10, TRANSACTION_ABORTABLE from v11). The others may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub missing: Vec<TxnPartition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their transactional ids.
    pub transactions: Vec<Listed>,
    /// Names among the state filters that are none of Kafka's states.
    pub unknown_states: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub transactional_id: String,
    pub producer_id: ProducerId,
    pub status: TxnStatus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub producer: Producer,
    pub status: TxnStatus,
    pub timeout_ms: i32,
    /// When the transaction began, also after its end; `None` where none began since the last InitProducerId.
    pub started: Option<Timestamp>,
    /// Sorted; empty unless a transaction is open or ending. Two topics of one name may be among them.
    pub partitions: Vec<TxnPartition>,
}

/// Markers to write, one to each partition: in the same WAL behind the Prepare record, or once it is durable. The host
/// repeats until each is durable and then says [`Input::MarkersWritten`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markers {
    pub transactional_id: String,
    pub producer: Producer,
    pub outcome: Outcome,
    /// The leader epoch of the `__transaction_state` partition, Kafka's coordinator epoch.
    pub coordinator_epoch: LeaderEpoch,
    /// Where the Prepare record lies: it grows with every transaction of a producer and stays when markers are sent
    /// again by a later owner, so a partition knows an old request by it (D14).
    pub prepare_offset: Offset,
    /// Sorted, never empty.
    pub partitions: Vec<TxnPartition>,
}

/// Why a request changed nothing. Each is one Kafka error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// INVALID_REQUEST
    #[error("the transactional id is empty or longer than a record can hold")]
    TransactionalId,
    /// INVALID_TRANSACTION_TIMEOUT
    #[error("the transaction timeout is not above 0 or above the broker's maximum")]
    Timeout,
    /// INVALID_PRODUCER_ID_MAPPING
    #[error("the transactional id is unknown, expired, or belongs to another producer id")]
    Mapping,
    /// PRODUCER_FENCED, from InitProducerId v4 and the others' v2
    #[error("a newer producer with the same transactional id has begun")]
    Fenced,
    /// INVALID_PRODUCER_EPOCH: what being fenced is called in older versions
    #[error("the producer epoch is not the current one")]
    Epoch,
    /// CONCURRENT_TRANSACTIONS: ask again
    #[error("the last transaction of this transactional id is still ending")]
    Concurrent,
    /// INVALID_TXN_STATE
    #[error("the transaction cannot end so from the state it is in")]
    State,
    /// TRANSACTIONAL_ID_NOT_FOUND
    #[error("the transactional id is unknown or expired")]
    NotFound,
    /// COORDINATOR_LOAD_IN_PROGRESS: ask again
    #[error("no producer id is at hand")]
    NoProducerId,
}

impl Refusal {
    /// How being fenced is called in a request of `version`, when PRODUCER_FENCED came with version `since`.
    pub(super) fn fenced(version: i16, since: i16) -> Self {
        if version >= since { Self::Fenced } else { Self::Epoch }
    }
}
