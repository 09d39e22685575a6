//! Topic configuration: every key that Kafka knows and ours, what a value may be, and the values as types.
//!
//! Owns: the table, checking and changing a topic's configuration. Leaves to others: configurations of brokers, which
//! live with the broker (it may give other defaults here), and what a value does (`log`, `upkeep`).
//!
//! Invariants:
//! 1. A stored configuration holds known keys with legal values only, in the form that the client gave.
//! 2. Every key has a default, and [`TopicConfig`] can be read from any legal configuration.
//!
//! Sources: Kafka's `LogConfig`, `TopicConfig` and `ServerTopicConfigSynonyms` (4.2; 3.9 for keys that went with 4.0), KIP-226 (dynamic), KIP-339 (incremental).

mod nearest;
mod table;
mod typed;
mod value;

use std::collections::BTreeMap;

use crate::command::{ConfigChange, ConfigOp};

pub use table::TOPIC_CONFIGS;
pub use typed::{Cleanup, CompressionType, TimestampType, TopicConfig, TopicWal};
pub use value::{ConfigType, Rule};

/// One key of a topic's configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfigKey {
    pub name: &'static str,
    pub kind: ConfigType,
    /// As DescribeConfigs shows it.
    pub default: &'static str,
    pub rule: Rule,
    /// The broker's key that sets the default for all topics, where Kafka has one.
    pub synonym: Option<&'static str>,
    /// One line for people.
    pub doc: &'static str,
}

