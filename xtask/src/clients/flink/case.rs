//! One pass of a job over the file with one kind of fault, and the comparison of what it wrote.
//!
//! Input comes in pieces, each after a checkpoint has taken the one before, so that many checkpoints hold data. A fault
//! strikes when records lie in a transaction that is not decided: `read_uncommitted` sees them, `read_committed` does not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::json;

use super::flights::Flights;
use super::job::{Expected, Job, Start};
use super::topics::{Isolation, Record, Topics};
use crate::rigs::flink::Cluster;
use crate::rigs::{Broker, End, wait_for};

/// Partitions of each topic: fewer than carriers, more than one subtask.
const PARTITIONS: u32 = 3;

const PARALLELISM: usize = 2;
/// After the savepoint: every partition has a reader of its own, and keys move.
const PARALLELISM_RESTORED: usize = 3;

/// Rows of one piece of the input: about fifteen pieces.
const PIECE: usize = 1800;
/// A piece to catch amid its transaction.
const SMALL_PIECE: usize = 300;

/// Kills of the broker in one strike, beside the one amid a checkpoint.
const KILLS_AT_ENDS: usize = 3;

/// Where faults strike, in parts of the file.
const STRIKES: [(usize, usize); 2] = [(1, 3), (2, 3)];

/// How long one step may take on a machine that is busy with much else.
const STEP_LIMIT: Duration = Duration::from_mins(4);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// `kill -9` of a TaskManager, twice; Flink restores the job by itself.
    Taskmanager,
    /// `kill -9` of the JobManager; the job is started anew from its last checkpoint while old tasks may still run.
    Jobmanager,
    /// `kill -9` of the broker while a checkpoint waits for it and while others end, eight times.
    Broker,
    /// `kill -9` of everything at once, amid a checkpoint; the job is started anew from the one before.
    Blackout,
    /// Stop with a savepoint, restore with another parallelism.
    Savepoint,
}

impl Fault {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Taskmanager => "TaskManager killed",
            Self::Jobmanager => "JobManager killed, restored from its last checkpoint",
            Self::Broker => "broker killed amid checkpoints",
            Self::Blackout => "all killed at once amid a checkpoint, restored from the one before",
            Self::Savepoint => "stopped with a savepoint, restored with another parallelism",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Taskmanager => "taskmanager",
            Self::Jobmanager => "jobmanager",
            Self::Broker => "broker",
            Self::Blackout => "blackout",
            Self::Savepoint => "savepoint",
        }
    }

    /// Whether it leaves transactions behind whose records must be hidden for ever. A broker comes back while the
    /// producers still try, and their transactions go on; a savepoint decides every one.
    fn aborts(self) -> bool {
        matches!(self, Self::Taskmanager | Self::Jobmanager | Self::Blackout)
    }
}

