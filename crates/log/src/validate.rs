//! What a client's records must be before they get offsets. Everything here needs no lock.
//!
//! The checks come in Kafka's order (semantic 21), so that a request with two faults gets Kafka's answer.
//!
//! Differs from Kafka: records are decompressed and read only where something depends on them: a compacted topic, a codec of
//! the topic's own, a topic that bounds how old a record may be, and a batch whose header owns to a time too far ahead, to
//! name the records at fault. Kafka decompresses and reads them all, at many times the cost of all else that is done for a
//! batch. Here the records of an uncompressed batch are counted by their sizes; of a compressed one the header's count is
//! believed, and of both its highest timestamp: with `message.timestamp.before.max.ms` left alone, a batch whose header names
//! a lower one than its records have is taken. They are under the producer's checksum; a reader that does not believe them
//! reads the records itself, and a search by time passes over a batch that it cannot read (`search`). What a batch may come to
//! when it is decompressed is bounded (`inflate`); in Kafka it is not.
//!
//! Sources: Kafka's `LogValidator`, `UnifiedLog.analyzeAndValidateRecords`; KIP-467 (errors per record).

use std::sync::Arc;

use bytes::BytesMut;
use forebay_metadata::config::{CompressionType, TimestampType, TopicConfig};
use forebay_types::Timestamp;
use forebay_wire::batch::{check_count, check_crc, magic, recompress, records, set_log_append_time};
use forebay_wire::{BatchError, BatchHeader, Codec, CompressionError};

use crate::inflate::{READ_IN_PLACE_MAX, WALK_IN_PLACE_MAX, inflated_size_max};
use crate::partition::Partition;

/// The only record format; magic 0 and 1 went with Kafka 4.0.
const MAGIC: i8 = 2;

/// The first Produce version that may carry zstd (KIP-110).
const ZSTD_PRODUCE_VERSION: i16 = 7;

/// Kafka's time of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// Records named in one error: enough for a client to see what is wrong.
const BAD_RECORDS_MAX: usize = 100;

/// A batch that may be appended.
#[derive(Debug)]
pub struct Validated {
    pub(crate) bytes: BytesMut,
    pub(crate) header: BatchHeader,
    /// Set where the topic stamps the time of append.
    pub(crate) log_append_time: Option<Timestamp>,
}

impl Validated {
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes as they will be stored: what to ask admission for.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Why records are not appended.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    #[error("records of format {0} are no longer taken: use a client of Kafka 0.11 or later")]
    OldMagic(i8),
    #[error("a partition takes one batch per request, {0} bytes follow the first")]
    ManyBatches(usize),
    #[error("the batch has no records")]
    Empty,
    #[error("zstd needs Produce version {ZSTD_PRODUCE_VERSION} or later")]
    ZstdTooOld,
    #[error("a new batch begins at offset 0, not at {0}")]
    BaseOffset(i64),
    #[error("the batch has {size} bytes, max.message.bytes of the topic is {limit}")]
    TooLarge { size: usize, limit: u32 },
    #[error("the batch is damaged: {0}")]
    Corrupt(#[source] BatchError),
    #[error("the batch says it has {records} records up to offset {last_offset_delta}")]
    Count { records: i32, last_offset_delta: i32 },
    #[error("the batch does not hold the records that it says: {0}")]
    Records(#[source] BatchError),
    #[error("the records come to more than {limit} bytes when they are decompressed")]
    Inflated { limit: usize },
    #[error("clients may not write control batches")]
    Control,
    #[error("producer {id} sends epoch {epoch} and first sequence {sequence}")]
    Producer { id: i64, epoch: i16, sequence: i32 },
    #[error("a transactional batch needs a producer id")]
    NoProducer,
    /// At least one record.
    #[error("{} of the batch's records are not taken, the first at index {}: {}", .0.len(), .0[0].index, .0[0].fault)]
    BadRecords(Vec<BadRecord>),
    /// By the header, though no record has that time.
    #[error("the batch says of its highest timestamp what none of its records has: {0}")]
    Timestamp(RecordFault),
}

/// A record that keeps its batch out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// In the batch, from 0.
    pub index: i32,
    pub fault: RecordFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error("a record of a compacted topic needs a key")]
    NoKey,
    #[error("timestamp {timestamp} is not within {before} ms before and {after} ms after the broker's {now}")]
    Timestamp { timestamp: i64, now: Timestamp, before: i64, after: i64 },
}

