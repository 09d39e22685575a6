//! Fetch.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use forebay_wire::kafka::messages::FetchRequest;
use forebay_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use forebay_wire::kafka::messages::fetch_response::{FetchResponse, PartitionData};
use forebay_wire::kafka::protocol::StrBytes;

use crate::script::{Step, check, check_in, code, records};
use crate::world::World;

pub async fn fetch(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(12);
    let response = world.call(version, &request(world, step, version)).await?;
    if response.error_code != 0 {
        return Ok(code(response.error_code).to_owned());
    }
    assert_eq!(response.session_id, 0, "none is asked for");
    Ok(partition(&response.responses[0].partitions[0]))
}

fn partition(partition: &PartitionData) -> String {
    if partition.error_code != 0 {
        assert!(partition.high_watermark == -1, "no offset is told with an error");
        return code(partition.error_code).to_owned();
    }
    let (hw, lso, start) = (partition.high_watermark, partition.last_stable_offset, partition.log_start_offset);
    let mut shown = format!("hw={hw} lso={lso} start={start}");
    if partition.diverging_epoch.end_offset >= 0 {
        let diverging = &partition.diverging_epoch;
        write!(shown, " diverging={}@{}", diverging.epoch, diverging.end_offset).expect("a string takes all");
    }
    if let Some(aborted) = &partition.aborted_transactions {
        let aborted: Vec<_> = aborted.iter().map(|txn| format!("{}@{}", txn.producer_id.0, txn.first_offset)).collect();
        write!(shown, " aborted=[{}]", aborted.join(",")).expect("a string takes all");
    }
    let records = records(partition.records.as_ref().unwrap_or(&Bytes::new()));
    if records.is_empty() { shown } else { format!("{shown}: {records}") }
}

fn request(world: &World, step: &Step<'_>, version: i16) -> FetchRequest {
    let (topic, index) = step.partition();
    let partition = FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(step.word(2).parse().expect("an offset"))
        .with_partition_max_bytes(step.number("max", 1 << 20))
        .with_current_leader_epoch(step.number("epoch", -1))
        .with_last_fetched_epoch(step.number("last", -1));
    let mut wanted = FetchTopic::default().with_partitions(vec![partition]);
    if version < 13 {
        wanted.topic = StrBytes::from_string(topic.to_owned()).into();
    } else {
        let name = forebay_types::TopicName::new(topic).expect("a topic's name");
        let row = world.context().metadata.topics().by_name(&name);
        wanted.topic_id = row.map_or(uuid::Uuid::from_u128(9), |row| row.id.get());
    }
    FetchRequest::default()
        .with_max_wait_ms(step.number("wait", 0))
        .with_min_bytes(step.number("min", 1))
        .with_max_bytes(step.number("all", 1 << 20))
        .with_isolation_level(i8::from(step.has("committed")))
        .with_topics(vec![wanted])
}

/// Records come from any offset up to the end, whole batches at a time; outside of the log is out of range (18, 24).
#[tokio::test(start_paused = true)]
async fn records_come_back() {
    check(
        "create a -> NONE
         fetch a/0 0 -> hw=0 lso=0 start=0
         produce a/0 x,y -> base=0
         produce a/0 z -> base=2
         fetch a/0 0 v=4 -> hw=3 lso=3 start=-1: 0:x 1:y 2:z
         fetch a/0 1 -> hw=3 lso=3 start=0: 0:x 1:y 2:z
         fetch a/0 2 v=17 -> hw=3 lso=3 start=0: 2:z
         fetch a/0 3 -> hw=3 lso=3 start=0
         fetch a/0 4 -> OFFSET_OUT_OF_RANGE
         fetch a/0 -1 -> OFFSET_OUT_OF_RANGE
         # at least one batch comes, however little was asked for
         fetch a/0 0 max=1 -> hw=3 lso=3 start=0: 0:x 1:y
         fetch a/0 0 all=1 -> hw=3 lso=3 start=0: 0:x 1:y
         trim a/0 1 -> low=1
         fetch a/0 0 -> OFFSET_OUT_OF_RANGE
         fetch a/0 1 -> hw=3 lso=3 start=1: 0:x 1:y 2:z
         # from the bucket, too
         restart -> started
         fetch a/0 1 -> hw=3 lso=3 start=1: 0:x 1:y 2:z
         fetch a/1 0 -> UNKNOWN_TOPIC_OR_PARTITION
         fetch nowhere/0 0 -> UNKNOWN_TOPIC_OR_PARTITION
         fetch nowhere/0 0 v=13 -> UNKNOWN_TOPIC_ID
         fetch a/0 1 v=18 -> closed: Fetch is served in versions 4 to 17, not in 18",
    )
    .await;
}

