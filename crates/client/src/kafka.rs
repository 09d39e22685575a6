//! Between our words and those of the messages.

use std::fmt;

use forebay_types::{Offset, PartitionIndex, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages;
use forebay_wire::kafka::protocol::StrBytes;

use crate::ClientError;

/// One partition, by its topic's name: what a client addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: TopicName,
    pub index: PartitionIndex,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn wire_topic(name: &TopicName) -> messages::TopicName {
    messages::TopicName(text(name.as_str()))
}

pub(crate) fn wire_group(group: &str) -> messages::GroupId {
    messages::GroupId(text(group))
}

pub(crate) fn wire_transactional(id: &str) -> messages::TransactionalId {
    messages::TransactionalId(text(id))
}

/// The error code of a raw number; one that Kafka does not have counts as "unknown server error".
pub(crate) fn code(raw: i16) -> ErrorCode {
    ErrorCode::try_from(raw).unwrap_or(ErrorCode::UnknownServerError)
}

/// The first code that is not "none" and that `wanted` accepts.
pub(crate) fn first_code(mut raw: impl Iterator<Item = i16>, wanted: impl Fn(ErrorCode) -> bool) -> Option<ErrorCode> {
    raw.find_map(|raw| Some(code(raw)).filter(|code| *code != ErrorCode::None && wanted(*code)))
}

/// A partition named by the broker, or `None` where the name or the number is no legal one.
pub(crate) fn partition(topic: &str, index: i32) -> Option<Partition> {
    Some(Partition { topic: TopicName::new(topic).ok()?, index: PartitionIndex::new(index).ok()? })
}

/// An offset that Kafka may leave out by `-1`.
pub(crate) fn offset(raw: i64) -> Option<Offset> {
    Offset::new(raw).ok()
}

/// Topics with what belongs to each partition, in order: the shape of nearly every request.
pub(crate) fn by_topic<T>(items: impl IntoIterator<Item = (Partition, T)>) -> Vec<(TopicName, Vec<(i32, T)>)> {
    let mut topics: std::collections::BTreeMap<TopicName, Vec<(i32, T)>> = std::collections::BTreeMap::new();
    for (partition, item) in items {
        topics.entry(partition.topic).or_default().push((partition.index.get(), item));
    }
    topics.into_iter().collect()
}

pub(crate) fn optional_text(text: Option<&StrBytes>) -> Option<String> {
    text.map(ToString::to_string).filter(|text| !text.is_empty())
}

/// An error unless the raw code is "none".
pub(crate) fn check(what: &str, raw: i16, message: Option<&StrBytes>) -> Result<(), ClientError> {
    match code(raw) {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::Refused { what: what.to_owned(), code, message: optional_text(message) }),
    }
}

/// The one item that an answer to one question has.
pub(crate) fn only<T>(what: &str, items: Vec<T>) -> Result<T, ClientError> {
    let count = items.len();
    let mut items = items.into_iter();
    match (items.next(), count) {
        (Some(item), 1) => Ok(item),
        _ => Err(malformed(what, format!("{count} answers to one question"))),
    }
}

pub(crate) fn malformed(what: &str, reason: String) -> ClientError {
    ClientError::Malformed { what: what.to_owned(), address: "the broker".to_owned(), reason }
}
