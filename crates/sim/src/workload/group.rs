//! A member of a group: joins, reads, commits, and now and then leaves and comes back.

use forebay_client::{ConsumerConfig, GroupConfig, GroupConsumer, StartAt};

use super::{Worker, place};

/// The group that all members join.
const GROUP: &str = "readers";

pub async fn group_member(worker: Worker) {
    let topic = worker.topic("plain").await;
    while !worker.is_over() {
        // What the group has committed may lie below what was cut off.
        let consumer = ConsumerConfig { out_of_range: Some(StartAt::Earliest), ..ConsumerConfig::default() };
        let config = GroupConfig { consumer, ..GroupConfig::new(GROUP, vec![topic.clone()]) };
        let mut member = GroupConsumer::new(&worker.client, config);
        while !worker.is_over() {
            if member.poll().await.is_err() {
                break;
            }
            let membership = member.membership();
            for (partition, _) in member.positions() {
                let who = &membership.member;
                worker.history.owns(GROUP, membership.generation, who, &place(&partition));
            }
            if worker.random.below(4) == 0 {
                // A commit may meet a rebalance or a crash; the next one counts.
                let _ = member.commit().await;
            }
            if worker.random.below(200) == 0 {
                break;
            }
            worker.pause(50).await;
        }
        let _ = member.leave().await;
    }
}
