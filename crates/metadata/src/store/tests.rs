//! The host on a store in memory: what is durable is there again, one writer writes, and nothing is shown too early.

mod storm;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_env::Env;
use forebay_env::Parts;
use forebay_env::simulated::{SimClock, SimDisk, Trace, parts};
use forebay_format::JournalEntry;
use forebay_store::memory::MemoryStore;
use forebay_store::{Bucket, Faulty, Key as StoreKey, Prefix, Purpose, Store, StoreErrorKind, slate};
use forebay_types::{Timestamp, TopicPartition};

use super::{COMMAND_TIME_MAX, Host, OPEN_TIME_MAX, OpenError, UNFOLDED_UPLOADS_MAX};
use crate::command::{AdvanceReason, Command, Reply};
use crate::invariants;
use crate::journal::{self, ROWS_PER_PART};
use crate::reader::Reader;
use crate::service::{ErrorKind, LocalMetadata, Metadata, Standing, SubmitError};
use crate::state::{BrokerLife, ConfigScope, Extent, Holds, Key, Row, WalKind};
use crate::testing::{
    World, at, broker, cluster, create_topic, data_object, leader_epoch, life, name, partition, topic,
};

/// One machine and one bucket; hosts come and go.
struct Rig {
    env: Env,
    faulty: Arc<Faulty>,
    store: Arc<dyn Store>,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let env = Env::new(parts(seed, &SimDisk::new(seed, Trace::default())));
        let faulty = Arc::new(Faulty::new(&env, Arc::new(MemoryStore::new(&env))));
        let provider: Arc<dyn Store> = Arc::clone(&faulty) as Arc<dyn Store>;
        let store = Bucket::over(&env, provider).store(Purpose::Metadata);
        Self { env, faulty, store }
    }

    /// A bucket that holds these objects already.
    async fn with_objects(seed: u64, objects: BTreeMap<StoreKey, Bytes>) -> Self {
        let rig = Self::new(seed);
        for (key, bytes) in objects {
            rig.store.put(&key, bytes.into()).await.expect("a bucket in memory");
        }
        rig
    }

    async fn objects(&self) -> BTreeMap<StoreKey, Bytes> {
        let mut objects = BTreeMap::new();
        for object in self.store.list(&Prefix::all(), None, usize::MAX).await.expect("the bucket can be listed") {
            let bytes = self.store.get(&object.key).await.expect("a listed object can be read");
            objects.insert(object.key, bytes);
        }
        objects
    }

    async fn open(&self) -> Host {
        Host::open(&self.env, Arc::clone(&self.store), Some(cluster())).await.expect("the metadata opens")
    }

    /// Every row, as a tool would read them.
    async fn rows(&self) -> BTreeMap<Key, Row> {
        let reader = Reader::open(&self.env, Arc::clone(&self.store)).await.expect("there is metadata to read");
        let mut rows = BTreeMap::new();
        let mut after = None;
        loop {
            let page = reader.rows(after.as_ref(), 700).await.expect("the rows can be read");
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            rows.extend(page);
        }
        reader.close().await;
        rows
    }

    /// The journal's entries from a number on, in order.
    async fn journal_from(&self, first: u64) -> Vec<Bytes> {
        let mut entries = Vec::new();
        for number in first.. {
            match self.store.get(&journal::entry_key(number)).await {
                Ok(entry) => entries.push(entry),
                Err(error) if error.kind() == StoreErrorKind::NotFound => break,
                Err(error) => panic!("{error}"),
            }
        }
        entries
    }

    async fn journal(&self) -> Vec<Bytes> {
        let mut entries = Vec::new();
        for object in self.store.list(&Prefix::all(), None, usize::MAX).await.expect("the bucket can be listed") {
            if object.key.as_str().contains("/journal/") {
                entries.push(self.store.get(&object.key).await.expect("a listed object can be read"));
            }
        }
        entries
    }
}

