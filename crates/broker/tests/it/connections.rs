//! Connections: order, bounds, and peers that send what no client would.

use bytes::{BufMut, BytesMut};
use forebay_broker::Broker;
use forebay_client::{Admin, Consumer, ConsumerConfig, NewTopic, StartAt};
use forebay_env::real;
use forebay_types::Offset;
use forebay_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use forebay_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use forebay_wire::kafka::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest, ProduceResponse};
use forebay_wire::kafka::protocol::StrBytes;
use forebay_wire::{BatchBuilder, decode_response, encode_request, peek_correlation_id};
use tokio::io::AsyncWriteExt;

use crate::support::{
    admin, client, connect, consume, is_closed, metric, metric_comes_to, name, options, partition, produce, read_answer,
};

fn produce_request(correlation_id: i32, topic: &str, value: &str) -> BytesMut {
    let mut batch = BatchBuilder::new(0);
    batch.push(0, None, Some(value.as_bytes()), &[]);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.build().freeze()));
    let topic = TopicProduceData::default()
        .with_name(StrBytes::from_string(topic.to_owned()).into())
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    encode_request(correlation_id, Some("test"), 9, &request).expect("encodable")
}

fn api_versions(correlation_id: i32) -> BytesMut {
    encode_request(
        correlation_id,
        Some("test"),
        3,
        &ApiVersionsRequest::default()
            .with_client_software_name("test".into())
            .with_client_software_version("1".into()),
    )
    .expect("encodable")
}

/// Many produces and other requests in one write: every answer comes, in the order of the requests, though the produces
/// wait for the disk and the others do not; and offsets follow that order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    const COUNT: i32 = 60;
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let broker = Broker::start(env.clone(), options(folder.path(), &[])).await.expect("the broker starts");
    let client = client(&env, &broker);
    Admin::new(&client).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");

    let mut requests = BytesMut::new();
    for id in 0..COUNT {
        requests.put(if id % 3 == 2 {
            api_versions(id)
        } else {
            produce_request(id, "orders", &format!("value {id}"))
        });
    }
    let mut stream = connect(&env, &broker).await;
    stream.write_all(&requests).await.expect("sent");
    let mut offset = 0;
    for id in 0..COUNT {
        let answer = read_answer(&mut stream).await;
        assert_eq!(peek_correlation_id(&answer).expect("a header"), id);
        if id % 3 == 2 {
            continue;
        }
        let (_, response) = decode_response::<ProduceResponse>(answer, 9).expect("a Produce response");
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset), "request {id}");
        offset += 1;
    }
    let sent = (0..COUNT).filter(|id| id % 3 != 2).map(|id| format!("value {id}"));
    assert_eq!(consume(&client, &partition("orders", 0), 40).await, sent.collect::<Vec<_>>());
    broker.stop().await.expect("drained");
}

/// Frames that are torn, too large, negative, of no API or not what they say end their own connection, are counted, and
/// disturb nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_peer_loses_its_connection_only() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let broker = Broker::start(env.clone(), options(folder.path(), &[])).await.expect("the broker starts");
    let client = client(&env, &broker);
    Admin::new(&client).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");

    let frame = |body: &[u8]| [&i32::try_from(body.len()).expect("small").to_be_bytes(), body].concat();
    let unknown_api = frame(&[0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    // Metadata version 1 with a list of two thousand million topics.
    let hostile = frame(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let bad = [i32::MAX.to_be_bytes().to_vec(), (-1_i32).to_be_bytes().to_vec(), unknown_api, hostile, frame(&[0])];
    for (n, bytes) in bad.iter().enumerate() {
        let mut stream = connect(&env, &broker).await;
        stream.write_all(bytes).await.expect("sent");
        assert!(is_closed(&mut stream).await, "{n}");
    }
    let mut torn = connect(&env, &broker).await;
    torn.write_all(&[0, 0, 0, 100, 1, 2, 3]).await.expect("sent");
    torn.shutdown().await.expect("half closed");
    assert!(is_closed(&mut torn).await);

    // An answer that was earned before the nonsense still comes.
    let mut late = connect(&env, &broker).await;
    let mut bytes = produce_request(7, "orders", "value 0");
    bytes.put_i32(-5);
    late.write_all(&bytes).await.expect("sent");
    assert_eq!(peek_correlation_id(&read_answer(&mut late).await).expect("a header"), 7);
    assert!(is_closed(&mut late).await);

    produce(&client, &partition("orders", 0), ["value 1".to_owned()].into_iter()).await;
    assert_eq!(consume(&client, &partition("orders", 0), 2).await, ["value 0", "value 1"]);
    metric_comes_to(&env, &broker, "forebay_connections_closed_total{reason=\"bad-frame\"}", 4).await;
    metric_comes_to(&env, &broker, "forebay_connections_closed_total{reason=\"bad-request\"}", 3).await;
    broker.stop().await.expect("drained");
}

/// Beyond `max.connections` a peer is turned away at once; a place that becomes free is given again. Idle peers are let
/// go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_idle_ones_end() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let keys = [("max.connections", "2"), ("connections.max.idle.ms", "300")];
    let broker = Broker::start(env.clone(), options(folder.path(), &keys)).await.expect("the broker starts");
    let mut held = [connect(&env, &broker).await, connect(&env, &broker).await];
    for (id, stream) in (0..).zip(&mut held) {
        // Answered, so it has its place.
        stream.write_all(&api_versions(id)).await.expect("sent");
        read_answer(stream).await;
    }
    assert!(is_closed(&mut connect(&env, &broker).await).await, "a third is turned away");
    for stream in &mut held {
        assert!(is_closed(stream).await, "an idle one is let go");
    }
    let mut next = connect(&env, &broker).await;
    next.write_all(&api_versions(9)).await.expect("sent");
    assert_eq!(peek_correlation_id(&read_answer(&mut next).await).expect("a header"), 9);
    metric_comes_to(&env, &broker, "forebay_connections_refused_total", 1).await;
    metric_comes_to(&env, &broker, "forebay_connections_closed_total{reason=\"idle\"}", 2).await;
    broker.stop().await.expect("drained");
}

/// A peer that asks and does not read is not answered further: its answers wait with it, not in the broker. When it reads
/// again, all answers are there, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_is_not_read_from() {
    const ASKED: i32 = 64;
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let broker = Broker::start(env.clone(), options(folder.path(), &[])).await.expect("the broker starts");
    let client = client(&env, &broker);
    Admin::new(&client).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    produce(&client, &partition("orders", 0), ["x".repeat(900_000)].into_iter()).await;

    let mut slow = connect(&env, &broker).await;
    let mut requests = BytesMut::new();
    for id in 0..ASKED {
        let wanted = FetchPartition::default().with_partition(0).with_partition_max_bytes(1 << 20);
        let topic =
            FetchTopic::default().with_topic(StrBytes::from_static_str("orders").into()).with_partitions(vec![wanted]);
        let fetch = FetchRequest::default().with_max_wait_ms(10).with_max_bytes(1 << 20).with_topics(vec![topic]);
        requests.put(encode_request(id, Some("slow"), 4, &fetch).expect("encodable"));
    }
    slow.write_all(&requests).await.expect("requests are small");
    // Time for the broker to take what it will take; others are served meanwhile.
    let mut other = connect(&env, &broker).await;
    for id in 0..500 {
        other.write_all(&api_versions(id)).await.expect("sent");
        assert_eq!(peek_correlation_id(&read_answer(&mut other).await).expect("a header"), id);
    }
    let (_, metrics) = admin(&env, &broker, "/metrics").await;
    let taken = metric(&metrics, "forebay_requests_total{api=\"Fetch\"}");
    assert!(taken < f64::from(ASKED), "sockets and the bound of pending answers hold fewer than {taken}");
    for id in 0..ASKED {
        let answer = read_answer(&mut slow).await;
        assert_eq!(peek_correlation_id(&answer).expect("a header"), id);
        assert!(answer.len() > 900_000, "the record is in it");
    }
    broker.stop().await.expect("drained");
}

