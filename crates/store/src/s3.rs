//! A bucket on S3, or on a server that speaks its protocol.
//!
//! Owns: which answer means what. Each attempt is one HTTP request: `object_store`'s own repeats are off, because a
//! repeated create could report its own success as "already exists". Leaves the repeating to [`crate::Retrying`].
//!
//! What became of a request is read from the answer itself, which [`watch`] notes beside each request: the library's
//! errors do not say it. A 5xx may come from a proxy after the store had done the deed, so for writes it says nothing.
//!
//! Sources: S3 `PutObject` (`If-None-Match`, `If-Match`, 409 `ConditionalRequestConflict`, 412), `ListObjectsV2`.

mod watch;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_env::Env;
use forebay_types::Timestamp;
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    ClientConfigKey, Extensions, GetOptions, GetRange, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig,
    UpdateVersion,
};

use crate::retry::ATTEMPT_TIME_MAX;
use crate::{
    Body, Key, OBJECT_SIZE_MAX, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version,
};
use watch::{Answer, ServerClock, Watch};

/// Keys of one list request, S3's own limit.
const LIST_PAGE_MAX: usize = 1000;
/// A connection that is not made by then is refused, well before the attempt ends.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes reserved for an answer before any of it has come; beyond this memory grows with what really arrives.
const RESERVED_MAX: u64 = 16 * 1024 * 1024;

/// Why a client for S3 cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error(
        "the endpoint {endpoint} is plain HTTP, over which keys and records could be read on the way: set \
         AWS_ALLOW_HTTP=true if that is meant, as for a server on this machine"
    )]
    PlainHttp { endpoint: String },
    #[error(
        "the environment does not say how to reach it: AWS_ENDPOINT_URL (for a server other than AWS), AWS_REGION, \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are read"
    )]
    Settings { source: object_store::Error },
}

/// One S3 bucket, or the part of one below a prefix.
pub struct S3Store {
    name: String,
    prefix: Prefix,
    client: AmazonS3,
    clock: ServerClock,
}

impl S3Store {
    /// Takes endpoint, region and keys from the `AWS_…` environment variables, or from the machine's role.
    ///
    /// # Errors
    /// The variables are incomplete or contradict each other. Nothing is sent yet.
    pub fn from_environment(env: &Env, bucket: &str, prefix: Prefix) -> Result<Self, S3Error> {
        Self::new(env, AmazonS3Builder::from_env(), bucket, prefix)
    }

    pub(crate) fn new(env: &Env, settings: AmazonS3Builder, bucket: &str, prefix: Prefix) -> Result<Self, S3Error> {
        let clock = ServerClock::new(env);
        let endpoint = settings.get_config_value(&AmazonS3ConfigKey::Endpoint).unwrap_or_default();
        let plain = endpoint.starts_with("http://");
        let allowed = settings.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        if plain && allowed.as_deref() != Some("true") {
            return Err(S3Error::PlainHttp { endpoint });
        }
        let client = settings
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            // Under TLS the bytes are checked on the way already; without, the signature does it.
            .with_unsigned_payload(!plain)
            .with_disable_bulk_delete(true)
            .with_config(client_setting(ClientConfigKey::Timeout), seconds(ATTEMPT_TIME_MAX))
            .with_config(client_setting(ClientConfigKey::ConnectTimeout), seconds(CONNECT_TIME_MAX))
            .with_http_connector(Watch::new(clock.clone()))
            .build()
            .map_err(|source| S3Error::Settings { source })?;
        let name = match prefix.as_str() {
            "" => format!("s3://{bucket}"),
            prefix => format!("s3://{bucket}/{prefix}"),
        };
        Ok(Self { name, prefix, client, clock })
    }

    /// A key's path in the bucket.
    fn path(&self, key: &Key) -> Path {
        // Legal as it is: a key needs no escaping.
        Path::parse(format!("{}{key}", self.prefix.leading())).expect("every key is a legal path")
    }

