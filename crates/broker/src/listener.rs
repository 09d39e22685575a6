//! Accepting Kafka connections for one broker epoch.
//!
//! Owns: how many there are, and their tasks. Leaves to others: each connection (`connection`), the socket, which
//! outlives the epoch (`bind`): between two epochs clients wait in its backlog.
//!
//! Invariants:
//! 1. A connection belongs to one broker epoch and ends with it: no answer of an earlier epoch follows one of a later.
//! 2. At most `max.connections` are open; one more is closed at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Listener, Task};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::connection::{self, Serving};

/// After an accept that failed (out of descriptors, most likely), to let others end.
const ACCEPT_WAIT_MIN: Duration = Duration::from_millis(5);
const ACCEPT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Accepts until the epoch closes, then returns once its connections have ended. Dropped, it drops these.
///
/// # Panics
/// Passes on a connection's panic: an invariant that broke is this process's to end for, not one client's.
pub(crate) async fn accept(listener: Arc<dyn Listener>, serving: Arc<Serving>) {
    let mut connections = FuturesUnordered::<Task<()>>::new();
    let mut wait = ACCEPT_WAIT_MIN;
    loop {
        tokio::select! {
            biased;
            () = serving.closing.triggered() => break,
            Some(_) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    wait = ACCEPT_WAIT_MIN;
                    let Ok(seat) = Arc::clone(&serving.seats).try_acquire_owned() else {
                        refuse(&serving, peer);
                        continue;
                    };
                    serving.counters.connection_accepted();
                    let served = Arc::clone(&serving);
                    connections.push(serving.env.spawn("kafka-connection", async move {
                        connection::serve(served, stream, peer).await;
                        drop(seat);
                    }));
                }
                Err(error) => {
                    pause(&serving, &error, wait).await;
                    wait = (wait * 2).min(ACCEPT_WAIT_MAX);
                }
            },
        }
    }
    while connections.next().await.is_some() {}
}

fn refuse(serving: &Serving, peer: std::net::SocketAddr) {
    serving.counters.connection_refused();
    let limit = serving.context.config.max_connections();
    serving.complaints.log(|| tracing::warn!(%peer, limit, "connection refused: max.connections are open"));
}

async fn pause(serving: &Serving, error: &io::Error, wait: Duration) {
    serving.complaints.log(|| tracing::warn!(%error, "could not accept a connection; trying again"));
    tokio::select! {
        biased;
        () = serving.closing.triggered() => {}
        () = serving.env.sleep(wait) => {}
    }
}
