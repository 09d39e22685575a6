//! A machine's partition as its one writer sees it: records become batches, and offsets find their WAL positions.
//!
//! Invariant: nobody else appends here, so records land at the log end that the machine was told.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use forebay_log::{Appended, LogError, Partition};
use forebay_types::{Offset, WalPosition};
use forebay_wal::WalEnded;
use forebay_wire::BatchBuilder;

use super::Shared;
use crate::machine::{Producer, Record};

/// Records of one output go into batches of about this size: what an API limit lets through (8 MiB) still fits one.
const BATCH_BYTES_TARGET: usize = 1 << 20;

/// Room in a batch for all but a record's value: its header, the key, headers, lengths.
pub(super) const BATCH_HEAD_ROOM: usize = 128 << 10;

/// Appends whose positions are remembered. More are seldom under way; the oldest then count as the one after them.
const UNDER_WAY_MAX: usize = 4_096;

/// Nothing can be appended here any more: the broker epoch is over, or the topic gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended;

impl From<WalEnded> for Ended {
    fn from(_: WalEnded) -> Self {
        Self
    }
}

impl From<LogError> for Ended {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Ended(_) => {}
            error => tracing::error!(error = &error as &dyn std::error::Error, "a coordinator could not append"),
        }
        Self
    }
}

pub(super) struct Ledger {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    /// Everything below is durable.
    durable_end: Offset,
    /// What was appended and may not be durable: end offsets with positions, in order.
    under_way: VecDeque<(Offset, WalPosition)>,
    /// Records since the last snapshot.
    records: u64,
}

impl Ledger {
    /// All that is in the partition is durable; `records` of it were replayed behind the last snapshot.
    pub fn new(shared: Arc<Shared>, partition: Arc<Partition>, records: u64) -> Self {
        let durable_end = partition.log_end();
        Self { shared, partition, durable_end, under_way: VecDeque::new(), records }
    }

    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Where the next record will stand.
    pub fn end(&self) -> Offset {
        self.partition.log_end()
    }

    /// Records since the last snapshot; a marker counts as one.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// A snapshot holds all that was appended.
    pub fn begin_anew(&mut self) {
        self.records = 0;
    }

    /// Gives the records their offsets, from [`Ledger::end`] on, in one piece.
    pub async fn append(&mut self, records: &[Record], producer: Option<Producer>) -> Result<(), Ended> {
        let batches = batches(records, producer, self.shared.env.now().as_millis());
        if batches.is_empty() {
            return Ok(());
        }
        let before = self.end();
        let mut admission = self.shared.wal.admit_own(batches.iter().map(BytesMut::len).sum()).await?;
        for batch in batches {
            let appended = self.partition.append_own(batch, &mut admission)?;
            self.remember(&appended);
        }
        let count = i64::try_from(records.len()).expect("a count of records in memory");
        let expected = before.checked_add(count);
        assert_eq!(Some(self.end()), expected, "a coordinator is the only writer of its partition");
        self.records += count.unsigned_abs();
        Ok(())
    }

    /// Takes note of a marker that was appended.
    pub fn note(&mut self, appended: &Appended) {
        self.remember(appended);
        self.records += 1;
    }

    fn remember(&mut self, appended: &Appended) {
        if self.under_way.len() == UNDER_WAY_MAX {
            self.under_way.pop_front();
        }
        self.under_way.push_back((self.end(), appended.position));
    }

    /// What to wait for so that all that was appended is durable.
    pub fn position(&self) -> WalPosition {
        self.partition.position()
    }

    /// What to wait for so that everything below `offset` is durable.
    pub fn position_of(&mut self, offset: Offset) -> WalPosition {
        let durable = self.shared.wal.durable_position();
        while let Some((end, _)) = self.under_way.pop_front_if(|(_, position)| *position <= durable) {
            self.durable_end = end;
        }
        if offset <= self.durable_end {
            return WalPosition::START;
        }
        let found = self.under_way.iter().find(|(end, _)| *end >= offset);
        found.expect("an answer rests on what was appended").1
    }
}

fn batches(records: &[Record], producer: Option<Producer>, now: i64) -> Vec<BytesMut> {
    let begin = || match producer {
        None => BatchBuilder::new(now),
        Some(Producer { id, epoch }) => BatchBuilder::new(now).producer(id.get(), epoch.get(), -1).transactional(),
    };
    let mut batches = Vec::new();
    let mut batch = begin();
    for record in records {
        let size = record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len);
        if batch.count() > 0 && batch.size() + size > BATCH_BYTES_TARGET {
            batches.push(std::mem::replace(&mut batch, begin()).build());
        }
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|(name, value)| (name.as_bytes(), Some(&value[..]))).collect();
        batch.push(now, Some(&record.key), record.value.as_deref(), &headers);
    }
    if batch.count() > 0 {
        batches.push(batch.build());
    }
    batches
}