async fn done(metadata: &LocalMetadata, command: Command) -> Reply {
    let shown = format!("{command:?}");
    metadata.submit(command).await.unwrap_or_else(|error| panic!("{shown}: {error}"))
}

async fn register(metadata: &LocalMetadata, incarnation: u128) -> BrokerLife {
    let command = Command::RegisterBroker { broker: broker(1), incarnation, wal: WalKind::Memory };
    BrokerLife { broker: broker(1), epoch: done(metadata, command).await.into_registered().epoch }
}

/// A topic of two partitions, opened, with `uploads` uploads of ten records each.
async fn history(metadata: &LocalMetadata, uploads: u64) -> [TopicPartition; 2] {
    let me = register(metadata, 1).await;
    done(metadata, create_topic(topic(1), "a", 2)).await;
    let ids = [partition(topic(1), 0), partition(topic(1), 1)];
    done(metadata, Command::OpenPartitions { life: me, partitions: ids.to_vec() }).await;
    upload(metadata, me, 0..uploads, ids).await;
    ids
}

async fn upload(metadata: &LocalMetadata, me: BrokerLife, numbers: std::ops::Range<u64>, ids: [TopicPartition; 2]) {
    let mut world = World::new();
    world.register(1, 1);
    world.done(create_topic(topic(1), "a", 2));
    world.open(life(1, 1), &ids);
    for number in 0..numbers.end {
        let ranges = ids.map(|id| world.next_range(id, 10)).to_vec();
        let upload = World::upload(me, number, ranges);
        // A world of its own knows where the next range begins; what was committed before answers `Already`.
        world.done(Command::CommitUpload(upload.clone()));
        if number >= numbers.start {
            done(metadata, Command::CommitUpload(upload)).await;
        }
    }
}

fn ends(extents: &[Extent]) -> Vec<i64> {
    extents.iter().map(|extent| extent.range.end().get()).collect()
}

async fn extents(metadata: &LocalMetadata, id: TopicPartition, from: i64, limit: usize) -> Vec<i64> {
    let topic = metadata.topics().by_id(id.topic).expect("a known topic");
    let log = topic.partition(id.partition).expect("a known partition").log;
    ends(&metadata.extents(log, at(from), limit).await.expect("the database answers"))
}

/// What was answered is there after a restart, whether the host was stopped or just dropped.
#[tokio::test(start_paused = true)]
async fn a_restart_gives_the_same_state() {
    let rig = Rig::new(1);
    let host = rig.open().await;
    let metadata = host.metadata();
    let [first, _] = history(&metadata, 5).await;
    done(&metadata, Command::IndexUploads).await;
    upload(&metadata, life(1, 1), 5..8, [first, partition(topic(1), 1)]).await;
    let before = rig.rows().await;
    assert_eq!(invariants::check(&before), []);
    drop((host, metadata));

    let host = rig.open().await;
    let metadata = host.metadata();
    assert_eq!(extents(&metadata, first, 0, 100).await, [10, 20, 30, 40, 50, 60, 70, 80]);
    let log = metadata.topics().by_name(&name("a")).expect("the topic is there").partitions[0].log;
    assert_eq!((metadata.log_size(log).committed_end, metadata.log_size(log).bytes), (at(80), 8_000));
    let mut after = rig.rows().await;
    // The new term, and nothing else, is new.
    let mut expected = before;
    for key in [Key::Commit, Key::Cluster, Key::Journal] {
        assert_ne!(expected.remove(&key), after.remove(&key), "{key:?}");
    }
    assert_eq!(after, expected);
    drop(metadata);
    host.stop().await;
    assert_eq!(rig.rows().await.len(), expected.len() + 3, "a host that was stopped leaves the same rows");
}

