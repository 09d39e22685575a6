//! Memory that all connections share: what many of them ask for together is bounded, and none is kept waiting by others
//! for what it does not need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use forebay_broker::Broker;
use forebay_client::{Admin, NewTopic};
use forebay_env::{Env, Stream, Task};
use forebay_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use forebay_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use forebay_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use forebay_wire::kafka::messages::{FetchRequest, MetadataRequest, ProduceRequest, ProduceResponse};
use forebay_wire::kafka::protocol::StrBytes;
use forebay_wire::{BatchBuilder, decode_response, encode_request, peek_correlation_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::inside::Inside;
use crate::support::{
    admin, client, connect, consume, is_closed, metric, metric_comes_to, name, partition, produce, read_answer,
};

/// Many times less than the connections of a test would take.
const REQUESTS: &str = "queued.max.request.bytes";
const ANSWERS: &str = "forebay.fetch.pending.max.bytes";
/// More than a socket takes (`inside`): it is sent only where the broker reads it.
const LARGE: usize = 90_000;

async fn start(inside: &Inside, keys: &[(&str, &str)]) -> Broker {
    let broker = Broker::start(inside.env.clone(), inside.options(keys)).await.expect("the broker starts");
    let admin = Admin::new(&client(&inside.env, &broker));
    admin.create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    broker
}

fn produce_of(env: &Env, bytes: usize) -> BytesMut {
    // Of now: retention would take what is old.
    let now = env.now().as_millis();
    let mut batch = BatchBuilder::new(now);
    batch.push(now, None, Some("x".repeat(bytes).as_bytes()), &[]);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.build().freeze()));
    let topic = TopicProduceData::default()
        .with_name(StrBytes::from_static_str("orders").into())
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    encode_request(1, Some("test"), 9, &request).expect("encodable")
}

fn fetch_of(correlation_id: i32, bytes_max: i32) -> BytesMut {
    let wanted = FetchPartition::default().with_partition(0).with_partition_max_bytes(bytes_max);
    let topic =
        FetchTopic::default().with_topic(StrBytes::from_static_str("orders").into()).with_partitions(vec![wanted]);
    let fetch = FetchRequest::default().with_max_wait_ms(10).with_max_bytes(bytes_max).with_topics(vec![topic]);
    encode_request(correlation_id, Some("test"), 4, &fetch).expect("encodable")
}

/// Asks about so many topics that the request is a large one.
fn metadata_of(correlation_id: i32, topics: usize) -> BytesMut {
    let topic = |n| MetadataRequestTopic::default().with_name(Some(StrBytes::from_string(format!("t{n}")).into()));
    let request = MetadataRequest::default()
        .with_topics(Some((0..topics).map(topic).collect()))
        .with_allow_auto_topic_creation(false);
    let request = encode_request(correlation_id, Some("test"), 4, &request).expect("encodable");
    assert!(request.len() > forebay_wire::frame::READ_AHEAD);
    request
}

/// Whether the records of the next answer were taken.
async fn is_acknowledged(stream: &mut Box<dyn Stream>) -> bool {
    let (_, response) = decode_response::<ProduceResponse>(read_answer(stream).await, 9).expect("a Produce response");
    response.responses[0].partition_responses[0].error_code == 0
}

/// Connections that each send one large Produce: those that have sent theirs are counted.
async fn produce_at_once(env: &Env, broker: &Broker, count: usize) -> (Vec<Task<bool>>, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..count {
        let (mut stream, request, sent) = (connect(env, broker).await, produce_of(env, LARGE), Arc::clone(&sent));
        tasks.push(env.spawn("producer", async move {
            stream.write_all(&request).await.expect("taken in the end");
            sent.fetch_add(1, Ordering::Relaxed);
            is_acknowledged(&mut stream).await
        }));
    }
    (tasks, sent)
}

async fn shown(env: &Env, broker: &Broker, name: &str) -> f64 {
    metric(&admin(env, broker, "/metrics").await.1, name)
}

/// Everything that was taken is given back, in no time: a connection sees the end of its peer when it is its turn.
async fn assert_nothing_held(env: &Env, broker: &Broker) {
    env.sleep(Duration::from_secs(1)).await;
    for name in ["forebay_request_held_bytes", "forebay_fetch_pending_bytes"] {
        let held = shown(env, broker, name).await;
        assert!(held < 1.0, "{name} is {held}");
    }
}

