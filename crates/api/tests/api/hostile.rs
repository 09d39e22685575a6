//! Frames that are no requests: each closes its own connection, says why, and leaves everybody else alone.

use bytes::BytesMut;
use forebay_wire::kafka::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use forebay_wire::kafka::messages::{
    DescribeGroupsRequest, DescribeTransactionsRequest, FetchRequest, MetadataRequest, OffsetFetchRequest,
};
use forebay_wire::kafka::protocol::StrBytes;

use crate::script::check_in;
use crate::world::{World, frame};

async fn closed(world: &World, bytes: &[u8]) -> String {
    world.send(BytesMut::from(bytes)).await.map(|answer| format!("{answer:?}")).expect_err("no request").to_string()
}

/// Too short, of no API, of an API that is not served, of a version that is not, cut off, with lengths that cannot be: an
/// error each, and the next request is served.
#[tokio::test(start_paused = true)]
async fn each_fault_closes_one_connection() {
    let mut world = World::new().await;
    assert_eq!(closed(&world, &[]).await, "api key needs 2 bytes at position 0, 0 are left");
    let unknown = [0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    assert_eq!(closed(&world, &unknown).await, "no API has the key 32512 (request version 0)");
    // LeaderAndIsr of old, between brokers.
    let internal = [0, 27, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0];
    assert_eq!(closed(&world, &internal).await, "API key 27 (version 1) is not served");
    let future = frame(12, &MetadataRequest::default());
    let mut future = future.to_vec();
    future[3] = 99;
    assert_eq!(closed(&world, &future).await, "Metadata is served in versions 0 to 12, not in 99");
    let whole = frame(12, &FetchRequest::default().with_max_wait_ms(0));
    for cut in 0..whole.len() {
        closed(&world, &whole[..cut]).await;
    }
    // librdkafka 2.12 sends three bytes more than its Metadata request has, and Kafka does not look at them.
    let mut long = whole.to_vec();
    long.extend([1, 2, 3]);
    let answer = world.send(BytesMut::from(&long[..])).await.expect("answered");
    assert!(answer.is_some());
    // A topic list that says it has 2^31 - 1 topics.
    let lengths = [0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff];
    assert_eq!(closed(&world, &lengths).await, "cannot decode MetadataRequest of version 1");
    check_in(&mut world, "metadata a -> a: 0 leader=1 epoch=0").await;
}

/// Of what is named a thousand times one answer is given: a small request makes no answer of gigabytes.
#[tokio::test(start_paused = true)]
async fn a_name_said_often_is_answered_once() {
    let mut world = World::new().await;
    check_in(&mut world, "create a -> NONE").await;
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let named = vec![text("readers"); 1_000];
    let request = DescribeGroupsRequest::default().with_groups(named.iter().cloned().map(Into::into).collect());
    assert_eq!(world.call(5, &request).await.expect("answered").groups.len(), 1);
    let ids = named.iter().cloned().map(Into::into).collect();
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    assert_eq!(world.call(0, &request).await.expect("answered").transaction_states.len(), 1);
    let topic = OffsetFetchRequestTopics::default().with_name(text("a").into()).with_partition_indexes(vec![0; 1_000]);
    let group = OffsetFetchRequestGroup::default().with_group_id(text("readers").into());
    let group = group.with_topics(Some(vec![topic.clone(), topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![group; 1_000]);
    let groups = world.call(8, &request).await.expect("answered").groups;
    let partitions: usize = groups.iter().flat_map(|group| &group.topics).map(|topic| topic.partitions.len()).sum();
    assert_eq!((groups.len(), partitions), (1, 1));
}

/// A frame of any bytes is answered or refused: no panic, whatever key, version and body it claims.
#[tokio::test(start_paused = true)]
async fn any_bytes_are_survived() {
    let world = World::new().await;
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        // xorshift64: the same bytes in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).expect("eight bits")
    };
    let mut refused = 0;
    for api in forebay_api::apis::APIS {
        for version in api.versions.clone() {
            for size in [0, 3, 17, 60] {
                let mut bytes =
                    vec![0, u8::try_from(api.key).expect("small"), 0, u8::try_from(version).expect("small")];
                bytes.extend([0, 0, 0, 1, 0xff, 0xff, 0]);
                bytes.extend(std::iter::repeat_with(&mut next).take(size));
                refused += usize::from(world.send(BytesMut::from(&bytes[..])).await.is_err());
            }
        }
    }
    assert!(refused > 100, "most bytes are no request");
}
