//! Whatever happens in whatever order, collection deletes nothing that can be reached, and in the end it deletes all the
//! rest. Writes, deletions, pins, crashes and orphans come in an order that a seed draws; after every step a check
//! reads the whole bucket. A collector that goes by age alone is caught by the same check.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_env::Random;
use forebay_env::simulated::SimRandom;
use forebay_format::ObjectName;
use forebay_metadata::Command;
use forebay_metadata::command::AdvanceReason;
use forebay_metadata::state::{Holds, PinId, PinKind};
use forebay_store::{Body, Prefix};
use forebay_types::{Offset, TopicId, WalSequence};
use forebay_upkeep::CONDEMNED_GRACE;
use world::{Kind, Life, World, first_partition, key};

/// Who collects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collector {
    Ours,
    /// Deletes every object that is older than the grace, whatever names it.
    ByAge,
}

struct Run {
    world: World,
    random: SimRandom,
    collector: Collector,
    live: Vec<TopicId>,
    trash: Vec<TopicId>,
    pins: Vec<PinId>,
    made: u64,
}

impl Run {
    fn new(kind: Kind, seed: u64, collector: Collector) -> Self {
        let (live, trash, pins) = (Vec::new(), Vec::new(), Vec::new());
        Self { world: World::new(kind), random: SimRandom::new(seed), collector, live, trash, pins, made: 0 }
    }