/// Each OFFSET_OUT_OF_RANGE is counted, by who answers it and on which side of the log the offset lies.
#[tokio::test(start_paused = true)]
async fn offsets_out_of_range_are_counted() {
    check(
        "create a -> NONE
         produce a/0 x,y -> base=0
         fetch a/0 2 -> hw=2 lso=2 start=0
         trim a/0 2 -> low=2
         out-of-range -> none
         fetch a/0 1 -> OFFSET_OUT_OF_RANGE
         fetch a/0 -7 -> OFFSET_OUT_OF_RANGE
         fetch a/0 3 v=13 wait=500 -> OFFSET_OUT_OF_RANGE
         trim a/0 3 -> OFFSET_OUT_OF_RANGE
         trim a/0 -2 -> OFFSET_OUT_OF_RANGE
         out-of-range -> Fetch below-log-start=2, Fetch above-log-end=1, DeleteRecords below-log-start=1, \
         DeleteRecords above-log-end=1",
    )
    .await;
}

/// A block that is damaged in the bucket takes its own offsets away and nothing else: what lies before and behind it is
/// served, and so are its neighbours in the same object. Each record here has a block of its own.
#[tokio::test(start_paused = true)]
async fn a_damaged_block_takes_its_own_offsets_only() {
    check(
        "create a partitions=2 -> NONE
         produce a/0 x size=200000 -> base=0
         produce a/0 y size=200000 -> base=1
         produce a/0 z size=200000 -> base=2
         produce a/1 other -> base=0
         restart -> started
         damage a/0 1 -> damaged
         # a fetch that reaches it ends before it
         fetch a/0 0 -> hw=3 lso=3 start=0: 0:x…
         fetch a/0 1 -> CORRUPT_MESSAGE
         fetch a/0 1 v=4 committed -> CORRUPT_MESSAGE
         fetch a/0 2 -> hw=3 lso=3 start=0: 2:z…
         fetch a/1 0 -> hw=1 lso=1 start=0: 0:other
         produce a/0 more -> base=3
         fetch a/0 3 -> hw=4 lso=4 start=0: 3:more
         restart -> started
         fetch a/0 1 -> CORRUPT_MESSAGE
         fetch a/0 2 -> hw=4 lso=4 start=0: 2:z… 3:more",
    )
    .await;
}

/// A client that cannot read zstd is told so (22).
#[tokio::test(start_paused = true)]
async fn zstd_is_not_sent_to_those_who_cannot_read_it() {
    check(
        "create a -> NONE
         produce a/0 x codec=zstd -> base=0
         fetch a/0 0 v=9 -> UNSUPPORTED_COMPRESSION_TYPE
         fetch a/0 0 v=10 -> hw=1 lso=1 start=0: 0:x",
    )
    .await;
}