/// A drain answers what is in progress, a long poll included, and then closes; nobody is let in any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_is_in_progress() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let broker = Broker::start(env.clone(), options(folder.path(), &[])).await.expect("the broker starts");
    let mut stream = connect(&env, &broker).await;
    let poll = FetchRequest::default().with_max_wait_ms(400).with_min_bytes(1).with_max_bytes(1_000);
    stream.write_all(&api_versions(1)).await.expect("sent");
    stream.write_all(&encode_request(2, Some("test"), 4, &poll).expect("encodable")).await.expect("sent");
    assert_eq!(peek_correlation_id(&read_answer(&mut stream).await).expect("a header"), 1);
    metric_comes_to(&env, &broker, "forebay_requests_total{api=\"Fetch\"}", 1).await;
    let address = broker.kafka_addresses()[0].to_string();
    let (stopped, answer) = tokio::join!(broker.stop(), read_answer(&mut stream));
    stopped.expect("drained");
    assert_eq!(peek_correlation_id(&answer).expect("a header"), 2);
    assert!(is_closed(&mut stream).await);
    assert!(env.network().connect(&address).await.is_err(), "its socket is closed");
}

/// The admin pages of a broker that serves, with the numbers of what it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_was_done() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let broker = Broker::start(env.clone(), options(folder.path(), &[])).await.expect("the broker starts");
    let client = client(&env, &broker);
    Admin::new(&client).create_topic(&NewTopic::new(name("orders"), 3)).await.expect("created");
    produce(&client, &partition("orders", 0), (0..5).map(|n| n.to_string())).await;
    assert_eq!(admin(&env, &broker, "/health").await, ("200".to_owned(), "ok\n".to_owned()));
    assert_eq!(admin(&env, &broker, "/ready").await, ("200".to_owned(), "ready\n".to_owned()));
    for (name, count) in [
        ("forebay_partitions", 3),
        ("forebay_requests_total{api=\"Produce\"}", 5),
        ("forebay_wal_batches_total", 5),
        ("forebay_wal_ack_seconds_count", 5),
    ] {
        metric_comes_to(&env, &broker, name, count).await;
    }
    let mut beyond = Consumer::new(&client, ConsumerConfig::default());
    beyond.assign(partition("orders", 0), StartAt::Offset(Offset::new(99).expect("legal")));
    beyond.poll().await.expect_err("there is no such offset");
    metric_comes_to(&env, &broker, "forebay_offsets_out_of_range_total{api=\"Fetch\",side=\"above-log-end\"}", 1).await;
    let (code, metrics) = admin(&env, &broker, "/metrics").await;
    assert_eq!(code, "200");
    assert!(metric(&metrics, "forebay_upload_pending_bytes") > 0.0);
    assert!(metric(&metrics, "forebay_resident_memory_bytes") > 1e6);
    assert!(metric(&metrics, "forebay_store_requests_total{operation=\"create\",purpose=\"metadata\"}") > 0.0);
    assert!(metrics.ends_with("# EOF\n"));
    broker.stop().await.expect("drained");
}
