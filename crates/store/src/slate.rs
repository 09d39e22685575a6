//! Our store as an [`object_store::ObjectStore`], so that SlateDB's requests are metered, retried and simulated like ours.
//!
//! Owns: the translation, and telling our own create from another's. Two databases racing for one manifest may write the
//! very same bytes, so the bytes cannot tell whose they are. Every object written here ends in a trailer with the id of
//! the write, and then [`create_exact`](crate::create_exact) can. SlateDB repeats a put under one id of its own
//! (`slatedbputid`); where it gives one it is taken, so that its repeat finds our first attempt and not a stranger.
//!
//! The trailer, [`TRAILER_SIZE`] bytes: `FBSL`, version 1, the id's length, the id, zeros. Sizes and ranges seen from
//! outside leave it out.
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

use crate::create::create_versioned;
use crate::{Body, CreateError, Key, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version};

const STORE: &str = "forebay";

/// What every object has behind its bytes.
pub const TRAILER_SIZE: u64 = 32;
const TRAILER_MAGIC: &[u8; 4] = b"FBSL";
const TRAILER_VERSION: u8 = 1;
/// Room for a ULID as text, which SlateDB's ids are.
const ID_LENGTH_MAX: usize = 26;
/// SlateDB's name for the id of a write that it may repeat.
const PUT_ID_ATTRIBUTE: &str = "slatedbputid";

/// The largest multipart upload, all of which is held in memory: keep SlateDB's `max_sst_size` well below.
pub const UPLOAD_SIZE_MAX: usize = 256 * 1024 * 1024;
/// Deletes in flight of one stream.
const DELETES_IN_FLIGHT_MAX: usize = 8;
/// Objects asked for at once in a listing.
const LIST_PAGE_MAX: usize = 1000;

/// `store` as SlateDB wants it. Give it a store that retries ([`crate::Bucket::store`]).
pub fn adapter(env: &Env, store: Arc<dyn Store>) -> Arc<dyn ObjectStore> {
    Arc::new(Adapter { env: env.clone(), store })
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
struct PutId(Vec<u8>);

impl PutId {
    /// SlateDB's id for this write and its repeats, or a fresh one.
    fn of(env: &Env, attributes: &Attributes) -> Self {
        let given = attributes.get(&Attribute::Metadata(PUT_ID_ATTRIBUTE.into()));
        match given.map(|id| id.as_bytes()) {
            Some(id) if (1..=ID_LENGTH_MAX).contains(&id.len()) => Self(id.to_vec()),
            _ => {
                let mut id = vec![0; 16];
                env.fill_random(&mut id);
                Self(id)
            }
        }
    }

    fn trailer(&self) -> Bytes {
        let mut trailer = Vec::with_capacity(usize::try_from(TRAILER_SIZE).expect("small"));
        trailer.extend_from_slice(TRAILER_MAGIC);
        trailer.push(TRAILER_VERSION);
        trailer.push(u8::try_from(self.0.len()).expect("at most ID_LENGTH_MAX"));
        trailer.extend_from_slice(&self.0);
        trailer.resize(usize::try_from(TRAILER_SIZE).expect("small"), 0);
        trailer.into()
    }

    /// `payload` and the trailer, nothing copied.
    fn seal(&self, payload: &PutPayload) -> Body {
        Body::new(payload.iter().cloned().chain([self.trailer()]).collect())
    }
}

fn is_trailer(bytes: &[u8]) -> bool {
    bytes.starts_with(TRAILER_MAGIC)
        && bytes.get(4) == Some(&TRAILER_VERSION)
        && bytes.get(5).is_some_and(|len| (1..=ID_LENGTH_MAX).contains(&usize::from(*len)))
}

fn key_of(path: &Path) -> Result<Key> {
    Key::new(path.as_ref()).map_err(|source| Error::Generic { store: STORE, source: source.into() })
}

fn prefix_of(path: Option<&Path>) -> Result<Prefix> {
    let text = path.map_or("", |path| path.as_ref());
    Prefix::new(text).map_err(|source| Error::Generic { store: STORE, source: source.into() })
}

fn foreign(key: &Key, error: StoreError) -> Error {
    let path = key.to_string();
    match error.kind() {
        StoreErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        StoreErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        StoreErrorKind::Changed => Error::Precondition { path, source: error.into() },
        StoreErrorKind::Refused => Error::PermissionDenied { path, source: error.into() },
        StoreErrorKind::OutOfRange { .. }
        | StoreErrorKind::DidNotHappen
        | StoreErrorKind::MayHaveHappened
        | StoreErrorKind::Corrupt
        | StoreErrorKind::Full => Error::Generic { store: STORE, source: error.into() },
    }
}

/// An object that was not written through here.
fn stranger(key: &Key) -> Error {
    let error = StoreError::new(Operation::Read, key, StoreErrorKind::Corrupt);
    foreign(key, error.because("it does not end in the trailer that every object of the metadata database has"))
}

fn outer(meta: &ObjectMeta) -> Result<SlateMeta> {
    let millis = meta.modified.as_millis();
    Ok(SlateMeta {
        location: Path::parse(meta.key.as_str())?,
        last_modified: DateTime::from_timestamp_millis(millis).unwrap_or_default(),
        size: meta.size.checked_sub(TRAILER_SIZE).ok_or_else(|| stranger(&meta.key))?,
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
        let span = match range {
            None => Span::All,
            Some(GetRange::Bounded(range)) => Span::Range(range.clone()),
            Some(GetRange::Offset(start)) => Span::From(*start),
            Some(GetRange::Suffix(count)) => Span::Last(count.saturating_add(TRAILER_SIZE)),
        };
        let found = self.store.read(key, span).await.map_err(|error| foreign(key, error))?;
        let meta = outer(&found.meta)?;
        // Where the trailer was read with the bytes it is checked and cut off.
        let past = (found.start + found.bytes.len() as u64).saturating_sub(meta.size);
        let kept = found.bytes.len().saturating_sub(usize::try_from(past).expect("within bytes that were read"));
        let (bytes, trailer) = (found.bytes.slice(..kept), &found.bytes[kept..]);
        if trailer.len() as u64 == TRAILER_SIZE && !is_trailer(trailer) {
            return Err(stranger(key));
        }
        if bytes.is_empty() && matches!(range, Some(GetRange::Bounded(_) | GetRange::Offset(_))) {
            let error = StoreError::new(Operation::Read, key, StoreErrorKind::OutOfRange { size: meta.size });
            return Err(foreign(key, error));
        }
        Ok((meta, found.start, bytes))
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
                let page = listed.map_err(|error| Error::Generic { store: STORE, source: error.into() })?;
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
