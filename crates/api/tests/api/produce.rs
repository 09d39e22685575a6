//! Produce and DescribeProducers.

use std::fmt::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_format::{MarkerKind, MarkerSummary};
use forebay_types::{ProducerEpoch, ProducerId};
use forebay_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use forebay_wire::kafka::messages::{DescribeProducersRequest, ProduceRequest, describe_producers_request};
use forebay_wire::kafka::protocol::StrBytes;
use forebay_wire::{BatchBuilder, Codec, ErrorCode};

use crate::script::{Step, check, check_in, code};
use crate::world::{World, frame};

pub async fn produce(world: &World, step: &Step<'_>) -> Result<String, String> {
    let response = world.call(step.version(11), &request(step, batch(world, step).freeze())).await?;
    let partition = &response.responses[0].partition_responses[0];
    let mut shown = match partition.error_code {
        0 => format!("base={}", partition.base_offset),
        error => code(error).to_owned(),
    };
    if partition.log_append_time_ms >= 0 {
        shown.push_str(" stamped");
    }
    if !partition.record_errors.is_empty() {
        let at: Vec<_> = partition.record_errors.iter().map(|error| error.batch_index).collect();
        write!(shown, " records={at:?}").expect("a string takes all");
    }
    Ok(shown)
}

/// The batch that a step describes: one value per record, `-` is a tombstone.
fn batch(world: &World, step: &Step<'_>) -> BytesMut {
    let now = world.context().env.now().as_millis();
    let times: Vec<i64> = match step.options.get("time") {
        Some(times) => {
            times.split(',').map(|time| if time == "now" { now } else { time.parse().expect("a time") }).collect()
        }
        None => vec![now],
    };
    let mut builder = BatchBuilder::new(times[0]);
    if step.options.contains_key("id") {
        builder = builder.producer(step.number("id", 0), step.number("epoch", 0), step.number("seq", 0));
    }
    if step.options.contains_key("txn") || step.has("transactional") {
        builder = builder.transactional();
    }
    if step.has("control") {
        builder = builder.control();
    }
    builder = match step.options.get("codec") {
        Some(&"zstd") => builder.codec(Codec::Zstd),
        Some(&"gzip") => builder.codec(Codec::Gzip),
        _ => builder,
    };
    let keys: Vec<_> = step.options.get("key").map(|keys| keys.split(',').collect()).unwrap_or_default();
    let size = step.number("size", 0);
    for (at, value) in step.word(2).split(',').enumerate() {
        let long = value.repeat(size / value.len().max(1));
        let value = if long.is_empty() { value } else { &long };
        let time = times.get(at).copied().unwrap_or(times[times.len() - 1]);
        let key = keys.get(at).filter(|key| **key != "-").map(|key| key.as_bytes());
        builder.push(time, key, Some(value.as_bytes()).filter(|value| *value != b"-"), &[]);
    }
    builder.build()
}

