//! Real Kafka clients, unmodified, against the release binary: kcat, the `rdkafka` crate, Apache Kafka's own tools, its
//! Java producer, consumer and admin client.
//!
//! Owns: which suites run, against which broker, and the count of cases. Leaves to others: each suite's cases. Every case
//! states exactly what it expects; `--baseline` runs the same cases against Apache Kafka, so that an expectation that is
//! ours alone is found out. Suites that others wrote expect what they do: what they find on Apache Kafka is recorded, and
//! held against what they find here (`recorded`).

mod debian;
mod flink;
mod java;
mod kcat;
mod librdkafka;
mod pytest;
mod rdkafka;
mod recorded;
mod tools;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::rigs::{Broker, Jars, Wal};
use crate::shell;

#[derive(Args, Default)]
pub struct Options {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// Suites to run; without this, all but those that others wrote.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Suite>,
    /// The suites that others wrote too, with all of their cases; what they did is recorded.
    #[arg(long)]
    all: bool,
    /// Against Apache Kafka instead, to see that the expectations are Kafka's own, and to record what others' suites do there.
    #[arg(long, global = true)]
    baseline: bool,
    /// The write-ahead log of the broker under test.
    #[arg(long, value_enum, default_value_t, global = true)]
    wal: Wal,
}

/// What is done instead of running the suites.
#[derive(Subcommand)]
enum Instead {
    /// Apache Flink: exactly-once jobs, with processes killed.
    Flink(flink::Options),
    /// Writes docs/compatibility.md from what is recorded of the suites that others wrote.
    Page,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    Kcat,
    Rdkafka,
    Tools,
    Java,
    Librdkafka,
    KafkaPython,
}

pub fn run(options: &Options) -> Result<()> {
    match &options.instead {
        Some(Instead::Flink(flink)) => return flink::run(flink, options.wal, options.baseline),
        Some(Instead::Page) => return recorded::write_page(),
        None => {}
    }
    let runs = |suite| options.only.is_empty() || options.only.contains(&suite);
    shell::say("fetch what the clients need, into the user's cache");
    let mut suites: Vec<Box<dyn Run>> = Vec::new();
    if runs(Suite::Kcat) {
        let kcat = kcat::Kcat::fetch()?;
        suites.push(Box::new(move |report: &mut Report, bootstrap: &str| kcat.run(report, bootstrap)));
    }
    if runs(Suite::Rdkafka) {
        let rdkafka = rdkafka::Rdkafka::build()?;
        suites.push(Box::new(move |report: &mut Report, bootstrap: &str| rdkafka.run(report, bootstrap)));
    }
    if runs(Suite::Tools) || runs(Suite::Java) || options.baseline {
        let jars = Jars::fetch()?;
        if runs(Suite::Tools) {
            let jars = jars.clone();
            suites.push(Box::new(move |report: &mut Report, bootstrap: &str| {
                tools::run(&jars, report, bootstrap);
                Ok(())
            }));
        }
        if runs(Suite::Java) {
            suites.push(Box::new(move |report: &mut Report, bootstrap: &str| java::run(&jars, report, bootstrap)));
        }
    }
    let mut report = Report::default();
    if !suites.is_empty() {
        let broker = if options.baseline { Broker::kafka(&Jars::fetch()?)? } else { Broker::forebay(options.wal)? };
        for suite in &suites {
            suite(&mut report, broker.bootstrap())?;
        }
        broker.stop()?;
    }
    // Of others' suites some cases differ still, and CI would fail on them: they run where they are asked for.
    let runs = |suite| options.all || options.only.contains(&suite);
    if runs(Suite::Librdkafka) {
        let jars = Jars::fetch()?;
        recorded::run(&librdkafka::Librdkafka::build(&jars)?, &mut report, options, &jars)?;
    }
    if runs(Suite::KafkaPython) {
        recorded::run(&pytest::Pytest::kafka_python()?, &mut report, options, &Jars::fetch()?)?;
    }
    report.end()
}

/// A suite that is ready to run against a bootstrap address.
trait Run: Fn(&mut Report, &str) -> Result<()> {}

impl<F: Fn(&mut Report, &str) -> Result<()>> Run for F {}

/// Cases so far.
#[derive(Default)]
pub(crate) struct Report {
    suite: &'static str,
    passed: u32,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn suite(&mut self, name: &'static str) {
        shell::say(name);
        self.suite = name;
    }

    /// Runs a case and notes how it went; the next runs either way.
    pub(crate) fn case(&mut self, name: &str, case: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        let result = case();
        self.note(name, result.map_err(|error| format!("{error:#}")), started.elapsed().as_millis());
    }

    /// Takes up a line of a suite in another language: `ok NAME` or `FAIL NAME: why`.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("ok ") {
            self.passed += 1;
            println!("ok   {}: {name}", self.suite);
        } else if let Some(what) = line.strip_prefix("FAIL ") {
            self.fail(&format!("{}: {what}", self.suite));
        } else {
            println!("{line}");
        }
    }

    fn fail(&mut self, what: &str) {
        println!("FAIL {what}");
        self.failed.push(what.to_owned());
    }

    fn note(&mut self, name: &str, result: Result<(), String>, millis: u128) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok   {}: {name} ({millis} ms)", self.suite);
            }
            Err(why) => {
                println!("FAIL {}: {name}: {why}", self.suite);
                self.failed.push(format!("{}: {name}", self.suite));
            }
        }
    }

    fn end(self) -> Result<()> {
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.passed == 0 {
            bail!("no case ran");
        }
        if !self.failed.is_empty() {
            bail!("failed:\n  {}", self.failed.join("\n  "));
        }
        Ok(())
    }
}

/// Lines of text, each with its end.
pub(crate) fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).flat_map(|i| [line(i), "\n".to_owned()]).collect()
}

/// Fails unless both are the same; shows where they first differ.
pub(crate) fn same(found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (mut left, mut right) = (found.lines(), expected.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (left.next(), right.next()) {
            (a, b) if a != b => bail!("line {number} is {a:?}, expected {b:?}"),
            (None, None) => bail!("{} bytes instead of {}", found.len(), expected.len()),
            _ => {}
        }
    }
}
