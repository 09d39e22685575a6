//! Which APIs there are: one row per key.
//!
//! Owns: keys, names, versions served and advertised, the handler of each. The answer to `ApiVersions` and
//! `docs/kafka-apis.md` are made from the rows. Leaves to others: what a request means (`handlers`).
//!
//! The level is Kafka 3.9 with Transactions V1: no `transaction.version` feature is finalised, so clients keep to the
//! versions below Transactions V2 (KIP-890) by themselves.
//!
//! Invariants:
//! 1. Every version that is served can be decoded and encoded; every version advertised above the lowest served is served.
//! 2. A key has one row, and rows are in order of keys.

use std::fmt::Write;
use std::ops::RangeInclusive;

use forebay_wire::kafka::messages::ApiKey;
use futures::future::BoxFuture;

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::handlers;

/// Answers one request of an API.
pub type Handler = for<'a> fn(&'a Context, Call<'a>) -> BoxFuture<'a, Result<Reply, CallError>>;

/// One API.
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// Versions that are answered.
    pub versions: RangeInclusive<i16>,
    /// The lowest version that clients are told of. Below `versions` where old librdkafka derives what else a broker
    /// can do from it (KAFKA-18659); such a request closes the connection, as in Kafka 4.
    pub advertised_from: i16,
    /// What a reader of the table should know: what it is for, what differs.
    pub note: &'static str,
    pub handler: Handler,
}

impl Api {
    /// The last version served and advertised.
    pub fn version_max(&self) -> i16 {
        *self.versions.end()
    }
}

/// The row of a key, if it is served.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().map(|at| &APIS[at])
}

macro_rules! apis {
    ($($key:ident $versions:expr, $($advertised:literal,)? $handler:ident, $note:literal;)*) => {
        /// Every API that is served, in order of keys.
        pub static APIS: &[Api] = &[$(
            Api {
                key: ApiKey::$key as i16,
                name: stringify!($key),
                versions: $versions,
                advertised_from: advertised!($versions $(, $advertised)?),
                note: $note,
                handler: |context, call| Box::pin(handlers::$handler::handle(context, call)),
            },
        )*];
    };
}

macro_rules! advertised {
    ($versions:expr) => {
        *$versions.start()
    };
    ($versions:expr, $advertised:literal) => {
        $advertised
    };
}

apis! {
    Produce 3..=11, 0, produce, "0 to 2 are advertised for old librdkafka and refused";
    Fetch 4..=17, fetch, "";
    ListOffsets 1..=9, list_offsets, "";
    Metadata 0..=12, metadata, "creates topics where asked and allowed";
    OffsetCommit 2..=9, offset_commit, "offsets are for the topic that has the name now";
    OffsetFetch 1..=9, offset_fetch, "";
    FindCoordinator 0..=6, find_coordinator, "creates the coordinators' topic and waits for it";
    JoinGroup 0..=9, join_group, "";
    Heartbeat 0..=4, heartbeat, "";
    LeaveGroup 0..=5, leave_group, "";
    SyncGroup 0..=5, sync_group, "";
    DescribeGroups 0..=5, describe_groups, "";
    ListGroups 0..=5, list_groups, "every group is classic";
    ApiVersions 0..=4, api_versions, "an unknown version is answered in version 0";
    CreateTopics 2..=7, create_topics, "any replication factor is accepted and means one broker over a durable bucket";
    DeleteTopics 1..=6, delete_topics, "to the trash: a deleted topic can be brought back for a while";
    DeleteRecords 0..=2, delete_records, "refused below what a pin holds";
    InitProducerId 0..=5, init_producer_id, "";
    OffsetForLeaderEpoch 2..=4, offset_for_leader_epoch, "";
    AddPartitionsToTxn 0..=3, add_partitions_to_txn, "";
    AddOffsetsToTxn 0..=4, add_offsets_to_txn, "";
    EndTxn 0..=4, end_txn, "";
    TxnOffsetCommit 0..=4, txn_offset_commit, "";
    DescribeAcls 1..=3, describe_acls, "there is no authorizer: SECURITY_DISABLED";
    DescribeConfigs 1..=4, describe_configs, "topics, brokers, broker loggers";
    AlterConfigs 0..=2, alter_configs, "topics only";
    DescribeLogDirs 1..=4, describe_log_dirs, "one directory, which stands for the bucket";
    CreatePartitions 0..=3, create_partitions, "";
    DeleteGroups 0..=2, delete_groups, "";
    ElectLeaders 0..=2, elect_leaders, "never needed: a partition has one owner";
    IncrementalAlterConfigs 0..=1, incremental_alter_configs, "topics only";
    ListPartitionReassignments 0..=0, list_partition_reassignments, "there are none";
    OffsetDelete 0..=0, offset_delete, "";
    DescribeCluster 0..=1, describe_cluster, "";
    DescribeProducers 0..=0, describe_producers, "";
    DescribeTransactions 0..=0, describe_transactions, "";
    ListTransactions 0..=1, list_transactions, "";
}

/// The table as a page for people.
pub fn page() -> String {
    let mut page = String::from(
        "# Kafka APIs\n\n\
         Level: Kafka 3.9 with Transactions V1. Made from the table in `crates/api/src/apis.rs` by\n\
         `UPDATE=1 cargo test -p forebay-api --test api page`.\n\n\
         | key | API | versions | notes |\n|--:|---|---|---|\n",
    );
    for api in APIS {
        let (min, max) = (api.advertised_from, api.version_max());
        let versions = if min == max { min.to_string() } else { format!("{min}–{max}") };
        writeln!(page, "| {} | {} | {versions} | {} |", api.key, api.name, api.note).expect("a string takes all");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are sorted and unique, and what is served the messages can code.
    #[test]
    fn the_table_is_sound() {
        assert!(APIS.is_sorted_by(|a, b| a.key < b.key), "sorted by key, each once");
        for api in APIS {
            let key = ApiKey::try_from(api.key).expect("a key of Kafka's");
            let coded = key.valid_versions();
            assert!(coded.min <= *api.versions.start() && api.version_max() <= coded.max, "{} {coded:?}", api.name);
            assert!(api.advertised_from <= *api.versions.start(), "{}", api.name);
        }
        assert!(find(18).is_some_and(|api| api.name == "ApiVersions") && find(4).is_none());
    }
}
