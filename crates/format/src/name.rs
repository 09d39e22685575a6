//! Names of objects in the bucket. Two digits of a hash come first, because a store spreads load by the beginning of
//! names (D5); the rest says what the object is and who made it, so that an orphan can be told by its name (D12).
//!
//! Invariants:
//! 1. One object, one name: parsing accepts nothing that writing does not produce, the digits included.
//! 2. Numbers are padded, so that the objects of one epoch sort as they were made.
//! 3. No two kinds share a name, and none begins with [`ObjectName::METADATA_FOLDER`].

use std::fmt;
use std::str::FromStr;

use forebay_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, WalSequence};
use uuid::Uuid;

use crate::crc::crc32c;

/// An object of ours in the bucket. The metadata database names its own, under [`Self::METADATA_FOLDER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// A data object that an uploader or a merge made.
    Data { broker: BrokerId, epoch: BrokerEpoch, sequence: WalSequence },
    /// A numbered write of an `object` WAL: a data object or a fence (D6).
    Wal { broker: BrokerId, epoch: BrokerEpoch, sequence: WalSequence },
    /// A producer snapshot, by its writer's own numbers.
    ProducerSnapshot { broker: BrokerId, epoch: BrokerEpoch, number: u64 },
    /// A coordinator's snapshot, by the partition and offset that it stands at.
    CoordinatorSnapshot { partition: TopicPartition, leader_epoch: LeaderEpoch, at: Offset },
    /// A journal entry.
    Journal { number: u64 },
}

/// Why a name is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} is not the name of an object that Forebay makes")]
    Form(String),
    #[error("the name {name:?} should begin with {wanted}: it was copied or renamed by hand")]
    Digits { name: String, wanted: String },
}

impl ObjectName {
    /// The folder of the metadata database's objects.
    pub const METADATA_FOLDER: &str = "metadata";

    fn digits(rest: &str) -> String {
        format!("{:02x}", crc32c(rest.as_bytes()) & 0xff)
    }

    fn rest(&self) -> String {
        match self {
            Self::Data { broker, epoch, sequence } => {
                format!("data/{broker}/{:020}/{:020}", epoch.get(), sequence.get())
            }
            Self::Wal { broker, epoch, sequence } => {
                format!("wal/{broker}/{:020}/{:020}", epoch.get(), sequence.get())
            }
            Self::ProducerSnapshot { broker, epoch, number } => {
                format!("snap/producers/{broker}/{:020}/{number:020}", epoch.get())
            }
            Self::CoordinatorSnapshot { partition: TopicPartition { topic, partition }, leader_epoch, at } => {
                format!("snap/coordinator/{topic}/{partition}/{:010}/{:020}", leader_epoch.get(), at.get())
            }
            Self::Journal { number } => format!("journal/{number:020}"),
        }
    }

    fn parse_rest(rest: &str) -> Option<Self> {
        let parts: Vec<&str> = rest.split('/').collect();
        let broker = |text: &str| BrokerId::new(text.parse().ok()?).ok();
        let epoch = |text: &str| BrokerEpoch::new(text.parse().ok()?).ok();
        Some(match parts.as_slice() {
            ["data", b, e, n] => {
                Self::Data { broker: broker(b)?, epoch: epoch(e)?, sequence: WalSequence::new(n.parse().ok()?) }
            }
            ["wal", b, e, n] => {
                Self::Wal { broker: broker(b)?, epoch: epoch(e)?, sequence: WalSequence::new(n.parse().ok()?) }
            }
            ["snap", "producers", b, e, n] => {
                Self::ProducerSnapshot { broker: broker(b)?, epoch: epoch(e)?, number: n.parse().ok()? }
            }
            ["snap", "coordinator", topic, partition, e, at] => {
                let partition = PartitionIndex::new(partition.parse().ok()?).ok()?;
                Self::CoordinatorSnapshot {
                    partition: TopicPartition { topic: parse_topic(topic)?, partition },
                    leader_epoch: LeaderEpoch::new(e.parse().ok()?).ok()?,
                    at: Offset::new(at.parse().ok()?).ok()?,
                }
            }
            ["journal", n] => Self::Journal { number: n.parse().ok()? },
            _ => return None,
        })
    }
}

