//! Groups and transactions: the coordinators behind their APIs.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use forebay_wire::kafka::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use forebay_wire::kafka::messages::join_group_request::JoinGroupRequestProtocol;
use forebay_wire::kafka::messages::leave_group_request::MemberIdentity;
use forebay_wire::kafka::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use forebay_wire::kafka::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use forebay_wire::kafka::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use forebay_wire::kafka::messages::sync_group_request::SyncGroupRequestAssignment;
use forebay_wire::kafka::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use forebay_wire::kafka::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    DescribeTransactionsRequest, EndTxnRequest, FindCoordinatorRequest, HeartbeatRequest, InitProducerIdRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, ListTransactionsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
    TxnOffsetCommitRequest,
};
use forebay_wire::kafka::protocol::StrBytes;

use crate::script::{Step, check, check_in, code};
use crate::world::World;

/// The steps of this file.
pub const VERBS: [&str; 14] = [
    "coordinator",
    "init",
    "enlist",
    "enlist-group",
    "end",
    "settled",
    "txns",
    "txn",
    "commit",
    "committed",
    "forget",
    "groups",
    "group",
    "drop",
];

pub async fn run(world: &World, step: &Step<'_>) -> Result<String, String> {
    match step.word(0) {
        "coordinator" => coordinator(world, step).await,
        "init" => init(world, step).await,
        "enlist" => enlist(world, step).await,
        "enlist-group" => enlist_group(world, step).await,
        "end" => end(world, step).await,
        "settled" => settled(world, step).await,
        "txns" => txns(world, step).await,
        "txn" => txn(world, step).await,
        "commit" if step.options.contains_key("txn") => txn_commit(world, step).await,
        "commit" => commit(world, step).await,
        "committed" => committed(world, step).await,
        "forget" => forget(world, step).await,
        "groups" => groups(world, step).await,
        "group" => group(world, step).await,
        "drop" => drop_groups(world, step).await,
        verb => panic!("{verb} is not one of {VERBS:?}"),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A word; the empty one is written `""`.
fn word(step: &Step<'_>, at: usize) -> StrBytes {
    text(step.word(at).trim_matches('"'))
}

fn partition(text: &str) -> (&str, i32) {
    let (topic, index) = text.split_once('/').expect("TOPIC/INDEX");
    (topic, index.parse().expect("a partition's number"))
}

/// Codes as one word where they are all the same.
fn same(codes: &[&'static str]) -> String {
    match codes.split_first() {
        Some((first, rest)) if rest.iter().all(|code| code == first) => (*first).to_owned(),
        _ => codes.join(" "),
    }
}

async fn coordinator(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(4);
    let key_type = match step.word(1) {
        "group" => 0,
        "txn" => 1,
        "share" => 2,
        other => other.parse().expect("a key type"),
    };
    if version < 4 {
        let mut request = FindCoordinatorRequest::default().with_key(word(step, 2));
        if version >= 1 {
            request.key_type = key_type;
        }
        let found = world.call(version, &request).await?;
        return Ok(format!("{} {}={}:{}", code(found.error_code), found.node_id.0, found.host.as_str(), found.port));
    }
    let keys = step.words[2..].iter().map(|key| text(key)).collect();
    let request = FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(keys);
    let found = world.call(version, &request).await?.coordinators;
    let shown = found.iter().map(|found| {
        let (key, node) = (found.key.as_str(), found.node_id.0);
        format!("{key}:{} {node}={}:{}", code(found.error_code), found.host.as_str(), found.port)
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

async fn init(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(4);
    let mut request = InitProducerIdRequest::default()
        .with_transactional_id(step.words.get(1).map(|_| word(step, 1).into()))
        .with_transaction_timeout_ms(step.number("timeout", 60_000));
    if version >= 3 {
        request.producer_id = step.number::<i64>("id", -1).into();
        request.producer_epoch = step.number("epoch", -1);
    }
    let response = world.call(version, &request).await?;
    Ok(match response.error_code {
        0 => format!("id={} epoch={}", response.producer_id.0, response.producer_epoch),
        error => {
            assert_eq!((response.producer_id.0, response.producer_epoch), (-1, -1));
            code(error).to_owned()
        }
    })
}

async fn enlist(world: &World, step: &Step<'_>) -> Result<String, String> {
    let topics = step.words[2..].iter().map(|named| {
        let (topic, index) = partition(named);
        AddPartitionsToTxnTopic::default().with_name(text(topic).into()).with_partitions(vec![index])
    });
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(word(step, 1).into())
        .with_v3_and_below_producer_id(step.number::<i64>("id", -1).into())
        .with_v3_and_below_producer_epoch(step.number("epoch", 0))
        .with_v3_and_below_topics(topics.collect());
    let response = world.call(step.version(3), &request).await?;
    let results = response.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
    Ok(same(&results.map(|result| code(result.partition_error_code)).collect::<Vec<_>>()))
}

async fn enlist_group(world: &World, step: &Step<'_>) -> Result<String, String> {
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(word(step, 1).into())
        .with_group_id(word(step, 2).into())
        .with_producer_id(step.number::<i64>("id", -1).into())
        .with_producer_epoch(step.number("epoch", 0));
    Ok(code(world.call(step.version(3), &request).await?.error_code).to_owned())
}

async fn end(world: &World, step: &Step<'_>) -> Result<String, String> {
    let request = EndTxnRequest::default()
        .with_transactional_id(word(step, 1).into())
        .with_producer_id(step.number::<i64>("id", -1).into())
        .with_producer_epoch(step.number("epoch", 0))
        .with_committed(step.has("commit"));
    Ok(code(world.call(step.version(3), &request).await?.error_code).to_owned())
}

/// Asks until no transaction of the id is ending.
async fn settled(world: &World, step: &Step<'_>) -> Result<String, String> {
    loop {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![word(step, 1).into()]);
        let response = world.call(0, &request).await?;
        let state = &response.transaction_states[0];
        if state.error_code != 0 || !state.transaction_state.starts_with("Prepare") {
            return Ok(if state.error_code == 0 {
                state.transaction_state.to_string()
            } else {
                code(state.error_code).to_owned()
            });
        }
        world.context().env.sleep(Duration::from_millis(5)).await;
    }
}

async fn txns(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(1);
    let pid: i64 = step.number("pid", -1);
    let mut request = ListTransactionsRequest::default()
        .with_state_filters(step.words[1..].iter().map(|state| text(state)).collect())
        .with_producer_id_filters(if pid < 0 { Vec::new() } else { vec![pid.into()] });
    if version >= 1 {
        request.duration_filter = step.number("longer", -1);
    }
    let response = world.call(version, &request).await?;
    let mut shown = vec![code(response.error_code).to_owned()];
    shown.extend(
        response.transaction_states.iter().map(|it| {
            format!("{}:{}:{}", it.transactional_id.as_str(), it.producer_id.0, it.transaction_state.as_str())
        }),
    );
    shown.extend(response.unknown_state_filters.iter().map(|state| format!("unknown={}", state.as_str())));
    Ok(shown.join(" "))
}

async fn txn(world: &World, step: &Step<'_>) -> Result<String, String> {
    let ids = (1..step.words.len()).map(|at| word(step, at).into()).collect();
    let response = world.call(0, &DescribeTransactionsRequest::default().with_transactional_ids(ids)).await?;
    let shown = response.transaction_states.iter().map(|state| {
        let id = state.transactional_id.as_str();
        if state.error_code != 0 {
            return format!("{id} {}", code(state.error_code));
        }
        let (pid, epoch) = (state.producer_id.0, state.producer_epoch);
        let started = if state.transaction_start_time_ms < 0 { "never" } else { "once" };
        let mut shown = format!(
            "{id} {} {pid}@{epoch} {}ms {started}",
            state.transaction_state.as_str(),
            state.transaction_timeout_ms
        );
        for topic in &state.topics {
            write!(shown, " {}{:?}", topic.topic.as_str(), topic.partitions).expect("a string takes all");
        }
        shown
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

/// Options that are positions: `TOPIC/INDEX=OFFSET`.
fn positions<'a>(step: &Step<'a>) -> Vec<(&'a str, i32, i64)> {
    let position = |(named, offset): (&&'a str, &&str)| {
        let (topic, index) = partition(named);
        (topic, index, offset.parse().expect("an offset"))
    };
    step.options.iter().filter(|(named, _)| named.contains('/')).map(position).collect()
}

async fn commit(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(8);
    let topics = positions(step).into_iter().map(|(topic, index, offset)| {
        let mut partition = OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(step.options.get("meta").map(|meta| text(meta)));
        if version >= 6 {
            partition.committed_leader_epoch = 0;
        }
        OffsetCommitRequestTopic::default().with_name(text(topic).into()).with_partitions(vec![partition])
    });
    let mut request = OffsetCommitRequest::default()
        .with_group_id(word(step, 1).into())
        .with_member_id(text(step.options.get("member").unwrap_or(&"")))
        .with_generation_id_or_member_epoch(step.number("generation", -1))
        .with_topics(topics.collect());
    if version <= 4 {
        request.retention_time_ms = step.number("retention", -1);
    }
    let response = world.call(version, &request).await?;
    let results = response.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(same(&results.map(|result| code(result.error_code)).collect::<Vec<_>>()))
}

async fn txn_commit(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(3);
    let topics = positions(step).into_iter().map(|(topic, index, offset)| {
        let partition =
            TxnOffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(offset);
        TxnOffsetCommitRequestTopic::default().with_name(text(topic).into()).with_partitions(vec![partition])
    });
    let mut request = TxnOffsetCommitRequest::default()
        .with_transactional_id(text(step.options["txn"]).into())
        .with_group_id(word(step, 1).into())
        .with_producer_id(step.number::<i64>("id", -1).into())
        .with_producer_epoch(step.number("epoch", 0))
        .with_topics(topics.collect());
    if version >= 3 {
        request.generation_id = step.number("generation", -1);
        request.member_id = text(step.options.get("member").unwrap_or(&""));
    }
    let response = world.call(version, &request).await?;
    let results = response.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(same(&results.map(|result| code(result.error_code)).collect::<Vec<_>>()))
}

/// `committed GROUP TOPIC/INDEX …`, or all that the group has.
async fn committed(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(8);
    let asked: Vec<(&str, i32)> =
        step.words[2..].iter().filter(|word| word.contains('/')).map(|named| partition(named)).collect();
    let stable = step.has("stable");
    let show = |topic: &str, index, offset: i64, error| match error {
        0 => format!("{topic}/{index}={offset}"),
        error => format!("{topic}/{index}={}", code(error)),
    };
    let mut shown = Vec::new();
    if version < 8 {
        let one = |(topic, index): &(&str, i32)| {
            OffsetFetchRequestTopic::default().with_name(text(topic).into()).with_partition_indexes(vec![*index])
        };
        let topics = Some(asked.iter().map(one).collect()).filter(|_| !step.has("all"));
        let mut request = OffsetFetchRequest::default().with_group_id(word(step, 1).into()).with_topics(topics);
        if version >= 7 {
            request.require_stable = stable;
        }
        let response = world.call(version, &request).await?;
        if response.error_code != 0 {
            return Ok(code(response.error_code).to_owned());
        }
        for topic in &response.topics {
            let name = topic.name.as_str();
            shown.extend(
                topic.partitions.iter().map(|p| show(name, p.partition_index, p.committed_offset, p.error_code)),
            );
        }
    } else {
        let one = |(topic, index): &(&str, i32)| {
            OffsetFetchRequestTopics::default().with_name(text(topic).into()).with_partition_indexes(vec![*index])
        };
        let topics: Option<Vec<_>> = Some(asked.iter().map(one).collect()).filter(|_| !step.has("all"));
        let groups = step.word(1).split(',').map(|group| {
            OffsetFetchRequestGroup::default().with_group_id(text(group).into()).with_topics(topics.clone())
        });
        let request = OffsetFetchRequest::default().with_groups(groups.collect()).with_require_stable(stable);
        let response = world.call(version, &request).await?;
        let many = response.groups.len() > 1;
        for group in &response.groups {
            if many {
                shown.push(format!("{}:", group.group_id.as_str()));
            }
            if group.error_code != 0 {
                shown.push(code(group.error_code).to_owned());
            }
            for topic in &group.topics {
                let name = topic.name.as_str();
                let partitions = topic.partitions.iter();
                shown.extend(partitions.map(|p| show(name, p.partition_index, p.committed_offset, p.error_code)));
            }
        }
    }
    Ok(if shown.is_empty() { "nothing".to_owned() } else { shown.join(" ") })
}

async fn forget(world: &World, step: &Step<'_>) -> Result<String, String> {
    let topics = step.words[2..].iter().map(|named| {
        let (topic, index) = partition(named);
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(index);
        OffsetDeleteRequestTopic::default().with_name(text(topic).into()).with_partitions(vec![partition])
    });
    let request = OffsetDeleteRequest::default().with_group_id(word(step, 1).into()).with_topics(topics.collect());
    let response = world.call(0, &request).await?;
    if response.error_code != 0 {
        return Ok(code(response.error_code).to_owned());
    }
    let results = response.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(same(&results.map(|result| code(result.error_code)).collect::<Vec<_>>()))
}

async fn groups(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(5);
    let mut request = ListGroupsRequest::default();
    if version >= 4 {
        request.states_filter = step.words[1..].iter().map(|state| text(state)).collect();
    }
    if version >= 5 {
        request.types_filter = step.options.get("types").map(|kind| text(kind)).into_iter().collect();
    }
    let response = world.call(version, &request).await?;
    let mut shown = vec![code(response.error_code).to_owned()];
    shown.extend(response.groups.iter().map(|group| {
        let (id, state, kind) = (group.group_id.as_str(), group.group_state.as_str(), group.group_type.as_str());
        format!("{id}:{state}:{kind}:{}", group.protocol_type.as_str())
    }));
    Ok(shown.join(" "))
}

async fn group(world: &World, step: &Step<'_>) -> Result<String, String> {
    let version = step.version(5);
    let mut request =
        DescribeGroupsRequest::default().with_groups((1..step.words.len()).map(|at| word(step, at).into()).collect());
    if version >= 3 {
        request.include_authorized_operations = true;
    }
    let response = world.call(version, &request).await?;
    let shown = response.groups.iter().map(|group| {
        assert_eq!(group.authorized_operations, if version >= 3 { 328 } else { i32::MIN });
        let members: Vec<String> = group
            .members
            .iter()
            .map(|member| format!(" {}@{}", member.client_id.as_str(), member.client_host.as_str()))
            .collect();
        let (id, state) = (group.group_id.as_str(), group.group_state.as_str());
        format!("{id} {} {state} {}", code(group.error_code), group.protocol_data.as_str()).trim_end().to_owned()
            + &members.concat()
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

async fn drop_groups(world: &World, step: &Step<'_>) -> Result<String, String> {
    let names = (1..step.words.len()).map(|at| word(step, at).into()).collect();
    let response = world.call(step.version(2), &DeleteGroupsRequest::default().with_groups_names(names)).await?;
    Ok(same(&response.results.iter().map(|result| code(result.error_code)).collect::<Vec<_>>()))
}

/// Every key's coordinator is this broker, in every version; share groups there are none.
#[tokio::test(start_paused = true)]
async fn coordinators_are_found() {
    check(
        "coordinator group readers v=0 -> NONE 1=broker.test:9092
         coordinator group readers v=1 -> NONE 1=broker.test:9092
         coordinator txn sink v=3 -> NONE 1=broker.test:9092
         coordinator txn a b v=4 -> a:NONE 1=broker.test:9092, b:NONE 1=broker.test:9092
         coordinator group a v=6 -> a:NONE 1=broker.test:9092
         coordinator share a v=6 -> a:INVALID_REQUEST -1=:-1
         coordinator 9 a v=3 -> INVALID_REQUEST -1=:-1",
    )
    .await;
}

/// What EndTxn answers in every state, by outcome, producer and version (5, 7 of what Flink relies on).
#[tokio::test(start_paused = true)]
async fn transactions_end_by_the_table() {
    check(
        "create a partitions=2 -> NONE
         # nobody knows the id
         end t commit id=0 -> INVALID_PRODUCER_ID_MAPPING
         txn t -> t TRANSACTIONAL_ID_NOT_FOUND
         init t -> id=0 epoch=0
         # Empty
         end t commit id=0 -> INVALID_TXN_STATE
         end t abort id=0 -> INVALID_TXN_STATE
         txn t -> t Empty 0@0 60000ms never
         # Ongoing
         enlist t a/0 id=0 -> NONE
         enlist t a/0 a/1 id=0 -> NONE
         txn t -> t Ongoing 0@0 60000ms once a[0, 1]
         txns Ongoing -> NONE t:0:Ongoing
         end t commit id=7 -> INVALID_PRODUCER_ID_MAPPING
         end t commit id=0 epoch=1 v=1 -> INVALID_PRODUCER_EPOCH
         end t commit id=0 epoch=1 v=2 -> PRODUCER_FENCED
         produce a/0 x id=0 seq=0 txn=t -> base=0
         end t commit id=0 -> NONE
         settled t -> CompleteCommit
         fetch a/0 0 committed -> hw=2 lso=2 start=0 aborted=[]: 0:x 1:COMMIT
         # Complete
         end t commit id=0 v=0 -> NONE
         end t commit id=0 v=4 -> NONE
         end t abort id=0 -> INVALID_TXN_STATE
         enlist t a/1 id=0 -> NONE
         produce a/1 y id=0 seq=0 txn=t -> base=1
         end t abort id=0 -> NONE
         settled t -> CompleteAbort
         end t abort id=0 -> NONE
         end t commit id=0 -> INVALID_TXN_STATE
         fetch a/1 0 committed -> hw=3 lso=3 start=0 aborted=[0@1]: 0:COMMIT 1:y 2:ABORT
         # a new producer of the id fences the old
         init t v=0 -> id=0 epoch=1
         end t commit id=0 epoch=0 v=1 -> INVALID_PRODUCER_EPOCH
         end t commit id=0 epoch=0 -> PRODUCER_FENCED
         enlist t a/0 id=0 epoch=0 v=1 -> INVALID_PRODUCER_EPOCH
         enlist t a/0 id=0 epoch=0 -> PRODUCER_FENCED",
    )
    .await;
}

/// Producer ids with and without a transactional id, by version; what an id is asked with is checked (KIP-360).
#[tokio::test(start_paused = true)]
async fn producers_begin() {
    check(
        "init v=0 -> id=0 epoch=0
         init v=5 -> id=1 epoch=0
         init t v=2 -> id=2 epoch=0
         init t -> id=2 epoch=1
         init t id=2 epoch=1 -> id=2 epoch=2
         init t id=2 epoch=0 v=3 -> INVALID_PRODUCER_EPOCH
         init t id=2 epoch=0 v=4 -> PRODUCER_FENCED
         init t id=2 -> INVALID_REQUEST
         init t epoch=2 -> INVALID_REQUEST
         init \"\" -> INVALID_REQUEST
         init t timeout=0 -> INVALID_TRANSACTION_TIMEOUT
         init t timeout=86400001 -> INVALID_TRANSACTION_TIMEOUT
         init t timeout=3600000 -> id=2 epoch=3",
    )
    .await;
}

/// Partitions are added all or none; transactions are listed by state, producer and age, and described.
#[tokio::test(start_paused = true)]
async fn transactions_are_seen() {
    check(
        "create a -> NONE
         init t -> id=0 epoch=0
         init u -> id=1 epoch=0
         enlist t a/0 a/7 nowhere/0 __consumer_offsets/0 id=0 -> OPERATION_NOT_ATTEMPTED UNKNOWN_TOPIC_OR_PARTITION UNKNOWN_TOPIC_OR_PARTITION UNKNOWN_TOPIC_OR_PARTITION
         coordinator group readers -> readers:NONE 1=broker.test:9092
         enlist t a/0 __consumer_offsets/0 id=0 v=0 -> OPERATION_NOT_ATTEMPTED TOPIC_AUTHORIZATION_FAILED
         txn t -> t Empty 0@0 60000ms never
         enlist t a/0 id=0 -> NONE
         txns -> NONE t:0:Ongoing u:1:Empty
         txns v=0 Empty -> NONE u:1:Empty
         txns pid=0 -> NONE t:0:Ongoing
         txns pid=5 -> NONE
         txns Ongoing Wild -> NONE t:0:Ongoing unknown=Wild
         txns Ongoing longer=1000 -> NONE
         wait 2000 -> waited
         txns Ongoing longer=1000 -> NONE t:0:Ongoing
         txn t u w -> t Ongoing 0@0 60000ms once a[0], u Empty 1@0 60000ms never, w TRANSACTIONAL_ID_NOT_FOUND
         # its time is up: aborted, and fenced
         wait 60000 -> waited
         settled t -> CompleteAbort
         end t commit id=0 -> PRODUCER_FENCED",
    )
    .await;
}

/// Offsets are committed by members of no group, as Flink's source does, kept over a restart, and not for a topic that is
/// another (30 to 32).
#[tokio::test(start_paused = true)]
async fn offsets_are_kept() {
    let mut world = World::new().await;
    check_in(
        &mut world,
        "create a partitions=2 -> NONE
         committed readers a/0 -> a/0=-1
         committed readers a/0 v=1 -> a/0=-1
         committed readers all -> nothing
         commit readers a/0=5 -> NONE
         commit readers a/0=6 a/1=7 a/2=8 nowhere/0=1 -> NONE NONE UNKNOWN_TOPIC_OR_PARTITION UNKNOWN_TOPIC_OR_PARTITION
         commit readers nowhere/0=1 v=2 -> UNKNOWN_TOPIC_OR_PARTITION
         committed readers a/0 a/1 nowhere/0 v=7 -> a/0=6 a/1=7 nowhere/0=-1
         committed readers all v=2 -> a/0=6 a/1=7
         committed readers,others a/1 v=9 -> readers: a/1=7 others: a/1=-1
         restart -> started
         committed readers all -> a/0=6 a/1=7
         groups -> NONE readers:Empty:classic:
         groups Stable -> NONE
         groups types=consumer -> NONE
         groups v=3 -> NONE readers:::
         group readers nobody -> readers NONE Empty, nobody NONE Dead
         commit readers a/0=9 member=someone generation=3 -> UNKNOWN_MEMBER_ID
         commit fresh a/0=9 generation=3 -> ILLEGAL_GENERATION
         forget readers a/0 nowhere/0 -> NONE UNKNOWN_TOPIC_OR_PARTITION
         forget readers nowhere/0 -> UNKNOWN_TOPIC_OR_PARTITION
         forget nobody a/0 -> GROUP_ID_NOT_FOUND
         committed readers all -> a/1=7
         delete a -> NONE
         forget readers a/1 -> UNKNOWN_TOPIC_OR_PARTITION
         committed readers a/1 -> a/1=-1
         committed readers all -> nothing
         create a partitions=2 -> NONE
         committed readers a/1 -> a/1=-1
         committed readers all -> nothing
         drop readers nobody -> NONE GROUP_ID_NOT_FOUND
         groups -> NONE",
    )
    .await;
}

/// Long metadata is refused for its partition, by the configured length.
#[tokio::test(start_paused = true)]
async fn long_metadata_is_refused() {
    let long = "x".repeat(4_097);
    let script = format!(
        "create a -> NONE\ncommit readers a/0=5 meta={long} -> OFFSET_METADATA_TOO_LARGE\ncommitted readers a/0 -> a/0=-1"
    );
    check(&script).await;
}

/// Offsets in a transaction: only while it holds the group, seen once it commits, and readers of stable ones wait (13).
#[tokio::test(start_paused = true)]
async fn offsets_in_a_transaction() {
    check(
        "create a -> NONE
         init t -> id=0 epoch=0
         commit readers a/0=5 txn=t id=0 -> INVALID_TXN_STATE
         # the first is fatal to a Java producer, the second aborts the transaction (KIP-890)
         commit readers a/0=5 txn=t id=0 v=4 -> TRANSACTION_ABORTABLE
         enlist-group t readers id=7 -> INVALID_PRODUCER_ID_MAPPING
         enlist-group t readers id=0 -> NONE
         commit readers a/0=5 nowhere/0=1 txn=t id=0 -> NONE UNKNOWN_TOPIC_OR_PARTITION
         commit readers a/0=6 txn=t id=0 epoch=1 -> INVALID_PRODUCER_EPOCH
         commit readers a/0=6 txn=u id=0 epoch=1 -> INVALID_PRODUCER_ID_MAPPING
         commit readers a/0=6 txn=t id=0 member=someone generation=3 -> UNKNOWN_MEMBER_ID
         committed readers a/0 -> a/0=-1
         committed readers a/0 stable v=7 -> a/0=UNSTABLE_OFFSET_COMMIT
         committed readers a/0 stable -> a/0=UNSTABLE_OFFSET_COMMIT
         restart -> started
         committed readers a/0 stable -> a/0=UNSTABLE_OFFSET_COMMIT
         end t commit id=0 -> NONE
         settled t -> CompleteCommit
         committed readers a/0 stable -> a/0=5
         enlist-group t readers id=0 v=0 -> NONE
         commit readers a/0=9 txn=t id=0 v=0 -> NONE
         end t abort id=0 -> NONE
         settled t -> CompleteAbort
         committed readers a/0 stable -> a/0=5
         enlist-group t readers id=0 epoch=5 v=1 -> INVALID_PRODUCER_EPOCH
         enlist-group t readers id=0 epoch=5 -> PRODUCER_FENCED",
    )
    .await;
}

/// One member's requests, in one version of each.
struct Member<'a> {
    world: &'a World,
    id: StrBytes,
    generation: i32,
}

impl Member<'_> {
    async fn join(&mut self, version: i16) -> JoinGroupResponse {
        let protocol =
            JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
        let mut request = JoinGroupRequest::default()
            .with_group_id(text("readers").into())
            .with_session_timeout_ms(10_000)
            .with_member_id(self.id.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        if version >= 1 {
            request.rebalance_timeout_ms = 60_000;
        }
        let response = self.world.call(version, &request).await.expect("an answer");
        if !response.member_id.is_empty() {
            self.id = response.member_id.clone();
        }
        self.generation = response.generation_id;
        response
    }

    async fn sync(&self, version: i16, shares: &[(StrBytes, &'static str)]) -> SyncGroupResponse {
        let share = |(member, bytes): &(StrBytes, &'static str)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(member.clone())
                .with_assignment(Bytes::from_static(bytes.as_bytes()))
        };
        let mut request = SyncGroupRequest::default()
            .with_group_id(text("readers").into())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(shares.iter().map(share).collect());
        if version >= 5 {
            request.protocol_type = Some(text("consumer"));
            request.protocol_name = Some(text("range"));
        }
        self.world.call(version, &request).await.expect("an answer")
    }

    async fn beat(&self, version: i16) -> &'static str {
        let request = HeartbeatRequest::default()
            .with_group_id(text("readers").into())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        code(self.world.call(version, &request).await.expect("an answer").error_code)
    }

    async fn leave(&self, version: i16) -> String {
        let mut request = LeaveGroupRequest::default().with_group_id(text("readers").into());
        if version < 3 {
            request.member_id = self.id.clone();
        } else {
            request.members = vec![
                MemberIdentity::default().with_member_id(self.id.clone()),
                MemberIdentity::default().with_member_id(text("stranger")),
            ];
        }
        let response = self.world.call(version, &request).await.expect("an answer");
        let members = response.members.iter().map(|member| code(member.error_code));
        [code(response.error_code)].into_iter().chain(members).collect::<Vec<_>>().join(" ")
    }
}

/// Two members in every version of the group APIs: they join, share, one leaves, the other notices and goes on; the group
/// is described as it is, and outlives the broker.
#[tokio::test(start_paused = true)]
async fn two_members_share_a_group() {
    // JoinGroup, SyncGroup, Heartbeat, LeaveGroup.
    for [join, sync, beat, leave] in
        [[0, 0, 0, 0], [1, 1, 1, 1], [3, 2, 2, 2], [5, 3, 3, 3], [7, 4, 4, 4], [9, 5, 4, 5]]
    {
        let mut world = World::new().await;
        check_in(&mut world, "create a -> NONE").await;
        let member = |world| Member { world, id: StrBytes::default(), generation: -1 };
        let (mut a, mut b) = (member(&world), member(&world));
        if join >= 4 {
            for member in [&mut a, &mut b] {
                let first = member.join(join).await;
                assert_eq!((code(first.error_code), first.generation_id), ("MEMBER_ID_REQUIRED", -1));
                assert_eq!(first.protocol_name, if join >= 7 { None } else { Some(StrBytes::default()) });
            }
        }
        let (in_a, in_b) = tokio::join!(a.join(join), b.join(join));
        assert_eq!((in_a.error_code, in_b.error_code, in_a.generation_id, in_b.generation_id), (0, 0, 1, 1));
        assert_eq!(in_a.protocol_name, Some(text("range")));
        assert_eq!(in_a.protocol_type, (join >= 7).then(|| text("consumer")));
        let leads_a = in_a.leader == a.id;
        let (leader, other) = if leads_a { (&in_a, &in_b) } else { (&in_b, &in_a) };
        assert_eq!((leader.members.len(), other.members.len()), (2, 0), "the leader sees all, others nobody");
        assert_eq!(a.beat(beat).await, "NONE");
        let shares = [(a.id.clone(), "for a"), (b.id.clone(), "for b")];
        let (of_a, of_b): (&[_], &[_]) = if leads_a { (&shares, &[]) } else { (&[], &shares) };
        let (synced_a, synced_b) = tokio::join!(a.sync(sync, of_a), b.sync(sync, of_b));
        assert_eq!((&synced_a.assignment[..], &synced_b.assignment[..]), (&b"for a"[..], &b"for b"[..]));
        assert_eq!(synced_a.protocol_name, (sync >= 5).then(|| text("range")));

        let request = OffsetDeleteRequest::default().with_group_id(text("readers").into());
        assert_eq!(code(world.call(0, &request).await.expect("an answer").error_code), "NONE");
        let (id_a, generation) = (a.id.clone(), a.generation);
        let left = b.leave(leave).await;
        assert_eq!(left, if leave < 3 { "NONE" } else { "NONE NONE UNKNOWN_MEMBER_ID" });
        assert_eq!(a.beat(beat).await, "REBALANCE_IN_PROGRESS");
        let alone = a.join(join).await;
        assert_eq!((alone.error_code, alone.generation_id, alone.members.len()), (0, 2, 1));
        a.sync(sync, &[(a.id.clone(), "all")]).await;
        assert_eq!(b.beat(beat).await, "UNKNOWN_MEMBER_ID");
        a.generation = generation;
        assert_eq!(a.beat(beat).await, "ILLEGAL_GENERATION");
        let script = format!(
            "group readers -> readers NONE Stable range test@/127.0.0.1
             group readers v=0 -> readers NONE Stable range test@/127.0.0.1
             groups Stable -> NONE readers:Stable:classic:consumer
             drop readers -> NON_EMPTY_GROUP
             commit readers a/0=5 -> UNKNOWN_MEMBER_ID
             commit readers a/0=5 member={id_a} generation=1 -> ILLEGAL_GENERATION
             commit readers a/0=5 member={id_a} generation=2 v=3 -> NONE
             restart -> started
             group readers -> readers NONE Stable range test@/127.0.0.1
             committed readers a/0 -> a/0=5
             wait 11000 -> waited
             group readers -> readers NONE Empty",
            id_a = id_a.as_str()
        );
        check_in(&mut world, &script).await;
    }
}

/// What a group does not take: another protocol type, a session out of bounds, an unknown member; a sync that does not
/// name its protocol where it must.
#[tokio::test(start_paused = true)]
async fn groups_refuse() {
    let world = World::new().await;
    let base = JoinGroupRequest::default()
        .with_group_id(text("readers").into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![JoinGroupRequestProtocol::default().with_name(text("range"))]);
    let join = async |request: JoinGroupRequest| code(world.call(3, &request).await.expect("an answer").error_code);
    assert_eq!(join(base.clone().with_group_id(StrBytes::default().into())).await, "INVALID_GROUP_ID");
    assert_eq!(join(base.clone().with_session_timeout_ms(5)).await, "INVALID_SESSION_TIMEOUT");
    assert_eq!(join(base.clone().with_member_id(text("stranger"))).await, "UNKNOWN_MEMBER_ID");
    assert_eq!(join(base.clone().with_protocols(Vec::new())).await, "INCONSISTENT_GROUP_PROTOCOL");
    assert_eq!(join(base.clone()).await, "NONE");
    assert_eq!(join(base.with_protocol_type(text("connect"))).await, "INCONSISTENT_GROUP_PROTOCOL");
    let sync = SyncGroupRequest::default().with_group_id(text("readers").into());
    let refused = world.call(5, &sync).await.expect("an answer");
    assert_eq!(code(refused.error_code), "INCONSISTENT_GROUP_PROTOCOL");
    let refused = world.call(3, &sync).await.expect("an answer");
    assert_eq!(code(refused.error_code), "UNKNOWN_MEMBER_ID");
}
