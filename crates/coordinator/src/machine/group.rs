//! The group coordinator's machine: all classic groups of one partition of `__consumer_offsets`, and their offsets.
//!
//! Owns: which member is in which generation, what each was assigned, which offsets are committed. Leaves to others:
//! which group belongs to which partition, whether a topic exists and who may do what (`api`), the log (its host).
//!
//! What happens to a group:
//! ```text
//!          first join                all have joined, or time is up         the leader's assignment
//!   Empty ────────────▶ Preparing ───────────────────────────────▶ Completing ─────────────────────▶ Stable
//!     ▲                  │     ▲                                        │                              │
//!     └──────────────────┘     └────────────────────────────────────────┴──────────────────────────────┘
//!       nobody has joined         a member comes, goes, changes what it reads, or does not sync in time
//! ```
//! Only `Empty` and `Stable` are recorded; a restart comes back to the last of these, and members that were between
//! two generations learn so from the answer to their next request.
//!
//! Invariants:
//! 1. The state is ahead of the log by the records of outputs that the host has not seen durable yet; what is told
//!    to clients is not, since replies wait (`machine`, invariant 3).
//! 2. A join or sync that waits is answered exactly once: at the latest when its member goes, or by [`GroupMachine::close`].
//! 3. Each group has an alarm at or before its earliest deadline. Heartbeats only move deadlines away, so they leave
//!    the alarm alone: it rings early, and is set anew.
//! 4. Nothing here depends on the order of a hash map: the same calls give the same outputs.
//!
//! Sources: Kafka 3.9 `GroupCoordinator`, `GroupMetadata`, `GroupMetadataManager`.

mod commit;
mod config;
mod join;
mod load;
mod offsets;
mod rebalance;
mod request;
mod session;
mod state;
mod step;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use forebay_types::{Offset, ProducerId, TopicId, TopicName};

pub use config::GroupConfig;
pub use load::{Loading, Replayed};
pub use request::{
    Caller, Commit, CommitPartition, CommitTopic, DeleteOffsets, Described, DescribedMember, Fetch, FetchTopic,
    FetchedPartition, FetchedTopic, GroupError, GroupState, Heartbeat, Join, JoinRefused, Joined, JoinedMember, Leave,
    Leaver, Left, List, Listed, Position, Reply, Request, Sync, Synced, TopicResults,
};

use self::state::{Group, Name};
use self::step::Step;
use super::{Now, Output, Producer, Token};
use crate::schema::STRING_BYTES_MAX;

/// Header of an offset's record: the 16 bytes of the id of the topic it was committed for. It stands in a header,
/// since the versions of the value that all of Kafka's tools read have no room for it.
pub const TOPIC_ID_HEADER: &str = "forebay.topic-id";

/// Groups looked at by one call of [`GroupMachine::sweep`].
const SWEEP_GROUPS_MAX: usize = 512;

/// All groups of one partition. Opened through [`Loading`].
#[derive(Debug)]
pub struct GroupMachine {
    config: Arc<GroupConfig>,
    groups: BTreeMap<Name, Group>,
    /// In which groups a producer's open transaction has staged offsets. May name groups where it has none any more.
    staging: BTreeMap<ProducerId, BTreeSet<Name>>,
    alarms: BTreeSet<(Duration, Name)>,
    /// What the members of all groups take up.
    member_bytes: usize,
    /// The last group that a sweep has looked at.
    swept: Option<Name>,
}

impl GroupMachine {
    fn empty(config: GroupConfig) -> Self {
        Self {
            config: Arc::new(config),
            groups: BTreeMap::new(),
            staging: BTreeMap::new(),
            alarms: BTreeSet::new(),
            member_bytes: 0,
            swept: None,
        }
    }