fn request(step: &Step<'_>, records: Bytes) -> ProduceRequest {
    let (topic, index) = step.partition();
    let partition = PartitionProduceData::default().with_index(index).with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(StrBytes::from_string(topic.to_owned()).into())
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_transactional_id(step.options.get("txn").map(|id| StrBytes::from_string((*id).to_owned()).into()))
        .with_acks(step.number("acks", -1))
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

/// Ends a producer's transaction in a partition, as the coordinator does.
pub async fn marker(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (topic, index) = step.partition();
    let id = ProducerId::new(step.number("id", 0)).expect("not negative");
    let epoch = ProducerEpoch::new(step.number("epoch", 0)).expect("not negative");
    let kind = if step.has("commit") { MarkerKind::Commit } else { MarkerKind::Abort };
    let marker = MarkerSummary { kind, coordinator_epoch: 0, prepare: None };
    let context = world.context();
    let mut admission = context.wal.admit(128).await.expect("the WAL runs");
    let appended = world.partition(topic, index).append_marker((id, epoch), marker, context.env.now(), &mut admission);
    let appended = appended.expect("a legal marker");
    context.wal.durable(appended.position).await.expect("the WAL runs");
    Ok(format!("base={}", appended.base_offset))
}

pub async fn producers(world: &World, step: &Step<'_>) -> Result<String, String> {
    let (topic, index) = step.partition();
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(StrBytes::from_string(topic.to_owned()).into())
        .with_partition_indexes(vec![index]);
    let response = world.call(0, &DescribeProducersRequest::default().with_topics(vec![topic])).await?;
    let partition = &response.topics[0].partitions[0];
    if partition.error_code != 0 {
        return Ok(code(partition.error_code).to_owned());
    }
    let shown = partition.active_producers.iter().map(|producer| {
        let open = match producer.current_txn_start_offset {
            -1 => "none".to_owned(),
            first => first.to_string(),
        };
        format!(
            "id={} epoch={} seq={} open={open}",
            producer.producer_id.0, producer.producer_epoch, producer.last_sequence
        )
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

/// Offsets are dense, a batch that repeats one of the last five is told the first one's offset, and anything else out of
/// turn is refused, without UNKNOWN_PRODUCER_ID or DUPLICATE_SEQUENCE_NUMBER ever (semantics 1, 2, 3, 3a, 15).
#[tokio::test(start_paused = true)]
async fn an_idempotent_producer() {
    check(
        "create a -> NONE
         # an unknown producer begins where it likes
         produce a/0 x,y id=7 seq=5 -> base=0
         produce a/0 z id=7 seq=7 -> base=2
         # a repetition is told where it is
         produce a/0 x,y id=7 seq=5 -> base=0
         produce a/0 z id=7 seq=7 -> base=2
         # a gap, and a repetition that is cut otherwise
         produce a/0 w id=7 seq=9 -> OUT_OF_ORDER_SEQUENCE_NUMBER
         produce a/0 x id=7 seq=5 -> OUT_OF_ORDER_SEQUENCE_NUMBER
         produce a/0 b id=7 seq=8 -> base=3
         produce a/0 c id=7 seq=9 -> base=4
         produce a/0 d id=7 seq=10 -> base=5
         produce a/0 e id=7 seq=11 -> base=6
         # the first batch has left the window of five
         produce a/0 x,y id=7 seq=5 -> OUT_OF_ORDER_SEQUENCE_NUMBER
         produce a/0 z id=7 seq=7 -> base=2
         # a new epoch begins with 0, and fences the old one
         produce a/0 f id=7 epoch=1 seq=12 -> OUT_OF_ORDER_SEQUENCE_NUMBER
         produce a/0 f id=7 epoch=1 seq=0 -> base=7
         produce a/0 g id=7 epoch=0 seq=12 -> INVALID_PRODUCER_EPOCH
         # sequences wrap to 0
         produce a/0 h id=8 seq=2147483647 -> base=8
         produce a/0 i id=8 seq=0 -> base=9
         producers a/0 -> id=7 epoch=1 seq=0 open=none, id=8 epoch=0 seq=0 open=none
         # what was seen outlives the broker
         restart -> started
         produce a/0 i id=8 seq=0 -> base=9
         produce a/0 j id=8 seq=1 -> base=10
         producers nowhere/0 -> UNKNOWN_TOPIC_OR_PARTITION",
    )
    .await;
}

/// What a batch must be, each fault with Kafka's code and in the request's version (semantics 12, 21, 36).
#[tokio::test(start_paused = true)]
async fn batches_that_are_refused() {
    check(
        "create a -> NONE
         create compacted cleanup.policy=compact -> NONE
         create small max.message.bytes=80 -> NONE
         create stamped message.timestamp.type=LogAppendTime -> NONE
         produce nowhere/0 x -> UNKNOWN_TOPIC_OR_PARTITION
         produce a/1 x -> UNKNOWN_TOPIC_OR_PARTITION
         produce a/-1 x -> UNKNOWN_TOPIC_OR_PARTITION
         produce a/0 x acks=2 -> INVALID_REQUIRED_ACKS
         produce a/0 x control -> INVALID_RECORD
         produce a/0 x control v=7 -> CORRUPT_MESSAGE
         produce a/0 x id=7 seq=-1 -> INVALID_RECORD
         produce a/0 x codec=zstd v=6 -> UNSUPPORTED_COMPRESSION_TYPE
         produce a/0 x codec=zstd v=7 -> base=0
         produce a/0 x time=9000000000000 -> INVALID_TIMESTAMP records=[0]
         produce a/0 x time=9000000000000 v=7 -> INVALID_TIMESTAMP
         produce a/0 x time=5 -> base=1
         produce stamped/0 x time=9000000000000 -> base=0 stamped
         produce small/0 0123456789012345 -> MESSAGE_TOO_LARGE
         produce compacted/0 x,y,z key=k,-,- -> INVALID_RECORD records=[1, 2]
         produce compacted/0 x,- key=k,k -> base=0
         produce a/0 x v=2 -> closed: Produce is served in versions 3 to 11, not in 2
         # without an answer, only the end of the connection can tell of an error
         produce a/0 x acks=0 -> no answer
         wait 1 -> waited
         produce a/9 x acks=0 -> closed: records sent with acks=0 could not be appended: UNKNOWN_TOPIC_OR_PARTITION
         fetch a/0 2 -> hw=3 lso=3 start=0: 2:x",
    )
    .await;
}

/// Where the topic bounds how old a record may be, each is looked at, compressed or not: one that is too old keeps its whole
/// batch out, by its index, and neither offsets nor sequences have moved.
#[tokio::test(start_paused = true)]
async fn an_old_record_keeps_its_batch_out() {
    check(
        "create a message.timestamp.before.max.ms=60000 -> NONE
         create compacted cleanup.policy=compact message.timestamp.before.max.ms=60000 -> NONE
         produce a/0 x,y,z time=now,now,now id=7 seq=0 -> base=0
         produce a/0 x,y,z time=now,5,now id=7 seq=3 -> INVALID_TIMESTAMP records=[1]
         produce a/0 x,y,z time=now,5,now id=7 seq=3 codec=gzip -> INVALID_TIMESTAMP records=[1]
         produce a/0 x,y,z time=now,5,now id=7 seq=3 codec=zstd -> INVALID_TIMESTAMP records=[1]
         produce a/0 x,y,z time=now,5,now id=7 seq=3 v=7 -> INVALID_TIMESTAMP
         produce a/0 x,y,z time=now,now,now id=7 seq=3 codec=zstd -> base=3
         produce a/0 w time=now id=7 seq=6 -> base=6
         # the fault of a time gives the code of both
         produce compacted/0 x,y,z key=k,-,k time=5,5,now -> INVALID_TIMESTAMP records=[0, 1]
         produce compacted/0 x,y,z key=k,-,k time=now -> INVALID_RECORD records=[1]
         edit topic a message.timestamp.before.max.ms=delete: -> NONE
         produce a/0 x,y,z time=now,5,now id=7 seq=7 -> base=7",
    )
    .await;
}

/// A first transactional batch is confirmed by the coordinator; where it is not, the code is the version's own
/// (semantic 9). Without a transactional id there is no transaction.
#[tokio::test(start_paused = true)]
async fn a_transactional_batch_is_verified() {
    check(
        "create a -> NONE
         init good -> id=0 epoch=0
         produce a/0 x id=0 seq=0 txn=bad -> INVALID_PRODUCER_ID_MAPPING
         produce a/0 x id=0 seq=0 txn=good -> TRANSACTION_ABORTABLE
         produce a/0 x id=0 seq=0 txn=good v=10 -> INVALID_TXN_STATE
         produce a/0 x id=0 seq=0 transactional -> TRANSACTIONAL_ID_AUTHORIZATION_FAILED
         produce a/0 x txn=good -> INVALID_RECORD
         enlist good a/0 id=0 -> NONE
         produce a/0 x id=0 seq=0 txn=good -> base=0
         producers a/0 -> id=0 epoch=0 seq=0 open=0
         # while it is open, what is not part of it is refused, and its own batches need no more asking
         produce a/0 x id=0 seq=1 -> INVALID_TXN_STATE
         produce a/0 y id=0 seq=1 txn=bad -> base=1
         marker a/0 commit id=0 -> base=2
         produce a/0 z id=0 seq=2 txn=bad -> INVALID_PRODUCER_ID_MAPPING
         producers a/0 -> id=0 epoch=0 seq=1 open=none",
    )
    .await;
}

/// Nobody writes to the coordinators' topics but they.
#[tokio::test(start_paused = true)]
async fn internal_topics_are_not_for_clients() {
    check(
        "create __consumer_offsets -> NONE
         produce __consumer_offsets/0 x -> INVALID_TOPIC_EXCEPTION
         trim __consumer_offsets/0 0 -> INVALID_TOPIC_EXCEPTION
         delete __consumer_offsets -> POLICY_VIOLATION: __consumer_offsets belongs to the coordinators and is not deleted
         grow __consumer_offsets 2 -> POLICY_VIOLATION: __consumer_offsets keeps its number of partitions: groups are found by it",
    )
    .await;
}

/// Records get their order when the request is taken, not when its answer is waited for: of two requests that are taken
/// one after the other and awaited the other way round, the first has the lower offset.
#[tokio::test(start_paused = true)]
async fn order_is_given_before_durability() {
    let mut world = World::new().await;
    check_in(&mut world, "create a -> NONE").await;
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = forebay_api::Connection { peer };
    let mut later = Vec::new();
    for value in ["first", "second"] {
        let text = format!("produce a/0 {value}");
        let step = Step { words: text.split(' ').collect(), options: [].into() };
        let frame = frame(9, &request(&step, batch(&world, &step).freeze()));
        match forebay_api::handle(world.context(), &connection, frame).await.expect("a sound request") {
            forebay_api::Reply::Later(answer) => later.push(answer),
            _ => panic!("an answer waits for its records"),
        }
    }
    while let Some(answer) = later.pop() {
        answer.await.expect("an answer");
    }
    check_in(&mut world, "fetch a/0 0 -> hw=2 lso=2 start=0: 0:first 1:second").await;
}

/// A broker that is stopping takes nothing more, and says so in a way that makes a client look elsewhere.
#[tokio::test(start_paused = true)]
async fn after_the_end_nothing_is_taken() {
    check(
        "create a -> NONE
         produce a/0 x -> base=0
         drain -> drained
         produce a/0 y -> NOT_LEADER_OR_FOLLOWER
         fetch a/0 0 -> NOT_LEADER_OR_FOLLOWER
         offsets a/0 -1 -> NOT_LEADER_OR_FOLLOWER
         metadata a -> a: 0 LEADER_NOT_AVAILABLE
         restart -> started
         fetch a/0 0 -> hw=1 lso=1 start=0: 0:x",
    )
    .await;
}

/// One batch of the one format that there is, whole and under its checksum (21).
#[tokio::test(start_paused = true)]
async fn forged_batches_are_refused() {
    let mut world = World::new().await;
    check_in(&mut world, "create a -> NONE").await;
    let step = Step { words: vec!["produce", "a/0", "x"], options: [].into() };
    let good = batch(&world, &step);
    let forged = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes.freeze()
    };
    let twice = Bytes::from([&good[..], &good[..]].concat());
    let last = good.len() - 1;
    for (what, bytes, expected) in [
        ("the format before", forged(16, 1), "INVALID_RECORD"),
        ("a format to come", forged(16, 3), "INVALID_RECORD"),
        ("two batches", twice, "INVALID_RECORD"),
        ("nothing", Bytes::new(), "INVALID_RECORD"),
        ("a base offset", forged(7, 5), "INVALID_RECORD"),
        ("a length beyond the end", forged(8, 1), "CORRUPT_MESSAGE"),
        ("another checksum", forged(17, !good[17]), "CORRUPT_MESSAGE"),
        ("other records", forged(last, !good[last]), "CORRUPT_MESSAGE"),
        ("half a header", Bytes::copy_from_slice(&good[..30]), "CORRUPT_MESSAGE"),
        ("an unknown codec", forged(22, 7), "UNSUPPORTED_COMPRESSION_TYPE"),
    ] {
        let response = world.call(11, &request(&step, bytes)).await.expect("an answer");
        assert_eq!(code(response.responses[0].partition_responses[0].error_code), expected, "{what}");
    }
    check_in(&mut world, "fetch a/0 0 -> hw=0 lso=0 start=0").await;
}

/// Many small topics in one request are answered each for itself.
#[tokio::test(start_paused = true)]
async fn a_bad_partition_leaves_the_others_alone() {
    let mut world = World::new().await;
    check_in(&mut world, "create a partitions=2 -> NONE").await;
    let step = Step { words: vec!["produce", "a/0", "x"], options: [].into() };
    let mut request = request(&step, batch(&world, &step).freeze());
    let good = request.topic_data[0].partition_data[0].clone();
    let bad = good.clone().with_index(5);
    let damaged = good.clone().with_index(1).with_records(Some(Bytes::from_static(b"no batch at all")));
    let none = good.clone().with_index(1).with_records(None);
    request.topic_data[0].partition_data = vec![bad, damaged, none, good];
    let response = world.call(11, &request).await.expect("an answer");
    let codes: Vec<_> = response.responses[0].partition_responses.iter().map(|p| p.error_code).collect();
    let expected =
        [ErrorCode::UnknownTopicOrPartition, ErrorCode::CorruptMessage, ErrorCode::InvalidRecord, ErrorCode::None];
    assert_eq!(codes, expected.map(ErrorCode::code));
}

/// A request that had to wait for room is told for how long, up to a second; one that met an open door is told 0 (28). A
/// Produce that appends nothing waits for nothing.
#[tokio::test(start_paused = true)]
async fn waiting_for_room_is_told_as_throttle_time() {
    let mut world = World::new().await;
    check_in(&mut world, "create a -> NONE").await;
    let world = &world;
    let told = async |wait_ms: u64, version: i16, partition: &'static str| {
        let step = Step { words: vec!["produce", partition, "x"], options: [].into() };
        let whole = world.context().wal.admit(usize::MAX).await.expect("the WAL runs");
        let request = request(&step, batch(world, &step).freeze());
        let produced = world.call(version, &request);
        let freed = async {
            world.context().env.sleep(Duration::from_millis(wait_ms)).await;
            drop(whole);
        };
        let (response, ()) = futures::future::join(produced, freed).await;
        let response = response.expect("an answer");
        (response.responses[0].partition_responses[0].base_offset, response.throttle_time_ms)
    };
    assert_eq!(told(0, 11, "a/0").await, (0, 0));
    assert_eq!(told(250, 11, "a/0").await, (1, 250));
    assert_eq!(told(40, 5, "a/0").await, (2, 40));
    assert_eq!(told(90_000, 11, "a/0").await, (3, 1000), "a client does not pause for minutes");
    assert_eq!(told(250, 11, "a/7").await, (-1, 0));
    let counters = &world.context().counters;
    assert_eq!(counters.produces_held_back(), 3);
    assert_eq!(counters.produce_time_held_back(), Duration::from_millis(90_290), "the whole time is counted");
}