/// Extents come from rows and from uploads in memory as one list, from any offset, under any limit.
/// A machine whose wall clock was set back by an hour opens all the same, and goes on.
#[tokio::test(start_paused = true)]
async fn a_clock_set_back_locks_nobody_out() {
    let mut rig = Rig::new(9);
    let host = rig.open().await;
    let me = register(&host.metadata(), 1).await;
    assert_eq!(me.epoch.get(), 1);
    // Written to the database proper, where its last time is kept.
    host.stop().await;
    let clock = SimClock::default();
    clock.jump(-3_600_000);
    rig.env = Env::new(Parts { clock: Box::new(clock), ..parts(10, &SimDisk::new(10, Trace::default())) });
    let host = rig.open().await;
    assert_eq!(register(&host.metadata(), 2).await.epoch.get(), 2, "the second life of the same broker");
    host.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_joins_folded_and_unfolded_extents() {
    let rig = Rig::new(2);
    let host = rig.open().await;
    let metadata = host.metadata();
    let ids = history(&metadata, 3).await;
    done(&metadata, Command::IndexUploads).await;
    upload(&metadata, life(1, 1), 3..6, ids).await;
    for id in ids {
        assert_eq!(extents(&metadata, id, 0, 100).await, [10, 20, 30, 40, 50, 60]);
        assert_eq!(extents(&metadata, id, 15, 2).await, [20, 30]);
        assert_eq!(extents(&metadata, id, 29, 3).await, [30, 40, 50]);
        assert_eq!(extents(&metadata, id, 30, 100).await, [40, 50, 60]);
        assert_eq!(extents(&metadata, id, 60, 100).await, [] as [i64; 0]);
    }
    assert_eq!(metadata.standing(&data_object(life(1, 1), 0)).await.expect("answers"), Standing::Reached);
    assert_eq!(metadata.standing(&data_object(life(1, 1), 5)).await.expect("answers"), Standing::Reached);
    assert_eq!(metadata.standing(&data_object(life(1, 1), 9)).await.expect("answers"), Standing::Unknown);
    host.stop().await;
}

/// More uploads than may stay in memory are folded by the host itself.
#[tokio::test(start_paused = true)]
async fn uploads_in_memory_are_bounded() {
    let rig = Rig::new(3);
    let host = rig.open().await;
    let metadata = host.metadata();
    let many = UNFOLDED_UPLOADS_MAX as u64 + 10;
    let [id, _] = history(&metadata, many).await;
    let rows = rig.rows().await;
    let uploads = rows.keys().filter(|key| matches!(key, Key::Upload(_))).count();
    assert!(uploads <= UNFOLDED_UPLOADS_MAX, "{uploads} uploads are not folded");
    let all: Vec<i64> = (1..=many).map(|n| i64::try_from(n * 10).expect("small")).collect();
    assert_eq!(extents(&metadata, id, 0, usize::MAX).await, all);
    assert_eq!(invariants::check(&rows), []);
    host.stop().await;
}

/// A second writer fences the first, whose commands fail with a reason and change nothing.
#[tokio::test(start_paused = true)]
async fn a_second_writer_fences_the_first() {
    let rig = Rig::new(4);
    let first = rig.open().await;
    done(&first.metadata(), create_topic(topic(1), "a", 1)).await;
    let second = rig.open().await;
    let error = first.metadata().submit(create_topic(topic(2), "b", 1)).await.expect_err("the first is fenced");
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
    let reason = first.ended().await;
    assert!(reason.contains("another process") || reason.contains("newer controller"), "{reason}");
    assert!(matches!(first.metadata().submit(create_topic(topic(3), "c", 1)).await, Err(SubmitError::Ended(_))));
    done(&second.metadata(), create_topic(topic(4), "d", 1)).await;
    let live: Vec<String> = second.metadata().topics().list().iter().map(|t| t.name.to_string()).collect();
    assert_eq!(live, ["a", "d"]);
    second.stop().await;
    let folded = journal::fold(rig.journal().await).expect("the journal is whole");
    assert!(!folded.rows.contains_key(&Key::Topic(topic(2))), "the journal does not tell what was never committed");
    assert!(folded.rows.contains_key(&Key::Topic(topic(4))));
}

/// The journal tells every journaled row of the database, after restarts and after full states too.
#[tokio::test(start_paused = true)]
async fn the_journal_tells_what_no_footer_can() {
    let rig = Rig::new(5);
    for round in 0..3_u128 {
        let host = rig.open().await;
        let metadata = host.metadata();
        register(&metadata, round).await;
        for number in 0..300 {
            let id = topic(round * 1_000 + number + 1);
            done(&metadata, create_topic(id, &format!("t-{round}-{number}"), 1)).await;
        }
        done(&metadata, Command::DeleteTopic { topic: topic(round * 1_000 + 1), now: rig.env.now(), trash_ms: 9 })
            .await;
        if round == 1 {
            drop(host);
        } else {
            host.stop().await;
        }
        let rows = rig.rows().await;
        let journaled: BTreeMap<Key, Row> = rows.into_iter().filter(|(key, _)| key.is_journaled()).collect();
        let folded = journal::fold(rig.journal().await).expect("the journal is whole");
        assert_eq!(folded.rows, journaled);
    }
    let entries = rig.journal().await.len();
    assert!(entries as u64 <= 2 * journal::ENTRIES_PER_FULL + 10, "{entries} entries: old ones are deleted");
}

/// A full state of many rows comes in parts, between which lie the entries of commands: no command waits for more than one
/// part. At every point the journal tells the database's rows: between the parts, after a host that died between them, and
/// when what lies before the full state is deleted.
#[tokio::test(start_paused = true)]
async fn no_command_waits_for_a_full_state() {
    const PARTITIONS: i32 = 1_000;
    // Nothing else has as many rows: a new topic has one for each partition, one for itself, one for the counter of logs.
    let is_part = |rows: usize| rows > 1_002;
    let rig = Rig::new(15);
    let mut host = rig.open().await;
    let me = register(&host.metadata(), 1).await;
    // Two parts and a half.
    for number in 1..=ROWS_PER_PART * 5 / 2 / usize::try_from(PARTITIONS).expect("small") {
        let id = topic(u128::try_from(number).expect("small"));
        done(&host.metadata(), create_topic(id, &format!("t-{number}"), PARTITIONS)).await;
    }
    let mut rows: Vec<usize> = Vec::new();
    let (mut parts, mut died) = (0, false);
    while !died || parts < 3 {
        done(&host.metadata(), Command::AllocateProducerIds { life: me }).await;
        let new: Vec<usize> = rig.journal_from(rows.len() as u64).await.iter().map(rows_in).collect();
        let new_parts = new.iter().filter(|rows| is_part(**rows)).count();
        rows.extend(new);
        parts += new_parts;
        if new_parts == 0 {
            continue;
        }
        assert_journal_is_whole(&rig, "behind a part").await;
        if parts >= 2 && !died {
            // The next one begins anew.
            drop(host);
            host = rig.open().await;
            assert_journal_is_whole(&rig, "after a death between the parts").await;
            (parts, died) = (0, true);
        }
    }
    let largest = rows.iter().copied().max();
    assert_eq!(largest, Some(ROWS_PER_PART));
    assert!(
        rows.windows(2).all(|two| !is_part(two[0]) || !is_part(two[1])),
        "a command lies between two parts: {rows:?}"
    );

    for _ in 0..40 {
        done(&host.metadata(), Command::AllocateProducerIds { life: me }).await;
    }
    host.stop().await;
    assert_journal_is_whole(&rig, "after a full state").await;
    let position = rig.rows().await.remove(&Key::Journal);
    let Some(Row::Journal(position)) = position else { panic!("{position:?}") };
    assert!(position.full >= journal::ENTRIES_PER_FULL && position.oldest > 0, "{position:?}");
    assert_eq!(rig.journal_from(0).await.len(), 0, "what lies before it goes, oldest first");
}

/// Changes in an entry.
fn rows_in(entry: &Bytes) -> usize {
    JournalEntry::parse(entry).expect("sound").changes.len() - 1
}

async fn assert_journal_is_whole(rig: &Rig, when: &str) {
    let journaled: BTreeMap<Key, Row> = rig.rows().await.into_iter().filter(|(key, _)| key.is_journaled()).collect();
    let folded = journal::fold(rig.journal().await).expect("the journal is whole");
    assert_eq!(folded.rows.len(), journaled.len(), "{when}");
    assert!(folded.rows == journaled, "{when}: other rows than in the database");
}

/// While the store is out a command is not answered; when it is back, the command is there or can be repeated.
#[tokio::test(start_paused = true)]
async fn an_outage_delays_and_loses_nothing() {
    let rig = Rig::new(6);
    let host = rig.open().await;
    let metadata = host.metadata();
    rig.faulty.set_outage(true);
    let started = rig.env.monotonic();
    let error = metadata.submit(create_topic(topic(1), "a", 1)).await.expect_err("the store is out");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(rig.env.monotonic() - started >= COMMAND_TIME_MAX);
    assert!(metadata.topics().by_name(&name("a")).is_none(), "what is not durable is not shown");
    rig.faulty.set_outage(false);
    let reply = metadata.submit(create_topic(topic(1), "a", 1)).await;
    match reply {
        Ok(_) | Err(SubmitError::Refused(crate::Refusal::TopicExists { .. })) => {}
        other => panic!("{other:?}"),
    }
    assert!(metadata.topics().by_name(&name("a")).is_some());
    host.stop().await;
}

/// A bucket that refuses for a while (keys that were changed, a policy) delays as an outage does: nothing ends, and the
/// command that waited is done once the bucket is well.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_waited_out() {
    let rig = Rig::new(12);
    let host = rig.open().await;
    let metadata = host.metadata();
    rig.faulty.set_refusal(true);
    let create = metadata.submit(create_topic(topic(1), "a", 1));
    let well_again = async {
        rig.env.sleep(COMMAND_TIME_MAX / 2).await;
        rig.faulty.set_refusal(false);
    };
    let (created, ()) = tokio::join!(create, well_again);
    created.expect("the create is answered within its time");

    // Longer than a caller waits: the command is done all the same, and repeating it says so.
    rig.faulty.set_refusal(true);
    let error = metadata.submit(create_topic(topic(2), "b", 1)).await.expect_err("the bucket refuses");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    rig.faulty.set_refusal(false);
    done(&metadata, create_topic(topic(3), "c", 1)).await;
    let listed: Vec<String> = metadata.topics().list().iter().map(|t| t.name.to_string()).collect();
    assert_eq!(listed, ["a", "b", "c"]);
    host.stop().await;
    let journaled: BTreeMap<Key, Row> = rig.rows().await.into_iter().filter(|(key, _)| key.is_journaled()).collect();
    let folded = journal::fold(rig.journal().await).expect("the journal is whole");
    assert_eq!(folded.rows, journaled);
}

