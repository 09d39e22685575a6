//! Transactions and producers: the first are listed, the second described.

use forebay_types::{Offset, ProducerEpoch, ProducerId, Timestamp};
use forebay_wire::kafka::messages::describe_producers_request::TopicRequest;
use forebay_wire::kafka::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ListTransactionsRequest, ListTransactionsResponse,
};

use super::Admin;
use crate::ClientError;
use crate::cluster::{Repeat, Target, retriable};
use crate::kafka::{Partition, check, malformed, offset, only, text, wire_topic};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionListing {
    pub transactional_id: String,
    pub producer: ProducerId,
    /// `Ongoing`, `PrepareCommit`, `CompleteCommit` …
    pub state: String,
}

/// A producer that a partition remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    pub producer: ProducerId,
    pub epoch: Option<ProducerEpoch>,
    pub last_sequence: Option<u32>,
    pub last_timestamp: Option<Timestamp>,
    pub coordinator_epoch: Option<u32>,
    /// Where its open transaction began.
    pub transaction_start: Option<Offset>,
}

impl Admin {
    /// The transactional ids of all brokers, by name; only those in one of `states`, where any are named.
    pub async fn list_transactions(&self, states: &[&str]) -> Result<Vec<TransactionListing>, ClientError> {
        let what = "list transactions";
        let mut listed = Vec::new();
        for node in self.nodes().await? {
            let build =
                |_| ListTransactionsRequest::default().with_state_filters(states.iter().map(|s| text(s)).collect());
            let again = |r: &ListTransactionsResponse| retriable([r.error_code].into_iter());
            let target = Target::Node(node.get());
            let response = self.client.call(what, target, Repeat::Harmless, build, again).await?;
            check(what, response.error_code, None)?;
            for one in response.transaction_states {
                listed.push(TransactionListing {
                    transactional_id: one.transactional_id.to_string(),
                    producer: ProducerId::new(one.producer_id.0).map_err(|e| malformed(what, e.to_string()))?,
                    state: one.transaction_state.to_string(),
                });
            }
        }
        listed.sort_unstable_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Ok(listed)
    }

    /// The producers that a partition's leader remembers, by id.
    pub async fn describe_producers(&self, partition: &Partition) -> Result<Vec<ProducerDescription>, ClientError> {
        let what = format!("describe producers of {partition}");
        let build = |_| {
            let topic = TopicRequest::default()
                .with_name(wire_topic(&partition.topic))
                .with_partition_indexes(vec![partition.index.get()]);
            DescribeProducersRequest::default().with_topics(vec![topic])
        };
        let again = |r: &DescribeProducersResponse| {
            retriable(r.topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| p.error_code)))
        };
        let response = self.client.call(&what, Target::Leader(partition), Repeat::Harmless, build, again).await?;
        let found = only(&what, response.topics.into_iter().flat_map(|topic| topic.partitions).collect())?;
        check(&what, found.error_code, found.error_message.as_ref())?;
        let mut producers = Vec::new();
        for one in found.active_producers {
            producers.push(ProducerDescription {
                producer: ProducerId::new(one.producer_id.0).map_err(|e| malformed(&what, e.to_string()))?,
                epoch: i16::try_from(one.producer_epoch).ok().and_then(|epoch| ProducerEpoch::new(epoch).ok()),
                last_sequence: u32::try_from(one.last_sequence).ok(),
                last_timestamp: Some(one.last_timestamp).filter(|ms| *ms >= 0).map(Timestamp::from_millis),
                coordinator_epoch: u32::try_from(one.coordinator_epoch).ok(),
                transaction_start: offset(one.current_txn_start_offset),
            });
        }
        producers.sort_unstable_by_key(|one| one.producer);
        Ok(producers)
    }
}
