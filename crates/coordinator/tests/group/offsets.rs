//! Offsets are committed, staged, fetched and forgotten. See `script` for how to read these.

use std::time::Duration;

use forebay_coordinator::machine::group::GroupConfig;

use crate::script::{check, check_with};

#[test]
fn who_has_no_members_may_commit_without_being_one() {
    // As Flink's source and operators do: no member id, generation -1.
    check(
        "
        > fetch g t-0
        #1 t-0 none
        > fetch g
        #2 nothing
        > commit g t-0=5 t-1=6 u-0=7
        +0 g t-0 = 5
        +1 g t-1 = 6
        +2 g u-0 = 7
        #3 t-0 ok, t-1 ok, u-0 ok
        > fetch g t-0 t-2
        #4 t-0 5, t-2 none
        > fetch g
        #5 t-0 5, t-1 6, u-0 7
        > commit g t-0=4
        +3 g t-0 = 4
        #6 t-0 ok
        > commit h t-0=5 generation=1 member=c-01
        #7 ILLEGAL_GENERATION
        > describe g
        #8 Empty /
        > list
        #9 g Empty
        > restart
        > fetch g
        #10 t-0 4, t-1 6, u-0 7
        ",
    );
}

#[test]
fn members_commit_in_their_generation() {
    check(
        "
        > join g v=3
        > wait 3s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t
        > commit g t-0=1 member=c-01 generation=1
        #2 REBALANCE_IN_PROGRESS
        > sync g member=c-01 generation=1
        +0 g generation 1 c-01:
        #3 assigned
        > commit g t-0=1 member=c-01 generation=1
        +1 g t-0 = 1
        #4 t-0 ok
        > commit g t-0=2 member=c-01 generation=0
        #5 ILLEGAL_GENERATION
        > commit g t-0=2 member=c-02 generation=1
        #6 UNKNOWN_MEMBER_ID
        > commit g t-0=2
        #7 UNKNOWN_MEMBER_ID
        > wait 9s
        > commit g t-0=2 member=c-01 generation=1
        +2 g t-0 = 2
        #8 t-0 ok
        > wait 9s
        > heartbeat g member=c-01 generation=1
        #9 ok
        > join g v=3
        > commit g t-0=3 member=c-01 generation=1
        +3 g t-0 = 3
        #11 t-0 ok
        > describe g
        #12 PreparingRebalance consumer/ c-01:: c-02::
        ",
    );
}

#[test]
fn long_metadata_is_refused_for_its_partition() {
    check(
        "
        > commit g t-0=1 metadata=4096
        +0 g t-0 = 1
        #1 t-0 ok
        > commit g t-0=2 t-1=2 metadata=4097
        #2 t-0 OFFSET_METADATA_TOO_LARGE, t-1 OFFSET_METADATA_TOO_LARGE
        > commit new t-0=2 metadata=4097
        #3 t-0 OFFSET_METADATA_TOO_LARGE
        > list
        #4 g Empty
        ",
    );
}

#[test]
fn transactional_offsets_are_seen_when_the_transaction_commits() {
    // Until then a fetch that wants stable offsets is told to come again; an abort leaves no trace.
    check(
        "
        > txn-commit g t-0=5 producer=7
        +0 g t-0 = 5 of producer 7
        #1 t-0 ok
        > fetch g t-0 t-1 stable
        #2 t-0 UNSTABLE_OFFSET_COMMIT, t-1 none
        > fetch g t-0
        #3 t-0 none
        > restart
        > fetch g t-0 stable
        #4 t-0 UNSTABLE_OFFSET_COMMIT
        > marker commit producer=7
        > fetch g t-0 stable
        #5 t-0 5
        > txn-commit g t-0=6 producer=7
        +2 g t-0 = 6 of producer 7
        #6 t-0 ok
        > txn-commit g t-0=7 producer=8
        +3 g t-0 = 7 of producer 8
        #7 t-0 ok
        > snapshot
        > marker abort producer=8
        > fetch g stable
        #8 t-0 UNSTABLE_OFFSET_COMMIT
        > marker abort producer=7
        > fetch g stable
        #9 t-0 5
        > restart
        > fetch g stable
        #10 t-0 5
        > txn-commit other t-0=1 producer=9
        +6 other t-0 = 1 of producer 9
        #11 t-0 ok
        > marker abort producer=9
        > list
        #12 g Empty
        ",
    );
}