    /// Takes a request; `at` is the offset at which the output's first record will stand.
    ///
    /// A reply may come in the output, or for a join or sync in that of a later call. The output may hold replies to
    /// older requests.
    pub fn handle(&mut self, now: Now, at: Offset, token: Token, request: Request) -> Output<Reply> {
        let mut step = Step::new(&self.config, now, at);
        match request {
            Request::Join(join) => self.join(&mut step, token, &join),
            Request::Sync(sync) => self.sync(&mut step, token, &sync),
            Request::Heartbeat(heartbeat) => {
                let found = self.groups.get_mut(heartbeat.group.as_str());
                let result = match (check_id(&heartbeat.group), found) {
                    (Err(error), _) => Err(error),
                    (_, None) => Err(GroupError::UnknownMemberId),
                    (_, Some(group)) => {
                        // Others' commits are nothing to a member that says it is alive.
                        step.out.rests_on = Some(group.recorded_end);
                        group.heartbeat(&step, &heartbeat.caller)
                    }
                };
                step.reply(token, Reply::Heartbeat(result));
            }
            Request::Leave(leave) => self.leave(&mut step, token, &leave),
            Request::Commit(commit) => {
                let result = self.commit(&mut step, &commit);
                step.reply(token, Reply::Commit(result));
            }
            Request::CommitInTransaction(producer, commit) => {
                let result = self.commit_in_transaction(&mut step, producer, &commit);
                step.reply(token, Reply::Commit(result));
            }
            Request::Fetch(fetch) => {
                let fetched = match self.groups.get(fetch.group.as_str()) {
                    Some(group) => group.fetch(&fetch),
                    None => Group::new("").fetch(&fetch),
                };
                step.reply(token, Reply::Fetch(fetched));
            }
            Request::DeleteOffsets(delete) => {
                let result = self.on(&delete.group, |group| group.delete_offsets(&mut step, &delete));
                step.reply(token, Reply::DeleteOffsets(result.unwrap_or(Err(GroupError::GroupIdNotFound))));
            }
            Request::DeleteGroup { group } => {
                let result = self.on(&group, |group| group.delete(&mut step));
                step.reply(token, Reply::DeleteGroup(result.unwrap_or(Err(GroupError::GroupIdNotFound))));
            }
            Request::Describe { group } => {
                let described = self.groups.get(group.as_str()).map(Group::describe);
                step.reply(token, Reply::Describe(described));
            }
            Request::List(list) => step.reply(token, Reply::List(self.list(&list))),
        }
        step.out
    }

    /// Does what time has brought. To be called at [`Self::next_deadline`], or whenever; `at` as in [`Self::handle`].
    pub fn tick(&mut self, now: Now, at: Offset) -> Output<Reply> {
        let mut step = Step::new(&self.config, now, at);
        while self.next_deadline().is_some_and(|deadline| deadline <= now.uptime) {
            let (_, id) = self.alarms.pop_first().expect("the first deadline is an alarm's");
            let group = self.groups.get_mut(&id).expect("a group that goes takes its alarm along");
            group.alarm = None;
            group.expire(&mut step);
            self.settle(&id);
        }
        step.out
    }

    /// When to call [`Self::tick`] next, by [`Now::uptime`].
    pub fn next_deadline(&self) -> Option<Duration> {
        self.alarms.first().map(|(alarm, _)| *alarm)
    }

    /// Drops offsets whose retention is over and groups that nothing is left of, among the next few hundred groups: to
    /// be called now and then, and again soon while [`Self::is_sweeping`], as long as the wall clock can be trusted. `at` as
    /// in [`Self::handle`].
    pub fn sweep(&mut self, now: Now, at: Offset) -> Output<Reply> {
        let mut step = Step::new(&self.config, now, at);
        let from = self.swept.take().map_or(Bound::Unbounded, Bound::Excluded);
        let ids: Vec<Name> = self
            .groups
            .range::<Name, _>((from, Bound::Unbounded))
            .take(SWEEP_GROUPS_MAX)
            .map(|(id, _)| id.clone())
            .collect();
        if ids.len() == SWEEP_GROUPS_MAX {
            self.swept = ids.last().cloned();
        }
        for id in ids {
            self.on(&id, |group| group.sweep(&mut step));
        }
        step.out
    }

    /// Whether the last sweep has left groups for the next.
    pub fn is_sweeping(&self) -> bool {
        self.swept.is_some()
    }

