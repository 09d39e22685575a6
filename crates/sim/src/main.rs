//! `forebay-sim`: runs seeds, each twice, and says which break a promise.

use std::process::ExitCode;

use clap::Parser;
use forebay_env::simulated::Trace;
use forebay_sim::plan::{Plan, Plant};
use forebay_sim::{Outcome, run, run_traced};

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
    /// Prints every event of the run, to find where two runs part.
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .without_time()
        .init();
    let plant = arguments.plant.as_deref().map(plant).transpose()?;
    let mut failed = 0_u64;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let plan = plant.map_or_else(|| Plan::of_seed(seed), |plant| Plan::planted(seed, plant));
        if arguments.trace {
            let trace = Trace::with_log();
            let outcome = run_traced(&plan, &trace);
            trace.log().iter().for_each(|event| println!("{event}"));
            println!("{outcome:?}");
            continue;
        }
        if !report(&plan)? {
            failed += 1;
        }
    }
    println!("{} passed, {failed} failed", arguments.seeds - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a plan twice; whether it kept every promise, and the same way both times.
fn report(plan: &Plan) -> anyhow::Result<bool> {
    let seed = plan.seed;
    let first = on_its_own_thread(plan)?;
    let second = on_its_own_thread(plan)?;
    let Outcome { violations, digest, events, crashes, acked, read, simulated } = &first;
    println!(
        "seed {seed}: {:?} WAL, {crashes} crashes, {acked} acked, {read} read, {events} events, {:.1} s simulated, digest {digest:016x}",
        plan.wal,
        simulated.as_secs_f64()
    );
    for violation in violations {
        println!("seed {seed}: {}: {}", violation.check, violation.what);
    }
    if first != second {
        println!("seed {seed}: the second run ended differently, with digest {:016x} after {} events", second.digest, second.events);
    }
    Ok(violations.is_empty() && first == second)
}

/// A fresh thread has fresh thread-locals: nothing of one run reaches the next.
fn on_its_own_thread(plan: &Plan) -> anyhow::Result<Outcome> {
    std::thread::scope(|scope| scope.spawn(|| run(plan)).join()).map_err(|_| anyhow::anyhow!("seed {} panicked", plan.seed))?
}

fn plant(name: &str) -> anyhow::Result<Plant> {
    let known = || Plant::ALL.map(Plant::name).join(", ");
    Plant::ALL.into_iter().find(|plant| plant.name() == name).ok_or_else(|| anyhow::anyhow!("no bug is named {name:?}; there are {}", known()))
}
