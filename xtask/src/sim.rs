//! The simulation over many seeds; the program itself runs them side by side.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::{shell, workspace};

#[derive(Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct Options {
    /// Seeds 1 to N.
    #[arg(long, value_name = "N", group = "which")]
    seeds: Option<u64>,
    /// This seed alone.
    #[arg(long, value_name = "SEED", group = "which")]
    seed: Option<u64>,
}

pub fn run(options: &Options) -> Result<()> {
    shell::say("build the simulation");
    shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "forebay-sim"]))?;
    let (first, count) = match *options {
        Options { seed: Some(seed), .. } => (seed, 1),
        Options { seeds: Some(seeds), .. } => (1, seeds),
        Options { .. } => bail!("neither --seeds nor --seed is given"),
    };
    let mut command = shell::command(workspace::release_binary("forebay-sim"));
    let started = Instant::now();
    let result = shell::run(command.args(["--seed", &first.to_string(), "--seeds", &count.to_string()]));
    println!("in {} s", started.elapsed().as_secs());
    result
}
