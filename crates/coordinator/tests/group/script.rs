//! Runs a script against a machine and compares what it says with what the script expects.
//!
//! A line that begins with `>` is a command; the lines after it are what comes out: `#3 …` is the reply to the third
//! command, `+7 …` the record that is appended at offset 7. Member ids end in a number, that
//! of the join among those that came without a member id.
//! `wait` lets time pass and does what it brings; `restart` drops the machine and opens it from its log, or from a
//! snapshot and the rest of the log. After each command, log, snapshot and live machine must agree.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use forebay_coordinator::machine::group::{
    Caller, Commit, CommitPartition, CommitTopic, DeleteOffsets, Fetch, FetchTopic, GroupConfig, GroupError,
    GroupMachine, Heartbeat, Join, Leave, Leaver, List, Loading, Replayed, Reply, Request, Sync, TOPIC_ID_HEADER,
    TopicResults,
};
use forebay_coordinator::machine::{Now, Output, Producer, Record, Token};
use forebay_coordinator::schema::{GroupMetadataValue, OffsetCommitValue, OffsetsKey};
use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicName};

/// What the random bits of a join look like in a member id, up to the last byte.
const UUID: &str = "00000000-0000-4000-8000-0000000000";

/// What stands in the log.
#[derive(Clone, Debug)]
pub enum Entry {
    Record { producer: Option<ProducerId>, record: Record },
    Marker { producer: ProducerId, committed: bool },
}

/// A machine with its log and its clock.
pub struct World {
    pub config: GroupConfig,
    pub machine: GroupMachine,
    pub log: Vec<Entry>,
    pub uptime: Duration,
    pub tokens: u64,
    joins: u8,
    snapshot: Option<(Bytes, usize)>,
}

pub fn replay(config: &GroupConfig, snapshot: Option<&[u8]>, from: usize, log: &[Entry], now: Now) -> GroupMachine {
    let mut loading = match snapshot {
        Some(bytes) => Loading::restore(config.clone(), bytes).expect("a snapshot that was just made"),
        None => Loading::new(config.clone()),
    };
    for (at, entry) in log.iter().enumerate().skip(from) {
        match entry {
            Entry::Marker { producer, committed } => loading.transaction_ended(*producer, *committed),
            Entry::Record { producer, record } => {
                let header = record.headers.iter().find(|(name, _)| *name == TOPIC_ID_HEADER);
                let known = loading.replay(Replayed {
                    offset: offset(at),
                    producer: *producer,
                    key: &record.key,
                    value: record.value.as_deref(),
                    topic_id: header.map(|(_, value)| &**value),
                });
                assert_eq!(known, Ok(true), "a machine writes only what it can read");
            }
        }
    }
    loading.open(now)
}

fn offset(at: usize) -> Offset {
    Offset::new(i64::try_from(at).expect("a short log")).expect("not negative")
}

impl World {
    pub fn new(config: GroupConfig) -> Self {
        let uptime = Duration::from_secs(1000);
        let machine = Loading::new(config.clone()).open(now(uptime));
        Self { config, machine, log: Vec::new(), uptime, tokens: 0, joins: 0, snapshot: None }
    }

    pub fn now(&self) -> Now {
        now(self.uptime)
    }

    pub fn end(&self) -> Offset {
        offset(self.log.len())
    }

    pub fn request(&mut self, request: Request) -> Output<Reply> {
        self.tokens += 1;
        let output = self.machine.handle(self.now(), self.end(), Token(self.tokens), request);
        self.append(&output);
        output
    }

    pub fn append(&mut self, output: &Output<Reply>) {
        let producer = output.producer.map(|producer| producer.id);
        self.log.extend(output.records.iter().map(|record| Entry::Record { producer, record: record.clone() }));
    }

    pub fn marker(&mut self, producer: ProducerId, committed: bool) {
        self.log.push(Entry::Marker { producer, committed });
        self.machine.transaction_ended(producer, committed);
    }

