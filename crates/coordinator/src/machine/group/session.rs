//! SyncGroup, Heartbeat and LeaveGroup: the life of a member in its generation.
//!
//! Sources: Kafka 3.9 `GroupCoordinator.handleSyncGroup`, `handleHeartbeat`, `handleLeaveGroup`; KIP-559 (protocol in
//! SyncGroup), KIP-345 (many leave at once).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::request::{Caller, GroupError, Leaver, Left, Reply, Sync, Synced};
use super::state::{Group, Phase};
use super::step::Step;
use crate::machine::Token;

impl Group {
    /// Whether the caller is a member of the generation that it names.
    pub fn check_caller(&self, caller: &Caller) -> Result<(), GroupError> {
        self.check_member(&caller.member_id, caller.instance_id.as_deref())?;
        if caller.generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    pub fn sync(&mut self, step: &mut Step, token: Token, sync: &Sync) {
        if let Err(error) = self.check_sync(sync) {
            return step.reply(token, Reply::Sync(Err(error)));
        }
        let id = sync.caller.member_id.as_str();
        let leads = self.is_leader(id);
        let member = self.members.get_mut(id).expect("the caller was just checked");
        match self.phase {
            Phase::Empty => unreachable!("an empty group has no members"),
            Phase::Preparing { .. } => step.reply(token, Reply::Sync(Err(GroupError::RebalanceInProgress))),
            Phase::Completing { .. } => {
                member.owes_sync = false;
                if let Some(older) = member.syncing.replace(token) {
                    step.reply(older, Reply::Sync(Err(GroupError::RebalanceInProgress)));
                }
                if leads {
                    self.assign(step, &sync.assignments);
                }
            }
            Phase::Stable { .. } => {
                member.owes_sync = false;
                member.heard(step.now);
                let assignment = member.assignment.clone();
                let synced = self.synced(assignment);
                step.reply(token, Reply::Sync(Ok(synced)));
                self.settle();
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        self.check_caller(&sync.caller)?;
        let differs = |asked: Option<&str>, ours: Option<&str>| asked.is_some() && asked != ours;
        if differs(sync.protocol_type.as_deref(), self.protocol_type.as_deref())
            || differs(sync.protocol.as_deref(), self.protocol.as_deref())
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// The leader's assignment: recorded, and given to all that wait for it. Who is not named in it gets nothing.
    fn assign(&mut self, step: &mut Step, assignments: &[(String, Bytes)]) {
        let Phase::Completing { sync_by } = self.phase else {
            unreachable!("the caller has seen that the generation is being completed")
        };
        let before = self.heap_bytes();
        // Of two for one member the later counts.
        let given: BTreeMap<&str, &Bytes> = assignments.iter().map(|(id, bytes)| (id.as_str(), bytes)).collect();
        for (id, member) in &mut self.members {
            member.assignment = given.get(&**id).map_or_else(Bytes::new, |bytes| Bytes::copy_from_slice(bytes));
        }
        self.enter(Phase::Stable { sync_by: Some(sync_by) }, step.now);
        // The record holds them once more, in place of the last one.
        let records = (self.to_record().encode().len(), self.recorded.as_ref().map_or(0, Bytes::len));
        let grows = (self.heap_bytes() + records.0).saturating_sub(before + records.1);
        if grows > step.member_bytes_left || !step.record(self) {
            self.enter(Phase::Completing { sync_by }, step.now);
            self.drop_assignment(step, GroupError::GenerationTooLarge);
            return self.prepare(step);
        }
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("the id was just listed");
            if let Some(token) = member.syncing.take() {
                member.heard(step.now);
                let assignment = member.assignment.clone();
                let synced = self.synced(assignment);
                step.reply(token, Reply::Sync(Ok(synced)));
            }
        }
        self.settle();
    }

    /// Once all have asked for their assignment, nobody must do so any more.
    fn settle(&mut self) {
        if let Phase::Stable { sync_by } = &mut self.phase
            && !self.members.values().any(|member| member.owes_sync)
        {
            *sync_by = None;
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.as_deref().map(str::to_owned),
            protocol: self.protocol.as_deref().map(str::to_owned),
            assignment,
        }
    }

    pub fn heartbeat(&mut self, step: &Step, caller: &Caller) -> Result<(), GroupError> {
        self.check_caller(caller)?;
        let member = self.members.get_mut(caller.member_id.as_str()).expect("the caller was just checked");
        member.heard(step.now);
        // A member may send heartbeats as soon as it has joined, before the leader has assigned anything.
        if matches!(self.phase, Phase::Preparing { .. }) { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
    }

    pub fn leave(&mut self, step: &mut Step, leaver: &Leaver) -> Left {
        let result = self.leaving(leaver).map(|id| {
            if self.pending.remove(id.as_str()).is_some() {
                self.maybe_complete_join(step);
            } else {
                self.expel(step, &id);
            }
        });
        Left { leaver: leaver.clone(), result }
    }

    /// The member id that leaves.
    fn leaving(&self, leaver: &Leaver) -> Result<String, GroupError> {
        let instance = leaver.instance_id.as_deref();
        if leaver.member_id.is_empty() {
            // An operator names instances only.
            let holder = instance.and_then(|instance| self.statics.get(instance));
            return holder.map(ToString::to_string).ok_or(GroupError::UnknownMemberId);
        }
        if !self.pending.contains_key(leaver.member_id.as_str()) {
            self.check_member(&leaver.member_id, instance)?;
        }
        Ok(leaver.member_id.clone())
    }
}
