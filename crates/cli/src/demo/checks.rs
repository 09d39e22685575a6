//! What must hold, and the words for it when it does not.
//!
//! Owns: the six checks ([`Check`]). Pure: each takes what was read and what must be true, so that each can be shown to
//! fail. Leaves to others: reading (`reader`), the ledger of acknowledgements (`ledger`).

use std::collections::BTreeMap;
use std::fmt;

use forebay_client::{Fetched, FetchedRecord};

use super::departures::{Departure, Stats, Truth};
use super::report::Done;
use crate::output::count;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every acknowledged record is served, at the offset and with the checksum that were acknowledged.
    Acknowledged,
    /// Every event is in the topic once, and each carrier's in the file's order.
    Once,
    /// Every committed row continues the carrier's count by one, with the delay that the file has there.
    Rows,
    /// A committed row that was read once is there at every later reading, unchanged.
    Seen,
    /// Each kill at a point happened there: one that is never passed proves nothing.
    Point,
    /// The final table is the file's, and the pipeline's offsets are at the end of its input.
    Table,
}

impl Check {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged-is-kept",
            Self::Once => "every-event-once",
            Self::Rows => "committed-rows-count-on",
            Self::Seen => "seen-stays-seen",
            Self::Point => "points-are-passed",
            Self::Table => "final-table",
        }
    }
}

/// A check that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub check: Check,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check {}: {}", self.check.name(), self.what)
    }
}

pub fn broken(check: Check, what: impl Into<String>) -> Broken {
    Broken { check, what: what.into() }
}

/// Whether a kill happened where it was to happen.
pub fn passed(done: &Done) -> Result<(), Broken> {
    if done.reached {
        return Ok(());
    }
    let what = format!(
        "{} after {} events: the point was not passed, and the process was killed from outside",
        done.blow,
        count(done.at as u64)
    );
    Err(broken(Check::Point, what))
}

/// A partition's number and an offset in it.
pub type At = (i32, i64);

/// A record as a topic serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The checksum of its batch.
    pub crc: u32,
    pub key: String,
    pub value: String,
    /// The number of the event's row, where the record says it.
    pub row: Option<u32>,
}

/// The header that carries an event's row.
pub const ROW_HEADER: &str = "row";

/// What a reading of a topic found, in order of partitions and offsets.
pub type Reading = BTreeMap<At, Served>;

/// Takes up what was fetched.
pub fn take_up(reading: &mut Reading, fetched: &Fetched) {
    for record in &fetched.records {
        reading.insert((fetched.partition.index.get(), record.offset.get()), served(record));
    }
}

pub fn served(record: &FetchedRecord) -> Served {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let row = record.headers.iter().find(|(name, _)| &name[..] == ROW_HEADER.as_bytes());
    let row = row.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok()?.parse().ok());
    Served { crc: record.batch_crc, key: text(record.key.as_deref()), value: text(record.value.as_deref()), row }
}

/// Each carrier's events, so far, are the first of the carrier's rows in the file, each once and in order. Gives how many
/// there are.
pub fn once(reading: &Reading, rows: &[Departure]) -> Result<usize, Broken> {
    let mut due: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
    for (row, departure) in rows.iter().enumerate() {
        let row = u32::try_from(row).expect("rows fit");
        due.entry(&departure.carrier).or_default().push(row);
    }
    let mut found: BTreeMap<&str, (usize, At)> = BTreeMap::new();
    for (at, record) in reading {
        let what = |what: String| broken(Check::Once, format!("departures-{} offset {}: {what}", at.0, at.1));
        let Some(row) = record.row else { return Err(what("a record that was not fed".to_owned())) };
        let known = rows.get(row as usize).filter(|known| known.carrier == record.key && known.line == record.value);
        if known.is_none() {
            return Err(what(format!("row {row} is not what was fed")));
        }
        let of_carrier = due.get(record.key.as_bytes()).expect("a row's carrier has rows");
        let (count, last) = found.entry(&record.key).or_insert((0, *at));
        match of_carrier.get(*count) {
            Some(next) if *next == row => {}
            _ if of_carrier[..*count].contains(&row) => {
                return Err(what(format!(
                    "row {row} ({}) is there a second time, last at offset {}",
                    record.key, last.1
                )));
            }
            Some(next) => return Err(what(format!("row {row} ({}) comes where row {next} is due: lost", record.key))),
            None => return Err(what(format!("row {row} ({}) comes after the carrier's last", record.key))),
        }
        *count += 1;
        *last = *at;
    }
    Ok(reading.len())
}

