//! The one who sees to it that records go: deletes topics and brings some of them back, keeps a topic whose records
//! expire soon, deletes the beginnings of what others write.

use std::time::Duration;

use bytes::Bytes;
use forebay_client::{Admin, ErrorCode, Isolation, NewTopic, OffsetAt, Producer, ProducerConfig, Record};
use forebay_types::{Offset, TopicName};

use super::undelete::undelete;
use super::{SHARED, Worker, partition, place};
use crate::broker::{HOSTS, TRASH};
use crate::history::Leave;

/// How long a deletion, or bringing a topic back, is tried before it is left unknown what became of it.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn janitor(worker: Worker) {
    let expiring = worker.expiring_topic().await;
    let mut number = 0;
    while !worker.is_over() {
        number += 1;
        match worker.random.below(if worker.cuts { 5 } else { 3 }) {
            0 | 1 => trash(&worker, number).await,
            2 => fill(&worker, &expiring, number).await,
            _ => cut(&worker).await,
        }
        worker.pause(200).await;
    }
}

/// Writes some values to the one partition of a topic.
async fn fill(worker: &Worker, topic: &TopicName, number: u64) {
    let config = ProducerConfig { delivery_deadline: Duration::from_secs(8), ..ProducerConfig::default() };
    let Ok(mut producer) = Producer::new(&worker.client, config).await else { return };
    let partition = partition(topic, 0);
    for index in 0..=worker.random.below(6) {
        let value = format!("j-{number}.{index}");
        worker.history.sending(&value, &place(&partition), worker.env.now(), None);
        let Ok(delivery) = producer.send_to(&partition, vec![Record::new(None, Bytes::from(value.clone()))]).await
        else {
            return;
        };
        let Ok(ack) = delivery.await else { return };
        worker.history.acked(&value, ack.base_offset);
        worker.pause(100).await;
    }
}

/// Makes a topic, fills it, deletes it, and mostly brings it back, inside its window or too late.
async fn trash(worker: &Worker, number: u64) {
    let topic = NewTopic::new(TopicName::new(&format!("brief-{number}")).expect("a legal name"), 1);
    if !worker.create(&topic).await {
        worker.history.leaving(&topic.name, Leave::All);
        return;
    }
    fill(worker, &topic.name, number).await;
    worker.pause(600).await;
    worker.history.leaving(&topic.name, Leave::All);
    let (since, jumps) = (worker.env.monotonic(), worker.clocks.believable_jumps());
    if !delete(worker, &topic.name).await || worker.random.below(4) == 0 {
        return;
    }
    // The later in a run, the sooner: a run need not wait for it.
    let left = worker.until.saturating_duration_since(worker.env.monotonic());
    let wait = (TRASH * 5 / 4).min(left.max(TRASH / 4));
    worker.pause(u64::try_from(wait.as_millis()).expect("seconds")).await;
    let began = worker.env.monotonic();
    while worker.env.monotonic() - began < PATIENCE {
        let host = HOSTS[*worker.appointed.borrow()];
        let status = undelete(&worker.env, host, &topic.name).await;
        // An earlier attempt may have brought it back and its answer may be lost.
        let gone = matches!(status, Ok(404)) && !is_there(worker, &topic.name).await;
        match status {
            Ok(404) if gone => {
                let passed = worker.env.monotonic() - since;
                if passed < TRASH && worker.clocks.believable_jumps() == jumps {
                    let what = format!("{} is gone {} ms after it was deleted", topic.name, passed.as_millis());
                    worker.history.violation("no schedule strands a live pin", what);
                }
                return;
            }
            Ok(200 | 404) => return worker.history.back(&topic.name),
            _ => worker.pause(200).await,
        }
    }
}

/// Whether the topic is known to be deleted.
async fn delete(worker: &Worker, topic: &TopicName) -> bool {
    let admin = Admin::new(&worker.client);
    let began = worker.env.monotonic();
    while worker.env.monotonic() - began < PATIENCE {
        match admin.delete_topic(topic).await {
            Ok(()) => return true,
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => return true,
            Err(_) => worker.pause(200).await,
        }
    }
    false
}

/// Whether a live topic has that name. While nobody answers, it is not known to be gone.
async fn is_there(worker: &Worker, topic: &TopicName) -> bool {
    match Admin::new(&worker.client).list_topics().await {
        Ok(topics) => topics.iter().any(|found| found.name == *topic),
        Err(_) => true,
    }
}

/// Deletes the beginning of a shared partition, up to somewhere below its last stable offset.
async fn cut(worker: &Worker) {
    let topic = SHARED[usize::try_from(worker.random.below(SHARED.len() as u64)).expect("an index")];
    let topic = TopicName::new(topic).expect("a legal name");
    let partition = worker.any_partition(&topic);
    let admin = Admin::new(&worker.client);
    let mut edges = [Offset::ZERO; 2];
    for (edge, at) in edges.iter_mut().zip([OffsetAt::Earliest, OffsetAt::Latest]) {
        match admin.list_offset(&partition, at, Isolation::ReadCommitted).await {
            Ok(Some(found)) => *edge = found.offset,
            _ => return,
        }
    }
    let [start, end] = edges.map(Offset::get);
    let percent = 30 + i64::try_from(worker.random.below(60)).expect("small");
    let before = Offset::new(start + (end - start).max(0) * percent / 100).expect("not negative");
    worker.history.cutting(&place(&partition), before);
    // Whether it was done shows in the log start.
    let _ = admin.delete_records(&partition, Some(before)).await;
}
