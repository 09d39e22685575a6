//! The `object` kind where it differs: outages, fences, damage in the bucket, what it may cost.

mod media;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::Env;
use forebay_env::simulated::{self, SimDisk, Trace};
use forebay_format::ObjectName;
use forebay_store::{Fault, FaultRates, Key, Operation, Store};
use forebay_types::{ByteSize, LogId, WalSequence};
use forebay_wal::conformance::{Decays, Medium, Numbered, owner};
use forebay_wal::providers::object::{ObjectConfig, ObjectProvider, ObjectSealer};
use forebay_wal::{
    DurableGroup, GROUP_OFFSETS_MAX, Publisher, SealErrorKind, Sealed, SealedContents, Sealer, Wal, WalConfig,
    WalEnded, WalError, WalErrorKind,
};
use media::InBucket;
use parking_lot::Mutex;

/// Keeps what was published, by sequence and number of entries.
#[derive(Default)]
struct Published(Mutex<Vec<(u64, usize)>>);

impl Publisher for Published {
    fn publish(&self, group: DurableGroup) {
        let upload = group.upload.expect("an object is the group");
        assert_eq!(upload.sequence, group.sequence);
        self.0.lock().push((group.sequence.get(), group.entries.len()));
    }

    fn ended(&self, _: &WalError) {}
}

fn env() -> Env {
    Env::new(simulated::parts(5, &SimDisk::new(5, Trace::default())))
}

fn start(bucket: &InBucket, config: ObjectConfig) -> (Wal, Arc<Published>) {
    let published = Arc::new(Published::default());
    let provider = ObjectProvider::new(&env(), Arc::clone(&bucket.store), owner(1), config);
    (Wal::start(&env(), Box::new(provider), Arc::<Published>::clone(&published), WalConfig::default()), published)
}

async fn append(wal: &Wal, number: u64, size: usize) -> Result<forebay_types::WalPosition, WalEnded> {
    let entry = Numbered { epoch: owner(1).epoch, number }.entry(size);
    let mut admission = wal.admit(entry.encoded_size()).await?;
    Ok(wal.append(&mut admission, entry))
}

fn sealer(bucket: &InBucket, epoch: u64) -> ObjectSealer {
    ObjectSealer::new(&env(), Arc::clone(&bucket.store), owner(epoch), ObjectConfig::default().groups_in_flight_max)
}

async fn seal(bucket: &InBucket, by: u64, committed: Option<u64>) -> Sealed {
    let of = owner(1);
    sealer(bucket, by).seal(of.broker, of.epoch, committed.map(WalSequence::new)).await.expect("the bucket answers")
}

fn key(sequence: u64) -> Key {
    let of = owner(1);
    let name = ObjectName::Wal { broker: of.broker, epoch: of.epoch, sequence: WalSequence::new(sequence) };
    Key::new(&name.to_string()).expect("a name is a key")
}

fn numbers(sealed: &Sealed) -> Vec<u64> {
    let SealedContents::Objects(objects) = &sealed.contents else { panic!("a bucket holds objects") };
    objects.iter().map(|o| o.sequence.get()).collect()
}

/// Six groups, the clock past each.
async fn six_groups(bucket: &InBucket) -> Wal {
    let (wal, _) = start(bucket, ObjectConfig::default());
    for number in 0..6 {
        let position = append(&wal, number, 300).await.expect("running");
        wal.durable(position).await.expect("written");
    }
    wal
}

#[tokio::test(start_paused = true)]
async fn an_idle_broker_does_not_wait_and_a_busy_one_keeps_its_limit() {
    let bucket = InBucket::new(1, FaultRates::default());
    let (wal, published) = start(&bucket, ObjectConfig::default());
    let env = env();
    env.sleep(Duration::from_secs(5)).await;
    let began = env.monotonic();
    let first = append(&wal, 0, 300).await.expect("running");
    wal.durable(first).await.expect("written");
    assert!(env.monotonic() - began < Duration::from_millis(10), "the first record after a rest does not wait");
    let mut last = first;
    for number in 1..=500 {
        last = append(&wal, number, 300).await.expect("running");
        env.sleep(Duration::from_millis(4)).await;
    }
    wal.durable(last).await.expect("written");
    let groups = published.0.lock().clone();
    assert!((20..=22).contains(&groups.len()), "two seconds are some twenty objects: {groups:?}");
    assert_eq!(groups.iter().map(|(_, entries)| entries).sum::<usize>(), 501);
    assert!(groups.iter().map(|(sequence, _)| *sequence).eq(0..groups.len() as u64), "in order, none missing");
}