    pub fn restart(&mut self) {
        self.machine = match &self.snapshot {
            Some((bytes, at)) => replay(&self.config, Some(bytes), *at, &self.log, self.now()),
            None => replay(&self.config, None, 0, &self.log, self.now()),
        };
    }

    /// What is recorded is the same live, by the log, and by a snapshot.
    pub fn check(&self) {
        let live = self.machine.snapshot();
        let again =
            Loading::restore(self.config.clone(), &live).expect("a snapshot that was just made").open(self.now());
        assert_eq!(again.snapshot(), live, "a snapshot restores to itself");
        assert_eq!(
            replay(&self.config, None, 0, &self.log, self.now()).snapshot(),
            live,
            "the log gives the live state"
        );
        if let Some((bytes, at)) = &self.snapshot {
            let restored = replay(&self.config, Some(bytes), *at, &self.log, self.now());
            assert_eq!(restored.snapshot(), live, "a snapshot and the rest of the log give the live state");
        }
    }

    pub fn take_snapshot(&mut self) {
        self.snapshot = Some((self.machine.snapshot(), self.log.len()));
    }

    fn command(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a command");
        let arguments = Arguments::parse(words);
        let before = self.log.len();
        let output = match verb {
            "wait" => return self.wait(arguments.duration(0)),
            "restart" => {
                self.restart();
                return String::new();
            }
            "snapshot" => {
                self.take_snapshot();
                return String::new();
            }
            "marker" => {
                let committed = arguments.words[0] == "commit";
                self.marker(arguments.producer(), committed);
                return String::new();
            }
            "sweep" => {
                let output = self.machine.sweep(self.now(), self.end());
                self.append(&output);
                output
            }
            "delete-topic" => {
                let id = arguments.topic_id().expect("id=");
                let output = self.machine.topic_deleted(self.now(), self.end(), &topic(&arguments.words[0]), id);
                self.append(&output);
                output
            }
            _ => {
                let request = self.parse(verb, &arguments);
                self.request(request)
            }
        };
        show(&output, before)
    }

    fn wait(&mut self, time: Duration) -> String {
        let end = self.uptime + time;
        let mut shown = String::new();
        while let Some(deadline) = self.machine.next_deadline().filter(|deadline| *deadline <= end) {
            self.uptime = self.uptime.max(deadline);
            let before = self.log.len();
            let output = self.machine.tick(self.now(), self.end());
            self.append(&output);
            shown += &show(&output, before);
        }
        self.uptime = end;
        shown
    }

    fn parse(&mut self, verb: &str, arguments: &Arguments) -> Request {
        let group = arguments.words.first().cloned().unwrap_or_default();
        match verb {
            "join" => {
                self.joins += u8::from(!arguments.named.contains_key("member"));
                Request::Join(arguments.join(group, self.joins))
            }
            "sync" => Request::Sync(Sync {
                group,
                caller: arguments.caller(),
                protocol_type: arguments.get("type"),
                protocol: arguments.get("protocol"),
                assignments: arguments.assignments(),
            }),
            "heartbeat" => Request::Heartbeat(Heartbeat { group, caller: arguments.caller() }),
            "leave" => {
                Request::Leave(Leave { group, members: arguments.words[1..].iter().map(|w| leaver(w)).collect() })
            }
            "commit" => Request::Commit(arguments.commit(group)),
            "txn-commit" => {
                let producer = Producer { id: arguments.producer(), epoch: ProducerEpoch::ZERO };
                Request::CommitInTransaction(producer, arguments.commit(group))
            }
            "fetch" => Request::Fetch(arguments.fetch(group)),
            "delete-offsets" => {
                let topics = by_topic(&arguments.words[1..]).into_iter();
                Request::DeleteOffsets(DeleteOffsets { group, topics: topics.map(|(t, of)| (topic(&t), of)).collect() })
            }
            "delete" => Request::DeleteGroup { group },
            "describe" => Request::Describe { group },
            "list" => Request::List(List { states: arguments.list("states"), types: arguments.list("types") }),
            other => panic!("no such command: {other}"),
        }
    }
}

