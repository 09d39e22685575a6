//! The simulation over many seeds, as many processes at a time as there are processors.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{shell, workspace};

/// Outputs of failed seeds that are shown whole; the others are named.
const SHOWN_MAX: usize = 3;

#[derive(Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct Options {
    /// Seeds 1 to N.
    #[arg(long, value_name = "N", group = "which")]
    seeds: Option<u64>,
    /// This seed alone, with all it prints.
    #[arg(long, value_name = "SEED", group = "which")]
    seed: Option<u64>,
}

pub fn run(options: &Options) -> Result<()> {
    shell::say("build the simulation");
    shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "forebay-sim"]))?;
    if let Some(seed) = options.seed {
        return shell::run(&mut simulation(seed));
    }
    let seeds = options.seeds.context("neither --seeds nor --seed is given")?;
    let started = Instant::now();
    let (next, passed) = (AtomicU64::new(1), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    match shell::output(&mut simulation(seed)) {
                        Ok(_) => {
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            println!("seed {seed} fails");
                            failed.lock().expect("no worker panics").push((seed, error));
                        }
                    }
                }
            });
        }
    });
    let (passed, mut failed) = (passed.into_inner(), failed.into_inner().expect("no worker panics"));
    failed.sort_by_key(|(seed, _)| *seed);
    for (seed, error) in failed.iter().take(SHOWN_MAX) {
        println!("── seed {seed}\n{error:#}");
    }
    println!("{passed} passed, {} failed, in {} s", failed.len(), started.elapsed().as_secs());
    if !failed.is_empty() {
        let seeds: Vec<_> = failed.iter().map(|(seed, _)| seed.to_string()).collect();
        bail!("failed seeds: {}; each alone: cargo xtask sim --seed SEED", seeds.join(" "));
    }
    Ok(())
}

/// One seed in a process of its own.
fn simulation(seed: u64) -> Command {
    let mut command = shell::command(workspace::target().join("release").join("forebay-sim"));
    command.args(["--seed", &seed.to_string()]);
    command
}