pub(super) struct Case<'a> {
    job: Job,
    fault: Fault,
    cluster: &'a mut Cluster,
    broker: &'a mut Broker,
    topics: &'a Topics<'a>,
    flights: &'a Flights,
    from: String,
    to: String,
    /// The job as it runs now.
    id: String,
    /// Rows of the file given to the input topic.
    fed: usize,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        job: Job,
        fault: Fault,
        cluster: &'a mut Cluster,
        broker: &'a mut Broker,
        topics: &'a Topics<'a>,
        flights: &'a Flights,
    ) -> Self {
        let name = format!("{}-{}-{}", cluster.flink().release(), job.name(), fault.name());
        let (from, to) = (format!("flights-{name}"), format!("output-{name}"));
        Self { job, fault, cluster, broker, topics, flights, from, to, id: String::new(), fed: 0 }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let started = Instant::now();
        let logged = self.cluster.log_mark()?;
        let expected = self.job.expected(self.flights)?;
        self.topics.create(&self.from, PARTITIONS)?;
        self.topics.create(&self.to, PARTITIONS)?;
        self.id = self.submit(PARALLELISM, None)?;
        self.wait_for_checkpoints(1)?;
        let strikes =
            if matches!(self.fault, Fault::Taskmanager | Fault::Broker) { &STRIKES[..] } else { &STRIKES[..1] };
        for (part, of) in strikes {
            self.feed_up_to(self.flights.len() * part / of)?;
            let before = self.settled()?;
            loop {
                self.strike(before).with_context(|| format!("at row {}", self.fed))?;
                // A checkpoint may have decided everything between the last look and the kill; then again.
                if !self.fault.aborts() || self.settled()? > before {
                    break;
                }
            }
        }
        self.feed_up_to(self.flights.len())?;
        if self.job.waits_for_later() {
            for partition in 0..PARTITIONS {
                self.topics.append_to(&self.from, partition, Flights::last_call())?;
            }
        }
        self.drain(&expected)?;
        let committed = self.topics.read(&self.to, Isolation::Committed)?;
        let uncommitted = self.topics.read(&self.to, Isolation::Uncommitted)?.len();
        compare(&committed, &expected)?;
        let hidden = uncommitted - committed.len();
        println!(
            "     {}: {} rows in, read_committed {}, read_uncommitted {uncommitted}, hidden {hidden}, {} s",
            self.to,
            self.fed,
            committed.len(),
            started.elapsed().as_secs()
        );
        ensure!(hidden > 0 || !self.fault.aborts(), "no row was aborted, so that hiding them was not tried");
        if self.job.commits_offsets() {
            let mut lag = None;
            wait_for("the group's offsets to reach the end", STEP_LIMIT, || {
                lag = self.topics.lag(&self.from, PARTITIONS)?;
                Ok((lag == Some(0)).then_some(()))
            })
            .with_context(|| format!("the lag is {lag:?}"))?;
        }
        self.end(committed.len())?;
        // The connector goes on where it could not commit: what it says then is all that tells of lost output.
        let lost = self.cluster.logged_since(&logged, "Unable to commit transaction")?;
        ensure!(lost.is_empty(), "Flink gave up a transaction: {}", lost.join("\n"));
        Ok(())
    }

    fn submit(&self, parallelism: usize, restore: Option<&str>) -> Result<String> {
        let start = Start { bootstrap: &self.topics.bootstrap, from: &self.from, to: &self.to, parallelism, restore };
        self.job.submit(self.cluster, &start)
    }

    /// Piece after piece, each with a checkpoint behind it.
    fn feed_up_to(&mut self, row: usize) -> Result<()> {
        while self.fed < row {
            self.feed((self.fed + PIECE).min(row))?;
            self.wait_for_checkpoints(1)?;
        }
        Ok(())
    }

    fn feed(&mut self, row: usize) -> Result<()> {
        self.topics.append(&self.from, self.flights.records(self.fed, row))?;
        self.fed = row;
        Ok(())
    }

    /// Does what the fault does, amid a transaction with data where it kills, and waits until the job works again.
    fn strike(&mut self, aborted: usize) -> Result<()> {
        match self.fault {
            Fault::Taskmanager => {
                let before = self.checkpoints()?;
                self.wait_until_open(aborted)?;
                self.cluster.kill_taskmanager(&self.id)?;
                wait_for("the job to be restored", STEP_LIMIT, || {
                    Ok((self.checkpoints()?.restored > before.restored).then_some(()))
                })
                .with_context(|| self.state())?;
            }
            Fault::Jobmanager => {
                self.wait_until_open(aborted)?;
                self.cluster.kill_jobmanager()?;
                self.restore_last_checkpoint()?;
            }
            Fault::Broker => {
                self.wait_until_open(aborted)?;
                self.freeze_broker_amid_checkpoint()?;
                self.broker.restart(End::Kill)?;
                for _ in 0..KILLS_AT_ENDS {
                    self.wait_for_checkpoints(1)?;
                    self.feed_small()?;
                    // As soon as one has ended, its transactions are being committed.
                    self.wait_for_checkpoints(1)?;
                    self.broker.restart(End::Kill)?;
                }
            }
            Fault::Blackout => {
                self.wait_until_open(aborted)?;
                self.freeze_broker_amid_checkpoint()?;
                self.cluster.kill_all()?;
                self.broker.restart(End::Kill)?;
                self.restore_last_checkpoint()?;
            }
            Fault::Savepoint => {
                let savepoint = self.stop_with_savepoint()?;
                self.id = self.submit(PARALLELISM_RESTORED, Some(&savepoint))?;
            }
        }
        self.wait_for_checkpoints(1)
    }

    fn restore_last_checkpoint(&mut self) -> Result<()> {
        let checkpoint = self.cluster.last_checkpoint(&self.id)?;
        self.id = self.submit(PARALLELISM, Some(&checkpoint))?;
        Ok(())
    }

    /// Leaves the broker standing with a checkpoint under way: its barrier waits behind a flush that nobody answers.
    fn freeze_broker_amid_checkpoint(&mut self) -> Result<()> {
        self.broker.freeze()?;
        let begun =
            wait_for("a checkpoint to begin", STEP_LIMIT, || Ok((self.checkpoints()?.in_progress > 0).then_some(())));
        if begun.is_err() {
            // The next case wants one that answers.
            self.broker.restart(End::Kill)?;
        }
        begun.with_context(|| self.state())
    }

    /// Feeds until more records lie in undecided transactions than were aborted before.
    fn wait_until_open(&mut self, aborted: usize) -> Result<()> {
        loop {
            self.feed_small()?;
            let before = self.checkpoints()?.completed;
            let open = wait_for("an open transaction", STEP_LIMIT, || {
                if self.undecided()? > aborted {
                    return Ok(Some(true));
                }
                Ok((self.checkpoints()?.completed > before + 1).then_some(false))
            })?;
            if open {
                return Ok(());
            }
        }
    }

    fn feed_small(&mut self) -> Result<()> {
        let row = (self.fed + SMALL_PIECE).min(self.flights.len());
        ensure!(row > self.fed, "the whole file went by and no transaction was caught open");
        self.feed(row)
    }

    /// Records that were aborted so far: two checkpoints with no input between them leave nothing open.
    fn settled(&self) -> Result<usize> {
        self.wait_for_checkpoints(2)?;
        self.undecided()
    }

    /// Records of the output that are not committed, at least.
    fn undecided(&self) -> Result<usize> {
        let uncommitted = self.topics.read(&self.to, Isolation::Uncommitted)?.len();
        // After the other: what is committed in between must not count as open.
        let committed = self.topics.read(&self.to, Isolation::Committed)?.len();
        Ok(uncommitted.saturating_sub(committed))
    }

    fn stop_with_savepoint(&self) -> Result<String> {
        let rest = self.cluster.rest();
        let asked = rest.post(&format!("/jobs/{}/stop", self.id), &json!({ "drain": false }))?;
        let request = asked["request-id"].as_str().with_context(|| format!("no request id in {asked}"))?;
        let path = format!("/jobs/{}/savepoints/{request}", self.id);
        wait_for("the savepoint", STEP_LIMIT, || {
            let answer = rest.get(&path)?;
            match (answer["status"]["id"].as_str(), answer["operation"]["location"].as_str()) {
                (Some("COMPLETED"), Some(location)) => Ok(Some(location.to_owned())),
                (Some("COMPLETED"), None) => bail!("stopping failed: {answer}"),
                _ => Ok(None),
            }
        })
        .with_context(|| self.state())
    }

    /// Waits until everything is committed, and once more as long as a row too many would need to be.
    fn drain(&self, expected: &Expected) -> Result<()> {
        let mut seen = 0;
        wait_for("all rows to be committed", STEP_LIMIT, || {
            seen = self.topics.read(&self.to, Isolation::Committed)?.len();
            Ok((seen >= expected.rows()).then_some(()))
        })
        .with_context(|| format!("{seen} of {} rows are committed; {}", expected.rows(), self.state()))?;
        self.wait_for_checkpoints(2)
    }

    /// Cancels the job and shows that its end leaves nothing open: a record behind all of it can be read.
    fn end(&self, committed: usize) -> Result<()> {
        let rest = self.cluster.rest();
        rest.cancel(&self.id)?;
        wait_for("the job to be cancelled", STEP_LIMIT, || {
            Ok((self.cluster.job(&self.id)?["state"] == "CANCELED").then_some(()))
        })?;
        for partition in 0..PARTITIONS {
            self.topics.append_to(&self.to, partition, ("-", "behind"))?;
        }
        let all = committed + PARTITIONS as usize;
        let mut seen = 0;
        wait_for("records behind the output to be readable", STEP_LIMIT, || {
            seen = self.topics.read(&self.to, Isolation::Committed)?.len();
            Ok((seen >= all).then_some(()))
        })
        .with_context(|| format!("{seen} of {all} are: a transaction was left open"))
    }

    /// Waits until the job, as it runs now, has completed so many more checkpoints.
    fn wait_for_checkpoints(&self, more: u64) -> Result<()> {
        let enough = self.checkpoints()?.completed + more;
        wait_for("a checkpoint", STEP_LIMIT, || Ok((self.checkpoints()?.completed >= enough).then_some(())))
            .with_context(|| self.state())
    }

    /// Fails where the job has ended.
    fn checkpoints(&self) -> Result<Checkpoints> {
        let job = self.cluster.job(&self.id)?;
        let state = job["state"].as_str().unwrap_or_default();
        ensure!(!matches!(state, "FAILED" | "CANCELED" | "FINISHED" | "SUSPENDED"), "{}", self.state());
        let answer = self.cluster.rest().get(&format!("/jobs/{}/checkpoints", self.id))?;
        let count = |what: &str| {
            answer["counts"][what].as_u64().with_context(|| format!("no count of {what} checkpoints in {answer}"))
        };
        Ok(Checkpoints {
            in_progress: count("in_progress")?,
            completed: count("completed")?,
            restored: count("restored")?,
        })
    }

    /// How the job is, and its last failure: for messages only.
    fn state(&self) -> String {
        let state = self.cluster.job(&self.id).map_or_else(|error| error.to_string(), |job| job["state"].to_string());
        let exceptions = self.cluster.rest().get(&format!("/jobs/{}/exceptions?maxExceptions=1", self.id));
        let why = exceptions.map_or_else(
            |error| error.to_string(),
            |answer| {
                let last = &answer["exceptionHistory"]["entries"][0]["stacktrace"];
                last.as_str().unwrap_or("none").lines().take(12).collect::<Vec<_>>().join("\n")
            },
        );
        format!("job {} is {state}; its last failure: {why}", self.id)
    }
}

