//! The test command: everything that needs only the Rust toolchain and a C compiler.

use anyhow::{Result, bail, ensure};

use crate::{shell, tidy, workspace};

/// Runs every step even after one has failed, so that one run shows all there is to mend.
pub fn run() -> Result<()> {
    let mut failed = Vec::new();
    let mut step = |name: &'static str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    };
    step("format", format());
    step("tidy", tidy::run());
    step("clippy", clippy());
    shell::say("fuzz targets");
    step("fuzz targets", fuzz());
    shell::say("documentation links");
    step("documentation", documentation());
    shell::say("tests");
    let mut counts = Counts::default();
    let passed = shell::stream(shell::cargo().args(TESTS), |line| {
        println!("{line}");
        counts.add(line);
    })?;
    if !passed && counts.failed == 0 {
        step("tests", Err(anyhow::anyhow!("they did not compile, or a test program died")));
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.passed == 0 {
        bail!("no test ran");
    }
    if counts.failed > 0 {
        failed.push("tests");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

const CLIPPY: [&str; 8] = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "--deny", "warnings"];
const TESTS: [&str; 4] = ["test", "--workspace", "--locked", "--no-fail-fast"];

/// What clippy says of a ban in `clippy.toml` that leads nowhere. It only warns of it, and a ban with a slip in it bans
/// nothing.
const NO_SUCH_PATH: &str = "does not refer to a";

fn clippy() -> Result<()> {
    shell::say("clippy");
    let mut slips = 0;
    let passed = shell::stream_errors(shell::cargo().args(CLIPPY), |line| {
        eprintln!("{line}");
        slips += u32::from(line.contains(NO_SUCH_PATH));
    })?;
    ensure!(passed, "it has complaints");
    ensure!(slips == 0, "clippy.toml bans what is not there");
    Ok(())
}

/// Every source file, those outside the workspace too.
fn format() -> Result<()> {
    shell::say("format");
    let files = workspace::files(&[".rs"])?;
    shell::run(shell::command("rustfmt").args(["--check", "--edition", "2024"]).args(files))
}

/// The fuzzers lie outside the workspace and need a compiler of their own to run; that they compile needs none.
fn fuzz() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["clippy", "--all-targets", "--locked", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    cargo.arg("--target-dir").arg(workspace::target());
    shell::run(cargo.args(["--", "--deny", "warnings"]))
}

fn documentation() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked", "--quiet"]);
    // Links alone: what else rustdoc may find is clippy's.
    cargo.env("RUSTDOCFLAGS", "--cfg tokio_unstable --deny rustdoc::broken_intra_doc_links");
    shell::run(&mut cargo)
}

/// Sums over all test programs.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    /// Takes up a line such as `test result: ok. 9 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split("; ") {
            match part.split_once(' ') {
                Some((count, "passed")) => self.passed += count.parse::<u64>().unwrap_or(0),
                Some((count, "failed")) => self.failed += count.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of several programs add up; other lines count nothing.
    #[test]
    fn results_add_up() {
        let mut counts = Counts::default();
        for line in [
            "test a ... ok",
            "test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.48s",
        ] {
            counts.add(line);
        }
        assert_eq!((counts.passed, counts.failed), (14, 2));
    }
}
