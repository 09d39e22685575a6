//! The range assignor, and the bytes in which members and leader tell each other of topics and partitions.
//!
//! Source: Kafka's `RangeAssignor`, `ConsumerProtocol`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_types::TopicName;
use forebay_wire::kafka::messages::consumer_protocol_assignment::TopicPartition;
use forebay_wire::kafka::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use forebay_wire::kafka::protocol::{Decodable, Encodable};

use crate::kafka::{Partition, by_topic, partition, text, wire_topic};

/// The partitions of one member, in order.
pub(crate) type Assignment = Vec<Partition>;

/// The version written: the first, which every reader knows.
const VERSION: i16 = 0;
/// The newest version read; later ones begin alike.
const VERSION_MAX: i16 = 3;

/// Topic by topic, consecutive partitions to consecutive members; the first members take one more where it does not
/// divide.
pub(super) fn range(
    members: &[(String, Vec<TopicName>)],
    partitions: &BTreeMap<TopicName, Vec<Partition>>,
) -> BTreeMap<String, Assignment> {
    let mut assigned: BTreeMap<String, Assignment> = members.iter().map(|(m, _)| (m.clone(), Vec::new())).collect();
    for (topic, partitions) in partitions {
        let mut interested: Vec<&String> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        interested.sort_unstable();
        let Some(each) = partitions.len().checked_div(interested.len()) else { continue };
        let more = partitions.len() % interested.len();
        let mut rest = &partitions[..];
        for (place, member) in interested.into_iter().enumerate() {
            let (own, others) = rest.split_at(each + usize::from(place < more));
            assigned.entry(member.clone()).or_default().extend_from_slice(own);
            rest = others;
        }
    }
    assigned
}

pub(super) fn encode_subscription(topics: &[TopicName]) -> Bytes {
    let topics = topics.iter().map(|topic| text(topic.as_str())).collect();
    encode(&ConsumerProtocolSubscription::default().with_topics(topics))
}

pub(super) fn decode_subscription(bytes: &Bytes) -> Result<Vec<TopicName>, String> {
    let subscription: ConsumerProtocolSubscription = decode(bytes)?;
    subscription.topics.iter().map(|topic| TopicName::new(topic).map_err(|error| error.to_string())).collect()
}

pub(super) fn encode_assignment(partitions: &Assignment) -> Bytes {
    let topics = by_topic(partitions.iter().map(|partition| (partition.clone(), ()))).into_iter();
    let topics = topics.map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, ())| index).collect();
        TopicPartition::default().with_topic(wire_topic(&topic)).with_partitions(partitions)
    });
    encode(&ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect()))
}

/// A member's partitions; none where the leader gave it nothing at all.
pub(crate) fn decode_assignment(bytes: &Bytes) -> Result<Assignment, String> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let assignment: ConsumerProtocolAssignment = decode(bytes)?;
    let all = assignment.assigned_partitions.iter();
    let all = all.flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.as_str(), *index)));
    all.map(|(topic, index)| partition(topic, index).ok_or_else(|| format!("{topic}-{index} is no partition")))
        .collect()
}

fn encode<T: Encodable>(message: &T) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    message.encode(&mut bytes, VERSION).expect("the first version has every field that is set");
    bytes.freeze()
}

fn decode<T: Decodable>(bytes: &Bytes) -> Result<T, String> {
    let mut bytes = bytes.clone();
    if bytes.len() < 2 {
        return Err(format!("{} bytes hold no version", bytes.len()));
    }
    let version = bytes.get_i16();
    if version < 0 {
        return Err(format!("version {version}"));
    }
    T::decode(&mut bytes, version.min(VERSION_MAX)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(topic: &str, count: i32) -> (TopicName, Vec<Partition>) {
        let all = (0..count).map(|index| partition(topic, index).expect("a legal partition"));
        (TopicName::new(topic).expect("a legal name"), all.collect())
    }

    fn members(described: &[(&str, &[&str])]) -> Vec<(String, Vec<TopicName>)> {
        let topics = |names: &[&str]| names.iter().map(|n| TopicName::new(n).expect("a legal name")).collect();
        described.iter().map(|(member, names)| ((*member).to_owned(), topics(names))).collect()
    }

    fn shown(assigned: &BTreeMap<String, Assignment>) -> String {
        let one = |(member, partitions): (&String, &Assignment)| {
            let names: Vec<_> = partitions.iter().map(ToString::to_string).collect();
            format!("{member}: {}", names.join(" "))
        };
        assigned.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// As Kafka's range assignor: by member id, the remainder to the first, topics one by one, nobody left out.
    #[test]
    fn ranges_are_kafkas() {
        let topics = BTreeMap::from([partitions("t", 3), partitions("u", 3)]);
        let all = members(&[("b", &["t", "u"]), ("a", &["t", "u"])]);
        assert_eq!(shown(&range(&all, &topics)), "a: t-0 t-1 u-0 u-1; b: t-2 u-2");
        let some = members(&[("a", &["t"]), ("b", &["t", "u"]), ("c", &["t"]), ("d", &["t"])]);
        assert_eq!(shown(&range(&some, &topics)), "a: t-0; b: t-1 u-0 u-1 u-2; c: t-2; d: ");
        assert_eq!(shown(&range(&members(&[("a", &[])]), &topics)), "a: ");
    }

    /// What a member or leader writes, the other reads; bytes of anybody else are errors, not panics.
    #[test]
    fn both_sides_understand_each_other() {
        let (topic, all) = partitions("orders", 4);
        assert_eq!(decode_assignment(&encode_assignment(&all)), Ok(all));
        assert_eq!(decode_subscription(&encode_subscription(std::slice::from_ref(&topic))), Ok(vec![topic]));
        assert_eq!(decode_assignment(&Bytes::new()), Ok(Vec::new()));
        for bad in [&b"\0"[..], b"\xff\xff", b"\0\0\0\0\0\x09"] {
            assert!(decode_assignment(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }
}