struct Checkpoints {
    in_progress: u64,
    completed: u64,
    restored: u64,
}

/// Fails with what is lost and what is double, or where the order first differs.
fn compare(found: &[Record], expected: &Expected) -> Result<()> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    let all: Vec<&String> = match expected {
        Expected::Keyed(keys) => keys.values().flatten().collect(),
        Expected::Rows(rows) => rows.iter().collect(),
    };
    for row in all {
        *counts.entry(row).or_default() -= 1;
    }
    for record in found {
        *counts.entry(&record.value).or_default() += 1;
    }
    let some = |sign: i64| {
        let mut rows: Vec<_> = counts.iter().filter(|(_, n)| **n * sign > 0).map(|(row, _)| *row).collect();
        rows.sort_unstable();
        let shown = rows.iter().take(5).copied().collect::<Vec<_>>().join(" | ");
        (rows.len(), shown)
    };
    let ((lost, lost_rows), (more, more_rows)) = (some(-1), some(1));
    ensure!(lost == 0 && more == 0, "{lost} rows are lost ({lost_rows}), {more} are too many ({more_rows})");
    if let Expected::Keyed(keys) = expected {
        let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for record in found {
            by_key.entry(&record.key).or_default().push(&record.value);
        }
        for (key, values) in keys {
            let found = by_key.get(key.as_str()).map_or(&[][..], Vec::as_slice);
            let first = values.iter().zip(found).find(|(one, other)| one != other);
            ensure!(first.is_none() && values.len() == found.len(), "the order of {key} differs first at {first:?}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(values: &[&str]) -> Expected {
        Expected::Keyed([("A".to_owned(), values.iter().map(|v| (*v).to_owned()).collect())].into())
    }

    fn records(values: &[&str]) -> Vec<Record> {
        let record = |(offset, value): (i64, &&str)| Record {
            partition: 0,
            offset,
            timestamp: 0,
            key: "A".to_owned(),
            value: (*value).to_owned(),
        };
        (0..).zip(values).map(record).collect()
    }

    /// A lost row, a double one, a strange one and two in the wrong order are each found; rows without keys have no order.
    #[test]
    fn every_difference_is_found() {
        let compared =
            |found: &[&str]| compare(&records(found), &keyed(&["A,1", "A,2", "A,3"])).map_err(|e| e.to_string());
        assert_eq!(compared(&["A,1", "A,2", "A,3"]), Ok(()));
        assert_eq!(compared(&["A,1", "A,3"]), Err("1 rows are lost (A,2), 0 are too many ()".to_owned()));
        assert_eq!(compared(&["A,1", "A,2", "A,2", "A,3"]), Err("0 rows are lost (), 1 are too many (A,2)".to_owned()));
        assert_eq!(compared(&["A,1", "A,2", "A,9"]), Err("1 rows are lost (A,3), 1 are too many (A,9)".to_owned()));
        assert!(compared(&["A,2", "A,1", "A,3"]).is_err_and(|why| why.starts_with("the order of A differs")));
        let rows = Expected::Rows(vec!["x".to_owned(), "y".to_owned()]);
        assert!(compare(&records(&["y", "x"]), &rows).is_ok());
    }
}
