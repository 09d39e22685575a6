//! Our store as an [`object_store::ObjectStore`], so that SlateDB's requests are metered, retried and simulated like ours.
//!
//! Owns: the translation, and telling our own create from another's. Two databases racing for one manifest may write the
//! very same bytes, so the bytes cannot tell whose they are. Every object written here ends in a trailer with the id of
//! the write, and then [`create_exact`](crate::create_exact) can. SlateDB repeats a put under one id of its own
//! (`slatedbputid`); where it gives one it is taken, so that its repeat finds our first attempt and not a stranger.
//!
//! The trailer, [`TRAILER_SIZE`] bytes, also has the checksum of the object: SlateDB's sorted tables have checksums of
//! their own, its manifests have none. Who reads the whole object checks it. What its write-ahead log consists of is always
//! read whole, whatever part is asked for: it is small, is read when a database opens, and SlateDB 0.18 believes the positions
//! in it, so that one wrong bit there can end the process. `docs/formats.md` shows the layout. Sizes and ranges seen from
//! outside leave the trailer out.
//!
//! Damage: SlateDB repeats what fails for as long as it takes, unless told that it will never succeed. So a store's answer
//! that makes no sense is asked for [`READS_MAX`] times in all, in case the reading went wrong and not the object, and
//! then handed on as final: whoever opens the database learns which object is bad instead of waiting for ever.
//!
//! Left out: multipart uploads are gathered and put as one object of at most [`UPLOAD_SIZE_MAX`]; tags and attributes
//! other than the id are dropped; `PutMode::Update` works where the store can replace.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use forebay_env::Env;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, CopyMode, CopyOptions, Error, Extensions, GetOptions, GetRange, GetResult, GetResultPayload,
    ListResult, MultipartUpload, ObjectMeta as SlateMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use slatedb_common::retry::NonRetryable;

use crate::create::create_versioned;
use crate::{
    Body, CreateError, Key, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version,
};

const STORE: &str = "forebay";

/// What every object has behind its bytes.
pub const TRAILER_SIZE: u64 = 32;
const TRAILER_MAGIC: &[u8; 4] = b"FBSL";
const TRAILER_VERSION: u8 = 2;
/// The version without a checksum: the id's length in the next byte, then the id.
const TRAILER_VERSION_UNCHECKED: u8 = 1;
/// Bytes before the id of a write.
const ID_AT: usize = 8;
const ID_SIZE: usize = 16;
const CRC_AT: usize = 28;
/// SlateDB's name for the id of a write that it may repeat.
const PUT_ID_ATTRIBUTE: &str = "slatedbputid";

/// The largest multipart upload, all of which is held in memory: keep SlateDB's `max_sst_size` well below.
pub const UPLOAD_SIZE_MAX: usize = 256 * 1024 * 1024;
/// Deletes in flight of one stream.
const DELETES_IN_FLIGHT_MAX: usize = 8;
/// Reads of one object until it is called damaged.
const READS_MAX: u32 = 3;
/// Objects asked for at once in a listing.
const LIST_PAGE_MAX: usize = 1000;

/// `store` as SlateDB wants it. Give it a store that retries ([`crate::Bucket::store`]).
pub fn adapter(env: &Env, store: Arc<dyn Store>) -> Arc<dyn ObjectStore> {
    Arc::new(Adapter { env: env.clone(), store })
}

/// Reads every object below `prefix` whole, and gives the first that is not what was written through [`adapter`]. For
/// whoever could not open a database and wants to know why: most of what SlateDB reads has a checksum, but its error does
/// not always say which object it was.
///
/// # Errors
/// The store does not answer.
pub async fn first_damaged(env: &Env, store: Arc<dyn Store>, prefix: &Prefix) -> Result<Option<Error>> {
    let adapter = Adapter { env: env.clone(), store };
    let mut after = None;
    loop {
        let page = adapter.store.list(prefix, after.as_ref(), LIST_PAGE_MAX).await.map_err(|e| foreign(prefix, e))?;
        for object in &page {
            match adapter.read(&object.key, None).await {
                // Collected meanwhile.
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) if NonRetryable::find(&error).is_some() => return Ok(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match page.last() {
            Some(last) if page.len() == LIST_PAGE_MAX => after = Some(last.key.clone()),
            _ => return Ok(None),
        }
    }
}

#[derive(Clone)]
struct Adapter {
    env: Env,
    store: Arc<dyn Store>,
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.store.name())
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Adapter({})", self.store.name())
    }
}

/// The id of one write, as it stands in the trailer.
struct PutId([u8; ID_SIZE]);

