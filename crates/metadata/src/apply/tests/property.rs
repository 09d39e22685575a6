//! Any interleaving of commands keeps the invariants, and the same commands give the same rows.

use std::collections::{BTreeMap, BTreeSet};

use forebay_format::ObjectName;
use forebay_types::{LogId, Offset, TopicId, TopicPartition, WalSequence};
use proptest::prelude::*;

use crate::command::{AdvanceReason, Command, CommitUpload, SnapshotAt};
use crate::state::{BrokerLife, Holds, Key, PinId, Row, Tables, Topic, TopicState};
use crate::testing::{World, at, broker, cluster, create_topic, data_object, life, partition, time, topic};

use super::super::snapshot::opens_from;
use super::retention::pin;

const NAMES: [&str; 4] = ["a.b", "a_b", "c", "d"];
const TOPICS: u128 = 6;
const PARTITIONS: i32 = 3;

/// What somebody tries. Small numbers choose among what there is, so that most tries mean something.
#[derive(Clone, Debug)]
enum Try {
    Restart {
        broker: i32,
    },
    /// A restart done right: seals and closes what came before, then opens every topic that it can.
    Takeover {
        broker: i32,
    },
    Seal {
        broker: i32,
        back: u64,
        by: i32,
    },
    Close {
        broker: i32,
        back: u64,
        by: i32,
    },
    Create {
        topic: u128,
        name: usize,
    },
    Grow {
        topic: u128,
    },
    Delete {
        topic: u128,
        trash_ms: i64,
    },
    Undelete {
        topic: u128,
    },
    Purge {
        topic: u128,
    },
    Open {
        broker: i32,
        topic: u128,
    },
    /// By the owner's life or a sealer; `slip` shifts the range off the committed end.
    Commit {
        topic: u128,
        parts: Vec<(i32, i64)>,
        sealer: Option<i32>,
        slip: i64,
    },
    CommitAgain {
        back: usize,
    },
    Index,
    Drop {
        topic: u128,
        index: i32,
    },
    Advance {
        topic: u128,
        index: i32,
        to: i64,
        request: bool,
    },
    Pin {
        topic: u128,
        index: i32,
        from: i64,
        history: bool,
        renewal_ms: i64,
    },
    Renew {
        pin: u64,
    },
    Release {
        pin: u64,
    },
    Snapshot {
        topic: u128,
        offset: i64,
    },
    Condemn {
        object: usize,
    },
    Forget {
        object: usize,
    },
    ProducerIds {
        broker: i32,
    },
    Term,
    Wait {
        millis: i64,
    },
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let broker = || 1..3_i32;
    // Most of it happens to the two that have history.
    let topic = || prop_oneof![3 => 1..=2_u128, 1 => 3..=TOPICS];
    let index = || 0..PARTITIONS;
    let one = prop_oneof![
        1 => broker().prop_map(|broker| Try::Restart { broker }),
        4 => broker().prop_map(|broker| Try::Takeover { broker }),
        3 => (broker(), 1..3_u64, broker()).prop_map(|(broker, back, by)| Try::Seal { broker, back, by }),
        3 => (broker(), 1..3_u64, broker()).prop_map(|(broker, back, by)| Try::Close { broker, back, by }),
        3 => (topic(), 0..NAMES.len()).prop_map(|(topic, name)| Try::Create { topic, name }),
        1 => topic().prop_map(|topic| Try::Grow { topic }),
        1 => (topic(), 0..50_i64).prop_map(|(topic, trash_ms)| Try::Delete { topic, trash_ms }),
        1 => topic().prop_map(|topic| Try::Undelete { topic }),
        2 => topic().prop_map(|topic| Try::Purge { topic }),
        5 => (broker(), topic()).prop_map(|(broker, topic)| Try::Open { broker, topic }),
        12 => (topic(), prop::collection::vec((index(), 1..9_i64), 0..4), prop::option::of(broker()), prop_oneof![8 => Just(0_i64), 1 => Just(1), 2 => Just(-1)])
            .prop_map(|(topic, parts, sealer, slip)| Try::Commit { topic, parts, sealer, slip }),
        2 => (0..5_usize).prop_map(|back| Try::CommitAgain { back }),
        3 => Just(Try::Index),
        5 => (topic(), index()).prop_map(|(topic, index)| Try::Drop { topic, index }),
        5 => (topic(), index(), 0..40_i64, any::<bool>()).prop_map(|(topic, index, to, request)| Try::Advance { topic, index, to, request }),
        3 => (topic(), index(), 0..20_i64, any::<bool>(), 1..60_i64)
            .prop_map(|(topic, index, from, history, renewal_ms)| Try::Pin { topic, index, from, history, renewal_ms }),
        1 => (1..9_u64).prop_map(|pin| Try::Renew { pin }),
        1 => (1..9_u64).prop_map(|pin| Try::Release { pin }),
        2 => (topic(), 0..40_i64).prop_map(|(topic, offset)| Try::Snapshot { topic, offset }),
        4 => (0..40_usize).prop_map(|object| Try::Condemn { object }),
        3 => (0..40_usize).prop_map(|object| Try::Forget { object }),
        1 => broker().prop_map(|broker| Try::ProducerIds { broker }),
        1 => Just(Try::Term),
        3 => (1..60_i64).prop_map(|millis| Try::Wait { millis }),
    ];
    prop::collection::vec(one, 1..120)
}