    /// The producer's transaction is over and its marker stands in this partition: what it staged here is committed,
    /// or forgotten. No reply: the caller waits for the marker.
    pub fn transaction_ended(&mut self, producer: ProducerId, committed: bool) {
        for id in self.staging.remove(&producer).unwrap_or_default() {
            // No deadline moves, and while a log is being replayed there are none.
            if let Some(group) = self.groups.get_mut(&id) {
                group.offsets.end_transaction(producer, committed);
            }
            self.drop_if_vacant(&id);
        }
    }

    /// A topic is gone, and with it the offsets committed for it. Looks at every group. `at` as in [`Self::handle`].
    pub fn topic_deleted(&mut self, now: Now, at: Offset, topic: &TopicName, id: TopicId) -> Output<Reply> {
        let mut step = Step::new(&self.config, now, at);
        let touched = self.groups.values().filter(|group| group.offsets.touches(topic)).map(|group| group.id.clone());
        for group in touched.collect::<Vec<_>>() {
            self.on(&group, |group| group.forget_topic(&mut step, topic, id));
        }
        step.out
    }

    /// The partition goes to another broker: who waits here is sent there.
    pub fn close(self) -> Vec<(Token, Reply)> {
        let mut replies = Vec::new();
        let error = GroupError::NotCoordinator;
        for (id, member) in self.groups.values().flat_map(|group| &group.members) {
            let refused = JoinRefused { member_id: id.to_string(), error };
            replies.extend(member.joining.map(|token| (token, Reply::Join(Err(refused)))));
            replies.extend(member.syncing.map(|token| (token, Reply::Sync(Err(error)))));
        }
        replies
    }

    fn join(&mut self, step: &mut Step, token: Token, join: &Join) {
        let bounds = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        let exists = self.groups.contains_key(join.group.as_str());
        let error = match check_id(&join.group).and_then(|()| join::check(join)) {
            Err(error) => Some(error),
            Ok(()) if !bounds.contains(&join.session_timeout_ms) => Some(GroupError::InvalidSessionTimeout),
            Ok(()) if !exists && !join.member_id.is_empty() => Some(GroupError::UnknownMemberId),
            Ok(()) => None,
        };
        if let Some(error) = error {
            return join::refuse(step, token, &join.member_id, error);
        }
        let bytes = join.protocols.iter().map(|(name, bytes)| name.len() + bytes.len()).sum::<usize>();
        // Who is in stays in, with as much as it has: others' members must not end its group.
        let has = self.groups.get(join.group.as_str()).and_then(|group| group.protocol_bytes(join));
        let grows = has.is_none_or(|has| bytes > has);
        if grows && self.member_bytes + bytes - has.unwrap_or(0) > self.config.member_bytes_max {
            return join::refuse(step, token, &join.member_id, GroupError::GroupMaxSizeReached);
        }
        self.group_or_new(&join.group).join(step, token, join);
        self.settle(&join.group);
    }

    fn sync(&mut self, step: &mut Step, token: Token, sync: &Sync) {
        step.member_bytes_left = self.config.member_bytes_max.saturating_sub(self.member_bytes);
        let error = match check_id(&sync.group) {
            Ok(()) => match self.on(&sync.group, |group| group.sync(step, token, sync)) {
                Some(()) => return,
                None => GroupError::UnknownMemberId,
            },
            Err(error) => error,
        };
        step.reply(token, Reply::Sync(Err(error)));
    }

    fn leave(&mut self, step: &mut Step, token: Token, leave: &Leave) {
        if let Err(error) = check_id(&leave.group) {
            return step.reply(token, Reply::Leave(Err(error)));
        }
        let unknown = |leaver: &Leaver| Left { leaver: leaver.clone(), result: Err(GroupError::UnknownMemberId) };
        let left = self
            .on(&leave.group, |group| leave.members.iter().map(|leaver| group.leave(step, leaver)).collect::<Vec<_>>());
        let left = left.unwrap_or_else(|| leave.members.iter().map(unknown).collect());
        step.reply(token, Reply::Leave(Ok(left)));
    }

