//! What outlives a broker epoch: the locked data folder, the bucket, the metadata's writer.
//!
//! Owns: opening them in the only safe order. Nothing is written before the folder is ours and the bucket has shown that
//! it keeps its promises; nobody is fenced before the bucket has shown that it is of our cluster.

use std::path::PathBuf;
use std::sync::Arc;

use forebay_env::Env;
use forebay_format::{DiskId, ObjectName};
use forebay_metadata::Metadata;
use forebay_metadata::reader::Reader;
use forebay_metadata::state::{Key, Row};
use forebay_metadata::store::Host;
use forebay_store::{Bucket, BucketUrl, Prefix, Purpose, Store};
use forebay_types::ClusterId;

use crate::data::{DataError, DataFolder};
use crate::options::{BrokerOptions, BucketChoice};
use crate::start::StartError;

/// Enough rows to find the cluster's among the first.
const FIRST_ROWS: usize = 8;

/// The ground that broker epochs stand on.
pub(crate) struct Base {
    pub env: Env,
    pub options: Arc<BrokerOptions>,
    pub bucket: Bucket,
    pub stores: Stores,
    pub host: Host,
    pub metadata: Arc<dyn Metadata>,
    pub cluster: ClusterId,
    /// Where a `disk` WAL is, and the id of that disk.
    pub wal_folder: PathBuf,
    pub disk: DiskId,
    _folder: DataFolder,
}

/// The bucket by purpose, made once so that each purpose has one limit of requests in flight.
pub(crate) struct Stores {
    pub wal: Arc<dyn Store>,
    /// Data objects, written and read, with producer state.
    pub log: Arc<dyn Store>,
    /// Coordinator snapshots.
    pub snapshot: Arc<dyn Store>,
    pub collect: Arc<dyn Store>,
}

impl Base {
    /// Opens the bucket and the metadata on a folder that is ours.
    pub async fn open(env: &Env, options: Arc<BrokerOptions>, mut folder: DataFolder) -> Result<Self, StartError> {
        let url = match &options.bucket {
            BucketChoice::Embedded => Some(BucketUrl::File(folder.bucket())),
            BucketChoice::Url(url) => Some(url.clone()),
            BucketChoice::Provider(_) => None,
        };
        // What is in memory is new at every start, so a folder is not bound to it.
        let lasting = url != Some(BucketUrl::Memory);
        let bucket = match (&options.bucket, &url) {
            (BucketChoice::Provider(provider), _) => Bucket::over(env, Arc::clone(provider)),
            (_, Some(url)) => Bucket::open(env, url).await?,
            (_, None) => unreachable!("a bucket that is no provider has an address"),
        };
        bucket.probe().await?;
        let rows = bucket.store(Purpose::Metadata);
        let ours = folder.cluster().filter(|_| lasting).cloned();
        if let Some(ours) = &ours {
            let holder = Holder { folder: &folder, bucket: bucket.name(), embedded: url == Some(embedded(&folder)) };
            holder.check(env, &rows, ours).await?;
        }
        let host = Host::open(env, rows, ours).await?;
        let metadata: Arc<dyn Metadata> = host.metadata();
        let cluster = metadata.cluster().clone();
        let (wal_folder, disk) = if lasting {
            let disk = folder.claim(env, &cluster).await?;
            (folder.wal(), disk)
        } else {
            folder.scratch_wal(env).await?
        };
        let stores = Stores {
            wal: bucket.store(Purpose::Wal),
            log: bucket.store(Purpose::Upload),
            snapshot: bucket.store(Purpose::Snapshot),
            collect: bucket.store(Purpose::Collect),
        };
        Ok(Self {
            env: env.clone(),
            options,
            bucket,
            stores,
            host,
            metadata,
            cluster,
            wal_folder,
            disk,
            _folder: folder,
        })
    }
}

fn embedded(folder: &DataFolder) -> BucketUrl {
    BucketUrl::File(folder.bucket())
}

/// Whose bucket it is, looked up without disturbing whoever runs on it: opening the metadata for writing would end them.
struct Holder<'a> {
    folder: &'a DataFolder,
    bucket: &'a str,
    /// It lies in the folder itself, so it can only be gone, not another's.
    embedded: bool,
}

impl Holder<'_> {
    async fn check(&self, env: &Env, rows: &Arc<dyn Store>, ours: &ClusterId) -> Result<(), StartError> {
        let prefix = Prefix::new(ObjectName::METADATA_FOLDER).expect("a folder of ours is a prefix");
        let some = rows.list(&prefix, None, 1).await?;
        if some.is_empty() {
            let (folder, ours, bucket) = self.names(ours);
            return Err(DataError::EmptyBucket { folder, ours, bucket }.into());
        }
        if self.embedded {
            return Ok(());
        }
        match cluster_of(env, rows).await {
            Some(found) if found != *ours => {
                let (folder, ours, bucket) = self.names(ours);
                Err(DataError::OtherCluster { folder, ours, bucket, found }.into())
            }
            // What cannot be read is told by opening it.
            _ => Ok(()),
        }
    }

    fn names(&self, ours: &ClusterId) -> (PathBuf, ClusterId, String) {
        (self.folder.root().to_path_buf(), ours.clone(), self.bucket.to_owned())
    }
}

async fn cluster_of(env: &Env, rows: &Arc<dyn Store>) -> Option<ClusterId> {
    let reader = Reader::open(env, Arc::clone(rows)).await.ok()?;
    let first = reader.rows(None, FIRST_ROWS).await;
    reader.close().await;
    first.ok()?.into_iter().find_map(|(key, row)| match (key, row) {
        (Key::Cluster, Row::Cluster(cluster)) => Some(cluster.id),
        _ => None,
    })
}
