//! Benchmarks: what is printed, with the conditions without which figures mean nothing. Nothing gates.
//!
//! Owns: which parts run, and what they measure with. Leaves to others: each part's figures.

mod side_by_side;
mod start;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::rigs::{Broker, Wal};
use crate::{shell, workspace};

#[derive(Args)]
pub struct Options {
    /// Parts to run, all without this.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// The write-ahead log of our broker.
    #[arg(long, value_enum, default_value_t)]
    wal: Wal,
    #[command(flatten)]
    side_by_side: side_by_side::Options,
    #[command(flatten)]
    start: start::Options,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Produce, consume and latency beside Apache Kafka; needs a JDK and Maven.
    Kafka,
    /// Starting, being idle, and opening a long history; needs room on the disk.
    Start,
}

pub fn run(options: &Options) -> Result<()> {
    let runs = |part| options.only.is_empty() || options.only.contains(&part);
    if runs(Part::Start) {
        // Said before anything else takes its time.
        start::check_room(&options.start)?;
    }
    if runs(Part::Kafka) {
        side_by_side::run(options.wal, &options.side_by_side)?;
    }
    if runs(Part::Start) {
        start::run(options.wal, &options.start)?;
    }
    Ok(())
}

/// Builds the load generator, which lives with the librdkafka suite.
fn build_load() -> Result<PathBuf> {
    shell::say("the load generator, by cargo (minutes the first time)");
    let target = workspace::target().join("clients");
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--locked", "--quiet", "--manifest-path", "tests/clients/rdkafka/Cargo.toml"]);
    shell::run(cargo.arg("--target-dir").arg(&target))?;
    Ok(target.join("release").join("load"))
}

/// The numbers that a run of the load generator prints.
fn load(program: &Path, broker: &Broker, what: &str, rest: &[&str]) -> Result<Vec<f64>> {
    let text = shell::output(shell::command(program).args([what, broker.bootstrap()]).args(rest))?;
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    numbers.with_context(|| format!("read what the load generator printed: {text:?}"))
}

fn resident_mib(broker: &Broker) -> Result<f64> {
    let path = format!("/proc/{}/status", broker.process());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}: benchmarks need Linux"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident size")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
