//! What is told at the end, to people and to programs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::Sabotage;
use super::checks::Broken;
use super::departures::Stats;
use super::plan::Blow;
use crate::output::{self, count, json, plural};
use crate::settings::Wal;

/// What the demo was started with.
pub struct Facts {
    pub seed: u64,
    pub wal: Wal,
    pub sabotage: Option<Sabotage>,
    pub events: usize,
    pub folder: PathBuf,
}

/// One kill, carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// After so many acknowledged events.
    pub at: usize,
    pub blow: Blow,
    /// Whether the process came past the point; else it was killed from outside.
    pub reached: bool,
    /// From starting it again until it answered.
    pub broker: Option<Duration>,
    /// From starting it again until its state was back.
    pub pipeline: Option<Duration>,
}

impl Done {
    pub fn line(&self) -> String {
        let at = count(self.at as u64);
        let missed = if self.reached { "" } else { " (point not passed: killed from outside)" };
        let back = |name, took: Option<Duration>| took.map(|took| format!("{name} back in {} ms", took.as_millis()));
        let back: Vec<_> =
            [back("broker", self.broker), back("pipeline", self.pipeline)].into_iter().flatten().collect();
        format!("{at:>7} events  killed: {}{missed}; {}", self.blow, back.join(", "))
    }
}

/// What was done and proved.
pub struct Proof {
    pub fed: usize,
    pub rows: usize,
    /// Acknowledged batches in the ledger.
    pub batches: usize,
    /// How often both topics were read from the beginning, and all was as it must be.
    pub readings: u64,
    pub kills: Vec<Done>,
    pub table: Vec<Stats>,
}

pub enum Verdict {
    Holds,
    Broken(Broken),
}

pub struct Report {
    pub facts: Facts,
    /// Kills in the schedule.
    pub planned: usize,
    pub proof: Proof,
    pub took: Duration,
    pub verdict: Verdict,
}

/// Fastest, middle and slowest.
fn spread(took: impl Iterator<Item = Duration>) -> Option<(u128, u128, u128)> {
    let mut millis: Vec<_> = took.map(|took| took.as_millis()).collect();
    millis.sort_unstable();
    Some((*millis.first()?, millis[millis.len() / 2], *millis.last()?))
}

impl Report {
    fn brokers(&self) -> impl Iterator<Item = Duration> {
        self.proof.kills.iter().filter_map(|done| done.broker)
    }

    fn pipelines(&self) -> impl Iterator<Item = Duration> {
        self.proof.kills.iter().filter_map(|done| done.pipeline)
    }

    /// The command that does the same again.
    fn again(&self) -> String {
        let Facts { seed, wal, sabotage, .. } = &self.facts;
        let fault = sabotage.map_or_else(String::new, |sabotage| format!(" --sabotage {}", sabotage.name()));
        format!("forebay demo --seed {seed} --wal {} --kills {}{fault}", wal.name(), self.planned)
    }

    pub fn text(&self) -> String {
        let Proof { fed, rows, batches, readings, kills, table } = &self.proof;
        let mut text = match &self.verdict {
            Verdict::Holds => "Forebay demo: exactly once, through kill -9\n\n".to_owned(),
            Verdict::Broken(broken) => format!("Forebay demo: THE PROOF HAS FAILED\n\n  {broken}\n\n"),
        };
        let mut fact = |name: &str, value: String| text += &format!("  {name:<11} {value}\n");
        let of =
            if *fed == self.facts.events { String::new() } else { format!(" of {}", count(self.facts.events as u64)) };
        fact(
            "Events",
            format!(
                "{}{of} departures, {} carriers, {} batches",
                count(*fed as u64),
                table.len(),
                count(*batches as u64)
            ),
        );
        fact("Results", format!("{} committed rows, each read and checked as it came", count(*rows as u64)));
        if matches!(self.verdict, Verdict::Holds) {
            let every = format!("all read again after each restart, {readings} times: same offsets, same checksums");
            fact("Lost", format!("0   {every}"));
            fact("Duplicated", "0   every event once, every count one up, every delay as in the file".to_owned());
        }
        let (brokers, pipelines) = (self.brokers().count(), self.pipelines().count());
        let total = (brokers + pipelines) as u64;
        fact("Killed", format!("{total} time{}: broker {brokers}, pipeline {pipelines}", plural(total)));
        for (name, found) in [("Broker", spread(self.brokers())), ("Pipeline", spread(self.pipelines()))] {
            if let Some((min, median, max)) = found {
                fact(name, format!("back in {min} / {median} / {max} ms (min / median / max)"));
            }
        }
        let seconds = format!("{}.{} s", self.took.as_secs(), self.took.subsec_millis() / 100);
        fact("Took", format!("{seconds}   WAL {}   seed {}", self.facts.wal.name(), self.facts.seed));
        if !kills.is_empty() {
            let cell =
                |took: Option<Duration>| took.map_or_else(String::new, |took| format!("{} ms", took.as_millis()));
            let row = |done: &Done| {
                let missed = if done.reached { "" } else { " (not passed: from outside)" };
                let what = format!("{}{missed}", done.blow);
                [count(done.at as u64), what, cell(done.broker), cell(done.pipeline)]
            };
            text += "\n";
            text += &output::table(["#after", "killed", "#broker back", "#pipeline back"], kills.iter().map(row));
            text += "\n";
        }
        if matches!(self.verdict, Verdict::Holds) {
            let row = |row: &Stats| [row.carrier.clone(), count(row.flights), row.delay.to_string()];
            text += "\n";
            text += &output::table(["carrier", "#flights", "#delay min"], table.iter().map(row));
            text += "\n";
        } else {
            text += &format!("\n  Data and logs are kept in {}\n", self.facts.folder.display());
        }
        text += &format!("\n  Again: {}\n", self.again());
        text
    }