/// An object of the database that is not what was written ends the start with an error that names it, at once: it is read
/// again a few times, not for as long as the start may take. What is not needed to open may be damaged unseen.
#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_named_at_the_start() {
    let rig = Rig::new(13);
    for round in 0..2_u128 {
        let host = rig.open().await;
        for number in 1..=3 {
            done(&host.metadata(), create_topic(topic(round * 10 + number), &format!("t-{round}-{number}"), 2)).await;
        }
        // One is stopped, with all in sorted tables; one is dropped, with its WAL to be replayed.
        if round == 0 { host.stop().await } else { drop(host) }
    }
    let objects = rig.objects().await;
    let mut named = BTreeMap::<&str, u32>::new();
    for key in objects.keys().filter(|key| key.as_str().starts_with("metadata/")) {
        for (damage, bytes) in damages(&objects[key]) {
            let mut damaged = objects.clone();
            damaged.insert(key.clone(), bytes);
            let rig = Rig::with_objects(14, damaged).await;
            let started = rig.env.monotonic();
            match Host::open(&rig.env, Arc::clone(&rig.store), Some(cluster())).await {
                Ok(host) => {
                    let listed = host.metadata().topics().list().len();
                    assert_eq!(listed, 6, "{key}, {damage}: whatever opens is whole");
                }
                Err(error) => {
                    assert!(error.to_string().contains(key.as_str()), "{key}, {damage}: {error}");
                    assert!(rig.env.monotonic() - started < OPEN_TIME_MAX / 4, "{key}, {damage}: at once");
                    *named.entry(damage).or_default() += 1;
                }
            }
        }
    }
    let seen: Vec<&str> = named.keys().copied().collect();
    assert_eq!(seen, ["a bit of its bytes", "a bit of its trailer", "cut short"], "each is found: {named:?}");
}

