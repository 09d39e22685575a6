//! A new user's first exactly-once job, as docs/flink.md has it: nothing of the topic or the broker is set but the address.
//! A TaskManager is killed while it runs; it ends by itself, and Flink reads back what it wrote.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::job::submitted;
use super::topics::{Isolation, Topics};
use crate::rigs::flink::Cluster;
use crate::rigs::wait_for;
use crate::workspace;

/// What the script counts up to.
const NUMBERS: u64 = 15_000;

const STEP_LIMIT: Duration = Duration::from_mins(5);

pub(super) fn run(cluster: &mut Cluster, topics: &Topics<'_>) -> Result<()> {
    let topic = format!("squares-{}", cluster.flink().release());
    let script = |file: &str| -> Result<String> {
        let text = workspace::read(Path::new(file))?;
        Ok(text.replace("localhost:9092", &topics.bootstrap).replace("'squares'", &format!("'{topic}'")))
    };
    let id = submitted(&cluster.sql(&script("xtask/rigs/flink/new-user.sql")?)?)?;
    let read = |isolation| topics.read(&topic, isolation);
    wait_for("an open transaction behind a committed one", STEP_LIMIT, || {
        // The first record makes the topic; before it, there is none to read.
        let (Ok(all), Ok(committed)) = (read(Isolation::Uncommitted), read(Isolation::Committed)) else {
            return Ok(None);
        };
        Ok((!committed.is_empty() && all.len() > committed.len()).then_some(()))
    })?;
    cluster.kill_taskmanager(&id)?;
    wait_for("the job to finish", STEP_LIMIT, || {
        let job = cluster.job(&id)?;
        let state = job["state"].as_str().unwrap_or_default();
        ensure!(!matches!(state, "FAILED" | "CANCELED"), "the job is {state}");
        Ok((state == "FINISHED").then_some(()))
    })?;
    let (committed, uncommitted) = (read(Isolation::Committed)?, read(Isolation::Uncommitted)?.len());
    println!("     {topic}: read_committed {}, read_uncommitted {uncommitted}", committed.len());
    let mut found = BTreeSet::new();
    for record in &committed {
        let row: Value = serde_json::from_str(&record.value).with_context(|| format!("read {}", record.value))?;
        let (n, square) = (row["n"].as_u64().context("no n")?, row["square"].as_u64().context("no square")?);
        ensure!(square == n * n, "{}", record.value);
        ensure!(found.insert(n), "{n} is there twice");
    }
    ensure!(found == (1..=NUMBERS).collect(), "{} of {NUMBERS} numbers are there", found.len());
    ensure!(uncommitted > committed.len(), "no row was aborted, so that hiding them was not tried");
    let printed = cluster.sql(&script("xtask/rigs/flink/new-user-read.sql")?)?;
    let row = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned();
    let expected = [NUMBERS; 3].map(|number| number.to_string()).join(" ");
    ensure!(printed.lines().any(|line| row(line) == expected), "Flink read something else:\n{printed}");
    Ok(())
}
