//! Scripts for the transaction coordinator: what an operator would type, and what would be seen.
//!
//! ```text
//! > init ID [timeout=MS] [as=PID/EPOCH] [v=VERSION] [fresh=none] [times=N]   InitProducerId; shows the last of N
//! > add ID PID/EPOCH PARTITIONS [v=VERSION]         AddPartitionsToTxn, AddOffsetsToTxn
//! > end ID PID/EPOCH commit|abort [v=VERSION]       EndTxn
//! > verify ID PID/EPOCH PARTITIONS                  a partition's owner asks
//! > written ID PREPARE-OFFSET PARTITIONS            markers became durable
//! > list [states=A,B] [pids=1,2] [longer=TIME]      ListTransactions
//! > describe ID                                     DescribeTransactions
//! > wait TIME, > jump TIME                          both clocks go on; the wall clock alone jumps
//! > tick                                            what is due is done
//! > deadline                                        how long until a tick is asked for
//! > snapshot, > restart                             a new owner: the last snapshot, and the log behind it
//! ```
//! A partition is `TOPIC-NUMBER`, or `TOPIC@ID-NUMBER` where the topic's id is known.
//! Seen are `+ OFFSET ID STATE PRODUCER PARTITIONS` for a record, `= ANSWER @END` for an answer that leaves once the
//! log is durable up to END, and `! …` for markers to write.

// Each test file uses its part.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use forebay_coordinator::machine::txn::{
    AddPartitions, Answer, EndTxn, InitProducerId, Input, List, Markers, Outcome, Refusal, Request, Snapshot,
    TxnConfig, TxnLoader, TxnMachine, TxnOutput, TxnPartition, TxnStatus, Verify,
};
use forebay_coordinator::machine::{Now, Producer, Record, Token};
use forebay_coordinator::schema::{TransactionLogKey, TransactionLogValue};
use forebay_types::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicName};
use uuid::Uuid;

/// A Tuesday in November 2023.
pub const START_MS: i64 = 1_700_000_000_000;
pub const FIRST_PRODUCER_ID: i64 = 1000;

/// A machine with the log it writes.
pub struct World {
    pub machine: TxnMachine,
    pub now: Now,
    pub log: Vec<Record>,
    pub leader_epoch: i32,
    pub next_producer_id: i64,
    pub config: TxnConfig,
    snapshot: Option<Snapshot>,
}

impl World {
    pub fn new(config: TxnConfig) -> Self {
        let now = Now { wall: Timestamp::from_millis(START_MS), uptime: Duration::from_secs(1) };
        let (machine, out) = TxnLoader::new(config).open(now, epoch(0), Offset::ZERO);
        assert!(out.records.is_empty() && out.markers.is_empty() && out.deadline.is_none());
        let next_producer_id = FIRST_PRODUCER_ID;
        Self { machine, now, log: Vec::new(), leader_epoch: 0, next_producer_id, config, snapshot: None }
    }

    pub fn handle(&mut self, input: Input) -> TxnOutput {
        let out = self.machine.handle(self.now, input);
        self.take(&out);
        out
    }

    fn take(&mut self, out: &TxnOutput) {
        assert_eq!(usize::try_from(out.base_offset.get()), Ok(self.log.len()), "records are numbered densely");
        self.log.extend(out.records.iter().cloned());
        assert_eq!(usize::try_from(self.machine.log_end().get()), Ok(self.log.len()));
        self.next_producer_id += i64::from(out.took_fresh);
    }

    pub fn ask(&mut self, request: Request) -> TxnOutput {
        self.handle(Input::Request { token: Token(7), request })
    }

    pub fn fresh(&self) -> ProducerId {
        ProducerId::new(self.next_producer_id).expect("counted up from a thousand")
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        epoch(self.leader_epoch)
    }

    pub fn go_on(&mut self, time: Duration) {
        self.now.uptime += time;
        self.now.wall = self.now.wall.saturating_add(i64::try_from(time.as_millis()).expect("a test's time"));
    }

    pub fn take_snapshot(&mut self) {
        self.snapshot = Some(self.machine.snapshot());
    }

