//! A million transactional ids stay cheap: counted, not measured, from the sizes of what holds them.

mod txn;

use std::time::Duration;

use bytes::Bytes;
use forebay_coordinator::machine::Now;
use forebay_coordinator::machine::txn::{TxnConfig, TxnLoader};
use forebay_coordinator::schema::{TransactionLogKey, TransactionLogValue};
use forebay_types::{LeaderEpoch, Offset, Timestamp};

const IDS: i64 = 1_000_000;
/// Entry, index, timer; the id's text comes on top.
const BYTES_PER_ID_MAX: usize = 100;
/// What a million ids may take in a snapshot, each beside its text.
const SNAPSHOT_BYTES_PER_ID_MAX: usize = 24;

/// A million idle ids, as Flink's INCREMENTING strategy leaves them behind within two days, are loaded from their log;
/// each holds under a hundred bytes and its text, and a quarter of that in a snapshot.
#[test]
fn a_million_idle_ids_fit() {
    let mut loader = TxnLoader::new(TxnConfig::default());
    let mut text_bytes = 0;
    for number in 0..IDS {
        let id = format!("orders-sink-{}-{}", number % 100, number / 100);
        text_bytes += id.len();
        let value = TransactionLogValue {
            producer_id: 5000 + number,
            previous_producer_id: -1,
            next_producer_id: -1,
            producer_epoch: 1,
            timeout_ms: 3_600_000,
            status: 4,
            partitions: Some(Vec::new()),
            last_update_ms: txn::START_MS + number * 173,
            start_ms: txn::START_MS + number * 173 - 10_000,
            client_transaction_version: 0,
        };
        let offset = Offset::new(number).expect("counted up");
        let (key, value): (Bytes, Bytes) = (TransactionLogKey::encode(&id), value.encode());
        loader.replay(offset, &key, Some(&value), &[]).expect("a record as Kafka writes it");
    }
    let ids = usize::try_from(IDS).expect("a million");
    let now = Now { wall: Timestamp::from_millis(txn::START_MS + IDS * 173), uptime: Duration::from_secs(1) };
    let end = Offset::new(IDS).expect("a million");
    let (machine, _) = loader.open(now, LeaderEpoch::ZERO, end);
    assert_eq!(machine.ids(), ids);
    let each = (machine.heap_bytes() - text_bytes).div_ceil(ids);
    println!("{ids} ids: {} bytes, {each} each beside {} of text", machine.heap_bytes(), text_bytes / ids);
    assert!(each <= BYTES_PER_ID_MAX, "an idle id holds {each} bytes beside its text");

    let snapshot = machine.snapshot();
    let each = (snapshot.bytes.len() - text_bytes).div_ceil(ids);
    println!("snapshot: {} bytes, {each} each beside the text", snapshot.bytes.len());
    assert!(each <= SNAPSHOT_BYTES_PER_ID_MAX, "an idle id takes {each} bytes in a snapshot beside its text");
}
