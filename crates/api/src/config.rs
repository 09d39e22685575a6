//! The broker's configuration: every key, what it may be, and the values as types.
//!
//! Owns: the table of keys ([`BROKER_KEYS`]) and of the broker's defaults for topics, checking a configuration as a
//! whole, the names of keys in the environment. Leaves to others: topic configurations (`metadata::config`), reading
//! files and the environment (`cli`), acting on values.
//!
//! A broker's default for a topic key goes by Kafka's broker name for it (`log.retention.ms` for `retention.ms`); the
//! rows for these are made from the topic's table. Where Kafka has the same value in several units, the finest one that
//! is set counts.
//!
//! Invariants:
//! 1. A [`BrokerConfig`] holds known keys with legal values only; getters cannot fail.
//! 2. A key has one spelling in a file and one in the environment, and both are unique.
//!
//! Sources: Kafka's `KafkaConfig`, `ServerLogConfigs`, `ServerTopicConfigSynonyms` (3.9).

mod nearest;
mod table;

use std::collections::BTreeMap;

use forebay_metadata::config::{ConfigError, ConfigKey, ConfigType, Rule, TOPIC_CONFIGS, TopicConfig};

pub use table::BROKER_KEYS;
use table::SECTOR_BYTES;

use crate::HostPort;

/// One key of a broker's configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrokerKey {
    pub name: &'static str,
    pub kind: ConfigType,
    /// Empty where there is none.
    pub default: &'static str,
    pub rule: BrokerRule,
    /// One line for people.
    pub doc: &'static str,
}

/// Which values are legal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BrokerRule {
    Value(Rule),
    /// Whole units of so many bytes, from `low` to `high` bytes.
    Units {
        unit: i64,
        low: i64,
        high: i64,
    },
    Text,
    /// One folder, where Kafka takes a list of them.
    Folder,
    /// `HOST:PORT`.
    HostPort,
    /// `PLAINTEXT://HOST:PORT`; may be empty where the default is.
    Listener,
}

/// A configuration that a broker cannot start with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerConfigError {
    #[error("unknown broker config {name}{}", nearest::hint(*nearest))]
    Unknown { name: String, nearest: Option<&'static str> },
    #[error("the environment variable {name} is of no broker config{}", nearest::hint(nearest.as_deref()))]
    Variable { name: String, nearest: Option<String> },
    #[error("invalid value {value:?} for broker config {name}: it must be {wanted}")]
    Value { name: &'static str, value: String, wanted: String },
    #[error("the broker's defaults for topics cannot be: {0}")]
    TopicDefaults(#[from] ConfigError),
    #[error("broker config {low} ({low_value}) is above {high} ({high_value})")]
    Crossed { low: &'static str, low_value: i64, high: &'static str, high_value: i64 },
    #[error(
        "broker config {WAL_ROOM} ({room}) has no room for two segments: set it to {least} or more, or {WAL_SEGMENT} \
         ({segment}) to {most} or less"
    )]
    WalRoom { room: i64, segment: i64, least: i64, most: i64 },
}

/// The room of the `disk` WAL, and the size of its segments: their rules depend on each other.
const WAL_ROOM: &str = "forebay.wal.max.bytes";
const WAL_SEGMENT: &str = "forebay.wal.segment.bytes";
/// One segment is written to while another waits for its upload.
const WAL_SEGMENTS_MIN: i64 = 2;

/// A checked configuration of one broker.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BrokerConfig {
    /// What was set, as it was given.
    set: BTreeMap<&'static str, String>,
}

/// Which WAL the broker writes (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalChoice {
    /// `object` where the bucket is shared and the broker is no `forebay dev`, else `disk`.
    Auto,
    Disk,
    Object,
}

/// The key of that name.
///
/// # Errors
/// Unknown, with the nearest known name.
pub fn key(name: &str) -> Result<BrokerKey, BrokerConfigError> {
    keys().find(|key| key.name == name).ok_or_else(|| BrokerConfigError::Unknown {
        name: name.to_owned(),
        nearest: nearest::nearest(name, keys().map(|key| key.name)),
    })
}

