//! Counting every request where it is made (D17): by operation and by what it is for.
//!
//! Invariants:
//! 1. A request is counted before it leaves, so one that never answers is counted too; repeats count each.
//! 2. The bytes of a write are counted when it leaves, those of a read when they have come.

use std::array;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use forebay_types::Timestamp;

use crate::{Body, Key, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version};

/// What a request is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Making records durable, and sealing and replaying that.
    Wal,
    /// Data objects written behind a `disk` WAL.
    Upload,
    /// Records read for clients.
    Fetch,
    /// The metadata database and its journal.
    Metadata,
    /// Producer state and coordinator snapshots.
    Snapshot,
    /// Merges and compaction.
    Merge,
    /// Deleting what nothing reaches.
    Collect,
    /// The check at start, and tools.
    Check,
}

impl Purpose {
    pub const ALL: [Self; 8] =
        [Self::Wal, Self::Upload, Self::Fetch, Self::Metadata, Self::Snapshot, Self::Merge, Self::Collect, Self::Check];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Upload => "upload",
            Self::Fetch => "fetch",
            Self::Metadata => "metadata",
            Self::Snapshot => "snapshot",
            Self::Merge => "merge",
            Self::Collect => "collect",
            Self::Check => "check",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counters of one operation for one purpose. Each stands alone, so relaxed order is enough.
#[derive(Default)]
struct Cell {
    requests: AtomicU64,
    failures: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

/// What was counted for one operation and purpose since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterRow {
    pub operation: Operation,
    pub purpose: Purpose,
    pub requests: u64,
    /// Requests that ended in `DidNotHappen`, `MayHaveHappened`, `Refused`, `Full` or `Corrupt`.
    pub failures: u64,
    /// Bytes of objects, without what the protocol adds.
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// All counters of one bucket.
pub struct Meter {
    cells: [[Cell; Purpose::ALL.len()]; Operation::ALL.len()],
}

impl Default for Meter {
    fn default() -> Self {
        Self { cells: array::from_fn(|_| array::from_fn(|_| Cell::default())) }
    }
}

impl Meter {
    fn cell(&self, operation: Operation, purpose: Purpose) -> &Cell {
        &self.cells[operation as usize][purpose as usize]
    }

    /// One row for each operation and purpose, in a fixed order, those with nothing included.
    pub fn rows(&self) -> Vec<MeterRow> {
        let pairs = Operation::ALL.into_iter().flat_map(|o| Purpose::ALL.into_iter().map(move |p| (o, p)));
        pairs.map(|(operation, purpose)| self.row(operation, purpose)).collect()
    }

    pub fn row(&self, operation: Operation, purpose: Purpose) -> MeterRow {
        let cell = self.cell(operation, purpose);
        MeterRow {
            operation,
            purpose,
            requests: cell.requests.load(Ordering::Relaxed),
            failures: cell.failures.load(Ordering::Relaxed),
            bytes_sent: cell.bytes_sent.load(Ordering::Relaxed),
            bytes_received: cell.bytes_received.load(Ordering::Relaxed),
        }
    }
}

/// A store whose requests are counted for one purpose.
pub struct Metered {
    inner: Arc<dyn Store>,
    meter: Arc<Meter>,
    purpose: Purpose,
}

impl Metered {
    pub fn new(inner: Arc<dyn Store>, meter: Arc<Meter>, purpose: Purpose) -> Self {
        Self { inner, meter, purpose }
    }

    fn leaves(&self, operation: Operation, bytes: u64) -> &Cell {
        let cell = self.meter.cell(operation, self.purpose);
        cell.requests.fetch_add(1, Ordering::Relaxed);
        cell.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        cell
    }
}

impl Cell {
    fn returns<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let failed = answer.as_ref().is_err_and(|error| match error.kind() {
            StoreErrorKind::DidNotHappen
            | StoreErrorKind::MayHaveHappened
            | StoreErrorKind::Refused
            | StoreErrorKind::Corrupt
            | StoreErrorKind::Full => true,
            StoreErrorKind::NotFound
            | StoreErrorKind::AlreadyExists
            | StoreErrorKind::Changed
            | StoreErrorKind::OutOfRange { .. } => false,
        });
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
        answer
    }
}

#[async_trait]
impl Store for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.leaves(Operation::Create, body.len()).returns(self.inner.create(key, body).await)
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.leaves(Operation::Put, body.len()).returns(self.inner.put(key, body).await)
    }

    fn can_replace(&self) -> bool {
        self.inner.can_replace()
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.leaves(Operation::Replace, body.len()).returns(self.inner.replace(key, body, expected).await)
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        let cell = self.leaves(Operation::Read, 0);
        let answer = cell.returns(self.inner.read(key, span).await);
        if let Ok(object) = &answer {
            cell.bytes_received.fetch_add(object.bytes.len() as u64, Ordering::Relaxed);
        }
        answer
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.leaves(Operation::Head, 0).returns(self.inner.head(key).await)
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        self.leaves(Operation::List, 0).returns(self.inner.list(prefix, start_after, limit).await)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.leaves(Operation::Delete, 0).returns(self.inner.delete(key).await)
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}
