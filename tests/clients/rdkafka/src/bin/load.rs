//! Load for `cargo xtask bench`: `load produce|consume|latency BOOTSTRAP TOPIC AMOUNT`.
//!
//! Prints MiB/s (produce, consume; AMOUNT in MiB), or the p50 and p99 of acknowledgements in microseconds at 1,000
//! records a second (latency; AMOUNT in seconds).

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
use rdkafka::{Offset, TopicPartitionList};

const RECORD_SIZE: usize = 1024;
const PARTITIONS: i32 = 6;
const RATE: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, bootstrap, topic, amount] = &arguments[..] else {
        bail!("usage: load produce|consume|latency BOOTSTRAP TOPIC AMOUNT");
    };
    let amount: u32 = amount.parse().context("AMOUNT is a number")?;
    match what.as_str() {
        "produce" => {
            create(bootstrap, topic).await?;
            produce(bootstrap, topic, amount)
        }
        "consume" => consume(bootstrap, topic, amount),
        "latency" => latency(bootstrap, topic, amount),
        other => bail!("{other:?} is none of produce, consume, latency"),
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

async fn create(bootstrap: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap, &[]).create()?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let result = admin.create_topics([&new], &AdminOptions::new()).await?.remove(0);
    ensure!(result.is_ok(), "create {topic}: {result:?}");
    Ok(())
}

/// Counts acknowledgements and keeps how long each took.
#[derive(Clone, Default)]
struct Acks {
    failed: Arc<AtomicU64>,
    micros: Arc<Mutex<Vec<u64>>>,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    /// When the record was handed over, where its latency is wanted.
    type DeliveryOpaque = Box<Option<Instant>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
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
        let mut record =
            BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(None)).partition(partition).payload(&value);
        // The client's queue is full: the broker sets the pace.
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(LIMIT)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(acks.failed.load(Ordering::Relaxed) == 0, "not every record was acknowledged");
    println!("{}", f64::from(mib) / seconds);
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
