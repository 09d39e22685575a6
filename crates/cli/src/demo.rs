//! `forebay demo`: the main job, end to end, and a proof that it was done.
//!
//! ```text
//!  this process                       demo-broker (child)            demo-pipeline (child)
//!  feed ── departures by carrier ───▶ topic departures ── committed ─▶ count and delay per carrier
//!  watcher ◀──── read committed ───── topic carrier-stats ◀─ transactions with the input's offsets
//!  director: kills both at points drawn from the seed, starts them again, checks everything
//! ```
//!
//! The broker kills itself at named fail points of the product, the pipeline at points of its own, and either may be
//! killed from outside at any moment; always by SIGKILL. After every restart the whole of both topics is read again and
//! held against what this process knows: its ledger of acknowledgements, the committed rows it has seen, and the file.
//!
//! Owns: the proof and its report. Leaves to others: everything that is proved. Invariants:
//! 1. What is compared with is never taken from the broker: the ledger comes from acknowledgements, the truth from the
//!    file, by a pass that shares no code with the pipeline.
//! 2. A check that is not made, or that a planted fault (`--sabotage`) does not turn red, is an error, not a success.
//! 3. What the report says was lost and duplicated, and its table, are counted from what the broker served at the end.
//! 4. No child outlives this process: each ends when its standard input closes.

mod armed;
mod broker;
mod checks;
mod departures;
mod director;
mod feed;
mod ledger;
mod pipeline;
mod plan;
mod process;
mod reader;
mod report;
mod tally;
mod track;
mod watcher;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use forebay_env::Env;

use crate::exit::{Exit, usage};
use crate::output::{self, Format};
use crate::settings::Wal;
use crate::signals::Stop;
use director::{Director, Ended, Stage};
use plan::plan;
use report::{Facts, Report, Verdict};

pub use armed::armed_points;
pub use process::ChildArguments;

/// The topic that is fed.
const DEPARTURES: &str = "departures";
const DEPARTURES_PARTITIONS: u32 = 4;
/// The topic that the pipeline writes.
const STATS: &str = "carrier-stats";
const STATS_PARTITIONS: u32 = 2;
/// The group under which the pipeline keeps its offsets, and its transactional id.
const GROUP: &str = "carrier-delays";

/// Seeds that are drawn stay short enough to be typed.
const DRAWN_SEEDS: u64 = 1_000_000_000;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Repeats a kill schedule [default: drawn, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// The broker's write-ahead log
    #[arg(long, value_enum, default_value_t = Wal::Disk)]
    wal: Wal,
    /// How often something is killed
    #[arg(long, default_value_t = 12, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=40))]
    kills: u32,
    /// Keep the broker's data and the logs in this folder, which must be empty [default: a folder that is removed]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Plant a fault: the proof must fail
    #[arg(long, value_enum, value_name = "FAULT")]
    sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// The broker acknowledges records before it has written them
    AckBeforeWrite,
    /// A restarted broker has forgotten which sequences it has and which transactions are open
    ForgetProducerState,
    /// The reader of the result takes records of aborted transactions for real
    IgnoreAborts,
}

impl Sabotage {
    const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeWrite => "ack-before-write",
            Self::ForgetProducerState => "forget-producer-state",
            Self::IgnoreAborts => "ignore-aborts",
        }
    }
}

pub async fn run(env: &Env, args: DemoArgs, format: Format) -> Result<Exit> {
    let mut stop = Stop::listen()?;
    let seed = args.seed.unwrap_or_else(|| env.random_below(DRAWN_SEEDS));
    let folder = Folder::make(args.data.as_ref(), seed)?;
    let rows = departures::load()?;
    let facts = Facts { seed, wal: args.wal, sabotage: args.sabotage, events: rows.len(), folder: folder.path.clone() };
    let kills = plan(seed, args.wal, args.kills, rows.len(), args.sabotage);
    let planned = kills.len();
    let mut stage = Stage::new(env, &folder.path, args.wal, args.sabotage).await?;
    let began = env.monotonic();
    let mut director = Director::new(env, &mut stage, kills, rows, args.sabotage)?;
    let directed = tokio::select! {
        biased;
        () = stop.asked() => Err(Ended::Interrupted),
        directed = director.direct() => directed,
    };
    let proof = director.close().await;
    stage.end().await;
    let took = env.monotonic() - began;
    let verdict = match directed {
        Ok(()) => Verdict::Holds,
        Err(Ended::Broken(broken)) => Verdict::Broken(broken),
        Err(Ended::Interrupted) => {
            folder.remove();
            bail!("the demo was interrupted; `forebay demo --seed {seed}` begins the same again")
        }
        Err(Ended::Failed(error)) => {
            let logs = folder.path.display();
            return Err(error.context(format!("the demo could not go on (seed {seed}, data and logs in {logs})")));
        }
    };
    let report = Report { facts, planned, proof, took, verdict };
    output::show(format, &report.text(), &report.json())?;
    match (&report.verdict, args.sabotage) {
        (Verdict::Holds, None) => {
            folder.remove();
            Ok(Exit::Good)
        }
        (Verdict::Holds, Some(sabotage)) => {
            bail!("{} was planted and no check has failed: a proof that cannot fail is none", sabotage.name())
        }
        (Verdict::Broken(_), _) => Ok(Exit::Unhealthy),
    }
}

/// What a process does that was started by [`run`].
pub async fn child(env: &Env, arguments: ChildArguments) -> Result<Exit> {
    match arguments {
        ChildArguments::DemoBroker(args) => broker::broker(env, args).await,
        ChildArguments::DemoPipeline(args) => pipeline::pipeline(env, args).await,
    }
}

/// Where the broker's data and the logs go.
struct Folder {
    path: PathBuf,
    /// Made by us and not named by anybody: removed where nothing in it is of interest.
    temporary: bool,
}

impl Folder {
    fn make(wanted: Option<&PathBuf>, seed: u64) -> Result<Self> {
        let unnamed = || std::env::temp_dir().join(format!("forebay-demo-{seed}-{}", std::process::id()));
        let (path, temporary) = wanted.map_or_else(|| (unnamed(), true), |path| (path.clone(), false));
        std::fs::create_dir_all(&path).with_context(|| format!("make the folder {}", path.display()))?;
        let mut held = std::fs::read_dir(&path).with_context(|| format!("read the folder {}", path.display()))?;
        if held.next().is_some() {
            return Err(usage(format!("{} is not empty: the demo wants a folder of its own", path.display())));
        }
        Ok(Self { path, temporary })
    }

    /// Removes what nobody asked to keep. A folder that is not removed holds what an error speaks of.
    fn remove(&self) {
        if !self.temporary {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}
