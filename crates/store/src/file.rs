//! A bucket in a folder: each object a file of the same name and bytes, so that it can be copied to S3 as it is.
//!
//! Owns: making a file appear under its name whole, once and for good, on a disk that promises only what
//! [`forebay_env::Disk`] says. Leaves to others: one process at a time per folder (the broker's lock); tools may read.
//!
//! # Consistency
//! 1. An object is written to a stage, synced, then linked to its name: `link` is the create-if-absent. A reader never
//!    opens a file that is being written.
//! 2. A name is told to nobody before it is durable: who links syncs the folder before answering, and who reads in a
//!    folder with a link under way, or not yet looked at since the process began, syncs it first. So what was seen once
//!    is there after a crash, as on S3.
//!
//! # Crash
//! A stage left behind is swept when the folder is opened next; a lock tells the stages of the living from those of the
//! dead. An error before the link did not happen, one from the link on may have.

mod folder;
mod known;
mod recent;
mod stage;

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_env::Env;
use forebay_types::Timestamp;

use crate::{Body, Key, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version};
use folder::{Folder, Publish};

/// A store in a folder of the local disk.
pub struct FileStore {
    env: Env,
    name: String,
    folder: Arc<Folder>,
}

impl FileStore {
    /// Makes the folder where there is none, and sweeps the stages of processes that ended.
    ///
    /// # Errors
    /// The folder cannot be made, read or written to.
    pub async fn open(env: &Env, root: &Path) -> io::Result<Self> {
        let (disk, id, now, path) = (env.disk(), env.random_u64(), env.now(), root.to_path_buf());
        let folder = env.blocking("store-file", move || Folder::open(disk, path, id, now)).await?;
        Ok(Self { env: env.clone(), name: format!("file://{}", root.display()), folder: Arc::new(folder) })
    }

    /// Runs `work` off the runtime. Dropping the future does not stop it.
    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let folder = Arc::clone(&self.folder);
        self.env.blocking("store-file", move || work(&folder)).await
    }

    async fn publish(&self, key: &Key, body: Body, how: Publish) -> Result<Option<Version>, StoreError> {
        let (key, now) = (key.clone(), self.env.now());
        self.run(move |folder| folder.publish(&key, &body, how, now)).await.map(|()| None)
    }
}

#[async_trait]
impl Store for FileStore {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.publish(key, body, Publish::IfAbsent).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.publish(key, body, Publish::InPlace).await
    }

    async fn replace(&self, key: &Key, _: Body, _: &Version) -> Result<Option<Version>, StoreError> {
        let error = StoreError::new(Operation::Replace, key, StoreErrorKind::Refused);
        Err(error.because("a folder has no compare-and-swap"))
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        let key = key.clone();
        self.run(move |folder| folder.read(&key, &span)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let key = key.clone();
        self.run(move |folder| folder.head(&key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let (prefix, start_after) = (prefix.clone(), start_after.cloned());
        self.run(move |folder| folder.list(&prefix, start_after.as_ref(), limit)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let key = key.clone();
        self.run(move |folder| folder.delete(&key)).await
    }

    fn now(&self) -> Option<Timestamp> {
        Some(self.env.now())
    }
}
