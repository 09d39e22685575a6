//! Who and what: brokers, topics, partitions, logs, producers, and the epochs that fence their older selves.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::OutOfRange;

/// A non-negative integer id or epoch: `new` checks, `get` gives the raw number, `next` the one after.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            pub const ZERO: Self = Self(0);
            pub const MAX: Self = Self(<$raw>::MAX);

            /// # Errors
            /// A negative number is out of range.
            #[allow(unused_comparisons)]
            pub fn new(raw: $raw) -> Result<Self, OutOfRange> {
                if raw < 0 { Err(OutOfRange::new($what, "0 or more", raw)) } else { Ok(Self(raw)) }
            }

            pub const fn get(self) -> $raw {
                self.0
            }

            /// The one after, or `None` where the range ends: an epoch or id is never used twice.
            #[must_use]
            pub fn next(self) -> Option<Self> {
                self.0.checked_add(1).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A broker's number in its cluster, Kafka's `node.id`.
    BrokerId, i32, "broker id"
);
number!(
    /// One life of a broker process. Minted by the metadata, grows with every start, never used twice (D6).
    BrokerEpoch, u64, "broker epoch"
);
number!(
    /// The owner epoch of a partition, which is Kafka's leader epoch (KIP-320). Only grows (D1).
    LeaderEpoch, i32, "leader epoch"
);
number!(
    /// A partition's number in its topic.
    PartitionIndex, i32, "partition"
);
number!(
    /// The log that a partition writes to, minted with the partition; a fork shares ranges of its parent's log (D11).
    LogId, u64, "log id"
);
number!(
    /// An idempotent or transactional producer (KIP-98).
    ProducerId, i64, "producer id"
);
number!(
    /// One life of a producer id; a higher one fences every lower one (KIP-98).
    ProducerEpoch, i16, "producer epoch"
);

/// Kafka's topic id: stable for the life of a topic, new when a topic of the same name is created again (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Uuid);

impl TopicId {
    /// # Errors
    /// The nil UUID is Kafka's "no id", and so is not a topic id.
    pub fn new(raw: Uuid) -> Result<Self, OutOfRange> {
        if raw.is_nil() { Err(OutOfRange::new("topic id", "a UUID other than nil", raw)) } else { Ok(Self(raw)) }
    }

    /// A fresh id from 128 random bits. Never begins with `-` as text, so that it can stand on a command line.
    pub fn from_random(mut bits: [u8; 16]) -> Self {
        bits[0] &= 0x7f;
        bits[15] |= 1;
        Self(uuid::Builder::from_random_bytes(bits).into_uuid())
    }

    pub const fn get(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(self.0.as_bytes()))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// One partition of one topic, by id: a topic created again under the same name is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// The cluster's id as clients see it: 22 characters of URL-safe base64, as Kafka makes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(String);

impl ClusterId {
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(base64url(TopicId::from_random(bits).0.as_bytes()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ok = text.len() == 22 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(OutOfRange::new("cluster id", "22 characters of URL-safe base64", text.escape_debug()))
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sixteen bytes as 22 characters of unpadded URL-safe base64 (RFC 4648 section 5), as Kafka prints a UUID.
fn base64url(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = u128::from_be_bytes(*bytes);
    let digit = |i: u32| -> char {
        // 22 digits hold 132 bits; the last digit's low four bits are padding.
        let bits = if i == 21 { (value << 4) & 0x3f } else { (value >> (122 - 6 * i)) & 0x3f };
        char::from(ALPHABET[usize::try_from(bits).expect("six bits fit")])
    };
    (0..22).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_kafka_reserves() {
        assert_eq!(ProducerId::new(-1).unwrap_err().to_string(), "producer id must be 0 or more, not -1");
        assert!(TopicId::new(Uuid::nil()).is_err());
        assert_eq!(LeaderEpoch::MAX.next(), None, "an epoch never wraps");
    }

    #[test]
    fn a_topic_id_prints_as_kafka_prints_it() {
        // Kafka's Uuid.METADATA_TOPIC_ID is (0, 1), which its tools print so.
        let one = TopicId::new(Uuid::from_u128(1)).expect("not nil");
        assert_eq!(one.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        let all = TopicId::new(Uuid::from_u128(u128::MAX)).expect("not nil");
        assert_eq!(all.to_string(), "_____________________w");
    }

    #[test]
    fn a_random_id_can_stand_on_a_command_line() {
        assert!(!TopicId::from_random([0xff; 16]).to_string().starts_with('-'));
        assert!("not an id".parse::<ClusterId>().is_err());
        let made = ClusterId::from_random([7; 16]);
        assert_eq!(made.as_str().parse::<ClusterId>(), Ok(made));
    }
}
