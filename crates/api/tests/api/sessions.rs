//! Fetch sessions (KIP-227).

use std::time::Duration;

use forebay_types::TopicName;
use forebay_wire::kafka::messages::FetchRequest;
use forebay_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use forebay_wire::kafka::protocol::StrBytes;

use crate::script::{check_in, code, records};
use crate::world::World;

/// A client in a session: what it sends, and what it is told.
struct Client {
    version: i16,
    session: i32,
    epoch: i32,
}

impl Client {
    const fn new() -> Self {
        Self { version: 12, session: 0, epoch: 0 }
    }

    /// Asks for `TOPIC/INDEX@OFFSET`, forgets `-TOPIC/INDEX`; shows what comes back as `TOPIC/INDEX hw=N: RECORDS`.
    async fn fetch(&mut self, world: &World, asked: &str) -> String {
        let mut request = FetchRequest::default()
            .with_max_wait_ms(0)
            .with_max_bytes(1 << 20)
            .with_session_id(self.session)
            .with_session_epoch(self.epoch);
        for word in asked.split_whitespace() {
            let (forget, word) = word.strip_prefix('-').map_or((false, word), |word| (true, word));
            let (topic, rest) = word.split_once('/').expect("TOPIC/INDEX");
            let (index, from) = rest.split_once('@').unwrap_or((rest, "0"));
            let index = index.parse().expect("an index");
            let name = StrBytes::from_string(if self.version < 13 { topic.to_owned() } else { String::new() });
            let row = world.context().metadata.topics().by_name(&TopicName::new(topic).expect("legal"));
            let id = row.filter(|_| self.version >= 13).map_or(uuid::Uuid::nil(), |row| row.id.get());
            if forget {
                let topic = ForgottenTopic::default().with_topic(name.into()).with_topic_id(id);
                request.forgotten_topics_data.push(topic.with_partitions(vec![index]));
            } else {
                let partition = FetchPartition::default()
                    .with_partition(index)
                    .with_fetch_offset(from.parse().expect("an offset"))
                    .with_partition_max_bytes(1 << 20);
                let topic = FetchTopic::default().with_topic(name.into()).with_topic_id(id);
                request.topics.push(topic.with_partitions(vec![partition]));
            }
        }
        let response = world.call(self.version, &request).await.expect("answered");
        if response.error_code != 0 {
            return code(response.error_code).to_owned();
        }
        self.session = response.session_id;
        self.epoch = if self.session == 0 { 0 } else { self.epoch + 1 };
        let mut shown = Vec::new();
        for topic in &response.responses {
            for partition in &topic.partitions {
                let name = if self.version < 13 { topic.topic.as_str() } else { "?" };
                let told = match partition.error_code {
                    0 => format!("hw={}", partition.high_watermark),
                    error => code(error).to_owned(),
                };
                let records = records(partition.records.as_ref().unwrap_or(&bytes::Bytes::new()));
                let records = if records.is_empty() { records } else { format!(": {records}") };
                shown.push(format!("{name}/{} {told}{records}", partition.partition_index));
            }
        }
        shown.join(", ")
    }
}

async fn world() -> World {
    let mut world = World::new().await;
    check_in(
        &mut world,
        "create a -> NONE
         create b -> NONE
         produce a/0 x -> base=0
         produce b/0 y -> base=0",
    )
    .await;
    world
}

/// After the first fetch a client names what has changed, and is told what has.
#[tokio::test(start_paused = true)]
async fn a_session_tells_what_is_new() {
    let mut world = world().await;
    for version in [7, 12] {
        let mut client = Client { version, ..Client::new() };
        assert_eq!(
            client.fetch(&world, "a/0@1 b/0@1 no/0@0").await,
            "a/0 hw=1, b/0 hw=1, no/0 UNKNOWN_TOPIC_OR_PARTITION"
        );
        assert!(client.session > 0);
        assert_eq!(client.fetch(&world, "").await, "no/0 UNKNOWN_TOPIC_OR_PARTITION", "an error is told each time");
        assert_eq!(client.fetch(&world, "-no/0").await, "");
        assert_eq!(client.fetch(&world, "a/0@0").await, "a/0 hw=1: 0:x", "what it has not read is read again");
        assert_eq!(client.fetch(&world, "").await, "a/0 hw=1: 0:x", "until it says that it has");
        assert_eq!(client.fetch(&world, "a/0@1").await, "");
        assert_eq!(client.fetch(&world, "-a/0 -b/0").await, "");
        assert_eq!(client.session, 0, "a session without partitions ends");
    }
    let mut client = Client::new();
    client.fetch(&world, "a/0@1 b/0@1").await;
    check_in(&mut world, "produce b/0 z -> base=1").await;
    assert_eq!(client.fetch(&world, "").await, "b/0 hw=2: 1:z");
    // A bound is told to who reads at the end already: the high watermark moved.
    assert_eq!(client.fetch(&world, "b/0@2").await, "");
    check_in(&mut world, "trim b/0 2 -> low=2").await;
    assert_eq!(client.fetch(&world, "").await, "b/0 hw=2", "and so does the log start");
    assert_eq!(client.fetch(&world, "").await, "");
}