/// Turns tries into commands against a world.
struct Player {
    world: World,
    now: i64,
    written: u64,
    objects: Vec<String>,
    uploads: Vec<CommitUpload>,
}

impl Player {
    /// Two topics, opened by a broker each, with some history.
    fn new() -> Self {
        let mut player = Self { world: World::new(), now: 0, written: 0, objects: Vec::new(), uploads: Vec::new() };
        for id in [1, 2] {
            player.play(Try::Restart { broker: id });
            player.play(Try::Create { topic: u128::from(id.unsigned_abs()), name: usize::from(id == 2) * 2 });
            player.play(Try::Open { broker: id, topic: u128::from(id.unsigned_abs()) });
            for _ in 0..3 {
                let parts = vec![(0, 5), (1, 5)];
                player.play(Try::Commit { topic: u128::from(id.unsigned_abs()), parts, sealer: None, slip: 0 });
            }
        }
        player
    }

    fn current(&self, id: i32) -> BrokerLife {
        self.world.tables.broker(broker(id)).map_or(life(id, 1), |b| BrokerLife { broker: broker(id), epoch: b.epoch })
    }

    fn earlier(&self, id: i32, back: u64) -> BrokerLife {
        life(id, self.current(id).epoch.get().saturating_sub(back))
    }

    fn object(&mut self, name: String) -> String {
        self.objects.push(name.clone());
        name
    }

    fn command(&mut self, what: Try) -> Option<Command> {
        let now = time(self.now);
        let tables = &self.world.tables;
        Some(match what {
            Try::Takeover { .. } => unreachable!("a takeover is a row of tries"),
            Try::Restart { broker: id } => {
                let incarnation = u128::from(self.current(id).epoch.get()) + 1;
                Command::RegisterBroker { broker: broker(id), incarnation, wal: crate::state::WalKind::Memory }
            }
            Try::Seal { broker, back, by } => {
                Command::SealEpoch { life: self.earlier(broker, back), by: self.current(by) }
            }
            Try::Close { broker, back, by } => {
                let life = self.earlier(broker, back);
                let end = tables.committed_through(life).map_or(WalSequence::ZERO, WalSequence::next);
                Command::CloseEpoch { life, end, by: self.current(by) }
            }
            Try::Create { topic: id, name } => create_topic(topic(id), NAMES[name], PARTITIONS - 1),
            Try::Grow { topic: id } => Command::CreatePartitions { topic: topic(id), partitions: PARTITIONS },
            Try::Delete { topic: id, trash_ms } => Command::DeleteTopic { topic: topic(id), now, trash_ms },
            Try::Undelete { topic: id } => Command::UndeleteTopic { topic: topic(id) },
            Try::Purge { topic: id } => Command::PurgeTopic { topic: topic(id), now },
            Try::Open { broker, topic: id } => {
                let partitions = tables.partitions(topic(id)).map(|(id, _)| id).collect();
                Command::OpenPartitions { life: self.current(broker), partitions }
            }
            Try::Commit { topic: id, parts, sealer, slip } => return self.upload(id, &parts, sealer, slip),
            Try::CommitAgain { back } => {
                Command::CommitUpload(self.uploads.get(self.uploads.len().checked_sub(back + 1)?)?.clone())
            }
            Try::Index => Command::IndexUploads,
            Try::Drop { topic: id, index } => Command::DropExtents { partition: partition(topic(id), index), now },
            Try::Advance { topic: id, index, to, request } => {
                let id = partition(topic(id), index);
                let held = tables.partition(id)?;
                let reason = if request { AdvanceReason::Request } else { AdvanceReason::Retention };
                let (life, leader_epoch) = (held.owner?, held.leader_epoch()?);
                Command::AdvanceLogStart { life, partition: id, leader_epoch, to: at(to), reason, now }
            }
            Try::Pin { topic: id, index, from, history, renewal_ms } => {
                let holds = if history { Holds::History } else { Holds::Bytes };
                let id = partition(topic(id), index);
                let log_start = tables.partition(id).map_or(0, |p| p.log_start.get());
                // Now and then below the log start.
                pin(holds, id, (log_start + from - 2).max(0), renewal_ms, self.now)
            }
            Try::Renew { pin } => Command::RenewPin { pin: PinId::new(pin), now },
            Try::Release { pin } => Command::ReleasePin { pin: PinId::new(pin) },
            Try::Snapshot { topic: id, offset } => return self.snapshot(id, offset),
            Try::Condemn { object } => {
                let object = self.objects.get(object)?.clone();
                Command::CondemnObject { object, size: 1, now }
            }
            Try::Forget { object } => Command::ForgetObject { object: self.objects.get(object)?.clone() },
            Try::ProducerIds { broker } => Command::AllocateProducerIds { life: self.current(broker) },
            Try::Term => Command::BeginTerm { cluster: cluster(), now },
            Try::Wait { millis } => {
                self.now += millis;
                return None;
            }
        })
    }

