//! DescribeLogDirs, key 35, versions 1 to 4. KIP-113, KIP-827 (sizes).
//!
//! Differs from Kafka: there is one directory, [`LOG_DIR`], which stands for the bucket and has no total size. A
//! partition's size is that of its records, in the bucket and in the write-ahead log: what moves from one to the other at this
//! moment may be counted in both.

use std::collections::{BTreeMap, BTreeSet};

use forebay_metadata::service::TopicRow;
use forebay_wire::kafka::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use forebay_wire::kafka::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::lookup::{self, text};

/// The bucket's name as a directory.
pub(crate) const LOG_DIR: &str = "/bucket";

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: DescribeLogDirsRequest = call.decode()?;
    // What is asked about and not there is left out, as in Kafka.
    let topics: Vec<DescribeLogDirsTopic> = match &request.topics {
        None => context.metadata.topics().list().iter().map(|row| topic(context, row, |_| true)).collect(),
        Some(asked) => {
            // A topic that is named twice is answered once, with all that is asked of it.
            let mut wanted: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
            for asked in asked {
                wanted.entry(&asked.topic).or_default().extend(&asked.partitions);
            }
            let found = wanted.into_iter().filter_map(|(name, wanted)| {
                let row = lookup::row(context, name)?;
                Some(topic(context, &row, |index| wanted.contains(&index)))
            });
            found.collect()
        }
    };
    let result = DescribeLogDirsResult::default().with_log_dir(LOG_DIR.into()).with_topics(topics);
    call.answer(&DescribeLogDirsResponse::default().with_results(vec![result]))
}

fn topic(context: &Context, row: &TopicRow, is_wanted: impl Fn(i32) -> bool) -> DescribeLogDirsTopic {
    let partitions = row.partitions.iter().filter(|row| is_wanted(row.id.partition.get())).map(|row| {
        // In this order, so that nothing falls between the two.
        let in_wal = context.partitions.get(row.id).map_or(0, |partition| partition.uncommitted_bytes());
        let bytes = in_wal.saturating_add(context.metadata.log_size(row.log).bytes);
        DescribeLogDirsPartition::default()
            .with_partition_index(row.id.partition.get())
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
    });
    DescribeLogDirsTopic::default().with_name(text(row.name.as_str()).into()).with_partitions(partitions.collect())
}
