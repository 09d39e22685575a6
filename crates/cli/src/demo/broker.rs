//! The broker that the demo kills: `forebay dev` with fail points that can be armed, and faults that can be planted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use forebay_api::config::BrokerConfig;
use forebay_broker::{Broker, BrokerOptions, Exposure};
use forebay_env::Env;

use super::{Sabotage, armed};
use crate::exit::Exit;
use crate::logs::{self, Level};
use crate::settings::Wal;
use crate::signals::Stop;

/// Uploads are a part of what is interrupted, so they happen often.
const UPLOAD_MS: &str = "500";

#[derive(Debug, Args)]
pub struct BrokerArgs {
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    port: u16,
    #[arg(long, value_enum)]
    wal: Wal,
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

pub async fn broker(env: &Env, args: BrokerArgs) -> Result<Exit> {
    logs::start(Level::Info);
    logs::abort_on_panic();
    let _orders = armed::obey(env);
    let mut stop = Stop::listen()?;
    let broker = Broker::start(env.clone(), options(&args)?).await.context("start the broker")?;
    armed::say("ready");
    tokio::select! {
        biased;
        () = stop.asked() => {}
        ended = broker.wait() => {
            ended.context("the broker has ended")?;
            return Ok(Exit::Good);
        }
    }
    broker.stop().await.context("drain the broker")?;
    Ok(Exit::Good)
}

fn options(args: &BrokerArgs) -> Result<BrokerOptions> {
    let data = args.data.to_str().context("the data folder's name is not UTF-8")?;
    let given = [
        ("log.dirs", data.to_owned()),
        ("listeners", format!("PLAINTEXT://127.0.0.1:{}", args.port)),
        ("forebay.admin.listener", "127.0.0.1:0".to_owned()),
        ("forebay.wal", args.wal.name().to_owned()),
        ("forebay.upload.ms", UPLOAD_MS.to_owned()),
    ];
    let given: BTreeMap<_, _> = given.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut options = BrokerOptions::from_config(BrokerConfig::parse(&given)?, Exposure::Dev)?;
    match args.sabotage {
        Some(Sabotage::AckBeforeWrite) => options.log.wal.sabotage_ack_before_write = true,
        Some(Sabotage::ForgetProducerState) => options.log.sabotage_forget_producers = true,
        // The reader's fault, not the broker's.
        Some(Sabotage::IgnoreAborts) | None => {}
    }
    Ok(options)
}
