//! Health and metrics over HTTP, for people, probes and Prometheus.
//!
//! Owns: `/health` (the process works), `/ready` (clients are served; 503 and why not otherwise), `/metrics`
//! (OpenMetrics text), `POST /topics/undelete?name=NAME`. Leaves to others: what is counted (`metrics` and below), what
//! the trash gives back (`undelete`).
//!
//! Whoever reaches the address may ask. A page in a browser on this machine reaches it too, so a change that comes with
//! an `Origin`, as browsers send it, is refused.
//!
//! Each connection has one request and [`REQUEST_TIME_MAX`]; [`CONNECTIONS_MAX`] are open at a time, others wait.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use forebay_env::{Listener, Stream};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use crate::metrics;
use crate::status::{Phase, Status};
use crate::undelete::undelete;

/// Probes and a Prometheus or two.
const CONNECTIONS_MAX: usize = 32;
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// After an accept that failed.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(crate) async fn serve(listeners: Vec<Arc<dyn Listener>>, status: Arc<Status>) {
    let mut accepting: FuturesUnordered<_> = listeners.into_iter().map(|l| accept(l, Arc::clone(&status))).collect();
    while accepting.next().await.is_some() {}
}

async fn accept(listener: Arc<dyn Listener>, status: Arc<Status>) {
    let router = router(Arc::clone(&status));
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => connections.push(answer(&status, router.clone(), stream)),
                Err(error) => {
                    tracing::warn!(%error, "could not accept an admin connection; trying again");
                    status.env.sleep(ACCEPT_WAIT).await;
                }
            },
        }
    }
}

async fn answer(status: &Status, router: Router, stream: Box<dyn Stream>) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        // It would be the machine's, not that of `Env`, and nobody needs it.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Some(Err(error)) = status.env.timeout(REQUEST_TIME_MAX, pin!(connection)).await {
        tracing::debug!(%error, "admin connection lost");
    }
}

fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(show_metrics))
        .route("/topics/undelete", post(undelete_topic))
        .with_state(status)
}

async fn health(State(status): State<Arc<Status>>) -> impl IntoResponse {
    match status.phase() {
        phase @ Phase::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, format!("{phase}\n")),
        _ => (StatusCode::OK, "ok\n".to_owned()),
    }
}

async fn ready(State(status): State<Arc<Status>>) -> impl IntoResponse {
    let phase = status.phase();
    let code = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{phase}\n"))
}

async fn show_metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::show(&status).await)
}

async fn undelete_topic(
    State(status): State<Arc<Status>>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> (StatusCode, String) {
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "changes are not taken from pages in a browser\n".to_owned());
    }
    let Some(name) = query.get("name") else {
        return (StatusCode::BAD_REQUEST, "say which topic: /topics/undelete?name=NAME\n".to_owned());
    };
    let Some(epoch) = status.epoch().filter(|_| status.phase() == Phase::Ready) else {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("the broker is {}\n", status.phase()));
    };
    let (code, told) = undelete(&epoch.context, name).await;
    (code, format!("{told}\n"))
}

#[cfg(test)]
mod tests {
    use forebay_api::HostPort;
    use forebay_env::real;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::bind::bind;
    use crate::options::ListenAddress;

    async fn ask(status: &Status, address: &str, path: &str) -> String {
        let mut stream = status.env.network().connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        format!("{} {}", head.split(' ').nth(1).expect("a status"), body.trim_end())
    }

    /// Whoever asks is told what the process is doing, in each of its phases, and the metrics go with it.
    #[tokio::test]
    async fn each_phase_is_told() {
        let status = Arc::new(Status::new(&real::env()));
        let localhost = ListenAddress::new(&"localhost:0".parse::<HostPort>().expect("legal")).expect("legal");
        let listeners = bind(&status.env, localhost).await.expect("a free port");
        let address = listeners[0].local_addr().to_string();
        let _serving = status.env.spawn("admin", serve(listeners, Arc::clone(&status)));

        let mut told = Vec::new();
        for phase in [
            Phase::Starting,
            Phase::Ready,
            Phase::BeginningAgain("the disk failed".into()),
            Phase::Draining,
            Phase::Failed("the disk failed again".into()),
        ] {
            status.enter(phase);
            for path in ["/health", "/ready"] {
                told.push(ask(&status, &address, path).await);
            }
        }
        assert_eq!(
            told,
            [
                "200 ok",
                "503 starting",
                "200 ok",
                "200 ready",
                "200 ok",
                "503 beginning again: the disk failed",
                "200 ok",
                "503 draining",
                "503 failed: the disk failed again",
                "503 failed: the disk failed again",
            ]
        );
        assert!(ask(&status, &address, "/metrics").await.contains("\nforebay_ready 0\n"));
        assert!(ask(&status, &address, "/else").await.starts_with("404"));
    }
}
