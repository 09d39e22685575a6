//! The write-ahead log of one broker epoch: what makes a record durable, and what gives it back after a crash (D2, D3, D6).
//!
//! Owns: grouping of appends, the order in which they become durable, acks, back-pressure, the providers (`disk`,
//! `object`, `memory`), the sealing of an earlier epoch and the replay of what it left. Leaves to others: offsets and
//! producer state (`log`), the bytes on disk and in the bucket (`format`), uploads and commits, epochs (`metadata`).
//!
//! ```text
//!  trimmed          durable, acked        written or being written   queued
//!  ───────────────┤──────────────────────┤──────────────────────────┤────────▶ sequence
//!                 trim(through)           durable_position            append
//! ```
//!
//! Invariants:
//! 1. Positions are given in the order of [`Wal::append`]; groups take them in that order under dense sequences from 0.
//! 2. A group is published, then its waiters wake, only when it and every group before it is durable.
//! 3. A write that failed for good ends the WAL for good: nothing later is published, and nothing is tried again.
//! 4. What was acked is found by the sealer, in order, until it is trimmed; where a later fault of the medium took it,
//!    the sealer names the loss: each group carries a tally of those before it. What was never acked may be found too.
//! 5. Sealing an epoch twice, or again after a crash in the midst of it, gives the same end.

mod batcher;
mod error;
mod group;
mod metrics;
mod pace;
mod provider;
mod queue;
mod seal;
mod stall;
mod tally;
mod waiters;
mod wal;

pub mod conformance;
pub mod providers;

pub use error::{SealError, SealErrorKind, WalEnded, WalError, WalErrorKind};
pub use group::{DurableGroup, GROUP_ENTRIES_MAX, GROUP_OFFSETS_MAX, Group, Publisher, WalOwner, WrittenObject};
pub use metrics::{HistogramSnapshot, LatencyHistogram, WalMetrics};
pub use pace::Pacing;
pub use provider::{Provider, WalKind, Written};
pub use queue::Admission;
pub use seal::{CorruptRange, OffsetGap, Replay, Sealed, SealedContents, Sealer};
pub use tally::{Before, TALLY_BYTES_MAX};
pub use wal::{Wal, WalConfig};
