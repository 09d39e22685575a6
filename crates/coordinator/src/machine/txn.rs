//! The transaction coordinator of one `__transaction_state` partition, as a machine without I/O: inputs and the time
//! go in, records, replies, markers and the next deadline come out (D14). Transactions V1, as Kafka 3.9 speaks it.
//!
//! Owns: for every transactional id of the partition its producer id and epoch, the state of its transaction, the
//! partitions in it, its time-out and its expiry. Leaves to others: which partition an id belongs to, authorization
//! and whether topics exist (`api`), producer ids, appending, waiting for durability and carrying markers (the host),
//! what a marker does (`log`).
//!
//! ```text
//!           AddPartitions              EndTxn, time-out, InitProducerId        every marker durable
//!   Empty ───────────────▶ Ongoing ───────────────────────────────────▶ Prepare ───────────────────▶ Complete
//!     ▲                       ▲                                                                     │   │
//!     │ InitProducerId        └───────────────────────── AddPartitions ─────────────────────────────┘   │
//!     └───────────────────────────────────────────── InitProducerId ────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! 1. State changes when its record is handed out, not when it is durable; so a reply carries the offset it rests on,
//!    and the host holds it back until the log is durable up to there (D1). That holds for refusals and reads too.
//! 2. What an id's newest record says is all there is: [`TxnLoader`] over the log gives the same machine. Who a
//!    producer was before it bumped its own epoch has no room in Kafka's record, and stands in a header of it.
//! 3. The epoch of an id's producer only grows, until it is spent and a fresh producer id takes its place at epoch 0.
//! 4. A Prepare is followed by exactly one Complete of the same direction, and by nothing else before it.
//! 5. Time counts only while it could be answered (D10): opening gives every open transaction its full time again, and
//!    the silence before it ages no id. Only [`Input::Tick`] aborts or expires.
//! 6. One id costs one compact entry, its text, an index entry and four bytes of timer: see `entry`, `table`, `timers`.
//!
//! Where this differs from Kafka, the client sees no other codes than Kafka's:
//! - A request that meets a record not yet durable is not put off with CONCURRENT_TRANSACTIONS: it is applied behind
//!   it, and its answer waits. Ending a transaction the other way than its Prepare, durable or not, is INVALID_TXN_STATE.
//! - InitProducerId with an old epoch of the same producer id (KIP-360) does not abort the transaction that a newer
//!   epoch has open; it is fenced at once. A repeat of the bump to the last epoch is answered, where Kafka fails.
//! - Expired ids do not vanish because the cluster was off for a week.
//!
//! Sources: Kafka's `TransactionCoordinator` (`endTransactionWithTV1`), `TransactionMetadata`,
//! `TransactionStateManager`; KIP-98, KIP-360, KIP-664, KIP-890.

mod end;
mod entry;
mod init;
mod io;
mod list;
mod load;
mod partitions;
mod record;
mod snapshot;
mod table;
mod timers;

use forebay_types::{LeaderEpoch, Offset, Timestamp};

pub use io::{
    AddPartitions, Answer, Description, EndTxn, InitProducerId, Input, List, Listed, Listing, Markers, Outcome,
    Refusal, Reply, Request, TxnOutput, TxnPartition, TxnStatus, Verified, Verify,
};
pub use load::{LoadError, TxnLoader};
pub use record::RecordProblem;
pub use snapshot::{Snapshot, SnapshotProblem};

use super::Now;
use entry::{Entry, State};
use table::{Slot, Table};
use timers::Timers;

