//! Opening, snapshots, and the end of a broker epoch.

use forebay_coordinator::host::{CoordinatorError, CoordinatorKind};
use forebay_coordinator::machine::txn;
use forebay_format::CoordinatorSnapshot;
use forebay_metadata::{BrokerLife, Command, Reply};
use forebay_store::{Key, ObjectMeta, Prefix};
use forebay_types::{Offset, PartitionIndex, TopicPartition, WalSequence};
use forebay_wal::{SealedContents, Sealer};

use crate::world::{World, producer_id, topic_name};

/// Snapshots are made as the log grows, and the log does not grow for ever: its start follows one snapshot behind.
#[tokio::test(start_paused = true)]
async fn the_log_start_follows_the_snapshots() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let partition = life.own_partition_of("readers").await;
    for round in 0..5 {
        life.commit_many("readers", "orders", (0..10_000).map(|index| (index, round))).await.expect("committed");
        // What is written in the background is done by then.
        life.env.sleep(std::time::Duration::from_secs(1)).await;
    }
    let offsets = partition.offsets().expect("open");
    assert_eq!(offsets.high_watermark.get(), 50_001);
    assert_eq!(offsets.log_start.get(), 40_001, "where the snapshot before the newest was taken");
    world.crash(life).await;
    let life = world.start().await;
    assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(4)));
}

/// A snapshot that cannot be read leaves its partition closed, with an answer that clients repeat; it opens once it can be.
#[tokio::test(start_paused = true)]
async fn a_coordinator_that_cannot_be_opened_says_so() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    life.commit("readers", "orders", 5).await.expect("committed");
    world.stop(life).await;
    let all = world.bucket.list(&Prefix::all(), None, 1000).await.expect("listed");
    let snapshot = all.iter().find(|object| object.key.as_str().contains("/snap/coordinator/")).expect("a snapshot");
    let key: Key = snapshot.key.clone();
    let bytes = world.bucket.get(&key).await.expect("read");
    world.bucket.delete(&key).await.expect("deleted");

    let life = world.start().await;
    let refused = life.commit("readers", "orders", 6).await;
    assert_eq!(refused, Err(CoordinatorError::Loading));
    world.bucket.create(&key, bytes.into()).await.expect("put back");
    life.env.sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(5)));
}

/// Records of a coordinator that went with a corrupt WAL write are forgotten; the coordinator, and what it knew before and
/// learned after them, are not.
#[tokio::test(start_paused = true)]
async fn a_coordinator_opens_without_the_records_that_a_corrupt_wal_took() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    let partition = life.own_partition_of("readers").await.id();
    for offset in [5, 6, 7] {
        life.commit("readers", "orders", offset).await.expect("committed");
    }
    let written = life.broker;
    world.crash(life).await;
    decay(&world, written, partition, 1).await;
    let life = world.start().await;
    assert_eq!(life.recovered.lost.len(), 2, "the write and the partition: {:?}", life.recovered.lost);
    assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(7)), "what came behind it counts");

    // The very last record goes, and another partition's tells of it: what came before counts again.
    life.commit("readers", "orders", 8).await.expect("committed");
    let elsewhere = |group: &String| life.own_partition(CoordinatorKind::Group, group).id() != partition;
    let other = (0..100).map(|n| format!("others-{n}")).find(elsewhere).expect("groups are spread");
    life.commit(&other, "orders", 1).await.expect("committed");
    let written = life.broker;
    world.crash(life).await;
    decay(&world, written, partition, 0).await;
    let life = world.start().await;
    assert_eq!(life.recovered.lost.len(), 2, "the write and the partition: {:?}", life.recovered.lost);
    assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(7)));
    life.commit("readers", "orders", 9).await.expect("it takes commits");
    assert_eq!(life.fetch("readers", "orders", true).await, Ok(Some(9)));
}

