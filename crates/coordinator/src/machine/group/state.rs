//! One group: its generation, its members, and where it stands between two generations.
//!
//! Invariants:
//! 1. The generation only grows, and an assignment belongs to the generation whose leader sent it.
//! 2. All members have a protocol in common: who has none with the others is not let in.
//! 3. `statics` holds exactly the members with an instance id, each under its own.
//! 4. `recorded` is the value of the group's last record, which may be behind the members while they rebalance: it is
//!    what a restart comes back to, so it is what a snapshot holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_types::{Offset, Timestamp};

use super::offsets::Offsets;
use super::request::{Described, DescribedMember, GroupError, GroupState, JoinedMember};
use super::subscription;
use crate::machine::{Now, Token};
use crate::schema::{GroupMetadataValue, MemberMetadata};

/// What a member takes up beside its texts, and each of its protocols.
const MEMBER_BYTES: usize = 512;
const PROTOCOL_BYTES: usize = 64;

/// A group's, member's, instance's or protocol's name.
pub(super) type Name = Arc<str>;

#[derive(Debug)]
pub(super) struct Group {
    pub id: Name,
    /// `None` for who only keeps offsets here.
    pub protocol_type: Option<Name>,
    /// The generation's protocol; `None` without members.
    pub protocol: Option<Name>,
    /// 0 before the first.
    pub generation: i32,
    pub phase: Phase,
    /// Since when the phase lasts; `None` where an old record does not say.
    pub since: Option<Timestamp>,
    pub leader: Option<Name>,
    pub members: BTreeMap<Name, Member>,
    /// Instance id to member id.
    pub statics: BTreeMap<Name, Name>,
    /// Ids given out by the first step of a join and not used yet, with the end of their time.
    pub pending: BTreeMap<Name, Duration>,
    pub offsets: Offsets,
    pub recorded: Option<Bytes>,
    /// Behind the record that was handed out last since the machine was opened.
    pub recorded_end: Offset,
    /// When the machine will look at the group again, if it will: at or before its earliest deadline.
    pub alarm: Option<Duration>,
    /// [`Group::heap_bytes`] as the machine has counted it.
    pub counted_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No members; maybe offsets.
    Empty,
    /// Members join until all have, or until the deadline.
    Preparing { deadline: Duration, initial: Option<Initial> },
    /// Members know the generation, the leader is working out the assignment.
    Completing { sync_by: Duration },
    /// Each member can have its assignment; those that have not asked must do so by the deadline.
    Stable { sync_by: Option<Duration> },
}

/// The first members of an empty group wait for company, whether or not all have joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Initial {
    /// How much longer the wait may become.
    pub left: Duration,
    /// Whether a member came since the wait began.
    pub grew: bool,
}

#[derive(Debug)]
pub(super) struct Member {
    pub instance: Option<Name>,
    pub client_id: Box<str>,
    pub client_host: Box<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// By preference.
    pub protocols: Vec<(Name, Bytes)>,
    pub assignment: Bytes,
    /// When its session ends, unless it waits for an answer of ours.
    pub session_end: Duration,
    /// A join that waits for the others.
    pub joining: Option<Token>,
    /// A sync that waits for the leader.
    pub syncing: Option<Token>,
    /// It has not been in a generation yet, so it cannot send heartbeats and has only so long to stay.
    pub is_new: bool,
    /// It has not asked for its assignment in this generation.
    pub owes_sync: bool,
}

impl Member {
    /// Whether it must be heard of by the end of its session. Who waits for us cannot be.
    pub fn can_expire(&self) -> bool {
        self.is_new || (self.joining.is_none() && self.syncing.is_none())
    }

    pub fn heard(&mut self, now: Now) {
        self.session_end = now.uptime + millis(self.session_timeout_ms);
    }

    pub fn metadata(&self, protocol: Option<&Name>) -> Bytes {
        let protocol = protocol.map_or("", |name| name);
        self.protocols.iter().find(|(name, _)| **name == *protocol).map_or_else(Bytes::new, |(_, bytes)| bytes.clone())
    }
}