    pub fn json(&self) -> Value {
        let Proof { fed, rows, batches, readings, kills, table } = &self.proof;
        let millis = |took: Option<Duration>| took.map(|took| took.as_millis());
        let kills: Vec<_> = kills
            .iter()
            .map(|done| {
                json!({ "afterEvents": done.at, "killed": done.blow.to_string(), "pointPassed": done.reached,
                        "brokerBackMs": millis(done.broker), "pipelineBackMs": millis(done.pipeline) })
            })
            .collect();
        let told = |found: Option<(u128, u128, u128)>| {
            found.map(|(min, median, max)| json!({ "min": min, "median": median, "max": max }))
        };
        let (holds, broken) = match &self.verdict {
            Verdict::Holds => (true, None),
            Verdict::Broken(broken) => (false, Some(json!({ "check": broken.check.name(), "what": broken.what }))),
        };
        let zero = holds.then_some(0);
        json!({
            "holds": holds, "broken": broken, "events": fed, "eventsPlanned": self.facts.events, "rows": rows,
            "batchesAcknowledged": batches, "readings": readings, "lost": zero, "duplicated": zero,
            "killed": { "broker": self.brokers().count(), "pipeline": self.pipelines().count() },
            "recoveryMs": { "broker": told(spread(self.brokers())), "pipeline": told(spread(self.pipelines())) },
            "kills": kills, "table": if holds { json!(table) } else { Value::Null },
            "tookMs": self.took.as_millis(), "seed": self.facts.seed, "wal": self.facts.wal.name(),
            "sabotage": self.facts.sabotage.map(Sabotage::name), "folder": self.facts.folder.display().to_string(),
            "again": self.again(),
        })
    }
}

#[cfg(test)]
mod tests {
    use forebay_env::FailPoint;

    use super::*;
    use crate::demo::checks::{Check, broken};

    fn report(verdict: Verdict) -> Report {
        let ms = Duration::from_millis;
        let done = |at, blow, broker, pipeline| Done { at, blow, reached: true, broker, pipeline };
        let kills = vec![
            done(1200, Blow::Broker { point: FailPoint::DurableNotAcked, passes: 1 }, Some(ms(200)), None),
            done(2400, Blow::Both { point: FailPoint::DurableNotAcked }, Some(ms(100)), Some(ms(50))),
            done(3600, Blow::BrokerAnytime { after_ms: 5 }, Some(ms(300)), None),
        ];
        let table = vec![Stats { carrier: "9E".into(), flights: 1573, delay: 25_290 }];
        Report {
            facts: Facts { seed: 7, wal: Wal::Disk, sabotage: None, events: 27_004, folder: "demo-data".into() },
            planned: 12,
            proof: Proof { fed: 27_004, rows: 27_004, batches: 2_900, readings: 4, kills, table },
            took: ms(31_250),
            verdict,
        }
    }

    /// A proof that holds says what was killed, how fast it was back, what the table is and how to repeat it.
    #[test]
    fn a_proof_that_holds_is_told_whole() {
        let text = report(Verdict::Holds).text();
        for part in [
            "27,004 departures, 1 carriers, 2,900 batches",
            "Lost        0",
            "Duplicated  0",
            "4 times: broker 3, pipeline 1",
            "Broker      back in 100 / 200 / 300 ms",
            "31.2 s   WAL disk   seed 7",
            "1,200  broker at durable-not-acked",
            "9E         1,573      25290",
            "Again: forebay demo --seed 7 --wal disk --kills 12",
        ] {
            assert!(text.contains(part), "{part:?} is in\n{text}");
        }
        let json = report(Verdict::Holds).json();
        assert_eq!((&json["lost"], &json["recoveryMs"]["broker"]["median"]), (&json!(0), &json!(200)));
        assert_eq!(json["table"][0]["flights"], 1573);
    }

    /// A proof that has failed names the check and claims nothing.
    #[test]
    fn a_proof_that_failed_names_the_check() {
        let text = report(Verdict::Broken(broken(Check::Once, "row 3 is there a second time"))).text();
        assert!(
            text.contains("THE PROOF HAS FAILED\n\n  check every-event-once: row 3 is there a second time"),
            "{text}"
        );
        assert!(!text.contains("Lost") && !text.contains("Duplicated"), "{text}");
        let json = report(Verdict::Broken(broken(Check::Once, "x"))).json();
        assert_eq!((&json["lost"], &json["broken"]["check"]), (&Value::Null, &json!("every-event-once")));
    }
}
