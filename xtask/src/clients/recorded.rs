//! Suites that others wrote, held case by case to what they do on Apache Kafka.
//!
//! Owns: how such a suite is run, and which outcome fails the run. Leaves to others: the recorded outcomes and the accepted
//! differences (`table`), the page that tells them (`page`), each suite's cases.
//!
//! 1. A case that passes on Kafka and not here fails the run, unless the difference is accepted.
//! 2. A case that is not recorded on Kafka fails the run: it would be held to nothing.
//! 3. What fails is run once more, alone: many of these cases wait for a fixed time only, and machines are slow.

mod page;
mod table;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, mpsc};

use anyhow::{Result, ensure};

pub(super) use page::write as write_page;
pub(super) use table::Outcome;
use table::{Accepted, Table};

use super::{Options, Report};
use crate::rigs::{self, Broker, Configs, Jars, Wal};
use crate::shell;

/// A suite, ready to run.
pub(super) trait Suite {
    fn name(&self) -> &'static str;

    fn version(&self) -> &str;

    /// Each wants a broker of its own.
    fn rounds(&self) -> Result<Vec<Round>>;

    /// Whether CI runs the case: it has no time for all.
    fn is_for_ci(&self, case: &str) -> bool;

    /// Runs a round's cases and tells how each ended, in any order; a case that is not told has failed.
    fn run(&self, round: &Round, way: Way, bootstrap: &str, told: &mut dyn FnMut(&str, Outcome)) -> Result<()>;
}

/// Cases that want the same broker.
pub(super) struct Round {
    /// What the suite calls it.
    pub(super) name: &'static str,
    pub(super) configs: Configs<'static>,
    pub(super) cases: Vec<String>,
}

/// How each of some cases ended.
pub(super) type Outcomes = Vec<(String, Outcome)>;

