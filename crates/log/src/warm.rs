//! Committed batches that stay in memory for readers just behind the tail, oldest out first, within a budget.

use std::collections::VecDeque;

use forebay_types::{ByteSize, Offset, TopicPartition};
use parking_lot::Mutex;

/// What all partitions together keep after it was committed.
pub(crate) struct Warm {
    budget: ByteSize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// In the order of their commits: a partition, the end of what it has in the upload, and the bytes of that.
    parts: VecDeque<(TopicPartition, Offset, usize)>,
    bytes: u64,
}

impl Warm {
    pub fn new(budget: ByteSize) -> Self {
        Self { budget, kept: Mutex::default() }
    }

    /// Adds what was just committed; gives what has to go, as partition and end offset.
    pub fn keep(&self, parts: impl Iterator<Item = (TopicPartition, Offset, usize)>) -> Vec<(TopicPartition, Offset)> {
        let mut kept = self.kept.lock();
        for part in parts {
            kept.bytes += part.2 as u64;
            kept.parts.push_back(part);
        }
        let mut released = Vec::new();
        while kept.bytes > self.budget.get()
            && let Some((partition, end, bytes)) = kept.parts.pop_front()
        {
            kept.bytes -= bytes as u64;
            released.push((partition, end));
        }
        released
    }

    pub fn bytes(&self) -> u64 {
        self.kept.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use forebay_types::{PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn the_oldest_commits_go_first_and_the_budget_holds() {
        let partition = TopicPartition { topic: TopicId::from_random([1; 16]), partition: PartitionIndex::ZERO };
        let end = |raw| Offset::new(raw).expect("not negative");
        let warm = Warm::new(ByteSize::new(100));
        assert_eq!(warm.keep([(partition, end(5), 60)].into_iter()), []);
        assert_eq!(warm.keep([(partition, end(9), 60)].into_iter()), [(partition, end(5))]);
        assert_eq!(warm.bytes(), 60);
        let released = warm.keep([(partition, end(12), 500)].into_iter());
        assert_eq!(released, [(partition, end(9)), (partition, end(12))], "one commit above the budget is not kept");
        assert_eq!(warm.bytes(), 0);
    }
}
