//! What the broker remembers: logs, producers, transactions, one group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use forebay_client::ErrorCode;
use forebay_wire::batch::{build_marker, check_crc, parse_marker, patch, records};
use forebay_wire::kafka::messages::ApiKey;
use forebay_wire::{BatchHeader, Marker, MarkerKind};

use super::Fault;

#[derive(Default)]
pub struct State {
    pub requests: Vec<(ApiKey, String)>,
    pub faults: BTreeMap<i16, VecDeque<Fault>>,
    pub topics: BTreeMap<String, BTreeMap<i32, Log>>,
    /// Highest version offered, where it is not the newest known.
    pub version_max: BTreeMap<i16, i16>,
    pub refused_connections: u32,
    pub next_producer: i64,
    pub transactions: BTreeMap<String, Transaction>,
    pub committed: BTreeMap<(String, String, i32), i64>,
    pub generation: i32,
}

#[derive(Default)]
pub struct Log {
    pub batches: Vec<Bytes>,
    pub end: i64,
    /// Epoch, next sequence and the batches remembered, by producer.
    pub producers: BTreeMap<i64, Remembered>,
    /// Where open transactions began, and aborted ones as (producer, first offset, marker's offset).
    pub open: BTreeMap<i64, i64>,
    pub aborted: Vec<(i64, i64, i64)>,
}

#[derive(Default, Clone)]
pub struct Remembered {
    pub epoch: i16,
    pub next_sequence: i32,
    /// First sequence and base offset of the last five.
    pub window: VecDeque<(i32, i64)>,
}

#[derive(Default)]
pub struct Transaction {
    pub producer: i64,
    pub epoch: i16,
    pub partitions: BTreeSet<(String, i32)>,
    pub offsets: Vec<(String, String, i32, i64)>,
}

impl State {
    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        self.topics.insert(name.to_owned(), (0..partitions).map(|index| (index, Log::default())).collect());
    }

    /// Writes a request down.
    pub fn note(&mut self, key: ApiKey, what: String) {
        self.requests.push((key, what));
    }

    pub fn log_mut(&mut self, topic: &str, index: i32) -> Option<&mut Log> {
        self.topics.get_mut(topic)?.get_mut(&index)
    }

    pub fn show(&self, topic: &str, index: i32) -> String {
        let log = &self.topics[topic][&index];
        let mut shown = Vec::new();
        for batch in &log.batches {
            let header = BatchHeader::parse(batch).expect("checked when appended");
            if header.is_control() {
                let kind = parse_marker(batch).expect("made here").kind;
                shown.push(if kind == MarkerKind::Commit { "<commit>".to_owned() } else { "<abort>".to_owned() });
                continue;
            }
            for record in records(batch, 1 << 20).expect("a readable batch") {
                let value = record.expect("a readable record").value.unwrap_or_default();
                shown.push(String::from_utf8_lossy(&value).into_owned());
            }
        }
        shown.join(" ")
    }

    /// Begins a life of a transactional id, or of nobody in particular.
    pub fn init_producer(&mut self, id: Option<&str>) -> (i64, i16) {
        let Some(id) = id else {
            self.next_producer += 1;
            return (self.next_producer, 0);
        };
        if let Some(transaction) = self.transactions.get_mut(id) {
            transaction.epoch += 1;
            let found = (transaction.producer, transaction.epoch);
            self.end(id, false);
            return found;
        }
        self.next_producer += 1;
        let producer = self.next_producer;
        self.transactions.insert(id.to_owned(), Transaction { producer, ..Transaction::default() });
        (producer, 0)
    }

    /// Ends a transaction: markers, offsets.
    pub fn end(&mut self, id: &str, commit: bool) {
        let transaction = self.transactions.get_mut(id).expect("a known id");
        let (producer, epoch) = (transaction.producer, transaction.epoch);
        let offsets = std::mem::take(&mut transaction.offsets);
        for (topic, index) in std::mem::take(&mut transaction.partitions) {
            let log = self.topics.get_mut(&topic).and_then(|t| t.get_mut(&index)).expect("a known partition");
            log.mark(producer, epoch, commit);
        }
        if commit {
            self.committed.extend(offsets.into_iter().map(|(group, topic, index, at)| ((group, topic, index), at)));
        }
    }
}

impl Log {
    /// Appends as Kafka does: the base offset, the base offset of a duplicate, or the code.
    pub fn append(&mut self, batch: &Bytes) -> Result<i64, ErrorCode> {
        check_crc(batch).map_err(|_| ErrorCode::CorruptMessage)?;
        let header = BatchHeader::parse(batch).map_err(|_| ErrorCode::CorruptMessage)?;
        if header.producer_id >= 0 {
            let known = self.producers.entry(header.producer_id).or_insert(Remembered {
                epoch: header.producer_epoch,
                next_sequence: header.base_sequence,
                window: VecDeque::new(),
            });
            if header.producer_epoch < known.epoch {
                return Err(ErrorCode::InvalidProducerEpoch);
            }
            if header.producer_epoch > known.epoch {
                if header.base_sequence != 0 {
                    return Err(ErrorCode::OutOfOrderSequenceNumber);
                }
                *known = Remembered { epoch: header.producer_epoch, ..Remembered::default() };
            }
            if let Some((_, base)) = known.window.iter().find(|(first, _)| *first == header.base_sequence) {
                return Ok(*base);
            }
            if header.base_sequence != known.next_sequence {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            known.next_sequence += header.records_count;
            known.window.push_back((header.base_sequence, self.end));
            if known.window.len() > 5 {
                known.window.pop_front();
            }
        }
        if header.is_transactional() {
            self.open.entry(header.producer_id).or_insert(self.end);
        }
        Ok(self.push(batch))
    }

    fn push(&mut self, batch: &[u8]) -> i64 {
        let base = self.end;
        let mut batch = BytesMut::from(batch);
        patch(&mut batch, base, 0);
        let header = BatchHeader::parse(&batch).expect("checked before");
        self.end = header.last_offset() + 1;
        self.batches.push(batch.freeze());
        base
    }

    fn mark(&mut self, producer: i64, epoch: i16, commit: bool) {
        let kind = if commit { MarkerKind::Commit } else { MarkerKind::Abort };
        let marker = build_marker(producer, epoch, Marker { kind, coordinator_epoch: 0 }, 0);
        let at = self.push(&marker);
        let first = self.open.remove(&producer);
        if let (Some(first), false) = (first, commit) {
            self.aborted.push((producer, first, at));
        }
        // A marker of a new epoch fences the old one.
        if let Some(known) = self.producers.get_mut(&producer).filter(|known| epoch > known.epoch) {
            *known = Remembered { epoch, ..Remembered::default() };
        }
    }

    pub fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }
}
