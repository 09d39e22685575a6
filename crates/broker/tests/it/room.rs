//! A write-ahead log that is full, and what producers see of it.

use std::time::Duration;

use bytes::BytesMut;
use forebay_broker::Broker;
use forebay_client::{Admin, NewTopic};
use forebay_env::simulated::DiskFault;
use forebay_env::{Env, Stream};
use forebay_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use forebay_wire::kafka::messages::{ProduceRequest, ProduceResponse};
use forebay_wire::kafka::protocol::StrBytes;
use forebay_wire::{BatchBuilder, decode_response, encode_request};
use tokio::io::AsyncWriteExt;

use crate::inside::Inside;
use crate::support::{client, connect, consume, metric_comes_to, name, partition, read_answer};

/// The least room that a WAL can have: two segments of 256 KiB.
const SMALL: [(&str, &str); 3] =
    [("message.max.bytes", "100000"), ("forebay.wal.max.bytes", "524288"), ("forebay.wal.segment.bytes", "262144")];

fn request(env: &Env, value: &str) -> BytesMut {
    // Of now: retention would take what is old.
    let now = env.now().as_millis();
    let mut batch = BatchBuilder::new(now);
    batch.push(now, None, Some(value.as_bytes()), &[]);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.build().freeze()));
    let topic = TopicProduceData::default()
        .with_name(StrBytes::from_static_str("orders").into())
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    encode_request(1, Some("test"), 9, &request).expect("encodable")
}

/// The throttle time of the next answer, which must be a good one.
async fn throttle_time(stream: &mut Box<dyn Stream>) -> i32 {
    let (_, response) = decode_response::<ProduceResponse>(read_answer(stream).await, 9).expect("a Produce response");
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    response.throttle_time_ms
}

async fn send(env: &Env, stream: &mut Box<dyn Stream>, value: &str) {
    stream.write_all(&request(env, value)).await.expect("sent");
}

/// While the bucket is away, acks go on until the WAL is full; then the producer waits, and is told for how long once
/// there is room again. Nothing is lost, and who comes after that is told nothing.
#[tokio::test(start_paused = true)]
async fn a_full_wal_holds_producers_back_and_tells_them() {
    let inside = Inside::new(1);
    let env: &Env = &inside.env;
    let broker = Broker::start(env.clone(), inside.options(&SMALL)).await.expect("the broker starts");
    Admin::new(&client(env, &broker)).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    inside.bucket.set_outage(true);
    let mut stream = connect(env, &broker).await;
    let value = |n: usize| format!("{n}{}", "x".repeat(60_000));
    let mut sent = 0;
    loop {
        send(env, &mut stream, &value(sent)).await;
        sent += 1;
        match env.timeout(Duration::from_secs(3), throttle_time(&mut stream)).await {
            Some(told) => assert_eq!(told, 0, "{sent} fit"),
            None => break,
        }
    }
    assert!((4..=8).contains(&sent), "half a MiB holds some batches of 60 kB: {sent}");

    inside.bucket.set_outage(false);
    // The wait that was broken off had read nothing of the answer.
    assert_eq!(throttle_time(&mut stream).await, 1000, "held back for longer than is told at most");
    send(env, &mut stream, &value(sent)).await;
    assert_eq!(throttle_time(&mut stream).await, 0);
    metric_comes_to(env, &broker, "forebay_produce_held_back_total", 1).await;
    let read = consume(&client(env, &broker), &partition("orders", 0), sent + 1).await;
    assert_eq!(read, (0..=sent).map(value).collect::<Vec<_>>());
    broker.stop().await.expect("drained");
}

/// Small records fill the WAL long before they make a large object: what is there goes to the bucket then, whatever its
/// size and age, and producers are not kept waiting for the clock.
#[tokio::test(start_paused = true)]
async fn a_wal_that_fills_is_uploaded_before_it_is_full() {
    let inside = Inside::new(2);
    let env: &Env = &inside.env;
    let day = [SMALL.as_slice(), &[("forebay.upload.ms", "86400000")]].concat();
    let broker = Broker::start(env.clone(), inside.options(&day)).await.expect("the broker starts");
    Admin::new(&client(env, &broker)).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    let mut stream = connect(env, &broker).await;
    let begun = env.monotonic();
    // Each is acknowledged alone and takes a whole sector: four times the room.
    for n in 0..512 {
        send(env, &mut stream, &n.to_string()).await;
        assert_eq!(throttle_time(&mut stream).await, 0, "{n}");
    }
    assert!(env.monotonic() - begun < Duration::from_mins(1), "nobody has waited for the day to pass");
    broker.stop().await.expect("drained");
}

/// A disk that fills up while the broker runs: acks go on in the segments there are, as fast as uploads free them. Nobody
/// is refused, and once there is space again the WAL grows.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_slows_and_refuses_nobody() {
    let inside = Inside::new(4);
    let env: &Env = &inside.env;
    let roomy = [SMALL.as_slice(), &[("forebay.wal.max.bytes", "1048576")]].concat();
    let broker = Broker::start(env.clone(), inside.options(&roomy)).await.expect("the broker starts");
    Admin::new(&client(env, &broker)).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    // The folder's marker and one segment are there, and nothing fits beside them.
    inside.disk.inject(DiskFault::Capacity(300 << 10));
    let segments = || inside.disk.files().iter().filter(|path| path.starts_with("/data/wal")).count();
    let mut stream = connect(env, &broker).await;
    let value = |n: usize| format!("{n}{}", "x".repeat(60_000));
    for n in 0..40 {
        send(env, &mut stream, &value(n)).await;
        throttle_time(&mut stream).await;
    }
    assert_eq!(segments(), 1, "there was no room for another");
    inside.disk.heal();
    for n in 40..60 {
        send(env, &mut stream, &value(n)).await;
        throttle_time(&mut stream).await;
    }
    assert!(segments() > 1, "there is room again");
    let read = consume(&client(env, &broker), &partition("orders", 0), 60).await;
    assert_eq!(read, (0..60).map(value).collect::<Vec<_>>());
    broker.stop().await.expect("drained");
}
