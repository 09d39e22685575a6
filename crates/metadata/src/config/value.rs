//! What a configuration value may be.

use super::{ConfigError, ConfigKey};

/// The type that DescribeConfigs names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Long,
    Double,
    List,
}

/// Which values of the type are legal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Boolean,
    /// A whole number from the first to the second.
    Whole(i64, i64),
    /// The first, or a whole number from the second to the third.
    WholeOr(i64, i64, i64),
    Real(f64, f64),
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// `*`, or `partition:broker` items.
    Replicas,
    /// A release of Kafka's, or one of the states of its protocol in between.
    KafkaVersion,
}

/// Kafka's releases up to 4.0, with the number of numbered states of the protocol that led to each.
const KAFKA_RELEASES: &[(&str, u8)] = &[
    ("0.8.0", 0),
    ("0.8.1", 0),
    ("0.8.2", 0),
    ("0.9.0", 0),
    ("0.10.0", 2),
    ("0.10.1", 3),
    ("0.10.2", 1),
    ("0.11.0", 3),
    ("1.0", 1),
    ("1.1", 1),
    ("2.0", 2),
    ("2.1", 3),
    ("2.2", 2),
    ("2.3", 2),
    ("2.4", 2),
    ("2.5", 1),
    ("2.6", 1),
    ("2.7", 3),
    ("2.8", 2),
    ("3.0", 2),
    ("3.1", 1),
    ("3.2", 1),
    ("3.3", 4),
    ("3.4", 1),
    ("3.5", 3),
    ("3.6", 3),
    ("3.7", 5),
    ("3.8", 1),
    ("3.9", 1),
    ("4.0", 2),
];

/// The items of a comma separated list. An empty text is an empty list.
pub(super) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        t if t.eq_ignore_ascii_case("true") => Some(true),
        t if t.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

pub(super) fn whole(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

pub(super) fn real(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

impl Rule {
    fn allows(self, text: &str) -> bool {
        match self {
            Self::Boolean => boolean(text).is_some(),
            Self::Whole(low, high) => whole(text).is_some_and(|n| (low..=high).contains(&n)),
            Self::WholeOr(other, low, high) => whole(text).is_some_and(|n| n == other || (low..=high).contains(&n)),
            Self::Real(low, high) => real(text).is_some_and(|x| (low..=high).contains(&x)),
            Self::OneOf(names) => names.contains(&text.trim()),
            Self::ListOf(names) => items(text).all(|item| names.contains(&item)),
            Self::Replicas => text.trim() == "*" || items(text).all(is_replica),
            Self::KafkaVersion => is_kafka_version(text.trim()),
        }
    }

    fn wanted(self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Whole(low, i64::MAX) => format!("a whole number of {low} or more"),
            Self::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Self::WholeOr(other, low, high) => format!("{other}, or a whole number from {low} to {high}"),
            Self::Real(low, high) => format!("a number from {low} to {high}"),
            Self::OneOf(names) => format!("one of {}", names.join(", ")),
            Self::ListOf(names) => format!("a list of {}", names.join(", ")),
            Self::Replicas => "* or a list of partition:broker".to_owned(),
            Self::KafkaVersion => "a version of Kafka's up to 4.0, such as 2.8 or 3.0-IV1".to_owned(),
        }
    }
}

fn is_replica(item: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    item.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

/// As Kafka's `MetadataVersion.fromVersionString`: what follows the two or three numbers of a release is not looked at.
fn is_kafka_version(text: &str) -> bool {
    let numbers = if text.starts_with("0.") { 3 } else { 2 };
    let parts: Vec<&str> = text.trim_end_matches('.').split('.').collect();
    let version = if parts.len() > numbers { parts[..numbers].join(".") } else { text.to_owned() };
    KAFKA_RELEASES.iter().any(|(release, states)| match version.strip_prefix(release) {
        Some("") => true,
        Some(state) => (0..*states).any(|number| state == format!("-IV{number}")),
        None => false,
    })
}

impl ConfigKey {
    /// Checks one value.
    pub fn check(&self, value: &str) -> Result<(), ConfigError> {
        if self.rule.allows(value) { Ok(()) } else { Err(self.refuse(value)) }
    }

    pub(super) fn refuse(&self, value: &str) -> ConfigError {
        ConfigError::Value { name: self.name, value: value.to_owned(), wanted: self.rule.wanted() }
    }
}
