//! `ls`: topics, logs and objects of a bucket, with ranges and sizes, without a broker.
//!
//! Owns: what is listed. Leaves to others: reading the metadata (`catalog`), printing (`cli`).

use std::sync::Arc;

use forebay_env::Env;
use forebay_metadata::state::{Snapshots, TopicState};
use forebay_store::Store;
use forebay_types::{
    ClusterId, LeaderEpoch, LogId, Offset, OffsetRange, PartitionIndex, Timestamp, TopicId, TopicName,
};

use crate::ToolError;
use crate::catalog::{Catalog, partitions_of, read_rows};
use crate::fsck::Tally;

/// What a bucket holds, as its metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub cluster: ClusterId,
    /// In order of names; those in the trash and those being purged included.
    pub topics: Vec<TopicListing>,
    /// Objects that something names, in order of their keys.
    pub objects: Vec<ObjectListing>,
    /// Objects that nothing reaches any more and that wait to be deleted.
    pub garbage: Tally,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicListing {
    pub name: TopicName,
    pub id: TopicId,
    pub state: TopicState,
    pub created_at: Timestamp,
    /// In order of their numbers.
    pub partitions: Vec<PartitionListing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionListing {
    pub partition: PartitionIndex,
    pub log: LogId,
    /// `None` until it was opened for the first time.
    pub leader_epoch: Option<LeaderEpoch>,
    pub log_start: Offset,
    /// The offset after the last committed record: what is in a WAL only comes after it.
    pub committed_end: Offset,
    /// Bytes of record batches in the bucket, those below the log start that are not yet let go included.
    pub bytes: u64,
    pub snapshots: Snapshots,
    /// In offset order.
    pub extents: Vec<ExtentListing>,
}

/// Where a range of a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentListing {
    pub range: OffsetRange,
    pub object: Arc<str>,
    /// Bytes of record batches.
    pub bytes: u64,
    pub max_timestamp: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectListing {
    pub name: Arc<str>,
    pub size: u64,
    /// How many ranges and snapshots in it are in use.
    pub uses: usize,
}

/// Lists a bucket; with `topic` only the topics of that name.
///
/// # Errors
/// The metadata cannot be read.
pub async fn list(env: &Env, store: &Arc<dyn Store>, topic: Option<&TopicName>) -> Result<Listing, ToolError> {
    let catalog = Catalog::of(&read_rows(env, store).await?)?;
    let mut topics: Vec<TopicListing> = catalog
        .topics
        .iter()
        .filter(|(_, row)| topic.is_none_or(|wanted| row.name == *wanted))
        .map(|(id, row)| TopicListing {
            name: row.name.clone(),
            id: *id,
            state: row.state,
            created_at: row.created_at,
            partitions: partitions(&catalog, *id),
        })
        .collect();
    topics.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    let objects = catalog.objects.iter().map(|(name, object)| ObjectListing {
        name: Arc::clone(name),
        size: object.size,
        uses: object.uses.len(),
    });
    let mut garbage = Tally::default();
    catalog.garbage.values().for_each(|object| garbage.add(object.size));
    Ok(Listing { cluster: catalog.cluster.clone(), topics, objects: objects.collect(), garbage })
}

fn partitions(catalog: &Catalog, topic: TopicId) -> Vec<PartitionListing> {
    catalog
        .partitions
        .range(partitions_of(topic))
        .map(|(id, row)| {
            let pieces = catalog.pieces(row.log);
            PartitionListing {
                partition: id.partition,
                log: row.log,
                leader_epoch: row.leader_epoch(),
                log_start: row.log_start,
                committed_end: catalog.committed_end(row.log),
                bytes: pieces.iter().map(|piece| piece.bytes).sum(),
                snapshots: catalog.snapshots.get(id).cloned().unwrap_or_default(),
                extents: pieces
                    .iter()
                    .map(|piece| ExtentListing {
                        range: piece.range,
                        object: Arc::clone(&piece.object),
                        bytes: piece.bytes,
                        max_timestamp: piece.max_timestamp,
                    })
                    .collect(),
            }
        })
        .collect()
}