/// `read_committed` ends at the first open transaction and names the aborted ones that overlap what it returns, from
/// memory and from the bucket alike; others get no list at all (10, 11, 12).
#[tokio::test(start_paused = true)]
async fn transactions_are_hidden_until_they_end() {
    check(
        "create a -> NONE
         produce a/0 plain -> base=0
         init t0 -> id=0 epoch=0
         init t1 -> id=1 epoch=0
         init t2 -> id=2 epoch=0
         enlist t0 a/0 id=0 -> NONE
         enlist t1 a/0 id=1 -> NONE
         enlist t2 a/0 id=2 -> NONE
         produce a/0 t0 id=0 seq=0 txn=t0 -> base=1
         produce a/0 t1 id=1 seq=0 txn=t1 -> base=2
         fetch a/0 0 -> hw=3 lso=1 start=0: 0:plain 1:t0 2:t1
         fetch a/0 0 committed -> hw=3 lso=1 start=0 aborted=[]: 0:plain
         fetch a/0 1 committed -> hw=3 lso=1 start=0 aborted=[]
         fetch a/0 2 committed -> hw=3 lso=1 start=0 aborted=[]
         marker a/0 abort id=0 -> base=3
         fetch a/0 0 committed -> hw=4 lso=2 start=0 aborted=[0@1]: 0:plain 1:t0
         marker a/0 commit id=1 -> base=4
         fetch a/0 0 committed -> hw=5 lso=5 start=0 aborted=[0@1]: 0:plain 1:t0 2:t1 3:ABORT 4:COMMIT
         fetch a/0 2 committed -> hw=5 lso=5 start=0 aborted=[0@1]: 2:t1 3:ABORT 4:COMMIT
         fetch a/0 4 committed -> hw=5 lso=5 start=0 aborted=[]: 4:COMMIT
         fetch a/0 0 -> hw=5 lso=5 start=0: 0:plain 1:t0 2:t1 3:ABORT 4:COMMIT
         produce a/0 t2 id=2 seq=0 txn=t2 -> base=5
         restart -> started
         fetch a/0 0 committed -> hw=6 lso=5 start=0 aborted=[0@1]: 0:plain 1:t0 2:t1 3:ABORT 4:COMMIT
         fetch a/0 4 committed -> hw=6 lso=5 start=0 aborted=[]: 4:COMMIT
         marker a/0 abort id=2 -> base=6
         # the bucket's part first, memory's with the next fetch
         fetch a/0 5 committed -> hw=7 lso=7 start=0 aborted=[2@5]: 5:t2
         fetch a/0 6 committed -> hw=7 lso=7 start=0 aborted=[2@5]: 6:ABORT",
    )
    .await;
}

/// The client's leader epoch is compared, and one that ends before its position is told where (19).
#[tokio::test(start_paused = true)]
async fn leader_epochs_are_compared() {
    check(
        "create a -> NONE
         produce a/0 x,y -> base=0
         fetch a/0 0 epoch=0 -> hw=2 lso=2 start=0: 0:x 1:y
         restart -> started
         produce a/0 z -> base=2
         fetch a/0 2 epoch=0 -> FENCED_LEADER_EPOCH
         fetch a/0 2 epoch=2 -> UNKNOWN_LEADER_EPOCH
         fetch a/0 2 epoch=1 last=0 -> hw=3 lso=3 start=0: 2:z
         fetch a/0 3 epoch=1 last=0 -> hw=3 lso=3 start=0 diverging=0@2
         fetch a/0 2 epoch=1 last=5 -> UNKNOWN_LEADER_EPOCH",
    )
    .await;
}

/// A fetch that waits wakes when a record is published, not when its time is over: while it waited, no time passed at
/// all on a clock that only moves when everybody sleeps (38b).
#[tokio::test(start_paused = true)]
async fn a_fetch_wakes_on_append() {
    let mut world = World::new().await;
    check_in(&mut world, "create a -> NONE").await;
    let step = Step { words: vec!["fetch", "a/0", "0"], options: [("wait", "60000")].into() };
    let fetched = async {
        let begun = world.context().env.monotonic();
        let shown = fetch(&world, &step).await;
        (shown, world.context().env.monotonic() - begun)
    };
    let append = Step { words: vec!["produce", "a/0", "x"], options: [].into() };
    let produced = async {
        tokio::task::yield_now().await;
        crate::produce::produce(&world, &append).await
    };
    let ((shown, waited), produced) = futures::future::join(fetched, produced).await;
    assert_eq!(produced.as_deref(), Ok("base=0"));
    assert_eq!(shown.as_deref(), Ok("hw=1 lso=1 start=0: 0:x"));
    assert_eq!(waited, Duration::ZERO);
}

