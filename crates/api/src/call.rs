//! One request on its way through a handler.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use forebay_wire::kafka::protocol::{Decodable, Encodable, HeaderVersion};
use forebay_wire::{DecodeError, EncodeError, RequestHeader, decode_request, encode_response};
use futures::future::BoxFuture;

use crate::memory::Held;

/// What is known of whoever sends the requests.
#[derive(Clone, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
}

/// A request whose header was read.
#[derive(Debug)]
pub struct Call<'a> {
    pub header: RequestHeader,
    pub body: BytesMut,
    pub connection: &'a Connection,
}

/// What to send back, in the order of the requests.
pub enum Reply {
    /// A frame, in pieces.
    Now(Vec<Bytes>),
    /// A frame with records, in pieces, and what it holds of the budget for these: keep it until they are sent.
    Records(Vec<Bytes>, Held),
    /// A frame that waits for something durable.
    Later(BoxFuture<'static, Result<Vec<Bytes>, CallError>>),
    /// The client expects no answer (`acks=0`).
    Nothing,
}

/// Why a connection is closed instead of a request answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("could not encode the answer")]
    Encode(#[from] EncodeError),
    #[error("API key {api_key} (version {version}) is not served")]
    NotServed { api_key: i16, version: i16 },
    #[error("{api} is served in versions {min} to {max}, not in {version}")]
    Version { api: &'static str, version: i16, min: i16, max: i16 },
    #[error("records sent with acks=0 could not be appended: {0}")]
    Unacknowledged(&'static str),
}

impl Call<'_> {
    pub fn version(&self) -> i16 {
        self.header.api_version
    }

    /// The request as its generated type.
    pub fn decode<T: Decodable>(&mut self) -> Result<T, CallError> {
        Ok(decode_request(self.body.split().freeze(), self.header.api_version)?)
    }

    /// The answer as a frame.
    pub fn answer<T: Encodable + HeaderVersion>(&self, response: &T) -> Result<Reply, CallError> {
        let frame = encode_response(self.header.correlation_id, self.header.api_version, response)?;
        Ok(Reply::Now(vec![frame.freeze()]))
    }
}