    fn upload(&mut self, id: u128, parts: &[(i32, i64)], sealer: Option<i32>, slip: i64) -> Option<Command> {
        let opened = |index| {
            let id = partition(topic(id), index);
            self.world.tables.partition(id).and_then(|p| Some((id, p.owner?)))
        };
        let (_, owner) = opened(parts.first()?.0)?;
        let ranges = parts.iter().filter_map(|(index, count)| Some((opened(*index)?.0, *count))).map(|(id, count)| {
            let mut range = self.world.next_range(id, count);
            let shift = |offset: Offset| offset.checked_add(slip).unwrap_or(offset);
            range.range =
                forebay_types::OffsetRange::new(shift(range.range.start()), range.range.end()).unwrap_or(range.range);
            range
        });
        let ranges = ranges.collect();
        self.written += 1;
        let sealer = sealer.map(|id| self.current(id));
        let object = self.object(data_object(sealer.unwrap_or(owner), self.written));
        let upload = CommitUpload { sealer, object, ..World::upload(owner, self.written, ranges) };
        self.uploads.push(upload.clone());
        Some(Command::CommitUpload(upload))
    }

    fn snapshot(&mut self, id: u128, offset: i64) -> Option<Command> {
        let id = partition(topic(id), 0);
        let held = self.world.tables.partition(id)?;
        let (life, leader_epoch) = (held.owner?, held.leader_epoch()?);
        self.written += 1;
        let BrokerLife { broker, epoch } = life;
        let object = self.object(ObjectName::ProducerSnapshot { broker, epoch, number: self.written }.to_string());
        let partitions = vec![SnapshotAt { partition: id, leader_epoch, at: at(offset) }];
        Some(Command::PutProducerSnapshot { life, object, size: 1, partitions })
    }

    fn takeover(&mut self, id: i32) {
        self.play(Try::Restart { broker: id });
        for other in [1, 2] {
            for back in (0..3).rev().filter(|back| *back > 0 || other != id) {
                self.play(Try::Seal { broker: other, back, by: id });
                self.play(Try::Close { broker: other, back, by: id });
            }
        }
        for topic in 1..=TOPICS {
            self.play(Try::Open { broker: id, topic });
        }
    }

    fn play(&mut self, what: Try) {
        if let Try::Takeover { broker } = what {
            return self.takeover(broker);
        }
        let Some(command) = self.command(what) else { return };
        let before = self.world.clone();
        let refused = self.world.run(command).is_err();
        if refused {
            assert_eq!(self.world.rows, before.rows, "a refusal changes nothing");
        }
        only_forward(&before.tables, &self.world.tables);
        pinned_bytes_stay(&before, &self.world);
        footers_stay(&before, &self.world);
    }
}

