//! What the cluster knows of itself: brokers, topics, partitions, uploads, extents, pins.
//!
//! Owns: the commands and their rules (`apply`), the rows and their bytes, the small database in the bucket that keeps
//! them (SlateDB, one writer), the journal for rebuilding it, and the table of topic configurations. Leaves to others:
//! records and their objects (`log`, `wal`), Kafka's error codes (`api`), who is controller when there are several
//! brokers, and *when* to retain, merge or collect (`upkeep`).
//!
//! Invariants:
//! 1. One process writes; a second one fences the first, whose commands then fail (SlateDB's manifest epochs).
//! 2. A command that was answered is durable. Nothing is shown to anybody before it is.
//! 3. The same commands on the same rows give the same rows.
//! 4. No acknowledgement of a record waits for this crate (D7).
//!
//! Sources: D5, D7, D8, D10, D11, D12.

pub mod apply;
pub mod codec;
pub mod command;
pub mod config;
pub mod fuzz;
pub mod invariants;
pub mod journal;
pub mod pins;
pub mod reader;
pub mod service;
pub mod state;
pub mod store;

mod refusal;
#[cfg(test)]
mod testing;

pub use command::{Command, Refusal, Reply};
pub use service::{LookupError, Metadata, SubmitError, TopicsView};
pub use state::{BrokerLife, CommitNumber, Extent, Pin, PinId};
pub use store::{Host, OpenError};
