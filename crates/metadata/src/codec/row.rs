//! Rows: a layout version, then the fields in the order of the type.

use std::collections::BTreeMap;

use forebay_format::ObjectRange;
use forebay_types::{ProducerId, TopicName};

use super::fields::{Reader, Writer};
use super::{CodecError, Fault};
use crate::state::{
    Broker, Cluster, CommitNumber, EpochStart, Extent, Garbage, Holds, JournalPosition, Key, LogTail, Object,
    Partition, Pin, PinId, PinKind, Row, SnapshotRef, Snapshots, Topic, TopicState, Upload, WalEpoch, WalEpochState,
    WalKind,
};

/// The layout of every table's rows.
const VERSION: u8 = 1;

/// Bytes of one packed range of an upload.
const RANGE_SIZE: usize = 20 + 8 + 4 + 16 + 8 + 8;

pub(crate) fn encode_row(row: &Row) -> Vec<u8> {
    let mut w = Writer::default();
    w.u8(VERSION);
    match row {
        Row::Commit(number) => w.u64(number.get()),
        Row::Journal(journal) => {
            w.u64(journal.next);
            w.u64(journal.full);
            w.u64(journal.oldest);
        }
        Row::Cluster(cluster) => write_cluster(&mut w, cluster),
        Row::Broker(broker) => {
            w.u64(broker.epoch.get());
            w.u128(broker.incarnation);
        }
        Row::WalEpoch(epoch) => write_wal_epoch(&mut w, epoch),
        Row::BrokerConfig(config) => write_config(&mut w, config),
        Row::Topic(topic) => write_topic(&mut w, topic),
        Row::Partition(partition) => write_partition(&mut w, partition),
        Row::Snapshots(snapshots) => {
            write_snapshot(&mut w, snapshots.producer.as_ref());
            write_snapshot(&mut w, snapshots.coordinator.as_ref());
        }
        Row::LogTail(tail) => {
            w.offset(tail.indexed_end);
            w.u64(tail.bytes);
        }
        Row::Pin(pin) => write_pin(&mut w, pin),
        Row::Upload(upload) => write_upload(&mut w, upload),
        Row::Extent(extent) => write_extent(&mut w, extent),
        Row::Object(object) => {
            w.u64(object.size);
            w.u32(object.references);
        }
        Row::Garbage(garbage) => {
            w.u64(garbage.size);
            w.option(garbage.condemned_at, Writer::timestamp);
        }
    }
    w.0
}

/// The row that stands at `key`, from its bytes.
pub(crate) fn decode_row(key: &Key, bytes: &[u8]) -> Result<Row, CodecError> {
    let mut r = Reader::new(bytes);
    let row = read(key, &mut r).and_then(|row| r.end().map(|()| row));
    row.map_err(|fault| CodecError::Row { key: format!("{key:?}"), at: r.at(), fault })
}

fn read(key: &Key, r: &mut Reader<'_>) -> Result<Row, Fault> {
    let version = r.u8()?;
    if version != VERSION {
        return Err(Fault::Version { seen: version, known: VERSION });
    }
    Ok(match key {
        Key::Commit => Row::Commit(CommitNumber::new(r.u64()?)),
        Key::Journal => Row::Journal(JournalPosition { next: r.u64()?, full: r.u64()?, oldest: r.u64()? }),
        Key::Cluster => Row::Cluster(read_cluster(r)?),
        Key::Broker(_) => Row::Broker(Broker { epoch: r.broker_epoch()?, incarnation: r.u128()? }),
        Key::WalEpoch(_) => Row::WalEpoch(read_wal_epoch(r)?),
        Key::BrokerConfig(_) => Row::BrokerConfig(read_config(r)?),
        Key::Topic(_) => Row::Topic(read_topic(r)?),
        Key::Partition(_) => Row::Partition(read_partition(r)?),
        Key::Snapshots(_) => Row::Snapshots(Snapshots { producer: read_snapshot(r)?, coordinator: read_snapshot(r)? }),
        Key::LogTail(_) => Row::LogTail(LogTail { indexed_end: r.offset()?, bytes: r.u64()? }),
        Key::Pin(_) => Row::Pin(read_pin(r)?),
        Key::Upload(_) => Row::Upload(read_upload(r)?),
        Key::Extent(_) => Row::Extent(read_extent(r)?),
        Key::Object(_) => Row::Object(Object { size: r.u64()?, references: r.u32()? }),
        Key::Garbage(_) => Row::Garbage(Garbage { size: r.u64()?, condemned_at: r.option(Reader::timestamp)? }),
    })
}

