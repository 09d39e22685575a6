//! Everything in one process and in one order: a broker on one host or on two that both take themselves for it, their
//! disks, their bucket and their clients, from one seed (D18).
//!
//! ```text
//! seed ─▶ plan ─▶ run (turmoil: hosts, network, time) ─▶ history ─▶ check ─▶ violations
//!                   │ faults strike and heal in their time
//! ```
//!
//! Owns: the simulated machine's network and clock, faults, workloads, the history that clients write, the checkers.
//! Leaves to others: the simulated disk and generator (`env`), the faulty store (`store`), and all that is under test.
//!
//! Invariants:
//! 1. A plan decides everything: two runs of one give the same digest over every message, I/O, timer and fault in
//!    order.
//! 2. Checkers believe only what clients wrote down, and what is in the bucket.
//! 3. A host that crashes loses its tasks and whatever its disk had not synced; the bucket stays.
//!
//! Sources: TigerBeetle's VOPR, FoundationDB's simulation; the checks are those of Jepsen's Kafka workload.

pub mod check;
pub mod history;
pub mod plan;

mod broker;
mod bucket;
mod machine;
mod nemesis;
mod run;
mod workload;

pub use run::{Outcome, run, run_traced};
