//! A broker's host: what a service manager does, which is to start it again whenever it ends, as long as it is the host
//! that shall run it.
//!
//! Nobody stops the broker of a host that another has replaced: it has to find out by itself, and stop for good.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::HostPort;
use forebay_api::config::BrokerConfig;
use forebay_broker::{
    Broker, BrokerOptions, BucketChoice, DiskWalLimits, Exposure, ListenAddress, ListenHost, WalSetup,
};
use forebay_env::Env;
use forebay_store::Store;
use forebay_types::ByteSize;
use forebay_wal::providers::object::ObjectConfig;
use tokio::sync::{Notify, watch};

use crate::plan::{Plan, Plant, WalKind};

/// How long a service manager waits before it starts the broker again.
const RESTART_WAIT: Duration = Duration::from_millis(200);

/// Uploads are small and frequent, and so are snapshots, so that a short run has many.
const UPLOAD_SIZE: ByteSize = ByteSize::new(4 << 10);
const UPLOAD_AGE: Duration = Duration::from_millis(300);
const COMMITS_PER_SNAPSHOT: u64 = 8;
const RECORDS_PER_COORDINATOR_SNAPSHOT: u64 = 40;

/// How long a deleted topic can be brought back.
pub const TRASH: Duration = Duration::from_secs(4);

/// From condemned to deleted: long enough that a look-up and the read behind it fit in.
const GRACE: Duration = Duration::from_secs(2);

const UPKEEP_FIRST_WAIT: Duration = Duration::from_secs(1);
const UPKEEP_INTERVAL: Duration = Duration::from_millis(700);

/// The hosts that may run the broker, by name, and which of them shall.
pub const HOSTS: [&str; 2] = ["broker", "heir"];

/// Where clients find the broker, wherever it runs.
pub fn bootstrap(plan: &Plan) -> String {
    let hosts = if plan.has_usurper() { &HOSTS[..] } else { &HOSTS[..1] };
    hosts.iter().map(|host| format!("{host}:9092")).collect::<Vec<_>>().join(",")
}

/// Runs the broker whenever `host` is the one of [`HOSTS`] that shall, until it loses power.
pub(crate) async fn serve(
    env: Env,
    bucket: Arc<dyn Store>,
    plan: Plan,
    host: usize,
    mut appointed: watch::Receiver<usize>,
    asked_to_stop: Arc<Notify>,
) -> turmoil::Result {
    loop {
        appointed.wait_for(|appointed| *appointed == host).await?;
        match Broker::start(env.clone(), options(&bucket, &plan, HOSTS[host])).await {
            Ok(broker) => {
                let end = tokio::select! {
                    biased;
                    end = broker.wait() => end,
                    () = asked_to_stop.notified() => broker.stop().await,
                };
                tracing::info!(host = HOSTS[host], ?end, "the broker has ended");
            }
            Err(error) => {
                tracing::info!(
                    host = HOSTS[host],
                    error = &error as &dyn std::error::Error,
                    "the broker did not start"
                );
            }
        }
        env.sleep(RESTART_WAIT).await;
    }
}

fn options(bucket: &Arc<dyn Store>, plan: &Plan, host: &str) -> BrokerOptions {
    let port = |port| ListenAddress { host: ListenHost::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port };
    let set = [
        ("group.initial.rebalance.delay.ms", "100".to_owned()),
        ("offsets.topic.num.partitions", "2".to_owned()),
        ("transaction.state.log.num.partitions", "2".to_owned()),
        ("log.retention.check.interval.ms", UPKEEP_INTERVAL.as_millis().to_string()),
        ("forebay.topic.trash.ms", TRASH.as_millis().to_string()),
    ];
    let set: BTreeMap<String, String> = set.into_iter().map(|(key, value)| (key.into(), value)).collect();
    let config = BrokerConfig::parse(&set).expect("known keys");
    let exposure = Exposure::Serve { plaintext_public: true };
    let mut options = BrokerOptions::from_config(config, exposure).expect("a legal configuration");
    options.kafka = port(9092);
    options.admin = port(9640);
    options.advertised = Some(HostPort { host: host.to_owned(), port: 9092 });
    options.data = PathBuf::from("/data");
    options.bucket = BucketChoice::Provider(Arc::clone(bucket));
    let planted = |plant| plan.plant == Some(plant);
    options.wal = match plan.wal {
        WalKind::Disk => WalSetup::Disk(DiskWalLimits { total: ByteSize::mib(4), segment: ByteSize::mib(1) }),
        WalKind::Object => WalSetup::Object(ObjectConfig {
            sabotage_ignore_fence: planted(Plant::IgnoreFence),
            ..ObjectConfig::default()
        }),
    };
    options.log.upload.size_target = UPLOAD_SIZE;
    options.log.upload.age_max = UPLOAD_AGE;
    options.log.upload.commits_per_snapshot = COMMITS_PER_SNAPSHOT.try_into().expect("not 0");
    options.log.warm_budget = ByteSize::new(8 << 10);
    options.log.cache_budget = ByteSize::mib(1);
    options.log.wal.sabotage_ack_before_write = planted(Plant::AckBeforeWrite);
    options.log.sabotage_forget_producers = planted(Plant::ForgetProducerState);
    options.log.sabotage_ignore_aborts = planted(Plant::IgnoreAborts);
    options.log.sabotage_serve_before_durable = planted(Plant::ServeBeforeDurable);
    options.log.sabotage_stray_records = planted(Plant::StrayRecords);
    options.coordinators.records_per_snapshot = RECORDS_PER_COORDINATOR_SNAPSHOT;
    options.coordinators.sabotage_half_markers = planted(Plant::HalfMarkers);
    options.coordinators.groups.sabotage_keep_generation = planted(Plant::KeepGeneration);
    options.coordinators.txns.sabotage_forget_prepared = planted(Plant::ForgetPrepared);
    options.upkeep.first_wait = UPKEEP_FIRST_WAIT;
    options.upkeep.condemned_grace = GRACE;
    options.upkeep.sabotage_collect_by_age = planted(Plant::CollectByAge).then_some(GRACE);
    options.upkeep.sabotage_purge_early = planted(Plant::PurgeEarly);
    options.upkeep.sabotage_retire_early = planted(Plant::RetireEarly);
    options.sabotage_cut_too_far = planted(Plant::CutTooFar);
    options
}
