//! The end of a broker epoch inside a process that goes on.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_broker::{Broker, BucketChoice};
use forebay_client::{Admin, NewTopic};
use forebay_env::simulated::{DiskFault, SimDisk, Trace, parts};
use forebay_env::{Env, Listener, Network, Parts, Stream, real};
use forebay_store::memory::MemoryStore;

use crate::support::{admin, client, consume, metric, name, options, partition, produce};

/// The machine's network beside a simulated disk.
struct Lan(Env);

#[async_trait]
impl Network for Lan {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.0.network().listen(address).await
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        self.0.network().connect(address).await
    }
}

/// A sync that fails ends the broker epoch, not the process: the next epoch takes over what was acknowledged, on the
/// same sockets, and an idempotent producer goes on without a loss or a duplicate.
#[tokio::test]
async fn a_failed_sync_begins_another_epoch() {
    let disk = SimDisk::new(5, Trace::default());
    let env = Env::new(Parts { network: Box::new(Lan(real::env())), ..parts(5, &disk) });
    let mut options = options(Path::new("/data"), &[]);
    options.bucket = BucketChoice::Provider(Arc::new(MemoryStore::new(&env)));
    let broker = Broker::start(env.clone(), options).await.expect("the broker starts");
    let client = client(&env, &broker);
    Admin::new(&client).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    produce(&client, &partition("orders", 0), ["before".to_owned()].into_iter()).await;
    let epoch = || async { metric(&admin(&env, &broker, "/metrics").await.1, "forebay_broker_epoch") };
    let first = epoch().await;

    disk.inject(DiskFault::SyncFails { after: 0 });
    produce(&client, &partition("orders", 0), ["after".to_owned()].into_iter()).await;

    assert_eq!(consume(&client, &partition("orders", 0), 2).await, ["before", "after"]);
    assert!(epoch().await > first, "under a later epoch");
    assert_eq!(admin(&env, &broker, "/ready").await.0, "200");
    broker.stop().await.expect("drained");
}

/// A disk that fails every time is given up: the process ends and says why.
#[tokio::test]
async fn a_disk_that_stays_broken_ends_the_process() {
    let disk = SimDisk::new(6, Trace::default());
    let env = Env::new(Parts { network: Box::new(Lan(real::env())), ..parts(6, &disk) });
    let mut options = options(Path::new("/data"), &[]);
    options.bucket = BucketChoice::Provider(Arc::new(MemoryStore::new(&env)));
    let broker = Broker::start(env.clone(), options).await.expect("the broker starts");
    let client = client(&env, &broker);
    Admin::new(&client).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");

    let to = partition("orders", 0);
    // A batch whose sync failed may be found all the same and acknowledged by the next epoch: one for each, not these.
    let producing = produce(&client, &to, (0..100).map(|n| n.to_string()));
    let breaking = async {
        loop {
            disk.inject(DiskFault::SyncFails { after: 0 });
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::select! {
        biased;
        ended = broker.wait() => ended.expect_err("it cannot go on").to_string(),
        () = producing => panic!("this disk cannot take a hundred batches"),
        () = breaking => unreachable!("it breaks for ever"),
    };
    assert!(ended.starts_with("the write-ahead log failed"), "{ended}");
    assert_eq!(admin(&env, &broker, "/health").await.0, "503");
}
