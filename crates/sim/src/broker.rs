//! The broker's host: what a service manager does, which is to start it again whenever it ends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use forebay_api::HostPort;
use forebay_api::config::BrokerConfig;
use forebay_broker::{
    Broker, BrokerOptions, BucketChoice, DiskWalLimits, Exposure, ListenAddress, ListenHost, WalSetup,
};
use forebay_env::Env;
use forebay_types::ByteSize;
use forebay_wal::providers::object::ObjectConfig;

use crate::bucket::SimBucket;
use crate::plan::{Plan, Plant, WalKind};

/// How long a service manager waits before it starts the broker again.
const RESTART_WAIT: Duration = Duration::from_millis(200);

/// Uploads are small and frequent, so that a short run has many.
const UPLOAD_SIZE: ByteSize = ByteSize::new(4 << 10);
const UPLOAD_AGE: Duration = Duration::from_millis(300);

/// Runs the broker until the host loses power.
pub(crate) async fn serve(env: Env, bucket: SimBucket, plan: Plan) -> turmoil::Result {
    loop {
        match Broker::start(env.clone(), options(&bucket, &plan)).await {
            Ok(broker) => {
                let end = broker.wait().await;
                tracing::info!(?end, "the broker has ended");
            }
            Err(error) => tracing::info!(%error, "the broker did not start"),
        }
        env.sleep(RESTART_WAIT).await;
    }
}

fn options(bucket: &SimBucket, plan: &Plan) -> BrokerOptions {
    let port = |port| ListenAddress { host: ListenHost::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port };
    let set = [
        ("group.initial.rebalance.delay.ms", "100"),
        ("offsets.topic.num.partitions", "2"),
        ("transaction.state.log.num.partitions", "2"),
    ];
    let set: BTreeMap<String, String> = set.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let config = BrokerConfig::parse(&set).expect("known keys");
    let exposure = Exposure::Serve { plaintext_public: true };
    let mut options = BrokerOptions::from_config(config, exposure).expect("a legal configuration");
    options.kafka = port(9092);
    options.admin = port(9640);
    options.advertised = Some(HostPort { host: "broker".to_owned(), port: 9092 });
    options.data = PathBuf::from("/data");
    options.bucket = BucketChoice::Provider(bucket.store.clone());
    options.wal = match plan.wal {
        WalKind::Disk => WalSetup::Disk(DiskWalLimits { total: ByteSize::mib(4), segment: ByteSize::mib(1) }),
        WalKind::Object => WalSetup::Object(ObjectConfig::default()),
    };
    options.log.upload.size_target = UPLOAD_SIZE;
    options.log.upload.age_max = UPLOAD_AGE;
    options.log.warm_budget = ByteSize::new(8 << 10);
    options.log.cache_budget = ByteSize::mib(1);
    options.log.sabotage_forget_producers = plan.plant == Some(Plant::ForgetProducerState);
    options.log.wal.sabotage_ack_before_write = plan.plant == Some(Plant::AckBeforeWrite);
    options
}
