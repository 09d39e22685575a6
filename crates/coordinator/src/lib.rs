//! Group and transaction coordinators: pure state machines, Kafka's own record schemas that they write, and the host
//! that runs them over the log (D14).
//!
//! Owns: what the coordinators decide and remember, and how that stands in `__consumer_offsets` and
//! `__transaction_state`. Leaves to others: the log below (`log`), the wire above (`wire`, `api`).
//!
//! Invariants:
//! 1. A machine does no I/O: a request and the time go in; records, replies and the next deadline come out.
//! 2. A reply goes out only when the records of its output, and all that the machine's state rested on, are durable.
//! 3. Replaying the records of a log gives the state that wrote them, up to what is lost on purpose with a
//!    process: parked requests, members whose generation was never recorded, and the time that sessions have left.
//!
//! Sources: Kafka 3.9's `GroupCoordinator`, `GroupMetadata`, `TransactionCoordinator`; KIP-98, KIP-345, KIP-394, KIP-447.

pub mod host;
pub mod machine;
pub mod schema;

pub use host::Coordinators;