/// The one that had records comes last the next time, so that none starves behind it.
#[tokio::test(start_paused = true)]
async fn partitions_take_turns() {
    let world = world().await;
    let mut client = Client::new();
    client.fetch(&world, "a/0@1 b/0@1").await;
    assert_eq!(client.fetch(&world, "a/0@0 b/0@1").await, "a/0 hw=1: 0:x");
    assert_eq!(client.fetch(&world, "b/0@0").await, "b/0 hw=1: 0:y, a/0 hw=1: 0:x");
}

/// A request that came twice or never is told, and so is a session that is not there.
#[tokio::test(start_paused = true)]
async fn a_session_out_of_step_is_told() {
    let world = world().await;
    let mut client = Client::new();
    client.fetch(&world, "a/0@1").await;
    let (session, epoch) = (client.session, client.epoch);
    assert_eq!(client.fetch(&world, "").await, "");
    client.epoch = epoch;
    assert_eq!(client.fetch(&world, "").await, "INVALID_FETCH_SESSION_EPOCH", "the same again");
    client.epoch = epoch + 2;
    assert_eq!(client.fetch(&world, "").await, "INVALID_FETCH_SESSION_EPOCH", "one is missing");
    client.epoch = epoch + 1;
    client.version = 13;
    assert_eq!(client.fetch(&world, "").await, "FETCH_SESSION_TOPIC_ID_ERROR", "it named its topics by name");
    client.version = 12;
    assert_eq!(client.fetch(&world, "").await, "", "and is still there");
    for (session, epoch) in [(0, 1), (session ^ 1, 1)] {
        let mut stranger = Client { session, epoch, ..Client::new() };
        assert_eq!(stranger.fetch(&world, "").await, "FETCH_SESSION_ID_NOT_FOUND");
    }
    // A full fetch that names a session ends it, with or without a new one.
    for (epoch, begins) in [(0, true), (-1, false)] {
        let mut client = Client::new();
        client.fetch(&world, "a/0@1").await;
        let mut old = Client { ..client };
        client.epoch = epoch;
        assert_eq!(client.fetch(&world, "a/0@1").await, "a/0 hw=1");
        assert_eq!(client.session > 0 && client.session != old.session, begins);
        assert_eq!(old.fetch(&world, "").await, "FETCH_SESSION_ID_NOT_FOUND");
    }
}

/// Topics by id have sessions of their own kind; a topic made anew under its name is another.
#[tokio::test(start_paused = true)]
async fn topics_by_id() {
    let mut world = world().await;
    let mut client = Client { version: 13, ..Client::new() };
    assert_eq!(client.fetch(&world, "a/0@0").await, "?/0 hw=1: 0:x");
    assert_eq!(client.fetch(&world, "a/0@1").await, "");
    check_in(&mut world, "delete a -> NONE").await;
    check_in(&mut world, "create a -> NONE").await;
    assert_eq!(client.fetch(&world, "").await, "?/0 UNKNOWN_TOPIC_ID");
    client.version = 12;
    assert_eq!(client.fetch(&world, "").await, "FETCH_SESSION_TOPIC_ID_ERROR");
}

