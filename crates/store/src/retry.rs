//! The layer that gives each attempt a limit and repeats what is safe to repeat.
//!
//! Owns: time-outs, back-off, the number of requests in flight. Leaves to [`crate::create_exact`] the repeating of
//! creates, and to the metadata database that of replaces: after a lost answer only they can tell their own success.
//!
//! Invariants:
//! 1. A create or replace is sent at most once per call.
//! 2. The error after several attempts is `MayHaveHappened` if any of them was.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forebay_env::{Env, Instant};
use forebay_types::Timestamp;
use tokio::sync::Semaphore;

use crate::{Body, Key, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version};

/// Attempts of one call, the first included: about five seconds of back-off. Who must not give up calls again, so that
/// what it holds presses back meanwhile.
pub(crate) const ATTEMPTS_MAX: u32 = 8;
/// The first pause; each further one is twice as long, and half of each is chance.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// No further attempt begins after this: a store that hangs costs a caller no more than this and one attempt.
const CALL_TIME_MAX: Duration = Duration::from_mins(1);
/// One attempt: 64 MiB at 4 MiB/s, with some to spare.
pub(crate) const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(20);
/// Requests in flight of one layer, which is one purpose: a flood of cold reads waits here and holds no other's place.
const REQUESTS_IN_FLIGHT_MAX: usize = 32;

/// Pauses between attempts, until there were too many or too much time has passed.
pub(crate) struct Backoff {
    attempts: u32,
    pause: Duration,
    deadline: Instant,
}

impl Backoff {
    pub(crate) fn start(env: &Env) -> Self {
        Self { attempts: 1, pause: BACKOFF_FIRST, deadline: env.monotonic() + CALL_TIME_MAX }
    }

    /// Waits before another attempt; `false` where there shall be none.
    pub(crate) async fn pause(&mut self, env: &Env) -> bool {
        if self.attempts >= ATTEMPTS_MAX || env.monotonic() >= self.deadline {
            return false;
        }
        self.attempts += 1;
        let half = self.pause / 2;
        let chance = env.random_below(u64::try_from(half.as_micros()).expect("pauses are short"));
        env.sleep(half + Duration::from_micros(chance)).await;
        self.pause = (self.pause * 2).min(BACKOFF_MAX);
        true
    }
}

/// A store whose requests end in bounded time and whose transient errors are mostly not seen.
pub struct Retrying {
    env: Env,
    inner: Arc<dyn Store>,
    in_flight: Semaphore,
}

impl Retrying {
    pub fn new(env: &Env, inner: Arc<dyn Store>) -> Self {
        Self { env: env.clone(), inner, in_flight: Semaphore::new(REQUESTS_IN_FLIGHT_MAX) }
    }

    async fn attempt<T>(
        &self,
        operation: Operation,
        subject: &(impl ToString + Sync),
        request: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let _place = self.in_flight.acquire().await.expect("the semaphore is never closed");
        self.env.timeout(ATTEMPT_TIME_MAX, request).await.unwrap_or_else(|| {
            let error = StoreError::new(operation, subject, operation.unanswered());
            Err(error.because(format!("no answer in {} s", ATTEMPT_TIME_MAX.as_secs())))
        })
    }

    async fn repeat<'a, T, F, R>(
        &'a self,
        operation: Operation,
        subject: &(impl ToString + Sync),
        request: F,
    ) -> Result<T, StoreError>
    where
        F: Fn() -> R + Send + Sync,
        R: Future<Output = Result<T, StoreError>> + Send + 'a,
        T: Send,
    {
        let mut backoff = Backoff::start(&self.env);
        let mut unknown = false;
        loop {
            let error = match self.attempt(operation, subject, request()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            unknown |= error.kind() == StoreErrorKind::MayHaveHappened;
            if !error.is_transient() || !backoff.pause(&self.env).await {
                let kind = if unknown { StoreErrorKind::MayHaveHappened } else { error.kind() };
                return Err(error.of_kind(kind));
            }
            tracing::debug!(%error, "asking the store again");
        }
    }
}

#[async_trait]
impl Store for Retrying {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.attempt(Operation::Create, key, self.inner.create(key, body)).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.repeat(Operation::Put, key, || self.inner.put(key, body.clone())).await
    }

    fn can_replace(&self) -> bool {
        self.inner.can_replace()
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        self.attempt(Operation::Replace, key, self.inner.replace(key, body, expected)).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        self.repeat(Operation::Read, key, || self.inner.read(key, span.clone())).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.repeat(Operation::Head, key, || self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        self.repeat(Operation::List, prefix, || self.inner.list(prefix, start_after, limit)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.repeat(Operation::Delete, key, || self.inner.delete(key)).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}