/// Runs what one process runs, so many beside each other, and tells how the cases ended.
pub(super) fn beside_each_other<Unit: Send>(
    count: usize,
    units: Vec<Unit>,
    run: impl Fn(Unit) -> Result<Outcomes> + Sync,
    told: &mut dyn FnMut(&str, Outcome),
) -> Result<()> {
    let units = Mutex::new(units.into_iter());
    let (found, outcomes) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..count {
            let (units, found, run) = (&units, found.clone(), &run);
            scope.spawn(move || {
                loop {
                    let unit = units.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(unit) = unit else { return };
                    // Nobody listens any more where another has failed to run at all.
                    if found.send(run(unit)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(found);
        for some in outcomes {
            for (case, outcome) in some? {
                told(&case, outcome);
            }
        }
        Ok(())
    })
}

/// How cases are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Some beside each other.
    Together,
    /// One after the other.
    Alone,
}

/// Runs a suite on the broker that `options` ask for and holds each case to what is recorded; records what it did there:
/// with `--baseline` always, on ours with `--all`, so that the page tells of one whole run.
pub(super) fn run(suite: &dyn Suite, report: &mut Report, options: &Options, jars: &Jars) -> Result<()> {
    report.suite(suite.name());
    let mut table = Table::read(suite.name())?;
    if options.baseline {
        table.of_versions(suite.version(), Jars::VERSION);
    } else {
        let here = format!("{} {}, Kafka {}", suite.name(), suite.version(), Jars::VERSION);
        ensure!(table.is_of_versions(suite.version(), Jars::VERSION), "{here} is not recorded: run with --baseline");
        rigs::build()?;
    }
    let accepted = Accepted::read()?;
    let rounds = suite.rounds()?;
    if options.baseline {
        table.keep(|case| rounds.iter().any(|round| round.cases.iter().any(|one| one == case)));
    }
    for mut round in rounds {
        // What does not pass on Kafka is held to nothing. What was never run there is: it is a breach.
        let is_held = |case: &str| table.on_kafka(case).is_none_or(|outcome| outcome == Outcome::Passed);
        round.cases.retain(|case| options.all || (suite.is_for_ci(case) && (options.baseline || is_held(case))));
        if round.cases.is_empty() {
            continue;
        }
        let broker = if options.baseline {
            Broker::kafka_with(jars, round.configs)?
        } else {
            Broker::forebay_as_built_with(options.wal, round.configs)?
        };
        let counts = |case: &str| options.baseline || (is_held(case) && accepted.why(suite.name(), case).is_none());
        for (case, outcome) in outcomes(suite, &round, broker.bootstrap(), &counts)? {
            if options.baseline {
                report.passed += u32::from(outcome == Outcome::Passed);
                table.record_on_kafka(&case, outcome);
            } else {
                judge(report, suite.name(), &case, outcome, table.on_kafka(&case), &accepted);
                table.record_here(&case, outcome);
            }
        }
        broker.stop()?;
    }
    if options.baseline || (options.all && options.wal == Wal::Disk) {
        table.write(suite.name())?;
        write_page()?;
    }
    Ok(())
}

/// How each of a round's cases ends; one that fails has a second chance where it counts.
fn outcomes(
    suite: &dyn Suite,
    round: &Round,
    bootstrap: &str,
    counts: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, Outcome>> {
    let mut outcomes: BTreeMap<_, _> = round.cases.iter().map(|case| (case.clone(), Outcome::Failed)).collect();
    let mut pass = |round: &Round, way| {
        suite.run(round, way, bootstrap, &mut |case, outcome| {
            if let Some(slot) = outcomes.get_mut(case) {
                *slot = outcome;
                println!("{outcome:<7} {}: {case}", suite.name());
            }
        })?;
        let failed = round.cases.iter().filter(|case| outcomes[*case] == Outcome::Failed && counts(case));
        let failed = failed.cloned().collect();
        anyhow::Ok(Round { name: round.name, configs: round.configs, cases: failed })
    };
    let again = pass(round, Way::Together)?;
    if !again.cases.is_empty() {
        shell::say(&format!("{} of {}, once more: {}", again.cases.len(), suite.name(), again.cases.join(" ")));
        pass(&again, Way::Alone)?;
    }
    Ok(outcomes)
}

fn judge(report: &mut Report, suite: &str, case: &str, here: Outcome, on_kafka: Option<Outcome>, accepted: &Accepted) {
    match (verdict(here, on_kafka, accepted.why(suite, case)), on_kafka) {
        (Verdict::Fine, _) => report.passed += 1,
        (Verdict::FineNow, _) => {
            report.passed += 1;
            println!("ok   {suite}: {case}: to be taken off the list of accepted differences");
        }
        (Verdict::AsOnKafka, _) => println!("same {suite}: {case}: does not pass on Kafka either"),
        (Verdict::Accepted(why), _) => println!("diff {suite}: {case}: {here}, accepted: {why}"),
        (Verdict::Breach, None) => report.fail(&format!("{suite}: {case}: not recorded on Kafka")),
        (Verdict::Breach, Some(_)) => report.fail(&format!("{suite}: {case}: {here}, and passed on Kafka")),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    /// It passes.
    Fine,
    /// It passes, and is on the list of accepted differences.
    FineNow,
    /// It does not pass, nor on Kafka.
    AsOnKafka,
    Accepted(&'a str),
    Breach,
}

fn verdict(here: Outcome, on_kafka: Option<Outcome>, accepted: Option<&str>) -> Verdict<'_> {
    match (here, on_kafka, accepted) {
        (_, None, _) => Verdict::Breach,
        (Outcome::Passed, _, None) => Verdict::Fine,
        (Outcome::Passed, _, Some(_)) => Verdict::FineNow,
        (_, Some(Outcome::Passed), Some(why)) => Verdict::Accepted(why),
        (_, Some(Outcome::Passed), None) => Verdict::Breach,
        (_, Some(Outcome::Failed | Outcome::Skipped), _) => Verdict::AsOnKafka,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes on Kafka has to pass here, unless the difference is accepted; what does not pass there is held to
    /// nothing, and what was never run there cannot pass.
    #[test]
    fn a_case_is_held_to_what_it_does_on_kafka() {
        use Outcome::{Failed, Passed, Skipped};
        assert_eq!(verdict(Passed, Some(Passed), None), Verdict::Fine);
        assert_eq!(verdict(Passed, Some(Failed), None), Verdict::Fine);
        assert_eq!(verdict(Passed, Some(Passed), Some("why")), Verdict::FineNow);
        assert_eq!(verdict(Failed, Some(Failed), None), Verdict::AsOnKafka);
        assert_eq!(verdict(Failed, Some(Skipped), None), Verdict::AsOnKafka);
        for here in [Failed, Skipped] {
            assert_eq!(verdict(here, Some(Passed), None), Verdict::Breach);
            assert_eq!(verdict(here, Some(Passed), Some("why")), Verdict::Accepted("why"));
        }
        for here in [Passed, Failed, Skipped] {
            assert_eq!(verdict(here, None, Some("why")), Verdict::Breach);
        }
    }
}
