//! `forebay dev` and `forebay serve`: one broker in this process, until it is asked to stop.
//!
//! Owns: options from settings, what is printed at the start, signals. Leaves to others: everything a broker does
//! (`broker`). Crash: a panic anywhere ends the process at once; the next start is a recovery like any other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use forebay_broker::{Broker, BrokerOptions, Exposure};
use forebay_env::Env;

use crate::exit::{Exit, usage};
use crate::logs::{self, Level};
use crate::output::{self, Format, json};
use crate::settings::{self, Flags};
use crate::signals::Stop;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every key of the configuration can also be set in the environment: FOREBAY_LOG_RETENTION_MS for \
                       log.retention.ms, FOREBAY_WAL_MAX_BYTES for forebay.wal.max.bytes. A flag counts before it."
)]
pub struct DevArgs {
    #[command(flatten)]
    flags: Flags,
    /// How much is logged to standard error
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: Level,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "A flag counts before the environment (FOREBAY_LOG_DIRS for log.dirs, FOREBAY_WAL for \
                       forebay.wal), that before the file, and the file before the defaults.")]
pub struct ServeArgs {
    /// A properties file with Kafka's key names where Kafka has one
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    flags: Flags,
    /// How much is logged to standard error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: Level,
}

pub async fn dev(env: &Env, args: DevArgs, format: Format) -> Result<Exit> {
    logs::start(args.log_level);
    let config = settings::resolve(&args.flags, settings::environment()?, BTreeMap::new())?;
    let options = BrokerOptions::from_config(config, Exposure::Dev).map_err(|error| usage(error.to_string()))?;
    run(env, options, format).await
}

pub async fn serve(env: &Env, args: ServeArgs, format: Format) -> Result<Exit> {
    logs::start(args.log_level);
    let file = settings::read_file(&args.config)?;
    let config = settings::resolve(&args.flags, settings::environment()?, file)?;
    let exposure = Exposure::of_serve(&config);
    let options = BrokerOptions::from_config(config, exposure).map_err(|error| usage(error.to_string()))?;
    run(env, options, format).await
}

async fn run(env: &Env, options: BrokerOptions, format: Format) -> Result<Exit> {
    options.check().map_err(|error| usage(error.to_string()))?;
    logs::abort_on_panic();
    let mut stop = Stop::listen().context("listen for signals")?;
    let data = options.data.display().to_string();
    let mut starting = std::pin::pin!(Broker::start(env.clone(), options));
    let broker = tokio::select! {
        biased;
        () = stop.asked() => {
            tracing::info!("stopped before the broker was ready");
            return Ok(Exit::Good);
        }
        broker = &mut starting => broker.context("start the broker")?,
    };
    announce(&broker, &data, format)?;
    tokio::select! {
        biased;
        () = stop.asked() => {}
        ended = broker.wait() => {
            ended.context("the broker has ended; start it again to recover")?;
            return Ok(Exit::Good);
        }
    }
    tracing::info!("draining; a second signal ends without it, which the next start recovers from");
    env.shutdown().trigger();
    tokio::select! {
        biased;
        () = stop.asked() => bail!("stopped without draining: the next start recovers"),
        stopped = broker.stop() => stopped.context("the broker ended while it drained; the next start recovers")?,
    }
    Ok(Exit::Good)
}

/// Says where everything is and what to do next.
fn announce(broker: &Broker, data: &str, format: Format) -> Result<()> {
    let report = broker.report();
    let kafka = broker.advertised();
    let admin = broker.admin_address();
    let millis = report.ready_in.as_millis();
    let bound: Vec<_> = broker.kafka_addresses().iter().map(ToString::to_string).collect();
    match format {
        Format::Json => output::line(
            &json!({
                "kafka": kafka.to_string(), "bound": bound, "admin": admin.to_string(), "data": data,
                "bucket": report.bucket, "wal": report.wal.to_string(), "cluster": report.cluster.as_str(), "readyMs": millis,
            })
            .to_string(),
        )?,
        Format::Text => {
            let elsewhere = if kafka.to_string() == "localhost:9092" { String::new() } else { format!(" -b {kafka}") };
            output::line(&format!(
                "Forebay {version} is ready ({millis} ms)\n\
                 \n\
                 \x20 Kafka   {kafka}   ({bound})\n\
                 \x20 Admin   http://{admin}   /health /ready /metrics\n\
                 \x20 Data    {data}   WAL: {wal}   bucket: {bucket}\n\
                 \n\
                 Next\n\
                 \x20 kcat -b {kafka} -L\n\
                 \x20 forebay topic create orders --partitions 6{elsewhere}\n\
                 \x20 forebay topic produce orders{elsewhere}\n\
                 \x20 forebay topic consume orders --from-beginning{elsewhere}\n\
                 \n\
                 Ctrl-C stops it; everything acknowledged stays.",
                version = env!("CARGO_PKG_VERSION"),
                bound = bound.join(", "),
                wal = report.wal,
                bucket = report.bucket,
            ))?;
        }
    }
    Ok(())
}
