//! A topic's configuration as the types that the code acts on.

use std::collections::BTreeMap;

use super::value::{items, real, whole};
use super::{ConfigError, ConfigKey, key};

/// What is kept of a topic's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// Old records go by age and size.
    pub delete: bool,
    /// Only the newest record of each key stays.
    pub compact: bool,
}

/// Whose timestamp a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// The codec that batches are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As they came.
    Producer,
    Uncompressed,
    /// With the level; `None` is the codec's default.
    Gzip(Option<i32>),
    Snappy,
    Lz4(i32),
    Zstd(i32),
}

/// The kind of WAL that a topic is to live on (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicWal {
    /// The cluster's own.
    Auto,
    Disk,
    Object,
}

/// The keys that something acts on. The others are stored and described only.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup: Cleanup,
    pub compression: CompressionType,
    pub delete_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    /// Largest batch in bytes, as it comes.
    pub max_message_bytes: u32,
    pub timestamp_type: TimestampType,
    pub timestamp_after_max_ms: i64,
    pub timestamp_before_max_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    /// `None` is without limit.
    pub retention_bytes: Option<u64>,
    /// `None` is for ever.
    pub retention_ms: Option<i64>,
    pub wal: TopicWal,
}

/// Values by precedence: the topic's, the broker's default, Kafka's.
struct Layers<'a> {
    topic: &'a BTreeMap<String, String>,
    broker: &'a BTreeMap<String, String>,
}

impl<'a> Layers<'a> {
    fn read<T>(&self, name: &str, parse: impl Fn(&'a str) -> Option<T>) -> Result<T, ConfigError> {
        let key: &ConfigKey = key(name)?;
        let text = self.topic.get(name).or_else(|| self.broker.get(name)).map_or(key.default, String::as_str);
        key.check(text)?;
        parse(text).ok_or_else(|| key.refuse(text))
    }

    fn whole(&self, name: &str) -> Result<i64, ConfigError> {
        self.read(name, whole)
    }

    /// How far a record's time may be off in one direction. Where the direction has no bound of its own, the key that Kafka
    /// had for both until 3.6 gives it (`LogConfig.getMessageTimestampBeforeMaxMs`).
    fn timestamp_max(&self, name: &str) -> Result<i64, ConfigError> {
        const BOTH: &str = "message.timestamp.difference.max.ms";
        let is_set = |name: &str| self.topic.contains_key(name) || self.broker.contains_key(name);
        let own = self.whole(name)?;
        let bounded = is_set(name) && own != i64::MAX;
        if !bounded && is_set(BOTH) { self.whole(BOTH) } else { Ok(own) }
    }

    fn level(&self, name: &str) -> Result<i32, ConfigError> {
        self.read(name, |text| i32::try_from(whole(text)?).ok())
    }

    fn compression(&self) -> Result<CompressionType, ConfigError> {
        Ok(match self.read("compression.type", |text| Some(text.trim()))? {
            "gzip" => CompressionType::Gzip(Some(self.level("compression.gzip.level")?).filter(|level| *level > 0)),
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4(self.level("compression.lz4.level")?),
            "zstd" => CompressionType::Zstd(self.level("compression.zstd.level")?),
            "uncompressed" => CompressionType::Uncompressed,
            _ => CompressionType::Producer,
        })
    }
}

impl TopicConfig {
    /// A topic's configuration over the broker's defaults, which come under the topic's names for them.
    ///
    /// # Errors
    /// Names the value that is not legal: a stored configuration has none, a broker's defaults may.
    pub fn resolve(topic: &BTreeMap<String, String>, broker: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let layers = Layers { topic, broker };
        let cleanup = layers.read("cleanup.policy", |text| {
            Some(Cleanup {
                delete: items(text).any(|item| item == "delete"),
                compact: items(text).any(|item| item == "compact"),
            })
        })?;
        let timestamp_type = layers.read("message.timestamp.type", |text| match text.trim() {
            "CreateTime" => Some(TimestampType::CreateTime),
            "LogAppendTime" => Some(TimestampType::LogAppendTime),
            _ => None,
        })?;
        let wal = layers.read("forebay.wal", |text| match text.trim() {
            "auto" => Some(TopicWal::Auto),
            "disk" => Some(TopicWal::Disk),
            "object" => Some(TopicWal::Object),
            _ => None,
        })?;
        Ok(Self {
            cleanup,
            compression: layers.compression()?,
            delete_retention_ms: layers.whole("delete.retention.ms")?,
            max_compaction_lag_ms: layers.whole("max.compaction.lag.ms")?,
            max_message_bytes: layers.read("max.message.bytes", |text| u32::try_from(whole(text)?).ok())?,
            timestamp_type,
            timestamp_after_max_ms: layers.timestamp_max("message.timestamp.after.max.ms")?,
            timestamp_before_max_ms: layers.timestamp_max("message.timestamp.before.max.ms")?,
            min_cleanable_dirty_ratio: layers.read("min.cleanable.dirty.ratio", real)?,
            min_compaction_lag_ms: layers.whole("min.compaction.lag.ms")?,
            retention_bytes: u64::try_from(layers.whole("retention.bytes")?).ok(),
            retention_ms: Some(layers.whole("retention.ms")?).filter(|ms| *ms >= 0),
            wal,
        })
    }
}