/// Which times a topic takes, where they are the producers'.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    now: Timestamp,
    before: i64,
    after: i64,
}

impl Bounds {
    fn of(config: &TopicConfig, now: Timestamp) -> Option<Self> {
        let (before, after) = (config.timestamp_before_max_ms, config.timestamp_after_max_ms);
        (config.timestamp_type == TimestampType::CreateTime).then_some(Self { now, before, after })
    }

    fn check(self, timestamp: i64) -> Result<(), RecordFault> {
        let Self { now, before, after } = self;
        let ahead = timestamp.saturating_sub(now.as_millis());
        if timestamp != NO_TIMESTAMP && (ahead > after || ahead.saturating_neg() > before) {
            return Err(RecordFault::Timestamp { timestamp, now, before, after });
        }
        Ok(())
    }

    /// Whether each record is looked at: the header does not tell which is the oldest, nor which are too far ahead.
    fn are_of_each_record(self, header: &BatchHeader) -> bool {
        self.before < i64::MAX || self.check(header.max_timestamp).is_err()
    }
}

impl Partition {
    /// As [`validate`], off the runtime where it may take long.
    pub async fn validate(
        &self,
        bytes: BytesMut,
        config: &Arc<TopicConfig>,
        produce_version: i16,
        now: Timestamp,
    ) -> Result<Validated, ValidateError> {
        if is_short(&bytes, config, now) {
            return validate(bytes, config, produce_version, now);
        }
        let config = Arc::clone(config);
        self.inflater().run("validate-records", move || validate(bytes, &config, produce_version, now)).await
    }
}

/// Whether a batch is checked in a fraction of a millisecond.
fn is_short(bytes: &[u8], config: &TopicConfig, now: Timestamp) -> bool {
    // What is no batch is refused at once.
    let Ok(header) = BatchHeader::parse(bytes) else { return true };
    let Ok(codec) = header.codec() else { return true };
    let reads = config.cleanup.compact
        || codec_of(config).is_some_and(|wanted| wanted != codec)
        || Bounds::of(config, now).is_some_and(|bounds| bounds.are_of_each_record(&header));
    match codec {
        Codec::None if reads => bytes.len() <= READ_IN_PLACE_MAX,
        // However few bytes they are, they may come to many.
        _ if reads => false,
        _ => bytes.len() <= WALK_IN_PLACE_MAX,
    }
}