/// Every key: the broker's own, then its defaults for topics.
pub fn keys() -> impl Iterator<Item = BrokerKey> {
    let own = |name: &str| BROKER_KEYS.iter().any(|key| key.name == name);
    let defaults = TOPIC_CONFIGS.iter().filter_map(move |topic| {
        let name = topic.synonym.filter(|name| !own(name))?;
        Some(BrokerKey {
            name,
            kind: topic.kind,
            default: topic.default,
            rule: BrokerRule::Value(topic.rule),
            doc: topic.doc,
        })
    });
    BROKER_KEYS.iter().copied().chain(defaults)
}

/// The broker's keys that set a topic key's default, the one that counts most first, each with the factor that brings it
/// to the topic key's unit.
pub fn synonyms(topic: &ConfigKey) -> Vec<(&'static str, i64)> {
    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    let coarser: &[(&str, i64)] = match topic.name {
        "retention.ms" => &[("log.retention.minutes", MINUTE), ("log.retention.hours", HOUR)],
        "segment.ms" => &[("log.roll.hours", HOUR)],
        "segment.jitter.ms" => &[("log.roll.jitter.hours", HOUR)],
        _ => &[],
    };
    topic.synonym.map(|name| (name, 1)).into_iter().chain(coarser.iter().copied()).collect()
}

/// What the environment's names of keys begin with.
const ENVIRONMENT_PREFIX: &str = "FOREBAY_";

/// The environment's name of a key: `FOREBAY_NODE_ID` for `node.id`, `FOREBAY_BUCKET` for `forebay.bucket`.
pub fn environment_name(key: &str) -> String {
    let short = key.strip_prefix("forebay.").unwrap_or(key);
    format!("{ENVIRONMENT_PREFIX}{}", short.replace('.', "_").to_ascii_uppercase())
}

/// Keys that the environment sets. Variables without our prefix are somebody else's; `others` have it and are no keys.
///
/// # Errors
/// A variable with our prefix is of no key: names the nearest one that is.
pub fn from_environment(
    variables: impl Iterator<Item = (String, String)>,
    others: &[&str],
) -> Result<BTreeMap<String, String>, BrokerConfigError> {
    let names: BTreeMap<String, &'static str> = keys().map(|key| (environment_name(key.name), key.name)).collect();
    let mut set = BTreeMap::new();
    for (name, value) in variables {
        if let Some(key) = names.get(&name) {
            set.insert((*key).to_owned(), value);
        } else if name.starts_with(ENVIRONMENT_PREFIX) && !others.contains(&&*name) && !is_service_link(&name) {
            let nearest = nearest::nearest(&name, names.keys().map(String::as_str)).map(str::to_owned);
            return Err(BrokerConfigError::Variable { name, nearest });
        }
    }
    Ok(set)
}

/// What Kubernetes puts into every container about a service whose name begins with "forebay":
/// `FOREBAY_SERVICE_HOST`, `FOREBAY_SERVICE_PORT_KAFKA`, `FOREBAY_PORT_9092_TCP_ADDR`.
fn is_service_link(name: &str) -> bool {
    let (_, behind) = name.rsplit_once("_PORT").unwrap_or(("", "none"));
    let of_a_port = behind.is_empty()
        || behind.strip_prefix('_').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || of_a_port
}

