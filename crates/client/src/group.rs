//! A member of a classic consumer group: joins, is given partitions by the range assignor, heartbeats, commits.
//!
//! Owns: membership and what a rebalance does to the consumer. Leaves to others: fetching (`consumer`), the assignment's
//! arithmetic (`group::assign`).
//!
//! States: out → joining → member → (told of a rebalance, or forgotten by the coordinator) → joining … → out. A heartbeat
//! task runs while a member; it never changes membership itself, it leaves a note that the next poll acts on.
//!
//! Invariants:
//! 1. A partition is read only between the sync that gave it and the poll that learns of the next rebalance.
//! 2. Offsets are committed under the generation they were read in; the coordinator refuses an older one.
//!
//! Sources: Kafka's `ConsumerCoordinator`, `AbstractCoordinator`; KIP-394 (member id required).

mod assign;

use std::sync::Arc;
use std::time::Duration;

use forebay_env::Task;
use forebay_types::{Offset, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::join_group_request::JoinGroupRequestProtocol;
use forebay_wire::kafka::messages::leave_group_request::MemberIdentity;
use forebay_wire::kafka::messages::sync_group_request::SyncGroupRequestAssignment;
use forebay_wire::kafka::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use parking_lot::Mutex;

use crate::admin::offsets::{commit, fetch_committed};
use crate::cluster::{CoordinatorKind, Repeat, Target, retriable};
use crate::consumer::{Consumer, ConsumerConfig, Fetched, StartAt};
use crate::kafka::{Partition, code, text, wire_group};
use crate::producer::GroupMembership;
use crate::{Client, ClientError};

pub(crate) use assign::{Assignment, decode_assignment};

const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL_NAME: &str = "range";

#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub group: String,
    pub topics: Vec<TopicName>,
    /// Where to begin in a partition that the group has no offset for.
    pub start: StartAt,
    /// A member not heard of for so long is out; a rebalance waits for members as long.
    pub session_timeout: Duration,
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    pub fn new(group: &str, topics: Vec<TopicName>) -> Self {
        Self {
            group: group.to_owned(),
            topics,
            start: StartAt::Earliest,
            session_timeout: Duration::from_secs(10),
            consumer: ConsumerConfig::default(),
        }
    }
}

/// What the heartbeat has learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Fine,
    /// The group rebalances: join again under the same member id.
    Rejoin,
    /// The coordinator does not know us any more: join as somebody new.
    Forgotten,
}

pub struct GroupConsumer {
    /// For joins, which the broker holds open.
    client: Client,
    /// For heartbeats and commits, which must not wait behind a join.
    steady: Client,
    config: GroupConfig,
    consumer: Consumer,
    member: String,
    generation: i32,
    note: Arc<Mutex<Note>>,
    heartbeat: Option<Task<()>>,
}

impl GroupConsumer {
    /// Nothing is sent before the first poll.
    pub fn new(client: &Client, config: GroupConfig) -> Self {
        Self {
            client: client.with_own_connections(),
            steady: client.with_own_connections(),
            consumer: Consumer::new(client, config.consumer.clone()),
            config,
            member: String::new(),
            generation: -1,
            note: Arc::new(Mutex::new(Note::Forgotten)),
            heartbeat: None,
        }
    }

    /// The next records of the partitions that are ours right now; joins first where need be.
    pub async fn poll(&mut self) -> Result<Vec<Fetched>, ClientError> {
        let note = *self.note.lock();
        if note != Note::Fine {
            self.join(note).await?;
        }
        self.consumer.poll().await
    }

