//! librdkafka against a broker: prints `ok NAME` or `FAIL NAME: why` for each case. `cargo xtask clients` runs it, and
//! `cargo xtask clients --baseline` runs it against Apache Kafka, where every case holds too.

// A client outside the system: it uses the real clock and threads.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};

const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> Result<()> {
    let bootstrap = std::env::args().nth(1).context("usage: forebay-clients-rdkafka BOOTSTRAP")?;
    let suite = Suite { bootstrap };
    println!("librdkafka {}", rdkafka::util::get_rdkafka_version().1);
    check("topics are created, grown, configured and deleted", suite.admin()).await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        check(&format!("an idempotent producer keeps order, {codec}"), suite.order(codec)).await;
    }
    check("keys, headers, timestamps and null values come back as sent", suite.shapes()).await;
    check("committed and aborted transactions are told apart", suite.transactions()).await;
    check("offsets in a transaction move with it or not at all", suite.offsets_in_transaction()).await;
    check("a second transactional producer fences the first", suite.fencing()).await;
    check("a group of two shares partitions and hands them over", suite.group()).await;
    check("offsets by time, committed offsets, watermarks", suite.offsets()).await;
    Ok(())
}

async fn check(name: &str, case: impl Future<Output = Result<()>>) {
    match case.await {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAIL {name}: {error:#}"),
    }
}

struct Suite {
    bootstrap: String,
}

impl Suite {
    fn config(&self, more: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        for (key, value) in more {
            config.set(*key, *value);
        }
        config
    }

    fn admin_client(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config(&[]).create().context("an admin client")
    }

    async fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let results = self.admin_client()?.create_topics([&new], &AdminOptions::new()).await?;
        for result in results {
            result.map_err(|(name, code)| anyhow!("create {name}: {code}"))?;
        }
        Ok(())
    }

    fn producer(&self, more: &[(&str, &str)]) -> Result<FutureProducer> {
        self.config(&[&[("enable.idempotence", "true")], more].concat()).create().context("a producer")
    }

    fn consumer(&self, more: &[(&str, &str)]) -> Result<BaseConsumer> {
        let base = [("auto.offset.reset", "earliest"), ("enable.auto.commit", "false"), ("group.id", "rdkafka-none")];
        self.config(&[&base[..], more].concat()).create().context("a consumer")
    }

    /// The values of a partition from its beginning to where it ends for this isolation.
    fn read(&self, topic: &str, partition: i32, isolation: &str) -> Result<Vec<String>> {
        let consumer = self.consumer(&[("isolation.level", isolation), ("enable.partition.eof", "true")])?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
        consumer.assign(&list)?;
        let mut values = Vec::new();
        let started = Instant::now();
        loop {
            ensure!(started.elapsed() < LIMIT, "no end of {topic}-{partition} after {} records", values.len());
            match consumer.poll(POLL) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(values),
                Some(message) => values.push(text(message?.payload())),
            }
        }
    }

    async fn admin(&self) -> Result<()> {
        self.create("rdkafka-admin", 2).await?;
        let admin = self.admin_client()?;
        let options = AdminOptions::new();
        let again = NewTopic::new("rdkafka-admin", 2, TopicReplication::Fixed(1));
        let refused = admin.create_topics([&again], &options).await?.remove(0);
        ensure!(refused == Err(("rdkafka-admin".to_owned(), RDKafkaErrorCode::TopicAlreadyExists)), "{refused:?}");
        let grown = admin.create_partitions([&NewPartitions::new("rdkafka-admin", 5)], &options).await?.remove(0);
        ensure!(grown.is_ok(), "{grown:?}");
        let metadata = admin.inner().fetch_metadata(Some("rdkafka-admin"), LIMIT)?;
        ensure!(metadata.topics()[0].partitions().len() == 5, "{} partitions", metadata.topics()[0].partitions().len());
        let resource = ResourceSpecifier::Topic("rdkafka-admin");
        let alter = AlterConfig::new(resource).set("retention.ms", "12345");
        let altered = admin.alter_configs([&alter], &options).await?.remove(0);
        ensure!(altered.is_ok(), "{altered:?}");
        let described = admin.describe_configs([&resource], &options).await?.remove(0).map_err(|c| anyhow!("{c}"))?;
        let value = |name: &str| described.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
        ensure!(value("retention.ms") == "12345", "retention.ms={}", value("retention.ms"));
        ensure!(value("cleanup.policy") == "delete", "cleanup.policy={}", value("cleanup.policy"));
        let deleted = admin.delete_topics(&["rdkafka-admin"], &options).await?.remove(0);
        ensure!(deleted == Ok("rdkafka-admin".to_owned()), "{deleted:?}");
        let missing = admin.delete_topics(&["rdkafka-admin"], &options).await?.remove(0);
        let code = missing.expect_err("a topic is deleted once").1;
        ensure!(code == RDKafkaErrorCode::UnknownTopicOrPartition, "{code}");
        Ok(())
    }

    async fn order(&self, codec: &str) -> Result<()> {
        const RECORDS: usize = 10_000;
        let topic = format!("rdkafka-order-{codec}");
        self.create(&topic, 3).await?;
        // Small batches, so that many are in flight.
        let producer =
            self.producer(&[("compression.codec", codec), ("batch.num.messages", "50"), ("linger.ms", "1")])?;
        let mut sent = Vec::new();
        for i in 0..RECORDS {
            let (key, value) = (format!("k{i}"), format!("v{i}"));
            let partition = i32::try_from(i % 3)?;
            let record = FutureRecord::to(&topic).partition(partition).key(&key).payload(&value);
            sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
        }
        for (i, delivery) in sent.into_iter().enumerate() {
            let delivered = delivery.await?.map_err(|(error, _)| error)?;
            let expected = (i32::try_from(i % 3)?, i64::try_from(i / 3)?);
            let found = (delivered.partition, delivered.offset);
            ensure!(found == expected, "record {i} is at {found:?}, expected {expected:?}");
        }
        for partition in 0..3 {
            let values = self.read(&topic, partition, "read_uncommitted")?;
            let expected: Vec<_> = (usize::try_from(partition)?..RECORDS).step_by(3).map(|i| format!("v{i}")).collect();
            ensure!(values == expected, "partition {partition} holds {} records, not as sent", values.len());
        }
        Ok(())
    }

    async fn shapes(&self) -> Result<()> {
        self.create("rdkafka-shapes", 1).await?;
        let producer = self.producer(&[])?;
        let headers = OwnedHeaders::new()
            .insert(Header { key: "a", value: Some("1") })
            .insert(Header { key: "a", value: None::<&str> });
        let record = FutureRecord::to("rdkafka-shapes").key("k").payload("v").timestamp(1_234_567).headers(headers);
        producer.send(record, LIMIT).await.map_err(|(error, _)| error)?;
        let tombstone: FutureRecord<'_, str, str> = FutureRecord::to("rdkafka-shapes").key("k");
        producer.send(tombstone, LIMIT).await.map_err(|(error, _)| error)?;
        let consumer = self.consumer(&[])?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("rdkafka-shapes", 0, Offset::Beginning)?;
        consumer.assign(&list)?;
        let first = next(&consumer)?;
        let first = first.detach();
        ensure!(first.key() == Some(b"k") && first.payload() == Some(b"v"), "key or value");
        ensure!(first.timestamp().to_millis() == Some(1_234_567), "timestamp {:?}", first.timestamp());
        let headers = first.headers().context("headers")?;
        let shown: Vec<_> = headers.iter().map(|h| (h.key.to_owned(), h.value.map(|v| text(Some(v))))).collect();
        ensure!(shown == [("a".to_owned(), Some("1".to_owned())), ("a".to_owned(), None)], "{shown:?}");
        let second = next(&consumer)?.detach();
        ensure!(second.payload().is_none() && second.offset() == 1, "a null value at offset 1");
        Ok(())
    }

    async fn transactions(&self) -> Result<()> {
        self.create("rdkafka-txn", 1).await?;
        let producer = self.producer(&[("transactional.id", "rdkafka-txn")])?;
        producer.init_transactions(LIMIT)?;
        let (mut committed, mut all) = (Vec::new(), Vec::new());
        for round in 0..12 {
            producer.begin_transaction()?;
            for i in 0..5 {
                let value = format!("{round}.{i}");
                let record: FutureRecord<'_, str, str> = FutureRecord::to("rdkafka-txn").payload(&value);
                producer.send(record, LIMIT).await.map_err(|(error, _)| error)?;
                all.push(value.clone());
                if round % 3 != 1 {
                    committed.push(value);
                }
            }
            if round % 3 == 1 { producer.abort_transaction(LIMIT)? } else { producer.commit_transaction(LIMIT)? }
        }
        ensure!(self.read("rdkafka-txn", 0, "read_committed")? == committed, "not what was committed");
        ensure!(self.read("rdkafka-txn", 0, "read_uncommitted")? == all, "not all that was sent");
        Ok(())
    }

    async fn offsets_in_transaction(&self) -> Result<()> {
        self.create("rdkafka-in", 1).await?;
        let consumer = self.consumer(&[("group.id", "rdkafka-copier")])?;
        let producer = self.producer(&[("transactional.id", "rdkafka-copier")])?;
        producer.init_transactions(LIMIT)?;
        let metadata = consumer.group_metadata().context("the consumer's group")?;
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition("rdkafka-in", 0);
        for (offset, commit, expected) in [(5, true, 5), (9, false, 5), (7, true, 7)] {
            producer.begin_transaction()?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("rdkafka-in", 0, Offset::Offset(offset))?;
            producer.send_offsets_to_transaction(&list, &metadata, LIMIT)?;
            if commit {
                producer.commit_transaction(LIMIT)?
            } else {
                producer.abort_transaction(LIMIT)?
            }
            let found = consumer.committed_offsets(wanted.clone(), LIMIT)?;
            let found = found.elements()[0].offset();
            ensure!(found == Offset::Offset(expected), "{found:?} after {offset} with commit {commit}");
        }
        Ok(())
    }

    async fn fencing(&self) -> Result<()> {
        self.create("rdkafka-fencing", 1).await?;
        let settings = [("transactional.id", "rdkafka-fencing")];
        let first = self.producer(&settings)?;
        first.init_transactions(LIMIT)?;
        first.begin_transaction()?;
        let record: FutureRecord<'_, str, str> = FutureRecord::to("rdkafka-fencing").payload("first");
        first.send(record, LIMIT).await.map_err(|(error, _)| error)?;
        let second = self.producer(&settings)?;
        second.init_transactions(LIMIT)?;
        let Err(KafkaError::Transaction(error)) = first.commit_transaction(LIMIT) else {
            bail!("a fenced producer committed");
        };
        ensure!(error.is_fatal(), "not fatal: {error:?}");
        second.begin_transaction()?;
        let record: FutureRecord<'_, str, str> = FutureRecord::to("rdkafka-fencing").payload("second");
        second.send(record, LIMIT).await.map_err(|(error, _)| error)?;
        second.commit_transaction(LIMIT)?;
        let values = self.read("rdkafka-fencing", 0, "read_committed")?;
        ensure!(values == ["second"], "{values:?}");
        Ok(())
    }

    async fn group(&self) -> Result<()> {
        self.create("rdkafka-group", 4).await?;
        let producer = self.producer(&[])?;
        for i in 0..200 {
            let value = i.to_string();
            let record: FutureRecord<'_, str, str> = FutureRecord::to("rdkafka-group").partition(i % 4).payload(&value);
            producer.send(record, LIMIT).await.map_err(|(error, _)| error)?;
        }
        let settings =
            [("group.id", "rdkafka-group"), ("heartbeat.interval.ms", "300"), ("session.timeout.ms", "10000")];
        let first = self.consumer(&settings)?;
        let second = self.consumer(&settings)?;
        first.subscribe(&["rdkafka-group"])?;
        second.subscribe(&["rdkafka-group"])?;
        let started = Instant::now();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let count = |consumer: &BaseConsumer| consumer.assignment().map(|list| list.count());
        while count(&first)? != 2 || count(&second)? != 2 || seen.len() < 200 {
            ensure!(
                started.elapsed() < LIMIT,
                "{} + {} partitions, {} records",
                count(&first)?,
                count(&second)?,
                seen.len()
            );
            for consumer in [&first, &second] {
                if let Some(message) = consumer.poll(Duration::from_millis(20)) {
                    *seen.entry(text(message?.payload())).or_default() += 1;
                }
            }
        }
        first.commit_consumer_state(CommitMode::Sync)?;
        second.commit_consumer_state(CommitMode::Sync)?;
        first.unsubscribe();
        drop(first);
        while count(&second)? != 4 {
            ensure!(started.elapsed() < LIMIT, "left with {} partitions", count(&second)?);
            if let Some(message) = second.poll(POLL) {
                bail!("read again after a commit: {}", text(message?.payload()));
            }
        }
        Ok(())
    }

    async fn offsets(&self) -> Result<()> {
        self.create("rdkafka-offsets", 1).await?;
        let producer = self.producer(&[])?;
        for time in [1000, 2000, 3000] {
            let record: FutureRecord<'_, str, str> = FutureRecord::to("rdkafka-offsets").payload("x").timestamp(time);
            producer.send(record, LIMIT).await.map_err(|(error, _)| error)?;
        }
        let consumer = self.consumer(&[("group.id", "rdkafka-offsets")])?;
        let marks = consumer.fetch_watermarks("rdkafka-offsets", 0, LIMIT)?;
        ensure!(marks == (0, 3), "watermarks {marks:?}");
        for (time, expected) in [(0, Offset::Offset(0)), (1500, Offset::Offset(1)), (3001, Offset::End)] {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("rdkafka-offsets", 0, Offset::Offset(time))?;
            let found = consumer.offsets_for_times(list, Timeout::After(LIMIT))?.elements()[0].offset();
            ensure!(found == expected, "{found:?} at {time}");
        }
        let mut list = TopicPartitionList::new();
        list.add_partition("rdkafka-offsets", 0);
        let none = consumer.committed_offsets(list.clone(), LIMIT)?.elements()[0].offset();
        ensure!(none == Offset::Invalid, "a group that does not exist has {none:?}");
        list.set_partition_offset("rdkafka-offsets", 0, Offset::Offset(2))?;
        consumer.commit(&list, CommitMode::Sync)?;
        let two = consumer.committed_offsets(list, LIMIT)?.elements()[0].offset();
        ensure!(two == Offset::Offset(2), "{two:?}");
        Ok(())
    }
}

fn next(consumer: &BaseConsumer) -> Result<rdkafka::message::BorrowedMessage<'_>> {
    Ok(consumer.poll(LIMIT).context("no message in time")??)
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
