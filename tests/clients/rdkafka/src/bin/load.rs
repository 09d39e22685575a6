//! Load for `cargo xtask bench`.
//!
//! `load produce|consume|latency BOOTSTRAP TOPIC AMOUNT` prints MiB/s (produce, consume; AMOUNT in MiB), or the p50 and
//! p99 of acknowledgements in microseconds at 1,000 records a second (latency; AMOUNT in seconds).
//!
//! `load fill BOOTSTRAP TOPIC GIB PARTITIONS BATCH_KIB` makes a long history out of records that do not compress. It
//! prints the MiB that are acknowledged as they grow, and in the end MiB/s.
//!
//! `load first BOOTSTRAP TOPIC EVERY` reads the first record of every EVERYth partition and prints their numbers.

// A client outside the system: it uses the real clock and threads.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Message, Offset, TopicPartitionList};

const RECORD_SIZE: usize = 1024;
const PARTITIONS: i32 = 6;
const RATE: u32 = 1000;
/// What records that do not compress are cut from.
const NOISE_SIZE: usize = 16 << 20;
const TOLD_EVERY_MIB: u64 = 32;
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, bootstrap, topic, numbers @ ..] = &arguments[..] else { bail!("see the head of load.rs") };
    let numbers: Result<Vec<u32>, _> = numbers.iter().map(|number| number.parse()).collect();
    let numbers = numbers.context("what follows the topic are numbers")?;
    match (what.as_str(), &numbers[..]) {
        ("produce", [mib]) => {
            create(bootstrap, topic, PARTITIONS).await?;
            produce(bootstrap, topic, *mib)
        }
        ("consume", [mib]) => consume(bootstrap, topic, *mib),
        ("latency", [seconds]) => latency(bootstrap, topic, *seconds),
        ("fill", [gib, partitions, batch_kib]) => {
            create(bootstrap, topic, i32::try_from(*partitions)?).await?;
            fill(bootstrap, topic, u64::from(*gib) << 20, *partitions, *batch_kib)
        }
        ("first", [every]) => first(bootstrap, topic, usize::try_from(*every)?),
        _ => bail!("see the head of load.rs"),
    }
}

fn config(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in more {
        config.set(*key, *value);
    }
    config
}

/// Makes the topic, unless it is there.
async fn create(bootstrap: &str, topic: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap, &[]).create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    match admin.create_topics([&new], &AdminOptions::new()).await?.remove(0) {
        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
        Err(failed) => bail!("create {topic}: {failed:?}"),
    }
}

/// Counts acknowledgements and keeps how long each took.
#[derive(Clone, Default)]
struct Acks {
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    micros: Arc<Mutex<Vec<u64>>>,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    /// When the record was handed over, where its latency is wanted.
    type DeliveryOpaque = Box<Option<Instant>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let counter = if result.is_ok() { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(sent) = *sent {
            let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.micros.lock().expect("no callback panics").push(micros);
        }
    }
}

fn produce(bootstrap: &str, topic: &str, mib: u32) -> Result<()> {
    let settings =
        [("acks", "all"), ("linger.ms", "5"), ("batch.size", "1000000"), ("queue.buffering.max.kbytes", "262144")];
    let acks = Acks::default();
    let producer: ThreadedProducer<Acks> = config(bootstrap, &settings).create_with_context(acks.clone())?;
    let value = vec![b'x'; RECORD_SIZE];
    let started = Instant::now();
    for i in 0..mib * 1024 {
        let partition = i32::try_from(i % PARTITIONS.unsigned_abs())?;
        send(&producer, topic, partition, &value)?;
    }
    producer.flush(LIMIT)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(acks.failed.load(Ordering::Relaxed) == 0, "not every record was acknowledged");
    println!("{}", f64::from(mib) / seconds);
    Ok(())
}

fn send(producer: &ThreadedProducer<Acks>, topic: &str, partition: i32, value: &[u8]) -> Result<()> {
    let mut record =
        BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(None)).partition(partition).payload(value);
    // The client's queue is full: the broker sets the pace.
    while let Err((error, back)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        record = back;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Bytes that no compressor makes fewer: SplitMix64 (Steele, Lea, Flood 2014).
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..size / 8).flat_map(|_| next().to_le_bytes()).collect()
}

