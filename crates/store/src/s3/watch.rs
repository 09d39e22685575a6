//! A look at each HTTP answer as it comes: its status, for who sent the request, and its `Date`, for the store's clock.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use forebay_env::{Env, Instant};
use forebay_types::Timestamp;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, Extensions};
use parking_lot::Mutex;

/// What came back for one request: a status, or the failure of the connection. Travels in the request's extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer(Arc<Mutex<Option<Result<u16, HttpErrorKind>>>>);

impl Answer {
    /// A note to be filled in, and the extensions that carry it.
    pub(super) fn watched() -> (Self, Extensions) {
        let answer = Self::default();
        let mut extensions = Extensions::new();
        extensions.insert(answer.clone());
        (answer, extensions)
    }

    /// `None` where nothing was sent.
    pub(super) fn get(&self) -> Option<Result<u16, HttpErrorKind>> {
        *self.0.lock()
    }
}

/// The store's clock, as its last answer told it.
#[derive(Clone)]
pub(super) struct ServerClock {
    env: Env,
    seen: Arc<Mutex<Option<(Timestamp, Instant)>>>,
}

impl ServerClock {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), seen: Arc::default() }
    }

    /// The time of the last answer and what has passed since.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let (shown, at) = (*self.seen.lock())?;
        let since = i64::try_from(self.env.monotonic().duration_since(at).as_millis()).unwrap_or(i64::MAX);
        Some(shown.saturating_add(since))
    }

    fn note(&self, date: &str) {
        // HTTP's date is the format of mail, in GMT (RFC 9110 section 5.6.7). What is not one is no clock.
        if let Ok(date) = DateTime::parse_from_rfc2822(date) {
            *self.seen.lock() = Some((Timestamp::from_millis(date.timestamp_millis()), self.env.monotonic()));
        }
    }
}

impl std::fmt::Debug for ServerClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerClock").finish_non_exhaustive()
    }
}

/// Makes clients that look at their answers.
#[derive(Debug)]
pub(super) struct Watch {
    clock: ServerClock,
}

impl Watch {
    pub(super) fn new(clock: ServerClock) -> Self {
        Self { clock }
    }
}

impl HttpConnector for Watch {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, clock: self.clock.clone() }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    clock: ServerClock,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let note = request.extensions().get::<Answer>().cloned();
        let answer = self.inner.execute(request).await;
        if let Some(note) = note {
            *note.0.lock() = Some(answer.as_ref().map(|response| response.status().as_u16()).map_err(HttpError::kind));
        }
        if let Some(date) = answer.as_ref().ok().and_then(|response| response.headers().get("date")?.to_str().ok()) {
            self.clock.note(date);
        }
        answer
    }
}
