//! The whole machine as bytes, so that opening need not read the log from its beginning (D14).
//!
//! Owns: the layout below. Leaves to others: checksum, name, and when a snapshot may be referenced (`format`, the host).
//!
//! ```text
//! version u8 = 2 | log end | newest update (zigzag) | topics: n × { length, name, topic id } | ids: n × id
//! id := { length, text } | status + 8 × has previous, u8 | producer id, epoch | [previous id, epoch]
//!       | timeout (zigzag) | newest update − update | log end − offset
//!       | unless Empty: update − start (zigzag)
//!       | Ongoing, Prepare: n × { topic, partition }
//! ```
//! Numbers are LEB128 varints, a topic id has 16 bytes and is nil where it is not known. An idle id takes about twenty
//! bytes beside its text. Version 1 had no topic ids; it is read as if none were known.
//!
//! Invariants:
//! 1. Restored and opened, the machine is the one that was written, but for what opening begins anew; so time-outs are
//!    not here: each gets its full time again.
//! 2. The snapshot holds every record below `log_end`, durable or not: it may be referenced only once they are.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_types::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicName};

use super::super::Producer;
use super::TxnMachine;
use super::entry::{Entry, state_of};
use super::io::{TxnPartition, TxnStatus};
use super::record::{bytes_of, topic_id_of};
use super::table::Table;

const VERSION: u8 = 2;
const VERSION_WITHOUT_TOPIC_IDS: u8 = 1;
/// Set beside the status where a previous producer follows.
const HAS_PREVIOUS: u8 = 8;

/// How partitions name their topic: two of one name are two topics.
type Topic<'a> = (&'a TopicName, Option<TopicId>);

fn topic_of(partition: &TxnPartition) -> Topic<'_> {
    (&partition.topic, partition.topic_id)
}

/// A machine's state at an offset of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The first offset that is not in it. To be referenced only once the log is durable up to here.
    pub log_end: Offset,
    pub bytes: Bytes,
}

/// Bytes that are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {position}: {problem}")]
pub struct SnapshotProblem {
    field: &'static str,
    position: usize,
    problem: &'static str,
}

impl TxnMachine {
    /// The whole state. Walks every id: with very many of them, work that belongs off the runtime.
    pub fn snapshot(&self) -> Snapshot {
        let newest = self.table.iter().map(|(_, entry)| entry.updated).max().unwrap_or_default();
        let held = || self.table.iter().filter_map(|(_, entry)| entry.partitions()).flatten();
        let mut topics: BTreeMap<Topic<'_>, u64> = held().map(|partition| (topic_of(partition), 0)).collect();
        let mut out = vec![VERSION];
        put(&mut out, self.log_end.get().unsigned_abs());
        put_signed(&mut out, newest.as_millis());
        put_len(&mut out, topics.len());
        for (number, ((name, id), place)) in (0..).zip(&mut topics) {
            *place = number;
            put_text(&mut out, name.as_str());
            out.extend(bytes_of(*id));
        }
        put_len(&mut out, self.table.len());
        for (_, entry) in self.table.iter() {
            self.put_entry(&mut out, entry, newest, &topics);
        }
        Snapshot { log_end: self.log_end, bytes: out.into() }
    }

    fn put_entry(&self, out: &mut Vec<u8>, entry: &Entry, newest: Timestamp, topics: &BTreeMap<Topic<'_>, u64>) {
        put_text(out, &entry.id);
        let status = entry.status().id().unsigned_abs();
        out.push(if entry.previous().is_some() { status | HAS_PREVIOUS } else { status });
        for producer in [Some(entry.producer()), entry.previous()].into_iter().flatten() {
            put(out, producer.id.get().unsigned_abs());
            put(out, u64::from(producer.epoch.get().unsigned_abs()));
        }
        put_signed(out, i64::from(entry.timeout_ms));
        put(out, newest.as_millis().abs_diff(entry.updated.as_millis()));
        put(out, self.log_end.get().abs_diff(entry.last_offset.get()));
        if let Some(started) = entry.started() {
            put_signed(out, entry.updated.as_millis().wrapping_sub(started.as_millis()));
        }
        if let Some(partitions) = entry.partitions() {
            put_len(out, partitions.len());
            for partition in partitions {
                put(out, topics[&topic_of(partition)]);
                put(out, u64::from(partition.partition.get().unsigned_abs()));
            }
        }
    }
}