/// A disk that loses what it said was durable cuts the logs below the coordinators' snapshots. Groups and transactional ids
/// of those partitions are not answered, as their offsets would be used twice; nobody else notices, life after life.
#[tokio::test(start_paused = true)]
async fn a_log_that_ends_below_its_snapshot_closes_its_coordinator_alone() {
    const RECORDS: i64 = 4;
    let mut world = World::new();
    world.config.records_per_snapshot = RECORDS.unsigned_abs();
    let life = world.start().await;
    life.create_topic("orders").await;
    let group = life.own_partition_of("readers").await;
    let elsewhere = |kind, names: &str, than: &str| {
        let mut names = (0..100).map(|n| format!("{names}-{n}"));
        names.find(|name| life.coordinators.find(kind, name) != life.coordinators.find(kind, than)).expect("spread")
    };
    let other_group = elsewhere(CoordinatorKind::Group, "readers", "readers");
    let other_id = elsewhere(CoordinatorKind::Transaction, "sink", "sink");
    life.commit(&other_group, "orders", 5).await.expect("committed");
    life.init(&other_id).await.expect("a producer");
    for round in 1..RECORDS {
        life.commit("readers", "orders", round).await.expect("committed");
    }
    for _ in 0..RECORDS {
        life.init("sink").await.expect("a producer");
    }
    // The snapshots are written by then, and nothing is uploaded yet.
    life.env.sleep(std::time::Duration::from_secs(1)).await;
    let (written, partition) = (life.broker, group.id());
    drop(group);
    world.crash(life).await;
    let last = nth_last_write(&world, written, partition, 0).await;
    world.wal.lose(written.broker, written.epoch, last);

    for _ in 0..2 {
        let life = world.start().await;
        let describe = txn::Request::Describe { transactional_id: "sink".to_owned() };
        for _ in 0..3 {
            assert_eq!(life.commit("readers", "orders", 9).await, Err(CoordinatorError::Loading));
            assert_eq!(life.coordinators.txn(describe.clone()).await, Err(CoordinatorError::Loading));
            life.env.sleep(std::time::Duration::from_secs(11)).await;
        }
        assert_eq!(life.own_partition(CoordinatorKind::Group, "readers").log_end().get(), RECORDS - 1);
        assert_eq!(life.fetch(&other_group, "orders", true).await, Ok(Some(5)));
        life.commit(&other_group, "orders", 5).await.expect("it takes commits");
        life.init(&other_id).await.expect("it takes producers");
        world.stop(life).await;
    }
}

/// A snapshot that tells of records behind the offset that it was taken at is not believed: nothing of it is answered.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_knows_more_than_its_log_is_refused() {
    let mut world = World::new();
    let life = world.start().await;
    life.init("sink").await.expect("a producer");
    world.stop(life).await;
    let all = world.bucket.list(&Prefix::all(), None, 1000).await.expect("listed");
    let snapshot = all.iter().find(|object| object.key.as_str().contains("/snap/coordinator/")).expect("a snapshot");
    let bytes = world.bucket.get(&snapshot.key).await.expect("read");
    let mut forged = CoordinatorSnapshot::parse(&bytes).expect("sound");
    let mut payload = forged.payload.to_vec();
    assert_eq!(i64::from(payload[1]), forged.at.get(), "the log end follows the version");
    payload[1] = 100;
    forged.payload = payload.into();
    world.bucket.delete(&snapshot.key).await.expect("deleted");
    world.bucket.create(&snapshot.key, forged.encode().into()).await.expect("put back");

    let life = world.start().await;
    for _ in 0..2 {
        let describe = txn::Request::Describe { transactional_id: "sink".to_owned() };
        assert_eq!(life.coordinators.txn(describe).await, Err(CoordinatorError::Loading));
        life.env.sleep(std::time::Duration::from_secs(11)).await;
    }
}

