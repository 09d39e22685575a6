//! A small S3 in this process: what our provider asks of a server, over real HTTP, without signatures.
//!
//! It fails on demand with whole HTTP answers, or by closing the connection instead of answering.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use bytes::Bytes;
use chrono::DateTime;
use forebay_env::{Env, Task};
use parking_lot::Mutex;

use super::*;

/// How the next request that writes goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// Answered so, nothing done.
    Refuse(u16),
    /// Done, then answered so.
    DoAndSay(u16),
    /// Done, and the connection is closed in the middle of the answer.
    DoAndHangUp,
    /// Not answered before the client gives up.
    Silence,
}

#[derive(Default)]
struct Server {
    objects: BTreeMap<String, (Bytes, u64)>,
    writes: u64,
    trouble: VecDeque<Trouble>,
    ignores_conditions: bool,
    seen: Vec<String>,
}

#[derive(Clone)]
struct Shared {
    env: Env,
    server: Arc<Mutex<Server>>,
}

/// A running server. Ends when dropped.
pub(super) struct FakeS3 {
    shared: Shared,
    endpoint: String,
    _task: Task<()>,
}

impl FakeS3 {
    pub(super) async fn start(env: &Env) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Shared { env: env.clone(), server: Arc::default() };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let task =
            env.spawn("fake-s3", async move { axum::serve(listener, router).await.expect("serves until dropped") });
        Self { shared, endpoint, _task: task }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn trouble(&self, trouble: Trouble) {
        self.shared.server.lock().trouble.push_back(trouble);
    }

    pub(super) fn ignore_conditions(&self) {
        self.shared.server.lock().ignores_conditions = true;
    }

    /// Method and path of each request so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.shared.server.lock().seen.clone()
    }
}

fn plain(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).expect("a legal answer")
}

fn failure(status: u16) -> Response<Body> {
    plain(status, format!("<Error><Code>Fake{status}</Code></Error>"))
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the whole request");
    let query: BTreeMap<String, String> = parts.uri.query().unwrap_or_default().split('&').filter_map(pair).collect();
    let path = parts.uri.path().trim_start_matches('/').to_owned();
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    assert_eq!(bucket, "logs", "the provider asks for its bucket");
    let writes = matches!(parts.method, Method::PUT);
    let trouble = {
        let mut server = shared.server.lock();
        server.seen.push(format!("{} {path}", parts.method));
        if writes { server.trouble.pop_front() } else { None }
    };
    let done = || serve(&shared, &parts.method, key, &parts.headers, &query, body.clone());
    match trouble {
        None => done(),
        Some(Trouble::Refuse(status)) => failure(status),
        Some(Trouble::DoAndSay(status)) => {
            done();
            failure(status)
        }
        Some(Trouble::DoAndHangUp) => {
            done();
            let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::BrokenPipe))]);
            Response::builder().status(500).body(Body::from_stream(broken)).expect("legal")
        }
        Some(Trouble::Silence) => {
            shared.env.sleep(Duration::from_hours(1)).await;
            failure(500)
        }
    }
}

/// A decoded `name=value` of a query.
fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_owned(), value.replace("%2F", "/")))
}

fn serve(
    shared: &Shared,
    method: &Method,
    key: &str,
    headers: &HeaderMap,
    query: &BTreeMap<String, String>,
    body: Bytes,
) -> Response<Body> {
    let mut server = shared.server.lock();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let found = server.objects.get(key).cloned();
    let etag = |version: u64| format!("\"{version:032x}\"");
    let modified =
        DateTime::from_timestamp_millis(shared.env.now().as_millis()).expect("now").format("%a, %d %b %Y %T GMT");
    match *method {
        Method::GET if key.is_empty() => list(&server, query),
        Method::PUT => {
            let matches = match (header("if-none-match"), header("if-match"), &found) {
                (Some("*"), _, Some(_)) | (_, Some(_), None) => false,
                (_, Some(expected), Some((_, version))) => etag(*version) == expected,
                _ => true,
            };
            if !matches && !server.ignores_conditions {
                return failure(StatusCode::PRECONDITION_FAILED.as_u16());
            }
            server.writes += 1;
            let version = server.writes;
            server.objects.insert(key.to_owned(), (body, version));
            Response::builder().status(200).header("etag", etag(version)).body(Body::empty()).expect("legal")
        }
        Method::DELETE => {
            server.objects.remove(key);
            plain(204, Body::empty())
        }
        Method::GET | Method::HEAD => {
            let Some((bytes, version)) = found else { return failure(404) };
            let size = bytes.len() as u64;
            let answer =
                Response::builder().header("etag", etag(version)).header("last-modified", modified.to_string());
            let Some(range) = header("range").map(|range| range.trim_start_matches("bytes=").to_owned()) else {
                let answer = answer.header("content-length", size);
                let whole = if *method == Method::HEAD { Body::empty() } else { Body::from(bytes) };
                return answer.body(whole).expect("legal");
            };
            let number = |text: &str| text.parse::<u64>().expect("the provider sends numbers");
            let span = match range.split_once('-').expect("a range") {
                ("", last) => Span::Last(number(last)),
                (start, "") => Span::From(number(start)),
                (start, end) => Span::Range(number(start)..number(end) + 1),
            };
            let Some(part) = span.within(size) else { return failure(416) };
            let place = |at: u64| usize::try_from(at).expect("small");
            let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            let bytes = bytes.slice(place(part.start)..place(part.end));
            answer.status(206).header("content-range", range).body(Body::from(bytes)).expect("legal")
        }
        _ => failure(405),
    }
}

/// Pages of at most three keys, whatever is asked for, so that the provider has to go on.
const PAGE: usize = 3;

fn list(server: &Server, query: &BTreeMap<String, String>) -> Response<Body> {
    let get = |name: &str| query.get(name).cloned().unwrap_or_default();
    let after = if query.contains_key("continuation-token") { get("continuation-token") } else { get("start-after") };
    let limit = get("max-keys").parse::<usize>().expect("the provider names a limit").min(PAGE);
    let matching = server.objects.iter().filter(|(key, _)| key.starts_with(&get("prefix")) && **key > after);
    let page: Vec<_> = matching.clone().take(limit).collect();
    let more = matching.count() > page.len();
    let mut xml = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
    if let (true, Some((last, _))) = (more, page.last()) {
        write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>").expect("memory");
    }
    for (key, (bytes, version)) in page {
        let size = bytes.len();
        write!(
            xml,
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>\"{version:032x}\"</ETag>\
             <LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
        )
        .expect("memory");
    }
    xml.push_str("</ListBucketResult>");
    plain(200, xml)
}
