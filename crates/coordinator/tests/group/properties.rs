//! Random histories of a few groups keep the machine's promises.
//!
//! Shown after every step: the live state, its log and its snapshots agree. To clients: each request is answered once;
//! generations do not go back; a generation has one leader; a share is one that this generation's leader gave.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use forebay_coordinator::machine::group::{
    Caller, Commit, CommitPartition, CommitTopic, DeleteOffsets, GroupConfig, GroupError, Heartbeat, Join, JoinRefused,
    Leave, Leaver, Loading, Reply, Request, Sync as SyncRequest,
};
use forebay_coordinator::machine::{Output, Producer, Token};
use forebay_coordinator::schema::OffsetsKey;
use forebay_types::{ProducerEpoch, ProducerId, TopicId, TopicName};
use proptest::prelude::*;

use crate::script::World;

/// One step of a history. A member is chosen among those that clients know of.
#[derive(Clone, Debug)]
enum Act {
    Join { group: u8, member: Option<usize>, instance: Option<u8>, protocols: u8, version: i16 },
    Sync { member: usize },
    Heartbeat { member: usize },
    Leave { member: usize },
    Commit { group: u8, member: Option<usize>, partition: i32, producer: Option<i64>, topic_id: u8 },
    Marker { producer: i64, committed: bool },
    DeleteOffset { group: u8, partition: i32 },
    DeleteGroup { group: u8 },
    DeleteTopic { topic_id: u8 },
    Wait { millis: u64 },
    Sweep,
    Snapshot,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let group = || 0..2_u8;
    let member = || 0..4_usize;
    let version = prop_oneof![Just(3_i16), Just(8), Just(9)];
    let join = (group(), prop::option::of(member()), prop::option::weighted(0.3, 0..2_u8), 1..4_u8, version);
    let commit = (group(), prop::option::of(member()), 0..3_i32, prop::option::of(0..2_i64), 0..3_u8);
    prop_oneof![
        8 => join.prop_map(|(group, member, instance, protocols, version)| {
            Act::Join { group, member, instance, protocols, version }
        }),
        12 => member().prop_map(|member| Act::Sync { member }),
        3 => member().prop_map(|member| Act::Heartbeat { member }),
        2 => member().prop_map(|member| Act::Leave { member }),
        6 => commit.prop_map(|(group, member, partition, producer, topic_id)| {
            Act::Commit { group, member, partition, producer, topic_id }
        }),
        2 => (0..2_i64, any::<bool>()).prop_map(|(producer, committed)| Act::Marker { producer, committed }),
        1 => (group(), 0..3_i32).prop_map(|(group, partition)| Act::DeleteOffset { group, partition }),
        1 => group().prop_map(|group| Act::DeleteGroup { group }),
        1 => (1..3_u8).prop_map(|topic_id| Act::DeleteTopic { topic_id }),
        8 => prop_oneof![3 => 0..4_000_u64, 1 => 4_000..40_000_u64].prop_map(|millis| Act::Wait { millis }),
        1 => Just(Act::Sweep),
        1 => Just(Act::Snapshot),
        1 => Just(Act::Restart),
    ]
}

/// A member as its client knows it.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    group: String,
    instance: Option<String>,
    generation: i32,
    leads: bool,
}

/// What a request that is not answered yet was about.
enum Asked {
    Join {
        group: String,
        instance: Option<String>,
        member: String,
    },
    Sync {
        share_of: String,
        member: String,
    },
    /// A heartbeat or a leave.
    Stay {
        member: String,
    },
    Other,
}

#[derive(Default)]
struct Clients {
    /// Newest last.
    members: Vec<Known>,
    open: BTreeMap<Token, Asked>,
    generations: BTreeMap<String, i32>,
    leaders: BTreeMap<(String, i32), String>,
}

impl Clients {
    fn learn(&mut self, known: Known) {
        self.forget(&known.id);
        self.members.push(known);
    }

    fn forget(&mut self, member: &str) {
        self.members.retain(|known| known.id != member);
    }

