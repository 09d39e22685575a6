//! `forebay-sim`: runs seeds, each twice, and says which break a promise.

use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use forebay_env::simulated::Trace;
use forebay_sim::plan::{Plan, Plant};
use forebay_sim::{Outcome, run, run_traced};
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
    /// Puts a bug in: missing-sync, ack-before-write, forget-producer-state, ignore-aborts or collect-reachable.
    #[arg(long)]
    plant: Option<String>,
    /// Runs the seed once, in this process.
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
    let mut failed = 0_u64;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let plan = planted.map_or_else(|| Plan::of_seed(seed), |plant| Plan::planted(seed, plant));
        if arguments.trace {
            let trace = Trace::with_log();
            let outcome = run_traced(&plan, &trace);
            trace.log().iter().for_each(|event| println!("{event}"));
            println!("{outcome:?}");
            continue;
        }
        let kept = if arguments.once { run_here(&plan)? } else { report(seed, arguments.plant.as_deref())? };
        if !kept {
            failed += 1;
        }
    }
    if !arguments.once {
        println!("{} passed, {failed} failed", arguments.seeds - failed);
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a plan twice, each time in a process of its own; whether it kept every promise, and the same way both times.
/// Processes of their own, because a library may count things for as long as its process lives.
fn report(seed: u64, plant: Option<&str>) -> anyhow::Result<bool> {
    let (first, kept) = once(seed, plant)?;
    let (second, _) = once(seed, plant)?;
    print!("{first}");
    if first != second {
        print!("seed {seed}: the second run ended differently\n{second}");
    }
    Ok(kept && first == second)
}

/// One run in a process of its own: what it printed, and whether it kept every promise.
fn once(seed: u64, plant: Option<&str>) -> anyhow::Result<(String, bool)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--once", "--seed", &seed.to_string()]).stderr(Stdio::inherit());
    if let Some(plant) = plant {
        command.args(["--plant", plant]);
    }
    let output = command.output()?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success()))
}

/// Runs a plan here; whether it kept every promise.
fn run_here(plan: &Plan) -> anyhow::Result<bool> {
    let seed = plan.seed;
    let Outcome { violations, digest, events, crashes, acked, read, simulated } = run(plan)?;
    println!(
        "seed {seed}: {:?} WAL, {crashes} crashes, {acked} acked, {read} read, {events} events, {:.1} s simulated, \
         digest {digest:016x}",
        plan.wal,
        simulated.as_secs_f64()
    );
    for violation in &violations {
        println!("seed {seed}: {}: {}", violation.check, violation.what);
    }
    Ok(violations.is_empty())
}

fn plant(name: &str) -> anyhow::Result<Plant> {
    let known = || Plant::ALL.map(Plant::name).join(", ");
    Plant::ALL
        .into_iter()
        .find(|plant| plant.name() == name)
        .ok_or_else(|| anyhow::anyhow!("no bug is named {name:?}; there are {}", known()))
}
