//! What a developer and CI run: `cargo xtask tidy | test | clients | ci | sim | bench`.
//!
//! Owns: the order of checks, the rules that no compiler knows, real clients and the brokers they run against. Leaves to
//! others: what is tested (the crates' own tests).

// A tool of the developer's machine, not of the system: it uses the real clock, threads and processes.
#![allow(clippy::disallowed_methods)]

mod bench;
mod ci;
mod clients;
mod kill9;
mod rigs;
mod shell;
mod sim;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "What a developer and CI run", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything CI runs: tests, the simulation over some seeds, real clients on both kinds of write-ahead log.
    Ci,
    /// Formatting, lints, the project's own rules, all tests, documentation links. Needs Rust and a C compiler only.
    /// With `--long kill9`: many kill -9 of the broker under transactional load instead.
    Test(TestOptions),
    /// The project's own rules: layers, sources, links, licences and origins of what we build on.
    Tidy,
    /// Real Kafka clients against the release binary. Fetches what it needs and says so.
    Clients(clients::Options),
    /// The whole broker in one seeded process, many seeds side by side.
    Sim(sim::Options),
    /// Side by side with Apache Kafka, and how fast a long history opens; prints, never fails for a figure.
    Bench(bench::Options),
}

#[derive(Args)]
struct TestOptions {
    /// A test that takes long.
    #[arg(long, value_enum)]
    long: Option<Long>,
    #[command(flatten)]
    kill9: kill9::Options,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Long {
    Kill9,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Ci => ci::run(),
        Task::Test(TestOptions { long: None, .. }) => test::run(),
        Task::Test(TestOptions { long: Some(Long::Kill9), kill9 }) => kill9::run(&kill9),
        Task::Tidy => tidy::run(),
        Task::Clients(options) => clients::run(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Bench(options) => bench::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// What clap finds only once a command is asked for: names taken twice, defaults that are not values.
    #[test]
    fn every_command_can_be_asked_for() {
        Arguments::command().debug_assert();
    }
}