fn write_cluster(w: &mut Writer, cluster: &Cluster) {
    w.text(cluster.id.as_str());
    w.u64(cluster.term);
    w.timestamp(cluster.answerable_since);
    w.u64(cluster.next_log.get());
    w.u64(cluster.next_pin.get());
    w.i64(cluster.next_producer_id.get());
}

fn read_cluster(r: &mut Reader<'_>) -> Result<Cluster, Fault> {
    Ok(Cluster {
        id: r.text()?.parse().map_err(|_| Fault::Value("cluster id"))?,
        term: r.u64()?,
        answerable_since: r.timestamp()?,
        next_log: r.log()?,
        next_pin: PinId::new(r.u64()?),
        next_producer_id: ProducerId::new(r.i64()?).map_err(|_| Fault::Value("producer id"))?,
    })
}

fn write_wal_epoch(w: &mut Writer, epoch: &WalEpoch) {
    match epoch.wal {
        WalKind::Disk { disk } => {
            w.u8(1);
            w.u128(disk);
        }
        WalKind::Object { in_flight_max } => {
            w.u8(2);
            w.u32(in_flight_max);
        }
        WalKind::Memory => w.u8(3),
    }
    match epoch.state {
        WalEpochState::Open => w.u8(1),
        WalEpochState::Sealed { by } => {
            w.u8(2);
            w.life(by);
        }
        WalEpochState::Closed { end } => {
            w.u8(3);
            w.u64(end.get());
        }
    }
    w.option(epoch.indexed_through, |w, through| w.u64(through.get()));
}

fn read_wal_epoch(r: &mut Reader<'_>) -> Result<WalEpoch, Fault> {
    let wal = match r.u8()? {
        1 => WalKind::Disk { disk: r.u128()? },
        2 => WalKind::Object { in_flight_max: r.u32()? },
        3 => WalKind::Memory,
        _ => return Err(Fault::Value("WAL kind")),
    };
    let state = match r.u8()? {
        1 => WalEpochState::Open,
        2 => WalEpochState::Sealed { by: r.life()? },
        3 => WalEpochState::Closed { end: r.sequence()? },
        _ => return Err(Fault::Value("WAL state")),
    };
    Ok(WalEpoch { wal, state, indexed_through: r.option(Reader::sequence)? })
}

fn write_config(w: &mut Writer, config: &BTreeMap<String, String>) {
    w.count(config.len());
    for (name, value) in config {
        w.text(name);
        w.text(value);
    }
}

fn read_config(r: &mut Reader<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let count = r.count(8)?;
    let mut config = BTreeMap::new();
    for _ in 0..count {
        config.insert(r.text()?, r.text()?);
    }
    if config.len() == count { Ok(config) } else { Err(Fault::Value("configuration")) }
}

fn write_topic(w: &mut Writer, topic: &Topic) {
    w.text(topic.name.as_str());
    write_config(w, &topic.config);
    w.i32(topic.partitions);
    w.timestamp(topic.created_at);
    match topic.state {
        TopicState::Live => w.u8(1),
        TopicState::Trash { deleted_at, purge_at, pin } => {
            w.u8(2);
            w.timestamp(deleted_at);
            w.timestamp(purge_at);
            w.u64(pin.get());
        }
        TopicState::Purging => w.u8(3),
    }
}

fn read_topic(r: &mut Reader<'_>) -> Result<Topic, Fault> {
    let name = TopicName::new(&r.text()?).map_err(|_| Fault::Value("topic name"))?;
    let config = read_config(r)?;
    let partitions = r.i32()?;
    let created_at = r.timestamp()?;
    let state = match r.u8()? {
        1 => TopicState::Live,
        2 => TopicState::Trash { deleted_at: r.timestamp()?, purge_at: r.timestamp()?, pin: PinId::new(r.u64()?) },
        3 => TopicState::Purging,
        _ => return Err(Fault::Value("topic state")),
    };
    Ok(Topic { name, config, partitions, created_at, state })
}

fn write_partition(w: &mut Writer, partition: &Partition) {
    w.u64(partition.log.get());
    w.option(partition.owner, Writer::life);
    w.count(partition.epochs.len());
    for epoch in &partition.epochs {
        w.i32(epoch.epoch.get());
        w.offset(epoch.start);
    }
    w.offset(partition.log_start);
}