    fn hear(&mut self, output: &Output<Reply>) {
        for (token, reply) in &output.replies {
            let asked = self.open.remove(token).expect("each request is answered once");
            match (asked, reply) {
                (Asked::Join { group, instance, .. }, Reply::Join(Err(refused)))
                    if refused.error == GroupError::MemberIdRequired =>
                {
                    let id = refused.member_id.clone();
                    self.learn(Known { id, group, instance, generation: -1, leads: false });
                }
                // Most clients begin anew with another id; some go on with the old one for a while.
                (
                    Asked::Join { member, .. },
                    Reply::Join(Err(JoinRefused { error: GroupError::UnknownMemberId, .. })),
                )
                | (Asked::Sync { member, .. }, Reply::Sync(Err(GroupError::UnknownMemberId)))
                | (Asked::Stay { member }, Reply::Heartbeat(Err(GroupError::UnknownMemberId)) | Reply::Leave(_)) => {
                    if token.0 % 4 != 0 {
                        self.forget(&member);
                    }
                }
                (Asked::Join { group, instance, .. }, Reply::Join(Ok(joined))) => {
                    let highest = self.generations.entry(group.clone()).or_default();
                    assert!(joined.generation >= *highest, "{group} went back to {}", joined.generation);
                    *highest = joined.generation;
                    let leads = !joined.members.is_empty() && !joined.skip_assignment;
                    if leads {
                        let place = (group.clone(), joined.generation);
                        let leader = self.leaders.entry(place).or_insert_with(|| joined.leader.clone());
                        assert_eq!(*leader, joined.member_id, "two leaders of one generation");
                    }
                    let (id, generation) = (joined.member_id.clone(), joined.generation);
                    self.learn(Known { id, group, instance, generation, leads });
                }
                (Asked::Sync { share_of, .. }, Reply::Sync(Ok(synced))) => {
                    let share = String::from_utf8_lossy(&synced.assignment).into_owned();
                    assert!(share.is_empty() || share.starts_with(&share_of), "{share} is not of {share_of}");
                }
                (Asked::Join { .. }, Reply::Join(Err(_))) | (Asked::Sync { .. }, Reply::Sync(Err(_))) => {}
                (Asked::Other | Asked::Stay { .. }, reply) => {
                    assert!(!matches!(reply, Reply::Join(_) | Reply::Sync(_)), "{reply:?}");
                }
                (_, reply) => panic!("{token:?} is answered by {reply:?}"),
            }
        }
        for record in &output.records {
            let key = OffsetsKey::parse(&record.key).expect("a machine writes only what it can read");
            if let (OffsetsKey::Group(key), None) = (key, &record.value) {
                self.generations.remove(&key.group);
                self.leaders.retain(|(group, _), _| *group != key.group);
            }
        }
    }

    fn member(&self, number: usize) -> Option<Known> {
        let known = self.members.len();
        (known > 0).then(|| self.members[known - 1 - number % known].clone())
    }
}

fn caller(member: Option<&Known>) -> Caller {
    member.map_or_else(
        || Caller { generation: -1, ..Caller::default() },
        |known| Caller {
            member_id: known.id.clone(),
            instance_id: known.instance.clone(),
            generation: known.generation,
        },
    )
}

fn topic_id(number: u8) -> Option<TopicId> {
    (number > 0).then(|| TopicId::from_random([number; 16]))
}

fn ask(world: &mut World, clients: &mut Clients, asked: Asked, request: Request) {
    clients.open.insert(Token(world.tokens + 1), asked);
    let output = world.request(request);
    clients.hear(&output);
}

