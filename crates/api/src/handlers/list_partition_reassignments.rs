//! ListPartitionReassignments, key 46, version 0. KIP-455. There are none: Kafka's tools ask when they describe topics.

use forebay_wire::kafka::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;

pub(crate) async fn handle(_: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let _: ListPartitionReassignmentsRequest = call.decode()?;
    call.answer(&ListPartitionReassignmentsResponse::default().with_error_message(None))
}
