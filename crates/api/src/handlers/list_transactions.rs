//! ListTransactions, key 66, versions 0 to 1. KIP-664, KIP-994 (by duration). Flink finds its lingering transactions by it.

use forebay_coordinator::machine::txn::List;
use forebay_wire::kafka::messages::list_transactions_response::TransactionState;
use forebay_wire::kafka::messages::{ListTransactionsRequest, ListTransactionsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::errors;
use crate::lookup::text;

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: ListTransactionsRequest = call.decode()?;
    let list = List {
        producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
        states: request.state_filters.iter().map(|state| state.as_str().to_owned()).collect(),
        longer_than_ms: Some(request.duration_filter).filter(|ms| *ms >= 0),
    };
    let response = match context.coordinators.list_transactions(list).await {
        Ok(listing) => {
            let states = listing.transactions.into_iter().map(|listed| {
                TransactionState::default()
                    .with_transactional_id(text(listed.transactional_id).into())
                    .with_producer_id(listed.producer_id.get().into())
                    .with_transaction_state(text(listed.status.name()))
            });
            ListTransactionsResponse::default()
                .with_unknown_state_filters(listing.unknown_states.into_iter().map(text).collect())
                .with_transaction_states(states.collect())
        }
        Err(error) => {
            ListTransactionsResponse::default().with_error_code(errors::coordinator::coordinator(error).code())
        }
    };
    call.answer(&response)
}
