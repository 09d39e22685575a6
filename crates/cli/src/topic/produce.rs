//! `forebay topic produce`: lines of standard input become records, each acknowledged before the command says so.
//!
//! Bound: at most [`ACKS_WAITING_MAX`] batches wait for their acknowledgement; the client bounds the bytes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, IsTerminal, Stdin};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use forebay_client::{Client, Codec, Delivery, Producer, ProducerConfig, Record};
use forebay_env::Env;
use forebay_types::TopicName;

use super::topic_name;
use crate::output::{self, Format, json, plural};
use crate::progress;

/// Lines that go to the client at once.
const LINES_MAX: usize = 1000;
/// Batches sent and not yet acknowledged: the client has five a partition on the way.
const ACKS_WAITING_MAX: usize = 256;
/// The longest line: a broker takes no larger record by default.
const LINE_SIZE_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct Produce {
    /// The topic's name; it is made where the broker makes topics by itself
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    /// What separates a line's key from its value [default: lines have no key]
    #[arg(short = 'k', long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// The partition to write to [default: by key, else in turn]
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd => Codec::Zstd,
        }
    }
}

pub async fn run(env: &Env, client: &Client, args: Produce, format: Format) -> Result<()> {
    let partition = match args.partition {
        Some(index) => {
            // A producer would wait for it to come into being.
            let all = client.partitions(&args.topic).await?;
            Some(super::one_of(all, &args.topic, index, "produce to")?)
        }
        None => None,
    };
    let config = ProducerConfig { codec: args.compression.codec(), ..ProducerConfig::default() };
    let mut producer = Producer::new(client, config).await?;
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("Each line becomes a record of {}; Ctrl-D ends.", args.topic);
    }
    let spinner = if stdin.is_terminal() { indicatif::ProgressBar::hidden() } else { progress::spinner("records") };
    let mut reader = BufReader::new(stdin);
    let mut waiting: VecDeque<Delivery> = VecDeque::new();
    let mut acked = Acked::default();
    loop {
        let (read, lines) = env.blocking("stdin", move || read_lines(reader)).await?;
        reader = read;
        if lines.is_empty() {
            break;
        }
        let mut records = Vec::with_capacity(lines.len());
        for line in &lines {
            records.push(record(line, args.key_separator.as_deref())?);
        }
        let sent = match &partition {
            Some(partition) => vec![producer.send_to(partition, records).await?],
            None => producer.send(&args.topic, records).await?,
        };
        waiting.extend(sent);
        while waiting.len() > ACKS_WAITING_MAX {
            acked.take(&mut waiting).await?;
            spinner.set_position(acked.records);
        }
    }
    while !waiting.is_empty() {
        acked.take(&mut waiting).await?;
        spinner.set_position(acked.records);
    }
    spinner.finish_and_clear();
    acked.show(&args.topic, format)
}

/// What was acknowledged: per partition how many records, and the last one's offset.
#[derive(Default)]
struct Acked {
    records: u64,
    partitions: BTreeMap<i32, (u64, i64)>,
}

impl Acked {
    async fn take(&mut self, waiting: &mut VecDeque<Delivery>) -> Result<()> {
        let Some(delivery) = waiting.pop_front() else { return Ok(()) };
        let done = self.records;
        let told = || format!("{done} record{} were acknowledged before this one", plural(done));
        let ack = delivery.await.with_context(told)?;
        let count = u64::from(ack.records);
        self.records += count;
        let entry = self.partitions.entry(ack.partition.index.get()).or_default();
        *entry = (entry.0 + count, ack.base_offset.get() + i64::from(ack.records) - 1);
        Ok(())
    }

    fn show(&self, topic: &TopicName, format: Format) -> Result<()> {
        let Self { records, partitions } = self;
        let mut text = format!("{records} record{} acknowledged", plural(*records));
        for (index, (count, last)) in partitions {
            text += &format!("\n  {topic}-{index}: {count}, the last at offset {last}");
        }
        let rows: Vec<_> = partitions
            .iter()
            .map(|(index, (count, last))| json!({ "partition": index, "records": count, "lastOffset": last }))
            .collect();
        output::show(format, &text, &json!({ "topic": topic.as_str(), "records": records, "partitions": rows }))
    }
}

/// At least one line unless the input has ended, and those after it that are here already: nobody waits for a full batch.
fn read_lines(mut reader: BufReader<Stdin>) -> Result<(BufReader<Stdin>, Vec<Vec<u8>>)> {
    let mut lines = Vec::new();
    while lines.is_empty() || (lines.len() < LINES_MAX && reader.buffer().contains(&b'\n')) {
        let mut line = Vec::new();
        let limit = LINE_SIZE_MAX as u64 + 1;
        std::io::Read::take(&mut reader, limit).read_until(b'\n', &mut line).context("read standard input")?;
        if line.is_empty() {
            break;
        }
        if line.len() > LINE_SIZE_MAX {
            bail!("a line is longer than {}: no broker takes it as one record", output::size(LINE_SIZE_MAX as u64));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            line.pop_if(|last| *last == b'\r');
        }
        lines.push(line);
    }
    Ok((reader, lines))
}

fn record(line: &[u8], separator: Option<&str>) -> Result<Record> {
    let Some(separator) = separator else {
        return Ok(Record::new(None, Bytes::copy_from_slice(line)));
    };
    let bytes = separator.as_bytes();
    let at = line.windows(bytes.len().max(1)).position(|window| window == bytes);
    let Some(at) = at else {
        bail!("a line has no separator {separator:?} after its key: {:?}", String::from_utf8_lossy(line));
    };
    let key = Bytes::copy_from_slice(&line[..at]);
    Ok(Record::new(Some(key), Bytes::copy_from_slice(&line[at + bytes.len()..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and value are parted at the first separator; a line without one is refused, not sent without a key.
    #[test]
    fn lines_are_parted_at_the_first_separator() {
        let parted = record(b"a::b::c", Some("::")).expect("a record");
        assert_eq!((parted.key.as_deref(), parted.value.as_deref()), (Some(&b"a"[..]), Some(&b"b::c"[..])));
        let whole = record(b"a::b", None).expect("a record");
        assert_eq!((whole.key, whole.value.as_deref()), (None, Some(&b"a::b"[..])));
        assert!(record(b"ab", Some("::")).is_err());
    }
}
