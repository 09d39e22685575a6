//! The bucket behind one trait: whole objects written once, read by range, listed in order.
//!
//! Owns: what a store promises, the providers that keep the promise (memory, a folder, S3), the layers around them
//! (retries, metering, injected faults), the protocol by which a numbered name is won exactly once (D6), and the check
//! at start that a store does what it must. Leaves to others: what the bytes mean (`format`) and when to write them.
//!
//! Invariants:
//! 1. An object is visible whole or not at all, and once a create or put has answered, it survives any crash.
//! 2. Of many creates of one name at most one succeeds. Nothing of ours rests on more than this: the local file system
//!    has no compare-and-swap.
//! 3. An error says whether the deed did not happen or may have happened ([`StoreErrorKind`]); a time-out is never
//!    taken for a refusal.
//! 4. A create is one attempt at every layer. Only [`create_exact`] repeats it, because only it can tell our own
//!    earlier success from somebody else's.
//! 5. Every request passes a meter before it leaves (D17), and every wait, repeat and page has a bound with a name (D16).
//!
//! Sources: S3's conditional writes (`If-None-Match: *`, `If-Match`), decisions D6, D12, D16, D17 and D18.

pub mod conformance;
pub mod faulty;
pub mod file;
pub mod memory;
pub mod s3;
pub mod slate;

mod body;
mod bucket;
mod clocks;
mod create;
mod error;
mod key;
mod meter;
mod probe;
mod retry;
mod span;
mod url;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_types::Timestamp;

pub use body::Body;
pub use bucket::{Bucket, OpenError, open};
pub use clocks::{CLOCKS_DIFFERENCE_MAX_MS, ClocksDiffer, clocks_agree};
pub use create::{CreateError, Created, create_exact};
pub use error::{Operation, StoreError, StoreErrorKind};
pub use faulty::{Fault, FaultRates, Faulty};
pub use key::{Key, KeyError, Prefix};
pub use meter::{Meter, MeterRow, Metered, Purpose};
pub use probe::{ProbeError, probe};
pub use retry::Retrying;
pub use span::Span;
pub use url::{BucketUrl, BucketUrlError};

/// The largest object that is read or written whole. What a store claims beyond this is not believed: a size from
/// outside never decides how much memory is taken.
pub const OBJECT_SIZE_MAX: u64 = 1 << 30;

/// One state of one object's bytes (S3's ETag). Equal versions are equal bytes; nothing else is told by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Arc<str>);

impl Version {
    pub fn new(raw: &str) -> Self {
        Self(raw.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a store knows of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    pub key: Key,
    /// Bytes in the whole object.
    pub size: u64,
    /// When the object was written, by the store's clock, or a later time: an object may be older than this, not
    /// younger, so that whoever waits for an age waits long enough.
    pub modified: Timestamp,
    /// Which state of the object this is, where the store tells states apart.
    pub version: Option<Version>,
}

/// Bytes of an object, and where in it they lie.
#[derive(Clone, Debug)]
pub struct Object {
    pub meta: ObjectMeta,
    /// The offset of the first of `bytes` in the object.
    pub start: u64,
    pub bytes: Bytes,
}

/// An object store. All methods may be dropped at any await: what they were asked to do then may or may not happen.
///
/// Unless a method says otherwise, an error is of kind `DidNotHappen`, `MayHaveHappened` (writes only), `Refused`,
/// `Full` (writes only) or `Corrupt`; see [`StoreErrorKind`] for what the caller does about each.
#[async_trait]
pub trait Store: Send + Sync {
    /// The store as a person knows it, for messages: `s3://bucket/prefix`.
    fn name(&self) -> &str;

    /// Creates an object where there is none of that name: one attempt. Gives the version written, where the store has
    /// versions. Use [`create_exact`] unless each outcome is handled by the caller.
    ///
    /// # Errors
    /// `AlreadyExists`: the store says that the name is taken. It may be by an earlier attempt of the caller's own, and
    /// it may be wrong (S3's 409): read the name.
    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError>;

    /// Writes an object, whatever was there before. For the metadata database alone, whose own protocol makes it safe.
    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError>;

    /// Whether [`Store::replace`] works here.
    fn can_replace(&self) -> bool {
        false
    }

    /// Writes an object in place of the version `expected`: one attempt. For the metadata database alone, and only
    /// where [`Store::can_replace`].
    ///
    /// # Errors
    /// `Changed`: the object is gone or has another version, which after a lost answer may be the caller's own.
    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError>;

    /// Reads the part of an object that `span` names, cut where the object ends.
    ///
    /// # Errors
    /// `NotFound`; `OutOfRange` where the span holds no byte of the object.
    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError>;

    /// # Errors
    /// `NotFound`.
    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError>;

    /// The objects below `prefix` whose keys come after `start_after`, in byte order of their keys. Fewer than `limit`
    /// only where there are no more. An object created before the call is listed.
    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError>;

    /// Deletes an object; one that is not there is fine.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// The store's clock, to the second, where it is known: nothing is expired or collected while it and ours disagree
    /// (D10). On S3 it is known once the store has answered a request.
    fn now(&self) -> Option<Timestamp>;

    /// Reads a whole object.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        Ok(self.read(key, Span::All).await?.bytes)
    }

    /// Reads exactly `range` of an object. An empty range asks nobody.
    ///
    /// # Errors
    /// `NotFound`; `OutOfRange`, naming the object's size, where any of the range lies past the end.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let object = self.read(key, Span::Range(range.clone())).await?;
        if object.meta.size < range.end {
            let kind = StoreErrorKind::OutOfRange { size: object.meta.size };
            return Err(StoreError::new(Operation::Read, key, kind));
        }
        // A store that answers with another part of the object would have us parse the wrong bytes.
        if object.start != range.start || object.bytes.len() as u64 != range.end - range.start {
            return Err(StoreError::new(Operation::Read, key, StoreErrorKind::Corrupt));
        }
        Ok(object.bytes)
    }
}
