//! The bucket of a run: in memory, with faults on demand, every request an event of the trace.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use forebay_env::Env;
use forebay_format::ObjectName;
use forebay_store::memory::MemoryStore;
use forebay_store::{Body, Faulty, Key, Object, ObjectMeta, Prefix, Span, Store, StoreError, Version};
use forebay_types::Timestamp;

use crate::machine::Machine;

/// What outlives every host.
#[derive(Clone)]
pub struct SimBucket {
    pub faults: Arc<Faulty>,
    /// Behind the faults: what is really there.
    pub bare: Arc<dyn Store>,
    collected: Arc<AtomicU64>,
}

impl SimBucket {
    /// `env` gives the store its clock, which never jumps.
    pub fn new(env: &Env, seed: u64) -> Self {
        let bare: Arc<dyn Store> = Arc::new(MemoryStore::new(env));
        let faults = Arc::new(Faulty::with_seed(env, Arc::clone(&bare), seed));
        Self { faults, bare, collected: Arc::default() }
    }

    /// The bucket as a host reaches it.
    pub fn seen_from(&self, machine: &Machine) -> Arc<dyn Store> {
        let (inner, collected) = (Arc::clone(&self.faults), Arc::clone(&self.collected));
        Arc::new(Traced { inner, machine: machine.clone(), collected })
    }

    /// Objects with records or snapshots that brokers have deleted, the database's own not counted.
    pub fn collected(&self) -> u64 {
        self.collected.load(Ordering::Relaxed)
    }
}

struct Traced {
    inner: Arc<Faulty>,
    machine: Machine,
    collected: Arc<AtomicU64>,
}

impl Traced {
    /// A host that is frozen asks nothing any more; one that is cut off or paused asks, and hears, later.
    async fn passed(&self) {
        self.machine.gate.passed().await;
        if self.machine.power.is_frozen() {
            std::future::pending::<()>().await;
        }
    }

    async fn send<T>(
        &self,
        what: &'static str,
        key: &str,
        request: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let host = self.machine.name;
        self.passed().await;
        let answer = request.await;
        let about = match &answer {
            Ok(_) => format!("{host} {key}"),
            Err(error) => format!("{host} {key}: {error}"),
        };
        self.machine.trace.observe(what, &about, b"");
        self.machine.gate.passed().await;
        answer
    }

    async fn write<T>(
        &self,
        what: &'static str,
        key: &Key,
        body: &Body,
        request: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.passed().await;
        let about = format!("{} begins {key}", self.machine.name);
        self.machine.trace.observe(what, &about, &body.to_bytes());
        self.send(what, key.as_str(), request).await
    }
}

#[async_trait]
impl Store for Traced {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.write("store create", key, &body, self.inner.create(key, body.clone())).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.write("store put", key, &body, self.inner.put(key, body.clone())).await
    }

    fn can_replace(&self) -> bool {
        self.inner.can_replace()
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.write("store replace", key, &body, self.inner.replace(key, body.clone(), expected)).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        self.send("store read", key.as_str(), self.inner.read(key, span)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.send("store head", key.as_str(), self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        self.send("store list", prefix.as_str(), self.inner.list(prefix, start_after, limit)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let answer = self.send("store delete", key.as_str(), self.inner.delete(key)).await;
        if answer.is_ok() && key.as_str().parse::<ObjectName>().is_ok() {
            self.collected.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}
