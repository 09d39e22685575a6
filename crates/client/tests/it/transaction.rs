//! The transactional producer: the order of its requests, and what each refusal means for the transaction.

use crate::support::{Fault, Rig, partition, records};
use forebay_client::{Client, ErrorCode, GroupMembership, Kind, Producer, ProducerConfig};
use forebay_types::Offset;
use forebay_wire::kafka::messages::ApiKey;

async fn producer(client: &Client) -> Producer {
    let config = ProducerConfig { transactional_id: Some("t".to_owned()), ..ProducerConfig::default() };
    Producer::new(client, config).await.expect("the transactional id is initialised")
}

async fn send(producer: &mut Producer, value: &str) -> Result<(), forebay_client::ClientError> {
    producer.send_to(&partition(0), records(&[value])).await?.await.map(drop)
}

const ALL: [ApiKey; 6] = [
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::Produce,
    ApiKey::AddOffsetsToTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
];

/// A whole transaction, request by request, then an empty one, which sends nothing.
#[tokio::test(start_paused = true)]
async fn a_transaction_takes_its_steps_in_order() {
    let rig = Rig::new();
    let mut producer = producer(&rig.client).await;
    producer.begin().expect("ready");
    send(&mut producer, "a").await.expect("acknowledged");
    send(&mut producer, "b").await.expect("acknowledged");
    let offset = Offset::new(17).expect("not negative");
    producer.send_offsets(&GroupMembership::alone("g"), &[(partition(2), offset)]).await.expect("in a transaction");
    producer.commit().await.expect("committed");
    assert_eq!(
        rig.requests(&ALL),
        [
            "init t -1/-1",
            "add orders-0",
            "orders-0 epoch 0 sequence 0",
            "orders-0 epoch 0 sequence 1",
            "add offsets of g",
            "offset orders-2 17",
            "end t commit=true",
        ]
    );
    assert_eq!(rig.log(&partition(0)), "a b <commit>");
    assert_eq!(rig.broker.0.lock().committed[&("g".to_owned(), "orders".to_owned(), 2)], 17);
    producer.begin().expect("ready");
    producer.commit().await.expect("nothing to commit");
    assert_eq!(rig.requests(&[ApiKey::EndTxn]).len(), 1, "an empty transaction ends without the coordinator");
}

/// Whatever is still being completed, moving or loading is waited for, and a lost answer is asked for again.
#[tokio::test(start_paused = true)]
async fn what_passes_is_waited_for() {
    let rig = Rig::new();
    let mut producer = producer(&rig.client).await;
    producer.begin().expect("ready");
    let busy = Fault::Refuse(ErrorCode::ConcurrentTransactions);
    rig.fault(ApiKey::AddPartitionsToTxn, &[busy, busy, Fault::LoseAnswer]);
    send(&mut producer, "a").await.expect("acknowledged");
    rig.fault(ApiKey::EndTxn, &[busy, Fault::Refuse(ErrorCode::NotCoordinator), Fault::LoseAnswer]);
    producer.commit().await.expect("committed");
    assert_eq!(rig.requests(&[ApiKey::AddPartitionsToTxn]).len(), 4);
    assert!(rig.requests(&[ApiKey::FindCoordinator]).len() >= 2, "the coordinator is looked up again");
    assert_eq!(rig.log(&partition(0)), "a <commit>");
}

/// A newer producer of the id fences the older: every later call of the older one says so, and says it apart from all
/// other errors.
#[tokio::test(start_paused = true)]
async fn a_fenced_producer_stops_for_good() {
    let rig = Rig::new();
    let mut old = producer(&rig.client).await;
    old.begin().expect("ready");
    send(&mut old, "a").await.expect("acknowledged");
    let mut new = producer(&rig.client).await;
    let error = send(&mut old, "b").await.expect_err("its epoch is old");
    assert_eq!((error.kind(), error.code()), (Kind::Fenced, Some(ErrorCode::InvalidProducerEpoch)));
    assert_eq!(old.commit().await.expect_err("fenced").kind(), Kind::Fenced);
    assert_eq!(old.begin().expect_err("fenced").kind(), Kind::Fenced);
    assert_eq!(old.abort().await.expect_err("fenced").kind(), Kind::Fenced);
    new.begin().expect("ready");
    send(&mut new, "c").await.expect("acknowledged");
    new.commit().await.expect("committed");
    assert_eq!(rig.log(&partition(0)), "a <abort> c <commit>");
    let mut late = producer(&rig.client).await;
    late.begin().expect("ready");
    let _newest = producer(&rig.client).await;
    let error = send(&mut late, "d").await.expect_err("fenced by the coordinator");
    assert_eq!((error.kind(), error.code()), (Kind::Fenced, Some(ErrorCode::ProducerFenced)));
}

