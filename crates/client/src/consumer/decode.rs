//! From the bytes of a fetch to records: what is before the position, control batches and aborted records left out.

use std::collections::BTreeSet;

use bytes::Bytes;
use forebay_types::{Offset, ProducerId, Timestamp};
use forebay_wire::batch::{check_crc, parse_marker, records};
use forebay_wire::{BatchError, Batches, MarkerKind};

use super::FetchedRecord;

/// The most that one batch may decompress to: a hostile batch cannot take all memory. Sixteen times the largest batch
/// that a broker takes by default.
const BATCH_SIZE_MAX: usize = 128 << 20;

pub(super) struct Decoded {
    pub(super) records: Vec<FetchedRecord>,
    pub(super) next_offset: Offset,
}

/// Reads the batches of one partition's answer.
///
/// `aborted` are the aborted transactions that reach into it, as (producer id, first offset); empty to see everything.
pub(super) fn decode(bytes: &Bytes, position: Offset, mut aborted: Vec<(i64, i64)>) -> Result<Decoded, BatchError> {
    aborted.sort_unstable_by_key(|(_, first_offset)| *first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let mut aborting = BTreeSet::new();
    let mut decoded = Decoded { records: Vec::new(), next_offset: position };
    for batch in Batches::new(bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            // The last batch may be cut short where the size limit was met.
            Err(BatchError::Short { .. }) => break,
            Err(error) => return Err(error),
        };
        check_crc(batch.bytes)?;
        let header = batch.header;
        while let Some((producer, _)) = aborted.next_if(|(_, first)| *first <= header.last_offset()) {
            aborting.insert(producer);
        }
        let last =
            Offset::new(header.last_offset()).map_err(|_| BatchError::Offset { base_offset: header.base_offset })?;
        if header.is_control() {
            // The marker ends its transaction: a later one of the same producer stands by itself.
            if aborting.contains(&header.producer_id) && parse_marker(batch.bytes)?.kind == MarkerKind::Abort {
                aborting.remove(&header.producer_id);
            }
        } else if last >= decoded.next_offset && !(header.is_transactional() && aborting.contains(&header.producer_id))
        {
            let whole = bytes.slice(batch.position..batch.position + batch.bytes.len());
            for record in records(&whole, BATCH_SIZE_MAX)? {
                let record = record?;
                let raw = header.base_offset.saturating_add(i64::from(record.offset_delta));
                let offset = Offset::new(raw).map_err(|_| BatchError::Offset { base_offset: header.base_offset })?;
                if offset < decoded.next_offset {
                    continue;
                }
                decoded.records.push(FetchedRecord {
                    offset,
                    timestamp: Timestamp::from_millis(record.timestamp),
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                    producer: ProducerId::new(header.producer_id).ok(),
                    batch_crc: header.crc,
                });
            }
        }
        let after = last.checked_add(1).ok_or(BatchError::Offset { base_offset: header.base_offset })?;
        decoded.next_offset = decoded.next_offset.max(after);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use forebay_wire::batch::{build_marker, patch};
    use forebay_wire::{BatchBuilder, Marker};

    use super::*;

    fn at(raw: i64) -> Offset {
        Offset::new(raw).expect("not negative")
    }

    /// A log from batches, each described by (producer, values); a value alone in capitals is a marker.
    fn log(parts: &[(i64, &[&str])]) -> Bytes {
        let mut log = BytesMut::new();
        let mut next = 0;
        for (producer, values) in parts {
            let marker = |kind| build_marker(*producer, 0, Marker { kind, coordinator_epoch: 0 }, 5);
            let mut batch = match values {
                ["COMMIT"] => marker(MarkerKind::Commit),
                ["ABORT"] => marker(MarkerKind::Abort),
                values => {
                    let builder = BatchBuilder::new(5);
                    let mut builder =
                        if *producer >= 0 { builder.producer(*producer, 0, 0).transactional() } else { builder };
                    for value in *values {
                        builder.push(5, None, Some(value.as_bytes()), &[]);
                    }
                    builder.build()
                }
            };
            patch(&mut batch, next, 0);
            next += i64::try_from(values.len()).expect("few");
            log.extend_from_slice(&batch);
        }
        log.freeze()
    }

    fn shown(bytes: &Bytes, from: i64, aborted: &[(i64, i64)]) -> String {
        let decoded = decode(bytes, at(from), aborted.to_vec()).expect("a log that was just built");
        let value = |r: &FetchedRecord| String::from_utf8_lossy(r.value.as_deref().unwrap_or_default()).into_owned();
        let records: Vec<_> = decoded.records.iter().map(|r| format!("{}:{}", r.offset, value(r))).collect();
        format!("{} then {}", records.join(" "), decoded.next_offset)
    }

    /// Aborted records, control batches and what lies before the position are stepped over; the position passes them.
    #[test]
    fn what_must_not_be_seen_is_stepped_over() {
        let log =
            log(&[(-1, &["a", "b"]), (7, &["x", "y"]), (8, &["c"]), (7, &["ABORT"]), (7, &["d"]), (8, &["COMMIT"])]);
        assert_eq!(shown(&log, 0, &[]), "0:a 1:b 2:x 3:y 4:c 6:d then 8", "uncommitted: all but markers");
        assert_eq!(shown(&log, 0, &[(7, 2)]), "0:a 1:b 4:c 6:d then 8", "the next transaction of 7 stands");
        assert_eq!(shown(&log, 1, &[(7, 2)]), "1:b 4:c 6:d then 8", "a batch may begin before the position");
        assert_eq!(shown(&log, 3, &[(7, 2)]), "4:c 6:d then 8", "the list reaches back before the position");
        assert_eq!(shown(&log, 7, &[]), " then 8", "a marker alone moves the position");
    }

    /// A batch cut short at the end is left for the next fetch; a changed byte in a whole one is an error.
    #[test]
    fn torn_and_corrupt_batches_differ() {
        let log = log(&[(-1, &["a"]), (-1, &["b"])]);
        assert_eq!(shown(&log.slice(..log.len() - 1), 0, &[]), "0:a then 1");
        let mut corrupt = log.to_vec();
        *corrupt.last_mut().expect("not empty") ^= 1;
        assert!(matches!(decode(&corrupt.into(), at(0), Vec::new()), Err(BatchError::Crc { .. })));
    }
}
