//! Real Apache Flink with its Kafka connector: exactly-once jobs over the departures of `data/`, with processes killed
//! amid open transactions.
//!
//! Each case is one job, one fault and one pass over the file, with topics of its own. A case holds when the output that
//! a `read_committed` reader sees equals what `flights` computes from the file without Flink, each row once and in order,
//! and when nothing open is left before its end. Nothing is set on the broker; `--baseline` runs the same against Apache
//! Kafka, whose default limit on transaction timeouts the rig has to raise.

mod case;
mod flights;
mod job;
mod new_user;
mod sources;
mod topics;

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::Report;
use super::kcat::Kcat;
use crate::rigs::flink::{Cluster, Flink};
use crate::rigs::{Broker, Jars, Wal};
use crate::{shell, workspace};
use case::{Case, Fault};
use flights::Flights;
use job::Job;
use topics::Topics;

#[derive(Args)]
pub(crate) struct Options {
    /// Jobs to run. `quick`, on the newest release: the committer alone, an aggregate with its TaskManager killed, keyed state
    /// with the broker killed, every source, and what a new user does.
    #[arg(long, value_delimiter = ',', default_value = "quick")]
    jobs: Vec<Jobs>,
    /// Releases of Flink, every known one without this.
    #[arg(long, value_delimiter = ',', value_name = "VERSION")]
    flink: Vec<String>,
    /// Faults, all without this.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Take the release binary that is there.
    #[arg(long)]
    no_build: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Jobs {
    Quick,
    All,
    /// SQL: an aggregate without a window into `upsert-kafka`.
    Upsert,
    /// SQL: windows by event time into `kafka`.
    Windows,
    /// DataStream: keyed state, transactions named by checkpoint.
    Totals,
    /// The same with a pool of transaction names, where the connector has it.
    TotalsPooling,
    /// Flink's own committer alone, where it is public: what each refusal of the broker becomes.
    Committer,
    /// SQL queries over bounded sources, no fault: where they begin and end.
    Sources,
    /// A bounded SQL job as docs/flink.md has it, nothing set but the address.
    NewUser,
}

/// What is to be run on one release.
enum Planned {
    Committer,
    Faulty(Job, Fault),
    Sources,
    NewUser,
}

pub(super) fn run(options: &Options, wal: Wal, baseline: bool) -> Result<()> {
    shell::say("fetch what the jobs need, into the user's cache");
    let world = World { jars: Jars::fetch()?, kcat: Kcat::fetch()?, flights: Flights::read()? };
    let releases = options.releases()?;
    let mut broker = match (baseline, options.no_build) {
        (true, _) => Broker::kafka(&world.jars)?,
        (false, true) => Broker::forebay_as_built(wal)?,
        (false, false) => Broker::forebay(wal)?,
    };
    let mut report = Report::default();
    for (place, flink) in releases.iter().enumerate() {
        let planned = options.plan(flink, place + 1 == releases.len());
        report.suite(flink.name());
        world.run_release(flink, &planned, &mut broker, &mut report)?;
    }
    broker.stop()?;
    report.end()
}

impl Options {
    /// The releases to run, fetched, oldest first.
    fn releases(&self) -> Result<Vec<Flink>> {
        let mut wanted: Vec<_> = Flink::releases().collect();
        if let Some(unknown) = self.flink.iter().find(|name| !wanted.contains(&name.as_str())) {
            bail!("Flink {unknown} is not one of the releases run here: {}", wanted.join(", "));
        }
        wanted.retain(|release| self.flink.is_empty() || self.flink.iter().any(|name| name == release));
        if self.jobs == [Jobs::Quick] {
            // One release: each has hundreds of megabytes to fetch.
            wanted.drain(..wanted.len() - 1);
        }
        wanted.into_iter().map(Flink::fetch).collect()
    }

    fn plan(&self, flink: &Flink, newest: bool) -> Vec<Planned> {
        let mut planned = Vec::new();
        let faulty = |fault: &Fault| self.faults.is_empty() || self.faults.contains(fault);
        let named = |jobs| self.jobs.contains(&jobs) || self.jobs.contains(&Jobs::All);
        let quick = self.jobs.contains(&Jobs::Quick) && newest;
        if (named(Jobs::Committer) || quick) && flink.names_transactions() {
            planned.push(Planned::Committer);
        }
        if quick {
            let quick = [(Job::Upsert, Fault::Taskmanager), (Job::Totals, Fault::Broker)];
            planned.extend(quick.into_iter().map(|(job, fault)| Planned::Faulty(job, fault)));
            planned.extend([Planned::Sources, Planned::NewUser]);
        }
        let jobs = [
            (Jobs::Upsert, Job::Upsert),
            (Jobs::Windows, Job::Windows),
            (Jobs::Totals, Job::Totals),
            (Jobs::TotalsPooling, Job::TotalsPooling),
        ];
        for (jobs, job) in jobs {
            if named(jobs) && (job != Job::TotalsPooling || flink.names_transactions()) {
                let faults = Fault::value_variants().iter().filter(|fault| faulty(fault));
                planned.extend(faults.map(|fault| Planned::Faulty(job, *fault)));
            }
        }
        if named(Jobs::Sources) {
            planned.push(Planned::Sources);
        }
        if named(Jobs::NewUser) {
            planned.push(Planned::NewUser);
        }
        planned
    }
}

/// What all cases share.
struct World {
    jars: Jars,
    kcat: Kcat,
    flights: Flights,
}

impl World {
    fn run_release(&self, flink: &Flink, planned: &[Planned], broker: &mut Broker, report: &mut Report) -> Result<()> {
        let topics = Topics { kcat: &self.kcat, jars: &self.jars, bootstrap: broker.bootstrap().to_owned() };
        let mut cluster: Option<Cluster> = None;
        for one in planned {
            let name = match one {
                Planned::Committer => {
                    let mut check = flink.check("xtask/rigs/FlinkCommitterCheck.java");
                    let ended = shell::stream(check.arg(&topics.bootstrap), |line| report.line(line))?;
                    ensure!(ended, "the committer's suite did not run to its end");
                    continue;
                }
                Planned::Faulty(job, fault) => format!("{}, {}", job.title(), fault.title()),
                Planned::Sources => "SQL over bounded sources".to_owned(),
                Planned::NewUser => "a new user's first job, TaskManager killed".to_owned(),
            };
            let mut running = match cluster.take() {
                Some(running) => running,
                None => start(flink)?,
            };
            let mut whole = false;
            report.case(&name, || {
                match one {
                    Planned::Committer => {}
                    Planned::Faulty(job, fault) => {
                        Case::new(*job, *fault, &mut running, broker, &topics, &self.flights).run()?;
                    }
                    Planned::Sources => sources::run(&running, &topics, &self.flights)?,
                    Planned::NewUser => new_user::run(&mut running, &topics)?,
                }
                whole = true;
                Ok(())
            });
            if whole {
                cluster = Some(running);
            } else {
                // What it was doing would disturb the next case, and its logs are wanted.
                running.keep_folder();
                let copy = running.folder().join("broker.log");
                fs::copy(broker.output(), &copy).with_context(|| format!("keep {}", copy.display()))?;
                println!("logs and checkpoints of that case are in {}", running.folder().display());
            }
        }
        Ok(())
    }
}

/// A cluster that has the DataStream job's jar.
fn start(flink: &Flink) -> Result<Cluster> {
    let cluster = Cluster::start(flink)?;
    flink.compile(&workspace::root().join("xtask/rigs/flink"), &job::jar(&cluster))?;
    println!("Flink {} in {}", flink.release(), cluster.folder().display());
    Ok(cluster)
}