/// Transactions of a partition time out although more partitions than are opened at once cannot be: nobody asks for it.
#[tokio::test(start_paused = true)]
async fn partitions_that_cannot_be_opened_hold_up_no_other() {
    let mut world = World::new();
    world.config.txn_partitions = 12;
    let life = world.start().await;
    life.create_topic("orders").await;
    let index_of = |id: &String| life.coordinators.find(CoordinatorKind::Transaction, id);
    let mut ids: Vec<String> = (0..100).map(|n| format!("sink-{n}")).collect();
    ids.sort_by_key(&index_of);
    ids.dedup_by_key(|id| index_of(id));
    assert_eq!(ids.len(), 12, "an id in each partition");
    for id in &ids {
        life.init(id).await.expect("a producer");
    }
    world.stop(life).await;
    let life = world.start().await;
    let last = ids.last().expect("twelve of them");
    let producer = life.init(last).await.expect("a producer");
    life.add(last, producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.produce(last, producer, "orders", 0, "a").await.expect("produced");
    let open = life.own_partition(CoordinatorKind::Transaction, last).id();
    world.crash(life).await;
    let all = world.bucket.list(&Prefix::all(), None, 1000).await.expect("listed");
    for ObjectMeta { key, .. } in all.iter().filter(|object| object.key.as_str().contains("/snap/coordinator/")) {
        if !key.as_str().contains(&format!("/{}/", open.partition)) {
            world.bucket.delete(key).await.expect("deleted");
        }
    }

    let life = world.start().await;
    let partition = life.partition("orders");
    assert_eq!(partition.offsets().expect("open").last_stable, Offset::ZERO);
    life.env.sleep(std::time::Duration::from_mins(2)).await;
    assert_eq!(partition.offsets().expect("open").last_stable.get(), 2, "the record and its marker");
}

/// Transactions of a partition that opens later than the others are carried out and time out as theirs do: nobody asks for it.
#[tokio::test(start_paused = true)]
async fn transactions_of_a_partition_that_opens_late_time_out() {
    let mut world = World::new();
    let life = world.start().await;
    life.create_topic("orders").await;
    life.init("sink").await.expect("a producer");
    world.stop(life).await;
    let life = world.start().await;
    let producer = life.init("sink").await.expect("a producer");
    life.add("sink", producer, "orders", PartitionIndex::ZERO).await.expect("added");
    life.produce("sink", producer, "orders", 0, "a").await.expect("produced");
    world.crash(life).await;
    let mut taken = Vec::new();
    let all = world.bucket.list(&Prefix::all(), None, 1000).await.expect("listed");
    for ObjectMeta { key, .. } in all.iter().filter(|object| object.key.as_str().contains("/snap/producers/")) {
        taken.push((key.clone(), world.bucket.get(key).await.expect("read")));
        world.bucket.delete(key).await.expect("deleted");
    }

    let life = world.start().await;
    let topic = life.owner.partitions.by_name(&topic_name("__transaction_state")).expect("there");
    let index = life.coordinators.find(CoordinatorKind::Transaction, "sink");
    assert!(topic.partition(index).is_err(), "it is closed");
    for (key, bytes) in taken {
        world.bucket.create(&key, bytes.into()).await.expect("put back");
    }
    life.env.sleep(std::time::Duration::from_secs(1)).await;
    let partition = life.partition("orders");
    assert_eq!(partition.offsets().expect("open").last_stable, Offset::ZERO);
    life.env.sleep(std::time::Duration::from_mins(2)).await;
    assert_eq!(partition.offsets().expect("open").last_stable.get(), 2, "the record and its marker");
}

/// Makes a WAL write unreadable: the one that holds the last records of a partition, or one so many before it.
async fn decay(world: &World, life: BrokerLife, partition: TopicPartition, before: usize) {
    let write = nth_last_write(world, life, partition, before).await;
    world.wal.decay(life.broker, life.epoch, write);
}

/// The WAL write that holds the last records of a partition, or one so many before it.
async fn nth_last_write(world: &World, life: BrokerLife, partition: TopicPartition, before: usize) -> WalSequence {
    let sealed = world.wal.seal(life.broker, life.epoch, None).await.expect("in memory");
    let SealedContents::Entries(replay) = sealed.contents else { panic!("memory holds entries") };
    let groups = replay.collect().await.expect("in memory");
    let mut of_it = groups.iter().rev().filter(|(_, entries)| entries.iter().any(|entry| entry.partition == partition));
    of_it.nth(before).expect("so many writes").0
}

/// Once the WAL has ended, or the host was stopped, nobody is answered as if by a coordinator.
#[tokio::test(start_paused = true)]
async fn after_its_end_a_coordinator_answers_nothing() {
    for orderly in [true, false] {
        let mut world = World::new();
        let life = world.start().await;
        life.create_topic("orders").await;
        life.commit("readers", "orders", 5).await.expect("committed");
        if orderly {
            life.coordinators.stop().await;
        } else {
            life.owner.wal.stop().await.expect("drained");
        }
        assert_eq!(life.commit("readers", "orders", 6).await, Err(CoordinatorError::NotCoordinator), "{orderly}");
    }
}

/// Producer ids come in blocks, each once, also over a restart; an internal topic is created as Kafka does.
#[tokio::test(start_paused = true)]
async fn producer_ids_are_given_once_and_topics_are_kafkas() {
    let mut world = World::new();
    let life = world.start().await;
    for expected in 0..2_500 {
        assert_eq!(life.coordinators.next_producer_id().await, Ok(producer_id(expected)));
    }
    life.coordinators.prepare(CoordinatorKind::Transaction).await.expect("created");
    let topic = life.metadata.topics().by_name(&topic_name("__transaction_state")).expect("there");
    assert!(topic.internal && topic.partitions.len() == 4);
    assert_eq!(topic.config["cleanup.policy"], "compact");
    assert_eq!(topic.config["compression.type"], "producer");
    world.crash(life).await;
    let life = world.start().await;
    let next = life.coordinators.next_producer_id().await.expect("an id");
    assert!(next >= producer_id(2_500), "{next}");
}

/// An id that was asked for and turned out not to be needed is given to the next who needs one.
#[tokio::test(start_paused = true)]
async fn an_id_that_was_not_needed_is_not_wasted() {
    let mut world = World::new();
    let life = world.start().await;
    for expected_epoch in 0..10 {
        assert_eq!(life.init("probed").await.expect("a producer").epoch.get(), expected_epoch);
    }
    assert_eq!(life.init("another").await.expect("a producer").id, producer_id(1));
    let Ok(Reply::ProducerIds(block)) = life.metadata.submit(Command::AllocateProducerIds { life: life.broker }).await
    else {
        panic!("a block")
    };
    assert_eq!(block, producer_id(1_000), "one block was enough");
}

impl crate::world::Life {
    async fn own_partition_of(&self, group: &str) -> std::sync::Arc<forebay_log::Partition> {
        self.commit(group, "orders", 0).await.expect("committed");
        let partition = self.own_partition(CoordinatorKind::Group, group);
        assert_eq!(partition.log_end(), Offset::ZERO.next());
        partition
    }
}
