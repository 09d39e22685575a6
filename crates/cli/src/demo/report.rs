//! What is told at the end, to people and to programs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::Sabotage;
use super::checks::{Broken, Check};
use super::departures::Stats;
use super::plan::Blow;
use super::tally::Tally;
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
    /// Acknowledged batches in the ledger.
    pub batches: usize,
    /// How often both topics were read from the beginning, and all was as it must be.
    pub readings: u64,
    pub kills: Vec<Done>,
    /// Of the last reading of both topics; `None` where they could not be read to their end.
    pub tally: Option<Tally>,
    /// What the table must be.
    pub file: Vec<Stats>,
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
        let Proof { fed, batches, kills, .. } = &self.proof;
        let mut text = match &self.verdict {
            Verdict::Holds => "Forebay demo: exactly once, through kill -9\n\n".to_owned(),
            Verdict::Broken(broken) => format!("Forebay demo: THE PROOF HAS FAILED\n\n  {broken}\n\n"),
        };
        let mut fact = |name: &str, value: String| text += &format!("  {name:<11} {value}\n");
        let of =
            if *fed == self.facts.events { String::new() } else { format!(" of {}", count(self.facts.events as u64)) };
        let carriers = self.proof.file.len();
        fact(
            "Events",
            format!("{}{of} departures, {carriers} carriers, {} batches", count(*fed as u64), count(*batches as u64)),
        );
        for (name, value) in self.counted() {
            fact(name, value);
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
        if let Some(table) = self.table() {
            text += "\n";
            text += &table;
            text += "\n";
        }
        if !matches!(self.verdict, Verdict::Holds) {
            text += &format!("\n  Data and logs are kept in {}\n", self.facts.folder.display());
        }
        text += &format!("\n  Again: {}\n", self.again());
        text
    }

    /// What the last reading has come to.
    fn counted(&self) -> Vec<(&'static str, String)> {
        let Proof { fed, readings, tally, .. } = &self.proof;
        let Some(tally) = tally else {
            return vec![("Lost", "not counted: the topics could not be read to their end".to_owned())];
        };
        let rows = format!("{} committed rows, each read and checked as it came", count(tally.rows));
        if matches!(self.verdict, Verdict::Holds) {
            let every = format!("all read again after each restart, {readings} times: same offsets, same checksums");
            return vec![
                ("Results", rows),
                ("Lost", format!("{}   {every}", count(tally.lost()))),
                (
                    "Duplicated",
                    format!(
                        "{}   every event once, every count one up, every delay as in the file",
                        count(tally.duplicated())
                    ),
                ),
            ];
        }
        let told = |events: u64, rows: u64| {
            let (all, of_events, of_rows) = (count(events + rows), count(events), count(rows));
            format!("{all}   {of_events} event{}, {of_rows} row{} of the result", plural(events), plural(rows))
        };
        vec![
            ("Results", format!("{} rows at the end", count(tally.rows))),
            (
                "Lost",
                format!(
                    "{}; {} events were acknowledged",
                    told(tally.events_lost, tally.rows_lost),
                    count(*fed as u64)
                ),
            ),
            ("Duplicated", told(tally.events_duplicated, tally.rows_duplicated)),
        ]
    }

    /// The table as it was read, beside the file's: once the pipeline is through, or where that is what is wrong.
    fn table(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Broken(broken) if broken.check != Check::Table => return None,
            _ => {}
        }
        let Proof { tally, file, .. } = &self.proof;
        let read = |carrier: &str| tally.as_ref()?.table.iter().find(|row| row.carrier == carrier);
        let row = |due: &Stats| {
            let cells = |row: &Stats| [count(row.flights), row.delay.to_string()];
            let [flights, delay] = read(&due.carrier).map_or_else(Default::default, cells);
            let file = if read(&due.carrier) == Some(due) { "the same".to_owned() } else { cells(due).join(" / ") };
            [due.carrier.clone(), flights, delay, file]
        };
        Some(output::table(["carrier", "#flights", "#delay min", "in the file"], file.iter().map(row)))
    }

    pub fn json(&self) -> Value {
        let Proof { fed, batches, readings, kills, tally, file } = &self.proof;
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
        let counted = tally.as_ref().map(|tally| {
            json!({ "eventsLost": tally.events_lost, "rowsLost": tally.rows_lost,
                    "eventsDuplicated": tally.events_duplicated, "rowsDuplicated": tally.rows_duplicated })
        });
        json!({
            "holds": holds, "broken": broken, "events": fed, "eventsPlanned": self.facts.events,
            "rows": tally.as_ref().map(|tally| tally.rows), "batchesAcknowledged": batches, "readings": readings,
            "lost": tally.as_ref().map(Tally::lost), "duplicated": tally.as_ref().map(Tally::duplicated), "counted": counted,
            "killed": { "broker": self.brokers().count(), "pipeline": self.pipelines().count() },
            "recoveryMs": { "broker": told(spread(self.brokers())), "pipeline": told(spread(self.pipelines())) },
            "kills": kills, "table": tally.as_ref().map(|tally| &tally.table), "file": file,
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
    use crate::demo::checks::broken;

    fn report(verdict: Verdict) -> Report {
        let ms = Duration::from_millis;
        let done = |at, blow, broker, pipeline| Done { at, blow, reached: true, broker, pipeline };
        let kills = vec![
            done(1200, Blow::Broker { point: FailPoint::DurableNotAcked, passes: 1 }, Some(ms(200)), None),
            done(2400, Blow::Both { point: FailPoint::DurableNotAcked }, Some(ms(100)), Some(ms(50))),
            done(3600, Blow::BrokerAnytime { after_ms: 5 }, Some(ms(300)), None),
        ];
        let file = vec![Stats { carrier: "9E".into(), flights: 1573, delay: 25_290 }];
        let tally = Tally { rows: 27_004, table: file.clone(), ..Tally::default() };
        Report {
            facts: Facts { seed: 7, wal: Wal::Disk, sabotage: None, events: 27_004, folder: "demo-data".into() },
            planned: 12,
            proof: Proof { fed: 27_004, batches: 2_900, readings: 4, kills, tally: Some(tally), file },
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
            "27,004 committed rows",
            "Lost        0",
            "Duplicated  0",
            "4 times: broker 3, pipeline 1",
            "Broker      back in 100 / 200 / 300 ms",
            "31.2 s   WAL disk   seed 7",
            "1,200  broker at durable-not-acked",
            "9E         1,573      25290  the same",
            "Again: forebay demo --seed 7 --wal disk --kills 12",
        ] {
            assert!(text.contains(part), "{part:?} is in\n{text}");
        }
        let json = report(Verdict::Holds).json();
        assert_eq!((&json["lost"], &json["recoveryMs"]["broker"]["median"]), (&json!(0), &json!(200)));
        assert_eq!((&json["table"][0]["flights"], &json["table"]), (&json!(1573), &json["file"]));
    }

    /// A proof that has failed names the check and tells what was counted; where nothing could be, it says so.
    #[test]
    fn a_proof_that_failed_names_the_check_and_the_numbers() {
        let mut failed = report(Verdict::Broken(broken(Check::Once, "row 3 is there a second time")));
        failed.proof.fed = 5_200;
        let tally = Tally { events_lost: 1, rows_lost: 3, rows_duplicated: 2, rows: 5_000, ..Tally::default() };
        failed.proof.tally = Some(tally);
        let text = failed.text();
        for part in [
            "THE PROOF HAS FAILED\n\n  check every-event-once: row 3 is there a second time",
            "Lost        4   1 event, 3 rows of the result; 5,200 events were acknowledged",
            "Duplicated  2   0 events, 2 rows of the result",
        ] {
            assert!(text.contains(part), "{part:?} is in\n{text}");
        }
        assert!(!text.contains("CARRIER"), "{text}");
        let json = failed.json();
        assert_eq!((&json["lost"], &json["duplicated"]), (&json!(4), &json!(2)));
        assert_eq!((&json["counted"]["eventsLost"], &json["broken"]["check"]), (&json!(1), &json!("every-event-once")));

        failed.proof.tally = None;
        assert!(failed.text().contains("Lost        not counted"), "{}", failed.text());
        assert_eq!((&failed.json()["lost"], &failed.json()["table"]), (&Value::Null, &Value::Null));
    }

    /// A table that is not the file's is shown beside it.
    #[test]
    fn a_wrong_table_is_shown_beside_the_file() {
        let mut failed = report(Verdict::Broken(broken(Check::Table, "9E")));
        let table = vec![Stats { carrier: "9E".into(), flights: 1572, delay: 1 }];
        failed.proof.tally = Some(Tally { table, ..Tally::default() });
        assert!(failed.text().contains("9E         1,572          1  1,573 / 25290"), "{}", failed.text());
    }
}
