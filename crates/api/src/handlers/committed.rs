//! What OffsetCommit and TxnOffsetCommit share: positions in topics that may not be there.

use std::collections::BTreeMap;

use forebay_coordinator::machine::group::{CommitPartition, CommitTopic, TopicResults};
use forebay_types::PartitionIndex;
use forebay_wire::ErrorCode;

use crate::context::Context;
use crate::errors;
use crate::lookup;

/// A request's positions: those that can be committed, and all in its order.
pub(crate) struct Sorted {
    /// Positions in partitions that exist.
    pub known: Vec<CommitTopic>,
    asked: Vec<(String, Vec<(i32, bool)>)>,
}

impl Sorted {
    pub fn new<'a, P: Iterator<Item = CommitPartition>>(
        context: &Context,
        topics: impl Iterator<Item = (&'a str, P)>,
    ) -> Self {
        let (mut known, mut asked) = (Vec::new(), Vec::new());
        for (name, partitions) in topics {
            let row = lookup::row(context, name);
            let exists = |index| {
                row.as_ref()
                    .is_some_and(|row| PartitionIndex::new(index).is_ok_and(|index| row.partition(index).is_some()))
            };
            let partitions: Vec<(CommitPartition, bool)> =
                partitions.map(|partition| (exists(partition.index), partition)).map(|(known, p)| (p, known)).collect();
            asked.push((
                name.to_owned(),
                partitions.iter().map(|(partition, known)| (partition.index, *known)).collect(),
            ));
            let existing: Vec<CommitPartition> =
                partitions.into_iter().filter(|(_, known)| *known).map(|(partition, _)| partition).collect();
            if let Some(row) = row.filter(|_| !existing.is_empty()) {
                known.push(CommitTopic { topic: row.name.clone(), topic_id: Some(row.id), partitions: existing });
            }
        }
        Self { known, asked }
    }

    /// A code for every position, in the request's order.
    pub fn answer(self, outcome: &Result<Vec<TopicResults>, ErrorCode>) -> Vec<(String, Vec<(i32, ErrorCode)>)> {
        let mut codes = BTreeMap::new();
        for topic in outcome.iter().flatten() {
            for (index, result) in &topic.partitions {
                let code = result.map_or_else(errors::coordinator::group, |()| ErrorCode::None);
                codes.insert((topic.topic.as_str(), *index), code);
            }
        }
        let failed = outcome.as_ref().err().copied();
        let code_of = |name: &str, index, known| match (known, failed) {
            (false, _) => ErrorCode::UnknownTopicOrPartition,
            (true, Some(code)) => code,
            (true, None) => *codes.get(&(name, index)).expect("the coordinator answers for each partition"),
        };
        let answer = |(name, partitions): &(String, Vec<(i32, bool)>)| {
            let codes = partitions.iter().map(|(index, known)| (*index, code_of(name, *index, *known)));
            (name.clone(), codes.collect())
        };
        self.asked.iter().map(answer).collect()
    }
}