    fn key(&self, path: &Path) -> Option<Key> {
        // What is not a key was not written by us, and cannot be asked for.
        path.as_ref().strip_prefix(&self.prefix.leading()).and_then(|rest| Key::new(rest).ok())
    }

    async fn write(
        &self,
        operation: Operation,
        key: &Key,
        body: Body,
        mode: PutMode,
    ) -> Result<Option<Version>, StoreError> {
        let (answer, extensions) = Answer::watched();
        let payload = body.chunks().iter().cloned().collect::<PutPayload>();
        let options = PutOptions { mode, extensions, ..PutOptions::default() };
        match self.client.put_opts(&self.path(key), payload, options).await {
            Ok(written) => Ok(written.e_tag.as_deref().map(Version::new)),
            Err(error) => Err(judge(operation, key, &answer, error)),
        }
    }
}

fn ours(key: &Key, meta: &object_store::ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size: meta.size,
        modified: Timestamp::from_millis(meta.last_modified.timestamp_millis()),
        version: meta.e_tag.as_deref().map(Version::new),
    }
}

fn client_setting(key: ClientConfigKey) -> AmazonS3ConfigKey {
    AmazonS3ConfigKey::Client(key)
}

fn seconds(duration: Duration) -> String {
    format!("{} seconds", duration.as_secs())
}

/// What a failed request has come to, by the answer that it got.
fn judge(operation: Operation, subject: &impl ToString, answer: &Answer, error: object_store::Error) -> StoreError {
    use StoreErrorKind as Kind;
    let unanswered = operation.unanswered();
    let kind = match answer.get() {
        // Nothing was sent: no credentials could be had, for one, or nobody listens.
        None | Some(Err(HttpErrorKind::Connect)) => Kind::DidNotHappen,
        Some(Ok(status)) => match (status, operation) {
            (404, Operation::Read | Operation::Head) => Kind::NotFound,
            (404 | 412, Operation::Replace) => Kind::Changed,
            (304 | 409 | 412, Operation::Create) => Kind::AlreadyExists,
            (429, _) => Kind::DidNotHappen,
            (507, _) => Kind::Full,
            // 409: another conditional request is under way, which may be our own earlier one.
            (408 | 409 | 500..=599, _) => unanswered,
            // The headers were well and the body did not come.
            (200..=299, _) if transport(&error).is_some() => unanswered,
            (200..=299, _) if operation.writes() => Kind::MayHaveHappened,
            (200..=299, _) => Kind::Corrupt,
            _ => Kind::Refused,
        },
        Some(Err(_)) => unanswered,
    };
    StoreError::new(operation, subject, kind).because(error)
}

/// The failure of a connection below an error.
fn transport(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut below: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = below {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        below = error.source();
    }
    None
}