fn damages(whole: &Bytes) -> Vec<(&'static str, Bytes)> {
    let flipped = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x10;
        Bytes::from(bytes)
    };
    let trailer = whole.len() - usize::try_from(slate::TRAILER_SIZE).expect("small");
    let mut all = vec![("cut short", whole.slice(..10)), ("a bit of its trailer", flipped(trailer))];
    all.extend((0..trailer).step_by(trailer / 16 + 1).map(|at| ("a bit of its bytes", flipped(at))));
    all
}

/// A command is durable when it is answered: whatever is dropped right after, the next host knows it.
#[tokio::test(start_paused = true)]
async fn an_answer_is_durable() {
    let rig = Rig::new(7);
    let mut expected = Vec::new();
    for number in 0..10_u128 {
        let host = rig.open().await;
        let topic_name = format!("t-{number}");
        done(&host.metadata(), create_topic(topic(number + 1), &topic_name, 1)).await;
        drop(host);
        expected.push(topic_name);
    }
    let host = rig.open().await;
    let listed: Vec<String> = host.metadata().topics().list().iter().map(|t| t.name.to_string()).collect();
    assert_eq!(listed, expected);
    host.stop().await;
}

/// Views follow commits: topics, configurations, pins, and the number that watchers wait for.
#[tokio::test(start_paused = true)]
async fn views_follow_the_commits() {
    let rig = Rig::new(8);
    let host = rig.open().await;
    let metadata = host.metadata();
    let mut changes = metadata.changes();
    let before = *changes.borrow_and_update();
    let [id, _] = history(&metadata, 1).await;
    assert!(changes.has_changed().expect("the writer lives") && *changes.borrow_and_update() > before);

    let row = metadata.topics().by_name(&name("a")).expect("created");
    assert_eq!(row.partitions[0].leader_epoch(), Some(leader_epoch(0)));
    assert_eq!(row.partitions[0].owner, Some(life(1, 1)));
    let advance = Command::AdvanceLogStart {
        life: life(1, 1),
        partition: id,
        leader_epoch: leader_epoch(0),
        to: at(4),
        reason: AdvanceReason::Request,
        now: Timestamp::from_millis(0),
    };
    done(&metadata, advance).await;
    assert_eq!(row.partitions[0].log_start, at(0), "a row that was handed out stays as it was");
    assert_eq!(metadata.topics().by_id(topic(1)).expect("there").partitions[0].log_start, at(4));

    let now = rig.env.now();
    let pin = Command::CreatePin {
        kind: crate::state::PinKind::Reader,
        holds: Holds::Bytes,
        owner: "somebody".to_owned(),
        reason: "a test".to_owned(),
        scope: BTreeMap::from([(id, at(5))]),
        renewal_ms: 1_000,
        now,
    };
    let pin = done(&metadata, pin).await.into_pinned();
    assert_eq!(metadata.pins().iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), [pin]);
    done(&metadata, Command::ReleasePin { pin }).await;
    assert!(metadata.pins().is_empty());

    let set = crate::command::ConfigChange::Replace(BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    done(&metadata, Command::AlterBrokerConfig { scope: ConfigScope::Cluster, change: set }).await;
    assert_eq!(metadata.broker_config(ConfigScope::Cluster).get("k").map(String::as_str), Some("v"));

    done(&metadata, Command::DeleteTopic { topic: topic(1), now, trash_ms: 10 }).await;
    assert!(metadata.topics().by_name(&name("a")).is_none() && metadata.topics().trash().len() == 1);
    host.stop().await;
}

