//! Scripts of requests and answers: `STEP -> ANSWER` per line, `#` begins a remark. What is answered is compared with the
//! script as a whole, so that a difference shows every line.
//!
//! A step is a verb, its words, and options as `key=value`; `v=N` picks the version, where that matters. Steps:
//! ```text
//! create TOPIC [partitions=N] [rf=N] [assign=0:1,1:1] [validate] [key=value…]
//! delete TOPIC | id:TOPIC …          grow TOPIC COUNT [validate]
//! metadata [TOPIC | id:TOPIC …] [noauto] [all]
//! produce TOPIC/INDEX VALUE,… [id= epoch= seq=] [txn=ID] [acks=] [time=] [key=] [codec=] [size=]
//! fetch TOPIC/INDEX FROM [committed] [max=] [epoch=] [last=]
//! offsets TOPIC/INDEX TIMESTAMP [committed] [epoch=]       epoch TOPIC/INDEX EPOCH [current=]
//! trim TOPIC/INDEX OFFSET             marker TOPIC/INDEX commit|abort id= [epoch=]
//! describe topic|broker|logger NAME [KEY,…] [synonyms]     alter|edit topic|broker NAME [key=value …] [validate]
//! producers TOPIC/INDEX    logdirs [TOPIC]    elect TOPIC/INDEX    cluster [type=N]    acls    reassignments
//! pin TOPIC/INDEX FROM     damage TOPIC/INDEX OFFSET      restart    drain    wait MS    out-of-range
//! init [TXN] [id= epoch=] [timeout=]  enlist TXN TOPIC/INDEX … id= [epoch=]          enlist-group TXN GROUP id= [epoch=]
//! end TXN commit|abort id= [epoch=]   settled TXN        txns [STATE …] [pid=] [longer=]             txn TXN …
//! coordinator group|txn KEY …         commit GROUP TOPIC/INDEX=OFFSET … [member=] [generation=] [txn=ID id= epoch=]
//! committed GROUP … [TOPIC/INDEX …] [stable] [all]       forget GROUP TOPIC/INDEX …
//! groups [STATE …] [types=]           group GROUP …          drop GROUP …
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use forebay_metadata::Command;
use forebay_metadata::state::{Holds, PinKind};
use forebay_types::Offset;
use forebay_wire::ErrorCode;

use crate::world::World;
use crate::{admin, coordinators, fetch, offsets, produce, topics};

/// A step in its parts.
pub struct Step<'a> {
    pub words: Vec<&'a str>,
    pub options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Step<'a> {
    fn parse(text: &'a str) -> Self {
        let mut step = Self { words: Vec::new(), options: BTreeMap::new() };
        for part in text.split_whitespace() {
            match part.split_once('=') {
                Some((key, value)) => drop(step.options.insert(key, value)),
                None => step.words.push(part),
            }
        }
        step
    }

    pub fn word(&self, at: usize) -> &'a str {
        self.words.get(at).unwrap_or_else(|| panic!("{:?} has a word {at}", self.words))
    }

    pub fn has(&self, flag: &str) -> bool {
        self.words.contains(&flag)
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        let parse = |text: &&str| text.parse().unwrap_or_else(|_| panic!("{key}={text} is a number"));
        self.options.get(key).map_or(default, parse)
    }

    pub fn version(&self, default: i16) -> i16 {
        self.number("v", default)
    }

    /// `TOPIC/INDEX`.
    pub fn partition(&self) -> (&'a str, i32) {
        let (topic, index) = self.word(1).split_once('/').expect("TOPIC/INDEX");
        (topic, index.parse().expect("a partition's number"))
    }

    /// Options that are configuration keys: they have a dot.
    pub fn configs(&self) -> Vec<(&'a str, &'a str)> {
        self.options.iter().filter(|(key, _)| key.contains('.')).map(|(key, value)| (*key, *value)).collect()
    }
}

/// Runs a script in a world of its own.
pub async fn check(script: &str) {
    check_in(&mut World::new().await, script).await;
}

/// Runs a script, and compares.
pub async fn check_in(world: &mut World, script: &str) {
    let (mut expected, mut actual) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(expected, "{line}").expect("a string takes all");
        if line.starts_with('#') {
            writeln!(actual, "{line}").expect("a string takes all");
            continue;
        }
        let (step, _) = line.split_once(" -> ").unwrap_or_else(|| panic!("{line:?} is STEP -> ANSWER"));
        let answer = run(world, &Step::parse(step)).await;
        writeln!(actual, "{step} -> {answer}").expect("a string takes all");
    }
    assert!(actual == expected, "\n--- expected\n{expected}\n--- actual\n{actual}");
}

