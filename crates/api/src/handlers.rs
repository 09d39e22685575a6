//! One file per API, named as the API. Each is headed with its key, versions, KIPs and differences from Kafka.

// The table calls every handler in the same way, also one that has nothing to wait for.
#![allow(clippy::unused_async)]

pub(crate) mod add_offsets_to_txn;
pub(crate) mod add_partitions_to_txn;
pub(crate) mod alter_configs;
pub(crate) mod api_versions;
mod committed;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_acls;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod describe_transactions;
pub(crate) mod elect_leaders;
pub(crate) mod end_txn;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_partition_reassignments;
pub(crate) mod list_transactions;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;
pub(crate) mod txn_offset_commit;

use std::collections::BTreeSet;

use forebay_wire::kafka::messages::ApiKey;
use futures::StreamExt;

use crate::apis::Api;
use crate::call::{Call, CallError, Reply};

/// A version that is not served. Kafka's clients ask for the versions first, in one that the broker may not know: that
/// is answered in version 0 (KIP-511). Anything else has no form that both sides know.
pub(crate) fn unsupported_version(api: &Api, call: &Call<'_>) -> Result<Reply, CallError> {
    if api.key == ApiKey::ApiVersions as i16 {
        return api_versions::unsupported(api, call);
    }
    let (min, max) = (*api.versions.start(), api.version_max());
    Err(CallError::Version { api: api.name, version: call.version(), min, max })
}

/// What a request names, each once and in the order in which it first comes: an answer can be much longer than its
/// question.
fn once<T: Clone + Ord>(named: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    named.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// Runs what one request asks for several times, at most `in_flight_max` at once; the outputs come in order.
async fn in_order<F: Future>(futures: Vec<F>, in_flight_max: usize) -> Vec<F::Output> {
    futures::stream::iter(futures).buffered(in_flight_max).collect().await
}
