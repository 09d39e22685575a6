//! The offsets of one group: committed, and staged by transactions that are still open.
//!
//! Invariants:
//! 1. A staged offset is not seen by a fetch; when its transaction commits it becomes the committed one unless that
//!    came from a later record; when it aborts it is gone.
//! 2. A tombstone removes what was committed *and* what was staged before it: nothing comes back after a delete.

use std::collections::BTreeMap;

use forebay_types::{Offset, ProducerId, Timestamp, TopicId, TopicName};

/// One committed or staged position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub position: i64,
    /// -1 for none.
    pub leader_epoch: i32,
    pub metadata: Box<str>,
    pub written_at: Timestamp,
    /// Where the client named its own retention.
    pub expires_at: Option<Timestamp>,
    pub topic_id: Option<TopicId>,
    /// Where its record stands.
    pub record: Offset,
}

impl Committed {
    /// Whether it is for the topic with that id. Where one of the two is not known, the name has to do.
    pub fn is_for(&self, id: Option<TopicId>) -> bool {
        match (self.topic_id, id) {
            (Some(mine), Some(asked)) => mine == asked,
            _ => true,
        }
    }
}

pub(super) type ByPartition = BTreeMap<TopicName, BTreeMap<i32, Box<Committed>>>;

#[derive(Debug, Default)]
pub(super) struct Offsets {
    committed: ByPartition,
    staged: BTreeMap<ProducerId, ByPartition>,
}

impl Offsets {
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.staged.is_empty()
    }

    pub fn committed(&self) -> &ByPartition {
        &self.committed
    }

    pub fn staged(&self) -> &BTreeMap<ProducerId, ByPartition> {
        &self.staged
    }

    pub fn get(&self, topic: &TopicName, partition: i32) -> Option<&Committed> {
        self.committed.get(topic)?.get(&partition).map(|boxed| &**boxed)
    }

    /// Whether an open transaction has staged a position there.
    pub fn is_staged(&self, topic: &TopicName, partition: i32) -> bool {
        self.staged.values().any(|staged| staged.get(topic).is_some_and(|by| by.contains_key(&partition)))
    }

    pub fn commit(&mut self, topic: &TopicName, partition: i32, committed: Committed) {
        put(&mut self.committed, topic, partition, Box::new(committed));
    }

    pub fn stage(&mut self, producer: ProducerId, topic: &TopicName, partition: i32, committed: Committed) {
        put(self.staged.entry(producer).or_default(), topic, partition, Box::new(committed));
    }

    /// The producer's transaction is over.
    pub fn end_transaction(&mut self, producer: ProducerId, committed: bool) {
        let Some(staged) = self.staged.remove(&producer).filter(|_| committed) else { return };
        for (topic, partitions) in staged {
            for (partition, offset) in partitions {
                if self.get(&topic, partition).is_none_or(|present| present.record < offset.record) {
                    put(&mut self.committed, &topic, partition, offset);
                }
            }
        }
    }

    /// Whether there is anything in any partition of the topic.
    pub fn touches(&self, topic: &TopicName) -> bool {
        self.committed.contains_key(topic) || self.staged.values().any(|staged| staged.contains_key(topic))
    }

    /// Whether there is anything there, committed or staged.
    pub fn has(&self, topic: &TopicName, partition: i32) -> bool {
        self.get(topic, partition).is_some() || self.is_staged(topic, partition)
    }

    /// As a tombstone does.
    pub fn remove(&mut self, topic: &TopicName, partition: i32) {
        take(&mut self.committed, topic, partition);
        self.staged.retain(|_, staged| {
            take(staged, topic, partition);
            !staged.is_empty()
        });
    }

    /// Every partition with anything committed or staged that `wanted` takes, in order.
    pub fn partitions(&self, wanted: impl Fn(&TopicName, &Committed) -> bool) -> Vec<(TopicName, i32)> {
        let all = std::iter::once(&self.committed).chain(self.staged.values());
        let mut found: Vec<_> = all
            .flat_map(|by| {
                by.iter().flat_map(|(topic, of)| of.iter().map(move |(partition, it)| (topic, *partition, it)))
            })
            .filter(|(topic, _, committed)| wanted(topic, committed))
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

fn put(map: &mut ByPartition, topic: &TopicName, partition: i32, committed: Box<Committed>) {
    match map.get_mut(topic) {
        Some(partitions) => _ = partitions.insert(partition, committed),
        None => _ = map.insert(topic.clone(), BTreeMap::from([(partition, committed)])),
    }
}

fn take(map: &mut ByPartition, topic: &TopicName, partition: i32) {
    if let Some(partitions) = map.get_mut(topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            map.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(position: i64, record: i64) -> Committed {
        Committed {
            position,
            leader_epoch: -1,
            metadata: "".into(),
            written_at: Timestamp::default(),
            expires_at: None,
            topic_id: None,
            record: Offset::new(record).expect("not negative"),
        }
    }

    #[test]
    fn the_later_record_wins_not_the_later_marker() {
        // A transaction stages 10 and 20; a plain commit of 15 goes between the two in one partition, after both in the other.
        let topic = TopicName::new("t").expect("legal");
        let producer = ProducerId::new(7).expect("not negative");
        let mut offsets = Offsets::default();
        offsets.stage(producer, &topic, 0, committed(10, 0));
        offsets.commit(&topic, 0, committed(15, 1));
        offsets.commit(&topic, 1, committed(15, 2));
        offsets.stage(producer, &topic, 1, committed(20, 3));
        offsets.end_transaction(producer, true);
        assert_eq!(offsets.get(&topic, 0).map(|c| c.position), Some(15));
        assert_eq!(offsets.get(&topic, 1).map(|c| c.position), Some(20));
    }

    #[test]
    fn nothing_comes_back_after_a_tombstone() {
        let topic = TopicName::new("t").expect("legal");
        let producer = ProducerId::new(7).expect("not negative");
        let mut offsets = Offsets::default();
        offsets.stage(producer, &topic, 0, committed(10, 0));
        offsets.remove(&topic, 0);
        offsets.end_transaction(producer, true);
        assert!(offsets.is_empty());
    }
}
