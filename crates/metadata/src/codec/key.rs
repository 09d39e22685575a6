//! Keys: a byte for the table, then what tells its rows apart, so that they sort as they are read.

use std::ops::Range;

use forebay_types::{BrokerEpoch, BrokerId, LogId, Offset, PartitionIndex, TopicId, TopicPartition};

use super::fields::Reader;
use super::{CodecError, Fault};
use crate::state::{BrokerLife, CommitNumber, ConfigScope, ExtentKey, Key, PinId};

/// The first byte of cold tables; resident ones are below.
pub const COLD_TABLES_BEGIN: u8 = 0x80;

/// The tables. A number is never given to another table. `LOG_TAIL` comes before `UPLOAD`: loading in key order then
/// finds a log's committed end.
mod table {
    pub const COMMIT: u8 = 0x01;
    pub const JOURNAL: u8 = 0x02;
    pub const CLUSTER: u8 = 0x10;
    pub const BROKER: u8 = 0x11;
    pub const WAL_EPOCH: u8 = 0x12;
    pub const BROKER_CONFIG: u8 = 0x13;
    pub const TOPIC: u8 = 0x14;
    pub const PARTITION: u8 = 0x15;
    pub const SNAPSHOTS: u8 = 0x16;
    pub const LOG_TAIL: u8 = 0x17;
    pub const PIN: u8 = 0x18;
    pub const UPLOAD: u8 = 0x19;
    pub const EXTENT: u8 = 0x80;
    pub const OBJECT: u8 = 0x81;
    pub const GARBAGE: u8 = 0x82;
}

const fn table_of(key: &Key) -> u8 {
    match key {
        Key::Commit => table::COMMIT,
        Key::Journal => table::JOURNAL,
        Key::Cluster => table::CLUSTER,
        Key::Broker(_) => table::BROKER,
        Key::WalEpoch(_) => table::WAL_EPOCH,
        Key::BrokerConfig(_) => table::BROKER_CONFIG,
        Key::Topic(_) => table::TOPIC,
        Key::Partition(_) => table::PARTITION,
        Key::Snapshots(_) => table::SNAPSHOTS,
        Key::LogTail(_) => table::LOG_TAIL,
        Key::Pin(_) => table::PIN,
        Key::Upload(_) => table::UPLOAD,
        Key::Extent(_) => table::EXTENT,
        Key::Object(_) => table::OBJECT,
        Key::Garbage(_) => table::GARBAGE,
    }
}

/// The table of a row in the journal's numbering, which is the database's.
pub(crate) const fn journal_kind(key: &Key) -> u16 {
    table_of(key) as u16
}

/// A non-negative number's big-endian bytes.
fn be(out: &mut Vec<u8>, number: i32) {
    out.extend_from_slice(&u32::try_from(number).expect("ids are not negative").to_be_bytes());
}

pub(crate) fn encode_key(key: &Key) -> Vec<u8> {
    let mut out = vec![table_of(key)];
    match key {
        Key::Commit | Key::Journal | Key::Cluster | Key::BrokerConfig(ConfigScope::Cluster) => {}
        Key::Broker(id) | Key::BrokerConfig(ConfigScope::Broker(id)) => be(&mut out, id.get()),
        Key::WalEpoch(life) => {
            be(&mut out, life.broker.get());
            out.extend_from_slice(&life.epoch.get().to_be_bytes());
        }
        Key::Topic(id) => out.extend_from_slice(id.get().as_bytes()),
        Key::Partition(id) | Key::Snapshots(id) => {
            out.extend_from_slice(id.topic.get().as_bytes());
            be(&mut out, id.partition.get());
        }
        Key::LogTail(log) => out.extend_from_slice(&log.get().to_be_bytes()),
        Key::Pin(id) => out.extend_from_slice(&id.get().to_be_bytes()),
        Key::Upload(number) => out.extend_from_slice(&number.get().to_be_bytes()),
        Key::Extent(ExtentKey { log, end }) => {
            out.extend_from_slice(&log.get().to_be_bytes());
            out.extend_from_slice(&u64::try_from(end.get()).expect("offsets are not negative").to_be_bytes());
        }
        Key::Object(name) | Key::Garbage(name) => out.extend_from_slice(name.as_bytes()),
    }
    out
}

