//! Opening a bucket, and handing out stores on it that are metered by purpose and retried.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_env::Env;

use crate::file::FileStore;
use crate::memory::MemoryStore;
use crate::s3::{S3Error, S3Store};
use crate::{BucketUrl, Meter, Metered, ProbeError, Purpose, Retrying, Store, probe};

/// Why a bucket cannot be used. Nothing was asked of an S3 store yet: [`Bucket::probe`] does that.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("could not use the folder {} as a bucket", folder.display())]
    File { folder: PathBuf, source: io::Error },
    #[error("could not use the bucket {bucket}")]
    S3 { bucket: String, source: S3Error },
}

/// Opens the bare provider for `url`: neither metered nor retried.
///
/// # Errors
/// The folder cannot be made or written to, or the environment does not say how to reach S3.
pub async fn open(env: &Env, url: &BucketUrl) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match url {
        BucketUrl::Memory => Arc::new(MemoryStore::new(env)),
        BucketUrl::File(folder) => {
            let opened = FileStore::open(env, folder).await;
            Arc::new(opened.map_err(|source| OpenError::File { folder: folder.clone(), source })?)
        }
        BucketUrl::S3 { bucket, prefix } => {
            let opened = S3Store::from_environment(env, bucket, prefix.clone());
            Arc::new(opened.map_err(|source| OpenError::S3 { bucket: bucket.clone(), source })?)
        }
    })
}

/// One bucket of a process: its provider and its meter. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    env: Env,
    provider: Arc<dyn Store>,
    meter: Arc<Meter>,
}

impl Bucket {
    /// # Errors
    /// As [`open`].
    pub async fn open(env: &Env, url: &BucketUrl) -> Result<Self, OpenError> {
        Ok(Self::over(env, open(env, url).await?))
    }

    /// The bucket that `provider` is: a [`crate::Faulty`] one in tests, one shared by many brokers in simulation.
    pub fn over(env: &Env, provider: Arc<dyn Store>) -> Self {
        Self { env: env.clone(), provider, meter: Arc::default() }
    }

    /// A store for one purpose, with its own limit of requests in flight. Make one per purpose and share it.
    pub fn store(&self, purpose: Purpose) -> Arc<dyn Store> {
        let metered = Metered::new(Arc::clone(&self.provider), Arc::clone(&self.meter), purpose);
        Arc::new(Retrying::new(&self.env, Arc::new(metered)))
    }

    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub fn name(&self) -> &str {
        self.provider.name()
    }

    /// Checks at start that the store keeps its promises.
    ///
    /// # Errors
    /// It does not, or it cannot be reached: the process must not write to it.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        probe(&self.env, &*self.store(Purpose::Check)).await
    }
}
