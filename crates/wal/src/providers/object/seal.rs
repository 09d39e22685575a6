//! Sealing a WAL in the bucket against a writer that may still be alive (D6).
//!
//! 1. Look upwards from the last committed number until K numbers in a row are missing: nothing can lie beyond, as the
//!    writer has no more than K in flight.
//! 2. Plant a fence K past the last number seen, so that the writer cannot run away from the next step. A fence that
//!    an earlier sealer left does as well.
//! 3. Walk upwards again and plant a fence at the first gap. Where the create loses, the writer won that number: read it
//!    and go on. The epoch ends at its lowest fence.
//!
//! Crash: at any step; whoever comes next finds what was planted, and the lowest fence stays where it is. Retries: the
//! store's. Cancellation: as a crash.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_env::Env;
use forebay_format::{
    ErrorKind, Fence, Footer, FormatError, LogEnd, ObjectRange, Section, Tally, WalObject, WalObjectParse,
};
use forebay_store::{CreateError, Object, Span, Store, StoreError, StoreErrorKind, create_exact};
use forebay_types::{BrokerEpoch, BrokerId, WalSequence};
use futures::{StreamExt, TryStreamExt, stream};

use super::key_of;
use crate::seal::Ledger;
use crate::{SealError, Sealed, SealedContents, Sealer, WalOwner, WrittenObject};

/// Numbers read at the same time.
const READS_IN_FLIGHT: usize = 16;
/// Bytes read from the end of an object, in the hope that its footer is in them.
const TAIL_BYTES: u64 = 64 << 10;
/// Reads of an object before its bytes are believed to be as bad as they look.
const CORRUPT_READS_MAX: usize = 3;

/// Seals epochs of brokers whose WAL is in the bucket.
pub struct ObjectSealer {
    env: Env,
    store: Arc<dyn Store>,
    /// Who seals: another broker, or a later epoch of the same.
    by: WalOwner,
    /// K of the epochs to seal.
    groups_in_flight_max: NonZeroUsize,
}

/// What lies under a number.
#[derive(Clone, Debug)]
enum Found {
    Nothing,
    /// With what it tells of the numbers before it.
    Data(WrittenObject, Tally),
    Fence,
    /// An object that cannot be read: it was written whole, so it decayed.
    Corrupt(String),
}

impl ObjectSealer {
    pub fn new(env: &Env, store: Arc<dyn Store>, by: WalOwner, groups_in_flight_max: NonZeroUsize) -> Self {
        Self { env: env.clone(), store, by, groups_in_flight_max }
    }

    /// Reads what lies under a number.
    async fn read(&self, of: &WalOwner, sequence: WalSequence) -> Result<Found, SealError> {
        let key = key_of(of.broker, of.epoch, sequence);
        let mut corrupt = None;
        for _ in 0..CORRUPT_READS_MAX {
            let tail = match self.store.read(&key, Span::Last(TAIL_BYTES)).await {
                Ok(tail) => tail,
                Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(Found::Nothing),
                // An empty object has no last bytes. Nobody writes one, so it is not what was written.
                Err(error) if matches!(error.kind(), StoreErrorKind::OutOfRange { .. }) => {
                    return Ok(Found::Corrupt(format!("{key} is empty")));
                }
                Err(error) => return Err(error.into()),
            };
            match self.parse(tail).await? {
                Ok((WalObject::Fence(fence), _)) => return check_fence(&fence, of, sequence).map(|()| Found::Fence),
                Ok((WalObject::Data(footer), size)) => {
                    return Ok(Found::Data(written(&footer, size, of, sequence)?, footer.tally));
                }
                Err(error) => corrupt = Some(error.in_object(&key)),
            }
        }
        let error = corrupt.expect("read at least once");
        // A newer build's object is sound, and this build must not decide about it.
        if error.kind() == ErrorKind::Unsupported { Err(error.into()) } else { Ok(Found::Corrupt(error.to_string())) }
    }

