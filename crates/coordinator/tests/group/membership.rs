//! Members come, go, share and lose their share. See `script` for how to read these.

use std::time::Duration;

use forebay_coordinator::machine::group::{
    Caller, GroupConfig, GroupError, Join, JoinRefused, Leave, Leaver, Reply, Request, Sync as SyncRequest,
};

use crate::script::{World, check, check_with};

#[test]
fn two_members_share_and_a_third_disturbs_them() {
    // The plain life of a group: two steps to join, one generation, another one when somebody comes.
    check(
        "
        > join g
        #1 MEMBER_ID_REQUIRED c-01
        > join g member=c-01
        > join g
        #3 MEMBER_ID_REQUIRED c-02
        > join g member=c-02
        > wait 3s
        > wait 3s
        #2 c-01 in generation 1 of range, leader c-01 c-01:t c-02:t
        #4 c-02 in generation 1 of range, leader c-01
        > heartbeat g member=c-02 generation=1
        #5 ok
        > sync g member=c-02 generation=1
        > describe g
        #7 CompletingRebalance consumer/ c-01:: c-02::
        > sync g member=c-01 generation=1 assign=c-01:t-0;c-02:t-1
        +0 g generation 1 c-01:t-0 c-02:t-1
        #8 assigned t-0
        #6 assigned t-1
        > heartbeat g member=c-02 generation=1
        #9 ok
        > join g
        #10 MEMBER_ID_REQUIRED c-03
        > heartbeat g member=c-02 generation=1
        #11 ok
        > join g member=c-03 protocols=range:t,u
        > heartbeat g member=c-02 generation=1
        #13 REBALANCE_IN_PROGRESS
        > join g member=c-02
        > join g member=c-01
        #15 c-01 in generation 2 of range, leader c-01 c-01:t c-02:t c-03:t,u
        #14 c-02 in generation 2 of range, leader c-01
        #12 c-03 in generation 2 of range, leader c-01
        > sync g member=c-01 generation=1
        #16 ILLEGAL_GENERATION
        ",
    );
}

#[test]
fn assignments_come_from_the_leader_alone() {
    check(
        "
        > join g v=3
        > join g v=3
        > wait 6s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t c-02:t
        #2 c-02 in generation 1 of range, leader c-01
        > sync g member=c-02 generation=1 assign=c-02:everything
        > sync g member=c-01 generation=2
        #4 ILLEGAL_GENERATION
        > sync g member=c-09 generation=1
        #5 UNKNOWN_MEMBER_ID
        > sync g member=c-01 generation=1 protocol=sticky
        #6 INCONSISTENT_GROUP_PROTOCOL
        > sync g member=c-01 generation=1 type=connect
        #7 INCONSISTENT_GROUP_PROTOCOL
        > sync g member=c-01 generation=1 type=consumer protocol=range assign=c-02:t-1
        +0 g generation 1 c-01: c-02:t-1
        #8 assigned
        #3 assigned t-1
        > sync g member=c-02 generation=1
        #9 assigned t-1
        > describe g
        #10 Stable consumer/range c-01:t: c-02:t:t-1
        > list
        #11 g Stable
        > list states=empty,preparingrebalance
        #12
        > list states=STABLE types=Classic
        #13 g Stable
        > list types=consumer
        #14
        > restart
        > describe g
        #15 Stable consumer/range c-01:t: c-02:t:t-1
        ",
    );
}

#[test]
fn a_member_that_comes_back_with_the_same_wishes_disturbs_nobody() {
    // Unless it leads: then its topics may have changed.
    check(
        "
        > join g v=3
        > join g v=3
        > wait 6s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t c-02:t
        #2 c-02 in generation 1 of range, leader c-01
        > join g member=c-01
        #3 c-01 in generation 1 of range, leader c-01 c-01:t c-02:t
        > join g member=c-02
        #4 c-02 in generation 1 of range, leader c-01
        > sync g member=c-02 generation=1
        > sync g member=c-01 generation=1
        +0 g generation 1 c-01: c-02:
        #6 assigned
        #5 assigned
        > join g member=c-02
        #7 c-02 in generation 1 of range, leader c-01
        > join g member=c-01
        > heartbeat g member=c-02 generation=1
        #9 REBALANCE_IN_PROGRESS
        > sync g member=c-02 generation=1
        #10 REBALANCE_IN_PROGRESS
        > join g member=c-02 protocols=range:t,u
        #8 c-01 in generation 2 of range, leader c-01 c-01:t c-02:t,u
        #11 c-02 in generation 2 of range, leader c-01
        > sync g member=c-02 generation=2
        > join g member=c-02 protocols=range:v
        #12 REBALANCE_IN_PROGRESS
        ",
    );
}