    /// The next owner opens: from the last snapshot where there is one, and from the log behind it.
    pub fn restart(&mut self) -> TxnOutput {
        let loader = match &self.snapshot {
            Some(snapshot) => TxnLoader::restore(self.config, &snapshot.bytes).expect("a snapshot just written"),
            None => TxnLoader::new(self.config),
        };
        self.leader_epoch += 1;
        let (machine, out) = self.load(loader);
        self.machine = machine;
        self.take(&out);
        out
    }

    /// A machine from the log alone, opened and put aside.
    pub fn replayed(&self) -> TxnMachine {
        self.load(TxnLoader::new(self.config)).0
    }

    /// A machine from the last snapshot and the log behind it, opened and put aside.
    pub fn restored(&self) -> TxnMachine {
        let snapshot = self.snapshot.as_ref().expect("the test took one");
        self.load(TxnLoader::restore(self.config, &snapshot.bytes).expect("a snapshot just written")).0
    }

    fn load(&self, mut loader: TxnLoader) -> (TxnMachine, TxnOutput) {
        for (offset, record) in (0..).zip(&self.log) {
            let headers: Vec<(Bytes, Option<Bytes>)> =
                record.headers.iter().map(|(name, value)| (Bytes::from(*name), Some(value.clone()))).collect();
            let offset = Offset::new(offset).expect("counted up");
            loader.replay(offset, &record.key, record.value.as_deref(), &headers).expect("a record just written");
        }
        let end = Offset::new(i64::try_from(self.log.len()).expect("a test's log")).expect("not negative");
        loader.open(self.now, epoch(self.leader_epoch), end)
    }
}

/// Runs the commands of `script` and compares all that is seen with it.
#[track_caller]
pub fn check(script: &str) {
    check_with(TxnConfig::default(), script);
}

#[track_caller]
pub fn check_with(config: TxnConfig, script: &str) {
    let wanted: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut world = World::new(config);
    let mut seen = String::new();
    for line in &wanted {
        let Some(command) = line.strip_prefix("> ") else { continue };
        writeln!(seen, "{line}").expect("strings grow");
        run(&mut world, command, &mut seen);
    }
    let wanted = wanted.join("\n");
    assert!(seen.trim() == wanted, "\n--- wanted\n{wanted}\n--- seen\n{seen}");
}

struct Words<'a> {
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn named(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.named(name).map_or(default, |text| text.parse().ok().expect("a number"))
    }
}

fn run(world: &mut World, command: &str, seen: &mut String) {
    let mut words = command.split_whitespace();
    let verb = words.next().expect("a command has a verb");
    let mut parsed = Words { plain: Vec::new(), named: Vec::new() };
    for word in words {
        match word.split_once('=') {
            Some(pair) => parsed.named.push(pair),
            None => parsed.plain.push(word),
        }
    }
    let words = parsed;
    let id = || words.plain[0].to_owned();
    let out = match verb {
        "init" => {
            for _ in 1..words.number("times", 1) {
                init(world, &words);
            }
            init(world, &words)
        }
        "add" => world.ask(Request::AddPartitions(AddPartitions {
            transactional_id: id(),
            producer: producer(words.plain[1]),
            partitions: partitions(words.plain[2]),
            version: words.number("v", 3),
        })),
        "end" => world.ask(Request::EndTxn(EndTxn {
            transactional_id: id(),
            producer: producer(words.plain[1]),
            outcome: if words.plain[2] == "commit" { Outcome::Commit } else { Outcome::Abort },
            version: words.number("v", 4),
        })),
        "verify" => world.ask(Request::Verify(Verify {
            transactional_id: id(),
            producer: producer(words.plain[1]),
            partitions: partitions(words.plain[2]),
        })),
        "written" => world.handle(Input::MarkersWritten {
            transactional_id: id(),
            prepare_offset: Offset::new(words.plain[1].parse().expect("an offset")).expect("not negative"),
            partitions: partitions(words.plain[2]),
        }),
        "list" => world.ask(Request::List(List {
            producer_ids: split(words.named("pids")).map(|pid| pid.parse().expect("a number")).collect(),
            states: split(words.named("states")).map(str::to_owned).collect(),
            longer_than_ms: words.named("longer").map(|time| millis(duration(time))),
        })),
        "describe" => world.ask(Request::Describe { transactional_id: id() }),
        "tick" => world.handle(Input::Tick),
        "restart" => world.restart(),
        "wait" => return world.go_on(duration(words.plain[0])),
        "jump" => {
            world.now.wall = world.now.wall.saturating_add(millis(duration(words.plain[0])));
            return;
        }
        "snapshot" => return world.take_snapshot(),
        "deadline" => {
            let deadline = world.handle(Input::MarkersWritten {
                transactional_id: String::new(),
                prepare_offset: Offset::ZERO,
                partitions: Vec::new(),
            });
            let left = deadline.deadline.map(|at| at.saturating_sub(world.now.uptime));
            return writeln!(seen, "in {left:?}").expect("strings grow");
        }
        other => panic!("no such command: {other}"),
    };
    show(&out, seen);
}

