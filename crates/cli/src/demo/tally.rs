//! What was lost and what is there twice, counted from a whole reading of both topics, and the table that it ends in.
//!
//! The checks (`checks`) stop at the first thing that is wrong and name it; this counts all of it, and finds nothing where
//! they hold. Pure. Leaves to others: reading (`reader`), which checks have failed.

use std::collections::{BTreeMap, BTreeSet};

use super::checks::{Broken, Check, Reading, broken};
use super::departures::{Stats, Truth};

/// One reading, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged events that are nowhere in the topic.
    pub events_lost: u64,
    /// Events that are there again.
    pub events_duplicated: u64,
    /// Rows of the result that were due and are not there.
    pub rows_lost: u64,
    /// Rows of the result that count a flight again, or one that the file does not have.
    pub rows_duplicated: u64,
    /// Rows of the result.
    pub rows: u64,
    /// The last row of each carrier, in order of carriers.
    pub table: Vec<Stats>,
}

/// Which rows of the result are due.
#[derive(Clone, Copy, Debug)]
pub enum Due<'a> {
    /// The pipeline is through: the file's.
    All,
    /// It was stopped on its way: those that were read before, and every one below the highest that is there.
    Seen(&'a Reading),
}

impl Tally {
    /// `acknowledged` are rows of the file.
    pub fn of(input: &Reading, acknowledged: &BTreeSet<u32>, output: &Reading, due: Due<'_>, truth: &Truth) -> Self {
        let events: Vec<u32> = input.values().filter_map(|record| record.row).collect();
        let distinct: BTreeSet<u32> = events.iter().copied().collect();
        let rows: Vec<Stats> = stats(output).collect();
        let mut found: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        let mut last: BTreeMap<&str, &Stats> = BTreeMap::new();
        let mut rows_duplicated = 0;
        for row in &rows {
            let known = truth.delay(&row.carrier, row.flights).is_some();
            if !(known && found.entry(&row.carrier).or_default().insert(row.flights)) {
                rows_duplicated += 1;
            }
            last.insert(&row.carrier, row);
        }
        let mut highest: BTreeMap<String, u64> = BTreeMap::new();
        match due {
            Due::All => highest.extend(truth.table().map(|row| (row.carrier, row.flights))),
            Due::Seen(before) => {
                for row in stats(before).chain(rows.iter().cloned()) {
                    if truth.delay(&row.carrier, row.flights).is_some() {
                        let highest = highest.entry(row.carrier).or_default();
                        *highest = (*highest).max(row.flights);
                    }
                }
            }
        }
        let lost_of = |(carrier, highest): (&String, &u64)| {
            // What is found is the file's, so all of it lies at or below the file's count.
            let there = found.get(carrier.as_str()).map_or(0, |flights| flights.range(..=*highest).count() as u64);
            highest - there
        };
        Self {
            events_lost: acknowledged.difference(&distinct).count() as u64,
            events_duplicated: (events.len() - distinct.len()) as u64,
            rows_lost: highest.iter().map(lost_of).sum(),
            rows_duplicated,
            rows: rows.len() as u64,
            table: last.into_values().cloned().collect(),
        }
    }

    pub fn lost(&self) -> u64 {
        self.events_lost + self.rows_lost
    }

    pub fn duplicated(&self) -> u64 {
        self.events_duplicated + self.rows_duplicated
    }

    /// The table is the file's, row by row, and nothing was counted as lost or as there twice.
    pub fn check(&self, truth: &Truth) -> Result<(), Broken> {
        let file: Vec<Stats> = truth.table().collect();
        let differs = |due: &&Stats| self.table.iter().find(|row| row.carrier == due.carrier) != Some(*due);
        if let Some(due) = file.iter().find(differs) {
            let read = self.table.iter().find(|row| row.carrier == due.carrier);
            let read =
                read.map_or_else(|| "no row".to_owned(), |row| format!("{} flights, {} min", row.flights, row.delay));
            let what = format!("{}: {read}, the file says {} flights, {} min", due.carrier, due.flights, due.delay);
            return Err(broken(Check::Table, what));
        }
        if self.table.len() != file.len() {
            return Err(broken(Check::Table, format!("{} carriers, the file has {}", self.table.len(), file.len())));
        }
        if self.lost() + self.duplicated() > 0 {
            let what =
                format!("lost {} and duplicated {} by count, though every check held", self.lost(), self.duplicated());
            return Err(broken(Check::Table, what));
        }
        Ok(())
    }
}

