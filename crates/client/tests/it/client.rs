//! Connections, versions, retries, consumers and groups against a broker that misbehaves.

use std::time::Duration;

use crate::support::{Fault, Rig, partition, records, topic};
use forebay_client::{
    Admin, ClientError, Consumer, ConsumerConfig, ErrorCode, Fetched, GroupConfig, GroupConsumer, Isolation, Kind,
    NewTopic, OffsetAt, Outcome, Producer, ProducerConfig, StartAt,
};
use forebay_types::{Offset, TopicName};
use forebay_wire::kafka::messages::ApiKey;

fn at(raw: i64) -> Offset {
    Offset::new(raw).expect("not negative")
}

fn values(fetched: &[Fetched]) -> String {
    let record = |r: &forebay_client::FetchedRecord| {
        format!("{}:{}", r.offset, String::from_utf8_lossy(r.value.as_deref().unwrap_or_default()))
    };
    fetched.iter().flat_map(|one| one.records.iter().map(record)).collect::<Vec<_>>().join(" ")
}

async fn produce(rig: &Rig, values: &[&str]) {
    let mut producer = Producer::new(&rig.client, ProducerConfig::default()).await.expect("a producer id");
    for value in values {
        producer.send_to(&partition(0), records(&[value])).await.expect("alive").await.expect("acknowledged");
    }
}

/// A broker that knows only older forms of the first request says so in the oldest, and is asked again in its own; the
/// versions of all other requests follow what it offers.
#[tokio::test(start_paused = true)]
async fn an_older_broker_is_asked_in_its_own_version() {
    let rig = Rig::new();
    rig.broker.0.lock().version_max.extend([(18, 2), (0, 7), (1, 11), (3, 8)]);
    produce(&rig, &["a"]).await;
    assert_eq!(rig.requests(&[ApiKey::ApiVersions])[..2], ["versions v4", "versions v2"]);
    let mut consumer = Consumer::new(&rig.client, ConsumerConfig::default());
    consumer.assign(partition(0), StartAt::Earliest);
    assert_eq!(values(&consumer.poll().await.expect("a fetch by name")), "0:a");
    let rig = Rig::new();
    rig.broker.0.lock().version_max.insert(19, 1);
    let error = Admin::new(&rig.client).create_topic(&NewTopic::new(topic(), 1)).await.expect_err("too old");
    assert_eq!(
        error.to_string(),
        "create topic orders: broker:9092 speaks versions 0 to 1 of API key 19, this client 2 to 7"
    );
}

/// Answers under another correlation id end the connection; the request is told as one that may have happened, and one
/// that changes nothing is asked again.
#[tokio::test(start_paused = true)]
async fn answers_out_of_order_end_the_connection() {
    let rig = Rig::new();
    rig.fault(ApiKey::ListOffsets, &[Fault::WrongId]);
    let found = Admin::new(&rig.client).list_offset(&partition(0), OffsetAt::Latest, Isolation::ReadUncommitted).await;
    assert_eq!(found.expect("asked again").expect("an end").offset, at(0));
    assert_eq!(rig.requests(&[ApiKey::ApiVersions]).len(), 2, "over another connection");
}

/// What makes something is not repeated once it may have happened; where it surely did not, it is.
#[tokio::test(start_paused = true)]
async fn a_creation_is_not_repeated_blindly() {
    let rig = Rig::new();
    let admin = Admin::new(&rig.client);
    let new = NewTopic::new(TopicName::new("fresh").expect("legal"), 2);
    rig.fault(ApiKey::CreateTopics, &[Fault::LoseAnswer]);
    let error = admin.create_topic(&new).await.expect_err("the answer was lost");
    assert_eq!((error.outcome(), rig.requests(&[ApiKey::CreateTopics]).len()), (Outcome::MayHaveHappened, 1));
    let described = admin.describe_topic(&new.name).await.expect("it is there");
    assert_eq!(described.partitions.len(), 2);
    rig.fault(ApiKey::CreateTopics, &[Fault::Refuse(ErrorCode::NotController)]);
    admin.create_topic(&new).await.expect("repeated, for nothing had happened");
    rig.fault(ApiKey::CreateTopics, &[Fault::Refuse(ErrorCode::InvalidConfig)]);
    let error = admin.create_topic(&new).await.expect_err("refused");
    assert_eq!(error.to_string(), "create topic fresh: the broker answers INVALID_CONFIG (as asked)");
}

/// A broker that is not there: retries end with the deadline, and the error says that nothing was sent.
#[tokio::test(start_paused = true)]
async fn nobody_there_is_told_after_the_deadline() {
    let rig = Rig::new();
    rig.broker.0.lock().refused_connections = u32::MAX;
    let error = Admin::new(&rig.client).list_topics().await.expect_err("nobody answers");
    assert_eq!(error.outcome(), Outcome::DidNotHappen);
    let ClientError::GaveUp { after, .. } = error else { panic!("{error}") };
    assert_eq!(after, Duration::from_secs(20));
    rig.broker.0.lock().refused_connections = 3;
    assert_eq!(Admin::new(&rig.client).list_topics().await.expect("it came back").len(), 1);
}