fn perform(world: &mut World, clients: &mut Clients, act: &Act) {
    let topic = TopicName::new("t").expect("legal");
    match act {
        Act::Join { group, member, instance, protocols, version } => {
            let known = member.and_then(|number| clients.member(number));
            let group = known.as_ref().map_or_else(|| format!("g{group}"), |known| known.group.clone());
            let instance =
                known.as_ref().map_or_else(|| instance.map(|it| format!("i{it}")), |known| known.instance.clone());
            let names =
                ["a", "b", "c"].into_iter().enumerate().filter(|(bit, _)| protocols >> bit & 1 == 1 || *bit == 2);
            let mut random = [0; 16];
            random[8..].copy_from_slice(&world.tokens.to_be_bytes());
            let join = Join {
                group: group.clone(),
                member_id: known.map(|known| known.id).unwrap_or_default(),
                instance_id: instance.clone(),
                client_id: "c".to_owned(),
                client_host: "/127.0.0.1".to_owned(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 15_000,
                protocol_type: "consumer".to_owned(),
                protocols: names.map(|(_, name)| (name.to_owned(), Bytes::from_static(&[0, 0, 0, 0, 0, 0]))).collect(),
                version: *version,
                random,
            };
            let member = join.member_id.clone();
            ask(world, clients, Asked::Join { group, instance, member }, Request::Join(join));
        }
        Act::Sync { member } => {
            let Some(known) = clients.member(*member) else { return };
            let share_of = format!("{}/{}/", known.group, known.generation);
            // A client that was told to lead hands out a share to everybody it has ever heard of.
            let share = |to: &Known| (to.id.clone(), Bytes::from(format!("{share_of}{}", to.id)));
            let assignments = if known.leads { clients.members.iter().map(share).collect() } else { Vec::new() };
            let sync = SyncRequest {
                group: known.group.clone(),
                caller: caller(Some(&known)),
                protocol_type: None,
                protocol: None,
                assignments,
            };
            ask(world, clients, Asked::Sync { share_of, member: known.id }, Request::Sync(sync));
        }
        Act::Heartbeat { member } => {
            let Some(known) = clients.member(*member) else { return };
            let heartbeat = Heartbeat { group: known.group.clone(), caller: caller(Some(&known)) };
            ask(world, clients, Asked::Stay { member: known.id }, Request::Heartbeat(heartbeat));
        }
        Act::Leave { member } => {
            let Some(known) = clients.member(*member) else { return };
            let leaver = Leaver { member_id: known.id.clone(), instance_id: known.instance };
            let leave = Leave { group: known.group, members: vec![leaver] };
            ask(world, clients, Asked::Stay { member: known.id }, Request::Leave(leave));
        }
        Act::Commit { group, member, partition, producer, topic_id: id } => {
            let known = member.and_then(|number| clients.member(number));
            let partition = CommitPartition {
                index: *partition,
                offset: i64::try_from(world.tokens).expect("a short history"),
                leader_epoch: 0,
                metadata: String::new(),
            };
            let commit = Commit {
                group: known.as_ref().map_or_else(|| format!("g{group}"), |known| known.group.clone()),
                caller: caller(known.as_ref()),
                retention_ms: world.tokens.is_multiple_of(5).then_some(20_000),
                topics: vec![CommitTopic { topic, topic_id: topic_id(*id), partitions: vec![partition] }],
            };
            let request = match producer {
                None => Request::Commit(commit),
                Some(id) => {
                    let id = ProducerId::new(*id).expect("not negative");
                    Request::CommitInTransaction(Producer { id, epoch: ProducerEpoch::ZERO }, commit)
                }
            };
            ask(world, clients, Asked::Other, request);
        }
        Act::Marker { producer, committed } => {
            world.marker(ProducerId::new(*producer).expect("not negative"), *committed);
        }
        Act::DeleteOffset { group, partition } => {
            let delete = DeleteOffsets { group: format!("g{group}"), topics: vec![(topic, vec![*partition])] };
            ask(world, clients, Asked::Other, Request::DeleteOffsets(delete));
        }
        Act::DeleteGroup { group } => {
            ask(world, clients, Asked::Other, Request::DeleteGroup { group: format!("g{group}") });
        }
        Act::DeleteTopic { topic_id: id } => {
            let id = topic_id(*id).expect("ids begin at 1");
            let output = world.machine.topic_deleted(world.now(), world.end(), &topic, id);
            world.append(&output);
            clients.hear(&output);
        }
        Act::Wait { millis } => {
            let end = world.uptime + Duration::from_millis(*millis);
            while let Some(deadline) = world.machine.next_deadline().filter(|deadline| *deadline <= end) {
                world.uptime = world.uptime.max(deadline);
                let output = world.machine.tick(world.now(), world.end());
                world.append(&output);
                clients.hear(&output);
            }
            world.uptime = end;
        }
        Act::Sweep => {
            let output = world.machine.sweep(world.now(), world.end());
            world.append(&output);
            clients.hear(&output);
        }
        Act::Snapshot => world.take_snapshot(),
        Act::Restart => {
            // Who waits is lost, and so is a generation that no leader has assigned: its number is used again.
            world.restart();
            clients.open.clear();
            clients.generations.clear();
            clients.leaders.clear();
            for known in &mut clients.members {
                known.leads = false;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_promises(
        acts in prop::collection::vec(act(), 1..120),
        place in any::<usize>(),
        bits in 1..=255_u8,
    ) {
        let retention = Some(Duration::from_mins(1));
        let mut world = World::new(GroupConfig { offsets_retention: retention, ..GroupConfig::default() });
        let mut clients = Clients::default();
        for act in &acts {
            perform(&mut world, &mut clients, act);
            world.check();
        }
        // A snapshot with a byte changed or an end cut off restores to something, or is refused; it never panics.
        let bytes = world.machine.snapshot();
        let mut damaged = bytes.to_vec();
        if let Some(byte) = damaged.get_mut(place % bytes.len()) {
            *byte ^= bits;
        }
        if let Ok(loading) = Loading::restore(GroupConfig::default(), &damaged) {
            let again = loading.open(world.now()).snapshot();
            prop_assert!(Loading::restore(GroupConfig::default(), &again).is_ok());
        }
        prop_assert!(Loading::restore(GroupConfig::default(), &bytes[..place % bytes.len()]).is_err());
        // What is still open is parked, and is answered when the machine goes.
        let mut left: Vec<Token> = world.machine.close().into_iter().map(|(token, _)| token).collect();
        left.sort_unstable();
        prop_assert_eq!(left, clients.open.into_keys().collect::<Vec<_>>());
    }
}