/// A batch refused for good: the transaction cannot be committed; after the abort the next one begins under a new
/// epoch, at sequence 0.
#[tokio::test(start_paused = true)]
async fn a_failed_batch_leaves_only_the_abort() {
    let rig = Rig::new();
    let mut producer = producer(&rig.client).await;
    producer.begin().expect("ready");
    send(&mut producer, "a").await.expect("acknowledged");
    rig.fault(ApiKey::Produce, &[Fault::Refuse(ErrorCode::MessageTooLarge)]);
    let error = send(&mut producer, "large").await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    let error = send(&mut producer, "b").await.expect_err("the transaction is lost");
    assert_eq!((error.kind(), error.code()), (Kind::Abort, Some(ErrorCode::MessageTooLarge)));
    assert_eq!(producer.commit().await.expect_err("lost").kind(), Kind::Abort);
    assert_eq!(producer.begin().expect_err("not yet aborted").kind(), Kind::Abort);
    producer.abort().await.expect("aborted");
    producer.begin().expect("ready again");
    send(&mut producer, "c").await.expect("acknowledged");
    producer.commit().await.expect("committed");
    let steps = rig.requests(&[ApiKey::EndTxn, ApiKey::InitProducerId, ApiKey::Produce]).split_off(3);
    assert_eq!(
        steps,
        ["end t commit=false", "init t 1/0", "orders-0 epoch 1 sequence 0", "end t commit=true"],
        "abort, then the next epoch of the same producer id"
    );
    assert_eq!(rig.log(&partition(0)), "a <abort> c <commit>");
}

/// An abort by choice keeps epoch and sequences: nothing was lost.
#[tokio::test(start_paused = true)]
async fn an_abort_by_choice_keeps_the_epoch() {
    let rig = Rig::new();
    let mut producer = producer(&rig.client).await;
    for (value, commit) in [("a", false), ("b", true)] {
        producer.begin().expect("ready");
        send(&mut producer, value).await.expect("acknowledged");
        if commit { producer.commit().await } else { producer.abort().await }.expect("ended");
    }
    assert_eq!(rig.log(&partition(0)), "a <abort> b <commit>");
    assert_eq!(rig.requests(&[ApiKey::Produce])[1], "orders-0 epoch 0 sequence 1");
    assert_eq!(producer.commit().await.expect_err("none is open").kind(), Kind::Reject);
}

/// Refusals from the coordinator: some leave the abort, others end the producer.
#[tokio::test(start_paused = true)]
async fn refusals_of_the_coordinator_are_told_apart() {
    for (code, kind) in [
        (ErrorCode::TransactionAbortable, Kind::Abort),
        (ErrorCode::InvalidProducerIdMapping, Kind::Abort),
        (ErrorCode::InvalidTxnState, Kind::Reject),
        (ErrorCode::TransactionalIdAuthorizationFailed, Kind::Reject),
        (ErrorCode::ProducerFenced, Kind::Fenced),
        (ErrorCode::InvalidProducerEpoch, Kind::Fenced),
    ] {
        let rig = Rig::new();
        let mut producer = producer(&rig.client).await;
        producer.begin().expect("ready");
        rig.fault(ApiKey::AddPartitionsToTxn, &[Fault::Refuse(code)]);
        let error = send(&mut producer, "a").await.expect_err("refused");
        assert_eq!((error.kind(), error.code()), (kind, Some(code)));
        let next = producer.abort().await;
        assert_eq!(next.is_ok(), kind == Kind::Abort, "{code} then {next:?}");
    }
}