/// Epochs, log starts, committed ends and counters never go back.
fn only_forward(before: &Tables, after: &Tables) {
    use crate::state::WalEpochState::{Closed, Open};
    for (id, broker) in before.brokers() {
        assert!(after.broker(*id).is_some_and(|b| b.epoch >= broker.epoch), "broker {id}");
    }
    for (life, epoch) in before.wal_epochs() {
        let now = after.wal_epoch(*life).expect("a life is never forgotten");
        let back = match (epoch.state, now.state) {
            (Closed { end }, Closed { end: now }) => end != now,
            (Closed { .. }, _) => true,
            (_, Open) => epoch.state != Open,
            _ => false,
        };
        assert!(!back, "{life}: {:?} became {:?}", epoch.state, now.state);
        assert!(after.committed_through(*life) >= before.committed_through(*life), "{life}");
    }
    for id in before.topics().keys() {
        for (id, held) in before.partitions(*id) {
            let Some(now) = after.partition(id) else { continue };
            assert_eq!(now.log, held.log, "{id} keeps its log");
            assert!(now.log_start >= held.log_start, "{id}");
            assert!(now.leader_epoch() >= held.leader_epoch(), "{id}");
            assert!(after.committed_end(held.log) >= before.committed_end(held.log), "{id}");
            if now.owner != held.owner {
                assert!(now.leader_epoch() > held.leader_epoch(), "{id} has a new owner and no new epoch");
                let closed = held.owner.is_none_or(|owner| {
                    let epoch = before.wal_epoch(owner).expect("owners are known lives");
                    matches!(epoch.state, Closed { .. })
                });
                assert!(closed, "{id} has a new owner while the WAL of the old one may hold more");
            }
        }
    }
    let counters = |tables: &Tables| tables.cluster().map(|c| (c.term, c.next_log, c.next_pin, c.next_producer_id));
    assert!(counters(after) >= counters(before));
}

/// Where the extents of a partition end that hold something from an offset on, in rows and in uploads not yet folded.
fn ends_from(world: &World, id: TopicPartition, from: Offset) -> BTreeSet<Offset> {
    let log: LogId = world.tables.partition(id).expect("a partition that is there").log;
    let rows = world.extents(log).into_iter().map(|e| e.range.end());
    let unfolded = world.tables.uploads().values().flat_map(|u| &u.ranges);
    let ends = unfolded.filter(|range| range.log == log).map(|range| range.range.end());
    rows.chain(ends).filter(|end| *end > from).collect()
}

/// Where a pin stood before and stands after, no extent that it holds has gone.
fn pinned_bytes_stay(before: &World, after: &World) {
    for (id, pin) in before.tables.pins() {
        if after.tables.pin(*id).is_none() {
            continue;
        }
        for (partition, from) in &pin.scope {
            let (was, is) = (ends_from(before, *partition, *from), ends_from(after, *partition, *from));
            assert!(was.is_subset(&is), "pin {id} holds {partition} from {from}: {was:?} became {is:?}");
        }
    }
}

/// What a partition opens from is there as long as its topic may be used again.
fn footers_stay(before: &World, after: &World) {
    let kept = |(_, topic): &(&TopicId, &Topic)| topic.state != TopicState::Purging;
    for (topic, _) in after.tables.topics().iter().filter(kept) {
        for (id, _) in before.tables.partitions(*topic) {
            let from = opens_from(&before.tables, id);
            let (was, is) = (ends_from(before, id, from), ends_from(after, id, from));
            assert!(was.is_subset(&is), "{id} opens from {from}: {was:?} became {is:?}");
        }
    }
}

/// Commands of the history, again on nothing.
fn replayed(history: &[Command]) -> BTreeMap<Key, Row> {
    let mut world = World::default();
    for command in history {
        world.done(command.clone());
    }
    world.rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever is tried in whatever order: after every command the invariants hold, nothing goes back, and what a
    /// standing pin holds or a partition opens from is there (`World::run` and `Player::play` check). Replaying gives the same rows, and tables
    /// filled from the rows alone are those that grew with the commands.
    #[test]
    fn any_interleaving_keeps_the_invariants(tries in tries()) {
        let mut player = Player::new();
        for what in tries {
            player.play(what);
        }
        let world = player.world;
        prop_assert_eq!(&replayed(&world.history), &world.rows);
        let mut loaded = Tables::default();
        for (key, row) in &world.rows {
            loaded.put(key, Some(row.clone()));
        }
        for (topic, row) in world.tables.topics() {
            if row.state == TopicState::Purging {
                continue;
            }
            for (_, partition) in world.tables.partitions(*topic) {
                prop_assert_eq!(loaded.committed_end(partition.log), world.tables.committed_end(partition.log));
            }
        }
        prop_assert_eq!(loaded.topics(), world.tables.topics());
        let live = loaded.topics().values().filter(|t| t.state == TopicState::Live).count();
        prop_assert!(live < NAMES.len(), "two of the names are one");
    }
}