impl PutId {
    /// SlateDB's id for this write and its repeats, or a fresh one.
    fn of(env: &Env, attributes: &Attributes) -> Self {
        let given = attributes.get(&Attribute::Metadata(PUT_ID_ATTRIBUTE.into()));
        if let Some(bits) = given.and_then(|id| ulid(id.as_bytes())) {
            return Self(bits.to_be_bytes());
        }
        let mut id = [0; ID_SIZE];
        env.fill_random(&mut id);
        Self(id)
    }

    /// `payload` and the trailer, nothing copied.
    fn seal(&self, payload: &PutPayload) -> Body {
        let mut crc = crc();
        payload.iter().for_each(|chunk| crc.update(chunk));
        let mut trailer = vec![0; usize::try_from(TRAILER_SIZE).expect("small")];
        trailer[..4].copy_from_slice(TRAILER_MAGIC);
        trailer[4] = TRAILER_VERSION;
        trailer[ID_AT..ID_AT + ID_SIZE].copy_from_slice(&self.0);
        trailer[CRC_AT..].copy_from_slice(&finish(&crc).to_le_bytes());
        Body::new(payload.iter().cloned().chain([trailer.into()]).collect())
    }
}

/// The bits of a ULID's text: 26 digits to the base of 32, in Crockford's alphabet.
fn ulid(text: &[u8]) -> Option<u128> {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    if text.len() != 26 || text[0] > b'7' {
        return None;
    }
    text.iter().try_fold(0, |bits: u128, digit| {
        let value = DIGITS.iter().position(|d| d == digit)?;
        Some(bits << 5 | u128::try_from(value).ok()?)
    })
}

fn crc() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)
}

fn finish(crc: &crc_fast::Digest) -> u32 {
    u32::try_from(crc.finalize()).expect("a CRC of 32 bits")
}

/// Checks the trailer; and `whole`, if the whole object was read with it.
fn check_trailer(key: &Key, trailer: &[u8], whole: Option<&[u8]>) -> std::result::Result<(), StoreError> {
    let reserved =
        |at: std::ops::Range<usize>| trailer.get(at).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
    let known = trailer.starts_with(TRAILER_MAGIC)
        && match trailer.get(4) {
            Some(&TRAILER_VERSION) => reserved(5..ID_AT) && reserved(ID_AT + ID_SIZE..CRC_AT),
            Some(&TRAILER_VERSION_UNCHECKED) => true,
            _ => false,
        };
    if !known {
        return Err(stranger(key));
    }
    let Some(whole) = whole.filter(|_| trailer[4] == TRAILER_VERSION) else { return Ok(()) };
    let wanted = u32::from_le_bytes(trailer[CRC_AT..].try_into().expect("a trailer ends in four bytes of checksum"));
    let mut crc = crc();
    crc.update(whole);
    let seen = finish(&crc);
    if wanted == seen {
        return Ok(());
    }
    let what = format!("it has checksum {seen:#010x} and was written with {wanted:#010x}");
    Err(StoreError::new(Operation::Read, key, StoreErrorKind::Corrupt).because(what))
}

/// Whether SlateDB keeps its write-ahead log in it.
fn is_of_wal(key: &Key) -> bool {
    key.as_str().contains("/wal/")
}

fn key_of(path: &Path) -> Result<Key> {
    Key::new(path.as_ref()).map_err(|source| Error::Generic { store: STORE, source: source.into() })
}

fn prefix_of(path: Option<&Path>) -> Result<Prefix> {
    let text = path.map_or("", |path| path.as_ref());
    Prefix::new(text).map_err(|source| Error::Generic { store: STORE, source: source.into() })
}

fn foreign(subject: &impl ToString, error: StoreError) -> Error {
    let path = subject.to_string();
    match error.kind() {
        StoreErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        StoreErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        StoreErrorKind::Changed => Error::Precondition { path, source: error.into() },
        StoreErrorKind::Refused => Error::PermissionDenied { path, source: error.into() },
        StoreErrorKind::Corrupt | StoreErrorKind::OutOfRange { .. } => {
            Error::Generic { store: STORE, source: NonRetryable(error.into()).into() }
        }
        StoreErrorKind::DidNotHappen | StoreErrorKind::MayHaveHappened | StoreErrorKind::Full => {
            Error::Generic { store: STORE, source: error.into() }
        }
    }
}

/// An object that was not written through here, or is not what was written.
fn stranger(key: &Key) -> StoreError {
    StoreError::new(Operation::Read, key, StoreErrorKind::Corrupt)
        .because("it does not end in the trailer that every object of the metadata database has")
}

