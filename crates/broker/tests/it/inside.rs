//! A machine inside of this process: simulated disk, bucket in memory, and a network whose sockets are queues. Its time
//! stands still while anybody works, so a test can say how long something took, and mean it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_broker::{BrokerOptions, BucketChoice};
use forebay_env::simulated::{SimDisk, Trace, parts};
use forebay_env::{Env, Listener, Network, Parts, Stream};
use forebay_store::Store;
use forebay_store::faulty::Faulty;
use forebay_store::memory::MemoryStore;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::support;

/// Bytes under way on a connection, in each direction.
const SOCKET_BYTES: usize = 64 << 10;
/// Connections that nobody has accepted yet.
const BACKLOG: usize = 16;
/// The first port that is given where any will do.
const PORT_FIRST: u16 = 20_000;

/// A machine, and its bucket, which can go wrong.
pub struct Inside {
    pub env: Env,
    pub disk: SimDisk,
    pub bucket: Arc<Faulty>,
}

impl Inside {
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed, Trace::default());
        let env = Env::new(Parts { network: Box::new(Queues::default()), ..parts(seed, &disk) });
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(&env));
        let bucket = Arc::new(Faulty::new(&env, memory));
        Self { env, disk, bucket }
    }

    /// A broker of this machine; `more` are further keys.
    pub fn options(&self, more: &[(&str, &str)]) -> BrokerOptions {
        let mut options = support::options(Path::new("/data"), more);
        options.bucket = BucketChoice::Provider(Arc::clone(&self.bucket) as Arc<dyn Store>);
        options
    }
}

type Backlog = mpsc::Sender<DuplexStream>;

#[derive(Default)]
struct Queues(Mutex<BTreeMap<u16, Backlog>>);

#[async_trait]
impl Network for Queues {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        if address.is_ipv6() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut listening = self.0.lock();
        listening.retain(|_, backlog| !backlog.is_closed());
        let port = match address.port() {
            0 => (PORT_FIRST..=u16::MAX).find(|port| !listening.contains_key(port)).expect("few listen"),
            port => port,
        };
        if listening.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (backlog, waiting) = mpsc::channel(BACKLOG);
        listening.insert(port, backlog);
        Ok(Box::new(Listening { port, waiting: tokio::sync::Mutex::new(waiting) }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let backlog = port.and_then(|port| self.0.lock().get(&port).cloned()).ok_or_else(refused)?;
        let (near, far) = tokio::io::duplex(SOCKET_BYTES);
        backlog.send(far).await.map_err(|_| refused())?;
        Ok(Box::new(near))
    }
}

struct Listening {
    port: u16,
    waiting: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
}

#[async_trait]
impl Listener for Listening {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        match self.waiting.lock().await.recv().await {
            Some(stream) => Ok((Box::new(stream), (Ipv4Addr::LOCALHOST, 1).into())),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn local_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}
