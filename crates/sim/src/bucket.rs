//! The bucket of a run: in memory, with faults on demand, every request an event of the trace.

use std::sync::Arc;

use async_trait::async_trait;
use forebay_env::Env;
use forebay_env::simulated::Trace;
use forebay_store::memory::MemoryStore;
use forebay_store::{Body, Faulty, Key, Object, ObjectMeta, Prefix, Span, Store, StoreError, Version};
use forebay_types::Timestamp;

use crate::machine::PowerSwitch;

/// What outlives every host.
#[derive(Clone)]
pub struct SimBucket {
    pub faults: Arc<Faulty>,
    pub store: Arc<dyn Store>,
    /// Behind the faults: what is really there.
    pub bare: Arc<dyn Store>,
}

impl SimBucket {
    /// `env` gives the store its clock.
    pub fn new(env: &Env, seed: u64, trace: &Trace, power: &PowerSwitch) -> Self {
        let bare: Arc<dyn Store> = Arc::new(MemoryStore::new(env));
        let faults = Arc::new(Faulty::with_seed(env, Arc::clone(&bare), seed));
        let store = Arc::new(Traced { inner: Arc::clone(&faults), power: power.clone(), trace: trace.clone() });
        Self { faults, store, bare }
    }
}

struct Traced {
    inner: Arc<Faulty>,
    power: PowerSwitch,
    trace: Trace,
}

impl Traced {
    /// A host that is frozen asks nothing any more.
    async fn gate(&self) {
        if self.power.is_frozen() {
            std::future::pending::<()>().await;
        }
    }

    fn note<T>(&self, what: &'static str, key: &str, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let about = match &answer {
            Ok(_) => key.to_owned(),
            Err(error) => format!("{key}: {error}"),
        };
        self.trace.observe(what, &about, b"");
        answer
    }
}

#[async_trait]
impl Store for Traced {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.gate().await;
        self.trace.observe("store create begins", key.as_str(), &body.to_bytes());
        let answer = self.inner.create(key, body).await;
        self.note("store create", key.as_str(), answer)
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.gate().await;
        self.trace.observe("store put begins", key.as_str(), &body.to_bytes());
        let answer = self.inner.put(key, body).await;
        self.note("store put", key.as_str(), answer)
    }

    fn can_replace(&self) -> bool {
        self.inner.can_replace()
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.gate().await;
        self.trace.observe("store replace begins", key.as_str(), &body.to_bytes());
        let answer = self.inner.replace(key, body, expected).await;
        self.note("store replace", key.as_str(), answer)
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        let answer = self.inner.read(key, span).await;
        self.note("store read", key.as_str(), answer)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let answer = self.inner.head(key).await;
        self.note("store head", key.as_str(), answer)
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let answer = self.inner.list(prefix, start_after, limit).await;
        self.note("store list", prefix.as_str(), answer)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.gate().await;
        let answer = self.inner.delete(key).await;
        self.note("store delete", key.as_str(), answer)
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}