/// Checks one partition's records of a Produce request, and brings them into the topic's form.
pub fn validate(
    mut bytes: BytesMut,
    config: &TopicConfig,
    produce_version: i16,
    now: Timestamp,
) -> Result<Validated, ValidateError> {
    match magic(&bytes) {
        Some(MAGIC) => {}
        Some(old @ 0..MAGIC) => return Err(ValidateError::OldMagic(old)),
        _ if bytes.is_empty() => return Err(ValidateError::Empty),
        _ => {}
    }
    let mut header = BatchHeader::parse(&bytes).map_err(ValidateError::Corrupt)?;
    if header.size() < bytes.len() {
        return Err(ValidateError::ManyBatches(bytes.len() - header.size()));
    }
    let codec = header.codec().map_err(ValidateError::Corrupt)?;
    if codec == Codec::Zstd && produce_version < ZSTD_PRODUCE_VERSION {
        return Err(ValidateError::ZstdTooOld);
    }
    if header.base_offset != 0 {
        return Err(ValidateError::BaseOffset(header.base_offset));
    }
    let limit = config.max_message_bytes;
    check_size(&bytes, limit)?;
    check_crc(&bytes).map_err(ValidateError::Corrupt)?;
    check_header(&header)?;
    check_count(&bytes).map_err(ValidateError::Records)?;
    let inflated_max = inflated_size_max(limit);
    let bounds = Bounds::of(config, now);
    let each_bounded = bounds.filter(|bounds| bounds.are_of_each_record(&header));
    if config.cleanup.compact || each_bounded.is_some() {
        bytes = check_records(bytes, config.cleanup.compact, each_bounded, inflated_max)?;
    }
    bounds.map_or(Ok(()), |bounds| bounds.check(header.max_timestamp)).map_err(ValidateError::Timestamp)?;
    if let Some(wanted) = codec_of(config).filter(|wanted| *wanted != codec) {
        bytes = recompress(&bytes.freeze(), wanted, inflated_max).map_err(unreadable)?;
        // It has another size, and may show its records only now.
        check_size(&bytes, limit)?;
        check_count(&bytes).map_err(ValidateError::Records)?;
    }
    let log_append_time = match config.timestamp_type {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => {
            set_log_append_time(&mut bytes, now.as_millis());
            Some(now)
        }
    };
    header = BatchHeader::parse(&bytes).expect("the batch was whole, and was changed as a whole");
    Ok(Validated { bytes, header, log_append_time })
}

fn check_size(bytes: &[u8], limit: u32) -> Result<(), ValidateError> {
    let size = bytes.len();
    if size > limit as usize { Err(ValidateError::TooLarge { size, limit }) } else { Ok(()) }
}

fn check_header(header: &BatchHeader) -> Result<(), ValidateError> {
    let BatchHeader { records_count: records, last_offset_delta, .. } = *header;
    if records == 0 {
        return Err(ValidateError::Empty);
    }
    if i64::from(last_offset_delta) + 1 != i64::from(records) {
        return Err(ValidateError::Count { records, last_offset_delta });
    }
    if header.is_control() {
        return Err(ValidateError::Control);
    }
    if header.producer_id >= 0 && (header.producer_epoch < 0 || header.base_sequence < 0) {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        return Err(ValidateError::Producer { id, epoch, sequence });
    }
    if header.is_transactional() && header.producer_id < 0 {
        return Err(ValidateError::NoProducer);
    }
    Ok(())
}

/// Reads every record of a batch, and gives the batch back.
fn check_records(
    bytes: BytesMut,
    keyed: bool,
    bounds: Option<Bounds>,
    inflated_max: usize,
) -> Result<BytesMut, ValidateError> {
    let batch = bytes.freeze();
    let mut bad = Vec::new();
    for (index, record) in (0..).zip(records(&batch, inflated_max).map_err(unreadable)?) {
        let record = record.map_err(unreadable)?;
        let checked = if keyed && record.key.is_none() {
            Err(RecordFault::NoKey)
        } else {
            bounds.map_or(Ok(()), |bounds| bounds.check(record.timestamp))
        };
        if let Err(fault) = checked
            && bad.len() < BAD_RECORDS_MAX
        {
            bad.push(BadRecord { index, fault });
        }
    }
    if bad.is_empty() { Ok(mutable(batch)) } else { Err(ValidateError::BadRecords(bad)) }
}

/// The codec that the topic wants its batches in, where it wants one.
fn codec_of(config: &TopicConfig) -> Option<Codec> {
    match config.compression {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => Some(Codec::None),
        CompressionType::Gzip(_) => Some(Codec::Gzip),
        CompressionType::Snappy => Some(Codec::Snappy),
        CompressionType::Lz4(_) => Some(Codec::Lz4),
        CompressionType::Zstd(_) => Some(Codec::Zstd),
    }
}

/// Why records that had to be read cannot be.
fn unreadable(error: BatchError) -> ValidateError {
    match error {
        BatchError::Compression(CompressionError::Limit { limit, .. }) => ValidateError::Inflated { limit },
        BatchError::Record { .. } | BatchError::Trailing { .. } => ValidateError::Records(error),
        error => ValidateError::Corrupt(error),
    }
}