#[test]
fn the_protocol_is_what_most_prefer_of_what_all_have() {
    check(
        "
        > join g v=3 protocols=a;b;c
        > join g v=3 protocols=c;b
        > join g v=3 protocols=b;c
        > join g v=3 protocols=a
        #4 INCONSISTENT_GROUP_PROTOCOL
        > join g v=3 protocols=b type=connect
        #5 INCONSISTENT_GROUP_PROTOCOL
        > join empty v=3 protocols=
        #6 INCONSISTENT_GROUP_PROTOCOL
        > join empty v=3 type=
        #7 INCONSISTENT_GROUP_PROTOCOL
        > wait 6s
        #1 c-01 in generation 1 of b, leader c-01 c-01:t c-02:t c-03:t
        #2 c-02 in generation 1 of b, leader c-01
        #3 c-03 in generation 1 of b, leader c-01
        > list
        #8 g CompletingRebalance
        ",
    );
}

#[test]
fn who_is_not_heard_of_is_out() {
    // The leader's session ends, the other one's heartbeats keep it in; a member that does not join again is left out.
    check(
        "
        > join g v=3
        > join g v=3
        > wait 6s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t c-02:t
        #2 c-02 in generation 1 of range, leader c-01
        > sync g member=c-02 generation=1
        > sync g member=c-01 generation=1 assign=c-01:t-0;c-02:t-1
        +0 g generation 1 c-01:t-0 c-02:t-1
        #4 assigned t-0
        #3 assigned t-1
        > wait 8s
        > heartbeat g member=c-02 generation=1
        #5 ok
        > wait 2s
        > heartbeat g member=c-02 generation=1
        #6 REBALANCE_IN_PROGRESS
        > heartbeat g member=c-01 generation=1
        #7 UNKNOWN_MEMBER_ID
        > describe g
        #8 PreparingRebalance consumer/ c-02::
        > restart
        > describe g
        #9 Stable consumer/range c-01:t:t-0 c-02:t:t-1
        > wait 9s
        > heartbeat g member=c-02 generation=1
        #10 ok
        > join g member=c-02 protocols=range:u
        > wait 1s
        #11 c-02 in generation 2 of range, leader c-02 c-02:u
        > wait 10s
        +1 g generation 3
        > describe g
        #12 Empty consumer/
        ",
    );
}

#[test]
fn who_does_not_ask_for_its_share_is_out_in_the_end() {
    check(
        "
        > join g v=3 session=30s rebalance=20s
        > join g v=3 session=30s rebalance=20s
        > wait 6s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t c-02:t
        #2 c-02 in generation 1 of range, leader c-01
        > sync g member=c-01 generation=1
        +0 g generation 1 c-01: c-02:
        #3 assigned
        > wait 20s
        > heartbeat g member=c-02 generation=1
        #4 UNKNOWN_MEMBER_ID
        > heartbeat g member=c-01 generation=1
        #5 REBALANCE_IN_PROGRESS
        > join g member=c-01
        #6 c-01 in generation 2 of range, leader c-01 c-01:t
        ",
    );
}

#[test]
fn who_does_not_use_its_id_loses_it_and_keeps_nobody_waiting_for_long() {
    check(
        "
        > join g session=6s
        #1 MEMBER_ID_REQUIRED c-01
        > wait 1s
        > join g member=c-01
        > wait 3s
        #2 c-01 in generation 1 of range, leader c-01 c-01:t
        > sync g member=c-01 generation=1
        +0 g generation 1 c-01:
        #3 assigned
        > join g session=6s
        #4 MEMBER_ID_REQUIRED c-02
        > join g member=c-01
        > heartbeat g member=c-02 generation=1
        #6 UNKNOWN_MEMBER_ID
        > wait 6s
        #5 c-01 in generation 2 of range, leader c-01 c-01:t
        > join g member=c-02
        #7 UNKNOWN_MEMBER_ID c-02
        > join h session=6s
        #8 MEMBER_ID_REQUIRED c-03
        > list
        #9 g CompletingRebalance, h Empty
        > wait 7s
        > list
        #10 g CompletingRebalance
        ",
    );
}

