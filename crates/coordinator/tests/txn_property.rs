//! Any interleaving of producers, markers, time and changes of owner keeps the machine's promises: a watcher that knows
//! only the log and the answers checks each step, and the log alone gives the same machine.

mod txn;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use forebay_coordinator::machine::txn::{
    AddPartitions, Answer, EndTxn, InitProducerId, Input, List, Markers, Outcome, Request, TxnConfig, TxnLoader,
    TxnMachine, TxnOutput, TxnPartition, TxnStatus, Verify,
};
use forebay_coordinator::machine::{Now, Producer, Token};
use forebay_coordinator::schema::{TransactionLogKey, TransactionLogValue};
use forebay_types::Offset;
use proptest::prelude::*;
use txn::{World, partitions, producer, record_partitions};

const IDS: [&str; 3] = ["x", "y", "z"];
/// Two clients for each id, which fence each other.
const CLIENTS: usize = 6;
const TIMEOUT_MS: i32 = 20_000;
const CONFIG: TxnConfig =
    TxnConfig { timeout_ms_max: TIMEOUT_MS, expiration_ms: 60_000, sabotage_forget_prepared: false };

#[derive(Clone, Debug)]
enum Op {
    /// `own`: the client names who it is (KIP-360). `lost`: it never sees the answer.
    Init {
        client: usize,
        own: bool,
        lost: bool,
    },
    Add {
        client: usize,
        partitions: &'static str,
    },
    End {
        client: usize,
        outcome: Outcome,
    },
    /// Of the markers asked for and not confirmed, some are durable.
    Written {
        pick: usize,
        all: bool,
    },
    Wait {
        seconds: u64,
    },
    Tick,
    Snapshot,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    let outcome = prop_oneof![Just(Outcome::Commit), Just(Outcome::Abort)];
    // `t` is deleted and created again; `u` stands in records that Kafka wrote.
    let partitions = prop_oneof![
        Just("t@1-0"),
        Just("t@1-1,u-0"),
        Just("t@2-0,t@2-1,t@1-0"),
        Just("__consumer_offsets@9-3"),
        Just("none")
    ];
    prop_oneof![
        4 => (client(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(client, own, lost)| Op::Init { client, own, lost }),
        6 => (client(), partitions).prop_map(|(client, partitions)| Op::Add { client, partitions }),
        4 => (client(), outcome).prop_map(|(client, outcome)| Op::End { client, outcome }),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(pick, all)| Op::Written { pick, all }),
        2 => (0..40_u64).prop_map(|seconds| Op::Wait { seconds }),
        2 => Just(Op::Tick),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Restart),
    ]
}

/// What the newest record of an id says.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    status: TxnStatus,
    producer: Producer,
    partitions: Vec<TxnPartition>,
    end: Offset,
}

/// Knows the log and who was given what; checks that each step is one that may be.
#[derive(Default)]
struct Watcher {
    told: BTreeMap<String, Told>,
    /// Every producer id ever seen belongs to one transactional id.
    owners: BTreeMap<i64, String>,
    /// Every (producer id, epoch) ever handed out went to one client.
    given: BTreeMap<(i64, i16), usize>,
    /// Asked for in this life and not yet confirmed.
    unwritten: Vec<Markers>,
    clients: [Option<Producer>; CLIENTS],
    seen: usize,
}

impl Watcher {
    fn see(&mut self, world: &World, out: &TxnOutput) {
        let mut prepared = Vec::new();
        for (offset, record) in (0..).zip(&world.log).skip(self.seen) {
            let id = TransactionLogKey::parse(&record.key).expect("a key").transactional_id;
            let before = self.told.get(&id).cloned();
            let Some(value) = &record.value else {
                assert!(before.expect("known").status.is_idle(), "only an idle id is forgotten");
                self.told.remove(&id);
                continue;
            };
            let value = TransactionLogValue::parse(value).expect("a value");
            let told = Told {
                status: TxnStatus::from_id(value.status).expect("a state"),
                producer: producer(&format!("{}/{}", value.producer_id, value.producer_epoch)),
                partitions: record_partitions(record),
                end: Offset::new(offset + 1).expect("counted up"),
            };
            self.check_step(&id, before.as_ref(), &told);
            if matches!(told.status, TxnStatus::PrepareCommit | TxnStatus::PrepareAbort) {
                prepared.push((id.clone(), told.clone()));
            }
            self.told.insert(id, told);
        }
        self.seen = world.log.len();
        // A Prepare without partitions completes by itself; every other asks for all its markers, once.
        prepared.retain(|(_, told)| !told.partitions.is_empty());
        self.check_markers(world, &prepared, &out.markers);
    }