fn now(uptime: Duration) -> Now {
    let millis = i64::try_from(uptime.as_millis()).expect("a short test");
    Now { wall: Timestamp::from_millis(1_700_000_000_000 + millis), uptime }
}

/// `key=value` and other words; `t-0=5` is another word.
struct Arguments {
    words: Vec<String>,
    named: BTreeMap<String, String>,
}

impl Arguments {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut arguments = Self { words: Vec::new(), named: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((name, value)) if !name.contains(|c: char| c.is_ascii_digit()) => {
                    arguments.named.insert(name.to_owned(), value.to_owned());
                }
                _ => arguments.words.push(word.to_owned()),
            }
        }
        arguments
    }

    fn get(&self, name: &str) -> Option<String> {
        self.named.get(name).cloned()
    }

    fn or(&self, name: &str, default: &str) -> String {
        self.get(name).unwrap_or_else(|| default.to_owned())
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.get(name).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    fn duration(&self, word: usize) -> Duration {
        duration(&self.words[word])
    }

    fn producer(&self) -> ProducerId {
        ProducerId::new(self.or("producer", "").parse().expect("producer=NUMBER")).expect("not negative")
    }

    fn topic_id(&self) -> Option<TopicId> {
        let mut bits = [0; 16];
        bits[1] = self.get("id")?.parse().expect("id=NUMBER");
        Some(TopicId::from_random(bits))
    }

    fn caller(&self) -> Caller {
        Caller {
            member_id: self.get("member").map(|id| full(&id)).unwrap_or_default(),
            instance_id: self.get("instance"),
            generation: self.or("generation", "-1").parse().expect("generation=NUMBER"),
        }
    }

    fn join(&self, group: String, number: u8) -> Join {
        let mut random = [0; 16];
        random[15] = number;
        let millis = |name, default| i32::try_from(duration(&self.or(name, default)).as_millis()).expect("short");
        let protocol = |text: &str| {
            let (name, topics) = text.split_once(':').unwrap_or((text, "t"));
            (name.to_owned(), subscription(topics))
        };
        Join {
            group,
            member_id: self.get("member").map(|id| full(&id)).unwrap_or_default(),
            instance_id: self.get("instance"),
            client_id: self.or("client", "c"),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: millis("session", "10s"),
            rebalance_timeout_ms: millis("rebalance", "60s"),
            protocol_type: self.or("type", "consumer"),
            protocols: self.or("protocols", "range").split(';').filter(|it| !it.is_empty()).map(protocol).collect(),
            version: self.or("v", "9").parse().expect("v=NUMBER"),
            random,
        }
    }

    fn assignments(&self) -> Vec<(String, Bytes)> {
        let pair = |text: &str| {
            let (member, share) = text.split_once(':').expect("assign=MEMBER:SHARE");
            (full(member), Bytes::copy_from_slice(share.as_bytes()))
        };
        let pairs = self.get("assign").unwrap_or_default();
        pairs.split(';').filter(|it| !it.is_empty()).map(pair).collect()
    }

    fn commit(&self, group: String) -> Commit {
        let metadata = "m".repeat(self.or("metadata", "0").parse().expect("metadata=LENGTH"));
        let mut topics = BTreeMap::<String, Vec<CommitPartition>>::new();
        for word in &self.words[1..] {
            let (place, position) = word.split_once('=').expect("TOPIC-PARTITION=OFFSET");
            let (topic, index) = place.rsplit_once('-').expect("TOPIC-PARTITION=OFFSET");
            let offset = position.parse().expect("an offset");
            let partition = CommitPartition {
                index: index.parse().expect("a partition"),
                offset,
                leader_epoch: 4,
                metadata: metadata.clone(),
            };
            topics.entry(topic.to_owned()).or_default().push(partition);
        }
        let row = |(name, partitions): (String, _)| CommitTopic {
            topic: topic(&name),
            topic_id: self.topic_id(),
            partitions,
        };
        Commit {
            group,
            caller: self.caller(),
            retention_ms: self.get("retention").map(|it| i64::try_from(duration(&it).as_millis()).expect("short")),
            topics: topics.into_iter().map(row).collect(),
        }
    }

    fn fetch(&self, group: String) -> Fetch {
        let places: Vec<String> = self.words[1..].iter().filter(|word| *word != "stable").cloned().collect();
        let row =
            |(name, partitions): (String, _)| FetchTopic { topic: topic(&name), topic_id: self.topic_id(), partitions };
        Fetch {
            group,
            topics: (!places.is_empty()).then(|| by_topic(&places).into_iter().map(row).collect()),
            require_stable: self.words.iter().any(|word| word == "stable"),
        }
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a legal topic name")
}

fn by_topic(places: &[String]) -> BTreeMap<String, Vec<i32>> {
    let mut topics = BTreeMap::<String, Vec<i32>>::new();
    for place in places {
        let (topic, partition) = place.rsplit_once('-').expect("TOPIC-PARTITION");
        topics.entry(topic.to_owned()).or_default().push(partition.parse().expect("a partition"));
    }
    topics
}

fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let count: u64 = digits.parse().expect("a duration");
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_mins(count),
        "d" => Duration::from_hours(24 * count),
        unit => panic!("no such unit: {unit}"),
    }
}

