//! Fixed-width little-endian fields: written to a growing buffer, read with bounds and ranges checked.

use forebay_types::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, LogId, Offset, OffsetRange, PartitionIndex, ProducerEpoch,
    ProducerId, Timestamp, TopicId, TopicPartition, WalSequence,
};
use uuid::Uuid;

use crate::error::Fault;

/// Bytes of a cluster id as text.
pub const CLUSTER_ID_SIZE: usize = 22;

#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn written(&self) -> &[u8] {
        &self.0
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    pub fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn i16(&mut self, value: i16) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    /// A count or length that the caller has bounded.
    pub fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("a count below 2^32: larger ones are refused where they arise"));
    }

    pub fn offset(&mut self, value: Offset) {
        self.i64(value.get());
    }

    pub fn timestamp(&mut self, value: Timestamp) {
        self.i64(value.as_millis());
    }

    pub fn partition(&mut self, value: TopicPartition) {
        self.bytes(value.topic.get().as_bytes());
        self.i32(value.partition.get());
    }

    pub fn cluster(&mut self, value: &ClusterId) {
        debug_assert_eq!(value.as_str().len(), CLUSTER_ID_SIZE);
        self.bytes(value.as_str().as_bytes());
    }

    /// A text of at most 65,535 bytes, its length first.
    pub fn text(&mut self, value: &str) {
        self.u16(u16::try_from(value.len()).expect("a text below 64 KiB: names are shorter"));
        self.bytes(value.as_bytes());
    }
}

/// Reads fields in order; every method fails with [`Fault::Short`] where the bytes end, named by `part`.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    part: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self { bytes, at: 0, part }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        if count > self.left() {
            return Err(Fault::Short { part: self.part, needed: count as u64, have: self.left() as u64 });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.bytes(N)?.try_into().expect("as many bytes as asked for"))
    }

    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|b| b[0])
    }

    pub fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Fault> {
        self.array().map(i16::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_le_bytes)
    }

    /// A length in bytes, as an index.
    pub fn size(&mut self) -> Result<usize, Fault> {
        self.u32().map(|n| usize::try_from(n).expect("32 bits fit an index"))
    }

    /// A count of items that take at least `item_size` bytes each: refused where so many cannot follow.
    pub fn count(&mut self, item_size: usize) -> Result<usize, Fault> {
        let count = self.size()?;
        let needed = count as u64 * item_size as u64;
        if needed > self.left() as u64 {
            return Err(Fault::Short { part: self.part, needed, have: self.left() as u64 });
        }
        Ok(count)
    }

    /// Bytes reserved for a later version: anything but zero is something this version does not know.
    pub fn reserved(&mut self, count: usize) -> Result<(), Fault> {
        match self.bytes(count)?.iter().find(|b| **b != 0) {
            None => Ok(()),
            Some(b) => Err(Fault::Unknown { feature: "reserved bits", value: u32::from(*b) }),
        }
    }

    pub fn flag(&mut self, field: &'static str) -> Result<bool, Fault> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(bad(field, other)),
        }
    }

    pub fn offset(&mut self, field: &'static str) -> Result<Offset, Fault> {
        Offset::new(self.i64()?).map_err(|e| bad(field, e))
    }

    /// An inclusive first and last offset; a log never reaches `i64::MAX`, so `last.next()` exists.
    pub fn first_last(&mut self, field: &'static str) -> Result<(Offset, Offset), Fault> {
        let (first, last) = (self.offset(field)?, self.offset(field)?);
        if first > last || last.get() == i64::MAX {
            return Err(bad(field, format_args!("{first} to {last}")));
        }
        Ok((first, last))
    }

    pub fn range(&mut self, field: &'static str) -> Result<OffsetRange, Fault> {
        let (start, end) = (self.offset(field)?, self.offset(field)?);
        OffsetRange::new(start, end).map_err(|e| bad(field, e))
    }

    pub fn timestamp(&mut self) -> Result<Timestamp, Fault> {
        self.i64().map(Timestamp::from_millis)
    }

    pub fn partition(&mut self) -> Result<TopicPartition, Fault> {
        let topic = TopicId::new(Uuid::from_bytes(self.array()?)).map_err(|e| bad("topic id", e))?;
        let partition = PartitionIndex::new(self.i32()?).map_err(|e| bad("partition", e))?;
        Ok(TopicPartition { topic, partition })
    }

    pub fn cluster(&mut self) -> Result<ClusterId, Fault> {
        let text = self.bytes(CLUSTER_ID_SIZE)?;
        std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| bad("cluster id", format_args!("{text:02x?}")))
    }

    pub fn text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        let length = usize::from(self.u16()?);
        let text = self.bytes(length)?;
        std::str::from_utf8(text).map_err(|e| bad(field, e))
    }

    pub fn broker(&mut self) -> Result<BrokerId, Fault> {
        BrokerId::new(self.i32()?).map_err(|e| bad("broker id", e))
    }

    pub fn broker_epoch(&mut self) -> Result<BrokerEpoch, Fault> {
        BrokerEpoch::new(self.u64()?).map_err(|e| bad("broker epoch", e))
    }

    pub fn leader_epoch(&mut self) -> Result<LeaderEpoch, Fault> {
        LeaderEpoch::new(self.i32()?).map_err(|e| bad("leader epoch", e))
    }

    pub fn log(&mut self) -> Result<LogId, Fault> {
        LogId::new(self.u64()?).map_err(|e| bad("log id", e))
    }

    pub fn sequence(&mut self) -> Result<WalSequence, Fault> {
        self.u64().map(WalSequence::new)
    }

    pub fn producer(&mut self) -> Result<ProducerId, Fault> {
        ProducerId::new(self.i64()?).map_err(|e| bad("producer id", e))
    }

    pub fn producer_epoch(&mut self) -> Result<ProducerEpoch, Fault> {
        ProducerEpoch::new(self.i16()?).map_err(|e| bad("producer epoch", e))
    }

    pub fn end(&self) -> Result<(), Fault> {
        if self.left() == 0 { Ok(()) } else { Err(Fault::Trailing { extra: self.left() as u64 }) }
    }
}

pub fn bad(field: &'static str, value: impl std::fmt::Display) -> Fault {
    Fault::Field { field, value: value.to_string() }
}
