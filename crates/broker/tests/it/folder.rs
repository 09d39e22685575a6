//! Folders and buckets that a broker must not use are refused, in words that say what to do.

use std::error::Error;

use forebay_broker::{Broker, BrokerOptions, StartError};
use forebay_env::simulated::DiskFault;
use forebay_env::{Env, real};

use crate::inside::Inside;
use crate::support::{admin, options};

async fn refused(env: &Env, options: &BrokerOptions) -> String {
    let error: StartError = Broker::start(env.clone(), options.clone()).await.err().expect("it must not start");
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A second broker on one folder is refused while the first is undisturbed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_refused() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let options = options(folder.path(), &[]);
    let broker = Broker::start(env.clone(), options.clone()).await.expect("the first starts");
    let told = refused(&env, &options).await;
    assert!(told.ends_with("is in use by another process: stop that one, or choose another folder"), "{told}");
    assert_eq!(admin(&env, &broker, "/ready").await.0, "200");
    broker.stop().await.expect("drained");
}

/// A disk that has no room for the first segment fails the start, which says how much is wanted and what to do. With
/// room, the same folder starts.
#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_at_the_start() {
    let inside = Inside::new(3);
    inside.disk.inject(DiskFault::Capacity(1 << 20));
    let told = refused(&inside.env, &inside.options(&[])).await;
    let expected = "could not open the write-ahead log: the disk is too full for another segment of the WAL: /data/wal \
                    needs 2 MiB for it; free some space, or set forebay.wal.segment.bytes lower: ";
    assert!(told.starts_with(expected), "{told}");
    inside.disk.heal();
    let broker = Broker::start(inside.env.clone(), inside.options(&[])).await.expect("it starts now");
    broker.stop().await.expect("drained");
}

/// A folder written by another version is left alone.
#[tokio::test]
async fn a_folder_of_another_version_is_refused() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("forebay-folder"), "forebay data folder\nformat 7\n").expect("written");
    let told = refused(&env, &options(folder.path(), &[])).await;
    assert!(told.contains("has format 7, and this version of Forebay reads format 1"), "{told}");
}

/// A folder goes with the bucket it was made with: not with another cluster's, and not with an empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_to_its_bucket() {
    let (env, root) = (real::env(), tempfile::tempdir().expect("a folder"));
    let with = |data: &str, bucket: &str| {
        let url = format!("file://{}", root.path().join(bucket).display());
        options(&root.path().join(data), &[("forebay.bucket", &url)])
    };
    for (data, bucket) in [("d1", "b1"), ("d2", "b2")] {
        Broker::start(env.clone(), with(data, bucket)).await.expect("it starts").stop().await.expect("drained");
    }
    // The other cluster's broker runs, and must not be fenced by the attempt.
    let other = Broker::start(env.clone(), with("d2", "b2")).await.expect("it starts");
    let told = refused(&env, &with("d1", "b2")).await;
    assert!(
        told.contains("belongs to cluster") && told.contains("use the bucket that the folder was made with"),
        "{told}"
    );
    assert_eq!(admin(&env, &other, "/ready").await.0, "200");
    other.stop().await.expect("still the writer of its metadata");

    let told = refused(&env, &with("d1", "b3")).await;
    assert!(told.contains("is empty: use the bucket that the folder was made with"), "{told}");
}

/// A bucket in memory ends with its broker, so the same folder serves the next one as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_in_memory_binds_no_folder() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let options = options(folder.path(), &[("forebay.bucket", "memory:")]);
    for _ in 0..2 {
        let broker = Broker::start(env.clone(), options.clone()).await.expect("it starts");
        assert_eq!(broker.report().recovered.lives, 0);
        broker.stop().await.expect("drained");
    }
}