    async fn parse(&self, tail: Object) -> Result<Result<(WalObject, u64), FormatError>, StoreError> {
        let (key, size) = (tail.meta.key, tail.meta.size);
        let mut bytes = tail.bytes;
        loop {
            match WalObject::parse(&bytes, size) {
                Ok(WalObjectParse::Whole(object)) => return Ok(Ok((object, size))),
                Ok(WalObjectParse::NeedMore { from }) => bytes = self.store.get_range(&key, from..size).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Plants a fence under a number, or learns what is there.
    async fn plant(&self, of: &WalOwner, sequence: WalSequence) -> Result<Found, SealError> {
        let key = key_of(of.broker, of.epoch, sequence);
        let fence = Fence {
            cluster: of.cluster.clone(),
            broker: of.broker,
            epoch: of.epoch,
            sequence,
            by_broker: self.by.broker,
            by_epoch: self.by.epoch,
            planted_at: self.env.now(),
        };
        match create_exact(&self.env, &*self.store, &key, fence.encode().into()).await {
            Ok(_) => Ok(Found::Fence),
            Err(CreateError::Theirs { .. }) => match self.read(of, sequence).await? {
                Found::Nothing => Err(SealError::Unsettled { name: key.to_string() }),
                found => Ok(found),
            },
            Err(CreateError::Store(error)) => Err(error.into()),
        }
    }

    /// Step 1: what is there from `from` on, up to the first fence or the first K missing numbers in a row; and the
    /// number after the last one there.
    async fn look(&self, of: &WalOwner, from: WalSequence, seen: &mut Seen) -> Result<(), SealError> {
        let in_a_row = self.groups_in_flight_max.get() as u64;
        let numbers = (from.get()..).map(WalSequence::new);
        let reads = stream::iter(numbers).map(|n| async move { self.read(of, n).await.map(|found| (n, found)) });
        let mut reads = std::pin::pin!(reads.buffered(READS_IN_FLIGHT.max(self.groups_in_flight_max.get())));
        let mut missing = 0;
        while let Some((number, found)) = reads.try_next().await? {
            match found {
                Found::Nothing => {
                    missing += 1;
                    if missing == in_a_row {
                        return Ok(());
                    }
                    continue;
                }
                Found::Fence => seen.fence = Some(number),
                Found::Data(..) | Found::Corrupt(_) => seen.end = number.next(),
            }
            missing = 0;
            seen.found.insert(number, found);
            if seen.fence.is_some() {
                return Ok(());
            }
        }
        unreachable!("numbers do not end")
    }
}

/// What the sealer has seen so far.
struct Seen {
    found: BTreeMap<WalSequence, Found>,
    /// Exclusive: the number after the last object that is not a fence.
    end: WalSequence,
    fence: Option<WalSequence>,
}

#[async_trait]
impl Sealer for ObjectSealer {
    async fn seal(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        committed: Option<WalSequence>,
    ) -> Result<Sealed, SealError> {
        let of = WalOwner { cluster: self.by.cluster.clone(), broker, epoch };
        assert!((broker, epoch) != (self.by.broker, self.by.epoch), "nobody seals the epoch he lives in");
        let start = committed.map_or(WalSequence::ZERO, WalSequence::next);
        let mut seen = Seen { found: BTreeMap::new(), end: start, fence: None };
        self.look(&of, start, &mut seen).await?;
        while seen.fence.is_none() {
            let ahead = WalSequence::new(seen.end.get() + self.groups_in_flight_max.get() as u64 - 1);
            match self.plant(&of, ahead).await? {
                Found::Fence => seen.fence = Some(ahead),
                // The writer is alive and was faster. It cannot be for ever: look again from where it was.
                found => {
                    seen.found.insert(ahead, found);
                    let from = seen.end;
                    seen.end = ahead.next();
                    self.look(&of, from, &mut seen).await?;
                }
            }
        }

        let mut objects = Vec::new();
        let mut ledger = Ledger::default();
        let mut number = start;
        loop {
            let found = match seen.found.remove(&number) {
                Some(found) => found,
                None => self.plant(&of, number).await?,
            };
            match found {
                Found::Fence => break,
                Found::Data(object, tally) => {
                    ledger.tally(&tally);
                    for ObjectRange { partition, log, leader_epoch, range, .. } in object.ranges.iter().copied() {
                        ledger.seen(LogEnd { partition, log, leader_epoch, end: range.end() }, range.start());
                    }
                    objects.push(object);
                }
                Found::Corrupt(what) => {
                    tracing::error!(sequence = %number, what, "a WAL object is unreadable");
                    ledger.lost(number, number.next(), false, what);
                }
                Found::Nothing => unreachable!("neither looking nor planting leaves a number open"),
            }
            number = number.next();
        }
        Ok(Sealed { end: number, contents: SealedContents::Objects(objects), corrupt: ledger.finish() })
    }
}

fn misplaced(of: &WalOwner, sequence: WalSequence, found: String) -> SealError {
    SealError::Misplaced { name: key_of(of.broker, of.epoch, sequence).to_string(), found }
}

fn check_fence(fence: &Fence, of: &WalOwner, sequence: WalSequence) -> Result<(), SealError> {
    let Fence { cluster, broker, epoch, sequence: number, .. } = fence;
    if (cluster, *broker, *epoch, *number) == (&of.cluster, of.broker, of.epoch, sequence) {
        return Ok(());
    }
    Err(misplaced(
        of,
        sequence,
        format!("the fence of broker {broker} epoch {epoch} number {number} in cluster {cluster}"),
    ))
}

fn written(footer: &Footer, size: u64, of: &WalOwner, sequence: WalSequence) -> Result<WrittenObject, SealError> {
    let head = &footer.head;
    if (&head.cluster, head.broker, head.broker_epoch, head.sequence) != (&of.cluster, of.broker, of.epoch, sequence) {
        let (cluster, broker, epoch, number) = (&head.cluster, head.broker, head.broker_epoch, head.sequence);
        let found = format!("the data of broker {broker} epoch {epoch} number {number} in cluster {cluster}");
        return Err(misplaced(of, sequence, found));
    }
    let range = |s: &Section| ObjectRange {
        partition: s.head.partition,
        log: s.head.log,
        leader_epoch: s.head.leader_epoch,
        range: s.range,
        bytes: s.bytes,
        max_timestamp: s.max_timestamp,
    };
    // The footer follows the last block.
    let blocks = footer.sections.iter().flat_map(|s| &s.blocks);
    let footer_position = blocks.map(|b| b.position + u64::from(b.length)).max().unwrap_or(0);
    let name = key_of(of.broker, of.epoch, sequence).to_string();
    Ok(WrittenObject { sequence, name, size, footer_position, ranges: footer.sections.iter().map(range).collect() })
}