/// A client's time-out; below zero it is none at all.
pub(super) fn millis(raw: i32) -> Duration {
    Duration::from_millis(u64::try_from(raw).unwrap_or(0))
}

impl Group {
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            protocol_type: None,
            protocol: None,
            generation: 0,
            phase: Phase::Empty,
            since: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            offsets: Offsets::default(),
            recorded: None,
            recorded_end: Offset::ZERO,
            alarm: None,
            counted_bytes: 0,
        }
    }

    pub fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty => GroupState::Empty,
            Phase::Preparing { .. } => GroupState::PreparingRebalance,
            Phase::Completing { .. } => GroupState::CompletingRebalance,
            Phase::Stable { .. } => GroupState::Stable,
        }
    }

    pub fn enter(&mut self, phase: Phase, now: Now) {
        self.phase = phase;
        self.since = Some(now.wall);
    }

    /// Nothing is there that a later request could ask for, and nothing in the log.
    pub fn is_vacant(&self) -> bool {
        self.phase == Phase::Empty && self.pending.is_empty() && self.offsets.is_empty() && self.recorded.is_none()
    }

    /// Whether a record or a staged one speaks of the group.
    pub fn is_recorded(&self) -> bool {
        self.recorded.is_some() || !self.offsets.is_empty()
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Kafka's `validateCurrentMember`: an instance id must be known and held by this very member.
    pub fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let holder = self.statics.get(instance).ok_or(GroupError::UnknownMemberId)?;
            if **holder != *member {
                return Err(GroupError::FencedInstanceId);
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Whether who offers these protocols could be a member beside those that are.
    pub fn accepts(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.phase == Phase::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let common = self.common_protocols();
        // All may have left while the first waited for company.
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.members.is_empty() || common.contains(name.as_str()))
    }

    /// What every member supports.
    fn common_protocols(&self) -> BTreeSet<&str> {
        let mut supporters = BTreeMap::<&str, usize>::new();
        for member in self.members.values() {
            let names: BTreeSet<&str> = member.protocols.iter().map(|(name, _)| &**name).collect();
            for name in names {
                *supporters.entry(name).or_default() += 1;
            }
        }
        supporters.retain(|_, count| *count == self.members.len());
        supporters.into_keys().collect()
    }

    /// About what the group's members take up in memory, those that have been given an id to join with, and its record.
    pub fn heap_bytes(&self) -> usize {
        let pending = self.pending.keys().map(|id| id.len() + MEMBER_BYTES).sum::<usize>();
        let member = |(id, member): (&Name, &Member)| {
            let protocols = member.protocols.iter().map(|(name, bytes)| name.len() + bytes.len() + PROTOCOL_BYTES);
            let names = id.len() + member.client_id.len() + member.client_host.len();
            names + member.assignment.len() + protocols.sum::<usize>() + MEMBER_BYTES
        };
        let recorded = self.recorded.as_ref().map_or(0, Bytes::len);
        pending + recorded + self.members.iter().map(member).sum::<usize>()
    }

    /// Each member votes for the first of its protocols that all have; of two with as many votes the first by name wins.
    pub fn elect_protocol(&self) -> Name {
        let common = self.common_protocols();
        let mut votes = BTreeMap::<&Name, usize>::new();
        for member in self.members.values() {
            if let Some((choice, _)) = member.protocols.iter().find(|(name, _)| common.contains(&**name)) {
                *votes.entry(choice).or_default() += 1;
            }
        }
        let most = votes.values().copied().max().expect("members that have a protocol in common: others are refused");
        let (winner, _) = votes.into_iter().find(|(_, count)| *count == most).expect("one has the most votes");
        Arc::clone(winner)
    }

    /// The longest time that a member asks for to join again.
    pub fn rebalance_timeout(&self) -> Duration {
        // A moment at least: a client's 0 must not make the group expire over and over at one instant.
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        millis(longest).max(Duration::from_millis(1))
    }

    pub fn joining(&self) -> usize {
        self.members.values().filter(|member| member.joining.is_some()).count()
    }

    pub fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// Takes a member out; the leader's place goes to another.
    pub fn remove(&mut self, member: &str) -> Option<Member> {
        let removed = self.members.remove(member)?;
        if let Some(instance) = &removed.instance
            && self.statics.get(instance).is_some_and(|holder| **holder == *member)
        {
            self.statics.remove(instance);
        }
        if self.is_leader(member) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(removed)
    }

    /// The members with their bytes for the chosen protocol, as the leader needs them.
    pub fn roster(&self) -> Vec<JoinedMember> {
        let row = |(id, member): (&Name, &Member)| JoinedMember {
            member_id: id.to_string(),
            instance_id: member.instance.as_deref().map(str::to_owned),
            metadata: member.metadata(self.protocol.as_ref()),
        };
        self.members.iter().map(row).collect()
    }

    /// Whether consumers of this group read the topic; where their bytes cannot be read, they may.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| {
            subscription::topics(&member.metadata(self.protocol.as_ref()))
                .map_or(true, |topics| topics.iter().any(|subscribed| subscribed == topic))
        })
    }

    pub fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(subscription::CONSUMER)
    }

    pub fn describe(&self) -> Described {
        let stable = matches!(self.phase, Phase::Stable { .. });
        let member = |(id, member): (&Name, &Member)| DescribedMember {
            member_id: id.to_string(),
            instance_id: member.instance.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            metadata: if stable { member.metadata(self.protocol.as_ref()) } else { Bytes::new() },
            assignment: if stable { member.assignment.clone() } else { Bytes::new() },
        };
        Described {
            state: self.state(),
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            protocol: self.protocol.as_deref().filter(|_| stable).unwrap_or_default().to_owned(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// The generation as it is recorded.
    pub fn to_record(&self) -> GroupMetadataValue {
        let member = |(id, member): (&Name, &Member)| MemberMetadata {
            member_id: id.to_string(),
            instance_id: member.instance.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol.as_ref()),
            assignment: member.assignment.clone(),
        };
        GroupMetadataValue {
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            generation: self.generation,
            protocol: self.protocol.as_deref().map(str::to_owned),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.since.map_or(-1, Timestamp::as_millis),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Becomes what a record says, whatever it was. Sessions begin when the machine opens.
    pub fn apply_record(&mut self, value: GroupMetadataValue, bytes: Bytes) {
        let protocol: Option<Name> = value.protocol.map(Into::into);
        let member = |from: MemberMetadata| {
            let member = Member {
                instance: from.instance_id.map(Into::into),
                client_id: from.client_id.into(),
                client_host: from.client_host.into(),
                rebalance_timeout_ms: from.rebalance_timeout_ms,
                session_timeout_ms: from.session_timeout_ms,
                protocols: vec![(protocol.clone().unwrap_or_default(), from.subscription)],
                assignment: from.assignment,
                session_end: Duration::ZERO,
                joining: None,
                syncing: None,
                is_new: false,
                owes_sync: false,
            };
            (Name::from(from.member_id), member)
        };
        self.members = value.members.into_iter().map(member).collect();
        let instance = |(id, member): (&Name, &Member)| Some((member.instance.clone()?, Arc::clone(id)));
        self.statics = self.members.iter().filter_map(instance).collect();
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable { sync_by: None } };
        self.since =
            (value.current_state_timestamp >= 0).then(|| Timestamp::from_millis(value.current_state_timestamp));
        self.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty()).map(Into::into);
        self.protocol = protocol;
        self.generation = value.generation;
        self.leader = value.leader.map(Name::from).or_else(|| self.members.keys().next().cloned());
        self.pending.clear();
        self.recorded = Some(bytes);
    }

    /// The earliest moment at which time alone changes something.
    pub fn deadline(&self) -> Option<Duration> {
        let sessions = self.members.values().filter(|member| member.can_expire()).map(|member| member.session_end);
        let phase = match self.phase {
            Phase::Empty => None,
            Phase::Preparing { deadline, .. } => Some(deadline),
            Phase::Completing { sync_by } => Some(sync_by),
            Phase::Stable { sync_by } => sync_by,
        };
        sessions.chain(self.pending.values().copied()).chain(phase).min()
    }
}