/// How an object looks from outside. One without room for a trailer is refused, in listings too: SlateDB takes an empty
/// sorted table for one that holds nothing, and what was in it would be lost unseen.
fn outer(meta: &ObjectMeta) -> Result<SlateMeta> {
    let millis = meta.modified.as_millis();
    Ok(SlateMeta {
        location: Path::parse(meta.key.as_str())?,
        last_modified: DateTime::from_timestamp_millis(millis).unwrap_or_default(),
        size: meta.size.checked_sub(TRAILER_SIZE).ok_or_else(|| foreign(&meta.key, stranger(&meta.key)))?,
        e_tag: meta.version.as_ref().map(ToString::to_string),
        version: None,
    })
}

fn written(version: Option<Version>) -> PutResult {
    PutResult { e_tag: version.map(|v| v.to_string()), version: None, extensions: Extensions::new() }
}

impl Adapter {
    async fn create(&self, key: &Key, body: Body) -> Result<PutResult> {
        match create_versioned(&self.env, &*self.store, key, body).await {
            Ok((_, version)) => Ok(written(version)),
            Err(CreateError::Store(error)) => Err(foreign(key, error)),
            Err(error @ CreateError::Theirs { .. }) => {
                Err(Error::AlreadyExists { path: key.to_string(), source: error.into() })
            }
        }
    }

    /// Replaces `expected`; where the answer was lost, looks whether it was done.
    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<PutResult> {
        let error = match self.store.replace(key, body.clone(), expected).await {
            Ok(version) => return Ok(written(version)),
            Err(error) => error,
        };
        if matches!(error.kind(), StoreErrorKind::Changed | StoreErrorKind::MayHaveHappened)
            && let Ok(found) = self.store.read(key, Span::All).await
            && body.equals(&found.bytes)
        {
            return Ok(written(found.meta.version));
        }
        Err(foreign(key, error))
    }

    async fn put(
        &self,
        path: &Path,
        payload: &PutPayload,
        mode: PutMode,
        attributes: &Attributes,
    ) -> Result<PutResult> {
        let key = key_of(path)?;
        let body = PutId::of(&self.env, attributes).seal(payload);
        match mode {
            PutMode::Create => self.create(&key, body).await,
            PutMode::Overwrite => self.store.put(&key, body).await.map(written).map_err(|e| foreign(&key, e)),
            PutMode::Update(expected) => match expected.e_tag.as_deref().map(Version::new) {
                Some(expected) if self.store.can_replace() => self.replace(&key, body, &expected).await,
                _ => Err(Error::NotImplemented {
                    operation: "put_opts with PutMode::Update".to_owned(),
                    implementer: self.store.name().to_owned(),
                }),
            },
        }
    }

    /// The bytes of an object that `range` names, without the trailer, and the whole object's description.
    async fn read(&self, key: &Key, range: Option<&GetRange>) -> Result<(SlateMeta, u64, Bytes)> {
        let mut reads = 0;
        let found = loop {
            reads += 1;
            match self.read_once(key, range).await {
                Err(error) if error.kind() == StoreErrorKind::Corrupt && reads < READS_MAX => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "an object of the metadata database is read again");
                }
                other => break other.map_err(|error| foreign(key, error))?,
            }
        };
        Ok((outer(&found.meta)?, found.start, found.bytes))
    }

    async fn read_once(&self, key: &Key, range: Option<&GetRange>) -> std::result::Result<Object, StoreError> {
        let inside = range.filter(|_| is_of_wal(key));
        let span = match range {
            None => Span::All,
            Some(_) if inside.is_some() => Span::All,
            Some(GetRange::Bounded(range)) => Span::Range(range.clone()),
            Some(GetRange::Offset(start)) => Span::From(*start),
            Some(GetRange::Suffix(count)) => Span::Last(count.saturating_add(TRAILER_SIZE)),
        };
        let mut found = self.store.read(key, span).await?;
        let size = found.meta.size.checked_sub(TRAILER_SIZE).ok_or_else(|| stranger(key))?;
        // Where the trailer was read with the bytes it is checked and cut off.
        let past = (found.start + found.bytes.len() as u64).saturating_sub(size);
        let kept = found.bytes.len().saturating_sub(usize::try_from(past).expect("within bytes that were read"));
        let trailer = found.bytes.split_off(kept);
        if trailer.len() as u64 == TRAILER_SIZE {
            check_trailer(key, &trailer, (found.start == 0).then_some(&found.bytes))?;
        }
        if let Some(inside) = inside {
            let out_of_range = |_| StoreError::new(Operation::Read, key, StoreErrorKind::OutOfRange { size });
            let asked = inside.as_range(size).map_err(out_of_range)?;
            let at = |position: u64| usize::try_from(position).expect("within an object that is in memory");
            found.bytes = found.bytes.slice(at(asked.start)..at(asked.end));
            found.start = asked.start;
        }
        if found.bytes.is_empty() && matches!(range, Some(GetRange::Bounded(_) | GetRange::Offset(_))) {
            return Err(StoreError::new(Operation::Read, key, StoreErrorKind::OutOfRange { size }));
        }
        Ok(found)
    }

    fn pages(&self, prefix: Option<&Path>, after: Option<&Path>) -> BoxStream<'static, Result<SlateMeta>> {
        let start = prefix_of(prefix).and_then(|prefix| Ok((prefix, after.map(key_of).transpose()?)));
        let (prefix, after) = match start {
            Ok(start) => start,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let store = Arc::clone(&self.store);
        let pages = stream::try_unfold(Some((prefix, after)), move |state| {
            let store = Arc::clone(&store);
            async move {
                let Some((prefix, after)) = state else { return Ok(None) };
                let listed = store.list(&prefix, after.as_ref(), LIST_PAGE_MAX).await;
                let page = listed.map_err(|error| foreign(&prefix, error))?;
                let next =
                    page.last().filter(|_| page.len() == LIST_PAGE_MAX).map(|last| (prefix, Some(last.key.clone())));
                let page: Vec<Result<SlateMeta>> = page.iter().map(outer).collect();
                Ok::<_, Error>(Some((stream::iter(page), next)))
            }
        });
        futures::TryStreamExt::try_flatten(pages).boxed()
    }
}