/// Garbage is listed in pages, condemned, forgotten.
#[tokio::test(start_paused = true)]
async fn garbage_is_found_and_forgotten() {
    let rig = Rig::new(9);
    let host = rig.open().await;
    let metadata = host.metadata();
    let ids = history(&metadata, 4).await;
    done(&metadata, Command::IndexUploads).await;
    let now = rig.env.now();
    done(&metadata, Command::DeleteTopic { topic: topic(1), now, trash_ms: 0 }).await;
    done(&metadata, Command::PurgeTopic { topic: topic(1), now }).await;
    for partition in ids {
        done(&metadata, Command::DropExtents { partition, now }).await;
    }
    let first = metadata.garbage(None, 3).await.expect("answers");
    assert_eq!(first.len(), 3);
    let rest = metadata.garbage(first.last().map(|(object, _)| object.as_str()), 3).await.expect("answers");
    assert_eq!(rest.len(), 1);
    for (object, garbage) in first.into_iter().chain(rest) {
        assert_eq!(garbage.condemned_at, None);
        done(&metadata, Command::CondemnObject { object: object.clone(), size: garbage.size, now }).await;
        let standing = metadata.standing(&object).await.expect("answers");
        assert!(matches!(standing, Standing::Garbage(g) if g.condemned_at == Some(now)), "{standing:?}");
        done(&metadata, Command::ForgetObject { object }).await;
    }
    assert!(metadata.garbage(None, 3).await.expect("answers").is_empty());
    host.stop().await;
    let left: Vec<Key> = rig.rows().await.into_keys().filter(Key::is_cold).collect();
    assert_eq!(left, []);
}

