//! From one generation to the next: when to begin, when to wait no longer, and what time does to members.
//!
//! Sources: Kafka 3.9 `GroupCoordinator.prepareRebalance`, `onCompleteJoin`, `onExpireHeartbeat`, `onExpirePendingSync`,
//! `DelayedJoin`, `InitialDelayedJoin`; KIP-134 (initial delay).

use std::sync::Arc;

use bytes::Bytes;

use super::join::refuse;
use super::request::{GroupError, Joined, Reply};
use super::state::{Group, Initial, Member, Name, Phase};
use super::step::Step;

impl Group {
    /// Begins a rebalance unless one is being prepared already.
    pub fn maybe_prepare(&mut self, step: &mut Step) {
        if !matches!(self.phase, Phase::Preparing { .. }) {
            self.prepare(step);
        }
    }

    pub fn prepare(&mut self, step: &mut Step) {
        if matches!(self.phase, Phase::Completing { .. }) {
            self.drop_assignment(step, GroupError::RebalanceInProgress);
        }
        let timeout = self.rebalance_timeout();
        let now = step.now.uptime;
        let phase = if self.phase == Phase::Empty {
            let delay = step.config.initial_rebalance_delay;
            let initial = Initial { left: timeout.saturating_sub(delay), grew: false };
            Phase::Preparing { deadline: now + delay, initial: Some(initial) }
        } else {
            Phase::Preparing { deadline: now + timeout, initial: None }
        };
        for member in self.members.values_mut() {
            member.owes_sync = false;
        }
        self.enter(phase, step.now);
        self.maybe_complete_join(step);
    }

    /// Who waits for an assignment is told that there will be none.
    pub fn drop_assignment(&mut self, step: &mut Step, error: GroupError) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(token) = member.syncing.take() {
                member.heard(step.now);
                step.reply(token, Reply::Sync(Err(error)));
            }
        }
    }

    /// Makes the generation when all have joined, or when the time for it is over.
    pub fn maybe_complete_join(&mut self, step: &mut Step) {
        let Phase::Preparing { deadline, initial } = self.phase else { return };
        let due = deadline <= step.now.uptime;
        match initial {
            Some(Initial { left, grew: true }) if due && !left.is_zero() => {
                let delay = step.config.initial_rebalance_delay.min(left);
                let initial = Initial { left: left.saturating_sub(delay), grew: false };
                self.phase = Phase::Preparing { deadline: step.now.uptime + delay, initial: Some(initial) };
            }
            Some(_) if !due => {}
            None if !due && !self.all_joined() => {}
            _ => self.complete_join(step),
        }
    }

    fn complete_join(&mut self, step: &mut Step) {
        let absent = |(id, member): (&Name, &Member)| {
            (member.joining.is_none() && member.instance.is_none()).then(|| Arc::clone(id))
        };
        for id in self.members.iter().filter_map(absent).collect::<Vec<_>>() {
            self.remove(&id);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Nobody is there but static members that have not come: wait until they do, or their sessions end.
            let deadline = step.now.uptime + self.rebalance_timeout();
            self.phase = Phase::Preparing { deadline, initial: None };
            return;
        }
        if !(step.config.sabotage_keep_generation && self.generation > 0) {
            self.generation = self.generation.checked_add(1).expect("no group lives through 2^31 rebalances");
        }
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(Phase::Empty, step.now);
            assert!(step.record(self), "a generation without members fits every record");
            return;
        }
        self.protocol = Some(self.elect_protocol());
        self.enter(Phase::Completing { sync_by: step.now.uptime + self.rebalance_timeout() }, step.now);
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("the id was just listed");
            member.heard(step.now);
            member.is_new = false;
            member.owes_sync = true;
            if let Some(token) = member.joining.take() {
                let members = if self.is_leader(&id) { self.roster() } else { Vec::new() };
                step.reply(token, Reply::Join(Ok(Joined { members, ..self.joined(&id) })));
            }
        }
    }

    /// A leader that has not joined loses its place to one that has. `false`: nobody has joined.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |id: &Name| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let joined = self.members.keys().find(|id| has_joined(id)).cloned();
        let found = joined.is_some();
        if found {
            self.leader = joined;
        }
        found
    }

    /// Takes a member out and lets the others know. A join that it waits for is refused, so that a client that is
    /// still there begins anew.
    pub fn expel(&mut self, step: &mut Step, id: &str) {
        let Some(member) = self.remove(id) else { return };
        if let Some(token) = member.joining {
            refuse(step, token, "", GroupError::UnknownMemberId);
        }
        if let Some(token) = member.syncing {
            step.reply(token, Reply::Sync(Err(GroupError::UnknownMemberId)));
        }
        match self.phase {
            Phase::Empty => {}
            Phase::Preparing { .. } => self.maybe_complete_join(step),
            Phase::Completing { .. } | Phase::Stable { .. } => self.prepare(step),
        }
    }

    /// Does what time has brought: sessions, unused ids, joins and syncs that took too long.
    pub fn expire(&mut self, step: &mut Step) {
        let now = step.now.uptime;
        self.pending.retain(|_, end| *end > now);
        let ended =
            |(id, member): (&Name, &Member)| (member.can_expire() && member.session_end <= now).then(|| Arc::clone(id));
        for id in self.members.iter().filter_map(ended).collect::<Vec<_>>() {
            self.expel(step, &id);
        }
        match self.phase {
            Phase::Preparing { .. } => self.maybe_complete_join(step),
            Phase::Completing { sync_by } | Phase::Stable { sync_by: Some(sync_by) } if sync_by <= now => {
                let owes = |(id, member): (&Name, &Member)| member.owes_sync.then(|| Arc::clone(id));
                for id in self.members.iter().filter_map(owes).collect::<Vec<_>>() {
                    self.remove(&id);
                }
                self.prepare(step);
            }
            Phase::Empty | Phase::Completing { .. } | Phase::Stable { .. } => {}
        }
    }
}