/// While the write-ahead log has no room, Produce requests are read only as far as the budget goes; fetches and other
/// requests, large ones too, are answered meanwhile. Once there is room, every one is acknowledged.
#[tokio::test(start_paused = true)]
async fn produces_that_wait_for_the_log_hold_no_more_than_the_budget() {
    let inside = Inside::new(21);
    let env: &Env = &inside.env;
    let keys = [
        ("message.max.bytes", "100000"),
        ("forebay.wal.max.bytes", "524288"),
        ("forebay.wal.segment.bytes", "262144"),
        (REQUESTS, "200000"),
    ];
    let broker = start(&inside, &keys).await;
    inside.bucket.set_outage(true);
    let mut filler = connect(env, &broker).await;
    let mut filled = 0;
    loop {
        filler.write_all(&produce_of(env, LARGE)).await.expect("sent");
        filled += 1;
        if env.timeout(Duration::from_secs(3), is_acknowledged(&mut filler)).await.is_none() {
            break;
        }
    }
    let (producers, sent) = produce_at_once(env, &broker, 10).await;
    env.sleep(Duration::from_secs(3)).await;
    assert_eq!(sent.load(Ordering::Relaxed), 1, "beside the one that has filled the log");
    let held = shown(env, &broker, "forebay_request_held_bytes").await;
    assert!(held > 0.0 && held <= 200_000.0, "{held}");
    metric_comes_to(env, &broker, "forebay_requests_waited_total", 9).await;

    let mut other = connect(env, &broker).await;
    for (id, request) in (0..).zip([fetch_of(0, 1 << 20), metadata_of(1, 5_000), fetch_of(2, 1)]) {
        other.write_all(&request).await.expect("sent");
        let answer = env.timeout(Duration::from_secs(1), read_answer(&mut other)).await;
        assert_eq!(peek_correlation_id(&answer.expect("at once")).expect("a header"), id);
    }

    inside.bucket.set_outage(false);
    assert!(is_acknowledged(&mut filler).await);
    for producer in producers {
        assert_eq!(producer.await, Some(true));
    }
    assert_nothing_held(env, &broker).await;
    let read = consume(&client(env, &broker), &partition("orders", 0), filled + 10).await;
    assert!(read.iter().all(|value| value.len() == LARGE));
    broker.stop().await.expect("drained");
}

/// A peer that sends nothing more of a request it has begun holds up those who wait for half a minute or so, and is let go.
/// One that is slow is not, unless it is so slow that others would wait for minutes.
#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_go_on_gives_its_bytes_back() {
    let inside = Inside::new(22);
    let env: &Env = &inside.env;
    let broker = start(&inside, &[(REQUESTS, "100000")]).await;
    let request = produce_of(env, LARGE);
    let mut stopped = connect(env, &broker).await;
    stopped.write_all(&request[..50_000]).await.expect("sent");
    env.sleep(Duration::from_secs(1)).await;
    let begun = env.monotonic();
    let (mut producers, _) = produce_at_once(env, &broker, 1).await;
    assert_eq!(producers.remove(0).await, Some(true));
    let waited = env.monotonic() - begun;
    assert!((Duration::from_secs(29)..Duration::from_secs(61)).contains(&waited), "{waited:?}");
    assert!(is_closed(&mut stopped).await);
    metric_comes_to(env, &broker, "forebay_connections_closed_total{reason=\"unfinished\"}", 1).await;

    let mut slow = connect(env, &broker).await;
    for piece in request.chunks(request.len() / 30 + 1) {
        slow.write_all(piece).await.expect("it is still read");
        env.sleep(Duration::from_secs(1)).await;
    }
    assert!(is_acknowledged(&mut slow).await);

    let mut trickle = connect(env, &broker).await;
    let begun = env.monotonic();
    for byte in &request {
        if trickle.write_all(&[*byte]).await.is_err() {
            break;
        }
        env.sleep(Duration::from_secs(20)).await;
    }
    let lasted = env.monotonic() - begun;
    assert!(lasted < Duration::from_mins(4), "{lasted:?}");
    assert_nothing_held(env, &broker).await;
    broker.stop().await.expect("drained");
}

