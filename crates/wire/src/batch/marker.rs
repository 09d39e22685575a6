//! Transaction markers: control batches of one record that says how a producer's transaction ended.
//!
//! Source: `EndTransactionMarker`, `ControlRecordType`, `EndTxnMarker.json`.

use bytes::{Bytes, BytesMut};

use super::{BatchBuilder, BatchError, BatchHeader, records};
use crate::DecodeError;
use crate::reader::Reader;

/// How the transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkerKind {
    Abort,
    Commit,
}

/// A marker's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub kind: MarkerKind,
    /// The epoch of the coordinator that ended it; a lower one than seen before is a zombie's.
    pub coordinator_epoch: i32,
}

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// A marker as a batch of its own, base offset and leader epoch not stamped yet.
pub fn build_marker(producer_id: i64, producer_epoch: i16, marker: Marker, timestamp: i64) -> BytesMut {
    let kind = match marker.kind {
        MarkerKind::Abort => ABORT,
        MarkerKind::Commit => COMMIT,
    };
    let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
    let value = [&VERSION.to_be_bytes()[..], &marker.coordinator_epoch.to_be_bytes()].concat();
    let mut batch = BatchBuilder::new(timestamp).producer(producer_id, producer_epoch, -1).transactional().control();
    batch.push(timestamp, Some(&key), Some(&value), &[]);
    batch.build()
}

/// The marker in the batch that `batch` begins with. Fields that a later version adds are skipped.
///
/// # Errors
/// `batch` is no control batch, or its record is not that of a transaction's end.
pub fn parse_marker(batch: &[u8]) -> Result<Marker, BatchError> {
    // Far above any marker, which takes 78 bytes, yet little to copy.
    const SIZE_MAX: usize = 1024;
    let header = BatchHeader::parse(batch)?;
    if !header.is_control() {
        return Err(BatchError::Marker("it is not a control batch"));
    }
    if header.size() > SIZE_MAX {
        return Err(BatchError::Marker("it is too large"));
    }
    let mut records = records(&Bytes::copy_from_slice(&batch[..header.size()]), SIZE_MAX)?;
    let record = records.next().transpose()?.ok_or(BatchError::Marker("it has no record"))?;
    if records.next().transpose()?.is_some() {
        return Err(BatchError::Marker("it has more than one record"));
    }
    let (Some(key), Some(value)) = (record.key, record.value) else {
        return Err(BatchError::Marker("its record has no key or no value"));
    };
    let (kind, coordinator_epoch) =
        parse_record(&key, &value).map_err(|source| BatchError::Record { index: 0, source })?;
    match kind {
        ABORT => Ok(Marker { kind: MarkerKind::Abort, coordinator_epoch }),
        COMMIT => Ok(Marker { kind: MarkerKind::Commit, coordinator_epoch }),
        _ => Err(BatchError::Marker("its record is of another control type")),
    }
}

fn parse_record(key: &[u8], value: &[u8]) -> Result<(i16, i32), DecodeError> {
    let mut key = Reader::new(key, false);
    let _version = key.i16("marker key version")?;
    let mut value = Reader::new(value, false);
    let _version = value.i16("marker value version")?;
    Ok((key.i16("control type")?, value.i32("coordinator epoch")?))
}
