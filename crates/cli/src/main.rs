//! `forebay`: the broker, the tools around it and the demo, in one binary.
//!
//! Owns: the command line, exit codes, output. Leaves to others: the broker (`broker`), the client (`client`), the keys
//! of the configuration (`api::config`). One file per command; `demo/` is a small system of its own.
//!
//! Invariants:
//! 1. Standard output holds results only; logs, progress and errors go to standard error.
//! 2. Exit codes: 0 good, 1 error, 2 usage, 10 unhealthy, 13 refused by policy. Every error that a person can act on says
//!    how.

// Reports are put together once, for a person: a string that grows reads best.
#![allow(clippy::format_push_string)]

mod bucket;
mod connect;
mod demo;
mod exit;
mod group;
mod http;
mod logs;
mod output;
mod progress;
mod properties;
mod serve;
mod settings;
mod signals;
mod topic;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use forebay_env::{Env, real};

use crate::exit::Exit;
use crate::output::Format;

/// A Kafka-compatible log on shared storage.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
struct Arguments {
    /// How results are written
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORMAT")]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker for this machine: one process, nothing else needed
    Dev(serve::DevArgs),
    /// Run a broker from a properties file
    Serve(serve::ServeArgs),
    /// See it work: real events in, a stateful pipeline, kill -9, an exact recovery
    Demo(demo::DemoArgs),
    /// Topics and what is in them
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Topic(topic::TopicArgs),
    /// Consumer groups and their offsets
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Group(group::GroupArgs),
    /// What is in the bucket, with no broker running
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Bucket(bucket::BucketArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    // The demo's children are not a person's to start, and so in no help and no completion.
    let child = demo::ChildArguments::of_this_process();
    let env = if child.is_some() { real::env_with(Box::new(demo::armed_points())) } else { real::env() };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::from(error).context("start the runtime")).into(),
    };
    let run = async {
        match child {
            Some(child) => demo::child(&env, child).await,
            None => run(&env, Arguments::parse()).await,
        }
    };
    let exit = runtime.block_on(run).unwrap_or_else(|error| fail(&error));
    // A thread may still wait for standard input, which nobody can interrupt: the runtime is not waited for.
    runtime.shutdown_background();
    exit.into()
}

async fn run(env: &Env, arguments: Arguments) -> Result<Exit> {
    let format = arguments.format;
    match arguments.command {
        Command::Dev(args) => serve::dev(env, args, format).await,
        Command::Serve(args) => serve::serve(env, args, format).await,
        Command::Demo(args) => demo::run(env, args, format).await,
        Command::Topic(args) => topic::run(env, args, format).await,
        Command::Group(args) => group::run(env, args, format).await,
        Command::Bucket(args) => bucket::run(env, args, format).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "forebay", &mut std::io::stdout());
            Ok(Exit::Good)
        }
    }
}

/// Tells an error and what to do about it.
fn fail(error: &anyhow::Error) -> Exit {
    let exit = exit::of(error);
    if exit == Exit::Good {
        return exit;
    }
    eprintln!("error: {error:#}");
    if let Some(hint) = exit::hint(error) {
        eprintln!("hint: {hint}");
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line is one that clap accepts as a whole, and every shell gets its completions.
    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Arguments::command(), "forebay", &mut script);
        let script = String::from_utf8(script).expect("completions are text");
        assert!(script.contains("undelete") && !script.contains("demo-broker "), "a person's commands only");
    }

    /// The words of the first hour, as people will type them.
    #[test]
    fn the_first_hour_parses() {
        for line in [
            "forebay dev",
            "forebay dev --data d --bucket memory: --kafka 127.0.0.1:0 --admin 127.0.0.1:0 --wal object --log-level debug",
            "forebay serve --config server.properties --advertise kafka.example:9092",
            "forebay demo --seed 7 --wal object --kills 3 --sabotage ack-before-write --format json",
            "forebay topic create orders --partitions 6 --config retention.ms=1000 -b host:9092",
            "forebay --format json topic list",
            "forebay topic describe orders",
            "forebay topic alter orders --config retention.ms=-1 --delete-config cleanup.policy --partitions 8",
            "forebay topic delete orders",
            "forebay topic undelete orders --admin localhost:9640",
            "forebay topic produce orders --key-separator :",
            "forebay topic consume orders --from-beginning --max-messages 3 --isolation read_committed",
            "forebay topic consume orders --group g",
            "forebay group list",
            "forebay group describe g",
            "forebay group seek g --topic orders --to earliest",
            "forebay group delete g --bootstrap-server host:9092",
            "forebay bucket ls --data d",
            "forebay bucket fsck --bucket s3://logs/a",
            "forebay completions zsh",
        ] {
            if let Err(error) = Arguments::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
        for line in
            ["forebay", "forebay topic", "forebay topic create", "forebay topic consume o --offset 1 --from-beginning"]
        {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
