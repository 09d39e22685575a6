//! Apache Kafka's Java producer, consumer and admin client: `xtask/rigs/ClientsCheck.java`, run from source.

use anyhow::{Result, ensure};

use super::Report;
use crate::rigs::Jars;
use crate::shell;

pub(super) fn run(jars: &Jars, report: &mut Report, bootstrap: &str) -> Result<()> {
    report.suite("java");
    let mut java = jars.java(512);
    java.arg("xtask/rigs/ClientsCheck.java").arg(bootstrap);
    let ended = shell::stream(&mut java, |line| report.line(line))?;
    ensure!(ended, "the suite did not run to its end");
    Ok(())
}