fn init(world: &mut World, words: &Words<'_>) -> TxnOutput {
    let fresh = (words.named("fresh") != Some("none")).then(|| world.fresh());
    world.ask(Request::InitProducerId(InitProducerId {
        transactional_id: words.plain.first().map_or(String::new(), |id| (*id).to_owned()),
        timeout_ms: words.number("timeout", 60_000),
        expected: words.named("as").map(producer),
        fresh,
        version: words.number("v", 5),
    }))
}

fn show(out: &TxnOutput, seen: &mut String) {
    for (offset, record) in (out.base_offset.get()..).zip(&out.records) {
        writeln!(seen, "+ {offset} {}", record_text(record)).expect("strings grow");
    }
    for reply in &out.replies {
        assert_eq!(reply.token, Token(7), "the answer goes to whoever asked");
        writeln!(seen, "= {} @{}", answer_text(&reply.answer), reply.rests_on).expect("strings grow");
    }
    for markers in &out.markers {
        writeln!(seen, "! {}", markers_text(markers)).expect("strings grow");
    }
}

pub fn record_text(record: &Record) -> String {
    let id = TransactionLogKey::parse(&record.key).expect("a key that Kafka reads").transactional_id;
    let Some(value) = &record.value else { return format!("{id} gone") };
    let value = TransactionLogValue::parse(value).expect("a value that Kafka reads");
    let state = TxnStatus::from_id(value.status).expect("a state").name();
    let mut text = format!("{id} {state} {}/{}", value.producer_id, value.producer_epoch);
    for partition in record_partitions(record) {
        write!(text, " {}", partition_text(&partition)).expect("strings grow");
    }
    text
}

/// The partitions that a record's value and header name, in order.
pub fn record_partitions(record: &Record) -> Vec<TxnPartition> {
    let value = record.value.as_ref().expect("no tombstone");
    let topics = TransactionLogValue::parse(value).expect("a value that Kafka reads").partitions.unwrap_or_default();
    let header = record.headers.iter().find(|(name, _)| *name == "forebay.topic-ids");
    let mut ids = header.map_or_else(Vec::new, |(_, bytes)| bytes.chunks(16).map(topic_id).collect()).into_iter();
    let mut partitions = Vec::new();
    for topic in topics {
        let topic_id = ids.next().flatten();
        let name = TopicName::new(&topic.topic).expect("a topic's name");
        partitions.extend(topic.partitions.iter().map(|index| TxnPartition {
            topic: name.clone(),
            topic_id,
            partition: PartitionIndex::new(*index).expect("a partition"),
        }));
    }
    assert_eq!(ids.next(), None, "an id for each topic of the value");
    partitions
}

fn topic_id(bytes: &[u8]) -> Option<TopicId> {
    TopicId::new(Uuid::from_bytes(bytes.try_into().expect("16 bytes for each id"))).ok()
}

fn markers_text(markers: &Markers) -> String {
    let outcome = if markers.outcome == Outcome::Commit { "commit" } else { "abort" };
    let Markers { transactional_id, producer, coordinator_epoch, prepare_offset, partitions, .. } = markers;
    let producer = producer_text(*producer);
    let partitions = joined(partitions);
    format!(
        "{outcome} {transactional_id} {producer} {partitions} prepared at {prepare_offset} epoch {coordinator_epoch}"
    )
}