/// Sessions are few. One that nobody uses makes room, and a larger one for a smaller one that is not new.
#[tokio::test(start_paused = true)]
async fn sessions_are_bounded() {
    let mut world = World::with(&[("max.incremental.fetch.session.cache.slots", "2")]).await;
    check_in(&mut world, "create a -> NONE\ncreate b -> NONE\ncreate c -> NONE").await;
    let env = world.context().env.clone();
    let (mut one, mut two, mut three) = (Client::new(), Client::new(), Client::new());
    one.fetch(&world, "a/0").await;
    two.fetch(&world, "a/0 b/0").await;
    three.fetch(&world, "a/0 b/0 c/0").await;
    assert_eq!((one.session > 0, two.session > 0, three.session), (true, true, 0), "no room");
    assert_eq!(three.fetch(&world, "c/0").await, "c/0 hw=0", "and served all the same");
    for _ in 0..3 {
        env.sleep(Duration::from_mins(1)).await;
        assert_eq!((one.fetch(&world, "").await, two.fetch(&world, "").await), (String::new(), String::new()));
    }
    let mut four = Client::new();
    four.fetch(&world, "a/0 b/0").await;
    assert!(four.session > 0, "it is larger than the first");
    assert_eq!(one.fetch(&world, "").await, "FETCH_SESSION_ID_NOT_FOUND");
    assert_eq!(two.fetch(&world, "").await, "");
    env.sleep(Duration::from_secs(121)).await;
    assert_eq!(four.fetch(&world, "").await, "");
    let mut five = Client::new();
    five.fetch(&world, "a/0").await;
    assert!(five.session > 0, "nobody has used the second for two minutes");
    assert_eq!(two.fetch(&world, "").await, "FETCH_SESSION_ID_NOT_FOUND");
    let counts = world.context().sessions.counts();
    assert_eq!((counts.sessions, counts.partitions, counts.evicted), (2, 3, 2));
}

/// Partitions in sessions are bounded too: sessions that nobody uses make room, and who needs more than there is has none.
#[tokio::test(start_paused = true)]
async fn partitions_in_sessions_are_bounded() {
    let world = world().await;
    let env = world.context().env.clone();
    let many = |client: usize, count: usize| {
        (0..count).map(|index| format!("none-{client}/{index}@0")).collect::<Vec<_>>().join(" ")
    };
    let (mut large, mut second) = (Client::new(), Client::new());
    large.fetch(&world, &many(0, 60_000)).await;
    second.fetch(&world, &many(1, 60_000)).await;
    assert_eq!((large.session > 0, second.session), (true, 0), "no room for both");
    let mut small = Client::new();
    small.fetch(&world, "a/0@1").await;
    assert!(small.session > 0);
    assert_eq!(small.fetch(&world, &many(2, 60_000)).await, "FETCH_SESSION_ID_NOT_FOUND", "nor for one that grows");
    env.sleep(Duration::from_secs(121)).await;
    second.fetch(&world, &many(1, 60_000)).await;
    assert!(second.session > 0, "nobody has used the first for two minutes");
    assert_eq!(large.fetch(&world, "").await, "FETCH_SESSION_ID_NOT_FOUND");
    let mut largest = Client::new();
    largest.fetch(&world, &many(3, 100_001)).await;
    assert_eq!(largest.session, 0);
    assert_eq!(world.context().sessions.counts().partitions, 60_000);
}

/// What no topic can be called is answered, and not kept.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_is_not_kept() {
    let world = world().await;
    let mut client = Client::new();
    let name = "x".repeat(250);
    client.version = 12;
    let told = client.fetch(&world, "a/0@1").await;
    assert_eq!((told.as_str(), client.session > 0), ("a/0 hw=1", true));
    let request =
        FetchRequest::default().with_session_id(client.session).with_session_epoch(client.epoch).with_topics(vec![
            FetchTopic::default()
                .with_topic(StrBytes::from_string(name.clone()).into())
                .with_partitions(vec![FetchPartition::default()]),
        ]);
    let response = world.call(12, &request).await.expect("answered");
    assert_eq!(code(response.error_code), "FETCH_SESSION_ID_NOT_FOUND");
    let request = request.with_session_id(0).with_session_epoch(0);
    let response = world.call(12, &request).await.expect("answered");
    assert_eq!((response.session_id, response.responses.len()), (0, 1));
    assert_eq!(world.context().sessions.counts().sessions, 0);
}

/// A partition that is named twice is read once, as it is named last.
#[tokio::test(start_paused = true)]
async fn a_partition_named_twice_is_read_once() {
    let world = world().await;
    let mut client = Client { epoch: -1, ..Client::new() };
    assert_eq!(client.fetch(&world, "a/0@0 b/0@1 a/0@1").await, "a/0 hw=1, b/0 hw=1");
}