/// The log's end and the table that a snapshot was written from.
pub(super) fn read(bytes: &[u8]) -> Result<(Offset, Table), SnapshotProblem> {
    let mut reader = Reader { bytes, position: 0 };
    let version = reader.byte("version")?;
    if ![VERSION, VERSION_WITHOUT_TOPIC_IDS].contains(&version) {
        return Err(SnapshotProblem { field: "version", position: 0, problem: "not one that this version reads" });
    }
    let log_end = reader.number("log end", |n| i64::try_from(n).ok())?;
    let log_end = Offset::new(log_end).expect("made from an unsigned number");
    let newest = reader.signed("newest update")?;
    let mut topics = Vec::new();
    for _ in 0..reader.varint("topics")? {
        let name = reader.text("topic")?;
        let name = TopicName::new(name).map_err(|_| reader.problem("topic", "not a topic's name"))?;
        let id = if version == VERSION { topic_id_of(reader.array("topic id")?) } else { None };
        topics.push((name, id));
    }
    let mut table = Table::default();
    for _ in 0..reader.varint("ids")? {
        let position = reader.position;
        let entry = read_entry(&mut reader, log_end, newest, &topics)?;
        if table.find(&entry.id).is_some() {
            return Err(SnapshotProblem { field: "transactional id", position, problem: "there already" });
        }
        table.insert(entry);
    }
    if reader.position != bytes.len() {
        return Err(reader.problem("end", "bytes left over"));
    }
    Ok((log_end, table))
}

fn read_entry(
    reader: &mut Reader<'_>,
    log_end: Offset,
    newest: i64,
    topics: &[(TopicName, Option<TopicId>)],
) -> Result<Entry, SnapshotProblem> {
    let id = reader.text("transactional id")?;
    let flags = reader.byte("status")?;
    let status = i8::try_from(flags & !HAS_PREVIOUS).ok().and_then(TxnStatus::from_id);
    let status = status.ok_or_else(|| reader.problem("status", "not one"))?;
    let producer = reader.producer()?;
    let previous = if flags & HAS_PREVIOUS == 0 { None } else { Some(reader.producer()?) };
    let timeout_ms = reader.signed("timeout")?;
    let timeout_ms = i32::try_from(timeout_ms).map_err(|_| reader.problem("timeout", "out of range"))?;
    let updated = newest.wrapping_sub_unsigned(reader.varint("update")?);
    let last_offset = reader.number("offset", |back| {
        let offset = log_end.get().checked_sub_unsigned(back)?;
        Offset::new(offset).ok().filter(|offset| *offset < log_end)
    })?;
    let started = if status == TxnStatus::Empty { 0 } else { updated.wrapping_sub(reader.signed("start")?) };
    let mut partitions = BTreeSet::new();
    if matches!(status, TxnStatus::Ongoing | TxnStatus::PrepareCommit | TxnStatus::PrepareAbort) {
        for _ in 0..reader.varint("partitions")? {
            let (topic, topic_id) = reader.number("topic", |n| topics.get(usize::try_from(n).ok()?))?.clone();
            let partition = reader.number("partition", |n| PartitionIndex::new(i32::try_from(n).ok()?).ok())?;
            partitions.insert(TxnPartition { topic, topic_id, partition });
        }
    }
    let mut entry = Entry::new(id, producer, timeout_ms);
    entry.set_producer(producer, previous);
    entry.state = state_of(status, Timestamp::from_millis(started), partitions);
    entry.updated = Timestamp::from_millis(updated);
    entry.last_offset = last_offset;
    Ok(entry)
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn problem(&self, field: &'static str, problem: &'static str) -> SnapshotProblem {
        SnapshotProblem { field, position: self.position, problem }
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, SnapshotProblem> {
        let byte = *self.bytes.get(self.position).ok_or_else(|| self.problem(field, "the snapshot ends early"))?;
        self.position += 1;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], SnapshotProblem> {
        let rest = self.bytes.get(self.position..).and_then(<[u8]>::first_chunk::<N>);
        let bytes = *rest.ok_or_else(|| self.problem(field, "the snapshot ends early"))?;
        self.position += N;
        Ok(bytes)
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, SnapshotProblem> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.problem(field, "a number of more than 64 bits"))
    }

    fn signed(&mut self, field: &'static str) -> Result<i64, SnapshotProblem> {
        let value = self.varint(field)?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn number<T>(&mut self, field: &'static str, parse: impl FnOnce(u64) -> Option<T>) -> Result<T, SnapshotProblem> {
        let value = self.varint(field)?;
        parse(value).ok_or_else(|| self.problem(field, "out of range"))
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, SnapshotProblem> {
        let length = self.number(field, |n| usize::try_from(n).ok())?;
        let end = self.position.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.problem(field, "the snapshot ends early"))?;
        let text = str::from_utf8(&self.bytes[self.position..end]).map_err(|_| self.problem(field, "not UTF-8"))?;
        self.position = end;
        Ok(text)
    }

    fn producer(&mut self) -> Result<Producer, SnapshotProblem> {
        Ok(Producer {
            id: self.number("producer id", |n| ProducerId::new(i64::try_from(n).ok()?).ok())?,
            epoch: self.number("producer epoch", |n| ProducerEpoch::new(i16::try_from(n).ok()?).ok())?,
        })
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_len(out: &mut Vec<u8>, length: usize) {
    put(out, u64::try_from(length).expect("a length fits in 64 bits"));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}
