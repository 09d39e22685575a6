//! Partitions: the log as its owner runs it, from the append to the bucket and back to a reader.
//!
//! ```text
//! append ─▶ partition ─▶ WAL ─▶ publish ─▶ upload ─▶ bucket
//!              │  tail ◀──────────┘                     │
//! read ◀───────┴────────────── cold ◀───────────────────┘
//! ```
//!
//! Owns: offsets, producer state, the tail in memory, reads, uploads, and the takeover of what an earlier life of the
//! broker left. Leaves to others: durability (`wal`), the bucket (`store`), who owns what (`metadata`), what a request
//! means (`api`), when old records go (`upkeep`).
//!
//! Invariants: see [`partition`](Partition); across partitions:
//! 1. Nothing is served before every earlier life of this broker is closed.
//! 2. Memory is bounded: bytes not yet in the bucket by the WAL's room, warm batches and cached history by budgets.
//!
//! Sources: D1, D4, D5, D8, D9.

mod aborted;
mod cold;
mod inflate;
mod open;
mod owner;
mod partition;
mod partitions;
mod producers;
mod recover;
mod search;
mod snapshot;
mod tail;
mod upload;
mod validate;
mod waiters;
mod warm;

pub use cold::{ColdError, ColdReader, read_footer};
pub use owner::{LogConfig, Owner, OwnerParts};
pub use partition::{
    Appended, Isolation, LogError, Offsets, Partition, ReadBatches, ReadRequest, TailRead, prepared_marker,
};
pub use partitions::{OpenTopic, Partitions, Unavailable};
pub use producers::{ProducerDescription, ProducerError, Verification, VerificationGuard};
pub use recover::{RecoverError, Recovered, Recovery, Sealers};
pub use search::TimestampedOffset;
pub use upload::{UploadConfig, UploadError};
pub use validate::{BadRecord, RecordFault, ValidateError, Validated, validate};
pub use waiters::Bell;