/// A request that is larger than the budget is read when nobody else holds any of it, and so are others after it.
#[tokio::test(start_paused = true)]
async fn a_request_larger_than_the_budget_is_read_alone() {
    let inside = Inside::new(23);
    let env: &Env = &inside.env;
    let broker = start(&inside, &[(REQUESTS, "20000")]).await;
    let mut first = connect(env, &broker).await;
    let request = produce_of(env, LARGE);
    first.write_all(&request[..80_000]).await.expect("sent");
    env.sleep(Duration::from_secs(1)).await;
    let (producers, sent) = produce_at_once(env, &broker, 3).await;
    env.sleep(Duration::from_secs(10)).await;
    assert_eq!(sent.load(Ordering::Relaxed), 0, "the first is alone");
    first.write_all(&request[80_000..]).await.expect("sent");
    assert!(is_acknowledged(&mut first).await);
    for producer in producers {
        assert_eq!(producer.await, Some(true));
    }
    assert_nothing_held(env, &broker).await;
    broker.stop().await.expect("drained");
}

/// A connection that waits for memory hears that the broker stops.
#[tokio::test(start_paused = true)]
async fn who_waits_for_memory_hears_the_end() {
    let inside = Inside::new(24);
    let env: &Env = &inside.env;
    let broker = start(&inside, &[(REQUESTS, "100000")]).await;
    let (mut begun, mut waiting) = (connect(env, &broker).await, connect(env, &broker).await);
    let request = produce_of(env, LARGE);
    begun.write_all(&request[..50_000]).await.expect("sent");
    env.sleep(Duration::from_secs(1)).await;
    waiting.write_all(&request[..50_000]).await.expect("sent");
    env.sleep(Duration::from_secs(1)).await;
    metric_comes_to(env, &broker, "forebay_requests_waited_total", 1).await;
    let asked = env.monotonic();
    broker.stop().await.expect("drained");
    assert!(env.monotonic() - asked < Duration::from_secs(1), "nobody was waited for");
    assert!(is_closed(&mut begun).await && is_closed(&mut waiting).await);
}

/// Many who ask for much and do not read it have answers that come to the budget, and a batch for each; who reads gets all
/// there is meanwhile. When they go, nothing is left of it.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_hold_no_more_than_the_budget() {
    const BUDGET: usize = 800_000;
    const SLOW: usize = 20;
    let inside = Inside::new(25);
    let env: &Env = &inside.env;
    let broker = start(&inside, &[(ANSWERS, &BUDGET.to_string())]).await;
    let client = client(env, &broker);
    let values: Vec<String> = (10..40).map(|n| n.to_string().repeat(LARGE / 2)).collect();
    produce(&client, &partition("orders", 0), values.iter().cloned()).await;

    let mut slow = Vec::new();
    for id in 0..SLOW {
        let mut stream = connect(env, &broker).await;
        stream.write_all(&fetch_of(i32::try_from(id).expect("few"), 1 << 20)).await.expect("sent");
        slow.push(stream);
    }
    env.sleep(Duration::from_secs(1)).await;
    let held = shown(env, &broker, "forebay_fetch_pending_bytes").await;
    assert!(held > 400_000.0 && held <= 800_000.0, "{held}");
    let mut answered = 0;
    for stream in &mut slow {
        let size = usize::try_from(stream.read_i32().await.expect("an answer")).expect("a size");
        assert!(size > LARGE, "each has a batch");
        answered += size;
    }
    assert!(answered < BUDGET + SLOW * (LARGE + 1_000), "{answered} bytes wait for those who do not read");
    assert_eq!(consume(&client, &partition("orders", 0), values.len()).await, values);
    drop(slow);
    assert_nothing_held(env, &broker).await;

    // With the budget to itself again, a fetch gets as much as half of it.
    let mut alone = connect(env, &broker).await;
    alone.write_all(&fetch_of(1, 1 << 20)).await.expect("sent");
    let answer = read_answer(&mut alone).await;
    assert!((BUDGET / 2 - LARGE..BUDGET / 2 + 1_000).contains(&answer.len()), "{}", answer.len());
    broker.stop().await.expect("drained");
}