async fn run(world: &mut World, step: &Step<'_>) -> String {
    let answered = match step.word(0) {
        "create" => topics::create(world, step).await,
        "delete" => topics::delete(world, step).await,
        "grow" => topics::grow(world, step).await,
        "metadata" => topics::metadata(world, step).await,
        "produce" => produce::produce(world, step).await,
        "marker" => produce::marker(world, step).await,
        "producers" => produce::producers(world, step).await,
        "fetch" => fetch::fetch(world, step).await,
        "offsets" => offsets::offsets(world, step).await,
        "epoch" => offsets::epoch(world, step).await,
        "trim" => offsets::trim(world, step).await,
        "describe" => admin::describe(world, step).await,
        "alter" => admin::alter(world, step).await,
        "edit" => admin::edit(world, step).await,
        "logdirs" => admin::log_dirs(world, step).await,
        "elect" => admin::elect(world, step).await,
        "cluster" => admin::cluster(world, step).await,
        "acls" => admin::acls(world, step).await,
        "reassignments" => admin::reassignments(world, step).await,
        "pin" => Ok(pin(world, step).await),
        "damage" => {
            let (topic, index) = step.partition();
            world.damage(topic, index, Offset::new(step.word(2).parse().expect("an offset")).expect("legal")).await;
            Ok("damaged".to_owned())
        }
        verb if coordinators::VERBS.contains(&verb) => coordinators::run(world, step).await,
        "out-of-range" => Ok(out_of_range(world)),
        "restart" => {
            world.restart().await;
            Ok("started".to_owned())
        }
        "drain" => {
            world.drain().await;
            Ok("drained".to_owned())
        }
        "wait" => {
            world.context().env.sleep(Duration::from_millis(step.word(1).parse().expect("milliseconds"))).await;
            Ok("waited".to_owned())
        }
        verb => panic!("no step {verb}"),
    };
    answered.unwrap_or_else(|without| without)
}

/// How often OFFSET_OUT_OF_RANGE was answered, by API and side.
fn out_of_range(world: &World) -> String {
    let counted = world.context().counters.offsets_out_of_range().filter(|(.., count)| *count > 0);
    let shown: Vec<_> = counted.map(|(api, beyond, n)| format!("{} {}={n}", api.name(), beyond.name())).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

async fn pin(world: &World, step: &Step<'_>) -> String {
    let (topic, index) = step.partition();
    let context = world.context();
    let from = Offset::new(step.word(2).parse().expect("an offset")).expect("not negative");
    let command = Command::CreatePin {
        kind: PinKind::Checkpoint,
        holds: Holds::History,
        owner: "job".to_owned(),
        reason: "a checkpoint".to_owned(),
        scope: [(world.partition(topic, index).id(), from)].into(),
        renewal_ms: 3_600_000,
        now: context.env.now(),
    };
    format!("pin {}", context.metadata.submit(command).await.expect("a legal pin").into_pinned())
}

/// A code's name.
pub fn code(code: i16) -> &'static str {
    ErrorCode::try_from(code).expect("a code of Kafka's").name()
}

/// A code's name, with what is said beside it.
pub fn told(error_code: i16, message: Option<&str>) -> String {
    match message {
        Some(message) if !message.is_empty() => format!("{}: {message}", code(error_code)),
        _ => code(error_code).to_owned(),
    }
}

/// A value's first character stands for one that is too long for a script.
fn short(value: &str) -> String {
    match value.chars().next() {
        Some(first) if value.len() > 1000 => format!("{first}…"),
        _ => value.to_owned(),
    }
}

/// Record batches as text: each record as `OFFSET:VALUE`, a marker as `OFFSET:COMMIT`, tombstones as `OFFSET:-`.
pub fn records(bytes: &Bytes) -> String {
    let mut shown = Vec::new();
    for batch in forebay_wire::Batches::new(bytes) {
        let batch = batch.expect("whole batches");
        let header = batch.header;
        if header.is_control() {
            let marker = forebay_wire::batch::parse_marker(batch.bytes).expect("a marker");
            shown.push(format!("{}:{}", header.base_offset, format!("{:?}", marker.kind).to_uppercase()));
            continue;
        }
        for record in forebay_wire::batch::records(&Bytes::copy_from_slice(batch.bytes), 1 << 20).expect("sound") {
            let record = record.expect("sound");
            let value = record.value.map_or("-".to_owned(), |value| short(&String::from_utf8_lossy(&value)));
            shown.push(format!("{}:{value}", header.base_offset + i64::from(record.offset_delta)));
        }
    }
    shown.join(" ")
}