pub(crate) fn decode_key(bytes: &[u8]) -> Result<Key, CodecError> {
    let (table, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let wrong = |fault| CodecError::Key { table: *table, size: bytes.len(), fault };
    let mut reader = Reader::new(rest);
    let key = parts(*table, &mut reader, rest.is_empty()).map_err(wrong)?;
    reader.end().map_err(wrong)?;
    Ok(key)
}

fn parts(table: u8, r: &mut Reader<'_>, empty: bool) -> Result<Key, Fault> {
    Ok(match table {
        table::COMMIT => Key::Commit,
        table::JOURNAL => Key::Journal,
        table::CLUSTER => Key::Cluster,
        table::BROKER => Key::Broker(broker(r)?),
        table::WAL_EPOCH => Key::WalEpoch(BrokerLife {
            broker: broker(r)?,
            epoch: BrokerEpoch::new(r.be_u64()?).map_err(|_| Fault::Value("broker epoch"))?,
        }),
        table::BROKER_CONFIG if empty => Key::BrokerConfig(ConfigScope::Cluster),
        table::BROKER_CONFIG => Key::BrokerConfig(ConfigScope::Broker(broker(r)?)),
        table::TOPIC => Key::Topic(r.topic()?),
        table::PARTITION => Key::Partition(partition(r)?),
        table::SNAPSHOTS => Key::Snapshots(partition(r)?),
        table::LOG_TAIL => Key::LogTail(log(r)?),
        table::PIN => Key::Pin(PinId::new(r.be_u64()?)),
        table::UPLOAD => Key::Upload(CommitNumber::new(r.be_u64()?)),
        table::EXTENT => {
            let log = log(r)?;
            let end = i64::try_from(r.be_u64()?).map_err(|_| Fault::Value("offset"))?;
            Key::Extent(ExtentKey { log, end: Offset::new(end).map_err(|_| Fault::Value("offset"))? })
        }
        table::OBJECT => Key::Object(r.rest()?),
        table::GARBAGE => Key::Garbage(r.rest()?),
        _ => return Err(Fault::Table),
    })
}

fn number(r: &mut Reader<'_>) -> Result<i32, Fault> {
    i32::try_from(r.be_u32()?).map_err(|_| Fault::Value("id"))
}

fn broker(r: &mut Reader<'_>) -> Result<BrokerId, Fault> {
    BrokerId::new(number(r)?).map_err(|_| Fault::Value("broker id"))
}

fn partition(r: &mut Reader<'_>) -> Result<TopicPartition, Fault> {
    let topic: TopicId = r.topic()?;
    let partition = PartitionIndex::new(number(r)?).map_err(|_| Fault::Value("partition"))?;
    Ok(TopicPartition { topic, partition })
}

fn log(r: &mut Reader<'_>) -> Result<LogId, Fault> {
    LogId::new(r.be_u64()?).map_err(|_| Fault::Value("log id"))
}

/// The keys of every resident row.
pub(crate) fn resident_tables() -> Range<Vec<u8>> {
    vec![0]..vec![COLD_TABLES_BEGIN]
}

/// The keys of a log's extents that end above `from`.
pub(crate) fn extents_from(log: LogId, from: Offset) -> Range<Vec<u8>> {
    let mut start = encode_key(&Key::Extent(ExtentKey { log, end: from }));
    // The first key after: an extent that ends at `from` does not hold it.
    start.push(0);
    let end = match log.next() {
        Some(next) => encode_key(&Key::Extent(ExtentKey { log: next, end: Offset::ZERO })),
        None => vec![table::EXTENT + 1],
    };
    start..end
}

/// The keys of garbage rows after one name, or all.
pub(crate) fn garbage_after(name: Option<&str>) -> Range<Vec<u8>> {
    let mut start = vec![table::GARBAGE];
    if let Some(name) = name {
        start.extend_from_slice(name.as_bytes());
        start.push(0);
    }
    start..vec![table::GARBAGE + 1]
}