#[tokio::test(start_paused = true)]
async fn acks_wait_out_an_outage_and_come_in_order() {
    let bucket = InBucket::new(2, FaultRates::default());
    let (wal, published) = start(&bucket, ObjectConfig::default());
    bucket.faulty.set_outage(true);
    let mut last = append(&wal, 0, 300).await.expect("running");
    for number in 1..40 {
        last = append(&wal, number, 300).await.expect("running");
        env().sleep(Duration::from_millis(20)).await;
    }
    let waits = env().timeout(Duration::from_hours(1), wal.durable(last)).await;
    assert!(waits.is_none() && wal.has_ended().is_none(), "an hour without the bucket ends nothing");
    assert!(published.0.lock().is_empty());
    bucket.faulty.set_outage(false);
    wal.durable(last).await.expect("written when the bucket is back");
    let groups = published.0.lock().clone();
    assert!(groups.iter().map(|(sequence, _)| *sequence).eq(0..groups.len() as u64), "in order: {groups:?}");
}

#[tokio::test(start_paused = true)]
async fn uncommitted_objects_are_bounded() {
    let bucket = InBucket::new(3, FaultRates::default());
    let config = ObjectConfig { groups_uncommitted_max: NonZeroUsize::new(5).expect("not 0"), ..bucket.config };
    let (wal, published) = start(&bucket, config);
    for number in 0..5 {
        let position = append(&wal, number, 300).await.expect("running");
        wal.durable(position).await.expect("written");
    }
    assert_eq!(wal.room(), 0);
    let waits = env().timeout(Duration::from_mins(1), append(&wal, 5, 300)).await;
    assert!(waits.is_none(), "the sixth is not admitted");
    wal.trim(WalSequence::new(2));
    let position = append(&wal, 5, 300).await.expect("admitted after a commit");
    wal.durable(position).await.expect("written");
    assert_eq!(published.0.lock().len(), 6);
}

/// Batches stay in memory until they are committed, so that their bytes are bounded and not only their objects.
#[tokio::test(start_paused = true)]
async fn uncommitted_bytes_are_bounded() {
    assert_eq!(ObjectConfig::default().bytes_uncommitted_max, ByteSize::mib(256));
    let bucket = InBucket::new(3, FaultRates::default());
    let config = ObjectConfig { bytes_uncommitted_max: ByteSize::new(1 << 20), ..bucket.config };
    let (wal, published) = start(&bucket, config);
    assert_eq!(wal.room(), 1 << 20);
    let mut written = 0;
    while let Some(appended) = env().timeout(Duration::from_mins(1), append(&wal, written, 200_000)).await {
        wal.durable(appended.expect("running")).await.expect("written");
        written += 1;
        assert!(written <= 5, "six of them are more than a MiB");
    }
    assert_eq!(published.0.lock().len() as u64, written);
    assert!((4..=5).contains(&written) && wal.room() < 400_000, "{written} written, {} of room", wal.room());
    wal.trim(WalSequence::new(1));
    let position = append(&wal, written, 200_000).await.expect("admitted after a commit");
    wal.durable(position).await.expect("written");
}