/// A configuration that cannot be. Kafka's code: `INVALID_CONFIG`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown topic config {name}{}", hint(nearest.as_ref()))]
    Unknown { name: String, nearest: Option<&'static str> },
    #[error("invalid value {value:?} for topic config {name}: it must be {wanted}")]
    Value { name: &'static str, value: String, wanted: String },
    #[error("topic config {name} is not a list: append and subtract do not apply")]
    NotAList { name: &'static str },
    #[error("topic config {low} ({low_value}) is above {high} ({high_value})")]
    Crossed { low: &'static str, low_value: i64, high: &'static str, high_value: i64 },
}

fn hint(nearest: Option<&&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// The key of that name.
///
/// # Errors
/// Unknown, with the nearest known name.
pub fn key(name: &str) -> Result<&'static ConfigKey, ConfigError> {
    TOPIC_CONFIGS.iter().find(|key| key.name == name).ok_or_else(|| ConfigError::Unknown {
        name: name.to_owned(),
        nearest: nearest::nearest(name, TOPIC_CONFIGS.iter().map(|key| key.name)),
    })
}

/// Checks a whole configuration.
pub fn validate(config: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, value) in config {
        key(name)?.check(value)?;
    }
    let typed = TopicConfig::resolve(config, &BTreeMap::new())?;
    if typed.min_compaction_lag_ms > typed.max_compaction_lag_ms {
        return Err(ConfigError::Crossed {
            low: "min.compaction.lag.ms",
            low_value: typed.min_compaction_lag_ms,
            high: "max.compaction.lag.ms",
            high_value: typed.max_compaction_lag_ms,
        });
    }
    Ok(())
}

/// A topic's configuration after `change`.
pub fn change(held: &BTreeMap<String, String>, change: &ConfigChange) -> Result<BTreeMap<String, String>, ConfigError> {
    if let ConfigChange::Incremental(ops) = change {
        for (name, op) in ops {
            let key = key(name)?;
            if matches!(op, ConfigOp::Append(_) | ConfigOp::Subtract(_)) && key.kind != ConfigType::List {
                return Err(ConfigError::NotAList { name: key.name });
            }
        }
    }
    let mut with_defaults = held.clone();
    if let ConfigChange::Incremental(ops) = change {
        // Appending to a list that was never set appends to its default.
        for (name, op) in ops {
            if matches!(op, ConfigOp::Append(_) | ConfigOp::Subtract(_)) {
                with_defaults.entry(name.clone()).or_insert_with(|| key(name).map_or("", |key| key.default).to_owned());
            }
        }
    }
    let config = change_map(&with_defaults, change);
    validate(&config)?;
    Ok(config)
}

/// A configuration after `change`, its keys and values unchecked.
pub fn change_map(held: &BTreeMap<String, String>, change: &ConfigChange) -> BTreeMap<String, String> {
    let ops = match change {
        ConfigChange::Replace(config) => return config.clone(),
        ConfigChange::Incremental(ops) => ops,
    };
    let mut config = held.clone();
    for (name, op) in ops {
        let items = |config: &BTreeMap<String, String>| -> Vec<String> {
            config.get(name).map(|list| value::items(list).map(str::to_owned).collect()).unwrap_or_default()
        };
        match op {
            ConfigOp::Set(value) => drop(config.insert(name.clone(), value.clone())),
            ConfigOp::Delete => drop(config.remove(name)),
            ConfigOp::Append(more) => {
                let mut list = items(&config);
                for item in value::items(more) {
                    if !list.iter().any(|held| held == item) {
                        list.push(item.to_owned());
                    }
                }
                config.insert(name.clone(), list.join(","));
            }
            ConfigOp::Subtract(less) => {
                let mut list = items(&config);
                list.retain(|held| !value::items(less).any(|item| item == held));
                config.insert(name.clone(), list.join(","));
            }
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_wrong_key_is_refused_with_the_nearest_one() {
        let error = validate(&map(&[("retention.sm", "1")])).expect_err("no such key");
        assert_eq!(error.to_string(), "unknown topic config retention.sm; did you mean retention.ms?");
        let error = validate(&map(&[("zzz", "1")])).expect_err("no such key");
        assert_eq!(error.to_string(), "unknown topic config zzz");
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_it_must_be() {
        for (name, value, wanted) in [
            ("retention.ms", "-2", "a whole number of -1 or more"),
            ("retention.ms", "soon", "a whole number of -1 or more"),
            ("max.message.bytes", "2147483648", "a whole number from 0 to 2147483647"),
            ("cleanup.policy", "compact,shred", "a list of compact, delete"),
            ("min.cleanable.dirty.ratio", "1.5", "a number from 0 to 1"),
            ("message.timestamp.type", "createtime", "one of CreateTime, LogAppendTime"),
            ("compression.gzip.level", "0", "-1, or a whole number from 1 to 9"),
            ("preallocate", "yes", "true or false"),
            ("leader.replication.throttled.replicas", "0-1", "* or a list of partition:broker"),
            ("message.downconversion.enable", "no", "true or false"),
            ("message.format.version", "5.0", "a version of Kafka's up to 4.0, such as 2.8 or 3.0-IV1"),
            ("message.timestamp.difference.max.ms", "-1", "a whole number of 0 or more"),
        ] {
            let error = validate(&map(&[(name, value)])).expect_err(value);
            let expected = format!("invalid value {value:?} for topic config {name}: it must be {wanted}");
            assert_eq!(error.to_string(), expected);
        }
        let crossed = validate(&map(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]));
        assert!(matches!(crossed, Err(ConfigError::Crossed { .. })), "{crossed:?}");
    }

    /// As Kafka 3.9's `MetadataVersion.fromVersionString` takes them, its own tests' cases among them.
    #[test]
    fn versions_of_kafka_are_told_from_others() {
        let legal = |version: &str| validate(&map(&[("message.format.version", version)])).is_ok();
        for version in [
            "0.8.0",
            "0.8.2.0",
            "0.9.0.1",
            "0.10.1-IV2",
            "0.11.0.1",
            "1.0.1",
            "2.8.1",
            "3.0-IV1",
            "3.7-IV4",
            "3.9",
            "4.0",
        ] {
            assert!(legal(version), "{version}");
        }
        for version in
            ["", "0.8", "0.9.0-IV0", "0.10.1-IV3", "0.10", "2", "2.9", "3.0-IV2", "3.0-iv1", "3.0.", "4.1", "latest"]
        {
            assert!(!legal(version), "{version}");
        }
    }

    /// The old key for both directions counts where a direction is without a bound of its own, whoever set it.
    #[test]
    fn the_difference_bounds_what_nothing_else_bounds() {
        const HOUR: i64 = 3_600_000;
        const BOTH: &str = "message.timestamp.difference.max.ms";
        const BEFORE: &str = "message.timestamp.before.max.ms";
        const AFTER: &str = "message.timestamp.after.max.ms";
        let max = i64::MAX.to_string();
        let bounds = |topic: &[(&str, &str)], broker: &[(&str, &str)]| {
            let config = TopicConfig::resolve(&map(topic), &map(broker)).expect("legal");
            (config.timestamp_before_max_ms, config.timestamp_after_max_ms)
        };
        assert_eq!(bounds(&[], &[]), (i64::MAX, HOUR));
        assert_eq!(bounds(&[(BOTH, "5")], &[]), (5, 5));
        assert_eq!(bounds(&[], &[(BOTH, "5")]), (5, 5));
        assert_eq!(bounds(&[(BOTH, "5")], &[(BOTH, "6")]), (5, 5));
        assert_eq!(bounds(&[(BOTH, "5"), (BEFORE, "7")], &[(AFTER, "8")]), (7, 8));
        assert_eq!(bounds(&[(BOTH, "5"), (BEFORE, &max), (AFTER, &max)], &[]), (5, 5));
        assert_eq!(bounds(&[(BOTH, &max)], &[]), (i64::MAX, i64::MAX));
        assert_eq!(bounds(&[(AFTER, &max)], &[]), (i64::MAX, i64::MAX));
    }

    #[test]
    fn every_default_is_legal_and_every_key_is_there_once() {
        let defaults: Vec<_> = TOPIC_CONFIGS.iter().map(|key| (key.name, key.default)).collect();
        assert_eq!(validate(&map(&defaults)), Ok(()));
        let names: std::collections::BTreeSet<_> = TOPIC_CONFIGS.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), TOPIC_CONFIGS.len());
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|key| key.name), "sorted, so that a reader finds a key");
    }

    #[test]
    fn lists_are_appended_to_and_subtracted_from() {
        let append = |v: &str| ConfigChange::Incremental(vec![("cleanup.policy".into(), ConfigOp::Append(v.into()))]);
        let subtract =
            |v: &str| ConfigChange::Incremental(vec![("cleanup.policy".into(), ConfigOp::Subtract(v.into()))]);
        let both = change(&map(&[]), &append("compact")).expect("legal");
        assert_eq!(both, map(&[("cleanup.policy", "delete,compact")]), "the default is what is appended to");
        assert_eq!(change(&both, &append("compact")).expect("legal"), both, "nothing is there twice");
        let compact = change(&both, &subtract("delete")).expect("legal");
        assert_eq!(compact, map(&[("cleanup.policy", "compact")]));
        let retention = ConfigChange::Incremental(vec![("retention.ms".into(), ConfigOp::Append("1".into()))]);
        assert_eq!(change(&compact, &retention), Err(ConfigError::NotAList { name: "retention.ms" }));
    }

    #[test]
    fn replacing_forgets_what_is_not_named_and_a_deleted_key_is_default_again() {
        let held = map(&[("retention.ms", "1"), ("retention.bytes", "2")]);
        let replaced = change(&held, &ConfigChange::Replace(map(&[("segment.ms", "9")]))).expect("legal");
        assert_eq!(replaced, map(&[("segment.ms", "9")]));
        let ops =
            vec![("retention.ms".to_owned(), ConfigOp::Delete), ("segment.ms".to_owned(), ConfigOp::Set("3".into()))];
        let changed = change(&held, &ConfigChange::Incremental(ops)).expect("legal");
        assert_eq!(changed, map(&[("retention.bytes", "2"), ("segment.ms", "3")]));
    }

    #[test]
    fn a_configuration_is_read_as_types_over_the_brokers_defaults() {
        let broker = map(&[("retention.ms", "5000"), ("max.message.bytes", "10")]);
        let config = TopicConfig::resolve(&map(&[("max.message.bytes", "20"), ("cleanup.policy", "compact")]), &broker);
        let config = config.expect("legal");
        assert_eq!((config.retention_ms, config.max_message_bytes), (Some(5_000), 20));
        assert_eq!(config.cleanup, Cleanup { delete: false, compact: true });
        assert_eq!((config.retention_bytes, config.wal), (None, TopicWal::Auto));
    }
}
