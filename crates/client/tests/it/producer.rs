//! The idempotent producer against a broker that loses, refuses and forgets: what ends up in the log is what was sent,
//! once and in order.

use crate::support::{Fault, Rig, partition, records, topic};
use forebay_client::{ErrorCode, Kind, Outcome, Producer, ProducerConfig};
use forebay_wire::kafka::messages::ApiKey;

async fn producer(rig: &Rig) -> Producer {
    Producer::new(&rig.client, ProducerConfig::default()).await.expect("a fresh producer id")
}

/// Sends one batch for each value to partition 0 without waiting, then waits for all; shows offsets and errors.
async fn pipeline(producer: &mut Producer, values: &[&str]) -> String {
    let mut deliveries = Vec::new();
    for value in values {
        deliveries.push(producer.send_to(&partition(0), records(&[value])).await.expect("the producer is alive"));
    }
    let mut shown = Vec::new();
    for delivery in deliveries {
        shown.push(match delivery.await {
            Ok(ack) => ack.base_offset.to_string(),
            Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.to_string()),
        });
    }
    shown.join(" ")
}

/// Records go to the partition of their key as Kafka's own clients send them, and each batch's offsets come back.
#[tokio::test(start_paused = true)]
async fn keys_choose_partitions_and_acks_tell_offsets() {
    let rig = Rig::new();
    let mut producer = producer(&rig).await;
    let mut batch = records(&["a", "b", "c"]);
    // The hashes of Kafka's own test, modulo 3: 0 and 2.
    batch[0].key = Some("21".into());
    batch[1].key = Some("21".into());
    batch[2].key = Some("a-little-bit-long-string".into());
    let acks = producer.produce(&topic(), batch).await.expect("acknowledged");
    let shown: Vec<_> = acks.iter().map(|a| format!("{}@{}+{}", a.partition, a.base_offset, a.records)).collect();
    assert_eq!(shown.join(" "), "orders-0@0+2 orders-2@0+1");
    assert_eq!(rig.log(&partition(0)), "a b");
    let ack = producer.send_to(&partition(0), records(&["d"])).await.expect("alive").await.expect("acknowledged");
    assert_eq!(ack.base_offset.get(), 2);
}

/// An answer that is lost after the append: the same batch goes again and is recognised, so nothing is there twice,
/// although more batches were on their way behind it.
#[tokio::test(start_paused = true)]
async fn lost_answers_duplicate_nothing() {
    let rig = Rig::new();
    let mut producer = producer(&rig).await;
    rig.fault(ApiKey::Produce, &[Fault::LoseAnswer, Fault::LoseAnswer]);
    assert_eq!(pipeline(&mut producer, &["a", "b", "c", "d", "e", "f", "g"]).await, "0 1 2 3 4 5 6");
    assert_eq!(rig.log(&partition(0)), "a b c d e f g");
}

/// A refusal of the first of five in flight: those behind it meet a gap, come back, and all go again in order.
#[tokio::test(start_paused = true)]
async fn a_refused_batch_keeps_its_place() {
    let rig = Rig::new();
    let mut producer = producer(&rig).await;
    for round in ["at once", "with a producer that the broker knows"] {
        rig.fault(ApiKey::Produce, &[Fault::Refuse(ErrorCode::NotLeaderOrFollower)]);
        let from = rig.log(&partition(0)).split_whitespace().count();
        let offsets: Vec<_> = (from..from + 6).map(|offset| offset.to_string()).collect();
        assert_eq!(pipeline(&mut producer, &["a", "b", "c", "d", "e", "f"]).await, offsets.join(" "), "{round}");
    }
    assert_eq!(rig.log(&partition(0)), "a b c d e f a b c d e f");
    let looked_up = rig.requests(&[ApiKey::Metadata]).iter().filter(|r| *r == "metadata orders").count();
    assert!(looked_up >= 2, "the leader is looked up again, not {looked_up} times");
}