impl BrokerKey {
    /// Checks one value.
    pub fn check(&self, value: &str) -> Result<(), BrokerConfigError> {
        let refuse = |wanted: &str| {
            Err(BrokerConfigError::Value { name: self.name, value: value.to_owned(), wanted: wanted.to_owned() })
        };
        match self.rule {
            BrokerRule::Text => Ok(()),
            BrokerRule::Folder if !value.trim().is_empty() && !value.contains(',') => Ok(()),
            BrokerRule::Folder => refuse("one folder: name the one on the fastest disk, the bucket holds the history"),
            BrokerRule::Units { unit, low, high } => match value.trim().parse::<i64>() {
                Ok(bytes) if (low..=high).contains(&bytes) && bytes % unit == 0 => Ok(()),
                _ => refuse(&format!("a multiple of {unit} from {low} to {high}")),
            },
            BrokerRule::HostPort if value.parse::<HostPort>().is_ok() => Ok(()),
            BrokerRule::HostPort => refuse("HOST:PORT"),
            BrokerRule::Listener if value.is_empty() && self.default.is_empty() => Ok(()),
            BrokerRule::Listener if listener(value).is_some() => Ok(()),
            BrokerRule::Listener => refuse("one PLAINTEXT://HOST:PORT"),
            BrokerRule::Value(rule) => {
                let Self { name, kind, default, doc, .. } = *self;
                match (ConfigKey { name, kind, default, rule, synonym: None, doc }).check(value) {
                    Ok(()) => Ok(()),
                    Err(ConfigError::Value { name, value, wanted }) => {
                        Err(BrokerConfigError::Value { name, value, wanted })
                    }
                    Err(other) => Err(other.into()),
                }
            }
        }
    }
}

fn listener(text: &str) -> Option<HostPort> {
    text.strip_prefix("PLAINTEXT://")?.parse().ok()
}