/// The bytes again to be written to: without a copy, where nobody shares them.
fn mutable(batch: bytes::Bytes) -> BytesMut {
    batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use forebay_wire::BatchBuilder;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000_000);

    fn config(pairs: &[(&str, &str)]) -> TopicConfig {
        let set = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TopicConfig::resolve(&set, &BTreeMap::new()).expect("legal values")
    }

    fn batch(build: impl FnOnce(BatchBuilder) -> BatchBuilder) -> BytesMut {
        let mut builder = build(BatchBuilder::new(NOW.as_millis()));
        builder.push(NOW.as_millis(), Some(b"key"), Some(b"value"), &[]);
        builder.build()
    }

    /// Flips or overwrites header bytes and makes the checksum right again.
    fn forged(at: usize, with: &[u8]) -> BytesMut {
        let mut bytes = batch(|b| b);
        bytes[at..at + with.len()].copy_from_slice(with);
        let crc = crc_of(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn crc_of(bytes: &[u8]) -> u32 {
        forebay_format::crc32c(bytes)
    }

    fn refused(bytes: BytesMut, pairs: &[(&str, &str)]) -> String {
        validate(bytes, &config(pairs), 9, NOW).map(|ok| ok.header).expect_err("to be refused").to_string()
    }

    #[test]
    fn each_fault_is_named() {
        let mut two = batch(|b| b);
        two.extend_from_slice(&batch(|b| b));
        assert!(refused(two, &[]).starts_with("a partition takes one batch per request"));
        assert!(refused(forged(16, &[1]), &[]).starts_with("records of format 1 are no longer taken"));
        assert!(refused(forged(7, &[5]), &[]).starts_with("a new batch begins at offset 0, not at 5"));
        assert!(refused(batch(|b| b), &[("max.message.bytes", "20")]).contains("max.message.bytes of the topic is 20"));
        let mut damaged = batch(|b| b);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(refused(damaged, &[]).starts_with("the batch is damaged"));
        assert!(refused(forged(23, &[0, 0, 0, 9]), &[]).contains("1 records up to offset 9"));
        // Two records by the header, one by the bytes: with the right checksum, and with offsets that fit the count.
        let mut two = forged(57, &[0, 0, 0, 2]);
        two[23..27].copy_from_slice(&[0, 0, 0, 1]);
        let crc = crc_of(&two[21..]);
        two[17..21].copy_from_slice(&crc.to_be_bytes());
        assert!(refused(two, &[]).starts_with("the batch does not hold the records that it says"));
        assert_eq!(refused(batch(BatchBuilder::control), &[]), "clients may not write control batches");
        assert_eq!(refused(batch(BatchBuilder::transactional), &[]), "a transactional batch needs a producer id");
        assert!(refused(forged(43, &7_i64.to_be_bytes()), &[]).starts_with("producer 7 sends epoch -1"));
        assert_eq!(refused(BytesMut::new(), &[]), "the batch has no records");
    }

    /// A few kilobytes that come to megabytes are refused where they would have to be read, and kept where not.
    #[test]
    fn what_records_come_to_is_bounded() {
        let bomb = || {
            let mut builder = BatchBuilder::new(NOW.as_millis()).codec(Codec::Zstd);
            builder.push(NOW.as_millis(), Some(b"key"), Some(&vec![0; 17 << 20]), &[]);
            builder.build()
        };
        assert!(bomb().len() < 10_000);
        let error = "the records come to more than 16777216 bytes when they are decompressed";
        let small = [("max.message.bytes", "1048576")];
        assert_eq!(refused(bomb(), &[small[0], ("cleanup.policy", "compact")]), error);
        assert_eq!(refused(bomb(), &[small[0], ("compression.type", "gzip")]), error);
        assert!(validate(bomb(), &config(&small), 9, NOW).is_ok(), "nobody reads it here");
    }

    /// What is read leaves the runtime unless it is short, and so does what is only looked at, once it is long.
    #[test]
    fn short_work_is_done_in_place() {
        let sized = |codec, size: usize| {
            let mut builder = BatchBuilder::new(NOW.as_millis()).codec(codec);
            builder.push(NOW.as_millis(), Some(b"key"), Some(&vec![0; size]), &[]);
            builder.build()
        };
        let short = |codec, size, pairs: &[(&str, &str)]| is_short(&sized(codec, size), &config(pairs), NOW);
        let (compact, zstd) = (&[("cleanup.policy", "compact")][..], &[("compression.type", "zstd")][..]);
        assert!(
            short(Codec::None, 1_000_000, &[])
                && short(Codec::Gzip, 2_000_000, &[])
                && !short(Codec::None, 2_000_000, &[])
        );
        let bounded = &[("message.timestamp.before.max.ms", "1000")][..];
        for pairs in [compact, zstd, bounded] {
            assert!(
                short(Codec::None, 1_000, pairs)
                    && !short(Codec::None, 100_000, pairs)
                    && !short(Codec::Gzip, 10, pairs)
            );
        }
        assert!(short(Codec::Zstd, 100_000, zstd), "it is in the topic's codec");
        let stamped = [bounded[0], ("message.timestamp.type", "LogAppendTime")];
        assert!(short(Codec::Gzip, 10, &stamped), "the producer's times do not count");
        let early = Timestamp::from_millis(NOW.as_millis() - 4_000_000);
        assert!(!is_short(&sized(Codec::Gzip, 10), &config(&[]), early), "who is too far ahead is looked for");
    }

    #[test]
    fn time_has_bounds_only_where_the_client_gives_it() {
        let late = || {
            let mut builder = BatchBuilder::new(0);
            builder.push(NOW.as_millis() + 3_600_001, None, Some(b"v"), &[]);
            builder.build()
        };
        assert!(refused(late(), &[]).contains("is not within"));
        let stamped = validate(late(), &config(&[("message.timestamp.type", "LogAppendTime")]), 9, NOW);
        let stamped = stamped.expect("the broker's own time counts");
        assert_eq!((stamped.log_append_time, stamped.header.max_timestamp), (Some(NOW), NOW.as_millis()));
        assert!(check_crc(&stamped.bytes).is_ok(), "a stamped batch has a new checksum");
        let early = || {
            let mut builder = BatchBuilder::new(5);
            builder.push(5, None, Some(b"v"), &[]);
            builder.build()
        };
        assert!(validate(early(), &config(&[]), 9, NOW).is_ok(), "of 1970: allowed by default");
        assert!(refused(early(), &[("message.timestamp.before.max.ms", "1000")]).contains("is not within"));
    }

    #[test]
    fn a_compacted_topic_names_the_records_without_a_key() {
        let mut builder = BatchBuilder::new(NOW.as_millis());
        for key in [Some(&b"k"[..]), None, Some(b"k"), None] {
            builder.push(NOW.as_millis(), key, Some(b"v"), &[]);
        }
        let error = validate(builder.build(), &config(&[("cleanup.policy", "compact")]), 9, NOW).map(|ok| ok.header);
        let Err(ValidateError::BadRecords(bad)) = error else { panic!("{error:?}") };
        assert!(bad.iter().all(|bad| bad.fault == RecordFault::NoKey));
        assert_eq!(bad.iter().map(|bad| bad.index).collect::<Vec<_>>(), [1, 3]);
    }

    /// Each record's time counts once the topic bounds the past, whatever the header says; by default the header's word does.
    #[test]
    fn records_out_of_bounds_are_named() {
        let now = NOW.as_millis();
        let bad = |codec, times: &[i64], pairs: &[(&str, &str)]| {
            let mut builder = BatchBuilder::new(now).codec(codec);
            for time in times {
                builder.push(*time, None, Some(b"v"), &[]);
            }
            match validate(builder.build(), &config(pairs), 9, NOW).map(|ok| ok.header) {
                Ok(_) => Vec::new(),
                Err(ValidateError::BadRecords(bad)) => bad.iter().map(|bad| bad.index).collect(),
                Err(other) => panic!("{other}"),
            }
        };
        let bounded = &[("message.timestamp.before.max.ms", "1000")][..];
        for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
            assert_eq!(bad(codec, &[now, now - 1_001, now], bounded), [1]);
            assert_eq!(bad(codec, &[now, now - 1_000, -1], bounded), [0; 0], "no time is none too old");
            assert_eq!(bad(codec, &[5, now, -2, now + 3_600_001], bounded), [0, 2, 3]);
            assert_eq!(bad(codec, &[now, now - 1_001, now], &[]), [0; 0]);
            assert_eq!(bad(codec, &[now, now + 3_600_001, now], &[]), [1], "the header owns to it");
            let difference = &[("message.timestamp.difference.max.ms", "1000")][..];
            assert_eq!(bad(codec, &[now + 1_001, now, now - 1_001], difference), [0, 2]);
            let stamped = [bounded[0], ("message.timestamp.type", "LogAppendTime")];
            assert_eq!(bad(codec, &[5, now], &stamped), [0; 0]);
        }
    }

    /// A header may name a highest time that no record has. It is what searches and retention go by, so it counts too.
    #[test]
    fn the_headers_time_is_within_bounds_too() {
        let lying = forged(35, &(NOW.as_millis() + 3_600_001).to_be_bytes());
        assert!(
            refused(lying, &[]).starts_with("the batch says of its highest timestamp what none of its records has")
        );
    }

    #[test]
    fn the_topics_codec_wins_and_producer_keeps_the_batch_as_it_came() {
        let came = batch(|b| b.codec(Codec::Gzip));
        let kept = validate(came.clone(), &config(&[]), 9, NOW).expect("sound");
        assert_eq!(kept.bytes, came);
        let stored = validate(came, &config(&[("compression.type", "zstd")]), 9, NOW).expect("sound");
        assert_eq!(stored.header.codec().expect("known"), Codec::Zstd);
        assert!(check_crc(&stored.bytes).is_ok());
        let zstd = batch(|b| b.codec(Codec::Zstd));
        assert!(matches!(validate(zstd, &config(&[]), 6, NOW), Err(ValidateError::ZstdTooOld)));
    }

    /// What a batch is in the topic's codec is what is stored: `max.message.bytes` holds for that too, and where its records
    /// show only then, they are counted then.
    #[test]
    fn a_batch_in_the_topics_codec_is_checked_again() {
        let gzip = || {
            let mut builder = BatchBuilder::new(NOW.as_millis()).codec(Codec::Gzip);
            builder.push(NOW.as_millis(), Some(b"key"), Some(&[0; 5_000]), &[]);
            builder.build()
        };
        let small = ("max.message.bytes", "1000");
        assert!(validate(gzip(), &config(&[small]), 9, NOW).is_ok(), "as it came");
        assert!(validate(gzip(), &config(&[small, ("compression.type", "zstd")]), 9, NOW).is_ok(), "small again");
        let error = refused(gzip(), &[small, ("compression.type", "uncompressed")]);
        assert!(
            error.starts_with("the batch has 50") && error.ends_with("max.message.bytes of the topic is 1000"),
            "{error}"
        );

        let mut forged = gzip();
        forged[57..61].copy_from_slice(&2_i32.to_be_bytes());
        forged[23..27].copy_from_slice(&1_i32.to_be_bytes());
        let crc = crc_of(&forged[21..]);
        forged[17..21].copy_from_slice(&crc.to_be_bytes());
        let error = refused(forged, &[("compression.type", "uncompressed")]);
        assert!(error.starts_with("the batch does not hold the records that it says"), "{error}");
    }
}
