//! One life of a broker on a medium, and what it may remember after its death: the ledger of a client.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_env::simulated::ArmedFailPoints;
use forebay_env::{Env, Parts, Task};
use forebay_format::{BatchSummary, WalEntry};
use forebay_types::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, LogId, Offset, PartitionIndex, Timestamp, TopicId, TopicPartition,
    WalPosition, WalSequence,
};
use parking_lot::Mutex;

use super::{Medium, Violation, check};
use crate::{DurableGroup, Publisher, SealErrorKind, Sealed, Sealer, Wal, WalConfig, WalEnded, WalError, WalOwner};

/// Partitions that entries go to in turn.
const PARTITIONS: u64 = 3;

/// Bytes before a batch's text: its offset and its length, as in Kafka.
const FRAME_SIZE: usize = 12;

/// Attempts to seal on a medium that is away now and then.
const SEALS_MAX: u32 = 20;

/// An entry that is known by its number: the nth of a life, in partition n mod 3, at the next offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbered {
    pub epoch: BrokerEpoch,
    pub number: u64,
}

/// The broker of the suite in one of its lives.
pub fn owner(epoch: u64) -> WalOwner {
    WalOwner {
        cluster: ClusterId::from_random([1; 16]),
        broker: BrokerId::new(3).expect("not negative"),
        epoch: BrokerEpoch::new(epoch).expect("not negative"),
    }
}

impl Numbered {
    pub fn partition(self) -> TopicPartition {
        let index = i32::try_from(self.number % PARTITIONS).expect("small");
        TopicPartition {
            topic: TopicId::from_random([2; 16]),
            partition: PartitionIndex::new(index).expect("not negative"),
        }
    }

    pub fn offset(self) -> Offset {
        Offset::new(i64::try_from(self.number / PARTITIONS).expect("small")).expect("not negative")
    }

    /// The entry, with a batch of about `size` bytes.
    pub fn entry(self, size: usize) -> WalEntry {
        let text = format!("{} {} ", self.epoch, self.number).into_bytes();
        let length = text.len().max(size);
        // Framed as a Kafka batch is, so that batches in a row can be told apart.
        let mut records = self.offset().get().to_be_bytes().to_vec();
        records.extend(u32::try_from(length).expect("small").to_be_bytes());
        records.extend(text);
        records.resize(FRAME_SIZE + length, u8::try_from(self.number % 251).expect("below 251"));
        WalEntry {
            partition: self.partition(),
            log: LogId::ZERO,
            leader_epoch: LeaderEpoch::ZERO,
            epoch_start: Offset::ZERO,
            summary: BatchSummary {
                base_offset: self.offset(),
                last_offset: self.offset(),
                max_timestamp: Timestamp::from_millis(1_000),
                records: 1,
                producer: None,
                transactional: false,
                marker: None,
            },
            aborted: None,
            records: Bytes::from(records),
        }
    }

    /// Which entry a batch is.
    pub fn of(records: &[u8]) -> Result<Self, Violation> {
        let broken = || Violation(format!("a batch came back as {:?}", records.escape_ascii().to_string()));
        let text = records.get(FRAME_SIZE..).ok_or_else(broken)?;
        let mut words = text.splitn(3, |b| *b == b' ');
        let mut number = || -> Option<u64> { std::str::from_utf8(words.next()?).ok()?.parse().ok() };
        let (epoch, number) = (number().ok_or_else(broken)?, number().ok_or_else(broken)?);
        let epoch = BrokerEpoch::new(epoch).map_err(|_| broken())?;
        let numbered = Self { epoch, number };
        if numbered.entry(text.len()).records == records { Ok(numbered) } else { Err(broken()) }
    }
}

/// Cuts what a block of a data object holds into batches.
pub fn split_batches(mut block: Bytes) -> Vec<Bytes> {
    let mut batches = Vec::new();
    while let Some(length) = block.get(8..FRAME_SIZE) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let size = FRAME_SIZE + usize::try_from(length).expect("fits memory");
        batches.push(block.split_to(size.min(block.len())));
    }
    batches
}

/// What was seen from outside.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In the order of publication.
    pub published: Vec<u64>,
    /// The number after the last one acknowledged: acks come in order, because each waiter waits for all before it.
    pub acked: u64,
    pub next_sequence: WalSequence,
    pub ended: bool,
    pub violation: Option<Violation>,
}

/// Records what the WAL publishes, and checks its order.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness(pub Arc<Mutex<Ledger>>);

impl Publisher for Witness {
    fn publish(&self, group: DurableGroup) {
        let ledger = &mut *self.0.lock();
        let in_turn = check(group.sequence == ledger.next_sequence, || {
            format!("group {} was published where {} was next", group.sequence, ledger.next_sequence)
        });
        ledger.next_sequence = group.sequence.next();
        let dense = group.entries.iter().try_for_each(|entry| {
            let number = Numbered::of(&entry.records)?.number;
            let wanted = ledger.published.len() as u64;
            ledger.published.push(number);
            check(number == wanted, || format!("entry {number} was published where {wanted} was next"))
        });
        if let Err(violation) = in_turn.and(dense) {
            ledger.violation.get_or_insert(violation);
        }
    }

