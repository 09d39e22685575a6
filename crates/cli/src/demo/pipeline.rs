//! The stateful pipeline that the demo kills: running count and delay per carrier, exactly once.
//!
//! Each transaction holds the rows of a piece of the input and the offsets after it: both, or neither. A restart fences
//! the earlier life by its transactional id, which decides what that one left open, then reads its state back from its
//! own committed output and goes on at its committed offsets.
//!
//! Crash: at any point. What is in the process is never ahead of what a restart rebuilds, but for what is not committed.
//! Errors that a newer look can mend end a life inside of the process: the next one begins as after a crash.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use forebay_client::{
    Admin, Client, ClientConfig, ClientError, Consumer, ConsumerConfig, FetchedRecord, GroupMembership, Isolation,
    Kind, Partition, Producer, ProducerConfig, Record, StartAt,
};
use forebay_env::Env;
use forebay_types::{Offset, TopicName};

use super::departures::Stats;
use super::plan::PipelinePoint;
use super::{DEPARTURES, GROUP, STATS, armed, reader};
use crate::exit::Exit;
use crate::logs::{self, Level};

/// Input records of one transaction, at most. A transaction is half a dozen durable steps, one after the other, so in
/// front of an `object` WAL larger ones are what keeps up.
const PIECE: usize = 500;
/// Lives inside of one process: a mistake that repeats is not retried for ever.
const LIVES_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
/// How long a commit is let go before its process dies: enough to leave, as a rule not enough to be answered.
const COMMIT_UNDERWAY: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub struct PipelineArgs {
    #[arg(long)]
    bootstrap: String,
}

pub async fn pipeline(env: &Env, args: PipelineArgs) -> Result<Exit> {
    logs::start(Level::Info);
    let _orders = armed::obey(env);
    let client = Client::new(env.clone(), ClientConfig::new(&args.bootstrap));
    let mut ready = false;
    for life in 1..=LIVES_MAX {
        let Err(error) = live(env, &client, &mut ready).await;
        match error.downcast_ref::<ClientError>().map(ClientError::kind) {
            Some(Kind::Retry | Kind::Abort) => {
                tracing::warn!(life, error = format!("{error:#}"), "begins again from what is committed");
                env.sleep(PAUSE).await;
            }
            Some(Kind::Fenced | Kind::Reject) | None => return Err(error.context("the pipeline has ended")),
        }
    }
    bail!("the pipeline began {LIVES_MAX} times and did not get on")
}

/// One life: from taking over to the first error.
async fn live(env: &Env, client: &Client, ready: &mut bool) -> Result<Infallible> {
    let (input, output) = (reader::topic(DEPARTURES)?, reader::topic(STATS)?);
    let config = ProducerConfig { transactional_id: Some(GROUP.to_owned()), ..ProducerConfig::default() };
    // First of all: only once the earlier life is fenced does what is committed stay as it is.
    let producer = Producer::new(client, config).await?;
    let state = rebuild(client, &output).await?;
    let mut consumer =
        Consumer::new(client, ConsumerConfig { isolation: Isolation::ReadCommitted, ..ConsumerConfig::default() });
    let partitions = client.partitions(&input).await?;
    let committed = Admin::new(client).committed_offsets(GROUP, Some(&partitions)).await?;
    for partition in partitions {
        let known = committed.iter().find(|one| one.partition == partition).map(|one| one.offset);
        consumer.assign(partition, known.map_or(StartAt::Earliest, StartAt::Offset));
    }
    let mut job = Job { env: env.clone(), producer, output, state };
    if !std::mem::replace(ready, true) {
        armed::say("ready");
    }
    loop {
        let mut piece = Vec::new();
        for fetched in consumer.poll().await? {
            for record in fetched.records {
                piece.push((fetched.partition.clone(), record));
                if piece.len() == PIECE {
                    job.transact(std::mem::take(&mut piece)).await?;
                }
            }
        }
        if !piece.is_empty() {
            job.transact(piece).await?;
        }
    }
}

/// The state as the committed output has it: the last row of each carrier.
async fn rebuild(client: &Client, output: &TopicName) -> Result<BTreeMap<String, Stats>> {
    let mut state: BTreeMap<String, Stats> = BTreeMap::new();
    for (at, record) in reader::read(client, output, Isolation::ReadCommitted).await? {
        let row: Stats = serde_json::from_str(&record.value)
            .with_context(|| format!("read the row at {output}-{} offset {}", at.0, at.1))?;
        state.insert(row.carrier.clone(), row);
    }
    Ok(state)
}

struct Job {
    env: Env,
    producer: Producer,
    output: TopicName,
    state: BTreeMap<String, Stats>,
}

impl Job {
    /// One piece of the input, in one transaction.
    async fn transact(&mut self, piece: Vec<(Partition, FetchedRecord)>) -> Result<()> {
        let mut offsets: BTreeMap<Partition, Offset> = BTreeMap::new();
        let mut rows = Vec::with_capacity(piece.len());
        for (partition, record) in piece {
            offsets.insert(partition, record.offset.next());
            rows.push(self.count(&record)?);
        }
        let offsets: Vec<_> = offsets.into_iter().collect();
        self.producer.begin()?;
        // Whether they arrive is the commit's to say.
        drop(self.producer.send(&self.output, rows).await?);
        self.producer.send_offsets(&GroupMembership::alone(GROUP), &offsets).await?;
        if armed::due(PipelinePoint::SentNotCommitted.name()) {
            self.producer.flush().await?;
            armed::die(PipelinePoint::SentNotCommitted.name());
        }
        if armed::due(PipelinePoint::CommitSent.name()) {
            let _ = self.env.timeout(COMMIT_UNDERWAY, self.producer.commit()).await;
            armed::die(PipelinePoint::CommitSent.name());
        }
        self.producer.commit().await?;
        Ok(())
    }

    /// The carrier's row after one more departure.
    fn count(&mut self, record: &FetchedRecord) -> Result<Record> {
        let line = std::str::from_utf8(record.value.as_deref().unwrap_or_default())?;
        let (carrier, delay) = parse(line).with_context(|| format!("read the departure {line:?}"))?;
        let row = self.state.entry(carrier.to_owned()).or_insert_with(|| Stats {
            carrier: carrier.to_owned(),
            flights: 0,
            delay: 0,
        });
        row.flights += 1;
        row.delay += delay;
        let value = serde_json::to_vec(row)?;
        Ok(Record::new(Some(Bytes::copy_from_slice(carrier.as_bytes())), Bytes::from(value)))
    }
}

/// Carrier and delay of a departure; a cancelled one has no delay and adds none.
fn parse(line: &str) -> Option<(&str, i64)> {
    let mut columns = line.split(',');
    let delay = columns.nth(5)?;
    let carrier = columns.nth(3)?;
    let delay = if delay == "NA" { 0 } else { delay.parse().ok()? };
    (!carrier.is_empty()).then_some((carrier, delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pipeline reads late, early and cancelled departures, and refuses what is none.
    #[test]
    fn departures_are_read() {
        assert_eq!(parse("2013,1,1,517,515,2,830,819,11,UA,1545"), Some(("UA", 2)));
        assert_eq!(parse("2013,1,1,544,545,-1,1004,1022,-18,B6,725"), Some(("B6", -1)));
        assert_eq!(parse("2013,1,1,NA,545,NA,NA,1022,NA,EV,725"), Some(("EV", 0)));
        assert_eq!(parse("2013,1,1,517,515,soon,830,819,11,UA,1545"), None);
        assert_eq!(parse("2013,1,1"), None);
    }
}
