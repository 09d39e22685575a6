//! The producer snapshot: the whole producer state of many partitions in one object, each partition in a block of its
//! own that can be read by range (D8). Footers of data objects carry only the changes since.
//!
//! Invariants:
//! 1. Partitions ascend by (partition, log), each once; a partition's producers ascend by id.
//! 2. A block repeats whose it is, so that a range read with a wrong reference is refused.

use std::sync::Arc;

use bytes::Bytes;
use forebay_types::{BrokerEpoch, BrokerId, ClusterId, LogId, Offset, ProducerId, Timestamp, TopicPartition};

use crate::batch::AbortedTxn;
use crate::block::{BLOCK_HEADER_SIZE, BlockKind, encode_header, parse_block};
use crate::crc::crc32c;
use crate::cursor::{Reader, Writer, bad};
use crate::error::{Fault, FormatError};
use crate::producer::{ProducerChange, ProducerState};
use crate::trailer::{Trailer, TrailerKind, TrailerParse, read_cluster, write_cluster};

const FOOTER_LAYOUT: &str = "producer snapshot footer";
/// Bytes of a partition in the footer.
const REF_SIZE: usize = 56;

/// Who wrote a snapshot object, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    pub cluster: ClusterId,
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    /// The number in the object's name.
    pub number: u64,
    pub written_at: Timestamp,
}

/// Where one partition's state is in a snapshot object. With the object's name it is enough to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRef {
    pub partition: TopicPartition,
    pub log: LogId,
    /// The first offset that the state does not contain.
    pub at: Offset,
    /// From the start of the object.
    pub position: u64,
    /// Bytes of the block, header included.
    pub length: u32,
    /// CRC32C of the block's payload.
    pub crc: u32,
}

/// What a snapshot tells of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProducers {
    /// By ascending id. Shared with whoever has them in use: a snapshot of a million copies none.
    pub producers: Vec<(ProducerId, Arc<ProducerState>)>,
    /// The aborted transactions that a reader may still have to know, in the order of their markers.
    pub aborted: Vec<AbortedTxn>,
}

/// A snapshot ready to be created.
#[derive(Clone, Debug)]
pub struct EncodedSnapshot {
    pub chunks: Vec<Bytes>,
    pub size: u64,
    pub refs: Vec<SnapshotRef>,
}

/// Makes one snapshot object.
#[derive(Debug)]
pub struct ProducerSnapshotWriter {
    head: SnapshotHead,
    chunks: Vec<Bytes>,
    position: u64,
    refs: Vec<SnapshotRef>,
}

impl ProducerSnapshotWriter {
    pub fn new(head: SnapshotHead) -> Self {
        Self { head, chunks: Vec::new(), position: 0, refs: Vec::new() }
    }

    /// Adds a partition with its state before offset `at`.
    ///
    /// # Panics
    /// Where partitions or producers do not ascend.
    pub fn push(&mut self, partition: TopicPartition, log: LogId, at: Offset, state: &PartitionProducers) {
        let ascends = self.refs.last().is_none_or(|last| (last.partition, last.log) < (partition, log));
        assert!(ascends, "partitions of a snapshot ascend, {partition} does not");
        let mut w = Writer::default();
        w.partition(partition);
        w.count(state.producers.len());
        w.u64(log.get());
        w.offset(at);
        w.count(state.aborted.len());
        w.u32(0); // reserved
        let mut last = None;
        for (producer, state) in &state.producers {
            assert!(last < Some(*producer), "producers of a partition ascend, {producer} does not");
            last = Some(*producer);
            state.as_change(*producer).write(&mut w);
        }
        for aborted in &state.aborted {
            aborted.write(&mut w);
        }
        let payload = Bytes::from(w.finish());
        let length = u32::try_from(payload.len() + BLOCK_HEADER_SIZE)
            .expect("a partition's producers below 4 GiB: expiry bounds them long before");
        let crc = crc32c(&payload);
        let payload_length = u32::try_from(payload.len()).expect("below the length");
        self.chunks.push(encode_header(BlockKind::Producers, payload_length, at.get(), crc));
        self.chunks.push(payload);
        self.refs.push(SnapshotRef { partition, log, at, position: self.position, length, crc });
        self.position += u64::from(length);
    }

    pub fn finish(mut self) -> EncodedSnapshot {
        let mut w = Writer::default();
        write_cluster(&mut w, &self.head.cluster);
        w.i32(self.head.broker.get());
        w.count(self.refs.len());
        w.u64(self.head.broker_epoch.get());
        w.u64(self.head.number);
        w.timestamp(self.head.written_at);
        for r in &self.refs {
            w.partition(r.partition);
            w.u32(r.length);
            w.u64(r.log.get());
            w.offset(r.at);
            w.u64(r.position);
            w.u32(r.crc);
            w.u32(0); // reserved
        }
        let footer_crc = crc32c(w.written());
        let trailer = Trailer { index_position: self.position, footer_position: self.position, footer_crc };
        let length = w.len();
        trailer.write(TrailerKind::Producers, &mut w, length);
        let size = self.position + w.len() as u64;
        self.chunks.push(w.finish().into());
        EncodedSnapshot { chunks: self.chunks, size, refs: self.refs }
    }
}