fn answer_text(answer: &Answer) -> String {
    let done = |result: &Result<(), Refusal>| result.map_or_else(code, |()| "NONE".to_owned());
    match answer {
        Answer::InitProducerId(result) => result.map_or_else(code, producer_text),
        Answer::AddPartitions(result) | Answer::EndTxn(result) => done(result),
        Answer::Verify(Ok(verified)) if verified.missing.is_empty() => "NONE".to_owned(),
        Answer::Verify(Ok(verified)) => format!("not in the transaction: {}", joined(&verified.missing)),
        Answer::Verify(Err(refusal)) | Answer::Describe(Err(refusal)) => code(*refusal),
        Answer::List(listing) => {
            let one = |listed: &forebay_coordinator::machine::txn::Listed| {
                format!("{} {} {}", listed.transactional_id, listed.status.name(), listed.producer_id)
            };
            let mut text = listing.transactions.iter().map(one).collect::<Vec<_>>().join(", ");
            if text.is_empty() {
                "nothing".clone_into(&mut text);
            }
            if !listing.unknown_states.is_empty() {
                write!(text, "; unknown {}", listing.unknown_states.join(" ")).expect("strings grow");
            }
            text
        }
        Answer::Describe(Ok(description)) => {
            let started =
                description.started.map_or("never".to_owned(), |at| format!("+{}ms", at.as_millis() - START_MS));
            let partitions = joined(&description.partitions);
            let producer = producer_text(description.producer);
            let (status, timeout) = (description.status.name(), description.timeout_ms);
            format!("{status} {producer} timeout {timeout}ms began {started} {partitions}").trim_end().to_owned()
        }
    }
}

/// The code that `api` answers with.
fn code(refusal: Refusal) -> String {
    let name = match refusal {
        Refusal::TransactionalId => "INVALID_REQUEST",
        Refusal::Timeout => "INVALID_TRANSACTION_TIMEOUT",
        Refusal::Mapping => "INVALID_PRODUCER_ID_MAPPING",
        Refusal::Fenced => "PRODUCER_FENCED",
        Refusal::Epoch => "INVALID_PRODUCER_EPOCH",
        Refusal::Concurrent => "CONCURRENT_TRANSACTIONS",
        Refusal::State => "INVALID_TXN_STATE",
        Refusal::NotFound => "TRANSACTIONAL_ID_NOT_FOUND",
        Refusal::NoProducerId => "COORDINATOR_LOAD_IN_PROGRESS",
    };
    name.to_owned()
}

pub fn producer_text(producer: Producer) -> String {
    format!("{}/{}", producer.id, producer.epoch)
}

fn joined(partitions: &[TxnPartition]) -> String {
    partitions.iter().map(partition_text).collect::<Vec<_>>().join(" ")
}

fn partition_text(partition: &TxnPartition) -> String {
    let TxnPartition { topic, topic_id, partition } = partition;
    let id = topic_id.map_or_else(String::new, |id| format!("@{}", id.get().as_u128()));
    format!("{topic}{id}-{partition}")
}

pub fn producer(text: &str) -> Producer {
    let (id, epoch) = text.split_once('/').expect("PID/EPOCH");
    Producer {
        id: ProducerId::new(id.parse().expect("a number")).expect("a producer id"),
        epoch: ProducerEpoch::new(epoch.parse().expect("a number")).expect("a producer epoch"),
    }
}

/// `t-0,t@7-1`, or `none`.
pub fn partitions(text: &str) -> Vec<TxnPartition> {
    let one = |text: &str| {
        let (topic, partition) = text.rsplit_once('-').expect("TOPIC-PARTITION");
        let (topic, id) = topic.split_once('@').map_or((topic, None), |(topic, id)| (topic, Some(id)));
        let id = id.map(|id| Uuid::from_u128(id.parse().expect("a number")));
        TxnPartition {
            topic: TopicName::new(topic).expect("a topic's name"),
            topic_id: id.map(|id| TopicId::new(id).expect("not nil")),
            partition: PartitionIndex::new(partition.parse().expect("a number")).expect("a partition"),
        }
    };
    if text == "none" { Vec::new() } else { text.split(',').map(one).collect() }
}

fn split(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.into_iter().flat_map(|text| text.split(','))
}

fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let count: u64 = digits.parse().expect("a number");
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(count * 60),
        "h" => Duration::from_secs(count * 3600),
        "d" => Duration::from_secs(count * 86400),
        unit => panic!("no such unit: {unit}"),
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("a test's time")
}

fn epoch(number: i32) -> LeaderEpoch {
    LeaderEpoch::new(number).expect("counted up")
}
