//! The machine of one simulated host: turmoil's clock and sockets, a seed's randomness, a disk that forgets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use forebay_env::simulated::{SimDisk, SimRandom, Trace, TracedTimers};
use forebay_env::{Clock, Env, FailPoint, FailPoints, Listener, Network, Parts, Shutdown, Stream, Threads};
use forebay_store::CLOCKS_DIFFERENCE_MAX_MS;
use forebay_types::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, watch};

/// 2020-01-01 00:00:10 UTC, so that a simulated time looks like a time.
const START: i64 = 1_577_836_810_000;

/// A wall clock that runs with the simulation and jumps where told. Clones share the jumps.
#[derive(Clone, Default)]
pub struct WallClock(Arc<Jumps>);

#[derive(Default)]
struct Jumps {
    /// By how much the clock is ahead of the simulation.
    ahead_millis: AtomicI64,
    /// By how much it ever was.
    ahead_millis_highest: AtomicI64,
    /// How many left it at a time that a broker would believe.
    believable: AtomicU64,
}

impl WallClock {
    /// Moves the clock, forth or (below 0) back.
    pub fn jump(&self, millis: i64) {
        let ahead = self.0.ahead_millis.fetch_add(millis, Ordering::Relaxed) + millis;
        self.0.ahead_millis_highest.fetch_max(ahead, Ordering::Relaxed);
        if ahead.unsigned_abs() <= CLOCKS_DIFFERENCE_MAX_MS {
            self.0.believable.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Jumps after which a broker acts on what the clock shows.
    pub fn believable_jumps(&self) -> u64 {
        self.0.believable.load(Ordering::Relaxed)
    }

    /// The latest time that this clock can have shown so far.
    pub fn highest(&self) -> Timestamp {
        simulated().saturating_add(self.0.ahead_millis_highest.load(Ordering::Relaxed))
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        simulated().saturating_add(self.0.ahead_millis.load(Ordering::Relaxed))
    }
}

/// The wall clocks of all hosts that may run the broker, as somebody who looks at them sees them.
#[derive(Clone)]
pub struct BrokerClocks(Arc<[WallClock]>);

impl BrokerClocks {
    pub fn new(clocks: impl Iterator<Item = WallClock>) -> Self {
        Self(clocks.collect())
    }

    /// How often any of them has jumped to a time that a broker acts on.
    pub fn believable_jumps(&self) -> u64 {
        self.0.iter().map(WallClock::believable_jumps).sum()
    }

    /// The latest time that any of them can have shown so far.
    pub fn highest(&self) -> Timestamp {
        self.0.iter().map(WallClock::highest).max().unwrap_or_default()
    }
}

/// What a clock that never jumps shows.
fn simulated() -> Timestamp {
    let elapsed = since_start().as_millis();
    let elapsed = i64::try_from(elapsed).expect("a simulation ends within the age of the universe");
    Timestamp::from_millis(START + elapsed)
}

/// How long the simulation has run.
fn since_start() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Whether a host's requests to the bucket get through. Behind a closed gate they wait, and so do the answers to those
/// that were under way. Clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }
}

impl Gate {
    pub fn close(&self) {
        self.0.send_replace(false);
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns while the gate is open.
    pub async fn passed(&self) {
        let mut gate = self.0.subscribe();
        // The sender lives in `self`.
        let _ = gate.wait_for(|open| *open).await;
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

/// What a host is made of; a broker's survives its crashes, a client has a disk of its own that it never uses.
#[derive(Clone)]
pub struct Machine {
    pub name: &'static str,
    pub seed: u64,
    pub disk: SimDisk,
    pub clock: WallClock,
    pub power: PowerSwitch,
    /// Between the host and the bucket.
    pub gate: Gate,
    /// Asks the broker that runs on it to drain.
    pub asked_to_stop: Arc<Notify>,
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
            gate: Gate::default(),
            asked_to_stop: Arc::default(),
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
            timers: Some(Box::new(TracedTimers::new(self.name, self.trace.clone(), since_start))),
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
