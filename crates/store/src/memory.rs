//! A bucket in memory, for tests, simulation and a broker that may forget everything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_env::Env;
use forebay_types::Timestamp;
use parking_lot::Mutex;

use crate::{Body, Key, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version};

/// A store that lasts as long as this value. Share it to let a "process" crash and come back to its bucket.
pub struct MemoryStore {
    env: Env,
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    by_key: BTreeMap<Key, Stored>,
    /// Writes so far; the version of each object is the number of the write that made it.
    writes: u64,
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    modified: Timestamp,
    version: Version,
}

impl Stored {
    fn meta(&self, key: &Key) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            size: self.bytes.len() as u64,
            modified: self.modified,
            version: Some(self.version.clone()),
        }
    }
}

impl MemoryStore {
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), objects: Mutex::default() }
    }

    fn stamp(&self, objects: &mut Objects, body: &Body) -> Stored {
        objects.writes += 1;
        Stored {
            bytes: body.to_bytes(),
            modified: self.env.now(),
            version: Version::new(&format!("\"{}\"", objects.writes)),
        }
    }

    fn find(&self, operation: Operation, key: &Key) -> Result<Stored, StoreError> {
        let found = self.objects.lock().by_key.get(key).cloned();
        found.ok_or_else(|| StoreError::new(operation, key, StoreErrorKind::NotFound))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory:"
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        let mut objects = self.objects.lock();
        let stored = self.stamp(&mut objects, &body);
        match objects.by_key.entry(key.clone()) {
            Entry::Occupied(_) => Err(StoreError::new(Operation::Create, key, StoreErrorKind::AlreadyExists)),
            Entry::Vacant(free) => Ok(Some(free.insert(stored).version.clone())),
        }
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        let mut objects = self.objects.lock();
        let stored = self.stamp(&mut objects, &body);
        let version = stored.version.clone();
        objects.by_key.insert(key.clone(), stored);
        Ok(Some(version))
    }

    fn can_replace(&self) -> bool {
        true
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        let mut objects = self.objects.lock();
        let stored = self.stamp(&mut objects, &body);
        match objects.by_key.get_mut(key) {
            Some(there) if there.version == *expected => {
                *there = stored;
                Ok(Some(there.version.clone()))
            }
            _ => Err(StoreError::new(Operation::Replace, key, StoreErrorKind::Changed)),
        }
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        let stored = self.find(Operation::Read, key)?;
        let size = stored.bytes.len() as u64;
        let Some(range) = span.within(size) else {
            return Err(StoreError::new(Operation::Read, key, StoreErrorKind::OutOfRange { size }));
        };
        let place = |offset: u64| usize::try_from(offset).expect("within bytes that are in memory");
        let bytes = stored.bytes.slice(place(range.start)..place(range.end));
        Ok(Object { meta: stored.meta(key), start: range.start, bytes })
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        Ok(self.find(Operation::Head, key)?.meta(key))
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let objects = self.objects.lock();
        let start = match (start_after, Key::new(prefix.as_str())) {
            (Some(after), Ok(folder)) if folder > *after => Bound::Excluded(folder),
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Ok(folder)) => Bound::Excluded(folder),
            (None, Err(_)) => Bound::Unbounded,
        };
        // Keys of a folder stand together but for siblings such as `a-b` between `a` and `a/x`.
        let leading = prefix.leading();
        let found = objects.by_key.range((start, Bound::Unbounded));
        let within = found.take_while(|(key, _)| key.as_str() < leading.as_str() || prefix.contains(key));
        let below = within.filter(|(key, _)| prefix.contains(key));
        Ok(below.take(limit).map(|(key, stored)| stored.meta(key)).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.objects.lock().by_key.remove(key);
        Ok(())
    }

    fn now(&self) -> Option<Timestamp> {
        Some(self.env.now())
    }
}
