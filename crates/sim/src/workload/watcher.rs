//! Looks at the edges of the shared partitions again and again: none ever goes back.

use forebay_client::{Admin, Isolation, OffsetAt};

use super::{PARTITIONS, SHARED, Worker, partition, place};
use crate::history::Edge;

pub async fn watcher(worker: Worker) {
    for topic in SHARED {
        worker.topic(topic).await;
    }
    let admin = Admin::new(&worker.client);
    let topics = SHARED.map(|topic| forebay_types::TopicName::new(topic).expect("a legal name"));
    while !worker.is_over() {
        let topic = &topics[usize::try_from(worker.random.below(SHARED.len() as u64)).expect("an index")];
        let partition = partition(topic, worker.random.below(u64::from(PARTITIONS)));
        look(&worker, &admin, &partition).await;
        worker.pause(20).await;
    }
}

/// Looks at every edge of a partition once.
pub async fn look(worker: &Worker, admin: &Admin, partition: &forebay_client::Partition) {
    for (edge, at, isolation) in [
        (Edge::LogStart, OffsetAt::Earliest, Isolation::ReadUncommitted),
        (Edge::LastStable, OffsetAt::Latest, Isolation::ReadCommitted),
        (Edge::HighWatermark, OffsetAt::Latest, Isolation::ReadUncommitted),
    ] {
        let before = worker.history.edge_so_far(&place(partition), edge);
        let Ok(Some(found)) = admin.list_offset(partition, at, isolation).await else { return };
        let Some(epoch) = found.leader_epoch else { return };
        worker.history.edge(&place(partition), edge, before, (epoch, found.offset));
    }
}
