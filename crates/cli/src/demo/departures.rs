//! The events, and what is true of them.
//!
//! Owns: the file, its rows as events, and the truth: what a count and a sum over the file are after each of its rows.
//! The truth is computed from the bytes of the file by plain splitting; the pipeline parses what it reads from the topic.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::read::GzDecoder;

/// Departures from New York's airports in January 2013 (data/README.md).
static FILE: &[u8] = include_bytes!("../../../../data/flights-2013-01.csv.gz");

/// Columns of the file that matter here.
const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,";
const DELAY_COLUMN: usize = 5;
const CARRIER_COLUMN: usize = 9;

/// One row of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    pub carrier: Bytes,
    /// The row as it is.
    pub line: Bytes,
}

fn text() -> Result<String> {
    let mut text = String::new();
    GzDecoder::new(FILE).read_to_string(&mut text).context("unpack the departures")?;
    ensure!(text.starts_with(HEADER), "the departures have other columns");
    Ok(text)
}

/// All rows, in order; a row is known by its number from 0.
pub fn load() -> Result<Vec<Departure>> {
    let text = text()?;
    let departure = |line: &str| {
        let carrier = line.split(',').nth(CARRIER_COLUMN).context("a row without a carrier")?;
        Ok(Departure {
            carrier: Bytes::copy_from_slice(carrier.as_bytes()),
            line: Bytes::copy_from_slice(line.as_bytes()),
        })
    };
    text.lines().skip(1).map(departure).collect()
}

/// Count and delay of one carrier, as the pipeline writes them after each departure.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stats {
    pub carrier: String,
    pub flights: u64,
    /// Minutes, all departures together; early ones count below zero, cancelled ones nothing.
    pub delay: i64,
}

/// What the file says: for each carrier the running delay after each of its departures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth(BTreeMap<String, Vec<i64>>);

impl Truth {
    pub fn of_file() -> Result<Self> {
        let text = text()?;
        let mut carriers: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split(',').collect();
            let delay: i64 = match columns[DELAY_COLUMN] {
                "NA" => 0,
                minutes => minutes.parse().with_context(|| format!("a delay in {line:?}"))?,
            };
            let running = carriers.entry(columns[CARRIER_COLUMN].to_owned()).or_default();
            running.push(running.last().copied().unwrap_or(0) + delay);
        }
        Ok(Self(carriers))
    }

    #[cfg(test)]
    pub fn of(carriers: &[(&str, &[i64])]) -> Self {
        Self(carriers.iter().map(|(carrier, running)| ((*carrier).to_owned(), running.to_vec())).collect())
    }

    /// The running delay after a carrier's `flights`-th departure.
    pub fn delay(&self, carrier: &str, flights: u64) -> Option<i64> {
        let index = usize::try_from(flights.checked_sub(1)?).ok()?;
        self.0.get(carrier)?.get(index).copied()
    }

    /// The final table.
    pub fn table(&self) -> impl Iterator<Item = Stats> {
        self.0.iter().map(|(carrier, running)| Stats {
            carrier: carrier.clone(),
            flights: running.len() as u64,
            delay: running.last().copied().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file is the one that is told about: numbers counted by other means.
    #[test]
    fn the_file_is_what_it_is_said_to_be() {
        let rows = load().expect("the file");
        let truth = Truth::of_file().expect("the file");
        let table: Vec<_> = truth.table().collect();
        assert_eq!((rows.len(), table.len()), (27_004, 16));
        assert_eq!(table.iter().map(|row| row.flights).sum::<u64>(), 27_004);
        let of = |carrier: &str| table.iter().find(|row| row.carrier == carrier).map(|row| (row.flights, row.delay));
        assert_eq!(of("9E"), Some((1573, 25_290)));
        assert_eq!(of("UA"), Some((4637, 38_342)));
        assert_eq!(of("OO"), Some((1, 67)));
        assert_eq!((&rows[0].carrier[..], truth.delay("UA", 1), truth.delay("UA", 2)), (&b"UA"[..], Some(2), Some(6)));
        assert_eq!((truth.delay("UA", 0), truth.delay("UA", 4638), truth.delay("ZZ", 1)), (None, None, None));
    }
}