#[test]
fn the_first_members_wait_for_company_up_to_the_rebalance_timeout() {
    // Three seconds after each that comes, but never longer than the longest rebalance time-out of the first.
    check(
        "
        > join g v=3 rebalance=7s
        > wait 2s
        > join g v=3 rebalance=7s
        > wait 2s
        > join g v=3 rebalance=7s
        > wait 2s
        > join g v=3 rebalance=7s
        > wait 1s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t c-02:t c-03:t c-04:t
        #2 c-02 in generation 1 of range, leader c-01
        #3 c-03 in generation 1 of range, leader c-01
        #4 c-04 in generation 1 of range, leader c-01
        ",
    );
}

#[test]
fn members_leave_one_by_one_or_by_an_operators_hand() {
    check(
        "
        > join g v=3
        > join g v=3 instance=i
        > join g
        #3 MEMBER_ID_REQUIRED c-03
        > leave g c-03 c-07 c-01/i c-07/j /j i-02/i
        #2 UNKNOWN_MEMBER_ID
        #4 c-03 ok, c-07 UNKNOWN_MEMBER_ID, c-01/i FENCED_INSTANCE_ID, c-07/j UNKNOWN_MEMBER_ID, /j UNKNOWN_MEMBER_ID, i-02/i ok
        > wait 6s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t
        > sync g member=c-01 generation=1
        +0 g generation 1 c-01:
        #5 assigned
        > leave g c-01
        +1 g generation 2
        #6 c-01 ok
        > leave g c-01
        #7 c-01 UNKNOWN_MEMBER_ID
        > leave nobody /i
        #8 /i UNKNOWN_MEMBER_ID
        > join g v=3 instance=i
        > wait 3s
        #9 i-04 in generation 3 of range, leader i-04 i-04:t
        > leave g /i
        +2 g generation 4
        #10 /i ok
        ",
    );
}

#[test]
fn a_static_member_is_back_before_anybody_notices() {
    // It gets a new id, the old one is fenced; a leader from version 9 on leads again but assigns nothing.
    check(
        "
        > join g instance=a session=30s
        > join g instance=b session=30s
        > wait 6s
        #1 a-01 in generation 1 of range, leader a-01 a-01:t b-02:t
        #2 b-02 in generation 1 of range, leader a-01
        > sync g member=b-02 instance=b generation=1
        > sync g member=a-01 instance=a generation=1 assign=a-01:t-0;b-02:t-1
        +0 g generation 1 a-01:t-0 b-02:t-1
        #4 assigned t-0
        #3 assigned t-1
        > join g instance=b v=8
        +1 g generation 1 a-01:t-0 b-03:t-1
        #5 b-03 in generation 1 of range, leader a-01
        > sync g member=b-03 instance=b generation=1
        #6 assigned t-1
        > heartbeat g member=b-02 instance=b generation=1
        #7 FENCED_INSTANCE_ID
        > heartbeat g member=b-02 generation=1
        #8 UNKNOWN_MEMBER_ID
        > commit g t-1=5 member=b-02 instance=b generation=1
        #9 FENCED_INSTANCE_ID
        > join g member=b-02 instance=b
        #10 FENCED_INSTANCE_ID b-02
        > sync g member=b-02 instance=b generation=1
        #11 FENCED_INSTANCE_ID
        > join g instance=a v=8
        +2 g generation 1 a-04:t-0 b-03:t-1
        #12 a-04 in generation 1 of range, leader a-01
        > join g instance=a v=9
        +3 g generation 1 a-05:t-0 b-03:t-1
        #13 a-05 in generation 1 of range, leader a-05 a-05:t b-03:t skip
        > restart
        > sync g member=a-05 instance=a generation=1
        #14 assigned t-0
        > join g instance=a protocols=sticky
        #15 INCONSISTENT_GROUP_PROTOCOL
        ",
    );
}

#[test]
fn a_static_member_that_changes_the_protocol_disturbs_the_others() {
    check(
        "
        > join g instance=a protocols=range;sticky
        > wait 3s
        #1 a-01 in generation 1 of range, leader a-01 a-01:t
        > sync g member=a-01 instance=a generation=1
        +0 g generation 1 a-01:
        #2 assigned
        > join g instance=a protocols=sticky
        #3 a-02 in generation 2 of sticky, leader a-02 a-02:t
        ",
    );
}