/// The pipeline's committed rows, as they come.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    counted: BTreeMap<String, u64>,
    total: usize,
}

impl Rows {
    /// The next row of a reading: the carrier's count goes up by one, and the delay is the file's.
    pub fn take(&mut self, at: At, record: &Served, truth: &Truth) -> Result<(), Broken> {
        let what = |what: String| Err(broken(Check::Rows, format!("carrier-stats-{} offset {}: {what}", at.0, at.1)));
        let Ok(Stats { carrier, flights, delay }) = serde_json::from_str(&record.value) else {
            return what(format!("{:?} is no row of the pipeline's", record.value));
        };
        if carrier != record.key {
            return what(format!("a row of {carrier} under the key {}", record.key));
        }
        let counted = self.counted.entry(carrier.clone()).or_default();
        if flights <= *counted {
            return what(format!("{carrier} is at flight {counted} and flight {flights} comes again: counted twice"));
        }
        if flights > *counted + 1 {
            return what(format!("{carrier} is at flight {counted} and flight {flights} comes: rows are missing"));
        }
        match truth.delay(&carrier, flights) {
            Some(due) if due == delay => {}
            Some(due) => {
                return what(format!("{carrier} after {flights} flights: {delay} minutes, the file says {due}"));
            }
            None => return what(format!("{carrier} has {flights} flights, more than the file")),
        }
        *counted = flights;
        self.total += 1;
        Ok(())
    }

    /// Rows so far.
    pub fn total(&self) -> usize {
        self.total
    }
}

/// All rows of a reading.
pub fn rows(reading: &Reading, truth: &Truth) -> Result<Rows, Broken> {
    let mut rows = Rows::default();
    for (at, record) in reading {
        rows.take(*at, record, truth)?;
    }
    Ok(rows)
}