/// `c-03` as a member id, `/i` as an instance, `c-03/i` as both.
fn leaver(word: &str) -> Leaver {
    let (member, instance) = word.split_once('/').map_or((word, None), |(member, it)| (member, Some(it)));
    Leaver { member_id: full(member), instance_id: instance.map(str::to_owned) }
}

/// A member id in full, from one as scripts write it.
fn full(short: &str) -> String {
    match short.rsplit_once('-') {
        Some((name, number)) if number.len() == 2 => format!("{name}-{UUID}{number}"),
        _ => short.to_owned(),
    }
}

fn short(text: &str) -> String {
    text.replace(UUID, "")
}

fn subscription(topics: &str) -> Bytes {
    let names: Vec<&str> = topics.split(',').filter(|name| !name.is_empty()).collect();
    let mut bytes = vec![0, 1];
    bytes.extend(u32::try_from(names.len()).expect("few").to_be_bytes());
    for name in names {
        bytes.extend(u16::try_from(name.len()).expect("short").to_be_bytes());
        bytes.extend(name.as_bytes());
    }
    bytes.extend((-1_i32).to_be_bytes());
    bytes.into()
}

fn topics_of(subscription: &Bytes) -> String {
    let names = subscription.get(6..).unwrap_or_default().split(|byte| !byte.is_ascii_graphic());
    names.filter(|name| !name.is_empty()).map(String::from_utf8_lossy).collect::<Vec<_>>().join(",")
}