#[test]
fn a_static_member_that_waits_is_fenced_by_its_successor() {
    // While members join, and while the leader works: then all begin anew, since the leader saw the old id.
    check(
        "
        > join g instance=a
        > join g instance=a
        #1 FENCED_INSTANCE_ID a-01
        > join g instance=b
        > wait 6s
        #2 a-02 in generation 1 of range, leader a-02 a-02:t b-03:t
        #3 b-03 in generation 1 of range, leader a-02
        > sync g member=b-03 instance=b generation=1
        > join g instance=b
        #4 FENCED_INSTANCE_ID
        > sync g member=a-02 instance=a generation=1 assign=b-03:t-0
        #6 REBALANCE_IN_PROGRESS
        > join g member=a-02 instance=a
        #7 a-02 in generation 2 of range, leader a-02 a-02:t b-04:t
        #5 b-04 in generation 2 of range, leader a-02
        ",
    );
}

#[test]
fn static_members_stay_until_their_sessions_end() {
    // The leader is away when the others join again: its place goes to one that is there, its share stays its own.
    check(
        "
        > join g instance=a session=60s rebalance=5s
        > join g v=3 client=z session=60s rebalance=5s
        > wait 6s
        #1 a-01 in generation 1 of range, leader a-01 a-01:t z-02:t
        #2 z-02 in generation 1 of range, leader a-01
        > sync g member=z-02 generation=1
        > sync g member=a-01 instance=a generation=1 assign=a-01:t-0;z-02:t-1
        +0 g generation 1 a-01:t-0 z-02:t-1
        #4 assigned t-0
        #3 assigned t-1
        > join g member=z-02 protocols=range:u rebalance=5s session=60s
        > wait 5s
        #5 z-02 in generation 2 of range, leader z-02 a-01:t z-02:u
        > sync g member=z-02 generation=2 assign=a-01:t-0;z-02:u-0
        +1 g generation 2 a-01:t-0 z-02:u-0
        #6 assigned u-0
        > join g instance=a rebalance=5s session=60s
        +2 g generation 2 a-03:t-0 z-02:u-0
        #7 a-03 in generation 2 of range, leader z-02
        ",
    );
}

#[test]
fn a_rebalance_in_which_nobody_joins_goes_on_until_sessions_end() {
    check(
        "
        > join g instance=a session=20s rebalance=5s
        > join g v=3 client=z session=20s rebalance=5s
        > wait 6s
        #1 a-01 in generation 1 of range, leader a-01 a-01:t z-02:t
        #2 z-02 in generation 1 of range, leader a-01
        > sync g member=a-01 instance=a generation=1
        +0 g generation 1 a-01: z-02:
        #3 assigned
        > leave g z-02
        #4 z-02 ok
        > wait 19s
        > describe g
        #5 PreparingRebalance consumer/ a-01::
        > wait 1s
        +1 g generation 2
        ",
    );
}

#[test]
fn a_full_group_takes_nobody() {
    let config = GroupConfig { members_max: 1, ..GroupConfig::default() };
    check_with(
        config,
        "
        > join g v=3
        > join g v=3
        #2 GROUP_MAX_SIZE_REACHED
        > wait 3s
        #1 c-01 in generation 1 of range, leader c-01 c-01:t
        > join g v=3
        #3 GROUP_MAX_SIZE_REACHED
        > join g member=c-01
        #4 c-01 in generation 1 of range, leader c-01 c-01:t
        ",
    );
}

#[test]
fn session_timeouts_and_names_have_bounds() {
    check(
        "
        > join g session=5999ms
        #1 INVALID_SESSION_TIMEOUT
        > join g session=1800001ms
        #2 INVALID_SESSION_TIMEOUT
        > join g member=c-01
        #3 UNKNOWN_MEMBER_ID c-01
        > heartbeat g member=c-01 generation=1
        #4 UNKNOWN_MEMBER_ID
        > sync g member=c-01 generation=1
        #5 UNKNOWN_MEMBER_ID
        > list
        #6
        > describe g
        #7 not there
        ",
    );
}

fn join(client: String, group: &str) -> Join {
    Join {
        group: group.to_owned(),
        member_id: String::new(),
        instance_id: None,
        client_id: client,
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), bytes::Bytes::from_static(b"x"))],
        version: 3,
        random: [7; 16],
    }
}

