//! What a log needs while nobody asks for anything: old records retired, deleted topics purged, objects that nothing
//! reaches deleted; and tools that check and list a bucket.
//!
//! ```text
//! retention ──▶ log start ──▶ extents released ──▶ object without references ──▶ condemned ──(grace)──▶ deleted
//!                              trash, purged ──▶┘        orphans of closed epochs ──▶┘
//! ```
//!
//! Owns: when each of these steps is taken and how fast. Leaves to others: whether it may be taken (`metadata::apply`
//! holds the pin rule and the proofs), the log start that readers see (`log`), showing reports (`cli`).
//!
//! Invariants:
//! 1. Nothing is retired, purged or deleted while this clock and the store's differ by more than a minute (D10).
//! 2. Only an object that the metadata has condemned is deleted, and only after the grace period (D12).
//! 3. Decisions are pure functions over what was read (`picker` modules); every step may be repeated after a crash.
//! 4. The tools write nothing, to the bucket or to a disk.
//!
//! Sources: D5, D6, D10, D12, D17; Kafka's `UnifiedLog.deleteOldSegments` and `LogManager.cleanupLogs`.

mod catalog;
mod clocks;
mod collect;
mod driver;
mod error;
pub mod fsck;
pub mod ls;
mod orphan;
mod release;
mod retention;
mod trash;

pub use collect::CONDEMNED_GRACE;
pub use driver::{Round, Upkeep, UpkeepConfig, UpkeepParts, start};
pub use error::{ToolError, UpkeepError};
