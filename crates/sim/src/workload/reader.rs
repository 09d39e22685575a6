//! Readers: one that follows while all goes wrong, and the audit that reads everything once all is quiet.

use std::collections::{BTreeMap, BTreeSet};

use forebay_client::{Admin, Consumer, ConsumerConfig, Fetched, Isolation, OffsetAt, Partition, StartAt};
use forebay_types::{Offset, Timestamp, TopicName};
use forebay_wire::ErrorCode;

use super::{PARTITIONS, Worker, partition, place, watcher};
use crate::history::{History, Leave, Place};

/// Follows all partitions of a topic from their start.
pub async fn reader(worker: Worker, topic: &str, isolation: Isolation) {
    let topic = worker.topic(topic).await;
    while !worker.is_over() {
        let mut consumer = consumer(&worker, &topic, isolation);
        let mut last: BTreeMap<Place, Offset> = BTreeMap::new();
        while !worker.is_over() {
            let fetched = match consumer.poll().await {
                Ok(fetched) => fetched,
                Err(error) => {
                    if error.code() == Some(ErrorCode::OffsetOutOfRange) && !may_be_cut_off(&worker, &consumer) {
                        worker.history.violation("nothing acknowledged is out of range", error.to_string());
                    }
                    break;
                }
            };
            for one in fetched {
                note(&worker.history, &one, isolation, &mut last);
            }
        }
        worker.pause(100).await;
    }
}

fn consumer(worker: &Worker, topic: &TopicName, isolation: Isolation) -> Consumer {
    let mut consumer = Consumer::new(&worker.client, ConsumerConfig { isolation, ..ConsumerConfig::default() });
    for index in 0..PARTITIONS {
        consumer.assign(partition(topic, u64::from(index)), StartAt::Earliest);
    }
    consumer
}

/// Whether somebody asked that the records at one of the positions go.
fn may_be_cut_off(worker: &Worker, consumer: &Consumer) -> bool {
    worker.history.with(|seen| {
        let cut_off = |(partition, position): &(Partition, Offset)| seen.cuts.get(&place(partition)) > Some(position);
        consumer.positions().iter().any(cut_off)
    })
}

fn note(history: &History, fetched: &Fetched, isolation: Isolation, last: &mut BTreeMap<Place, Offset>) {
    let place = place(&fetched.partition);
    for record in &fetched.records {
        if let Some(before) = last.insert(place.clone(), record.offset).filter(|before| *before >= record.offset) {
            let what = format!("{}-{}: offset {} came after {before}", place.0, place.1, record.offset);
            history.violation("offsets only grow", what);
        }
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        history.read(&place, record.offset, &value);
        if isolation == Isolation::ReadCommitted {
            history.with(|seen| seen.committed.insert(value));
        }
    }
}

/// Everything that is there at the end, by value: where it stands.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    pub committed: BTreeMap<String, Vec<(Place, Offset)>>,
    pub all: BTreeMap<String, Vec<(Place, Offset)>>,
    /// Of every partition that there is, after it was read.
    pub log_starts: BTreeMap<Place, Offset>,
    /// The latest time that the broker can have taken it for.
    pub clocks_highest: Timestamp,
}

/// Reads all topics that were written to and that nobody has let go of, up to their ends.
pub async fn audit(worker: &Worker) -> Audit {
    let places: BTreeSet<Place> = worker.history.with(|seen| {
        let stays = |topic: &TopicName| seen.leaves.get(topic) != Some(&Leave::All);
        let shared = super::SHARED.into_iter().flat_map(|name| {
            let topic = TopicName::new(name).expect("a legal name");
            (0..PARTITIONS).map(move |index| place(&partition(&topic, u64::from(index))))
        });
        seen.sent.values().map(|sent| sent.place.clone()).chain(shared).filter(|(topic, _)| stays(topic)).collect()
    });
    let mut audit = Audit::default();
    let admin = Admin::new(&worker.client);
    for (topic, index) in places {
        let partition = partition(&topic, u64::try_from(index).expect("partitions are counted from 0"));
        let stable = read_to_end(worker, &partition, Isolation::ReadCommitted, &mut audit.committed).await;
        let end = read_to_end(worker, &partition, Isolation::ReadUncommitted, &mut audit.all).await;
        if stable < end {
            let what = format!("{topic}-{index} is stable up to {stable} and ends at {end}");
            worker.history.violation("transactions are whole or not there", what);
        }
        watcher::look(worker, &admin, &partition).await;
        let start = edge(worker, &partition, OffsetAt::Earliest, Isolation::ReadUncommitted).await;
        audit.log_starts.insert(place(&partition), start);
    }
    audit.clocks_highest = worker.clocks.highest();
    audit
}

/// An edge of a partition, however long it takes.
async fn edge(worker: &Worker, partition: &Partition, at: OffsetAt, isolation: Isolation) -> Offset {
    loop {
        match Admin::new(&worker.client).list_offset(partition, at, isolation).await {
            Ok(found) => return found.map_or(Offset::ZERO, |found| found.offset),
            Err(_) => worker.pause(200).await,
        }
    }
}

/// Reads a partition as far as this isolation sees; gives the end.
async fn read_to_end(
    worker: &Worker,
    partition: &Partition,
    isolation: Isolation,
    into: &mut BTreeMap<String, Vec<(Place, Offset)>>,
) -> Offset {
    let end = edge(worker, partition, OffsetAt::Latest, isolation).await;
    // Records may still expire.
    let out_of_range = Some(StartAt::Earliest);
    let config = ConsumerConfig { isolation, out_of_range, ..ConsumerConfig::default() };
    let mut consumer = Consumer::new(&worker.client, config);
    consumer.assign(partition.clone(), StartAt::Earliest);
    let mut last = BTreeMap::new();
    while consumer.position(partition).is_none_or(|position| position < end) {
        let fetched = match consumer.poll().await {
            Ok(fetched) => fetched,
            Err(error) if error.code() == Some(ErrorCode::CorruptMessage) => {
                worker.history.violation("nothing acknowledged is lost", error.to_string());
                break;
            }
            Err(_) => {
                worker.pause(200).await;
                continue;
            }
        };
        for one in fetched {
            note(&worker.history, &one, isolation, &mut last);
            for record in one.records {
                let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                into.entry(value).or_default().push((place(partition), record.offset));
            }
        }
    }
    end
}