#[test]
fn a_name_that_no_record_could_hold_is_refused() {
    // A client id so long that the member id made of it would not fit a Kafka string; and groups without a name.
    let mut world = World::new(GroupConfig::default());
    let refused = |error| Reply::Join(Err(JoinRefused { member_id: String::new(), error }));
    let output = world.request(Request::Join(join("c".repeat(0x7fff - 36), "g")));
    assert_eq!(output.replies[0].1, refused(GroupError::NameTooLong));
    let output = world.request(Request::Join(join("c".to_owned(), "")));
    assert_eq!(output.replies[0].1, refused(GroupError::InvalidGroupId));
    let output = world.request(Request::Join(join("c".to_owned(), &"g".repeat(0x8000))));
    assert_eq!(output.replies[0].1, refused(GroupError::InvalidGroupId));
    let output = world.request(Request::Join(join("c".repeat(0x7fff - 37), "g")));
    assert!(output.replies.is_empty(), "the longest that fits is taken");
}

#[test]
fn members_have_few_protocols_and_bounded_memory() {
    let mut world = World::new(GroupConfig { member_bytes_max: 10_000, ..GroupConfig::default() });
    let refused = |error| Reply::Join(Err(JoinRefused { member_id: String::new(), error }));
    let with = |group: &str, protocols: usize, size: usize| {
        let protocol = |n| (format!("p{n}"), bytes::Bytes::from(vec![1; size]));
        Request::Join(Join { protocols: (0..protocols).map(protocol).collect(), ..join("c".to_owned(), group) })
    };
    let output = world.request(with("g", 65, 1));
    assert_eq!(output.replies[0].1, refused(GroupError::InconsistentGroupProtocol));
    assert!(world.request(with("g", 64, 10)).replies.is_empty(), "as many as are let in");
    // Of all groups together.
    let output = world.request(with("h", 1, 6_000));
    assert_eq!(output.replies[0].1, refused(GroupError::GroupMaxSizeReached));
    world.uptime += Duration::from_secs(3);
    let output = world.machine.tick(world.now(), world.end());
    let Some((_, Reply::Join(Ok(joined)))) = output.replies.first() else { panic!("not joined: {output:?}") };
    let leaver = Leaver { member_id: joined.member_id.clone(), instance_id: None };
    world.request(Request::Leave(Leave { group: "g".to_owned(), members: vec![leaver] }));
    assert!(world.request(with("h", 1, 6_000)).replies.is_empty(), "who has gone takes up nothing");
}

#[test]
fn at_the_bound_members_stay_and_assignments_do_not_pass_it() {
    let mut world = World::new(GroupConfig { member_bytes_max: 4_000, ..GroupConfig::default() });
    let _parked = world.request(Request::Join(join("c".to_owned(), "g")));
    world.uptime += Duration::from_secs(3);
    let output = world.machine.tick(world.now(), world.end());
    let Some((_, Reply::Join(Ok(joined)))) = output.replies.first() else { panic!("not joined: {output:?}") };
    let member = joined.member_id.clone();
    let sync = |generation, size| {
        Request::Sync(SyncRequest {
            group: "g".to_owned(),
            caller: Caller { member_id: member.clone(), instance_id: None, generation },
            protocol_type: None,
            protocol: None,
            assignments: vec![(member.clone(), vec![1; size].into())],
        })
    };
    let output = world.request(sync(1, 3_000));
    assert_eq!(output.replies[0].1, Reply::Sync(Err(GroupError::GenerationTooLarge)));
    let again = |world: &mut World| {
        let again = Join { member_id: member.clone(), ..join("c".to_owned(), "g") };
        world.request(Request::Join(again)).replies.into_iter().map(|(_, reply)| reply).collect::<Vec<_>>()
    };
    let [Reply::Join(Ok(joined))] = &again(&mut world)[..] else { panic!("a member comes back") };
    let output = world.request(sync(joined.generation, 1_000));
    assert!(matches!(output.replies[0].1, Reply::Sync(Ok(_))), "{output:?}");
    // Others take up what is left.
    let mut first_joins = (0..10).map(|n| {
        let first = Join { version: 4, random: [n; 16], ..join("c".to_owned(), "h") };
        let replies = world.request(Request::Join(first)).replies;
        let Some((_, Reply::Join(Err(refused)))) = replies.first() else { panic!("{replies:?}") };
        refused.error
    });
    assert_eq!(first_joins.next(), Some(GroupError::MemberIdRequired));
    assert_eq!(first_joins.last(), Some(GroupError::GroupMaxSizeReached));
    let of_nothing = Join { protocols: vec![(String::new(), bytes::Bytes::new())], ..join("c".repeat(1_000), "h") };
    for n in 0..9 {
        world.request(Request::Join(Join { random: [n; 16], ..of_nothing.clone() }));
    }
    let output = world.request(Request::Join(of_nothing));
    let refused = JoinRefused { member_id: String::new(), error: GroupError::GroupMaxSizeReached };
    assert_eq!(output.replies[0].1, Reply::Join(Err(refused)), "who brings nothing takes up room too");
    let [Reply::Join(Ok(_))] = &again(&mut world)[..] else { panic!("a member comes back with as much as it had") };
}