/// What one admission brought in may be more than there is room for: the groups wait in their order, and one that is
/// larger than the whole bound goes alone.
#[tokio::test(start_paused = true)]
async fn groups_without_room_wait_in_order() {
    let bucket = InBucket::new(3, FaultRates::default());
    let config = ObjectConfig { bytes_uncommitted_max: ByteSize::new(1 << 20), group_bytes_max: 1, ..bucket.config };
    let (wal, published) = start(&bucket, config);
    let mut admission = wal.admit(1).await.expect("running");
    let mut last = forebay_types::WalPosition::START;
    for (number, size) in (0..).zip([700_000, 2_000_000, 300, 300]) {
        last = wal.append(&mut admission, Numbered { epoch: owner(1).epoch, number }.entry(size));
    }
    let came = || published.0.lock().len();
    for (groups, trim) in [(1, 0), (2, 1)] {
        assert!(env().timeout(Duration::from_mins(1), wal.durable(last)).await.is_none(), "the rest has no room");
        assert_eq!(came(), groups);
        wal.trim(WalSequence::new(trim));
    }
    wal.durable(last).await.expect("written");
    assert_eq!(came(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_fence_ends_the_writer_for_good() {
    let bucket = InBucket::new(4, FaultRates::default());
    let wal = six_groups(&bucket).await;
    let sealed = seal(&bucket, 2, Some(1)).await;
    assert_eq!((sealed.end.get(), numbers(&sealed)), (6, vec![2, 3, 4, 5]));
    let position = append(&wal, 6, 300).await.expect("it does not know yet");
    let ended = wal.durable(position).await.expect_err("fenced");
    assert_eq!(ended.kind(), WalErrorKind::Fenced);
    assert_eq!(
        ended.reason.to_string(),
        format!("this WAL was sealed by another broker epoch: a fence is at {}", key(6))
    );
    assert!(append(&wal, 7, 300).await.is_err(), "and stays so");
}

#[tokio::test(start_paused = true)]
async fn an_epoch_sealed_before_its_first_write_never_writes() {
    let bucket = InBucket::new(4, FaultRates::default());
    let sealed = seal(&bucket, 2, None).await;
    assert_eq!((sealed.end, numbers(&sealed)), (WalSequence::ZERO, vec![]));
    let (wal, published) = start(&bucket, ObjectConfig::default());
    let position = append(&wal, 0, 300).await.expect("it does not know yet");
    assert_eq!(wal.durable(position).await.expect_err("fenced").kind(), WalErrorKind::Fenced);
    assert!(published.0.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_flight_at_the_death_is_the_end() {
    let bucket = InBucket::new(5, FaultRates::default());
    drop(six_groups(&bucket).await);
    // Numbers 3 and 5 were in flight, 5 arrived: nothing from 3 on was acknowledged.
    bucket.bare.delete(&key(3)).await.expect("deleted");
    let sealed = seal(&bucket, 2, None).await;
    assert_eq!((sealed.end.get(), numbers(&sealed)), (3, vec![0, 1, 2]));
    // The dead writer's last create arrives now, and loses.
    assert!(bucket.bare.create(&key(3), "late".as_bytes().to_vec().into()).await.is_err());
    let again = seal(&bucket, 3, None).await;
    assert_eq!((again.end.get(), numbers(&again)), (3, vec![0, 1, 2]));
}

/// Whatever request of a sealer is its last, the next one comes to an end that holds what was acknowledged.
#[tokio::test(start_paused = true)]
async fn a_sealer_may_crash_at_any_step() {
    let of = owner(1);
    for requests in 0..60 {
        let bucket = InBucket::new(6, FaultRates::default());
        drop(six_groups(&bucket).await);
        bucket.bare.delete(&key(4)).await.expect("deleted");
        // The first sealer is dropped when it has made so many requests; its last one may or may not have arrived.
        let before = bucket.faulty.requests();
        let dying = sealer(&bucket, 2);
        let slow = FaultRates { slow: 1_000, slow_max: Duration::from_millis(50), ..FaultRates::default() };
        bucket.faulty.set_rates(slow);
        let mut end = None;
        {
            let mut sealing = std::pin::pin!(dying.seal(of.broker, of.epoch, None));
            while end.is_none() && bucket.faulty.requests() - before <= requests {
                end = env().timeout(Duration::from_millis(1), &mut sealing).await;
            }
        }
        bucket.faulty.set_rates(FaultRates::default());
        let sealed = seal(&bucket, 3, None).await;
        assert_eq!((sealed.end.get(), numbers(&sealed)), (4, vec![0, 1, 2, 3]), "after {requests} requests");
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_false_conflicts_change_nothing() {
    for fault in
        [Fault::LostAnswer, Fault::TimeoutAfter, Fault::TimeoutBefore, Fault::FalseConflict, Fault::Unavailable]
    {
        let bucket = InBucket::new(7, FaultRates::default());
        bucket.faulty.script(Operation::Create, fault);
        let wal = six_groups(&bucket).await;
        assert!(bucket.faulty.script_is_done(), "{fault:?} struck the writer");
        drop(wal);
        for _ in 0..2 {
            bucket.faulty.script(Operation::Create, fault);
        }
        let sealed = seal(&bucket, 2, None).await;
        assert!(bucket.faulty.script_is_done(), "{fault:?} struck the sealer");
        assert_eq!((sealed.end.get(), numbers(&sealed)), (6, vec![0, 1, 2, 3, 4, 5]), "{fault:?}");
        assert_eq!(bucket.read(sealed.contents).await.expect("readable").len(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_named_and_the_rest_goes_on() {
    let bucket = InBucket::new(8, FaultRates::default());
    drop(six_groups(&bucket).await);
    let mut bytes = bucket.bare.get(&key(2)).await.expect("there").to_vec();
    let middle_of_the_footer = bytes.len() - 60;
    bytes[middle_of_the_footer] ^= 1;
    bucket.bare.put(&key(2), bytes.into()).await.expect("put");
    let sealed = seal(&bucket, 2, None).await;
    assert_eq!((sealed.end.get(), numbers(&sealed)), (6, vec![0, 1, 3, 4, 5]));
    let [corrupt] = &sealed.corrupt[..] else { panic!("one corrupt range: {:?}", sealed.corrupt) };
    assert_eq!((corrupt.first.get(), corrupt.end.get()), (2, 3));
    assert!(corrupt.what.starts_with(key(2).as_str()), "{}", corrupt.what);
    let lost = Numbered { epoch: owner(1).epoch, number: 2 };
    let gaps: Vec<_> = corrupt.gaps.iter().map(|g| (g.partition, g.end)).collect();
    assert_eq!((&gaps[..], corrupt.unknown), (&[(lost.partition(), lost.offset().next())][..], 0));
}

/// No object lies behind the last: it was written whole and may have been acknowledged, and nothing tells what it held.
#[tokio::test(start_paused = true)]
async fn a_damaged_last_object_may_have_held_anything() {
    let bucket = InBucket::new(8, FaultRates::default());
    drop(six_groups(&bucket).await);
    bucket.decay(&owner(1), WalSequence::new(4)).await;
    bucket.decay(&owner(1), WalSequence::new(5)).await;
    for _ in 0..2 {
        let sealed = seal(&bucket, 2, None).await;
        assert_eq!((sealed.end.get(), numbers(&sealed)), (6, vec![0, 1, 2, 3]));
        let corrupt: Vec<_> = sealed.corrupt.iter().map(|c| (c.first.get(), c.end.get(), c.unknown)).collect();
        assert_eq!(corrupt, [(4, 5, 1), (5, 6, 1)]);
        let partition = Numbered { epoch: owner(1).epoch, number: 0 }.partition();
        let unknown = sealed.corrupt.iter().map(|c| c.unknown_offsets(partition, LogId::ZERO));
        assert_eq!(unknown.sum::<u64>(), 2 * GROUP_OFFSETS_MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_under_the_wrong_name_is_reported_and_no_number_is_taken_twice() {
    let bucket = InBucket::new(9, FaultRates::default());
    let wal = six_groups(&bucket).await;
    let misplaced = bucket.bare.get(&key(1)).await.expect("there");
    bucket.bare.put(&key(6), misplaced.into()).await.expect("put");
    let of = owner(1);
    let refused = sealer(&bucket, 2).seal(of.broker, of.epoch, None).await.expect_err("contradicts its name");
    assert_eq!(refused.kind(), SealErrorKind::Report);
    assert!(refused.to_string().contains("number 1 in cluster"), "{refused}");
    let position = append(&wal, 6, 300).await.expect("running");
    let ended = wal.durable(position).await.expect_err("the number is somebody else's");
    assert!(matches!(*ended.reason, WalError::Foreign { .. }), "{:?}", ended.reason);
}
