//! Kafka's APIs as this broker serves them.
//!
//! Owns: which APIs and versions there are ([`apis`]), what each request means, Kafka's error code for every error
//! below (`errors`), the broker's configuration keys ([`config`]). Leaves to others: sockets and the order of
//! responses (`broker`), bytes (`wire`), and every decision that outlives a request (`log`, `coordinator`, `metadata`).
//!
//! A new API is one row in `apis.rs` and one file in `handlers/`, named as the API and headed with its key, versions,
//! KIPs and differences from Kafka. The answer to `ApiVersions` and `docs/kafka-apis.md` come from the row.
//!
//! Invariants:
//! 1. An answer speaks of durable things only (D1); what is not known is answered with a retriable code.
//! 2. A request that cannot be decoded closes its connection, as in Kafka; no request closes another's.
//! 3. No handler keeps bytes of a request beyond it, records of Produce excepted.

pub mod apis;
pub mod config;
pub mod counters;
pub mod memory;
pub mod sessions;

mod call;
mod context;
mod described;
mod errors;
mod handlers;
mod lookup;
mod out_of_range;

pub use call::{Call, CallError, Connection, Reply};
pub use context::{Context, HostPort};

use bytes::BytesMut;
use forebay_wire::decode_request_header;

/// Answers one request. Produce returns once its records have their order ([`Reply::Later`] waits for the rest); every
/// other API returns with its answer, long polls included: as in Kafka, a connection has one request in progress.
///
/// # Errors
/// The connection must be closed: the request has no known form.
pub async fn handle(context: &Context, connection: &Connection, mut frame: BytesMut) -> Result<Reply, CallError> {
    let header = decode_request_header(&mut frame)?;
    let version = header.api_version;
    let Some(api) = apis::find(header.api_key) else {
        return Err(CallError::NotServed { api_key: header.api_key, version });
    };
    let call = Call { header, body: frame, connection };
    if !api.versions.contains(&version) {
        return handlers::unsupported_version(api, &call);
    }
    (api.handler)(context, call).await
}
