//! What is written can be read back, stays as it is from version to version, and cannot be damaged unseen.

mod corpus;
mod damage;
mod golden;
mod object;
mod producer;
mod samples;
mod snapshot;
mod wal;
