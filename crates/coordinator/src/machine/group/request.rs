//! What may be asked of a group machine, and what it answers.
//!
//! Numbers and empty strings are as on the wire: a generation of -1 and a member id of "" mean none, since Kafka's
//! rules are about exactly these. Errors are the newest that fit; an answer in an older version is the API's to map.

use bytes::Bytes;
use forebay_types::{TopicId, TopicName};

use crate::machine::Producer;

/// A request on one group, except [`Request::List`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Join(Join),
    Sync(Sync),
    Heartbeat(Heartbeat),
    Leave(Leave),
    Commit(Commit),
    /// The caller has already seen that the partition of the offsets topic is in the producer's transaction.
    CommitInTransaction(Producer, Commit),
    Fetch(Fetch),
    DeleteOffsets(DeleteOffsets),
    DeleteGroup {
        group: String,
    },
    Describe {
        group: String,
    },
    List(List),
}

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Join(Result<Joined, JoinRefused>),
    Sync(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    Leave(Result<Vec<Left>, GroupError>),
    /// Also for a commit in a transaction.
    Commit(Result<Vec<TopicResults>, GroupError>),
    /// A group that does not exist has committed nothing.
    Fetch(Vec<FetchedTopic>),
    DeleteOffsets(Result<Vec<TopicResults>, GroupError>),
    DeleteGroup(Result<(), GroupError>),
    /// `None`: there is no such group.
    Describe(Option<Described>),
    List(Vec<Listed>),
}

/// Why a request is refused. Each is Kafka's error of the same name, but for the two last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    #[error("the session timeout is outside of what the broker allows")]
    InvalidSessionTimeout,
    #[error("the member is not in the group")]
    UnknownMemberId,
    #[error("join again with the member id that this answer gives")]
    MemberIdRequired,
    #[error("another member has taken over this instance id")]
    FencedInstanceId,
    #[error("the member's protocols have none in common with the group's")]
    InconsistentGroupProtocol,
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the group is rebalancing, join again")]
    RebalanceInProgress,
    #[error("the group has moved to another coordinator")]
    NotCoordinator,
    #[error("the metadata beside the offset is too long")]
    OffsetMetadataTooLarge,
    #[error("a transaction that commits this offset is open")]
    UnstableOffsetCommit,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("there is no such group")]
    GroupIdNotFound,
    /// A name too long to be recorded. Kafka's `INVALID_REQUEST`.
    #[error("a name in the request is too long")]
    NameTooLong,
    /// The members' subscriptions and assignments do not fit one record. Kafka's `UNKNOWN_SERVER_ERROR`.
    #[error("the group's generation does not fit a record")]
    GenerationTooLarge,
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    pub group: String,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    /// In version 0 the session timeout.
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// By the member's preference, each with the member's bytes for it.
    pub protocols: Vec<(String, Bytes)>,
    /// The request's version: from 4 a new dynamic member joins in two steps (KIP-394), from 9 a static leader that
    /// comes back is told to skip the assignment.
    pub version: i16,
    /// Fresh random bits, for the id of a new member.
    pub random: [u8; 16],
}

/// A member is in the generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub member_id: String,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    pub skip_assignment: bool,
    /// For the leader all members with their bytes for the chosen protocol, for others nobody.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// A join that came to nothing. The member id is the one to use next, empty for "start anew".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    pub member_id: String,
    pub error: GroupError,
}

/// Who a request says it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    pub group: String,
    pub caller: Caller,
    /// From version 5: must be the group's.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// Member ids with their share; from the leader only, others' are passed over.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's share of the generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub group: String,
    pub caller: Caller,
}

/// LeaveGroup, by one member or by an operator for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    pub group: String,
    pub members: Vec<Leaver>,
}

/// Who shall leave: by member id, or by instance id with an empty member id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaver {
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// What came of one [`Leaver`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub leaver: Leaver,
    pub result: Result<(), GroupError>,
}

/// OffsetCommit and TxnOffsetCommit. The caller has looked up the topics; those it did not find are not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub group: String,
    /// A generation of -1 for who only keeps offsets here.
    pub caller: Caller,
    /// How long to keep the offsets, where the client says so (versions 2 to 4).
    pub retention_ms: Option<i64>,
    pub topics: Vec<CommitTopic>,
}

/// Positions in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    pub topic: TopicName,
    /// The topic's id now: the offsets are for this topic and no later one of the same name.
    pub topic_id: Option<TopicId>,
    pub partitions: Vec<CommitPartition>,
}

/// A position in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    pub index: i32,
    pub offset: i64,
    /// -1 for none.
    pub leader_epoch: i32,
    pub metadata: String,
}

/// What came of the partitions of one topic, in the request's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicResults {
    pub topic: TopicName,
    pub partitions: Vec<(i32, Result<(), GroupError>)>,
}

/// OffsetFetch for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub group: String,
    /// `None` for all that the group has committed.
    pub topics: Option<Vec<FetchTopic>>,
    pub require_stable: bool,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    pub topic: TopicName,
    /// The topic's id now: offsets committed for another topic of this name are not given. `None` gives any.
    pub topic_id: Option<TopicId>,
    pub partitions: Vec<i32>,
}

/// Committed positions in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    pub topic: TopicName,
    pub partitions: Vec<FetchedPartition>,
}

/// The committed position in one partition, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    pub index: i32,
    pub position: Result<Option<Position>, GroupError>,
}

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: i64,
    /// -1 for none.
    pub leader_epoch: i32,
    pub metadata: String,
    /// The topic it was committed for. Who fetched all topics drops those whose topic is another by now.
    pub topic_id: Option<TopicId>,
}

/// OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOffsets {
    pub group: String,
    pub topics: Vec<(TopicName, Vec<i32>)>,
}

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    /// Only as an answer about a group that is not there.
    Dead,
}

impl GroupState {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// A group as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub state: GroupState,
    /// Empty for who only keeps offsets here.
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Empty unless the group is stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// ListGroups. Names are compared without case; an empty list lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub states: Vec<String>,
    /// Every group here is of type [`List::TYPE`].
    pub types: Vec<String>,
}

impl List {
    pub const TYPE: &'static str = "classic";
}

/// A group as ListGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub group: String,
    pub protocol_type: String,
    pub state: GroupState,
}
