//! One broker epoch's log, put together: partitions, WAL, uploader and caches, in the order in which they may start.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_cache::CacheCounts;
use forebay_env::Env;
use forebay_metadata::{BrokerLife, Metadata};
use forebay_store::Store;
use forebay_types::{ByteSize, ClusterId, WalSequence};
use forebay_wal::{Provider, Wal, WalConfig, WalEnded};

use crate::cold::ColdReader;
use crate::open::Opener;
use crate::partition::Planted;
use crate::partitions::Partitions;
use crate::snapshot::Snapshots;
use crate::upload::{UploadConfig, UploadError, UploadParts, Uploader};
use crate::warm::Warm;

/// Bounds of the log's memory, and when uploads are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub wal: WalConfig,
    pub upload: UploadConfig,
    /// Batches that stay in memory after their commit.
    pub warm_budget: ByteSize,
    /// History read from the bucket that stays in memory.
    pub cache_budget: ByteSize,
    /// A planted bug: partitions open without their producers. A proof of exactly once must fail on it.
    pub sabotage_forget_producers: bool,
    /// A planted bug: readers of committed data are not told which transactions were aborted.
    pub sabotage_ignore_aborts: bool,
    /// A planted bug: readers are given what is not durable yet.
    pub sabotage_serve_before_durable: bool,
    /// A planted bug: readers of history are given what an object holds at their offsets of any partition of the topic.
    pub sabotage_stray_records: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            wal: WalConfig::default(),
            upload: UploadConfig::default(),
            warm_budget: ByteSize::mib(64),
            cache_budget: ByteSize::mib(64),
            sabotage_forget_producers: false,
            sabotage_ignore_aborts: false,
            sabotage_serve_before_durable: false,
            sabotage_stray_records: false,
        }
    }
}

/// What an owner is made of. All earlier lives must be closed (`Recovery`).
pub struct OwnerParts {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub metadata: Arc<dyn Metadata>,
    pub cluster: ClusterId,
    pub life: BrokerLife,
    pub provider: Box<dyn Provider>,
    /// The first free number of this life's data objects ([`crate::Recovered::next_sequence`]).
    pub next_sequence: WalSequence,
    /// The broker's defaults of topic configurations, under the topic's names for them.
    pub topic_defaults: BTreeMap<String, String>,
    pub config: LogConfig,
}

/// The running log of one broker epoch.
pub struct Owner {
    pub partitions: Arc<Partitions>,
    pub wal: Wal,
    cold: Arc<ColdReader>,
    warm: Arc<Warm>,
    uploader: Uploader,
}

impl Owner {
    /// Starts the WAL and opens all partitions.
    pub async fn start(parts: OwnerParts) -> Self {
        let OwnerParts { env, store, metadata, cluster, life, provider, next_sequence, topic_defaults, config } = parts;
        let snapshots = Snapshots::new(env.clone(), Arc::clone(&store), Arc::clone(&metadata), cluster.clone(), life);
        let snapshots = Arc::new(snapshots);
        let partitions = Partitions::new(env.clone(), topic_defaults, Arc::clone(&snapshots));
        let wal = Wal::start(&env, provider, Arc::clone(&partitions) as _, config.wal);
        let cold = ColdReader::new(env.clone(), Arc::clone(&store), Arc::clone(&metadata), config.cache_budget);
        let warm = Arc::new(Warm::new(config.warm_budget));
        let upload = UploadParts {
            env: env.clone(),
            store: Arc::clone(&store),
            metadata: Arc::clone(&metadata),
            cluster,
            life,
            config: config.upload,
            next_sequence,
            warm: Arc::clone(&warm),
            snapshots,
        };
        let uploader = Uploader::start(upload, wal.clone(), Arc::clone(&partitions));
        let forget_producers = config.sabotage_forget_producers;
        let planted = Planted {
            ignore_aborts: config.sabotage_ignore_aborts,
            serve_before_durable: config.sabotage_serve_before_durable,
            stray_records: config.sabotage_stray_records,
        };
        let (at, cold_reader) = (wal.clone(), Arc::clone(&cold));
        let opener = Opener { env, store, metadata, life, wal: at, cold: cold_reader, forget_producers, planted };
        partitions.follow(opener).await;
        Self { partitions, wal, cold, warm, uploader }
    }

    /// Refuses new appends, makes what was taken durable, and moves it to the bucket.
    ///
    /// # Errors
    /// The WAL or the uploads ended by a failure before that: the next start recovers what is in the WAL.
    pub async fn drain(&self) -> Result<(), DrainError> {
        self.wal.stop().await?;
        self.uploader.drain().await?;
        self.partitions.end_all("the broker is stopping");
        Ok(())
    }

    /// Returns once uploads have ended for good, which ends this broker epoch. Cancel safe.
    pub async fn uploads_ended(&self) -> Arc<UploadError> {
        self.uploader.ended().await
    }

    /// Bytes that are durable in the WAL only.
    pub fn pending_bytes(&self) -> usize {
        self.uploader.pending_bytes()
    }

    /// Bytes in memory although they are in the bucket.
    pub fn warm_bytes(&self) -> u64 {
        self.warm.bytes()
    }

    pub fn cache_counts(&self) -> CacheCounts {
        self.cold.counts()
    }
}

/// Why not everything is in the bucket.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error(transparent)]
    Wal(#[from] WalEnded),
    #[error(transparent)]
    Upload(#[from] Arc<UploadError>),
}