/// `records` in all, in turns of one batch for each partition.
fn fill(bootstrap: &str, topic: &str, records: u64, partitions: u32, batch_kib: u32) -> Result<()> {
    let batch = (batch_kib << 10).to_string();
    let settings = [
        ("acks", "all"),
        ("linger.ms", "5"),
        ("batch.size", batch.as_str()),
        ("queue.buffering.max.kbytes", "262144"),
        ("queue.buffering.max.messages", "1000000"),
    ];
    let acks = Acks::default();
    let producer: ThreadedProducer<Acks> = config(bootstrap, &settings).create_with_context(acks.clone())?;
    let noise = noise(NOISE_SIZE);
    let started = Instant::now();
    let mut told = 0;
    for i in 0..records {
        let partition = i32::try_from(i / u64::from(batch_kib) % u64::from(partitions))?;
        // Another place each time, and not a multiple of the record's size.
        let at = usize::try_from(i.wrapping_mul(1_000_003) % (NOISE_SIZE - RECORD_SIZE) as u64)?;
        send(&producer, topic, partition, &noise[at..at + RECORD_SIZE])?;
        let mib = acks.done.load(Ordering::Relaxed) >> 10;
        if mib >= told + TOLD_EVERY_MIB {
            told = mib;
            println!("{mib}");
        }
    }
    producer.flush(LIMIT)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(acks.done.load(Ordering::Relaxed) == records, "not every record was acknowledged");
    println!("{}", (records >> 10) as f64 / seconds);
    Ok(())
}

fn first(bootstrap: &str, topic: &str, every: usize) -> Result<()> {
    // Little is wanted of each: the answers are, not the bytes.
    let settings = [
        ("group.id", "bench"),
        ("enable.auto.commit", "false"),
        ("fetch.message.max.bytes", "65536"),
        ("queued.max.messages.kbytes", "1024"),
    ];
    let consumer: BaseConsumer = config(bootstrap, &settings).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
    let partitions = metadata.topics().first().context("no such topic")?.partitions();
    let mut missing: Vec<i32> = partitions.iter().map(|partition| partition.id()).collect();
    missing.sort_unstable();
    missing = missing.into_iter().step_by(every).collect();
    ensure!(!missing.is_empty(), "the topic has no partition");
    let mut list = TopicPartitionList::new();
    for partition in &missing {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    while !missing.is_empty() {
        let message = consumer.poll(LIMIT).with_context(|| format!("no record in time of {missing:?}"))??;
        let before = missing.len();
        missing.retain(|partition| *partition != message.partition());
        if missing.len() < before {
            ensure!(message.offset() == 0, "the first record of {} is at {}", message.partition(), message.offset());
            println!("{}", message.partition());
        }
    }
    // Closing takes time that would be taken for the broker's.
    std::mem::forget(consumer);
    Ok(())
}

fn consume(bootstrap: &str, topic: &str, mib: u32) -> Result<()> {
    let settings = [("group.id", "bench"), ("enable.auto.commit", "false"), ("fetch.message.max.bytes", "4194304")];
    let consumer: BaseConsumer = config(bootstrap, &settings).create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let started = Instant::now();
    consumer.assign(&list)?;
    for _ in 0..mib * 1024 {
        let message = consumer.poll(LIMIT).context("no record in time")??;
        ensure!(message.payload_len() == RECORD_SIZE, "a record of {} bytes", message.payload_len());
    }
    println!("{}", f64::from(mib) / started.elapsed().as_secs_f64());
    Ok(())
}

fn latency(bootstrap: &str, topic: &str, seconds: u32) -> Result<()> {
    let acks = Acks::default();
    let settings = [("acks", "all"), ("linger.ms", "0")];
    let producer: ThreadedProducer<Acks> = config(bootstrap, &settings).create_with_context(acks.clone())?;
    let value = vec![b'x'; RECORD_SIZE];
    let started = Instant::now();
    for i in 0..seconds * RATE {
        // At a fixed rate, whatever the answers take: a slow answer delays none of the questions.
        let due = started + Duration::from_secs(1) / RATE * i;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let partition = i32::try_from(i % PARTITIONS.unsigned_abs())?;
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(Some(Instant::now())))
            .partition(partition)
            .payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT)?;
    ensure!(acks.failed.load(Ordering::Relaxed) == 0, "not every record was acknowledged");
    let mut micros = acks.micros.lock().expect("no callback panics").clone();
    micros.sort_unstable();
    ensure!(!micros.is_empty(), "nothing was measured");
    println!("{} {}", micros[micros.len() / 2], micros[micros.len() * 99 / 100]);
    Ok(())
}