/// Rows of the result in the order of a carrier's; what is none is told by a check.
fn stats(reading: &Reading) -> impl Iterator<Item = Stats> + '_ {
    reading.values().filter_map(|record| serde_json::from_str(&record.value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::checks::Served;
    use crate::demo::checks::tests::{event, row};

    fn reading(records: impl IntoIterator<Item = Served>) -> Reading {
        (0..).map(|offset| (0, offset)).zip(records).collect()
    }

    fn truth() -> Truth {
        Truth::of(&[("AA", &[5, 3]), ("UA", &[2])])
    }

    fn events(rows: &[u32]) -> Reading {
        reading(rows.iter().map(|row| event(*row, "AA")))
    }

    /// `lost events, events twice, lost rows, rows twice` of a reading.
    fn counts(input: &[u32], acknowledged: &[u32], output: &[(&str, u64, i64)], due: Due<'_>) -> [u64; 4] {
        let output = reading(output.iter().map(|(carrier, flights, delay)| row(carrier, *flights, *delay)));
        let acknowledged = acknowledged.iter().copied().collect();
        let tally = Tally::of(&events(input), &acknowledged, &output, due, &truth());
        [tally.events_lost, tally.events_duplicated, tally.rows_lost, tally.rows_duplicated]
    }

    const WHOLE: [(&str, u64, i64); 3] = [("AA", 1, 5), ("UA", 1, 2), ("AA", 2, 3)];

    /// A whole reading has nothing to count, and its table is what was read last.
    #[test]
    fn a_whole_reading_counts_nothing() {
        let output = reading(WHOLE.map(|(carrier, flights, delay)| row(carrier, flights, delay)));
        let tally = Tally::of(&events(&[0, 1, 2]), &[0, 1, 2].into(), &output, Due::All, &truth());
        let table = vec![
            Stats { carrier: "AA".into(), flights: 2, delay: 3 },
            Stats { carrier: "UA".into(), flights: 1, delay: 2 },
        ];
        assert_eq!(tally, Tally { rows: 3, table, ..Tally::default() });
        assert_eq!(tally.check(&truth()), Ok(()));
    }

    /// Everything that is gone or there again is counted, each for itself.
    #[test]
    fn all_that_is_wrong_is_counted() {
        let nothing = Reading::new();
        assert_eq!(counts(&[0], &[0, 1, 2], &WHOLE, Due::All), [2, 0, 0, 0]);
        assert_eq!(counts(&[0, 1, 1, 1, 2], &[0], &WHOLE, Due::All), [0, 2, 0, 0]);
        assert_eq!(counts(&[], &[], &[("AA", 2, 3)], Due::All), [0, 0, 2, 0]);
        assert_eq!(
            counts(&[], &[], &[("AA", 2, 3)], Due::Seen(&nothing)),
            [0, 0, 1, 0],
            "AA's first is due by its second"
        );
        let again = [("AA", 1, 5), ("AA", 1, 5), ("AA", 3, 0), ("ZZ", 1, 0)];
        assert_eq!(counts(&[], &[], &again, Due::Seen(&nothing)), [0, 0, 0, 3], "twice, beyond the file, of nobody");
        let before = reading([row("UA", 1, 2)]);
        assert_eq!(counts(&[], &[], &[("AA", 1, 5)], Due::Seen(&before)), [0, 0, 1, 0], "it was read before");
    }

    /// A table that is not the file's is told by its first carrier, and a count that is not 0 by itself.
    #[test]
    fn a_table_is_held_against_the_file() {
        let of = |output: &[(&str, u64, i64)], input: &[u32]| {
            let output = reading(output.iter().map(|(carrier, flights, delay)| row(carrier, *flights, *delay)));
            let tally = Tally::of(&events(input), &BTreeSet::new(), &output, Due::All, &truth());
            tally.check(&truth()).expect_err("not the file's").what
        };
        assert_eq!(of(&[("AA", 1, 5), ("UA", 1, 2)], &[]), "AA: 1 flights, 5 min, the file says 2 flights, 3 min");
        assert_eq!(of(&WHOLE[..1], &[]), "AA: 1 flights, 5 min, the file says 2 flights, 3 min");
        assert_eq!(of(&[("AA", 1, 5), ("AA", 2, 3)], &[]), "UA: no row, the file says 1 flights, 2 min");
        assert!(of(&WHOLE, &[4, 4]).starts_with("lost 0 and duplicated 1"));
    }
}
