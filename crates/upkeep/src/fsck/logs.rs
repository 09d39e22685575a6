//! Whether each log's pieces follow one another from the log start to the committed end.

use forebay_metadata::state::{Partition, TopicState};
use forebay_types::{Offset, TopicPartition};

use super::{Finding, Severity};
use crate::catalog::Catalog;

pub(super) fn check(catalog: &Catalog) -> Vec<Finding> {
    let mut found = Vec::new();
    for (id, partition) in &catalog.partitions {
        let state = catalog.topics.get(&id.topic).map(|topic| topic.state);
        match state {
            Some(TopicState::Live | TopicState::Trash { .. }) => one(catalog, *id, partition, &mut found),
            // Its extents go, from the oldest on.
            Some(TopicState::Purging) => {}
            None => {
                let what = format!("the metadata has partition {id} of a topic that it does not have");
                found.push(Finding::new(Severity::Error, what));
            }
        }
    }
    found
}

/// The offset before `end`, which is not the first.
pub(super) fn last_before(end: Offset) -> Offset {
    Offset::new(end.get() - 1).unwrap_or(Offset::ZERO)
}

fn one(catalog: &Catalog, id: TopicPartition, partition: &Partition, found: &mut Vec<Finding>) {
    let mut gap = |from: Offset, to: Offset, before: &str| {
        let what = format!("no object holds these offsets; {before}");
        found.push(Finding::new(Severity::Error, what).of(catalog.place(id)).with_offsets(from, last_before(to)));
    };
    let mut covered = partition.log_start;
    let mut overlaps = Vec::new();
    let mut last_end = Offset::ZERO;
    for piece in catalog.pieces(partition.log) {
        if piece.range.start() < last_end {
            overlaps.push((&piece.object, piece.range.start(), last_end.min(piece.range.end())));
        }
        last_end = last_end.max(piece.range.end());
        if piece.range.end() <= covered {
            continue;
        }
        if piece.range.start() > covered {
            gap(covered, piece.range.start(), &format!("the log goes on in {}", piece.object));
        }
        covered = piece.range.end();
    }
    let end = catalog.committed_end(partition.log);
    if covered < end {
        gap(covered, end, "they are committed");
    }
    for (object, start, end) in overlaps {
        let what = "another object holds these offsets too";
        let finding = Finding::new(Severity::Warning, what).in_object(object).of(catalog.place(id));
        found.push(finding.with_offsets(start, last_before(end)));
    }
}

#[cfg(test)]
mod tests {
    use forebay_metadata::Extent;
    use forebay_metadata::state::{Cluster, EpochStart, ExtentKey, Key, LogTail, Object, PinId, Row, Topic};
    use forebay_types::{
        ClusterId, LeaderEpoch, LogId, OffsetRange, PartitionIndex, ProducerId, Timestamp, TopicId, TopicName,
    };

    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::new(raw).expect("not negative")
    }

    /// Topic `orders` with one partition and the given extents, each in an object of its own; the findings in words.
    fn case(log_start: i64, extents: &[(i64, i64)], indexed_end: i64) -> Vec<String> {
        let topic = TopicId::from_random([1; 16]);
        let id = TopicPartition { topic, partition: PartitionIndex::ZERO };
        let log = LogId::ZERO;
        let now = Timestamp::from_millis(1);
        let cluster = Cluster {
            id: ClusterId::from_random([2; 16]),
            term: 1,
            answerable_since: now,
            next_log: log,
            next_pin: PinId::FIRST,
            next_producer_id: ProducerId::ZERO,
        };
        let name = TopicName::new("orders").expect("legal");
        let live = TopicState::Live;
        let epochs = vec![EpochStart { epoch: LeaderEpoch::ZERO, start: Offset::ZERO }];
        let tail = LogTail { indexed_end: offset(indexed_end), bytes: 0 };
        let mut rows = vec![
            (Key::Cluster, Row::Cluster(cluster)),
            (
                Key::Topic(topic),
                Row::Topic(Topic {
                    name,
                    config: std::collections::BTreeMap::new(),
                    partitions: 1,
                    created_at: now,
                    state: live,
                }),
            ),
            (Key::Partition(id), Row::Partition(Partition { log, owner: None, epochs, log_start: offset(log_start) })),
            (Key::LogTail(log), Row::LogTail(tail)),
        ];
        for (start, end) in extents {
            let range = OffsetRange::new(offset(*start), offset(*end)).expect("in order");
            let object = format!("from-{start}");
            rows.push((Key::Object(object.clone()), Row::Object(Object { size: 9, references: 1 })));
            let extent = Extent { range, object, size: 9, footer_position: 5, bytes: 5, max_timestamp: now };
            rows.push((Key::Extent(ExtentKey { log, end: range.end() }), Row::Extent(extent)));
        }
        let catalog = Catalog::of(&rows.into_iter().collect()).expect("a cluster's row is among them");
        check(&catalog).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_gap_is_told_with_the_records_that_are_missing() {
        let none: [&str; 0] = [];
        assert_eq!(case(0, &[(0, 10), (10, 30)], 30), none);
        assert_eq!(case(0, &[], 0), none, "an empty log");
        assert_eq!(case(40, &[], 30), none, "all of it was let go");
        assert_eq!(
            case(0, &[(0, 10), (20, 30)], 30),
            ["error: orders-0, offsets 10 to 19: no object holds these offsets; the log goes on in from-20"]
        );
        assert_eq!(
            case(5, &[(8, 10)], 10),
            ["error: orders-0, offsets 5 to 7: no object holds these offsets; the log goes on in from-8"]
        );
        assert_eq!(
            case(0, &[(0, 10)], 15),
            ["error: orders-0, offsets 10 to 14: no object holds these offsets; they are committed"]
        );
    }

    #[test]
    fn below_the_log_start_nothing_needs_to_be_there() {
        let none: [&str; 0] = [];
        assert_eq!(case(20, &[(0, 5), (20, 30)], 30), none, "some of it is let go already");
        assert_eq!(case(25, &[(20, 30)], 30), none, "the log starts inside an extent");
    }

    #[test]
    fn records_that_are_twice_there_are_told() {
        assert_eq!(
            case(0, &[(0, 10), (8, 30)], 30),
            ["warning: from-8: orders-0, offsets 8 to 9: another object holds these offsets too"]
        );
    }
}