#[async_trait]
impl ObjectStore for Adapter {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put(location, &payload, options.mode, &options.attributes).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        key_of(location)?;
        Ok(Box::new(Upload {
            adapter: self.clone(),
            location: location.clone(),
            attributes: options.attributes,
            parts: Arc::default(),
            gathered: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let key = key_of(location)?;
        let (meta, start, bytes) = if options.head {
            let meta = self.store.head(&key).await.map_err(|error| foreign(&key, error))?;
            (outer(&meta)?, 0, Bytes::new())
        } else {
            self.read(&key, options.range.as_ref()).await?
        };
        options.check_preconditions(&meta)?;
        let range = if options.head { 0..meta.size } else { start..start + bytes.len() as u64 };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed()),
            meta,
            range,
            attributes: Attributes::new(),
            extensions: Extensions::new(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = Arc::clone(&self.store);
        let deletes = locations.map(move |location| {
            let store = Arc::clone(&store);
            async move {
                let location = location?;
                let key = key_of(&location)?;
                store.delete(&key).await.map_err(|error| foreign(&key, error))?;
                Ok(location)
            }
        });
        deletes.buffered(DELETES_IN_FLIGHT_MAX).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<SlateMeta>> {
        self.pages(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<SlateMeta>> {
        self.pages(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let leading = prefix_of(prefix)?.leading();
        let mut objects = Vec::new();
        let mut folders: Vec<Path> = Vec::new();
        let mut below = self.pages(prefix, None);
        while let Some(object) = below.next().await {
            let object = object?;
            let name = object.location.as_ref().strip_prefix(&leading).unwrap_or_default();
            match name.split_once('/') {
                None => objects.push(object),
                Some((folder, _)) => {
                    let folder = Path::parse(format!("{leading}{folder}"))?;
                    // Keys of one folder stand together.
                    if folders.last() != Some(&folder) {
                        folders.push(folder);
                    }
                }
            }
        }
        Ok(ListResult { objects, common_prefixes: folders, extensions: Extensions::new() })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (_, _, bytes) = self.read(&key_of(from)?, None).await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put(to, &PutPayload::from(bytes), mode, &Attributes::new()).await.map(|_| ())
    }
}

/// A multipart upload that becomes one object when it is complete.
struct Upload {
    adapter: Adapter,
    location: Path,
    attributes: Attributes,
    /// In the order in which they were put.
    parts: Arc<Mutex<Vec<PutPayload>>>,
    gathered: usize,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({} bytes for {})", self.gathered, self.location)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let gathered = self.gathered + part.content_length();
        if gathered > UPLOAD_SIZE_MAX {
            let source = format!("an upload to {} of more than {UPLOAD_SIZE_MAX} bytes", self.location);
            return Box::pin(async { Err(Error::NotSupported { source: source.into() }) });
        }
        self.gathered = gathered;
        self.parts.lock().push(part);
        Box::pin(async { Ok(()) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload: PutPayload = self.parts.lock().iter().flat_map(|part| part.iter().cloned()).collect();
        assert_eq!(payload.content_length(), self.gathered, "no part is lost between gathering and putting");
        self.adapter.put(&self.location, &payload, PutMode::Overwrite, &self.attributes).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.lock().clear();
        self.gathered = 0;
        Ok(())
    }
}