/// Metadata of another cluster is not taken over.
#[tokio::test(start_paused = true)]
async fn another_cluster_is_refused() {
    let rig = Rig::new(10);
    rig.open().await.stop().await;
    let other = forebay_types::ClusterId::from_random([9; 16]);
    let error = Host::open(&rig.env, Arc::clone(&rig.store), Some(other)).await.err().expect("not this cluster");
    assert!(matches!(error, OpenError::Refused(_)), "{error}");
    let host = Host::open(&rig.env, Arc::clone(&rig.store), None).await.expect("its own id is known");
    assert_eq!(host.metadata().cluster(), &cluster());
    host.stop().await;
}

/// There is nothing to read before a first host.
#[tokio::test(start_paused = true)]
async fn a_reader_of_nothing_says_so() {
    let rig = Rig::new(11);
    assert!(matches!(Reader::open(&rig.env, Arc::clone(&rig.store)).await.err(), Some(OpenError::Database(_))));
}

/// The same on real threads, with a folder for a bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_a_bucket() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let url = format!("file://{}", folder.path().display()).parse().expect("a folder's URL");
    let env = forebay_env::real::env();
    let mut names = Vec::new();
    for round in 0..3_u128 {
        let bucket = Bucket::open(&env, &url).await.expect("the folder is there");
        let host = Host::open(&env, bucket.store(Purpose::Metadata), None).await.expect("the metadata opens");
        let metadata = host.metadata();
        for number in 0..20 {
            let topic_name = format!("t-{round}-{number:02}");
            done(&metadata, create_topic(topic(round * 100 + number + 1), &topic_name, 3)).await;
            names.push(topic_name);
        }
        let listed: Vec<String> = metadata.topics().list().iter().map(|t| t.name.to_string()).collect();
        assert_eq!(listed, names);
        host.stop().await;
    }
}
