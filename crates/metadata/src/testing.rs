//! A database in a map: commands run against it one by one, and after each everything that must hold is checked.

use std::collections::BTreeMap;

use forebay_format::{ObjectName, ObjectRange};
use forebay_types::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, LogId, Offset, OffsetRange, PartitionIndex, Timestamp, TopicId,
    TopicName, TopicPartition, WalSequence,
};
use uuid::Uuid;

use crate::apply::{self, Changes, Fetched, Read, Stop, View};
use crate::command::{Command, CommitUpload, Refusal, Registered, Reply, SnapshotAt};
use crate::invariants;
use crate::state::{BrokerLife, Extent, Key, Partition, Row, Tables, WalKind};

pub(crate) fn broker(id: i32) -> BrokerId {
    BrokerId::new(id).expect("not negative")
}

pub(crate) fn topic(number: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(number)).expect("not nil")
}

pub(crate) fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("legal")
}

pub(crate) fn at(offset: i64) -> Offset {
    Offset::new(offset).expect("not negative")
}

pub(crate) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn partition(topic: TopicId, index: i32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionIndex::new(index).expect("not negative") }
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::from_random([1; 16])
}

pub(crate) fn life(id: i32, epoch: u64) -> BrokerLife {
    BrokerLife { broker: broker(id), epoch: BrokerEpoch::new(epoch).expect("not negative") }
}

pub(crate) fn leader_epoch(raw: i32) -> LeaderEpoch {
    LeaderEpoch::new(raw).expect("not negative")
}

/// The name of a data object that `life` wrote.
pub(crate) fn data_object(life: BrokerLife, number: u64) -> String {
    ObjectName::Data { broker: life.broker, epoch: life.epoch, sequence: WalSequence::new(number) }.to_string()
}

pub(crate) fn create_topic(id: TopicId, named: &str, partitions: i32) -> Command {
    Command::CreateTopic { name: name(named), id, partitions, config: BTreeMap::new(), now: time(0) }
}

#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) tables: Tables,
    pub(crate) rows: BTreeMap<Key, Row>,
    /// What changed something, for replaying.
    pub(crate) history: Vec<Command>,
}

impl World {
    /// With a term begun at time 0.
    pub(crate) fn new() -> Self {
        let mut world = Self::default();
        world.done(Command::BeginTerm { cluster: cluster(), now: time(0) });
        world
    }

    /// Runs a command and checks all that must hold.
    pub(crate) fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        let changes = self.decide(&command)?;
        if changes.rows.is_empty() {
            return Ok(changes.reply);
        }
        for (key, row) in changes.rows {
            self.tables.put(&key, row.clone());
            match row {
                Some(row) => drop(self.rows.insert(key, row)),
                None => drop(self.rows.remove(&key)),
            }
        }
        let wrong = invariants::check(&self.rows);
        assert!(wrong.is_empty(), "after {command:?}: {}", wrong.iter().map(ToString::to_string).collect::<String>());
        self.history.push(command);
        Ok(changes.reply)
    }

    fn decide(&self, command: &Command) -> Result<Changes, Refusal> {
        let mut fetched = Fetched::default();
        for _ in 0..4 {
            let reads = match apply::apply(View { tables: &self.tables, fetched: &fetched }, command) {
                Ok(changes) => return Ok(changes),
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Err(Stop::Need(reads)) => reads,
            };
            for read in reads {
                match read {
                    Read::Row(key) => fetched.row(key.clone(), self.rows.get(&key).cloned()),
                    Read::FirstExtents { log, limit } => {
                        fetched.first_extents(log, limit, self.extents(log).into_iter().take(limit).collect());
                    }
                }
            }
        }
        panic!("{command:?} still lacks rows after four rounds");
    }

    /// The extent rows of a log, in order.
    pub(crate) fn extents(&self, log: LogId) -> Vec<Extent> {
        let of_log = self.rows.iter().filter_map(|(key, row)| match (key, row) {
            (Key::Extent(at), Row::Extent(extent)) if at.log == log => Some(extent.clone()),
            _ => None,
        });
        of_log.collect()
    }

    pub(crate) fn done(&mut self, command: Command) -> Reply {
        let shown = format!("{command:?}");
        self.run(command).unwrap_or_else(|refusal| panic!("{shown}: {refusal}"))
    }

    /// The text of the refusal; nothing may have changed.
    pub(crate) fn refused(&mut self, command: Command) -> String {
        let before = self.rows.clone();
        let shown = format!("{command:?}");
        let refusal = self.run(command).expect_err(&shown);
        assert_eq!(self.rows, before, "a refusal changes nothing");
        refusal.to_string()
    }

    /// Runs a command twice: the second changes nothing and answers the same.
    pub(crate) fn done_twice(&mut self, command: Command) -> Reply {
        let reply = self.done(command.clone());
        let before = self.rows.clone();
        assert_eq!(self.done(command), reply, "the answer to a repetition");
        assert_eq!(self.rows, before, "a repetition changes nothing");
        reply
    }

    pub(crate) fn register(&mut self, id: i32, incarnation: u128) -> Registered {
        let command = Command::RegisterBroker { broker: broker(id), incarnation, wal: WalKind::Memory };
        self.done_twice(command).into_registered()
    }

    pub(crate) fn open(&mut self, life: BrokerLife, partitions: &[TopicPartition]) {
        self.done_twice(Command::OpenPartitions { life, partitions: partitions.to_vec() });
    }

    /// A range of `count` records at the committed end, as the partition's owner would upload it.
    pub(crate) fn next_range(&self, id: TopicPartition, count: i64) -> ObjectRange {
        let partition = self.tables.partition(id).expect("a known partition");
        let epoch = partition.epochs.last().expect("an opened partition");
        let start = self.tables.committed_end(partition.log).max(epoch.start);
        let end = start.checked_add(count).expect("small");
        ObjectRange {
            partition: id,
            log: partition.log,
            leader_epoch: epoch.epoch,
            range: OffsetRange::new(start, end).expect("in order"),
            bytes: u64::try_from(count).expect("not negative") * 100,
            max_timestamp: time(end.get()),
        }
    }

    /// An upload of `life`'s own WAL write `number`.
    pub(crate) fn upload(life: BrokerLife, number: u64, ranges: Vec<ObjectRange>) -> CommitUpload {
        CommitUpload {
            life,
            sealer: None,
            through: Some(WalSequence::new(number)),
            object: data_object(life, number),
            size: 1_000,
            footer_position: 900,
            ranges,
        }
    }

    /// Commits `count` records to each partition, in one object.
    pub(crate) fn write(&mut self, life: BrokerLife, number: u64, partitions: &[(TopicPartition, i64)]) {
        let ranges = partitions.iter().map(|(id, count)| self.next_range(*id, *count)).collect();
        self.done(Command::CommitUpload(Self::upload(life, number, ranges)));
    }

    /// A producer snapshot at the committed end, in an object of its own.
    pub(crate) fn snapshot(&mut self, life: BrokerLife, number: u64, id: TopicPartition) {
        let leader_epoch = self.tables.partition(id).and_then(Partition::leader_epoch).expect("an opened partition");
        let at = at(self.committed_end(id));
        self.done_twice(Command::PutProducerSnapshot {
            life,
            object: ObjectName::ProducerSnapshot { broker: life.broker, epoch: life.epoch, number }.to_string(),
            size: 50,
            partitions: vec![SnapshotAt { partition: id, leader_epoch, at }],
        });
    }

    pub(crate) fn committed_end(&self, id: TopicPartition) -> i64 {
        self.tables.committed_end(self.tables.partition(id).expect("a known partition").log).get()
    }
}
