//! What a restart keeps, after a drain and after a crash.

use forebay_broker::Broker;
use forebay_client::{Admin, NewTopic};
use forebay_env::real;

use crate::support::{client, consume, name, options, partition, produce, start_after_drop};

fn values(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("value {n}")).collect()
}

/// A drained broker leaves nothing to recover, and the next one has its topics and records under a new epoch.
async fn survives_a_drain(more: &[(&str, &str)], count: usize) {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let options = options(folder.path(), more);
    let broker = Broker::start(env.clone(), options.clone()).await.expect("the broker starts");
    let first = client(&env, &broker);
    Admin::new(&first).create_topic(&NewTopic::new(name("orders"), 2)).await.expect("created");
    produce(&first, &partition("orders", 1), values(count).into_iter()).await;
    let before = broker.report().clone();
    broker.stop().await.expect("drained");

    let broker = Broker::start(env.clone(), options).await.expect("the broker starts again");
    let after = broker.report();
    assert_eq!((after.recovered.lives, after.recovered.batches), (1, 0), "all is in the bucket: {after:?}");
    assert_eq!(after.cluster, before.cluster);
    assert!(after.life > before.life, "a restart is a takeover of oneself");
    assert_eq!(consume(&client(&env, &broker), &partition("orders", 1), count).await, values(count));
    broker.stop().await.expect("drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_broker_with_a_disk_wal_starts_again() {
    survives_a_drain(&[], 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_broker_with_an_object_wal_starts_again() {
    survives_a_drain(&[("forebay.wal", "object")], 8).await;
}

/// A broker that vanishes leaves acknowledged records in its WAL only; the next one brings them to the bucket first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_broker_is_recovered() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let options = options(folder.path(), &[]);
    let broker = Broker::start(env.clone(), options.clone()).await.expect("the broker starts");
    let first = client(&env, &broker);
    Admin::new(&first).create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    produce(&first, &partition("orders", 0), values(20).into_iter()).await;
    drop((first, broker));

    let broker = start_after_drop(&env, &options).await;
    assert!(broker.report().recovered.batches >= 20, "{:?}", broker.report().recovered);
    assert_eq!(consume(&client(&env, &broker), &partition("orders", 0), 20).await, values(20));
    broker.stop().await.expect("drained");
}
