//! Looks at the edges of partitions again and again: none ever goes back, and no log start rises before its time.

use forebay_client::{Admin, Isolation, OffsetAt, Partition};

use super::{PARTITIONS, SHARED, Worker, partition, place};
use crate::history::Edge;

pub async fn watcher(worker: Worker) {
    let mut partitions = vec![partition(&worker.expiring_topic().await, 0)];
    for topic in SHARED {
        let topic = worker.topic(topic).await;
        partitions.extend((0..PARTITIONS).map(|index| partition(&topic, u64::from(index))));
    }
    let admin = Admin::new(&worker.client);
    while !worker.is_over() {
        let index = usize::try_from(worker.random.below(partitions.len() as u64)).expect("an index");
        look(&worker, &admin, &partitions[index]).await;
        worker.pause(20).await;
    }
}

/// Looks at every edge of a partition once.
pub async fn look(worker: &Worker, admin: &Admin, partition: &Partition) {
    for (edge, at, isolation) in [
        (Edge::LogStart, OffsetAt::Earliest, Isolation::ReadUncommitted),
        (Edge::LastStable, OffsetAt::Latest, Isolation::ReadCommitted),
        (Edge::HighWatermark, OffsetAt::Latest, Isolation::ReadUncommitted),
    ] {
        let before = worker.history.edge_so_far(&place(partition), edge);
        let Ok(Some(found)) = admin.list_offset(partition, at, isolation).await else { return };
        let Some(epoch) = found.leader_epoch else { return };
        if edge == Edge::LogStart {
            worker.history.starts(&place(partition), found.offset, worker.clocks.highest());
        }
        worker.history.edge(&place(partition), edge, before, (epoch, found.offset));
    }
}
