//! The media a WAL can be on, each in a folder of its own with its sealer.

pub mod disk;
pub mod memory;
pub mod object;