#[async_trait]
impl Store for S3Store {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.write(Operation::Create, key, body, PutMode::Create).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.write(Operation::Put, key, body, PutMode::Overwrite).await
    }

    fn can_replace(&self) -> bool {
        true
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        let version = UpdateVersion { e_tag: Some(expected.as_str().to_owned()), version: None };
        self.write(Operation::Replace, key, body, PutMode::Update(version)).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        let refuse = |kind| StoreError::new(Operation::Read, key, kind);
        let range = match span.clone() {
            Span::All => None,
            // Cannot be said in HTTP, and no store is asked to.
            Span::Range(range) if range.is_empty() => {
                return Err(refuse(StoreErrorKind::Refused).because("an empty range"));
            }
            Span::Last(0) => return Err(refuse(StoreErrorKind::Refused).because("an empty range")),
            Span::Range(range) => Some(GetRange::Bounded(range)),
            Span::From(start) => Some(GetRange::Offset(start)),
            Span::Last(count) => Some(GetRange::Suffix(count)),
        };
        let (answer, extensions) = Answer::watched();
        let options = GetOptions { range, extensions, ..GetOptions::default() };
        let found = match self.client.get_opts(&self.path(key), options).await {
            Ok(found) => found,
            Err(error) if answer.get() == Some(Ok(416)) => {
                let size = self.head(key).await?.size;
                return Err(refuse(StoreErrorKind::OutOfRange { size }).because(error));
            }
            Err(error) => return Err(judge(Operation::Read, key, &answer, error)),
        };
        let meta = ours(key, &found.meta);
        let expected = found.range.clone();
        if span.within(meta.size).as_ref() != Some(&expected) {
            return Err(refuse(StoreErrorKind::Corrupt).because(format!("asked for {span:?}, got {expected:?}")));
        }
        let len = expected.end - expected.start;
        if len > OBJECT_SIZE_MAX {
            return Err(refuse(StoreErrorKind::Refused).because(format!("{len} bytes are more than {OBJECT_SIZE_MAX}")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len.min(RESERVED_MAX)).expect("small"));
        let mut stream = found.into_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| judge(Operation::Read, key, &answer, error))?;
            if (bytes.len() + piece.len()) as u64 > len {
                return Err(refuse(StoreErrorKind::Corrupt).because(format!("more than the {len} bytes announced")));
            }
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() as u64 != len {
            return Err(refuse(StoreErrorKind::DidNotHappen).because(format!("{} of {len} bytes came", bytes.len())));
        }
        Ok(Object { meta, start: expected.start, bytes: Bytes::from(bytes) })
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let (answer, extensions) = Answer::watched();
        let options = GetOptions { head: true, extensions, ..GetOptions::default() };
        match self.client.get_opts(&self.path(key), options).await {
            Ok(found) => Ok(ours(key, &found.meta)),
            Err(error) => Err(judge(Operation::Head, key, &answer, error)),
        }
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let leading = format!("{}{}", self.prefix.leading(), prefix.leading());
        let mut found: Vec<ObjectMeta> = Vec::new();
        let mut page_token = None;
        while found.len() < limit {
            let (answer, extensions): (Answer, Extensions) = Answer::watched();
            let options = PaginatedListOptions {
                offset: start_after.map(|key| self.path(key).to_string()),
                max_keys: Some((limit - found.len()).min(LIST_PAGE_MAX)),
                page_token: page_token.take(),
                extensions,
                ..PaginatedListOptions::default()
            };
            let page = self.client.list_paginated(Some(leading.as_str()).filter(|l| !l.is_empty()), options).await;
            let page = page.map_err(|error| judge(Operation::List, prefix, &answer, error))?;
            for object in &page.result.objects {
                if let Some(key) = self.key(&object.location) {
                    found.push(ours(&key, object));
                }
            }
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        // S3 lists in order and after the key named; a server that does not would have us skip or repeat objects.
        let sorted = found.windows(2).all(|pair| pair[0].key < pair[1].key);
        let after = start_after.is_none_or(|start| found.first().is_none_or(|first| first.key > *start));
        if !sorted || !after || found.iter().any(|object| !prefix.contains(&object.key)) {
            let error = StoreError::new(Operation::List, prefix, StoreErrorKind::Corrupt);
            return Err(error.because("the objects listed are not in order, or were not asked for"));
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        // This call carries no note for the watch, and needs none: repeating a delete does no harm.
        match ObjectStore::delete_stream(&self.client, futures::stream::iter([Ok(self.path(key))]).boxed()).next().await
        {
            None | Some(Ok(_) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            Some(Err(error)) => {
                let kind = match &error {
                    object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                        StoreErrorKind::Refused
                    }
                    _ => StoreErrorKind::MayHaveHappened,
                };
                Err(StoreError::new(Operation::Delete, key, kind).because(error))
            }
        }
    }

    fn now(&self) -> Option<Timestamp> {
        self.clock.now()
    }
}
