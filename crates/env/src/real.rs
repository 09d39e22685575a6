//! The machine itself: the system's clock and randomness, TCP, files.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use forebay_types::Timestamp;
use rand::TryRngCore;
use tokio::net::{TcpListener, TcpStream};

use crate::{Clock, Env, FailPoints, Listener, Network, NoFailPoints, Parts, Random, Shutdown, Stream, Threads};

mod disk;

pub use disk::RealDisk;

/// The machine, with nothing armed to fail.
pub fn env() -> Env {
    env_with(Box::new(NoFailPoints))
}

/// The machine, with fail points that may end the process.
pub fn env_with(fail_points: Box<dyn FailPoints>) -> Env {
    Env::new(Parts {
        clock: Box::new(SystemClock),
        random: Box::new(SystemRandom),
        network: Box::new(Tcp),
        disk: Arc::new(RealDisk),
        fail_points,
        timers: None,
        threads: Threads::Many,
        shutdown: Shutdown::default(),
    })
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |m| -m),
        };
        Timestamp::from_millis(millis)
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rngs::OsRng.try_fill_bytes(bytes).expect("the operating system gives random bytes");
    }
}

struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = TcpListener::bind(address).await?;
        let local = socket.local_addr()?;
        Ok(Box::new(TcpAccept { socket, local }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        // Requests are written whole: waiting to fill a segment only adds latency.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

struct TcpAccept {
    socket: TcpListener,
    local: SocketAddr,
}

#[async_trait]
impl Listener for TcpAccept {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}
