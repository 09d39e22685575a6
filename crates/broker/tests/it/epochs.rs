//! The end of a broker epoch inside a process that goes on.

use std::time::Duration;

use forebay_broker::Broker;
use forebay_client::{Admin, NewTopic};
use forebay_env::simulated::DiskFault;
use forebay_format::ObjectName;
use forebay_store::{Body, Key, Store};
use forebay_types::WalSequence;

use crate::inside::Inside;
use crate::support::{admin, client, consume, metric, name, partition, produce};

/// A sync that fails ends the broker epoch, not the process: the next epoch takes over what was acknowledged, on the
/// same sockets, and an idempotent producer goes on without a loss or a duplicate.
#[tokio::test(start_paused = true)]
async fn a_failed_sync_begins_another_epoch() {
    let inside = Inside::new(5);
    let (env, disk) = (inside.env.clone(), &inside.disk);
    let broker = Broker::start(env.clone(), inside.options(&[])).await.expect("the broker starts");
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
    let inside = Inside::new(6);
    let (env, disk) = (inside.env.clone(), &inside.disk);
    let broker = Broker::start(env.clone(), inside.options(&[])).await.expect("the broker starts");
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

/// Uploads that cannot go on end the broker at once, not at the next look: here its next data object's name is another's.
#[tokio::test(start_paused = true)]
async fn uploads_that_end_for_good_end_the_broker_at_once() {
    let inside = Inside::new(7);
    let env = inside.env.clone();
    let options = inside.options(&[("forebay.upload.ms", "100")]);
    let broker = Broker::start(env.clone(), options).await.expect("the broker starts");
    let client = client(&env, &broker);
    Admin::new(&client).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    let life = broker.report().life;
    let next = ObjectName::Data { broker: life.broker, epoch: life.epoch, sequence: WalSequence::ZERO };
    let next = Key::new(&next.to_string()).expect("names of ours are keys");
    inside.bucket.create(&next, Body::from(b"another's".to_vec())).await.expect("its name is free");

    produce(&client, &partition("orders", 0), ["acknowledged".to_owned()].into_iter()).await;
    let acknowledged = env.monotonic();
    let ended = broker.wait().await.expect_err("it cannot go on").to_string();
    assert!(ended.contains("is taken by an object that this broker epoch did not write"), "{ended}");
    let took = env.monotonic() - acknowledged;
    assert!(
        took < Duration::from_millis(110),
        "the upload was due after 100 ms, and the end came {took:?} after the ack"
    );
}
