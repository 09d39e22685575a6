//! A configuration as clients see it: every key with its value, where the value comes from, and what it would be else.
//!
//! Source: Kafka's `ConfigHelper`, `DescribeConfigsResponse`; KIP-226 (synonyms), KIP-569 (types, docs).

use std::collections::BTreeMap;

use forebay_metadata::config::{ConfigKey, ConfigType, TOPIC_CONFIGS};

use crate::config::{self, BrokerConfig};

/// Where a value comes from, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Source {
    Topic = 1,
    Broker = 4,
    Default = 5,
    Logger = 6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub name: &'static str,
    /// `None` for a text that is not set.
    pub value: Option<String>,
    pub source: Source,
    /// What holds, then what would without it.
    pub synonyms: Vec<Synonym>,
    pub kind: ConfigType,
    pub doc: &'static str,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synonym {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
}

/// Every key of a topic, over the broker's defaults.
pub(crate) fn topic(broker: &BrokerConfig, set: &BTreeMap<String, String>) -> Vec<Described> {
    let defaults = broker.topic_defaults();
    TOPIC_CONFIGS.iter().map(|key| topic_key(broker, &defaults, set, key)).collect()
}

fn topic_key(
    broker: &BrokerConfig,
    defaults: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    key: &ConfigKey,
) -> Described {
    let mut synonyms = Vec::new();
    if let Some(value) = set.get(key.name) {
        synonyms.push(Synonym { name: key.name, value: value.clone(), source: Source::Topic });
    }
    for (name, _) in config::synonyms(key) {
        if let Some(value) = broker.set(name) {
            synonyms.push(Synonym { name, value: value.to_owned(), source: Source::Broker });
        }
    }
    synonyms.push(Synonym {
        name: key.synonym.unwrap_or(key.name),
        value: key.default.to_owned(),
        source: Source::Default,
    });
    let value = set.get(key.name).or_else(|| defaults.get(key.name)).map_or(key.default, String::as_str).to_owned();
    Described {
        name: key.name,
        value: Some(value),
        source: synonyms[0].source,
        synonyms,
        kind: key.kind,
        doc: key.doc,
        read_only: false,
    }
}

/// Every key of the broker. None can be changed while it runs.
pub(crate) fn broker(config: &BrokerConfig) -> Vec<Described> {
    let describe = |key: config::BrokerKey| {
        let set = config.set(key.name);
        let known = |value: &str, source| Synonym { name: key.name, value: value.to_owned(), source };
        let mut synonyms: Vec<Synonym> = set.map(|value| known(value, Source::Broker)).into_iter().collect();
        let default = Some(key.default).filter(|default| !default.is_empty());
        synonyms.extend(default.map(|default| known(default, Source::Default)));
        Described {
            name: key.name,
            value: set.or(default).map(str::to_owned),
            source: if set.is_some() { Source::Broker } else { Source::Default },
            synonyms,
            kind: key.kind,
            doc: key.doc,
            read_only: true,
        }
    };
    config::keys().map(describe).collect()
}

/// How much the broker logs.
pub(crate) fn logger() -> Described {
    let level = tracing::level_filters::LevelFilter::current().to_string().to_ascii_uppercase();
    Described {
        name: "root",
        value: Some(level.clone()),
        source: Source::Logger,
        synonyms: vec![Synonym { name: "root", value: level, source: Source::Logger }],
        kind: ConfigType::String,
        doc: "The level of the broker's log; it is set when the broker starts.",
        read_only: true,
    }
}

/// Kafka's number of a type.
pub(crate) fn kind_number(kind: ConfigType) -> i8 {
    match kind {
        ConfigType::Boolean => 1,
        ConfigType::String => 2,
        ConfigType::Int => 3,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn show(described: &Described) -> String {
        let synonyms = described.synonyms.iter().map(|s| format!("{}={} {:?}", s.name, s.value, s.source));
        let value = described.value.as_deref().unwrap_or("null");
        format!("{value} {:?} [{}]", described.source, synonyms.collect::<Vec<_>>().join(", "))
    }

    /// The topic's own value counts before the broker's, that before Kafka's, and the list tells all of them.
    #[test]
    fn a_value_has_its_source_and_what_lies_under_it() {
        let given = map(&[("log.retention.hours", "2"), ("compression.type", "zstd")]);
        let broker = BrokerConfig::parse(&given).expect("legal");
        let shown = |set: &[(&str, &str)], name: &str| {
            let all = topic(&broker, &map(set));
            show(all.iter().find(|key| key.name == name).expect("every key is described"))
        };
        assert_eq!(shown(&[], "cleanup.policy"), "delete Default [log.cleanup.policy=delete Default]");
        let compression = "zstd Broker [compression.type=zstd Broker, compression.type=producer Default]";
        assert_eq!(shown(&[], "compression.type"), compression);
        let hours = "7200000 Broker [log.retention.hours=2 Broker, log.retention.ms=604800000 Default]";
        assert_eq!(shown(&[], "retention.ms"), hours, "the value in the topic's unit, the synonym as it was set");
        let own = "5 Topic [retention.ms=5 Topic, log.retention.hours=2 Broker, log.retention.ms=604800000 Default]";
        assert_eq!(shown(&[("retention.ms", "5")], "retention.ms"), own);
        assert_eq!(topic(&broker, &map(&[])).len(), TOPIC_CONFIGS.len());
    }

    /// A text that is not set is null, as in Kafka.
    #[test]
    fn a_broker_describes_every_key() {
        let config = BrokerConfig::parse(&map(&[("node.id", "3")])).expect("legal");
        let all = broker(&config);
        let shown = |name: &str| show(all.iter().find(|key| key.name == name).expect("every key is described"));
        assert_eq!(shown("node.id"), "3 Broker [node.id=3 Broker, node.id=1 Default]");
        assert_eq!(shown("advertised.listeners"), "null Default []");
        assert!(all.iter().any(|key| key.name == "log.retention.ms"), "defaults of topics are the broker's too");
    }
}