fn read_partition(r: &mut Reader<'_>) -> Result<Partition, Fault> {
    let log = r.log()?;
    let owner = r.option(Reader::life)?;
    let count = r.count(12)?;
    let mut epochs = Vec::with_capacity(count);
    for _ in 0..count {
        epochs.push(EpochStart { epoch: r.leader_epoch()?, start: r.offset()? });
    }
    Ok(Partition { log, owner, epochs, log_start: r.offset()? })
}

fn write_snapshot(w: &mut Writer, snapshot: Option<&SnapshotRef>) {
    w.option(snapshot, |w, snapshot| {
        w.text(&snapshot.object);
        w.offset(snapshot.at);
    });
}

fn read_snapshot(r: &mut Reader<'_>) -> Result<Option<SnapshotRef>, Fault> {
    r.option(|r| Ok(SnapshotRef { object: r.text()?, at: r.offset()? }))
}

fn write_pin(w: &mut Writer, pin: &Pin) {
    w.u8(match pin.kind {
        PinKind::Trash => 1,
        PinKind::Checkpoint => 2,
        PinKind::Fork => 3,
        PinKind::Snapshot => 4,
        PinKind::Reader => 5,
    });
    w.u8(match pin.holds {
        Holds::History => 1,
        Holds::Bytes => 2,
    });
    w.text(&pin.owner);
    w.text(&pin.reason);
    w.count(pin.scope.len());
    for (partition, from) in &pin.scope {
        w.partition(*partition);
        w.offset(*from);
    }
    w.timestamp(pin.expires_at);
    w.i64(pin.renewal_ms);
}

fn read_pin(r: &mut Reader<'_>) -> Result<Pin, Fault> {
    let kind = match r.u8()? {
        1 => PinKind::Trash,
        2 => PinKind::Checkpoint,
        3 => PinKind::Fork,
        4 => PinKind::Snapshot,
        5 => PinKind::Reader,
        _ => return Err(Fault::Value("pin kind")),
    };
    let holds = match r.u8()? {
        1 => Holds::History,
        2 => Holds::Bytes,
        _ => return Err(Fault::Value("what the pin holds")),
    };
    let (owner, reason) = (r.text()?, r.text()?);
    let mut scope = BTreeMap::new();
    for _ in 0..r.count(28)? {
        scope.insert(r.partition()?, r.offset()?);
    }
    Ok(Pin { kind, holds, owner, reason, scope, expires_at: r.timestamp()?, renewal_ms: r.i64()? })
}

fn write_upload(w: &mut Writer, upload: &Upload) {
    w.life(upload.life);
    w.option(upload.through, |w, through| w.u64(through.get()));
    w.text(&upload.object);
    w.u64(upload.size);
    w.u64(upload.footer_position);
    w.u32(upload.folded);
    w.count(upload.ranges.len());
    w.0.reserve(upload.ranges.len() * RANGE_SIZE);
    for range in &upload.ranges {
        w.partition(range.partition);
        w.u64(range.log.get());
        w.i32(range.leader_epoch.get());
        w.offset(range.range.start());
        w.offset(range.range.end());
        w.u64(range.bytes);
        w.timestamp(range.max_timestamp);
    }
}

fn read_upload(r: &mut Reader<'_>) -> Result<Upload, Fault> {
    let (life, through, object) = (r.life()?, r.option(Reader::sequence)?, r.text()?);
    let (size, footer_position, folded) = (r.u64()?, r.u64()?, r.u32()?);
    let count = r.count(RANGE_SIZE)?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        ranges.push(ObjectRange {
            partition: r.partition()?,
            log: r.log()?,
            leader_epoch: r.leader_epoch()?,
            range: r.range()?,
            bytes: r.u64()?,
            max_timestamp: r.timestamp()?,
        });
    }
    if usize::try_from(folded).is_ok_and(|folded| folded > count) {
        return Err(Fault::Value("folded count"));
    }
    Ok(Upload { life, through, object, size, footer_position, ranges, folded })
}

fn write_extent(w: &mut Writer, extent: &Extent) {
    w.offset(extent.range.start());
    w.offset(extent.range.end());
    w.text(&extent.object);
    w.u64(extent.size);
    w.u64(extent.footer_position);
    w.u64(extent.bytes);
    w.timestamp(extent.max_timestamp);
}

fn read_extent(r: &mut Reader<'_>) -> Result<Extent, Fault> {
    Ok(Extent {
        range: r.range()?,
        object: r.text()?,
        size: r.u64()?,
        footer_position: r.u64()?,
        bytes: r.u64()?,
        max_timestamp: r.timestamp()?,
    })
}