macro_rules! whole_getters {
    ($($(#[$doc:meta])* $getter:ident: $type:ty = $key:literal;)*) => {
        impl BrokerConfig {
            $(
                $(#[$doc])*
                #[doc = concat!("`", $key, "`.")]
                pub fn $getter(&self) -> $type {
                    <$type>::try_from(self.whole($key)).expect("the key's rule keeps it within the type")
                }
            )*
        }

        #[cfg(test)]
        const WHOLE_KEYS: &[(&str, fn(i64) -> bool)] = &[$(($key, |value| <$type>::try_from(value).is_ok())),*];
    };
}

whole_getters! {
    node_id: i32 = "node.id";
    num_partitions: i32 = "num.partitions";
    default_replication_factor: i16 = "default.replication.factor";
    /// Most bytes of one Fetch answer, whatever a client asks.
    fetch_max_bytes: usize = "fetch.max.bytes";
    /// The largest request.
    socket_request_max_bytes: usize = "socket.request.max.bytes";
    connections_max_idle_ms: u64 = "connections.max.idle.ms";
    max_connections: usize = "max.connections";
    /// Answers of one connection that may wait to be sent before its next request is read.
    queued_max_requests: usize = "queued.max.requests";
    /// Bytes of Produce requests that all connections together hold.
    queued_max_request_bytes: usize = "queued.max.request.bytes";
    /// Fetch sessions that are kept.
    fetch_session_cache_slots: usize = "max.incremental.fetch.session.cache.slots";
    /// Bytes of Fetch answers that all connections together read or wait to send.
    fetch_pending_max_bytes: usize = "forebay.fetch.pending.max.bytes";
    log_retention_check_interval_ms: u64 = "log.retention.check.interval.ms";
    group_initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms";
    group_min_session_timeout_ms: i32 = "group.min.session.timeout.ms";
    group_max_session_timeout_ms: i32 = "group.max.session.timeout.ms";
    group_max_size: i32 = "group.max.size";
    offsets_topic_num_partitions: i32 = "offsets.topic.num.partitions";
    offsets_retention_minutes: i32 = "offsets.retention.minutes";
    offset_metadata_max_bytes: usize = "offset.metadata.max.bytes";
    transaction_state_log_num_partitions: i32 = "transaction.state.log.num.partitions";
    transaction_max_timeout_ms: i32 = "transaction.max.timeout.ms";
    transactional_id_expiration_ms: i32 = "transactional.id.expiration.ms";
    producer_id_expiration_ms: i32 = "producer.id.expiration.ms";
    /// How long a deleted topic can be brought back.
    topic_trash_ms: i64 = "forebay.topic.trash.ms";
    /// Batches that make an upload.
    upload_bytes: u64 = "forebay.upload.bytes";
    /// The age of the oldest batch that makes an upload.
    upload_ms: u64 = "forebay.upload.ms";
    /// All segments of the `disk` WAL together.
    wal_max_bytes: u64 = "forebay.wal.max.bytes";
    wal_segment_bytes: u64 = "forebay.wal.segment.bytes";
}

impl BrokerConfig {
    /// Checks a configuration.
    ///
    /// # Errors
    /// Names the key, with the nearest known one or what its value must be.
    pub fn parse(given: &BTreeMap<String, String>) -> Result<Self, BrokerConfigError> {
        let mut set = BTreeMap::new();
        for (name, value) in given {
            let key = key(name)?;
            key.check(value)?;
            set.insert(key.name, value.trim().to_owned());
        }
        let config = Self { set };
        TopicConfig::resolve(&BTreeMap::new(), &config.topic_defaults())?;
        let (low, high) = ("group.min.session.timeout.ms", "group.max.session.timeout.ms");
        let (low_value, high_value) = (config.whole(low), config.whole(high));
        if low_value > high_value {
            return Err(BrokerConfigError::Crossed { low, low_value, high, high_value });
        }
        config.check_wal()?;
        Ok(config)
    }

    fn check_wal(&self) -> Result<(), BrokerConfigError> {
        let (room, segment) = (self.whole(WAL_ROOM), self.whole(WAL_SEGMENT));
        if room / WAL_SEGMENTS_MIN >= segment {
            return Ok(());
        }
        let unit = SECTOR_BYTES;
        let (least, most) = (segment * WAL_SEGMENTS_MIN, room / WAL_SEGMENTS_MIN / unit * unit);
        Err(BrokerConfigError::WalRoom { room, segment, least, most })
    }

    /// What was set for a key, as it was given.
    pub fn set(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// A key's value, set or default.
    ///
    /// # Panics
    /// The key is not in the table: callers name keys that are.
    pub fn value(&self, name: &'static str) -> &str {
        self.set(name).unwrap_or_else(|| {
            let key = BROKER_KEYS.iter().find(|key| key.name == name);
            key.expect("getters name keys of the table").default
        })
    }

    fn whole(&self, name: &'static str) -> i64 {
        self.value(name).parse().expect("checked when it was parsed")
    }

    fn is_on(&self, name: &'static str) -> bool {
        self.value(name).eq_ignore_ascii_case("true")
    }

    /// The broker's defaults for topics that are set, under the topic's names for them.
    pub fn topic_defaults(&self) -> BTreeMap<String, String> {
        let set = |topic: &ConfigKey| {
            synonyms(topic).into_iter().find_map(|(name, factor)| {
                let value = self.set(name)?;
                Some((topic.name.to_owned(), if factor == 1 { value.to_owned() } else { scaled(value, factor) }))
            })
        };
        TOPIC_CONFIGS.iter().filter_map(set).collect()
    }

    /// `auto.create.topics.enable`.
    pub fn auto_create_topics(&self) -> bool {
        self.is_on("auto.create.topics.enable")
    }

    /// `forebay.plaintext.public`.
    pub fn plaintext_public(&self) -> bool {
        self.is_on("forebay.plaintext.public")
    }

    /// `listeners`.
    pub fn listener(&self) -> HostPort {
        listener(self.value("listeners")).expect("checked when it was parsed")
    }

    /// `advertised.listeners`, where it is set.
    pub fn advertised_listener(&self) -> Option<HostPort> {
        listener(self.value("advertised.listeners"))
    }

    /// `forebay.admin.listener`.
    pub fn admin_listener(&self) -> HostPort {
        self.value("forebay.admin.listener").parse().expect("checked when it was parsed")
    }

    /// `log.dirs`: the data folder.
    pub fn data_folder(&self) -> &str {
        self.value("log.dirs")
    }

    /// `forebay.bucket`, where it is set; else the bucket is a folder of the data folder.
    pub fn bucket(&self) -> Option<&str> {
        Some(self.value("forebay.bucket")).filter(|url| !url.is_empty())
    }

    /// `forebay.wal`.
    pub fn wal(&self) -> WalChoice {
        match self.value("forebay.wal") {
            "disk" => WalChoice::Disk,
            "object" => WalChoice::Object,
            _ => WalChoice::Auto,
        }
    }
}

/// A checked whole number in a finer unit; below 0 is -1 in every unit.
fn scaled(value: &str, factor: i64) -> String {
    let coarse: i64 = value.parse().expect("checked when it was parsed");
    if coarse < 0 { "-1".to_owned() } else { coarse.saturating_mul(factor).to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<BrokerConfig, String> {
        let map = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        BrokerConfig::parse(&map).map_err(|error| error.to_string())
    }

    /// Every default passes its own rule and its getter, and no two keys share a name, in a file or the environment.
    #[test]
    fn the_table_is_sound() {
        for key in keys() {
            assert_eq!(key.check(key.default), Ok(()), "{}", key.name);
        }
        for (name, fits) in WHOLE_KEYS {
            let key = key(name).expect("a getter's key is in the table");
            let (BrokerRule::Value(Rule::Whole(low, high)) | BrokerRule::Units { low, high, .. }) = key.rule else {
                panic!("{name} has bounds")
            };
            assert!(fits(low) && fits(high), "{name} fits its getter");
        }
        let names: BTreeSet<_> = keys().map(|key| key.name).collect();
        let variables: BTreeSet<_> = keys().map(|key| environment_name(key.name)).collect();
        assert_eq!((names.len(), variables.len()), (keys().count(), keys().count()));
        assert!(BROKER_KEYS.is_sorted_by_key(|key| key.name), "sorted, so that a reader finds a key");
    }

    /// What a stateful pipeline needs differs from Kafka's defaults on purpose.
    #[test]
    fn defaults_suit_stateful_pipelines() {
        let config = BrokerConfig::default();
        assert_eq!(config.transaction_max_timeout_ms(), 86_400_000);
        assert_eq!(config.offsets_retention_minutes(), i32::MAX);
        assert_eq!((config.num_partitions(), config.auto_create_topics()), (1, true));
        assert_eq!(config.listener().to_string(), "localhost:9092");
        assert_eq!((config.advertised_listener(), config.bucket(), config.wal()), (None, None, WalChoice::Auto));
        assert_eq!(config.topic_defaults(), BTreeMap::new());
    }

    /// A key or value that cannot be is refused in words that say what would be.
    #[test]
    fn faults_are_named() {
        for (key, value, expected) in [
            ("num.partition", "3", "unknown broker config num.partition; did you mean num.partitions?"),
            ("log.retention.sm", "3", "unknown broker config log.retention.sm; did you mean log.retention.ms?"),
            ("zookeeper.connect", "x", "unknown broker config zookeeper.connect"),
            (
                "num.partitions",
                "0",
                "invalid value \"0\" for broker config num.partitions: it must be a whole number from 1 to 4000",
            ),
            (
                "log.dirs",
                "/d1,/d2",
                "invalid value \"/d1,/d2\" for broker config log.dirs: it must be one folder: name the one on the fastest \
                 disk, the bucket holds the history",
            ),
            (
                "log.dirs",
                " ",
                "invalid value \" \" for broker config log.dirs: it must be one folder: name the one on the fastest disk, \
                 the bucket holds the history",
            ),
            (
                "listeners",
                "SSL://h:1",
                "invalid value \"SSL://h:1\" for broker config listeners: it must be one PLAINTEXT://HOST:PORT",
            ),
            (
                "forebay.admin.listener",
                "nowhere",
                "invalid value \"nowhere\" for broker config forebay.admin.listener: it must be HOST:PORT",
            ),
            (
                "forebay.wal.segment.bytes",
                "300000",
                "invalid value \"300000\" for broker config forebay.wal.segment.bytes: it must be a multiple of 4096 from \
                 262144 to 1073741824",
            ),
            (
                "forebay.wal.max.bytes",
                "100000000",
                "broker config forebay.wal.max.bytes (100000000) has no room for two segments: set it to 134217728 or \
                 more, or forebay.wal.segment.bytes (67108864) to 49999872 or less",
            ),
            (
                "forebay.upload.bytes",
                "1",
                "invalid value \"1\" for broker config forebay.upload.bytes: it must be a whole number from 65536 to \
                 1073741824",
            ),
            (
                "forebay.upload.ms",
                "never",
                "invalid value \"never\" for broker config forebay.upload.ms: it must be a whole number from 1 to \
                 2147483647",
            ),
            (
                "queued.max.request.bytes",
                "-1",
                "invalid value \"-1\" for broker config queued.max.request.bytes: it must be a whole number of 1 or more",
            ),
            (
                "queued.max.requests.bytes",
                "1",
                "unknown broker config queued.max.requests.bytes; did you mean queued.max.request.bytes?",
            ),
            (
                "group.min.session.timeout.ms",
                "1800001",
                "broker config group.min.session.timeout.ms (1800001) is above group.max.session.timeout.ms (1800000)",
            ),
        ] {
            assert_eq!(parse(&[(key, value)]).expect_err(key), expected);
        }
    }

    /// The finest unit that is set counts, whatever the order, and -1 is for ever in each.
    #[test]
    fn retention_comes_in_three_units() {
        let retention =
            |pairs: &[(&str, &str)]| parse(pairs).expect("legal").topic_defaults().get("retention.ms").cloned();
        assert_eq!(retention(&[("log.retention.hours", "2")]), Some("7200000".into()));
        assert_eq!(retention(&[("log.retention.hours", "2"), ("log.retention.minutes", "3")]), Some("180000".into()));
        let all = [("log.retention.hours", "2"), ("log.retention.minutes", "3"), ("log.retention.ms", "4")];
        assert_eq!(retention(&all), Some("4".into()));
        assert_eq!(retention(&[("log.retention.hours", "-1")]), Some("-1".into()));
    }

    /// Keys come from the environment under derived names, what is not ours is left alone, and a slip is told.
    #[test]
    fn the_environment_has_every_key() {
        let read = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            from_environment(variables, &["FOREBAY_OTHER"]).map_err(|error| error.to_string())
        };
        let variables =
            [("FOREBAY_BUCKET", "memory:"), ("FOREBAY_NODE_ID", "7"), ("HOME", "/"), ("FOREBAY_OTHER", "1")];
        let config = BrokerConfig::parse(&read(&variables).expect("known")).expect("legal");
        assert_eq!((config.bucket(), config.node_id()), (Some("memory:"), 7));
        let links = [
            "FOREBAY_SERVICE_HOST",
            "FOREBAY_KAFKA_SERVICE_PORT_ADMIN",
            "FOREBAY_PORT",
            "FOREBAY_PORT_9092_TCP",
            "FOREBAY_KAFKA_PORT_9092_TCP_ADDR",
        ];
        assert_eq!(read(&links.map(|name| (name, "10.0.0.1"))), Ok(BTreeMap::new()));
        assert_eq!(
            read(&[("FOREBAY_WAL_MAX_BYTE", "1")]),
            Err("the environment variable FOREBAY_WAL_MAX_BYTE is of no broker config; did you mean \
                 FOREBAY_WAL_MAX_BYTES?"
                .into())
        );
        assert_eq!(
            read(&[("FOREBAY_X", "1")]),
            Err("the environment variable FOREBAY_X is of no broker config".into())
        );
        let of_wal =
            ["forebay.wal.max.bytes", "forebay.wal.segment.bytes", "forebay.upload.bytes", "forebay.upload.ms"];
        assert_eq!(
            of_wal.map(environment_name),
            ["FOREBAY_WAL_MAX_BYTES", "FOREBAY_WAL_SEGMENT_BYTES", "FOREBAY_UPLOAD_BYTES", "FOREBAY_UPLOAD_MS"]
        );
    }
}
