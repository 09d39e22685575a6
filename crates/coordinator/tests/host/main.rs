//! The host over a real log, a bucket and a WAL in memory, and the metadata: started, stopped, crashed and started again.

mod groups;
mod opening;
mod stall;
mod transactions;
mod trash;
mod world;