/// Kafka's name of an error.
fn name(error: GroupError) -> String {
    let mut name = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

fn show(output: &Output<Reply>, before: usize) -> String {
    let mut text = String::new();
    for (at, record) in output.records.iter().enumerate() {
        let producer = output.producer.map(|it| format!(" of producer {}", it.id)).unwrap_or_default();
        writeln!(text, "+{} {}{producer}", before + at, show_record(record)).expect("a string");
    }
    for (Token(token), reply) in &output.replies {
        writeln!(text, "{}", format!("#{token} {}", show_reply(reply)).trim_end()).expect("a string");
    }
    short(&text)
}

fn show_record(record: &Record) -> String {
    match (OffsetsKey::parse(&record.key).expect("a key"), &record.value) {
        (OffsetsKey::Offset(key), None) => format!("{} {}-{} gone", key.group, key.topic, key.partition),
        (OffsetsKey::Offset(key), Some(value)) => {
            let value = OffsetCommitValue::parse(value).expect("a value");
            format!("{} {}-{} = {}", key.group, key.topic, key.partition, value.offset)
        }
        (OffsetsKey::Group(key), None) => format!("{} gone", key.group),
        (OffsetsKey::Group(key), Some(value)) => {
            let value = GroupMetadataValue::parse(value).expect("a value");
            let mut text = format!("{} generation {}", key.group, value.generation);
            for member in value.members {
                let share = String::from_utf8_lossy(&member.assignment).into_owned();
                write!(text, " {}:{share}", member.member_id).expect("a string");
            }
            text
        }
        (OffsetsKey::Unknown { version }, _) => panic!("a key of version {version}"),
    }
}

fn show_reply(reply: &Reply) -> String {
    match reply {
        Reply::Join(Err(refused)) => format!("{} {}", name(refused.error), refused.member_id).trim_end().to_owned(),
        Reply::Join(Ok(joined)) => {
            let mut text = format!("{} in generation {}", joined.member_id, joined.generation);
            let protocol = joined.protocol.as_deref().unwrap_or_default();
            write!(text, " of {protocol}, leader {}", joined.leader).expect("a string");
            for member in &joined.members {
                write!(text, " {}:{}", member.member_id, topics_of(&member.metadata)).expect("a string");
            }
            text + if joined.skip_assignment { " skip" } else { "" }
        }
        Reply::Sync(Ok(synced)) => format!("assigned {}", String::from_utf8_lossy(&synced.assignment)),
        Reply::Sync(Err(error))
        | Reply::Leave(Err(error))
        | Reply::Commit(Err(error))
        | Reply::DeleteOffsets(Err(error)) => name(*error),
        Reply::Heartbeat(result) | Reply::DeleteGroup(result) => outcome(*result),
        Reply::Leave(Ok(left)) => {
            let row = |it: &forebay_coordinator::machine::group::Left| {
                let instance = it.leaver.instance_id.as_ref().map(|it| format!("/{it}")).unwrap_or_default();
                format!("{}{instance} {}", it.leaver.member_id, outcome(it.result))
            };
            left.iter().map(row).collect::<Vec<_>>().join(", ")
        }
        Reply::Commit(Ok(rows)) | Reply::DeleteOffsets(Ok(rows)) => show_results(rows),
        Reply::Fetch(topics) => {
            let mut rows = Vec::new();
            for topic in topics {
                for partition in &topic.partitions {
                    let position = match &partition.position {
                        Ok(Some(position)) => position.offset.to_string(),
                        Ok(None) => "none".to_owned(),
                        Err(error) => name(*error),
                    };
                    rows.push(format!("{}-{} {position}", topic.topic, partition.index));
                }
            }
            if rows.is_empty() { "nothing".to_owned() } else { rows.join(", ") }
        }
        Reply::Describe(None) => "not there".to_owned(),
        Reply::Describe(Some(group)) => {
            let mut text = format!("{} {}/{}", group.state.name(), group.protocol_type, group.protocol);
            for member in &group.members {
                let share = String::from_utf8_lossy(&member.assignment).into_owned();
                write!(text, " {}:{}:{share}", member.member_id, topics_of(&member.metadata)).expect("a string");
            }
            text
        }
        Reply::List(groups) => {
            let row = |it: &forebay_coordinator::machine::group::Listed| format!("{} {}", it.group, it.state.name());
            groups.iter().map(row).collect::<Vec<_>>().join(", ")
        }
    }
}

fn outcome(result: Result<(), GroupError>) -> String {
    result.map_or_else(name, |()| "ok".to_owned())
}

fn show_results(rows: &[TopicResults]) -> String {
    let row = |topic: &TopicResults| {
        let one = |(index, result): &(i32, _)| format!("{}-{index} {}", topic.topic, outcome(*result));
        topic.partitions.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    rows.iter().map(row).collect::<Vec<_>>().join(", ")
}

/// Runs `script` with a machine of that configuration.
pub fn check_with(config: GroupConfig, script: &str) {
    let mut world = World::new(config);
    let (mut expected, mut actual) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        expected = expected + line + "\n";
        if let Some(command) = line.strip_prefix("> ") {
            actual = actual + line + "\n" + &world.command(command);
            world.check();
        }
    }
    assert!(actual == expected, "expected:\n{expected}\nbut was:\n{actual}");
}

/// Runs `script` with Kafka's defaults.
pub fn check(script: &str) {
    check_with(GroupConfig::default(), script);
}
