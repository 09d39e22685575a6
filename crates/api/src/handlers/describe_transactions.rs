//! DescribeTransactions, key 65, version 0. KIP-664.

use std::collections::{BTreeMap, BTreeSet};

use forebay_coordinator::machine::txn::{Answer, Description, Request};
use forebay_types::{Timestamp, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::describe_transactions_response::{TopicData, TransactionState};
use forebay_wire::kafka::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::handlers::{in_order, once};
use crate::lookup::text;

/// Ids of one request that are asked about at once.
const IDS_IN_FLIGHT_MAX: usize = 64;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DescribeTransactionsRequest = call.decode()?;
    let one = |id: String| async move {
        let described = match context.coordinators.txn(Request::Describe { transactional_id: id.clone() }).await {
            Ok(Answer::Describe(Ok(described))) => state(described),
            Ok(Answer::Describe(Err(refusal))) => refuse(errors::coordinator::txn(refusal)),
            Ok(other) => unreachable!("a description is answered as one, not with {other:?}"),
            Err(error) => refuse(errors::coordinator::coordinator(error)),
        };
        described.with_transactional_id(text(id).into())
    };
    let ids = once(request.transactional_ids.iter().map(|id| id.as_str()));
    let states = ids.into_iter().map(|id| one(id.to_owned())).collect();
    let states = in_order(states, IDS_IN_FLIGHT_MAX).await;
    call.answer(&DescribeTransactionsResponse::default().with_transaction_states(states))
}

fn state(described: Description) -> TransactionState {
    // Topics are named: what a deleted one and its successor of the same name hold is told as one.
    let mut topics: BTreeMap<_, BTreeSet<i32>> = BTreeMap::new();
    for partition in described.partitions {
        topics.entry(partition.topic).or_default().insert(partition.partition.get());
    }
    let topic = |(name, partitions): (TopicName, BTreeSet<i32>)| {
        let partitions = partitions.into_iter().collect();
        TopicData::default().with_topic(text(name.as_str()).into()).with_partitions(partitions)
    };
    TransactionState::default()
        .with_transaction_state(text(described.status.name()))
        .with_transaction_timeout_ms(described.timeout_ms)
        .with_transaction_start_time_ms(described.started.map_or(-1, Timestamp::as_millis))
        .with_producer_id(described.producer.id.get().into())
        .with_producer_epoch(described.producer.epoch.get())
        .with_topics(topics.into_iter().map(topic).collect())
}

fn refuse(code: ErrorCode) -> TransactionState {
    TransactionState::default().with_error_code(code.code()).with_producer_id((-1).into()).with_producer_epoch(-1)
}