    fn check_step(&mut self, id: &str, before: Option<&Told>, now: &Told) {
        let owner = self.owners.entry(now.producer.id.get()).or_insert_with(|| id.to_owned());
        assert_eq!(owner, id, "a producer id serves one transactional id");
        assert!(may_follow(before, now), "{id}: {now:?} cannot follow {before:?}");
    }

    fn check_markers(&mut self, world: &World, prepared: &[(String, Told)], markers: &[Markers]) {
        assert_eq!(markers.len(), prepared.len(), "one request for markers for each Prepare");
        for (markers, (id, told)) in markers.iter().zip(prepared) {
            let outcome = if told.status == TxnStatus::PrepareCommit { Outcome::Commit } else { Outcome::Abort };
            assert_eq!((&markers.transactional_id, markers.outcome), (id, outcome));
            assert_eq!((markers.producer, markers.prepare_offset.next()), (told.producer, told.end));
            assert_eq!(markers.partitions, told.partitions);
            assert_eq!(markers.coordinator_epoch.get(), world.leader_epoch);
        }
        self.unwritten.extend(markers.iter().cloned());
    }

    /// The answer rests on the newest record of its id, and is for the current producer only.
    fn check_answer(&self, out: &TxnOutput, client: usize, asked: Option<Producer>, outcome: Option<Outcome>) {
        let reply = &out.replies[0];
        let Some(told) = self.told.get(id_of(client)) else { return };
        assert_eq!(reply.rests_on, told.end);
        let done = match (&reply.answer, outcome) {
            (Answer::AddPartitions(Ok(())), _) => told.status == TxnStatus::Ongoing,
            (Answer::EndTxn(Ok(())), Some(Outcome::Commit)) => {
                matches!(told.status, TxnStatus::PrepareCommit | TxnStatus::CompleteCommit)
            }
            (Answer::EndTxn(Ok(())), Some(Outcome::Abort)) => {
                matches!(told.status, TxnStatus::PrepareAbort | TxnStatus::CompleteAbort)
            }
            (Answer::InitProducerId(Ok(producer)), _) => {
                assert_eq!(*producer, told.producer);
                told.status == TxnStatus::Empty
            }
            _ => return,
        };
        assert!(done, "{:?} was answered in {told:?}", reply.answer);
        if let Some(asked) = asked {
            assert_eq!(asked, told.producer, "only the current producer is served");
        }
    }
}

/// The diagram at the head of the machine, as a check.
fn may_follow(before: Option<&Told>, now: &Told) -> bool {
    use TxnStatus::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit};
    let Some(before) = before else { return now.status == Empty && now.producer.epoch.get() == 0 };
    let same = now.producer == before.producer;
    let bumped = now.producer.id == before.producer.id && now.producer.epoch > before.producer.epoch;
    let held = before.partitions.iter().all(|partition| now.partitions.contains(partition));
    let all = now.partitions == before.partitions;
    let none = now.partitions.is_empty();
    match now.status {
        Empty => before.status.is_idle() && (same || bumped) && none,
        Ongoing => (before.status.is_idle() || before.status == Ongoing) && same && held,
        PrepareCommit => before.status == Ongoing && same && all,
        PrepareAbort => before.status == Ongoing && (same || bumped) && all,
        CompleteCommit => before.status == PrepareCommit && same && none,
        CompleteAbort => before.status == PrepareAbort && same && none,
    }
}

fn id_of(client: usize) -> &'static str {
    IDS[client % IDS.len()]
}