#[test]
fn all_may_leave_before_the_first_generation_and_others_come() {
    let mut world = World::new(GroupConfig::default());
    let output = world.request(Request::Join(Join { version: 4, ..join("c".to_owned(), "g") }));
    let Some((_, Reply::Join(Err(refused)))) = output.replies.first() else { panic!("{output:?}") };
    let member = refused.member_id.clone();
    let _parked = world.request(Request::Join(Join { member_id: member.clone(), ..join("c".to_owned(), "g") }));
    let leaver = Leaver { member_id: member, instance_id: None };
    world.request(Request::Leave(Leave { group: "g".to_owned(), members: vec![leaver] }));
    let nothing = Join { protocols: Vec::new(), ..join("d".to_owned(), "g") };
    let output = world.request(Request::Join(nothing));
    let refused = JoinRefused { member_id: String::new(), error: GroupError::InconsistentGroupProtocol };
    assert_eq!(output.replies[0].1, Reply::Join(Err(refused)));
    let output = world.request(Request::Join(Join { random: [8; 16], ..join("d".to_owned(), "g") }));
    assert!(output.replies.is_empty(), "it waits for company: {output:?}");
    // Who came late makes it wait once more.
    let mut output = world.machine.tick(world.now(), world.end());
    for _ in 0..2 {
        world.uptime += Duration::from_secs(3);
        output.replies.extend(world.machine.tick(world.now(), world.end()).replies);
    }
    assert!(matches!(&output.replies[..], [(_, Reply::Join(Ok(_)))]), "{output:?}");
}

#[test]
fn of_two_assignments_for_a_member_the_later_counts() {
    let mut world = World::new(GroupConfig::default());
    let _parked = world.request(Request::Join(join("c".to_owned(), "g")));
    world.uptime += Duration::from_secs(3);
    let output = world.machine.tick(world.now(), world.end());
    let Some((_, Reply::Join(Ok(joined)))) = output.replies.first() else { panic!("not joined: {output:?}") };
    let given = |text: &'static str| (joined.member_id.clone(), bytes::Bytes::from_static(text.as_bytes()));
    let output = world.request(Request::Sync(SyncRequest {
        group: "g".to_owned(),
        caller: Caller { member_id: joined.member_id.clone(), instance_id: None, generation: 1 },
        protocol_type: None,
        protocol: None,
        assignments: vec![given("first"), given("second")],
    }));
    let Some((_, Reply::Sync(Ok(synced)))) = output.replies.first() else { panic!("not assigned: {output:?}") };
    assert_eq!(synced.assignment, "second");
}

#[test]
fn an_assignment_that_no_record_could_hold_fails_its_generation_and_no_other() {
    // The leader hands out a megabyte where records may have a kilobyte; all are told, and begin anew.
    let mut world = World::new(GroupConfig { record_size_max: 1024, ..GroupConfig::default() });
    let _parked = world.request(Request::Join(join("c".to_owned(), "g")));
    world.uptime += Duration::from_secs(3);
    let output = world.machine.tick(world.now(), world.end());
    let Some((_, Reply::Join(Ok(joined)))) = output.replies.first() else { panic!("not joined: {output:?}") };
    let sync = |size| {
        Request::Sync(SyncRequest {
            group: "g".to_owned(),
            caller: Caller { member_id: joined.member_id.clone(), instance_id: None, generation: 1 },
            protocol_type: None,
            protocol: None,
            assignments: vec![(joined.member_id.clone(), vec![1; size].into())],
        })
    };
    let output = world.request(sync(1 << 20));
    assert_eq!(output.replies[0].1, Reply::Sync(Err(GroupError::GenerationTooLarge)));
    assert!(output.records.is_empty());
    let output = world.request(sync(10));
    assert_eq!(output.replies[0].1, Reply::Sync(Err(GroupError::RebalanceInProgress)));
    world.check();
}

#[test]
fn who_waits_is_told_when_the_partition_goes() {
    let mut world = World::new(GroupConfig::default());
    let _parked = world.request(Request::Join(join("c".to_owned(), "g")));
    let replies = world.machine.close();
    assert!(
        matches!(&replies[..], [(_, Reply::Join(Err(refused)))] if refused.error == GroupError::NotCoordinator),
        "{replies:?}"
    );
}
