//! The broker as one process: data folder, start, connections, drain, health and metrics.
//!
//! ```text
//!  options ─▶ data folder ─▶ sockets ─▶ bucket, metadata ─▶ broker epoch ─▶ connections
//!             (locked)       (bound)    (base)               (start)         (listener)
//!                                                               ▲               │
//!                                                               └── WAL failed ─┘
//! ```
//!
//! Owns: the process's life from [`Broker::start`] to its end, one Kafka connection's requests and answers in order, and
//! every bound on connections. Leaves to others: what a request means (`api`), what is durable (`wal`), what a crash
//! leaves (`log::Recovery`), the command line (`cli`).
//!
//! Invariants:
//! 1. Nothing is served before all earlier lives of this broker are closed (D1).
//! 2. Whatever one connection sends, others are served.
//! 3. Memory is bounded by named limits, whatever clients and the bucket do (D16).
//!
//! Sources: D1, D3, D6, D7, D16–D20.

mod admin;
mod base;
mod bind;
mod broker;
mod complaints;
mod connection;
mod counters;
mod data;
mod epoch;
mod listener;
mod metrics;
mod options;
mod start;
mod status;
mod undelete;

pub use bind::BindError;
pub use broker::{Broker, Ended, StartReport};
pub use data::DataError;
pub use options::{
    BrokerOptions, BucketChoice, DiskWalLimits, Exposure, ListenAddress, ListenHost, OptionsError, WalSetup,
};
pub use start::StartError;