fn step(world: &mut World, watcher: &mut Watcher, op: &Op) {
    match *op {
        Op::Init { client, own, lost } => {
            let expected = watcher.clients[client].filter(|_| own);
            let fresh = Some(world.fresh());
            let out = world.ask(Request::InitProducerId(InitProducerId {
                transactional_id: id_of(client).to_owned(),
                timeout_ms: TIMEOUT_MS,
                expected,
                fresh,
                version: 5,
            }));
            watcher.see(world, &out);
            watcher.check_answer(&out, client, None, None);
            if let Answer::InitProducerId(Ok(producer)) = out.replies[0].answer {
                let place = watcher.given.entry((producer.id.get(), producer.epoch.get()));
                assert_eq!(*place.or_insert(client), client, "an epoch is given to one client");
                if !lost {
                    watcher.clients[client] = Some(producer);
                }
            }
        }
        Op::Add { client, partitions: list } => {
            let Some(producer) = watcher.clients[client] else { return };
            let transactional_id = id_of(client).to_owned();
            let list = partitions(list);
            let added = AddPartitions { transactional_id, producer, partitions: list.clone(), version: 3 };
            let out = world.ask(Request::AddPartitions(added));
            watcher.see(world, &out);
            watcher.check_answer(&out, client, Some(producer), None);
            let transactional_id = id_of(client).to_owned();
            let verified = world.ask(Request::Verify(Verify { transactional_id, producer, partitions: list }));
            if out.replies[0].answer == Answer::AddPartitions(Ok(())) {
                let Answer::Verify(Ok(verified)) = &verified.replies[0].answer else { panic!("{verified:?}") };
                assert_eq!(verified.missing, [], "what was added is in the transaction");
            }
        }
        Op::End { client, outcome } => {
            let Some(producer) = watcher.clients[client] else { return };
            let transactional_id = id_of(client).to_owned();
            let out = world.ask(Request::EndTxn(EndTxn { transactional_id, producer, outcome, version: 4 }));
            watcher.see(world, &out);
            watcher.check_answer(&out, client, Some(producer), Some(outcome));
        }
        Op::Written { pick, all } => {
            if watcher.unwritten.is_empty() {
                return;
            }
            let place = pick % watcher.unwritten.len();
            let markers = &mut watcher.unwritten[place];
            let count = if all { markers.partitions.len() } else { 1 };
            let input = Input::MarkersWritten {
                transactional_id: markers.transactional_id.clone(),
                prepare_offset: markers.prepare_offset,
                partitions: markers.partitions.drain(..count).collect(),
            };
            let done = markers.partitions.is_empty();
            if done {
                watcher.unwritten.remove(place);
            }
            let out = world.handle(input);
            assert_eq!(out.records.len(), usize::from(done), "a Complete exactly when the last marker is durable");
            watcher.see(world, &out);
        }
        Op::Wait { seconds } => world.go_on(Duration::from_secs(seconds)),
        Op::Tick => {
            let out = world.handle(Input::Tick);
            watcher.see(world, &out);
        }
        Op::Snapshot => world.take_snapshot(),
        Op::Restart => {
            watcher.unwritten.clear();
            let out = world.restart();
            let ending = |told: &Told| matches!(told.status, TxnStatus::PrepareCommit | TxnStatus::PrepareAbort);
            let prepared: Vec<_> = watcher.told.clone().into_iter().filter(|(_, told)| ending(told)).collect();
            let mut markers = out.markers.clone();
            markers.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
            assert!(out.records.is_empty(), "opening decides nothing");
            watcher.check_markers(world, &prepared, &markers);
        }
    }
}

/// All that a machine says of itself.
fn described(now: Now, machine: &mut TxnMachine) -> Vec<String> {
    let mut ask = |request| {
        let input = Input::Request { token: Token(0), request };
        format!("{:?}", machine.handle(now, input).replies[0].answer)
    };
    let mut lines = vec![ask(Request::List(List::default()))];
    lines.extend(IDS.map(|id| ask(Request::Describe { transactional_id: id.to_owned() })));
    lines
}