/// A topic id as it is shown: 22 digits of URL-safe base64 (RFC 4648 section 5). The last digit's low bits are not
/// checked here: the whole name is compared with the one that would be written.
fn parse_topic(text: &str) -> Option<TopicId> {
    if text.len() != 22 {
        return None;
    }
    let digit = |byte: u8| -> Option<u128> {
        Some(u128::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        }))
    };
    let (last, first) = text.as_bytes().split_last()?;
    let high = first.iter().try_fold(0_u128, |value, byte| Some(value << 6 | digit(*byte)?))?;
    TopicId::new(Uuid::from_u128(high << 2 | digit(*last)? >> 4)).ok()
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.rest();
        write!(f, "{}/{rest}", Self::digits(&rest))
    }
}

impl FromStr for ObjectName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let form = || NameError::Form(name.to_owned());
        let (digits, rest) = name.split_once('/').ok_or_else(form)?;
        let parsed = Self::parse_rest(rest).filter(|parsed| parsed.rest() == rest).ok_or_else(form)?;
        let wanted = Self::digits(rest);
        if digits == wanted { Ok(parsed) } else { Err(NameError::Digits { name: name.to_owned(), wanted }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name with the right digits put before it.
    fn with_digits(rest: &str) -> String {
        format!("{}/{rest}", ObjectName::digits(rest))
    }

    #[test]
    fn a_name_that_we_would_not_write_is_refused() {
        let form = |name: &str| NameError::Form(name.to_owned());
        for rest in [
            "data/1/7/42",
            "data/01/00000000000000000007/00000000000000000042",
            "data/-1/00000000000000000007/00000000000000000042",
            "data/1/00000000000000000007/+0000000000000000042",
            "data/1/00000000000000000007/00000000000000000042/",
            "data/1/00000000000000000007",
            "waal/1/00000000000000000007/00000000000000000042",
            "snap/coordinator/AQEBAQEBAQEBAQEBAQEBAR/49/0000000006/00000000000000098765",
            "snap/coordinator/AAAAAAAAAAAAAAAAAAAAAA/49/0000000006/00000000000000098765",
            "metadata/wal/00000000000000000001.sst",
            "",
        ] {
            let name = with_digits(rest);
            assert_eq!(name.parse::<ObjectName>(), Err(form(&name)));
        }
        for name in ["", "/", "metadata/manifest", "6c"] {
            assert_eq!(name.parse::<ObjectName>(), Err(form(name)));
        }
    }

    #[test]
    fn wrong_digits_are_told_from_a_wrong_form() {
        let right = ObjectName::Journal { number: 5 }.to_string();
        let wrong = format!("{}/journal/00000000000000000005", if right.starts_with("00") { "01" } else { "00" });
        let error = wrong.parse::<ObjectName>().expect_err("wrong digits");
        assert_eq!(error, NameError::Digits { name: wrong, wanted: right[..2].to_owned() });
    }

    #[test]
    fn digits_spread_the_numbers_of_one_epoch() {
        // Of 256 names in a row each pair of digits gets about one: a CRC maps the numbers' last digits well apart.
        let digits = |sequence| {
            let sequence = WalSequence::new(sequence);
            ObjectName::Wal { broker: BrokerId::ZERO, epoch: BrokerEpoch::ZERO, sequence }.to_string()[..2].to_owned()
        };
        let distinct: std::collections::BTreeSet<String> = (0..256).map(digits).collect();
        assert!(distinct.len() > 100, "only {} beginnings among 256 names", distinct.len());
    }

    #[test]
    fn every_topic_id_reads_back() {
        for seed in 0..=255_u8 {
            let mut bits = [seed; 16];
            bits[usize::from(seed % 16)] = !seed;
            let topic = TopicId::from_random(bits);
            assert_eq!(parse_topic(&topic.to_string()), Some(topic));
        }
    }
}