/// With too little to tell, a fetch waits its time and answers what there is; one that asks for nothing, for an
/// error, or during shutdown answers at once (24).
#[tokio::test(start_paused = true)]
async fn a_fetch_waits_no_longer_than_it_is_told() {
    let mut world = World::new().await;
    check_in(
        &mut world,
        "create a -> NONE
         produce a/0 x -> base=0",
    )
    .await;
    let timed = |options: &'static [(&'static str, &'static str)], from: &'static str, partition: &'static str| {
        let step = Step { words: vec!["fetch", partition, from], options: options.iter().copied().collect() };
        let world = &world;
        async move {
            let begun = world.context().env.monotonic();
            let shown = fetch(world, &step).await.expect("an answer");
            (shown, (world.context().env.monotonic() - begun).as_millis())
        }
    };
    let nothing = "hw=1 lso=1 start=0".to_owned();
    assert_eq!(timed(&[("wait", "500")], "1", "a/0").await, (nothing.clone(), 500));
    let something = format!("{nothing}: 0:x");
    assert_eq!(timed(&[("wait", "500"), ("min", "100000")], "0", "a/0").await, (something, 500));
    assert_eq!(timed(&[("wait", "500"), ("min", "0")], "1", "a/0").await, (nothing.clone(), 0));
    assert_eq!(timed(&[("wait", "-1")], "1", "a/0").await, (nothing.clone(), 0));
    assert_eq!(timed(&[("wait", "500")], "9", "a/0").await, ("OFFSET_OUT_OF_RANGE".to_owned(), 0));
    assert_eq!(timed(&[("wait", "500")], "0", "a/9").await, ("UNKNOWN_TOPIC_OR_PARTITION".to_owned(), 0));
    let empty = FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_max_bytes(1 << 20);
    let begun = world.context().env.monotonic();
    let response: FetchResponse = world.call(12, &empty).await.expect("an answer");
    assert!(response.responses.is_empty() && world.context().env.monotonic() == begun, "nothing asked, nothing waited");
    world.shutdown().trigger();
    assert_eq!(timed(&[("wait", "500")], "1", "a/0").await, (nothing, 0));
}

/// All partitions share the answer's limit in the order of the request: the first that has anything gives a batch, what
/// does not fit comes the next time.
#[tokio::test(start_paused = true)]
async fn partitions_share_the_limit_in_order() {
    let mut world = World::new().await;
    check_in(
        &mut world,
        "create a partitions=3 -> NONE
         produce a/1 x -> base=0
         produce a/2 y -> base=0",
    )
    .await;
    let step = Step { words: vec!["fetch", "a/0", "0"], options: [("all", "1")].into() };
    let mut request = request(&world, &step, 12);
    let first = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..3).map(|index| first.clone().with_partition(index)).collect();
    let shown =
        |response: FetchResponse| -> Vec<String> { response.responses[0].partitions.iter().map(partition).collect() };
    let small = shown(world.call(12, &request).await.expect("an answer"));
    assert_eq!(small, ["hw=0 lso=0 start=0", "hw=1 lso=1 start=0: 0:x", "hw=1 lso=1 start=0"]);
    request.max_bytes = 1 << 20;
    let large = shown(world.call(12, &request).await.expect("an answer"));
    assert_eq!(large, ["hw=0 lso=0 start=0", "hw=1 lso=1 start=0: 0:x", "hw=1 lso=1 start=0: 0:y"]);
}

/// Where others hold the memory for answers, a fetch has one batch and waits for no more than that; where it waits for
/// records, it holds nothing.
#[tokio::test(start_paused = true)]
async fn little_memory_makes_small_answers() {
    let mut world = World::new().await;
    check_in(
        &mut world,
        "create a -> NONE
         produce a/0 x -> base=0
         produce a/0 y -> base=1",
    )
    .await;
    let answers = &world.context().memory.answers;
    let all = answers.take(usize::MAX).await;
    let begun = world.context().env.monotonic();
    let timed = |from: &'static str, min: &'static str| {
        let step = Step { words: vec!["fetch", "a/0", from], options: [("wait", "500"), ("min", min)].into() };
        let world = &world;
        async move {
            let shown = fetch(world, &step).await.expect("an answer");
            (shown, (world.context().env.monotonic() - begun).as_millis())
        }
    };
    assert_eq!(timed("0", "100000").await, ("hw=2 lso=2 start=0: 0:x".to_owned(), 0), "not all, and at once");
    let waited = async {
        world.context().env.sleep(Duration::from_millis(100)).await;
        answers.held()
    };
    drop(all);
    let (poll, held) = futures::future::join(timed("1", "100000"), waited).await;
    assert_eq!((poll, held), (("hw=2 lso=2 start=0: 1:y".to_owned(), 500), 0));
    assert_eq!(answers.held(), 0);
}
