//! The jobs, how each is handed to a cluster, and what each must write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::flights::{ALLOWANCE_HOURS, Flights};
use crate::rigs::flink::Cluster;
use crate::workspace;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Upsert,
    Windows,
    Totals,
    TotalsPooling,
}

/// What a job reads and writes, and how it starts.
pub(super) struct Start<'a> {
    pub(super) bootstrap: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) parallelism: usize,
    /// A checkpoint or savepoint.
    pub(super) restore: Option<&'a str>,
}

/// What a job must write in the end.
pub(super) enum Expected {
    /// Values by key, in order.
    Keyed(BTreeMap<String, Vec<String>>),
    /// Values in any order.
    Rows(Vec<String>),
}

impl Job {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Windows => "windows",
            Self::Totals => "totals",
            Self::TotalsPooling => "totals-pooling",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Upsert => "SQL aggregate to upsert-kafka",
            Self::Windows => "SQL windows to kafka",
            Self::Totals => "DataStream, INCREMENTING names",
            Self::TotalsPooling => "DataStream, POOLING names",
        }
    }

    pub(super) fn expected(self, flights: &Flights) -> Result<Expected> {
        Ok(match self {
            // Each change of a carrier's row is a record of its own, so that not only the last of each key is known.
            Self::Upsert | Self::Totals | Self::TotalsPooling => Expected::Keyed(flights.totals()),
            Self::Windows => Expected::Rows(flights.hours()?),
        })
    }

    /// Whether output waits for later input, so that the end has to be told.
    pub(super) fn waits_for_later(self) -> bool {
        self == Self::Windows
    }

    /// Whether it commits what it has read to a group, which has the name of the topic.
    pub(super) fn commits_offsets(self) -> bool {
        matches!(self, Self::Totals | Self::TotalsPooling)
    }

    /// Hands the job over; returns its id.
    pub(super) fn submit(self, cluster: &Cluster, start: &Start<'_>) -> Result<String> {
        match self {
            Self::Upsert => submit_sql(cluster, "xtask/rigs/flink/upsert.sql", start),
            Self::Windows => submit_sql(cluster, "xtask/rigs/flink/windows.sql", start),
            Self::Totals if !cluster.flink().names_transactions() => submit_jar(cluster, start, None),
            Self::Totals => submit_jar(cluster, start, Some("INCREMENTING")),
            Self::TotalsPooling => submit_jar(cluster, start, Some("POOLING")),
        }
    }
}

impl Expected {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Keyed(keys) => keys.values().map(Vec::len).sum(),
            Self::Rows(rows) => rows.len(),
        }
    }
}

/// Where the DataStream jobs' jar lies.
pub(super) fn jar(cluster: &Cluster) -> PathBuf {
    cluster.folder().join("jobs.jar")
}

fn submit_jar(cluster: &Cluster, start: &Start<'_>, naming: Option<&str>) -> Result<String> {
    let rest = cluster.rest();
    // Each life of a JobManager has its own folder of jars.
    let id = rest.upload(&jar(cluster))?;
    let mut arguments = vec![start.bootstrap.to_owned(), start.from.to_owned(), start.to.to_owned()];
    arguments.push(start.parallelism.to_string());
    arguments.extend(naming.map(str::to_owned));
    rest.run(&id, "RunningTotals", &arguments, start.restore)
}

fn submit_sql(cluster: &Cluster, file: &str, start: &Start<'_>) -> Result<String> {
    let restore = start.restore.map(|path| format!("SET 'execution.state-recovery.path' = '{path}';\n"));
    let set = format!("SET 'parallelism.default' = '{}';\n{}", start.parallelism, restore.unwrap_or_default());
    let job = workspace::read(Path::new(file))?
        .replace("{bootstrap}", start.bootstrap)
        .replace("{from}", start.from)
        .replace("{to}", start.to)
        .replace("{allowance}", &ALLOWANCE_HOURS.to_string());
    submitted(&cluster.sql(&format!("{set}{job}"))?)
}

/// The id of the one job that a script started, from what the SQL client printed.
pub(super) fn submitted(printed: &str) -> Result<String> {
    let id = printed.lines().find_map(|line| line.trim().strip_prefix("Job ID: "));
    id.map(str::to_owned).with_context(|| format!("the SQL client started no job:\n{printed}"))
}
