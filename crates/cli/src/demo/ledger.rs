//! The feeder's own record of what was acknowledged, kept outside of the broker.

use std::collections::BTreeSet;

use forebay_client::Ack;

use super::checks::{Broken, Check, Reading, broken};

/// One acknowledged batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub partition: i32,
    pub base_offset: i64,
    /// The checksum of the batch as it was sent.
    pub crc: u32,
    /// The rows in it, in order.
    pub rows: Vec<u32>,
}

impl Acknowledged {
    pub fn new(ack: &Ack, rows: Vec<u32>) -> Self {
        Self { partition: ack.partition.index.get(), base_offset: ack.base_offset.get(), crc: ack.crc, rows }
    }
}

/// Batches in the order of their acknowledgements.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Vec<Acknowledged>);

impl Ledger {
    pub fn add(&mut self, batch: Acknowledged) {
        self.0.push(batch);
    }

    pub fn batches(&self) -> usize {
        self.0.len()
    }

    /// The rows that were acknowledged.
    pub fn rows(&self) -> BTreeSet<u32> {
        self.0.iter().flat_map(|batch| &batch.rows).copied().collect()
    }

    /// Every batch is in `reading`, whole, at its offsets, with its checksum and its rows.
    pub fn check(&self, reading: &Reading) -> Result<(), Broken> {
        for batch in &self.0 {
            for (offset, row) in (batch.base_offset..).zip(&batch.rows) {
                let what = |what: String| {
                    let partition = batch.partition;
                    Err(broken(
                        Check::Acknowledged,
                        format!("departures-{partition} offset {offset}: row {row} was acknowledged there and {what}"),
                    ))
                };
                let Some(served) = reading.get(&(batch.partition, offset)) else {
                    return what("is not served any more: lost".to_owned());
                };
                if served.row != Some(*row) {
                    let other = served.row.map_or_else(|| "another record".to_owned(), |other| format!("row {other}"));
                    return what(format!("{other} is served instead: lost"));
                }
                if served.crc != batch.crc {
                    return what(format!("its batch's checksum was {:08x} and is {:08x} now", batch.crc, served.crc));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::checks::tests::event;

    /// What was acknowledged is looked for where it was acknowledged: gone, replaced and rewritten records are told.
    #[test]
    fn acknowledged_records_are_where_they_were() {
        let mut ledger = Ledger::default();
        ledger.add(Acknowledged { partition: 0, base_offset: 0, crc: 1, rows: vec![0, 2] });
        ledger.add(Acknowledged { partition: 1, base_offset: 5, crc: 1, rows: vec![1] });
        let good: Reading =
            [((0, 0), event(0, "UA")), ((0, 1), event(2, "UA")), ((1, 5), event(1, "AA")), ((1, 6), event(3, "AA"))]
                .into();
        assert_eq!((ledger.check(&good), ledger.batches()), (Ok(()), 2));
        let told = |change: &dyn Fn(&mut Reading)| {
            let mut reading = good.clone();
            change(&mut reading);
            let broken = ledger.check(&reading).expect_err("tampered");
            assert_eq!(broken.check, Check::Acknowledged);
            broken.what
        };
        let gone = told(&|reading| drop(reading.remove(&(0, 1))));
        assert_eq!(gone, "departures-0 offset 1: row 2 was acknowledged there and is not served any more: lost");
        assert!(
            told(&|reading| drop(reading.insert((1, 5), event(3, "AA")))).ends_with("row 3 is served instead: lost")
        );
        let rewritten = |reading: &mut Reading| reading.get_mut(&(1, 5)).expect("there").crc = 2;
        assert!(told(&rewritten).ends_with("its batch's checksum was 00000001 and is 00000002 now"));
    }
}
