//! The machine of one simulated host: turmoil's clock and sockets, a seed's randomness, a disk that forgets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use forebay_env::simulated::{SimDisk, SimRandom, Trace};
use forebay_env::{Clock, Env, FailPoint, FailPoints, Listener, Network, Parts, Shutdown, Stream, Threads};
use forebay_types::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// 2020-01-01 00:00:10 UTC, so that a simulated time looks like a time.
const START: i64 = 1_577_836_810_000;

/// A wall clock that runs with the simulation and jumps where told. Clones share the jumps.
#[derive(Clone, Default)]
pub struct WallClock(Arc<AtomicI64>);

impl WallClock {
    /// Moves the clock, forth or (below 0) back.
    pub fn jump(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let elapsed = i64::try_from(elapsed.as_millis()).expect("a simulation ends within the age of the universe");
        Timestamp::from_millis(START + elapsed + self.0.load(Ordering::Relaxed))
    }
}

/// A fail point that ends the host's life. The host loses power at the end of the step in which the point is passed;
/// until then it is frozen: nothing it sends reaches anybody, so nobody learns what came after the point.
#[derive(Clone, Default)]
pub struct PowerSwitch(Arc<Switch>);

#[derive(Default)]
struct Switch {
    armed: Mutex<Option<FailPoint>>,
    frozen: AtomicBool,
}

impl PowerSwitch {
    pub fn arm(&self, point: FailPoint) {
        *self.0.armed.lock() = Some(point);
    }

    /// Whether the armed point was passed.
    pub fn is_frozen(&self) -> bool {
        self.0.frozen.load(Ordering::Relaxed)
    }

    /// The power is back, and nothing is armed.
    pub fn reset(&self) {
        *self.0.armed.lock() = None;
        self.0.frozen.store(false, Ordering::Relaxed);
    }
}

impl FailPoints for PowerSwitch {
    fn hit(&self, point: FailPoint) {
        if *self.0.armed.lock() == Some(point) {
            self.0.frozen.store(true, Ordering::Relaxed);
        }
    }
}

/// What a host is made of; the broker's survives its crashes, a client has a disk of its own that it never uses.
#[derive(Clone)]
pub struct Machine {
    pub name: &'static str,
    pub seed: u64,
    pub disk: SimDisk,
    pub clock: WallClock,
    pub power: PowerSwitch,
    pub trace: Trace,
}

impl Machine {
    pub fn new(name: &'static str, seed: u64, trace: &Trace) -> Self {
        Self {
            name,
            seed,
            disk: SimDisk::new(seed, trace.clone()),
            clock: WallClock::default(),
            power: PowerSwitch::default(),
            trace: trace.clone(),
        }
    }

    /// The environment of one life of the host. Called on the host.
    pub fn env(&self, life: u64) -> Env {
        Env::new(Parts {
            clock: Box::new(self.clock.clone()),
            random: Box::new(SimRandom::new(self.seed.wrapping_add(life.wrapping_mul(0x9e37_79b9_7f4a_7c15)))),
            network: Box::new(SimNetwork { host: self.name, power: self.power.clone(), trace: self.trace.clone() }),
            disk: Arc::new(self.disk.clone()),
            fail_points: Box::new(self.power.clone()),
            threads: Threads::One,
            shutdown: Shutdown::default(),
        })
    }
}

/// Turmoil's network as this host sees it.
struct SimNetwork {
    host: &'static str,
    power: PowerSwitch,
    trace: Trace,
}

#[async_trait]
impl Network for SimNetwork {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        // A host has one address here; whatever interface was asked for, it is that one.
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
        let socket = turmoil::net::TcpListener::bind(any).await?;
        let local = socket.local_addr()?;
        Ok(Box::new(SimListener {
            host: self.host,
            power: self.power.clone(),
            socket,
            local,
            trace: self.trace.clone(),
        }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = turmoil::net::TcpStream::connect(address).await;
        self.trace.observe("connect", &format!("{} to {address}: {}", self.host, stream.is_ok()), b"");
        Ok(Box::new(Traced { host: self.host, power: self.power.clone(), stream: stream?, trace: self.trace.clone() }))
    }
}

struct SimListener {
    host: &'static str,
    power: PowerSwitch,
    socket: turmoil::net::TcpListener,
    local: SocketAddr,
    trace: Trace,
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        self.trace.observe("accept", self.host, b"");
        let (power, trace) = (self.power.clone(), self.trace.clone());
        Ok((Box::new(Traced { host: self.host, power, stream, trace }), peer))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// A stream whose every read and write is an event of the trace.
struct Traced {
    host: &'static str,
    power: PowerSwitch,
    stream: turmoil::net::TcpStream,
    trace: Trace,
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.trace.observe("read", self.host, &buf.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.power.is_frozen() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.trace.observe("write", self.host, &bytes[..*count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
