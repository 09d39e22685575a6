//! Every key of a broker's own, in order of names. Its defaults for topics come from the topic's table.

use forebay_metadata::command::PARTITIONS_PER_TOPIC_MAX;
use forebay_metadata::config::ConfigType::{Boolean, Int, List, Long, String};
use forebay_metadata::config::{ConfigType, Rule};

use super::BrokerRule::{Folder, HostPort, Listener, Text, Units, Value};
use super::{BrokerKey, BrokerRule};

/// Kafka's INT.
const INT_MAX: i64 = i32::MAX as i64;
const FROM_0: BrokerRule = Value(Rule::Whole(0, INT_MAX));
const FROM_1: BrokerRule = Value(Rule::Whole(1, INT_MAX));
const PARTITIONS: BrokerRule = Value(Rule::Whole(1, PARTITIONS_PER_TOPIC_MAX as i64));
/// What a disk writes whole.
const SECTOR: u32 = 4096;
const _: () = assert!(SECTOR as usize == forebay_env::SECTOR_SIZE);
pub(super) const SECTOR_BYTES: i64 = SECTOR as i64;
/// Below this a segment would hold too few blocks to be worth its header.
const SEGMENT_BYTES_MIN: i64 = 256 << 10;
const SEGMENT_BYTES_MAX: i64 = 1 << 30;
/// Whole units of time whose milliseconds still fit, or -1 for ever.
const FOREVER_OR_1: BrokerRule = Value(Rule::WholeOr(-1, 1, INT_MAX));

const fn key(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    rule: BrokerRule,
    doc: &'static str,
) -> BrokerKey {
    BrokerKey { name, kind, default, rule, doc }
}