    /// Commits the positions of everything polled so far.
    ///
    /// # Errors
    /// REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION or UNKNOWN_MEMBER_ID where the partitions may already be another's: what
    /// was read since the last commit will be read again, by whoever gets them.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.commit_offsets(&self.consumer.positions()).await
    }

    /// Commits these positions, for who has not taken everything that was polled.
    ///
    /// # Errors
    /// As [`GroupConsumer::commit`].
    pub async fn commit_offsets(&mut self, offsets: &[(Partition, Offset)]) -> Result<(), ClientError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let result = commit(&self.steady, &self.membership(), offsets).await;
        if let Some(note) = result.as_ref().err().and_then(ClientError::code).and_then(note_of) {
            *self.note.lock() = note;
        }
        result
    }

    /// Who we are in the group, for offsets committed in a transaction.
    pub fn membership(&self) -> GroupMembership {
        GroupMembership { group: self.config.group.clone(), generation: self.generation, member: self.member.clone() }
    }

    /// The partitions that are ours, and the positions in them.
    pub fn positions(&self) -> Vec<(Partition, Offset)> {
        self.consumer.positions()
    }

    /// Leaves the group, so that the others need not wait for the session to time out. Commits nothing.
    pub async fn leave(mut self) -> Result<(), ClientError> {
        self.heartbeat = None;
        if self.member.is_empty() {
            return Ok(());
        }
        let what = format!("leave group {}", self.config.group);
        let build = |version: i16| {
            let request = LeaveGroupRequest::default().with_group_id(wire_group(&self.config.group));
            if version >= 3 {
                request.with_members(vec![MemberIdentity::default().with_member_id(text(&self.member))])
            } else {
                request.with_member_id(text(&self.member))
            }
        };
        let again = |r: &LeaveGroupResponse| retriable([r.error_code].into_iter());
        let response = self.steady.call(&what, self.target(), Repeat::Harmless, build, again).await?;
        let codes = std::iter::once(response.error_code).chain(response.members.iter().map(|m| m.error_code));
        match crate::kafka::first_code(codes, |code| code != ErrorCode::UnknownMemberId) {
            None => Ok(()),
            Some(code) => Err(ClientError::refused(what, code)),
        }
    }

    fn target(&self) -> Target<'_> {
        Target::Coordinator(CoordinatorKind::Group, &self.config.group)
    }

    /// Joins until an assignment holds.
    async fn join(&mut self, mut note: Note) -> Result<(), ClientError> {
        self.heartbeat = None;
        for (partition, _) in self.consumer.positions() {
            self.consumer.unassign(&partition);
        }
        loop {
            if note == Note::Forgotten {
                self.member.clear();
            }
            let joined = self.send_join().await?;
            match code(joined.error_code) {
                ErrorCode::None => {}
                ErrorCode::MemberIdRequired => {
                    self.member = joined.member_id.to_string();
                    note = Note::Rejoin;
                    continue;
                }
                refused => {
                    note = self.note_or_error("join", refused)?;
                    continue;
                }
            }
            self.member = joined.member_id.to_string();
            self.generation = joined.generation_id;
            let assignments = if joined.leader == joined.member_id { self.assign(&joined).await? } else { Vec::new() };
            let synced = self.send_sync(assignments).await?;
            match code(synced.error_code) {
                ErrorCode::None => {
                    let what = format!("assignment in group {}", self.config.group);
                    let ours = decode_assignment(&synced.assignment).map_err(|reason| ClientError::Malformed {
                        what,
                        address: "the group's leader".to_owned(),
                        reason,
                    })?;
                    return self.take_over(ours).await;
                }
                refused => note = self.note_or_error("sync", refused)?,
            }
        }
    }

    fn note_or_error(&self, what: &str, code: ErrorCode) -> Result<Note, ClientError> {
        note_of(code).ok_or_else(|| ClientError::refused(format!("{what} group {}", self.config.group), code))
    }

    async fn send_join(&self) -> Result<JoinGroupResponse, ClientError> {
        let what = format!("join group {}", self.config.group);
        let timeout = i32::try_from(self.config.session_timeout.as_millis()).unwrap_or(i32::MAX);
        let metadata = assign::encode_subscription(&self.config.topics);
        let build = |version: i16| {
            let protocol =
                JoinGroupRequestProtocol::default().with_name(text(PROTOCOL_NAME)).with_metadata(metadata.clone());
            let request = JoinGroupRequest::default()
                .with_group_id(wire_group(&self.config.group))
                .with_session_timeout_ms(timeout)
                .with_member_id(text(&self.member))
                .with_protocol_type(text(PROTOCOL_TYPE))
                .with_protocols(vec![protocol]);
            if version >= 1 { request.with_rebalance_timeout_ms(timeout) } else { request }
        };
        let again = |r: &JoinGroupResponse| retriable([r.error_code].into_iter());
        self.client.call(&what, self.target(), Repeat::Harmless, build, again).await
    }

    /// As the group's leader: gives each member its partitions.
    async fn assign(&self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
        let mut members = Vec::new();
        for member in &joined.members {
            let topics = assign::decode_subscription(&member.metadata).map_err(|reason| ClientError::Malformed {
                what: format!("subscription of member {} in group {}", member.member_id, self.config.group),
                address: "a member".to_owned(),
                reason,
            })?;
            members.push((member.member_id.to_string(), topics));
        }
        let mut counts = std::collections::BTreeMap::new();
        for topic in members.iter().flat_map(|(_, topics)| topics) {
            if !counts.contains_key(topic) {
                counts.insert(topic.clone(), self.steady.partitions(topic).await?);
            }
        }
        let assigned = assign::range(&members, &counts);
        let assignment = |(member, partitions): (String, Assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(&member))
                .with_assignment(assign::encode_assignment(&partitions))
        };
        Ok(assigned.into_iter().map(assignment).collect())
    }

    async fn send_sync(&self, assignments: Vec<SyncGroupRequestAssignment>) -> Result<SyncGroupResponse, ClientError> {
        let what = format!("sync group {}", self.config.group);
        let build = |version: i16| {
            let request = SyncGroupRequest::default()
                .with_group_id(wire_group(&self.config.group))
                .with_generation_id(self.generation)
                .with_member_id(text(&self.member))
                .with_assignments(assignments.clone());
            if version >= 5 {
                request.with_protocol_type(Some(text(PROTOCOL_TYPE))).with_protocol_name(Some(text(PROTOCOL_NAME)))
            } else {
                request
            }
        };
        let again = |r: &SyncGroupResponse| retriable([r.error_code].into_iter());
        self.client.call(&what, self.target(), Repeat::Harmless, build, again).await
    }

    /// Begins to read what was assigned, where the group left off.
    async fn take_over(&mut self, ours: Assignment) -> Result<(), ClientError> {
        *self.note.lock() = Note::Fine;
        let heartbeat = heartbeat(self.steady.clone(), self.config.clone(), self.membership(), Arc::clone(&self.note));
        self.heartbeat = Some(self.client.env().spawn("client-heartbeat", heartbeat));
        let committed = if ours.is_empty() {
            Vec::new()
        } else {
            fetch_committed(&self.steady, &self.config.group, Some(&ours)).await?
        };
        for partition in ours {
            let known = committed.iter().find(|one| one.partition == partition).map(|one| one.offset);
            self.consumer.assign(partition, known.map_or(self.config.start, StartAt::Offset));
        }
        Ok(())
    }
}

