//! JoinGroup: who comes in, under which id, and whether that disturbs the others.
//!
//! Sources: Kafka 3.9 `GroupCoordinator.handleJoinGroup` and what it calls; KIP-345 (static members), KIP-394 (two
//! steps), KIP-814 (a static leader that comes back skips the assignment).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::request::{GroupError, Join, JoinRefused, Joined, Reply};
use super::state::{Group, Initial, Member, Name, Phase, millis};
use super::step::Step;
use crate::machine::Token;
use crate::schema::STRING_BYTES_MAX;

/// How long a member that has no generation yet may wait for its first: it cannot send heartbeats, and we cannot see
/// that its client is gone, so it is told to come again.
const NEW_MEMBER_TIME: Duration = Duration::from_mins(5);

/// Protocols of one member. Clients have one to four.
const PROTOCOLS_MAX: usize = 64;

/// What a random UUID and its dash add to a client's or instance's name to make a member id.
const MEMBER_ID_SUFFIX: usize = 37;

/// Refuses what could not be recorded later.
pub(super) fn check(join: &Join) -> Result<(), GroupError> {
    let named = join.instance_id.as_ref().unwrap_or(&join.client_id);
    let names = [&join.client_id, &join.client_host, &join.protocol_type, &join.member_id];
    let protocols = join.protocols.iter().map(|(name, _)| name);
    if join.protocols.len() > PROTOCOLS_MAX {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    let fit = names.into_iter().chain(protocols).all(|name| name.len() <= STRING_BYTES_MAX);
    if fit && named.len() <= STRING_BYTES_MAX - MEMBER_ID_SUFFIX { Ok(()) } else { Err(GroupError::NameTooLong) }
}

impl Group {
    pub fn join(&mut self, step: &mut Step, token: Token, join: &Join) {
        if !self.has_room_for(step, &join.member_id) {
            self.remove(&join.member_id);
            self.pending.remove(join.member_id.as_str());
            refuse(step, token, "", GroupError::GroupMaxSizeReached);
        } else if !self.accepts(&join.protocol_type, &join.protocols) {
            refuse(step, token, &join.member_id, GroupError::InconsistentGroupProtocol);
        } else if join.member_id.is_empty() {
            self.join_as_nobody(step, token, join);
        } else {
            self.join_as_member(step, token, join);
        }
        self.maybe_complete_join(step);
    }

    /// What whoever joins has brought with it before; `None` where it is no member.
    pub fn protocol_bytes(&self, join: &Join) -> Option<usize> {
        let holder = join.instance_id.as_ref().and_then(|instance| self.statics.get(instance.as_str()));
        let member = self.members.get(holder.map_or(join.member_id.as_str(), |id| id))?;
        Some(member.protocols.iter().map(|(name, bytes)| name.len() + bytes.len()).sum())
    }

    fn has_room_for(&self, step: &Step, member: &str) -> bool {
        let present = self.members.get(member);
        match self.phase {
            Phase::Empty => true,
            // By who has joined: a group over its limit, made smaller by the operator, lets go of those that come last.
            Phase::Preparing { .. } => {
                present.is_some_and(|member| member.joining.is_some()) || self.joining() < step.config.members_max
            }
            Phase::Completing { .. } | Phase::Stable { .. } => {
                present.is_some() || self.members.len() < step.config.members_max
            }
        }
    }

    fn join_as_nobody(&mut self, step: &mut Step, token: Token, join: &Join) {
        let named = join.instance_id.as_ref().unwrap_or(&join.client_id);
        let id: Name = format!("{named}-{}", uuid::Builder::from_random_bytes(join.random).into_uuid()).into();
        match &join.instance_id {
            Some(instance) if self.statics.contains_key(instance.as_str()) => {
                self.replace_static(step, token, join, instance, &id);
            }
            None if join.version >= 4 => {
                self.pending.insert(Arc::clone(&id), step.now.uptime + millis(join.session_timeout_ms));
                refuse(step, token, &id, GroupError::MemberIdRequired);
            }
            _ => self.add(step, token, join, &id),
        }
    }

    fn join_as_member(&mut self, step: &mut Step, token: Token, join: &Join) {
        let id = join.member_id.as_str();
        if self.pending.contains_key(id) && join.instance_id.is_none() {
            return self.add(step, token, join, &Name::from(id));
        }
        if let Err(error) = self.check_member(id, join.instance_id.as_deref()) {
            return refuse(step, token, id, error);
        }
        let member = self.members.get(id).expect("the member was just checked");
        let same = same_protocols(&member.protocols, &join.protocols);
        let rebalance = match self.phase {
            Phase::Empty => unreachable!("an empty group has no members"),
            Phase::Preparing { .. } => true,
            // It may not have had the answer to its first join.
            Phase::Completing { .. } => !same,
            // The leader joins again to have topics that changed assigned.
            Phase::Stable { .. } => !same || self.is_leader(id),
        };
        if rebalance {
            self.update(step, token, join, &Name::from(id));
            self.maybe_prepare(step);
        } else {
            let members = matches!(self.phase, Phase::Completing { .. }) && self.is_leader(id);
            let joined = Joined { members: if members { self.roster() } else { Vec::new() }, ..self.joined(id) };
            step.reply(token, Reply::Join(Ok(joined)));
        }
    }

    fn add(&mut self, step: &mut Step, token: Token, join: &Join, id: &Name) {
        if let Phase::Preparing { initial: Some(Initial { grew, .. }), .. } = &mut self.phase
            && self.generation == 0
        {
            *grew = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.as_str().into());
        }
        let member = Member {
            instance: join.instance_id.as_deref().map(Into::into),
            client_id: join.client_id.as_str().into(),
            client_host: join.client_host.as_str().into(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: own_protocols(&join.protocols),
            assignment: Bytes::new(),
            session_end: step.now.uptime + NEW_MEMBER_TIME,
            joining: Some(token),
            syncing: None,
            is_new: true,
            owes_sync: false,
        };
        self.pending.remove(id);
        if let Some(instance) = &member.instance {
            self.statics.insert(Arc::clone(instance), Arc::clone(id));
        }
        self.leader.get_or_insert_with(|| Arc::clone(id));
        self.members.insert(Arc::clone(id), member);
        self.maybe_prepare(step);
    }

    /// Takes over what a known member says of itself in a new join, and parks the join.
    fn update(&mut self, step: &mut Step, token: Token, join: &Join, id: &Name) {
        let member = self.members.get_mut(id).expect("the caller has checked that the member is here");
        member.protocols = own_protocols(&join.protocols);
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        // An older join of the same member came over a connection that its client has given up.
        if let Some(older) = member.joining.replace(token) {
            refuse(step, older, id, GroupError::RebalanceInProgress);
        }
    }

    /// A static member comes back without its member id: it gets a new one, and the old one is fenced.
    fn replace_static(&mut self, step: &mut Step, token: Token, join: &Join, instance: &str, id: &Name) {
        let old = self.statics.get(instance).cloned().expect("the caller has found the instance");
        let leader = self.leader.as_deref().unwrap_or_default().to_owned();
        let mut member = self.members.remove(&old).expect("an instance names a member");
        if let Some(older) = member.joining.take() {
            refuse(step, older, &old, GroupError::FencedInstanceId);
        }
        if let Some(older) = member.syncing.take() {
            step.reply(older, Reply::Sync(Err(GroupError::FencedInstanceId)));
        }
        member.heard(step.now);
        self.members.insert(Arc::clone(id), member);
        self.statics.insert(instance.into(), Arc::clone(id));
        if self.is_leader(&old) {
            self.leader = Some(Arc::clone(id));
        }
        self.update(step, token, join, id);
        match self.phase {
            Phase::Empty => unreachable!("an empty group has no members"),
            Phase::Preparing { .. } => {}
            Phase::Stable { .. } if self.protocol.as_ref() == Some(&self.elect_protocol()) => {
                self.rejoin_quietly(step, token, join, id, leader);
            }
            // A leader at work has the old id before it: its assignment would miss the new one.
            Phase::Completing { .. } | Phase::Stable { .. } => self.prepare(step),
        }
    }

    /// A static member is back in a stable group that it does not change: it is told its generation, others nothing.
    fn rejoin_quietly(&mut self, step: &mut Step, token: Token, join: &Join, id: &Name, old_leader: String) {
        self.members.get_mut(id).expect("the caller put it there").joining = None;
        if !step.record(self) {
            // Nothing to go back to would be better than a rebalance: the next generation is as large or smaller.
            self.members.get_mut(id).expect("the caller put it there").joining = Some(token);
            return self.prepare(step);
        }
        let joined = self.joined(id);
        let joined = if join.version >= 9 {
            let leads = self.is_leader(id);
            Joined { skip_assignment: leads, members: if leads { self.roster() } else { Vec::new() }, ..joined }
        } else {
            // Before version 9 only another leader's id keeps it from an assignment that nobody would take.
            Joined { leader: old_leader, ..joined }
        };
        step.reply(token, Reply::Join(Ok(joined)));
    }

    /// The generation as a follower is told of it.
    pub fn joined(&self, id: &str) -> Joined {
        Joined {
            member_id: id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.as_deref().map(str::to_owned),
            protocol: self.protocol.as_deref().map(str::to_owned),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

pub(super) fn refuse(step: &mut Step, token: Token, member: &str, error: GroupError) {
    step.reply(token, Reply::Join(Err(JoinRefused { member_id: member.to_owned(), error })));
}

/// Copied, so that a request's buffer is not kept for a few bytes of it.
fn own_protocols(protocols: &[(String, Bytes)]) -> Vec<(Name, Bytes)> {
    protocols.iter().map(|(name, bytes)| (name.as_str().into(), Bytes::copy_from_slice(bytes))).collect()
}

fn same_protocols(mine: &[(Name, Bytes)], theirs: &[(String, Bytes)]) -> bool {
    mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(a, b)| *a.0 == *b.0 && a.1 == b.1)
}