/// A batch refused for good leaves a gap in the sequences, so the next ones begin anew under the next epoch.
#[tokio::test(start_paused = true)]
async fn a_batch_given_up_costs_an_epoch() {
    let rig = Rig::new();
    let mut producer = producer(&rig).await;
    assert_eq!(pipeline(&mut producer, &["a"]).await, "0");
    rig.fault(ApiKey::Produce, &[Fault::Refuse(ErrorCode::MessageTooLarge)]);
    assert_eq!(pipeline(&mut producer, &["large"]).await, "MESSAGE_TOO_LARGE");
    assert_eq!(pipeline(&mut producer, &["b", "c"]).await, "1 2");
    assert_eq!(rig.log(&partition(0)), "a b c");
    let last = rig.requests(&[ApiKey::Produce]).split_off(2);
    assert_eq!(last, ["orders-0 epoch 1 sequence 0", "orders-0 epoch 1 sequence 1"]);
    let error = producer.flush().await.expect_err("a flush tells of what was given up");
    assert_eq!((error.kind(), error.outcome()), (Kind::Reject, Outcome::DidNotHappen));
    producer.flush().await.expect("and tells it once");
}

/// A broker that forgot the producer: a batch that was surely not written goes again under a new epoch; one that may
/// have been written does not.
#[tokio::test(start_paused = true)]
async fn a_forgotten_producer_begins_anew_only_where_that_is_safe() {
    let rig = Rig::new();
    let mut producer = producer(&rig).await;
    rig.fault(ApiKey::Produce, &[Fault::Refuse(ErrorCode::UnknownProducerId)]);
    assert_eq!(pipeline(&mut producer, &["a"]).await, "0");
    assert_eq!(rig.requests(&[ApiKey::Produce]), ["orders-0 epoch 0 sequence 0", "orders-0 epoch 1 sequence 0"]);
    rig.fault(ApiKey::Produce, &[Fault::LoseAnswer, Fault::Refuse(ErrorCode::UnknownProducerId)]);
    assert_eq!(pipeline(&mut producer, &["b"]).await, "UNKNOWN_PRODUCER_ID");
    assert_eq!(rig.log(&partition(0)), "a b", "it was written before the broker forgot");
}

/// Silence: the deadline ends the wait, and the error says that the batch may be there.
#[tokio::test(start_paused = true)]
async fn silence_is_told_apart_from_refusal() {
    let rig = Rig::new();
    let config = ProducerConfig { delivery_deadline: std::time::Duration::from_secs(12), ..ProducerConfig::default() };
    let mut producer = Producer::new(&rig.client, config).await.expect("a fresh producer id");
    rig.fault(ApiKey::Produce, &[Fault::Silence; 9]);
    let delivery = producer.send_to(&partition(0), records(&["a"])).await.expect("alive");
    assert_eq!(delivery.await.expect_err("never answered").outcome(), Outcome::MayHaveHappened);
    assert_eq!(rig.log(&partition(0)), "a");
    rig.broker.0.lock().faults.clear();
    rig.fault(ApiKey::Produce, &[Fault::Refuse(ErrorCode::NotLeaderOrFollower); 99]);
    let delivery = producer.send_to(&partition(0), records(&["b"])).await.expect("alive");
    assert_eq!(delivery.await.expect_err("never accepted").outcome(), Outcome::DidNotHappen);
}

/// Batches of several partitions fly together and each partition keeps its order.
#[tokio::test(start_paused = true)]
async fn partitions_do_not_wait_for_each_other() {
    let rig = Rig::new();
    let mut producer = producer(&rig).await;
    rig.fault(ApiKey::Produce, &[Fault::LoseRequest, Fault::LoseAnswer]);
    let mut deliveries = Vec::new();
    for round in ["a", "b", "c"] {
        for index in 0..3 {
            deliveries.push(producer.send_to(&partition(index), records(&[round])).await.expect("alive"));
        }
    }
    for delivery in deliveries {
        delivery.await.expect("acknowledged in the end");
    }
    producer.flush().await.expect("nothing was given up");
    for index in 0..3 {
        assert_eq!(rig.log(&partition(index)), "a b c");
    }
}