    fn commit(&mut self, step: &mut Step, commit: &Commit) -> Result<Vec<TopicResults>, GroupError> {
        check_length(&commit.group)?;
        if !self.groups.contains_key(commit.group.as_str()) && commit.caller.generation >= 0 {
            return Err(GroupError::IllegalGeneration);
        }
        let result = self.group_or_new(&commit.group).commit(step, commit);
        self.drop_if_vacant(&commit.group);
        result
    }

    fn commit_in_transaction(
        &mut self,
        step: &mut Step,
        producer: Producer,
        commit: &Commit,
    ) -> Result<Vec<TopicResults>, GroupError> {
        check_id(&commit.group)?;
        step.out.producer = Some(producer);
        let group = self.group_or_new(&commit.group);
        let id = Arc::clone(&group.id);
        let result = group.commit_in_transaction(step, producer.id, commit);
        if !self.drop_if_vacant(&commit.group) && result.is_ok() {
            self.staging.entry(producer.id).or_default().insert(id);
        }
        result
    }

    fn list(&self, list: &List) -> Vec<Listed> {
        let passes = |filter: &[String], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let row = |group: &Group| Listed {
            group: group.id.to_string(),
            protocol_type: group.protocol_type.as_deref().unwrap_or_default().to_owned(),
            state: group.state(),
        };
        let all = self.groups.values().map(row);
        all.filter(|it| passes(&list.types, List::TYPE) && passes(&list.states, it.state.name())).collect()
    }

    fn group_or_new(&mut self, id: &str) -> &mut Group {
        if !self.groups.contains_key(id) {
            self.groups.insert(id.into(), Group::new(id));
        }
        self.groups.get_mut(id).expect("it was there or has just been made")
    }

    /// Does something with a group that exists, and sees to its alarm.
    fn on<T>(&mut self, id: &str, work: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let done = work(self.groups.get_mut(id)?);
        self.settle(id);
        Some(done)
    }

    /// After any change but a heartbeat's: the alarm is set to the group's earliest deadline, or the group goes.
    fn settle(&mut self, id: &str) {
        if self.drop_if_vacant(id) {
            return;
        }
        let group = self.groups.get_mut(id).expect("a group that is not vacant stays");
        let bytes = group.heap_bytes();
        self.member_bytes = self.member_bytes - group.counted_bytes + bytes;
        group.counted_bytes = bytes;
        let deadline = group.deadline();
        if deadline != group.alarm {
            if let Some(alarm) = group.alarm {
                self.alarms.remove(&(alarm, Arc::clone(&group.id)));
            }
            self.alarms.extend(deadline.map(|deadline| (deadline, Arc::clone(&group.id))));
            group.alarm = deadline;
        }
    }

    fn drop_if_vacant(&mut self, id: &str) -> bool {
        let vacant = self.groups.get(id).is_none_or(Group::is_vacant);
        if vacant && let Some(group) = self.groups.remove(id) {
            self.member_bytes -= group.counted_bytes;
            if let Some(alarm) = group.alarm {
                self.alarms.remove(&(alarm, group.id));
            }
        }
        vacant
    }

    /// Every member is heard of now; a group with more members than it may have lets the last ones go.
    fn begin_sessions(&mut self, now: Now) {
        let ids: Vec<Name> = self.groups.keys().cloned().collect();
        for id in ids {
            let mut step = Step::new(&self.config, now, Offset::ZERO);
            let members_max = self.config.members_max;
            self.on(&id, |group| {
                for member in group.members.values_mut() {
                    member.heard(now);
                }
                if group.members.len() > members_max {
                    group.prepare(&mut step);
                }
            });
            assert!(step.out.records.is_empty(), "a group in which nobody waits has nothing to record");
        }
    }
}

/// Groups with members have a name; who keeps only offsets need not have one, for old clients' sake.
fn check_id(group: &str) -> Result<(), GroupError> {
    if group.is_empty() { Err(GroupError::InvalidGroupId) } else { check_length(group) }
}

fn check_length(group: &str) -> Result<(), GroupError> {
    if group.len() > STRING_BYTES_MAX { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}