#[test]
fn the_later_commit_wins_not_the_later_marker() {
    check(
        "
        > txn-commit g t-0=5 producer=7
        +0 g t-0 = 5 of producer 7
        #1 t-0 ok
        > commit g t-0=9
        +1 g t-0 = 9
        #2 t-0 ok
        > txn-commit g t-1=5 producer=8
        +2 g t-1 = 5 of producer 8
        #3 t-1 ok
        > marker commit producer=7
        > marker commit producer=8
        > fetch g
        #4 t-0 9, t-1 5
        ",
    );
}

#[test]
fn transactional_commits_are_fenced_by_member_and_generation() {
    // From version 3 on they say who they are (KIP-447); before, they say nothing and are let through.
    check(
        "
        > txn-commit g t-0=1 producer=7 member=c-01 generation=1
        #1 UNKNOWN_MEMBER_ID
        > join g v=3 instance=i
        > wait 3s
        #2 i-01 in generation 1 of range, leader i-01 i-01:t
        > txn-commit g t-0=1 producer=7 member=i-01 instance=i generation=1
        +0 g t-0 = 1 of producer 7
        #3 t-0 ok
        > txn-commit g t-0=2 producer=7 member=i-01 generation=2
        #4 ILLEGAL_GENERATION
        > txn-commit g t-0=2 producer=7 member=c-09 generation=1
        #5 UNKNOWN_MEMBER_ID
        > txn-commit g t-0=2 producer=7 member=c-09 instance=i generation=1
        #6 FENCED_INSTANCE_ID
        > txn-commit g t-0=2 producer=7
        +1 g t-0 = 2 of producer 7
        #7 t-0 ok
        > marker commit producer=7
        > fetch g
        #8 t-0 2
        ",
    );
}

#[test]
fn offsets_of_topics_that_members_read_are_not_deleted() {
    check(
        "
        > delete-offsets g t-0
        #1 GROUP_ID_NOT_FOUND
        > commit g t-0=1 u-0=2 u-1=3
        +0 g t-0 = 1
        +1 g u-0 = 2
        +2 g u-1 = 3
        #2 t-0 ok, u-0 ok, u-1 ok
        > delete-offsets g u-1 u-7
        +3 g u-1 gone
        #3 u-1 ok, u-7 ok
        > join g v=3
        > wait 3s
        #4 c-01 in generation 1 of range, leader c-01 c-01:t
        > delete-offsets g t-0 u-0
        +4 g u-0 gone
        #5 t-0 GROUP_SUBSCRIBED_TO_TOPIC, u-0 ok
        > join connect v=3 type=connect
        > delete-offsets connect t-0
        #7 NON_EMPTY_GROUP
        > fetch g
        #8 t-0 1
        ",
    );
}

#[test]
fn only_groups_without_members_are_deleted_and_nothing_comes_back() {
    check(
        "
        > delete g
        #1 GROUP_ID_NOT_FOUND
        > commit g t-0=1 t-1=1
        +0 g t-0 = 1
        +1 g t-1 = 1
        #2 t-0 ok, t-1 ok
        > txn-commit g t-1=2 t-2=2 producer=7
        +2 g t-1 = 2 of producer 7
        +3 g t-2 = 2 of producer 7
        #3 t-1 ok, t-2 ok
        > join g v=3
        > delete g
        #5 NON_EMPTY_GROUP
        > leave g c-01
        #4 UNKNOWN_MEMBER_ID
        #6 c-01 ok
        > wait 3s
        +4 g generation 1
        > delete g
        +5 g t-0 gone
        +6 g t-1 gone
        +7 g t-2 gone
        +8 g gone
        #7 ok
        > marker commit producer=7
        > fetch g
        #8 nothing
        > list
        #9
        > restart
        > list
        #10
        ",
    );
}

