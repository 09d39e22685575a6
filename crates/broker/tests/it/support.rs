//! A broker in a folder of its own, and what tests ask of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use forebay_api::config::BrokerConfig;
use forebay_broker::{Broker, BrokerOptions, DataError, Exposure, StartError};
use forebay_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Partition, Producer, ProducerConfig, Record, StartAt,
};
use forebay_env::{Env, Stream};
use forebay_types::{PartitionIndex, TopicName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A broker on free ports with a small WAL; `more` are further keys.
pub fn options(data: &Path, more: &[(&str, &str)]) -> BrokerOptions {
    let mut keys = BTreeMap::from([
        ("listeners".to_owned(), "PLAINTEXT://localhost:0".to_owned()),
        ("forebay.admin.listener".to_owned(), "127.0.0.1:0".to_owned()),
        ("log.dirs".to_owned(), data.to_str().expect("a path of text").to_owned()),
        ("forebay.wal.max.bytes".to_owned(), (8 << 20).to_string()),
        ("forebay.wal.segment.bytes".to_owned(), (2 << 20).to_string()),
    ]);
    keys.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let config = BrokerConfig::parse(&keys).expect("legal keys");
    BrokerOptions::from_config(config, Exposure::Dev).expect("legal options")
}

/// Starts where an earlier broker was just dropped: its lock is free once its tasks are gone.
pub async fn start_after_drop(env: &Env, options: &BrokerOptions) -> Broker {
    loop {
        match Broker::start(env.clone(), options.clone()).await {
            Err(StartError::Data(DataError::InUse { .. })) => tokio::task::yield_now().await,
            started => return started.expect("the broker starts again"),
        }
    }
}

pub fn client(env: &Env, broker: &Broker) -> Client {
    let config = ClientConfig {
        deadline: Duration::from_secs(30),
        ..ClientConfig::new(&broker.kafka_addresses()[0].to_string())
    };
    Client::new(env.clone(), config)
}

pub fn name(topic: &str) -> TopicName {
    TopicName::new(topic).expect("legal")
}

pub fn partition(topic: &str, index: i32) -> Partition {
    Partition { topic: name(topic), index: PartitionIndex::new(index).expect("legal") }
}

pub fn record(value: &str) -> Record {
    Record::new(None, Bytes::copy_from_slice(value.as_bytes()))
}

/// Produces values one batch each, and returns once all are acknowledged.
pub async fn produce(client: &Client, to: &Partition, values: impl Iterator<Item = String>) {
    let mut producer = Producer::new(client, ProducerConfig::default()).await.expect("a producer");
    for value in values {
        let delivery = producer.send_to(to, vec![record(&value)]).await.expect("sent");
        delivery.await.expect("acknowledged");
    }
}

/// The first `count` values of a partition.
pub async fn consume(client: &Client, from: &Partition, count: usize) -> Vec<String> {
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(from.clone(), StartAt::Earliest);
    let mut values = Vec::new();
    while values.len() < count {
        for fetched in consumer.poll().await.expect("readable") {
            let texts = fetched.records.into_iter().map(|r| r.value.expect("a value").to_vec());
            values.extend(texts.map(|text| String::from_utf8(text).expect("text")));
        }
    }
    values
}

pub async fn connect(env: &Env, broker: &Broker) -> Box<dyn Stream> {
    env.network().connect(&broker.kafka_addresses()[0].to_string()).await.expect("it listens")
}

/// One answer's frame, without its size.
pub async fn read_answer(stream: &mut Box<dyn Stream>) -> Bytes {
    let size = stream.read_i32().await.expect("an answer");
    let mut frame = vec![0; usize::try_from(size).expect("a size")];
    stream.read_exact(&mut frame).await.expect("the whole answer");
    frame.into()
}

/// Whether the broker ends the connection without another byte.
pub async fn is_closed(stream: &mut Box<dyn Stream>) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest).await {
        Ok(_) => rest.is_empty(),
        // Closed with bytes of ours unread.
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// The status and body of one admin page.
pub async fn admin(env: &Env, broker: &Broker, path: &str) -> (String, String) {
    ask(env, broker, &format!("GET {path}"), "").await
}

/// The status and body of one request to the admin address.
pub async fn ask(env: &Env, broker: &Broker, what: &str, header: &str) -> (String, String) {
    let address = broker.admin_address().to_string();
    let mut stream = env.network().connect(&address).await.expect("it listens");
    let request = format!("{what} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).expect("a status").to_owned(), body.to_owned())
}

/// The value of one metric, with its labels as they are shown; nothing counted is 0.
pub fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.rsplit_once(' ').filter(|(shown, _)| *shown == name));
    line.map_or(0.0, |(_, value)| value.parse().expect("a number"))
}

/// Returns once a metric has come to a value: what a peer sees may be ahead of what is counted.
pub async fn metric_comes_to(env: &Env, broker: &Broker, name: &str, wanted: u32) {
    while metric(&admin(env, broker, "/metrics").await.1, name) < f64::from(wanted) {
        tokio::task::yield_now().await;
    }
    let seen = metric(&admin(env, broker, "/metrics").await.1, name);
    assert!((seen - f64::from(wanted)).abs() < f64::EPSILON, "{name} is {seen}, not {wanted}");
}
