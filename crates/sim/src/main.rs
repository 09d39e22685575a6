//! `forebay-sim`: runs seeds, each twice, and says which break a promise.

mod batch;

use std::process::ExitCode;

use clap::Parser;
use forebay_env::simulated::Trace;
use forebay_sim::plan::{Plan, Plant};
use forebay_sim::{Outcome, run, run_traced};
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[derive(Parser)]
#[command(about = "Runs the whole system in one process, with faults, from a seed")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, from the first on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// How many run at the same time; as many as there are processors where it is not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Puts a bug in, by its name; a wrong name prints all.
    #[arg(long)]
    plant: Option<String>,
    /// Runs the seed once, in this process, and prints what came of it as JSON.
    #[arg(long)]
    once: bool,
    /// Prints every event of the run, to find where two runs part.
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // What the broker logs of the faults would drown the result; RUST_LOG shows it.
        .with_env_filter(EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).from_env_lossy())
        .without_time()
        .init();
    let planted = arguments.plant.as_deref().map(plant).transpose()?;
    let plan = planted.map_or_else(|| Plan::of_seed(arguments.seed), |plant| Plan::planted(arguments.seed, plant));
    if arguments.trace {
        let trace = Trace::with_log();
        let outcome = run_traced(&plan, &trace);
        for event in trace.log() {
            println!("{event}");
        }
        println!("{outcome:?}");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.once {
        println!("{}", as_json(&plan, &run(&plan)?));
        return Ok(ExitCode::SUCCESS);
    }
    let last = arguments.seed.saturating_add(arguments.seeds);
    let holds = batch::run(arguments.seed..last, arguments.jobs, arguments.plant.as_deref());
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// The macro unwraps what cannot fail.
#[allow(clippy::disallowed_methods)]
fn as_json(plan: &Plan, outcome: &Outcome) -> serde_json::Value {
    let Outcome { violations, digest, events, simulated, counts } = outcome;
    let violations: Vec<_> = violations.iter().map(|v| json!({ "check": v.check, "what": v.what })).collect();
    json!({
        "wal": format!("{:?}", plan.wal),
        "violations": violations,
        "digest": format!("{digest:016x}"),
        "events": events,
        "simulated_ms": u64::try_from(simulated.as_millis()).unwrap_or(u64::MAX),
        "counts": counts,
    })
}

fn plant(name: &str) -> anyhow::Result<Plant> {
    let known = || Plant::ALL.map(Plant::name).join(", ");
    Plant::ALL
        .into_iter()
        .find(|plant| plant.name() == name)
        .ok_or_else(|| anyhow::anyhow!("no bug is named {name:?}; there are {}", known()))
}