    fn below(&self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % (end.max(1) as u64)).expect("small")
    }

    fn any(&self, topics: &[TopicId]) -> Option<TopicId> {
        topics.get(self.below(topics.len())).copied()
    }

    /// The first violation, and after which steps.
    async fn run(mut self, steps: usize) -> Result<(), String> {
        let mut life = self.world.start().await;
        self.live.push(life.create_topic("topic-0", &[("retention.ms", "-1")]).await);
        let mut done = Vec::new();
        for _ in 0..steps {
            let (name, next) = self.step(life).await;
            life = next;
            done.push(name);
            let complaints = self.complaints(&life).await;
            if !complaints.is_empty() {
                return Err(format!("{complaints:?} after {done:?}"));
            }
        }
        self.nothing_is_left(life).await
    }

    async fn complaints(&self, life: &Life) -> Vec<String> {
        let mut complaints = self.world.complaints().await;
        for topic in &self.live {
            if let Err(error) = life.read_all(*topic).await {
                complaints.push(format!("{topic}: {error}"));
            }
        }
        complaints
    }

    async fn step(&mut self, mut life: Life) -> (&'static str, Life) {
        let name = match self.below(12) {
            0 => {
                self.made += 1;
                let retention = ["-1", "3600000", "60000"][self.below(3)];
                let name = format!("topic-{}", self.made);
                self.live.push(life.create_topic(&name, &[("retention.ms", retention)]).await);
                "create"
            }
            1..4 => {
                for _ in 0..self.below(4) {
                    let topics = self.live.clone();
                    for topic in topics {
                        life.produce(topic, "value", self.below(4_000)).await;
                    }
                    if self.below(2) == 0 {
                        life.flush().await;
                    }
                }
                "write"
            }
            4 => {
                life.env.sleep(Duration::from_mins(5 + self.below(80) as u64)).await;
                "wait"
            }
            5 => match self.any(&self.live) {
                Some(topic) => {
                    let trash_ms = [0, 3_600_000][self.below(2)];
                    let now = life.env.now();
                    if life.metadata.submit(Command::DeleteTopic { topic, now, trash_ms }).await.is_ok() {
                        self.live.retain(|live| *live != topic);
                        self.trash.push(topic);
                    }
                    life.owner.partitions.caught_up(&*life.metadata).await;
                    "delete"
                }
                None => "nothing",
            },
            6 => match self.any(&self.trash) {
                Some(topic) => {
                    self.trash.retain(|trash| *trash != topic);
                    if life.metadata.submit(Command::UndeleteTopic { topic }).await.is_ok() {
                        self.live.push(topic);
                    }
                    life.owner.partitions.caught_up(&*life.metadata).await;
                    "undelete"
                }
                None => "nothing",
            },
            7 => match self.any(&self.live) {
                Some(topic) => {
                    self.delete_records(&life, topic).await;
                    "delete records"
                }
                None => "nothing",
            },
            8 => {
                self.pin(&life).await;
                "pin"
            }
            9 => {
                self.leave_an_orphan(&life).await;
                self.world.crash(life).await;
                life = self.world.start().await;
                "crash"
            }
            _ => {
                self.collect(&mut life).await;
                "collect"
            }
        };
        (name, life)
    }

    async fn collect(&self, life: &mut Life) {
        while life.round().await.more {}
        if self.collector == Collector::ByAge {
            let grace = i64::try_from(CONDEMNED_GRACE.as_millis()).expect("small");
            for meta in self.world.bucket.list(&Prefix::all(), None, usize::MAX).await.expect("in memory") {
                let holds_records = matches!(meta.key.as_str().parse(), Ok(ObjectName::Data { .. }));
                if holds_records && life.env.now().millis_since(meta.modified) > grace {
                    self.world.bucket.delete(&meta.key).await.expect("in memory");
                }
            }
        }
    }

    async fn delete_records(&self, life: &Life, topic: TopicId) {
        let partition = life.partition(topic);
        let offsets = partition.offsets().expect("open");
        let span = usize::try_from(offsets.high_watermark.get() - offsets.log_start.get()).expect("in order");
        let to = offsets.log_start.get() + i64::try_from(self.below(span + 1)).expect("small");
        let command = Command::AdvanceLogStart {
            life: life.me,
            partition: partition.id(),
            leader_epoch: partition.leader_epoch(),
            to: Offset::new(to).expect("an offset"),
            reason: AdvanceReason::Request,
            now: life.env.now(),
        };
        // A pin may say no.
        let _ = life.metadata.submit(command).await;
        life.owner.partitions.caught_up(&*life.metadata).await;
    }

    async fn pin(&mut self, life: &Life) {
        if !self.pins.is_empty() && self.below(2) == 0 {
            let pin = self.pins.swap_remove(self.below(self.pins.len()));
            life.done(Command::ReleasePin { pin }).await;
            return;
        }
        let Some(topic) = self.any(&self.live) else { return };
        let offsets = life.partition(topic).offsets().expect("open");
        let create = Command::CreatePin {
            kind: PinKind::Reader,
            holds: [Holds::Bytes, Holds::History][self.below(2)],
            owner: "test".to_owned(),
            reason: "a test".to_owned(),
            scope: BTreeMap::from([(first_partition(topic), offsets.log_start)]),
            renewal_ms: 3_600_000,
            now: life.env.now(),
        };
        self.pins.push(life.done(create).await.into_pinned());
    }

    /// What a broker leaves that dies between a create and its commit.
    async fn leave_an_orphan(&self, life: &Life) {
        let sequence = WalSequence::new(1_000_000 + self.below(1_000) as u64);
        let name = ObjectName::Data { broker: life.me.broker, epoch: life.me.epoch, sequence };
        self.world.bucket.put(&key(name), Body::from(vec![0; 10])).await.expect("in memory");
    }

    /// Once every topic is deleted, all their objects go, orphans included.
    async fn nothing_is_left(mut self, life: Life) -> Result<(), String> {
        self.world.crash(life).await;
        let mut life = self.world.start().await;
        for pin in std::mem::take(&mut self.pins) {
            life.done(Command::ReleasePin { pin }).await;
        }
        for topic in std::mem::take(&mut self.live) {
            life.delete_topic(topic, 0).await;
        }
        // The longest trash window, which the takeover began anew, then the grace.
        life.env.sleep(Duration::from_hours(1)).await;
        life.rounds_past_the_grace().await;
        let broker = life.me;
        let left: Vec<ObjectName> = self
            .world
            .objects()
            .await
            .into_iter()
            .filter(|name| match name {
                // What this life wrote may still be named.
                ObjectName::Data { epoch, .. } | ObjectName::ProducerSnapshot { epoch, .. } => *epoch != broker.epoch,
                ObjectName::CoordinatorSnapshot { .. } => true,
                ObjectName::Wal { .. } | ObjectName::Journal { .. } => false,
            })
            .collect();
        let records = self.world.data_objects().await;
        let complaints = self.world.complaints().await;
        match (&left[..], records, &complaints[..]) {
            ([], 0, []) => Ok(()),
            _ => Err(format!("left in the end: {left:?}, {records} with records; {complaints:?}")),
        }
    }
}

async fn nothing_reached_goes_and_nothing_else_stays(kind: Kind) {
    for seed in 0..3 {
        let outcome = Run::new(kind, seed, Collector::Ours).run(40).await;
        outcome.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

#[tokio::test(start_paused = true)]
async fn collection_behind_a_disk_deletes_nothing_that_is_reached_and_leaves_nothing_else() {
    nothing_reached_goes_and_nothing_else_stays(Kind::Disk).await;
}

#[tokio::test(start_paused = true)]
async fn collection_of_wal_objects_deletes_nothing_that_is_reached_and_leaves_nothing_else() {
    nothing_reached_goes_and_nothing_else_stays(Kind::Object).await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_goes_by_age_is_caught() {
    let mut caught = 0;
    for seed in 0..3 {
        if let Err(violation) = Run::new(Kind::Disk, seed, Collector::ByAge).run(40).await {
            assert!(violation.contains("it is missing"), "caught for what it does: {violation}");
            caught += 1;
        }
    }
    assert!(caught >= 2, "only {caught} of 3 seeds catch it");
}