/// Everything that was read before is there, unchanged.
pub fn still_seen(topic: &str, before: &Reading, now: &Reading) -> Result<(), Broken> {
    for (at, record) in before {
        let what = |what: &str| {
            let value = &record.value;
            Err(broken(Check::Seen, format!("{topic}-{} offset {}: {value:?} was read before and {what}", at.0, at.1)))
        };
        match now.get(at) {
            Some(again) if again == record => {}
            Some(again) => return what(&format!("is {:?} now", again.value)),
            None => return what("is gone"),
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use bytes::Bytes;
    use forebay_env::FailPoint;

    use super::super::plan::Blow;
    use super::*;

    pub fn event(row: u32, carrier: &str) -> Served {
        Served { crc: 1, key: carrier.into(), value: format!("line {row}"), row: Some(row) }
    }

    fn file(carriers: &[&str]) -> Vec<Departure> {
        let departure = |(row, carrier): (usize, &&str)| Departure {
            carrier: Bytes::copy_from_slice(carrier.as_bytes()),
            line: Bytes::from(format!("line {row}")),
        };
        carriers.iter().enumerate().map(departure).collect()
    }

    fn reading(records: &[(At, Served)]) -> Reading {
        records.iter().cloned().collect()
    }

    pub fn row(carrier: &str, flights: u64, delay: i64) -> Served {
        let stats = Stats { carrier: carrier.into(), flights, delay };
        Served { crc: 1, key: carrier.into(), value: serde_json::to_string(&stats).expect("json"), row: None }
    }

    /// The part of the file that was fed passes; a repeated, a lost, a foreign and a changed event do not.
    #[test]
    fn an_event_is_there_once() {
        let file = file(&["UA", "AA", "UA", "UA"]);
        let good = reading(&[((0, 0), event(0, "UA")), ((0, 1), event(2, "UA")), ((1, 0), event(1, "AA"))]);
        assert_eq!(once(&good, &file), Ok(3));
        let with = |at: At, record: Served| {
            let mut reading = good.clone();
            reading.insert(at, record);
            once(&reading, &file).expect_err("tampered").what
        };
        assert!(with((0, 2), event(2, "UA")).contains("row 2 (UA) is there a second time"));
        assert!(with((0, 1), event(3, "UA")).contains("row 3 (UA) comes where row 2 is due: lost"));
        assert!(with((0, 2), Served { row: None, ..event(3, "UA") }).contains("was not fed"));
        assert!(with((0, 2), Served { value: "x".into(), ..event(3, "UA") }).contains("not what was fed"));
    }

    /// Counts go up by one with the file's delays; every other sequence is told by what is wrong with it.
    #[test]
    fn rows_count_on() {
        let truth = Truth::of(&[("AA", &[5, 3]), ("UA", &[2])]);
        let run = |records: &[Served]| {
            let records: Vec<_> = (0..).zip(records.iter().cloned()).map(|(n, r)| ((0, n), r)).collect();
            rows(&reading(&records), &truth)
        };
        let all = [row("AA", 1, 5), row("UA", 1, 2), row("AA", 2, 3)];
        assert_eq!(run(&all).expect("the file's rows").total(), 3);
        assert_eq!(run(&all[..2]).expect("a part of it").total(), 2);
        let told = |records: &[Served]| {
            let broken = run(records).expect_err("tampered");
            assert_eq!(broken.check, Check::Rows);
            broken.what
        };
        assert!(told(&[row("AA", 1, 5), row("AA", 1, 5)]).contains("flight 1 comes again: counted twice"));
        assert!(told(&[row("AA", 2, 3)]).contains("rows are missing"));
        assert!(told(&[row("AA", 1, 6)]).contains("6 minutes, the file says 5"));
        assert!(told(&[row("UA", 1, 2), row("UA", 2, 2)]).contains("more than the file"));
        assert!(told(&[Served { key: "UA".into(), ..row("AA", 1, 5) }]).contains("a row of AA under the key UA"));
        assert!(told(&[Served { value: "?".into(), ..row("AA", 1, 5) }]).contains("no row of the pipeline's"));
    }

    /// A kill that had to come from outside has not been at its point, and the proof is none.
    #[test]
    fn a_point_that_is_not_passed_fails_the_proof() {
        let blow = Blow::Broker { point: FailPoint::DurableNotAcked, passes: 1 };
        let done = |reached| Done { at: 1_200, blow, reached, broker: None, pipeline: None };
        assert_eq!(passed(&done(true)), Ok(()));
        assert_eq!(
            passed(&done(false)).expect_err("not passed").to_string(),
            "check points-are-passed: broker at durable-not-acked after 1,200 events: the point was not passed, and the \
             process was killed from outside"
        );
    }

    /// A later reading may hold more; it may not hold less, or other things.
    #[test]
    fn what_was_seen_stays() {
        let before = reading(&[((0, 0), row("AA", 1, 5))]);
        let more = reading(&[((0, 0), row("AA", 1, 5)), ((0, 2), row("AA", 2, 3))]);
        assert_eq!(still_seen(super::super::STATS, &before, &more), Ok(()));
        let gone = still_seen(super::super::STATS, &more, &before).expect_err("gone");
        assert!(gone.check == Check::Seen && gone.what.starts_with("carrier-stats-0 offset 2: "), "{gone}");
        assert!(gone.what.ends_with("was read before and is gone"), "{gone}");
        let changed = reading(&[((0, 0), row("AA", 1, 4))]);
        assert!(still_seen(super::super::STATS, &before, &changed).is_err());
    }
}
