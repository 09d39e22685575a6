//! Fixed-width little-endian fields, lengths before texts and lists.

use forebay_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, LogId, Offset, OffsetRange, PartitionIndex, Timestamp, TopicId, TopicPartition,
    WalSequence,
};
use uuid::Uuid;

use super::Fault;
use crate::state::BrokerLife;

#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("a row holds fewer than 2^32 of anything"));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn offset(&mut self, offset: Offset) {
        self.i64(offset.get());
    }

    pub(super) fn timestamp(&mut self, timestamp: Timestamp) {
        self.i64(timestamp.as_millis());
    }

    pub(super) fn life(&mut self, life: BrokerLife) {
        self.i32(life.broker.get());
        self.u64(life.epoch.get());
    }

    pub(super) fn partition(&mut self, id: TopicPartition) {
        self.0.extend_from_slice(id.topic.get().as_bytes());
        self.i32(id.partition.get());
    }

    /// A flag, and the value where it is there.
    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Read<T> = Result<T, Fault>;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn end(&self) -> Read<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(Fault::Trailing) }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Read<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or(Fault::Short)?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        Ok(self.bytes(N)?.try_into().expect("as many bytes as asked for"))
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Read<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Read<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Read<u128> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A number of things of at least `size_min` bytes each: more than can be there is refused before anything is allocated.
    pub(super) fn count(&mut self, size_min: usize) -> Read<usize> {
        let count = usize::try_from(self.u32()?).map_err(|_| Fault::Value("count"))?;
        let needed = count.checked_mul(size_min).ok_or(Fault::Short)?;
        if needed > self.bytes.len() - self.at { Err(Fault::Short) } else { Ok(count) }
    }

    pub(super) fn text(&mut self) -> Read<String> {
        let length = self.count(1)?;
        self.utf8(length)
    }

    /// What is left, as text.
    pub(super) fn rest(&mut self) -> Read<String> {
        self.utf8(self.bytes.len() - self.at)
    }

    fn utf8(&mut self, length: usize) -> Read<String> {
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Fault::Value("text"))?;
        Ok(text.to_owned())
    }

    pub(super) fn offset(&mut self) -> Read<Offset> {
        Offset::new(self.i64()?).map_err(|_| Fault::Value("offset"))
    }

    pub(super) fn range(&mut self) -> Read<OffsetRange> {
        let (start, end) = (self.offset()?, self.offset()?);
        OffsetRange::new(start, end).map_err(|_| Fault::Value("offset range"))
    }

    pub(super) fn timestamp(&mut self) -> Read<Timestamp> {
        Ok(Timestamp::from_millis(self.i64()?))
    }

    pub(super) fn sequence(&mut self) -> Read<WalSequence> {
        Ok(WalSequence::new(self.u64()?))
    }

    pub(super) fn log(&mut self) -> Read<LogId> {
        LogId::new(self.u64()?).map_err(|_| Fault::Value("log id"))
    }

    pub(super) fn leader_epoch(&mut self) -> Read<LeaderEpoch> {
        LeaderEpoch::new(self.i32()?).map_err(|_| Fault::Value("leader epoch"))
    }

    pub(super) fn broker_epoch(&mut self) -> Read<BrokerEpoch> {
        BrokerEpoch::new(self.u64()?).map_err(|_| Fault::Value("broker epoch"))
    }

    pub(super) fn life(&mut self) -> Read<BrokerLife> {
        let broker = BrokerId::new(self.i32()?).map_err(|_| Fault::Value("broker id"))?;
        Ok(BrokerLife { broker, epoch: self.broker_epoch()? })
    }

    pub(super) fn topic(&mut self) -> Read<TopicId> {
        TopicId::new(Uuid::from_bytes(self.array()?)).map_err(|_| Fault::Value("topic id"))
    }

    pub(super) fn partition(&mut self) -> Read<TopicPartition> {
        let topic = self.topic()?;
        let partition = PartitionIndex::new(self.i32()?).map_err(|_| Fault::Value("partition"))?;
        Ok(TopicPartition { topic, partition })
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Fault::Value("flag")),
        }
    }

    /// Big-endian numbers of keys.
    pub(super) fn be_u32(&mut self) -> Read<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn be_u64(&mut self) -> Read<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}