/// Ids that one tick looks at: a tick with a million ids due stays well under a millisecond, the rest asks for another.
const TICK_IDS_MAX: usize = 256;

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnConfig {
    /// `transaction.max.timeout.ms`: the longest a client may ask for.
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`: how long an unused id is remembered.
    pub expiration_ms: i64,
    /// A planted bug: a coordinator that opens carries on with no transaction that the last owner was ending.
    pub sabotage_forget_prepared: bool,
}

impl Default for TxnConfig {
    /// A day where Kafka has a quarter of an hour, since Flink asks for an hour; a week as in Kafka.
    fn default() -> Self {
        Self { timeout_ms_max: 86_400_000, expiration_ms: 604_800_000, sabotage_forget_prepared: false }
    }
}

/// The machine, opened. [`TxnLoader::open`] makes it.
#[derive(Debug)]
pub struct TxnMachine {
    config: TxnConfig,
    leader_epoch: LeaderEpoch,
    table: Table,
    timers: Timers,
    /// The offset of the next record.
    log_end: Offset,
    /// What "no such id" rests on: the newest tombstone, or the log as it was opened.
    absent_rests_on: Offset,
    silence: Silence,
}

/// The time before opening in which nobody could use an id.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// When the log's newest record was made.
    since: Timestamp,
    ms: i64,
}

impl TxnMachine {
    /// Takes one input. Everything in the output belongs to it; the state is already what the output says.
    pub fn handle(&mut self, now: Now, input: Input) -> TxnOutput {
        let mut out = self.output();
        match input {
            Input::Request { token, request } => {
                let (rests_on, answer) = self.answer(now, request, &mut out);
                assert!(rests_on <= self.log_end, "an answer rests on what is in the log");
                out.replies.push(Reply { token, rests_on, answer });
            }
            Input::MarkersWritten { transactional_id, prepare_offset, partitions } => {
                self.markers_written(now, &transactional_id, prepare_offset, &partitions, &mut out);
            }
            Input::Tick => {
                self.time_out(now, &mut out);
                self.expire(now, &mut out);
            }
            Input::TimeOuts => {
                self.time_out(now, &mut out);
                out.deadline = self.timers.first_timeout();
                return out;
            }
        }
        out.deadline = self.timers.deadline(now);
        out
    }

    /// How many transactional ids the machine remembers.
    pub fn ids(&self) -> usize {
        self.table.len()
    }

    /// Heap bytes held for the ids; what open transactions hold beside is not counted.
    pub fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.timers.heap_bytes()
    }

    /// The offset that the next record will get.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    fn output(&self) -> TxnOutput {
        TxnOutput {
            records: Vec::new(),
            base_offset: self.log_end,
            replies: Vec::new(),
            markers: Vec::new(),
            deadline: None,
            took_fresh: false,
        }
    }

    fn answer(&mut self, now: Now, request: Request, out: &mut TxnOutput) -> (Offset, Answer) {
        match request {
            Request::InitProducerId(request) => {
                let result = self.init_producer_id(now, &request, out);
                (self.rests_on(&request.transactional_id), Answer::InitProducerId(result))
            }
            Request::AddPartitions(request) => {
                let result = self.add_partitions(now, &request, out);
                (self.rests_on(&request.transactional_id), Answer::AddPartitions(result))
            }
            Request::EndTxn(request) => {
                let result = self.end_txn(now, &request, out);
                (self.rests_on(&request.transactional_id), Answer::EndTxn(result))
            }
            Request::Verify(request) => {
                let result = self.verify(&request);
                (self.rests_on(&request.transactional_id), Answer::Verify(result))
            }
            Request::List(request) => (self.log_end, Answer::List(self.list(now, &request))),
            Request::Describe { transactional_id } => {
                let result = self.describe(&transactional_id);
                (self.rests_on(&transactional_id), Answer::Describe(result))
            }
        }
    }

    /// What an answer about one id rests on: the id's newest record, or that it has none.
    fn rests_on(&self, id: &str) -> Offset {
        self.table.find(id).map_or(self.absent_rests_on, |slot| self.table.get(slot).last_offset.next())
    }

    /// Hands out the record of the entry as it now is.
    fn append(&mut self, now: Now, slot: Slot, out: &mut TxnOutput) -> Offset {
        let offset = self.log_end;
        let entry = self.table.get_mut(slot);
        entry.updated = now.wall;
        entry.last_offset = offset;
        out.records.push(record::of(entry));
        self.log_end = offset.next();
        offset
    }

    fn insert(&mut self, now: Now, entry: Entry) -> Slot {
        let slot = self.table.insert(entry);
        self.timers.watch(slot, now.wall.saturating_add(self.config.expiration_ms));
        slot
    }

    fn time_out(&mut self, now: Now, out: &mut TxnOutput) {
        for _ in 0..TICK_IDS_MAX {
            let Some(slot) = self.timers.timed_out(now) else { break };
            self.fence(now, slot, out);
        }
    }

    fn expire(&mut self, now: Now, out: &mut TxnOutput) {
        for _ in 0..TICK_IDS_MAX {
            let Some(slot) = self.timers.take_watched(now) else { break };
            self.expire_or_watch(now, slot, out);
        }
    }

    /// When an id would expire if nobody used it from now on.
    fn expires_at(&self, now: Now, slot: Slot) -> Timestamp {
        let entry = self.table.get(slot);
        let used = if entry.status().is_idle() { self.silence.skip(entry.updated) } else { now.wall };
        used.saturating_add(self.config.expiration_ms)
    }

    /// Forgets an id that nobody has used for long enough. An id with a transaction open or ending is in use.
    fn expire_or_watch(&mut self, now: Now, slot: Slot, out: &mut TxnOutput) {
        let expires_at = self.expires_at(now, slot);
        if expires_at > now.wall {
            self.timers.watch(slot, expires_at);
            return;
        }
        let entry = self.table.remove(slot);
        assert!(matches!(entry.state, State::Empty | State::Complete(..)), "only an idle id expires");
        out.records.push(record::tombstone(&entry.id));
        self.log_end = self.log_end.next();
        self.absent_rests_on = self.log_end;
    }
}

impl Silence {
    /// `used`, later by the silence where it came before it.
    fn skip(self, used: Timestamp) -> Timestamp {
        if used <= self.since { used.saturating_add(self.ms) } else { used }
    }
}