pub const BROKER_KEYS: &[BrokerKey] = &[
    key(
        "advertised.listeners",
        String,
        "",
        Listener,
        "What clients are told to connect to; empty is the listener's own address.",
    ),
    key(
        "auto.create.topics.enable",
        Boolean,
        "true",
        Value(Rule::Boolean),
        "Whether a topic comes into being when a client first asks about it.",
    ),
    key(
        "connections.max.idle.ms",
        Long,
        "600000",
        Value(Rule::Whole(1, i64::MAX)),
        "A connection without a request for so long is closed.",
    ),
    key(
        "default.replication.factor",
        Int,
        "1",
        Value(Rule::Whole(1, i16::MAX as i64)),
        "Accepted for Kafka's tools: records are durable in the write-ahead log and the bucket, not in replicas.",
    ),
    key("fetch.max.bytes", Int, "57671680", Value(Rule::Whole(1024, INT_MAX)), "Most bytes of one Fetch answer."),
    key("forebay.admin.listener", String, "localhost:9640", HostPort, "Where health and metrics are served over HTTP."),
    key(
        "forebay.bucket",
        String,
        "",
        Text,
        "The bucket: s3://NAME/PREFIX, file:///FOLDER or memory:; empty is a folder in log.dirs.",
    ),
    key(
        "forebay.fetch.pending.max.bytes",
        Long,
        "33554432",
        Value(Rule::Whole(1, i64::MAX)),
        "Bytes of Fetch answers that all connections together read or wait to send; beyond it, answers are smaller.",
    ),
    key(
        "forebay.plaintext.public",
        Boolean,
        "false",
        Value(Rule::Boolean),
        "Whether a listener without encryption may be reached from other machines.",
    ),
    key(
        "forebay.topic.trash.ms",
        Long,
        "86400000",
        Value(Rule::Whole(0, i64::MAX)),
        "How long a deleted topic can be brought back.",
    ),
    key(
        "forebay.upload.bytes",
        Long,
        "16777216",
        Value(Rule::Whole(64 << 10, 1 << 30)),
        "With a disk write-ahead log: so many bytes of batches make a data object.",
    ),
    key(
        "forebay.upload.ms",
        Long,
        "5000",
        FROM_1,
        "With a disk write-ahead log: a batch waits for its data object so long at most.",
    ),
    key(
        "forebay.wal",
        String,
        "auto",
        Value(Rule::OneOf(&["auto", "disk", "object"])),
        "The kind of write-ahead log; auto is object where the bucket is shared, else disk; for forebay dev, disk.",
    ),
    key(
        "forebay.wal.max.bytes",
        Long,
        "268435456",
        Value(Rule::Whole(2 * SEGMENT_BYTES_MIN, i64::MAX)),
        "The disk write-ahead log's room, on the disk and in memory: producers wait while uploads have freed none of it.",
    ),
    key(
        "forebay.wal.segment.bytes",
        Long,
        "67108864",
        Units { unit: SECTOR_BYTES, low: SEGMENT_BYTES_MIN, high: SEGMENT_BYTES_MAX },
        "One file of the disk write-ahead log: the room is freed by whole ones, and the largest batch has to fit one.",
    ),
    key(
        "group.initial.rebalance.delay.ms",
        Int,
        "3000",
        FROM_0,
        "How long an empty group waits for more members before its first rebalance.",
    ),
    key("group.max.session.timeout.ms", Int, "1800000", FROM_1, "The longest session that a member may ask for."),
    key("group.max.size", Int, "2147483647", FROM_1, "Most members of one group."),
    key("group.min.session.timeout.ms", Int, "6000", FROM_1, "The shortest session that a member may ask for."),
    key(
        "listeners",
        List,
        "PLAINTEXT://localhost:9092",
        Listener,
        "Where Kafka clients connect; localhost is one port over IPv4 and IPv6.",
    ),
    key("log.dirs", String, "forebay-data", Folder, "The data folder: one."),
    key(
        "log.retention.check.interval.ms",
        Long,
        "300000",
        Value(Rule::Whole(1, i64::MAX)),
        "How often records are looked for that are too old or too many.",
    ),
    key(
        "log.retention.hours",
        Int,
        "168",
        FOREVER_OR_1,
        "How long records are kept; log.retention.minutes and log.retention.ms come first.",
    ),
    key(
        "log.retention.minutes",
        Int,
        "10080",
        FOREVER_OR_1,
        "How long records are kept; log.retention.ms comes first.",
    ),
    key("log.roll.hours", Int, "168", FROM_1, "Accepted for Kafka's tools: there are no segments to roll."),
    key("log.roll.jitter.hours", Int, "0", FROM_0, "Accepted for Kafka's tools: there are no segments to roll."),
    key("max.connections", Int, "10000", FROM_1, "Most connections at a time; one more is closed at once."),
    key(
        "max.incremental.fetch.session.cache.slots",
        Int,
        "1000",
        FROM_0,
        "Fetch sessions that are kept; a consumer that finds no room says with every fetch all that it reads.",
    ),
    key("node.id", Int, "1", FROM_0, "The broker's number in its cluster."),
    key("num.partitions", Int, "1", PARTITIONS, "Partitions of a topic whose creator does not say."),
    key("offset.metadata.max.bytes", Int, "4096", FROM_0, "Most bytes of text beside a committed offset."),
    key(
        "offsets.retention.minutes",
        Int,
        "2147483647",
        FROM_1,
        "How long committed offsets outlive their group; the default is for ever.",
    ),
    key("offsets.topic.num.partitions", Int, "50", PARTITIONS, "Partitions of __consumer_offsets, once and for all."),
    key(
        "producer.id.expiration.ms",
        Int,
        "86400000",
        FROM_1,
        "How long an idle producer's sequence numbers are remembered.",
    ),
    key(
        "queued.max.request.bytes",
        Long,
        "67108864",
        Value(Rule::Whole(1, i64::MAX)),
        "Bytes of Produce requests that all connections together hold; more are not read yet, a larger one is read alone.",
    ),
    key(
        "queued.max.requests",
        Int,
        "500",
        FROM_1,
        "Answers of one connection that may wait before its next request is read.",
    ),
    key("socket.request.max.bytes", Int, "104857600", FROM_1, "The largest request."),
    key(
        "transaction.max.timeout.ms",
        Int,
        "86400000",
        FROM_1,
        "The longest transaction time-out that a producer may ask for.",
    ),
    key(
        "transaction.state.log.num.partitions",
        Int,
        "50",
        PARTITIONS,
        "Partitions of __transaction_state, once and for all.",
    ),
    key("transactional.id.expiration.ms", Int, "604800000", FROM_1, "How long an idle transactional id is remembered."),
];