/// What a code says about our membership, if it does.
fn note_of(code: ErrorCode) -> Option<Note> {
    match code {
        ErrorCode::RebalanceInProgress => Some(Note::Rejoin),
        ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId => Some(Note::Forgotten),
        _ => None,
    }
}

/// Tells the coordinator that we are alive, three times a session, until there is something to note.
async fn heartbeat(client: Client, config: GroupConfig, member: GroupMembership, note: Arc<Mutex<Note>>) {
    loop {
        client.env().sleep(config.session_timeout / 3).await;
        let build = |_| {
            HeartbeatRequest::default()
                .with_group_id(wire_group(&member.group))
                .with_generation_id(member.generation)
                .with_member_id(text(&member.member))
        };
        let again = |r: &HeartbeatResponse| retriable([r.error_code].into_iter());
        let target = Target::Coordinator(CoordinatorKind::Group, &member.group);
        let learnt = match client.call("heartbeat", target, Repeat::Harmless, build, again).await {
            Ok(response) => match code(response.error_code) {
                ErrorCode::None => continue,
                code => note_of(code).unwrap_or(Note::Forgotten),
            },
            Err(error) => {
                tracing::warn!(group = %member.group, %error, "no heartbeat for a whole deadline");
                Note::Forgotten
            }
        };
        *note.lock() = learnt;
        return;
    }
}
