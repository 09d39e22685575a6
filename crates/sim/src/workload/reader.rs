//! Readers: one that follows while all goes wrong, and the audit that reads everything once all is quiet.

use std::collections::BTreeMap;

use forebay_client::{Admin, Consumer, ConsumerConfig, Fetched, Isolation, OffsetAt, Partition, StartAt};
use forebay_types::{Offset, TopicName};
use forebay_wire::ErrorCode;

use super::{PARTITIONS, Worker, partition, place};
use crate::history::{History, Place};

/// Follows all partitions of a topic from their start. What it is given counts as committed where `committed` says so,
/// which is a lie where a bug is planted.
pub async fn reader(worker: Worker, topic: &str, isolation: Isolation, committed: bool) {
    let topic = worker.topic(topic).await;
    while !worker.is_over() {
        let mut consumer = consumer(&worker, &topic, isolation);
        let mut last: BTreeMap<Place, Offset> = BTreeMap::new();
        while !worker.is_over() {
            let fetched = match consumer.poll().await {
                Ok(fetched) => fetched,
                Err(error) => {
                    if error.code() == Some(ErrorCode::OffsetOutOfRange) {
                        worker.history.violation("nothing acknowledged is out of range", error.to_string());
                    }
                    break;
                }
            };
            for one in fetched {
                note(&worker.history, &one, committed, &mut last);
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

fn note(history: &History, fetched: &Fetched, committed: bool, last: &mut BTreeMap<Place, Offset>) {
    let place = place(&fetched.partition);
    for record in &fetched.records {
        if let Some(before) = last.insert(place.clone(), record.offset).filter(|before| *before >= record.offset) {
            let what = format!("{}-{}: offset {} came after {before}", place.0, place.1, record.offset);
            history.violation("offsets only grow", what);
        }
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        history.read(&place, record.offset, &value);
        if committed {
            history.with(|seen| seen.committed.insert(value));
        }
    }
}

/// Everything that is there at the end, by value: where it stands.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    pub committed: BTreeMap<String, Vec<(Place, Offset)>>,
    pub all: BTreeMap<String, Vec<(Place, Offset)>>,
}

/// Reads all of the topics up to their ends.
pub async fn audit(worker: &Worker, topics: &[&str]) -> Audit {
    let mut audit = Audit::default();
    for topic in topics {
        let topic = worker.topic(topic).await;
        for (isolation, into) in
            [(Isolation::ReadCommitted, &mut audit.committed), (Isolation::ReadUncommitted, &mut audit.all)]
        {
            for index in 0..PARTITIONS {
                read_to_end(worker, &partition(&topic, u64::from(index)), isolation, into).await;
            }
        }
    }
    audit
}

async fn read_to_end(
    worker: &Worker,
    partition: &Partition,
    isolation: Isolation,
    into: &mut BTreeMap<String, Vec<(Place, Offset)>>,
) {
    let admin = Admin::new(&worker.client);
    let end = loop {
        match admin.list_offset(partition, OffsetAt::Latest, Isolation::ReadUncommitted).await {
            Ok(found) => break found.map_or(Offset::ZERO, |found| found.offset),
            Err(_) => worker.pause(200).await,
        }
    };
    let config = ConsumerConfig { isolation, ..ConsumerConfig::default() };
    let mut consumer = Consumer::new(&worker.client, config);
    consumer.assign(partition.clone(), StartAt::Earliest);
    let mut last = BTreeMap::new();
    while consumer.position(partition).is_none_or(|position| position < end) {
        let Ok(fetched) = consumer.poll().await else {
            worker.pause(200).await;
            continue;
        };
        for one in fetched {
            note(&worker.history, &one, isolation == Isolation::ReadCommitted, &mut last);
            for record in one.records {
                let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                into.entry(value).or_default().push((place(partition), record.offset));
            }
        }
    }
}
