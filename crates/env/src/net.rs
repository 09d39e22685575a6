//! Sockets behind a trait: TCP on a machine, turmoil's in simulation.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream between two peers.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[async_trait]
pub trait Listener: Send + Sync {
    /// The next connection and the peer's address. Cancel safe.
    ///
    /// # Errors
    /// Out of descriptors, or the socket is gone: the caller waits a little and tries again.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;

    /// The address really bound: port 0 has become a number.
    fn local_addr(&self) -> SocketAddr;
}

#[async_trait]
pub trait Network: Send + Sync {
    /// # Errors
    /// The address is taken, not ours, or not permitted.
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to `host:port`; a name with several addresses is tried in order.
    ///
    /// # Errors
    /// Nobody answers there, or the name is unknown.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>>;
}
