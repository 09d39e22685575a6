//! Everything that CI runs, as one types it: `.ci/run` has the same lines, and so does this file.

use anyhow::{Context, Result};
use clap::Parser;

use crate::{Arguments, shell};

/// What comes after `cargo xtask`, in order. The clients meet both kinds of write-ahead log: the second time those that
/// need nothing else fetched, and are soon done.
const STEPS: [&str; 4] = ["test", "sim --seeds 120", "clients", "clients --wal object --only kcat,rdkafka"];

pub fn run() -> Result<()> {
    for step in STEPS {
        shell::say(&format!("cargo xtask {step}"));
        crate::run(parse(step)?.task).with_context(|| format!("cargo xtask {step}"))?;
    }
    Ok(())
}

fn parse(step: &str) -> Result<Arguments> {
    Arguments::try_parse_from(std::iter::once("cargo xtask").chain(step.split(' '))).context("read a step of CI")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    /// CI's script runs these steps and no others, and each is a command that there is.
    #[test]
    fn the_script_runs_the_same() {
        let script = workspace::read(".ci/run".as_ref()).expect("it is there");
        let lines: Vec<_> = script.lines().filter_map(|line| line.strip_prefix("cargo xtask ")).collect();
        assert_eq!(lines, STEPS);
        for step in STEPS {
            assert!(parse(step).is_ok(), "{step}");
        }
    }
}
