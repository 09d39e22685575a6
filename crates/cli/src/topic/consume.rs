//! `forebay topic consume`: prints records, alone or as a member of a group.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use forebay_client::{
    Admin, Client, Consumer, ConsumerConfig, Fetched, FetchedRecord, GroupConfig, GroupConsumer, Isolation, OffsetAt,
    Partition, StartAt,
};
use forebay_env::Env;
use forebay_types::{Offset, Timestamp, TopicName};

use super::topic_name;
use crate::output::{self, Format, json, plural};
use crate::signals::Stop;

/// How often a group's position is committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Consume {
    /// The topic's name
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    /// From the oldest record on [default: what comes from now on]
    #[arg(long, group = "start")]
    from_beginning: bool,
    /// From this offset on, in the partition named
    #[arg(long, group = "start", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// From the first record of this time on: milliseconds since 1970, or like 2013-01-01T10:00:00Z
    #[arg(long, group = "start", value_parser = output::parse_time, value_name = "TIME")]
    timestamp: Option<Timestamp>,
    /// As a member of this group, from where it left off
    #[arg(short, long, conflicts_with_all = ["partition", "offset", "timestamp", "to_end"])]
    group: Option<String>,
    /// This partition only
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "COUNT")]
    max_messages: Option<u64>,
    /// Stop at the end as it is now
    #[arg(short = 'e', long)]
    to_end: bool,
    /// Whether records of undecided and aborted transactions are shown
    #[arg(long, value_enum, default_value_t = IsolationLevel::ReadUncommitted)]
    isolation: IsolationLevel,
    /// Partition, offset, time and key before each value
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
}

impl IsolationLevel {
    fn level(self) -> Isolation {
        match self {
            Self::ReadUncommitted => Isolation::ReadUncommitted,
            Self::ReadCommitted => Isolation::ReadCommitted,
        }
    }
}

pub async fn run(env: &Env, client: &Client, args: Consume, format: Format) -> Result<()> {
    let mut stop = Stop::listen()?;
    let consumer = ConsumerConfig { isolation: args.isolation.level(), ..ConsumerConfig::default() };
    let printer = Printer { format, verbose: args.verbose, left: args.max_messages, printed: 0, cut: BTreeMap::new() };
    match &args.group {
        Some(group) => {
            super::existing(client, &args.topic).await?;
            let start = if args.from_beginning { StartAt::Earliest } else { StartAt::Latest };
            let config = GroupConfig { start, consumer, ..GroupConfig::new(group, vec![args.topic.clone()]) };
            as_member(env, client, config, printer, &mut stop).await
        }
        None => alone(client, &args, consumer, printer, &mut stop).await,
    }
}

async fn alone(
    client: &Client,
    args: &Consume,
    config: ConsumerConfig,
    mut printer: Printer,
    stop: &mut Stop,
) -> Result<()> {
    let isolation = config.isolation;
    let mut partitions = super::existing(client, &args.topic).await?;
    if let Some(index) = args.partition {
        partitions = vec![super::one_of(partitions, &args.topic, index, "consume")?];
    }
    let start = match (args.from_beginning, args.offset, args.timestamp) {
        (true, ..) => StartAt::Earliest,
        (_, Some(offset), _) => StartAt::Offset(Offset::new(offset)?),
        (.., Some(at)) => StartAt::Timestamp(at),
        // At the end and only up to the end is nothing: the whole topic is meant.
        _ if args.to_end => StartAt::Earliest,
        _ => StartAt::Latest,
    };
    let mut ends = BTreeMap::new();
    if args.to_end {
        let admin = Admin::new(client);
        for partition in &partitions {
            let end = admin.list_offset(partition, OffsetAt::Latest, isolation).await?;
            ends.insert(partition.clone(), end.context("the log has an end")?.offset);
        }
    }
    let mut consumer = Consumer::new(client, config);
    for partition in partitions {
        consumer.assign(partition, start);
    }
    let beyond = |consumer: &Consumer, (partition, end): (&Partition, &Offset)| {
        consumer.position(partition).is_some_and(|position| position >= *end)
    };
    while printer.wants_more() {
        if args.to_end && ends.iter().all(|end| beyond(&consumer, end)) {
            break;
        }
        tokio::select! {
            biased;
            () = stop.asked() => break,
            fetched = consumer.poll() => for one in fetched? {
                let end = ends.get(&one.partition).copied();
                printer.print(&one, end)?;
            },
        }
    }
    printer.finish();
    Ok(())
}

async fn as_member(
    env: &Env,
    client: &Client,
    config: GroupConfig,
    mut printer: Printer,
    stop: &mut Stop,
) -> Result<()> {
    let mut consumer = GroupConsumer::new(client, config);
    let mut committed_at = env.monotonic();
    while printer.wants_more() {
        tokio::select! {
            biased;
            () = stop.asked() => break,
            fetched = consumer.poll() => for one in fetched? {
                printer.print(&one, None)?;
            },
        }
        if printer.wants_more() && env.monotonic() - committed_at >= COMMIT_INTERVAL {
            consumer.commit().await?;
            committed_at = env.monotonic();
        }
    }
    // A limit cuts inside of what was fetched: the group goes on with the first record that was not printed.
    let mut offsets = consumer.positions();
    for (partition, offset) in &mut offsets {
        *offset = printer.cut.get(partition).copied().unwrap_or(*offset);
    }
    consumer.commit_offsets(&offsets).await?;
    printer.finish();
    consumer.leave().await?;
    Ok(())
}

struct Printer {
    format: Format,
    verbose: bool,
    left: Option<u64>,
    printed: u64,
    /// The first record of each partition that was fetched and not printed, because of the limit.
    cut: BTreeMap<Partition, Offset>,
}

impl Printer {
    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    /// Prints records below `end`, as far as the limit goes.
    fn print(&mut self, fetched: &Fetched, end: Option<Offset>) -> Result<()> {
        let records = fetched.records.iter().filter(|record| end.is_none_or(|end| record.offset < end));
        for record in records {
            if !self.wants_more() {
                self.cut.entry(fetched.partition.clone()).or_insert(record.offset);
                break;
            }
            let text = match self.format {
                Format::Json => json(&fetched.partition, record),
                Format::Text if self.verbose => verbose(&fetched.partition, record),
                Format::Text => lossy(record.value.as_deref()),
            };
            output::line(&text)?;
            self.printed += 1;
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
        }
        Ok(())
    }

    fn finish(&self) {
        eprintln!("{} record{}", self.printed, plural(self.printed));
    }
}

fn lossy(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn verbose(partition: &Partition, record: &FetchedRecord) -> String {
    let key = lossy(record.key.as_deref());
    let value = lossy(record.value.as_deref());
    format!("{partition}\t{}\t{}\t{key}\t{value}", record.offset, output::time(record.timestamp))
}

/// One record on one line.
fn json(partition: &Partition, record: &FetchedRecord) -> String {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": String::from_utf8_lossy(name), "value": text(value.as_deref()) }))
        .collect();
    json!({
        "topic": partition.topic.as_str(), "partition": partition.index.get(), "offset": record.offset.get(),
        "timestamp": record.timestamp.as_millis(), "key": text(record.key.as_deref()),
        "value": text(record.value.as_deref()), "headers": headers,
    })
    .to_string()
}
