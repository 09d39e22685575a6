//! librdkafka 2.x through the `rdkafka` crate: `tests/clients/rdkafka`, a crate outside the workspace, so that the test
//! command does not build C code of that size.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::Report;
use crate::{shell, workspace};

pub(super) const MANIFEST: &str = "tests/clients/rdkafka/Cargo.toml";

pub(super) struct Rdkafka {
    program: PathBuf,
}

impl Rdkafka {
    pub(super) fn build() -> Result<Self> {
        shell::say("librdkafka and its suite, by cargo (minutes the first time)");
        let target = workspace::target().join("clients");
        let cargo = |task: &str| {
            let mut cargo = shell::cargo();
            cargo.args([task, "--release", "--locked", "--quiet", "--manifest-path", MANIFEST]);
            cargo.arg("--target-dir").arg(&target);
            cargo
        };
        shell::run(&mut cargo("build"))?;
        // Outside the workspace, and so linted by nobody else. What was built is not built again for it.
        shell::run(cargo("clippy").args(["--all-targets", "--", "--deny", "warnings"]))?;
        Ok(Self { program: target.join("release").join("forebay-clients-rdkafka") })
    }

    pub(super) fn run(&self, report: &mut Report, bootstrap: &str) -> Result<()> {
        report.suite("rdkafka");
        let ended = shell::stream(shell::command(&self.program).arg(bootstrap), |line| report.line(line))?;
        ensure!(ended, "the suite did not run to its end");
        Ok(())
    }
}