#[test]
fn a_topic_made_again_does_not_inherit_offsets() {
    // By id: the old one's offsets are not given for the new one, whether or not the deletion has come here yet.
    check(
        "
        > commit g t-0=100 t-1=100 u-0=1 id=1
        +0 g t-0 = 100
        +1 g t-1 = 100
        +2 g u-0 = 1
        #1 t-0 ok, t-1 ok, u-0 ok
        > fetch g t-0 id=1
        #2 t-0 100
        > fetch g t-0 id=2
        #3 t-0 none
        > restart
        > fetch g t-0 id=2
        #4 t-0 none
        > commit g t-0=5 id=2
        +3 g t-0 = 5
        #5 t-0 ok
        > txn-commit g t-1=7 producer=7 id=2
        +4 g t-1 = 7 of producer 7
        #6 t-1 ok
        > commit h t-0=100 id=1
        +5 h t-0 = 100
        #7 t-0 ok
        > delete-topic t id=1
        +6 h t-0 gone
        > fetch g t-0 t-1 id=2
        #8 t-0 5, t-1 none
        > marker commit producer=7
        > fetch g t-0 t-1 id=2
        #9 t-0 5, t-1 7
        > list
        #10 g Empty
        ",
    );
}

#[test]
fn offsets_are_kept_unless_somebody_says_otherwise() {
    check(
        "
        > commit g t-0=1
        +0 g t-0 = 1
        #1 t-0 ok
        > commit g t-1=1 retention=1d
        +1 g t-1 = 1
        #2 t-1 ok
        > wait 1d
        > sweep
        +2 g t-1 gone
        > wait 9999d
        > sweep
        > fetch g
        #3 t-0 1
        ",
    );
}

#[test]
fn retention_counts_from_each_commit_or_from_when_the_last_member_left() {
    let config = GroupConfig { offsets_retention: Some(Duration::from_hours(24)), ..GroupConfig::default() };
    check_with(
        config,
        "
        > commit simple t-0=1
        +0 simple t-0 = 1
        #1 t-0 ok
        > join g v=3 session=1800s
        > wait 3s
        #2 c-01 in generation 1 of range, leader c-01 c-01:t
        > sync g member=c-01 generation=1
        +1 g generation 1 c-01:
        #3 assigned
        > commit g t-0=1 u-0=1 member=c-01 generation=1
        +2 g t-0 = 1
        +3 g u-0 = 1
        #4 t-0 ok, u-0 ok
        > wait 1000s
        > commit simple t-1=1
        +4 simple t-1 = 1
        #5 t-1 ok
        > txn-commit simple t-0=3 producer=7
        +5 simple t-0 = 3 of producer 7
        #6 t-0 ok
        > heartbeat g member=c-01 generation=1
        #7 ok
        > wait 1000s
        > leave g c-01
        +6 g generation 2
        #8 c-01 ok
        > wait 85400s
        > sweep
        +7 simple t-1 gone
        > marker abort producer=7
        > sweep
        +9 simple t-0 gone
        > wait 999s
        > sweep
        > wait 1s
        > sweep
        +10 g t-0 gone
        +11 g u-0 gone
        +12 g gone
        > list
        #9
        ",
    );
}

#[test]
fn a_group_that_nothing_is_left_of_goes() {
    check(
        "
        > join g v=3
        > leave g c-01
        #1 UNKNOWN_MEMBER_ID
        #2 c-01 ok
        > wait 3s
        +0 g generation 1
        > sweep
        +1 g gone
        > list
        #3
        ",
    );
}

#[test]
fn a_log_in_which_a_transaction_ends_rings_no_alarm_for_a_group_that_is_gone() {
    // Sessions begin when the log is at its end: a marker before the group's tombstone must not begin them.
    check(
        "
        > join g v=3
        > wait 3s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t
        > sync g member=c-01 generation=1
        +0 g generation 1 c-01:
        #2 assigned
        > txn-commit g t-0=1 producer=7 member=c-01 generation=1
        +1 g t-0 = 1 of producer 7
        #3 t-0 ok
        > marker abort producer=7
        > leave g c-01
        +3 g generation 2
        #4 c-01 ok
        > delete g
        +4 g gone
        #5 ok
        > restart
        > wait 1s
        > list
        #6
        ",
    );
}