/// The partitions of a snapshot object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSnapshotIndex {
    pub head: SnapshotHead,
    /// Ascending by (partition, log).
    pub refs: Vec<SnapshotRef>,
}

/// What the end of a snapshot object gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotIndexParse {
    /// The object must be read from this position to its end, and parsed again.
    NeedMore {
        from: u64,
    },
    Whole(ProducerSnapshotIndex),
}

impl ProducerSnapshotIndex {
    /// Reads an object of `size` bytes from its end: `tail` are its last bytes.
    pub fn parse(tail: &Bytes, size: u64) -> Result<SnapshotIndexParse, FormatError> {
        let (trailer, footer) = match Trailer::parse(TrailerKind::Producers, tail, size)? {
            TrailerParse::NeedMore { from } => return Ok(SnapshotIndexParse::NeedMore { from }),
            TrailerParse::Whole { trailer, index: [], footer } => (trailer, footer),
            TrailerParse::Whole { trailer, index, .. } => {
                let fault = bad("index length", index.len());
                return Err(FormatError::new(FOOTER_LAYOUT, trailer.footer_position, fault));
            }
        };
        let index = Self::parse_footer(footer, trailer.footer_position)
            .map_err(|fault| FormatError::new(FOOTER_LAYOUT, trailer.footer_position, fault))?;
        Ok(SnapshotIndexParse::Whole(index))
    }

    pub fn find(&self, partition: TopicPartition, log: LogId) -> Option<&SnapshotRef> {
        let at = self.refs.binary_search_by_key(&(partition, log), |r| (r.partition, r.log)).ok()?;
        self.refs.get(at)
    }

    fn parse_footer(footer: &[u8], blocks_end: u64) -> Result<Self, Fault> {
        let mut r = Reader::new(footer, "footer");
        let (cluster, broker) = (read_cluster(&mut r)?, r.broker()?);
        let count = r.size()?;
        let (broker_epoch, number, written_at) = (r.broker_epoch()?, r.u64()?, r.timestamp()?);
        if count.checked_mul(REF_SIZE) != Some(r.left()) {
            return Err(bad("number of partitions", format_args!("{count} in {} bytes", r.left())));
        }
        let mut refs: Vec<SnapshotRef> = Vec::with_capacity(count);
        let mut next = 0;
        for _ in 0..count {
            let (partition, length, log) = (r.partition()?, r.u32()?, r.log()?);
            let (at, position, crc) = (r.offset("snapshot offset")?, r.u64()?, r.u32()?);
            r.reserved(4)?;
            if refs.last().is_some_and(|last| (last.partition, last.log) >= (partition, log)) {
                return Err(bad("partition order", format_args!("{partition} here")));
            }
            if position != next || (length as usize) < BLOCK_HEADER_SIZE {
                return Err(bad("block", format_args!("{length} bytes at {position}, the last one ends at {next}")));
            }
            next = position.checked_add(length.into()).ok_or_else(|| bad("block position", position))?;
            refs.push(SnapshotRef { partition, log, at, position, length, crc });
        }
        if next != blocks_end {
            return Err(bad("end of the blocks", format_args!("{next}, the footer begins at {blocks_end}")));
        }
        Ok(Self { head: SnapshotHead { cluster, broker, broker_epoch, number, written_at }, refs })
    }
}

impl SnapshotRef {
    /// The block that this points to: `bytes` are its `length` bytes from `position`.
    pub fn parse(&self, bytes: &Bytes) -> Result<PartitionProducers, FormatError> {
        let payload = parse_block(BlockKind::Producers, bytes, self.position, self.at.get(), self.crc)
            .map_err(|e| e.of_partition(self.partition))?;
        self.parse_payload(&payload).map_err(|fault| {
            FormatError::new(BlockKind::Producers.layout(), self.position, fault).of_partition(self.partition)
        })
    }

    fn parse_payload(&self, payload: &[u8]) -> Result<PartitionProducers, Fault> {
        let mut r = Reader::new(payload, "payload");
        let (partition, count, log, at) = (r.partition()?, r.size()?, r.log()?, r.offset("snapshot offset")?);
        if (partition, log, at) != (self.partition, self.log, self.at) {
            return Err(bad("identity", format_args!("partition {partition}, log {log}, offset {at}")));
        }
        let aborted_count = r.count(AbortedTxn::SIZE)?;
        r.reserved(4)?;
        if count as u64 * ProducerChange::SIZE_MIN as u64 > r.left() as u64 {
            return Err(bad("number of producers", format_args!("{count} in {} bytes", r.left())));
        }
        let mut producers: Vec<(ProducerId, Arc<ProducerState>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let change = ProducerChange::read(&mut r)?;
            let id = change.producer;
            let Some((id, state)) = ProducerState::from_change(change) else {
                return Err(bad("producer", format_args!("{id}: a change and no state")));
            };
            if producers.last().is_some_and(|(last, _)| *last >= id) {
                return Err(bad("producer order", id));
            }
            producers.push((id, Arc::new(state)));
        }
        let mut aborted = Vec::with_capacity(aborted_count);
        for _ in 0..aborted_count {
            aborted.push(AbortedTxn::read(&mut r)?);
        }
        r.end()?;
        Ok(PartitionProducers { producers, aborted })
    }
}
