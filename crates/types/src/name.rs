//! Topic names, by Kafka's rules (`org.apache.kafka.common.internals.Topic`).

use std::fmt;
use std::sync::Arc;

/// Longest topic name in bytes: with the partition's suffix it must fit a file name in Kafka, so clients rely on it.
const LENGTH_MAX: usize = 249;

/// A legal topic name; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a name is not a topic name. Kafka's code: `INVALID_TOPIC_EXCEPTION`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    #[error("the topic name is empty")]
    Empty,
    #[error("the topic name cannot be {0:?}")]
    Dots(String),
    #[error("the topic name is {0} characters long, the limit is {LENGTH_MAX}")]
    Long(usize),
    #[error("the topic name {0:?} has a character other than ASCII letters, digits, '.', '_' and '-'")]
    Character(String),
}

impl TopicName {
    /// # Errors
    /// Names the rule that `name` breaks.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        match name {
            "" => Err(TopicNameError::Empty),
            "." | ".." => Err(TopicNameError::Dots(name.to_owned())),
            _ if name.len() > LENGTH_MAX => Err(TopicNameError::Long(name.len())),
            _ if !name.bytes().all(legal) => Err(TopicNameError::Character(name.to_owned())),
            _ => Ok(Self(name.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Topics that the broker itself writes: `__consumer_offsets` and `__transaction_state`.
    pub fn is_internal(&self) -> bool {
        matches!(self.as_str(), "__consumer_offsets" | "__transaction_state")
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for bad in ["", ".", "..", "a b", "a/b", "é", "a\0", &"x".repeat(250)] {
            assert!(TopicName::new(bad).is_err(), "{bad:?} is no topic name");
        }
        for good in ["a", "...", "A.b_c-9", "__consumer_offsets", &"x".repeat(249)] {
            assert!(TopicName::new(good).is_ok(), "{good:?} is a topic name");
        }
    }
}
