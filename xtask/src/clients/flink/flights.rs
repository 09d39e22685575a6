//! The departures of `data/`, and what each job must make of them, computed here without Flink.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;

use crate::workspace;

/// How far the watermark of the windows stays behind the latest departure: the file's order is that of the schedule, and
/// some left a day late. [`Flights::hours`] makes sure that it suffices.
pub(super) const ALLOWANCE_HOURS: i64 = 48;

/// One departure.
struct Flight {
    /// Its row as it is in the file.
    row: String,
    carrier: String,
    origin: String,
    /// Minutes; none where the flight was cancelled.
    delay: Option<i64>,
    /// When it left, else was to leave, in minutes of January 2013, UTC.
    departure: i64,
}

pub(super) struct Flights(Vec<Flight>);

impl Flights {
    pub(super) fn read() -> Result<Self> {
        let path = workspace::root().join("data").join("flights-2013-01.csv.gz");
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut text = String::new();
        GzDecoder::new(file).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
        let flights: Result<Vec<_>> = text.lines().skip(1).map(Flight::parse).collect();
        Ok(Self(flights?))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Rows as keyed records, in the order of the file.
    pub(super) fn records(&self, from: usize, to: usize) -> impl Iterator<Item = (&str, &str)> {
        self.0[from..to].iter().map(|flight| (flight.carrier.as_str(), flight.row.as_str()))
    }

    /// A row that counts nowhere and closes every window, if it comes last in each partition.
    pub(super) fn last_call() -> (&'static str, &'static str) {
        ("-", "2013,12,31,NA,2359,NA,NA,NA,NA,-,0,NA,-,-,NA,0,23,59,2013-12-31T23:59:00Z")
    }

    /// Flights and minutes of delay by carrier so far, after each departure: carriers as keys, in order within each.
    pub(super) fn totals(&self) -> BTreeMap<String, Vec<String>> {
        let mut so_far: BTreeMap<&str, (u64, Option<i64>)> = BTreeMap::new();
        let mut totals: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for flight in &self.0 {
            let (flights, delay) = so_far.entry(&flight.carrier).or_default();
            *flights += 1;
            if let Some(minutes) = flight.delay {
                *delay = Some(delay.unwrap_or(0) + minutes);
            }
            // As SQL has it: the sum of nothing is null.
            let delay = delay.map_or("NA".to_owned(), |minutes| minutes.to_string());
            let total = format!("{},{flights},{delay}", flight.carrier);
            totals.entry(flight.carrier.clone()).or_default().push(total);
        }
        totals
    }

    /// Departures by hour and airport, in no order.
    pub(super) fn hours(&self) -> Result<Vec<String>> {
        let mut latest = i64::MIN;
        let mut hours: BTreeMap<(i64, &str), (u64, i64, i64)> = BTreeMap::new();
        for flight in &self.0 {
            // Stricter than any partition's own watermark, since a partition holds some of the rows only.
            ensure!(
                flight.departure > latest.saturating_sub(ALLOWANCE_HOURS * 60),
                "{ALLOWANCE_HOURS} hours are too short: this row would come late: {}",
                flight.row
            );
            latest = latest.max(flight.departure);
            let Some(delay) = flight.delay else { continue };
            let hour = hours.entry((flight.departure.div_euclid(60), &flight.origin)).or_insert((0, 0, i64::MIN));
            *hour = (hour.0 + 1, hour.1 + delay, hour.2.max(delay));
        }
        let row = |((hour, origin), (flights, delay, worst)): (&(i64, &str), &(u64, i64, i64))| {
            Ok(format!("{},{origin},{flights},{delay},{worst}", hour_of_2013(*hour)?))
        };
        hours.iter().map(row).collect()
    }
}

impl Flight {
    fn parse(row: &str) -> Result<Self> {
        let bad = || format!("this row is not as the data's README says: {row}");
        let fields: Vec<&str> = row.split(',').collect();
        let [_, _, _, _, _, delay, _, _, _, carrier, _, _, origin, .., minute, hour] = fields[..] else { bail!(bad()) };
        let number = |text: &str| text.parse::<i64>().with_context(bad);
        let delay = if delay == "NA" { None } else { Some(number(delay)?) };
        // 2013-01-DDTHH:00:00Z, or the first night of February: New York is five hours behind.
        let (month, rest) = hour.strip_prefix("2013-").and_then(|rest| rest.split_once('-')).with_context(bad)?;
        let (day, rest) = rest.split_once('T').with_context(bad)?;
        let hour = rest.strip_suffix(":00:00Z").with_context(bad)?;
        let days = number(day)? - 1 + if number(month)? == 2 { 31 } else { 0 };
        let scheduled = (days * 24 + number(hour)?) * 60 + number(minute)?;
        Ok(Self {
            row: row.to_owned(),
            carrier: carrier.to_owned(),
            origin: origin.to_owned(),
            delay,
            departure: scheduled + delay.unwrap_or(0),
        })
    }
}

/// `2013-01-31 23:00` for an hour since the year began.
fn hour_of_2013(hour: i64) -> Result<String> {
    let (day, hour) = (hour.div_euclid(24), hour.rem_euclid(24));
    let (month, day) = match day {
        0..31 => (1, day + 1),
        31..59 => (2, day - 30),
        _ => bail!("day {day} is in neither January nor February"),
    };
    Ok(format!("2013-{month:02}-{day:02} {hour:02}:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of a few rows by hand: a null delay counts the flight only, before the first delay as NA; a cancelled flight
    /// is in no window; a departure after midnight is in the hour when it left.
    #[test]
    fn totals_and_hours_by_hand() -> Result<()> {
        let rows = [
            "2013,1,1,NA,517,NA,NA,819,NA,UA,1,N,EWR,IAH,NA,1,5,17,2013-01-01T10:00:00Z",
            "2013,1,1,533,529,4,850,830,20,UA,1,N,LGA,IAH,227,1416,5,29,2013-01-01T10:00:00Z",
            "2013,1,1,533,530,-31,850,830,20,AA,1,N,LGA,IAH,227,1416,5,30,2013-01-01T10:00:00Z",
            "2013,1,31,100,2359,61,850,830,20,UA,1,N,LGA,IAH,227,1416,23,59,2013-02-01T04:00:00Z",
        ];
        let flights = Flights(rows.into_iter().map(Flight::parse).collect::<Result<_>>()?);
        let totals = flights.totals();
        assert_eq!(totals["UA"], ["UA,1,NA", "UA,2,4", "UA,3,65"]);
        assert_eq!(totals["AA"], ["AA,1,-31"]);
        let hours = ["2013-01-01 09:00,LGA,1,-31,-31", "2013-01-01 10:00,LGA,1,4,4", "2013-02-01 06:00,LGA,1,61,61"];
        assert_eq!(flights.hours()?, hours);
        Ok(())
    }

    /// A row that the watermark may have passed makes the expectation itself wrong, which is refused.
    #[test]
    fn a_row_later_than_allowed_is_refused() -> Result<()> {
        let rows = [
            "2013,1,9,533,529,4,850,830,20,UA,1,N,LGA,IAH,227,1416,5,29,2013-01-09T10:00:00Z",
            "2013,1,1,533,529,4,850,830,20,UA,1,N,LGA,IAH,227,1416,5,29,2013-01-01T10:00:00Z",
        ];
        let flights = Flights(rows.into_iter().map(Flight::parse).collect::<Result<_>>()?);
        assert!(flights.hours().is_err());
        Ok(())
    }

    /// The file as it is: every row is read, and every window of it can be told.
    #[test]
    fn the_month_is_whole() -> Result<()> {
        let flights = Flights::read()?;
        assert_eq!(flights.len(), 27_004);
        assert_eq!(flights.totals().values().map(Vec::len).sum::<usize>(), 27_004);
        assert!(flights.hours()?.len() > 1500);
        Ok(())
    }
}