    fn ended(&self, _: &WalError) {
        self.0.lock().ended = true;
    }
}

/// A broker's life: its WAL, and clients that write to it.
pub(super) struct Life {
    pub epoch: BrokerEpoch,
    pub env: Env,
    pub fail_points: ArmedFailPoints,
    pub wal: Wal,
    pub witness: Witness,
    /// How many entries were appended.
    pub appended: u64,
    acks: Vec<Task<()>>,
}

impl Life {
    pub async fn begin(medium: &dyn Medium, epoch: u64, seed: u64) -> Result<Self, Violation> {
        let fail_points = ArmedFailPoints::default();
        let env = Env::new(Parts { fail_points: Box::new(fail_points.clone()), ..medium.parts(seed) });
        let owner = owner(epoch);
        let provider = medium.open(&env, &owner).await?;
        let witness = Witness::default();
        let config = WalConfig { bytes_in_flight_max: 1 << 20, ..WalConfig::default() };
        let wal = Wal::start(&env, provider, Arc::new(witness.clone()), config);
        Ok(Self { epoch: owner.epoch, env, fail_points, wal, witness, appended: 0, acks: Vec::new() })
    }

    /// Appends the next entry, and has a client wait for its ack.
    pub async fn append(&mut self, size: usize) -> Result<WalPosition, WalEnded> {
        let number = self.appended;
        let entry = Numbered { epoch: self.epoch, number }.entry(size);
        let mut admission = self.wal.admit(entry.encoded_size()).await?;
        let position = self.wal.append(&mut admission, entry);
        assert_eq!(position.get(), number + 1, "positions count the entries");
        self.appended += 1;
        let (wal, witness) = (self.wal.clone(), self.witness.clone());
        self.acks.push(self.env.spawn("conformance-client", async move {
            if wal.durable(position).await.is_ok() {
                let ledger = &mut *witness.0.lock();
                let published = ledger.published.len() as u64;
                if published <= number {
                    let what = format!("entry {number} was acknowledged when {published} were published");
                    ledger.violation.get_or_insert(Violation(what));
                }
                ledger.acked = ledger.acked.max(number + 1);
            }
        }));
        Ok(position)
    }

    /// Lets the clients see the acks that are due.
    pub async fn settle(&mut self) {
        for task in self.acks.drain(..) {
            task.await;
        }
    }

    pub fn acked(&self) -> u64 {
        self.witness.0.lock().acked
    }

    /// What this life saw go wrong, if anything.
    pub fn verdict(&self) -> Result<(), Violation> {
        self.witness.0.lock().violation.clone().map_or(Ok(()), Err)
    }
}

/// Seals an epoch, again where the medium was away.
pub(super) async fn seal(sealer: &dyn Sealer, epoch: u64, committed: Option<WalSequence>) -> Result<Sealed, Violation> {
    let of = owner(epoch);
    for _ in 0..SEALS_MAX {
        match sealer.seal(of.broker, of.epoch, committed).await {
            Err(error) if error.kind() == SealErrorKind::Retry => {}
            sealed => return Ok(sealed?),
        }
    }
    Err(Violation(format!("epoch {epoch} could not be sealed in {SEALS_MAX} attempts")))
}

/// Checks sealed groups of one epoch against what was appended: dense from `first`, in each partition in order. Gives
/// the number after the last one.
pub(super) fn check_groups(
    groups: &[(WalSequence, Vec<Bytes>)],
    epoch: BrokerEpoch,
    first: u64,
) -> Result<u64, Violation> {
    let mut all: Vec<u64> = Vec::new();
    let mut in_partition: BTreeMap<TopicPartition, u64> = BTreeMap::new();
    let mut before: Option<WalSequence> = None;
    for (sequence, batches) in groups {
        let in_turn = before.is_none_or(|b| b.next() == *sequence);
        check(in_turn, || format!("group {sequence} came back after {before:?}"))?;
        before = Some(*sequence);
        for batch in batches {
            let entry = Numbered::of(batch)?;
            check(entry.epoch == epoch, || format!("{entry:?} came back from epoch {epoch}"))?;
            if let Some(last) = in_partition.insert(entry.partition(), entry.number) {
                check(last < entry.number, || format!("entry {} came back after {last}", entry.number))?;
            }
            all.push(entry.number);
        }
    }
    all.sort_unstable();
    for (wanted, number) in (first..).zip(&all) {
        check(wanted == *number, || format!("entry {number} came back where {wanted} is missing"))?;
    }
    Ok(first + all.len() as u64)
}