proptest! {
    /// Epochs only grow, one transaction is open per id, a Prepare is followed by its Complete, old producers get
    /// nothing done, and log or snapshot plus log give the same machine.
    #[test]
    fn promises_are_kept_in_any_order(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new(CONFIG);
        let mut watcher = Watcher::default();
        let mut snapshots = 0;
        for op in &ops {
            step(&mut world, &mut watcher, op);
            snapshots += usize::from(matches!(op, Op::Snapshot));
        }

        let now = world.now;
        let live = described(now, &mut world.machine);
        prop_assert_eq!(&live, &described(now, &mut world.replayed()), "the log gives the machine that wrote it");
        if snapshots > 0 {
            prop_assert_eq!(&live, &described(now, &mut world.restored()), "so do a snapshot and the log behind it");
        } else {
            // Nothing is hidden from the log either, who a producer was before its last bump included.
            prop_assert_eq!(world.machine.snapshot(), world.replayed().snapshot());
        }

        let snapshot = world.machine.snapshot();
        let loader = TxnLoader::restore(CONFIG, &snapshot.bytes).expect("just written");
        let (again, _) = loader.open(world.now, world.leader_epoch(), snapshot.log_end);
        prop_assert_eq!(again.snapshot(), snapshot, "a snapshot is the whole machine");
    }

    /// Whatever happened, once time is up and the markers are written no transaction is left open: none pins a
    /// partition's last stable offset for ever.
    #[test]
    fn every_transaction_ends(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new(CONFIG);
        let mut watcher = Watcher::default();
        for op in &ops {
            step(&mut world, &mut watcher, op);
        }
        step(&mut world, &mut watcher, &Op::Wait { seconds: 20 });
        step(&mut world, &mut watcher, &Op::Tick);
        while !watcher.unwritten.is_empty() {
            step(&mut world, &mut watcher, &Op::Written { pick: 0, all: true });
        }
        for (id, told) in &watcher.told {
            prop_assert!(told.status.is_idle(), "{} is left {:?}", id, told);
        }
    }

    /// Bytes that are no snapshot, or a damaged one, are refused or read as another state; they end nothing.
    #[test]
    fn damaged_snapshots_are_parsed(
        ops in prop::collection::vec(op(), 1..40),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut world = World::new(CONFIG);
        let mut watcher = Watcher::default();
        for op in &ops {
            step(&mut world, &mut watcher, op);
        }
        let whole = world.machine.snapshot().bytes.to_vec();
        let short = &whole[..cut.index(whole.len())];
        prop_assert!(TxnLoader::restore(CONFIG, short).is_err(), "a cut snapshot is not a snapshot");
        let mut changed = whole.clone();
        changed[place.index(whole.len())] = byte;
        for bytes in [changed, noise] {
            if let Err(error) = TxnLoader::restore(CONFIG, &bytes) {
                prop_assert!(error.to_string().starts_with("reading a snapshot of __transaction_state: "));
            }
        }
    }

    /// Records that no coordinator wrote are refused with their offset; they end nothing.
    #[test]
    fn foreign_records_are_parsed(
        key in prop::collection::vec(any::<u8>(), 0..20),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..60)),
        header in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) {
        let mut world = World::new(CONFIG);
        let mut watcher = Watcher::default();
        step(&mut world, &mut watcher, &Op::Init { client: 0, own: false, lost: false });
        step(&mut world, &mut watcher, &Op::Add { client: 0, partitions: "t@1-1,u-0" });
        let ours = world.log.last().expect("just appended");
        let sound = TxnLoader::new(CONFIG).replay(Offset::ZERO, &ours.key, ours.value.as_deref(), &[]);
        prop_assert_eq!(sound, Ok(()), "headers may be missing");
        let headers = [(Bytes::from_static(b"forebay.topic-ids"), header.clone().map(Bytes::from))];
        let topics = TxnLoader::new(CONFIG).replay(Offset::ZERO, &ours.key, ours.value.as_deref(), &headers);
        prop_assert_eq!(topics.is_ok(), header.is_some_and(|ids| ids.len() == 2 * 16), "an id for each topic");

        let mut loader = TxnLoader::new(CONFIG);
        let at = Offset::new(41).expect("not negative");
        match loader.replay(at, &key, value.as_deref(), &headers) {
            Ok(()) => prop_assert_eq!(loader.log_end(), at.next()),
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.starts_with("reading the record of __transaction_state at offset 41: "), "{}", text);
            }
        }
    }
}

/// A small snapshot with any one byte changed to any other is refused, or opens as a machine that answers.
#[test]
fn a_snapshot_with_any_byte_changed_is_parsed() {
    let mut world = World::new(CONFIG);
    let mut watcher = Watcher::default();
    for client in 0..2 {
        step(&mut world, &mut watcher, &Op::Init { client, own: false, lost: false });
        step(&mut world, &mut watcher, &Op::Init { client, own: true, lost: false });
    }
    step(&mut world, &mut watcher, &Op::Add { client: 0, partitions: "t@1-1,u-0" });
    let whole = world.machine.snapshot().bytes;
    let mut refused = 0;
    for place in 0..whole.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = whole.to_vec();
            bytes[place] = byte;
            let Ok(loader) = TxnLoader::restore(CONFIG, &bytes) else {
                refused += 1;
                continue;
            };
            let end = loader.log_end();
            let (mut machine, _) = loader.open(world.now, world.leader_epoch(), end);
            assert_eq!(described(world.now, &mut machine).len(), 1 + IDS.len());
        }
    }
    assert!(refused > whole.len(), "most changes make no sense");
}

/// The watcher is a check only if it can go red: told of a step that may not be, it objects.
#[test]
fn the_watcher_objects() {
    let told = |status, text: &str, end| Told {
        status,
        producer: producer(text),
        partitions: Vec::new(),
        end: Offset::new(end).expect("not negative"),
    };
    let crossed = [
        (told(TxnStatus::PrepareCommit, "5/0", 1), told(TxnStatus::CompleteAbort, "5/0", 2)),
        (told(TxnStatus::PrepareAbort, "5/1", 1), told(TxnStatus::Empty, "5/2", 2)),
        (told(TxnStatus::Empty, "5/3", 1), told(TxnStatus::Empty, "5/2", 2)),
        (told(TxnStatus::CompleteCommit, "5/3", 1), told(TxnStatus::Ongoing, "5/4", 2)),
    ];
    for (before, after) in crossed {
        assert!(!may_follow(Some(&before), &after), "{after:?} passed as a step from {before:?}");
    }
    assert!(!may_follow(None, &told(TxnStatus::Empty, "5/1", 1)), "an id that begins above 0 passed");
}