/// A consumer begins where it is told, goes on after refusals and lost answers without a gap or a repeat, waits for
/// what is to come, and stops at an offset that does not exist.
#[tokio::test(start_paused = true)]
async fn a_consumer_goes_on_where_it_was() {
    let rig = Rig::new();
    produce(&rig, &["a", "b", "c"]).await;
    let mut consumer = Consumer::new(&rig.client, ConsumerConfig::default());
    consumer.assign(partition(0), StartAt::Offset(at(1)));
    assert_eq!(values(&consumer.poll().await.expect("records")), "1:b 2:c");
    rig.fault(ApiKey::Fetch, &[Fault::Refuse(ErrorCode::NotLeaderOrFollower), Fault::LoseAnswer]);
    produce(&rig, &["d"]).await;
    let mut seen = String::new();
    for _ in 0..3 {
        seen += &values(&consumer.poll().await.expect("no error that the caller must see"));
    }
    assert_eq!((seen.as_str(), consumer.position(&partition(0))), ("3:d", Some(at(4))));
    assert_eq!(values(&consumer.poll().await.expect("nothing new")), "");
    consumer.assign(partition(0), StartAt::Offset(at(99)));
    let error = consumer.poll().await.expect_err("past the end");
    assert_eq!((error.kind(), error.code()), (Kind::Reject, Some(ErrorCode::OffsetOutOfRange)));
}

/// A partition that cannot be read does not take the others' records away: they come first, then its error, at once and
/// by name, as what is stored does not mend itself.
#[tokio::test(start_paused = true)]
async fn one_partitions_error_leaves_the_others_records() {
    let rig = Rig::new();
    produce(&rig, &["a"]).await;
    let mut consumer = Consumer::new(&rig.client, ConsumerConfig::default());
    consumer.assign(partition(0), StartAt::Earliest);
    consumer.assign(partition(1), StartAt::Offset(at(99)));
    assert_eq!(values(&consumer.poll().await.expect("the other's records")), "0:a");
    assert_eq!(consumer.position(&partition(0)), Some(at(1)));
    let error = consumer.poll().await.expect_err("nothing but the error");
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
    consumer.unassign(&partition(1));
    rig.fault(ApiKey::Fetch, &[Fault::Refuse(ErrorCode::CorruptMessage)]);
    let error = consumer.poll().await.expect_err("told at once");
    let told = "fetch from orders-0 at offset 1: the broker cannot read its records (CORRUPT_MESSAGE)";
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Reject, told));
}

/// With read-committed neither aborted records nor those of an open transaction are seen; the position passes the first
/// and waits before the second.
#[tokio::test(start_paused = true)]
async fn read_committed_sees_only_what_was_committed() {
    let rig = Rig::new();
    let config = ProducerConfig { transactional_id: Some("t".to_owned()), ..ProducerConfig::default() };
    let mut producer = Producer::new(&rig.client, config).await.expect("a producer id");
    for (value, commit) in [("a", true), ("b", false), ("c", true)] {
        producer.begin().expect("ready");
        producer.send_to(&partition(0), records(&[value])).await.expect("alive").await.expect("acknowledged");
        if commit { producer.commit().await } else { producer.abort().await }.expect("ended");
    }
    producer.begin().expect("ready");
    producer.send_to(&partition(0), records(&["open"])).await.expect("alive").await.expect("acknowledged");
    for (isolation, seen, position) in
        [(Isolation::ReadUncommitted, "0:a 2:b 4:c 6:open", 7), (Isolation::ReadCommitted, "0:a 4:c", 6)]
    {
        let mut consumer = Consumer::new(&rig.client, ConsumerConfig { isolation, ..ConsumerConfig::default() });
        consumer.assign(partition(0), StartAt::Earliest);
        assert_eq!(values(&consumer.poll().await.expect("records")), seen);
        assert_eq!(consumer.position(&partition(0)), Some(at(position)));
    }
}

/// A group member joins in two steps, reads all partitions from where the group was, is told of a rebalance by a
/// heartbeat, joins again under its name, and begins anew once the coordinator has forgotten it.
#[tokio::test(start_paused = true)]
async fn a_group_member_follows_the_group() {
    let rig = Rig::new();
    produce(&rig, &["a", "b"]).await;
    let mut member = GroupConsumer::new(&rig.client, GroupConfig::new("g", vec![topic()]));
    assert_eq!(values(&member.poll().await.expect("joined")), "0:a 1:b");
    assert_eq!(member.positions().len(), 3);
    member.commit().await.expect("committed");
    assert!(rig.requests(&[ApiKey::OffsetCommit]).contains(&"commit orders-0 2 generation 11".to_owned()));
    rig.fault(ApiKey::Heartbeat, &[Fault::Refuse(ErrorCode::RebalanceInProgress)]);
    let steps = [ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::LeaveGroup];
    while rig.requests(&steps).len() < 5 {
        assert_eq!(values(&member.poll().await.expect("goes on")), "", "nothing is read twice");
    }
    rig.fault(ApiKey::OffsetCommit, &[Fault::Refuse(ErrorCode::UnknownMemberId)]);
    assert_eq!(member.commit().await.expect_err("forgotten").code(), Some(ErrorCode::UnknownMemberId));
    member.poll().await.expect("joined as somebody new");
    member.leave().await.expect("left");
    assert_eq!(
        rig.requests(&steps),
        [
            "join as \"\"",
            "join as \"member-10\"",
            "sync member-10 generation 11",
            "join as \"member-10\"",
            "sync member-10 generation 12",
            "join as \"\"",
            "join as \"member-22\"",
            "sync member-22 generation 23",
            "leave member-22",
        ]
    );
    let committed = Admin::new(&rig.client).committed_offsets("g", Some(&[partition(0), partition(1)])).await;
    let committed: Vec<_> = committed.expect("known").into_iter().map(|c| (c.partition, c.offset)).collect();
    assert_eq!(committed, [(partition(0), at(2)), (partition(1), at(0))]);
}
