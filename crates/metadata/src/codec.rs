//! The bytes of keys and rows, in the database and in the journal.
//!
//! Owns: the encoding and its version. Leaves to others: checksums (SlateDB's blocks and the journal's envelope have
//! them), and what a row means.
//!
//! Invariants:
//! 1. Keys sort as their parts do: a table byte, then big-endian numbers, then text.
//! 2. Resident tables come before [`COLD_TABLES_BEGIN`]: opening reads one range.
//! 3. A row begins with the version of its layout. A newer version than this build's is refused, never guessed at.
//! 4. Parsing reads every byte, and allocates no more than a small multiple of what it was given.
//!
//! The golden bytes are in `codec/golden.txt`; a test compares.

mod fields;
mod key;
mod row;
#[cfg(test)]
mod tests;

pub use key::COLD_TABLES_BEGIN;
pub(crate) use key::{decode_key, encode_key, extents_from, garbage_after, journal_kind, resident_tables};
pub(crate) use row::{decode_row, encode_row};

/// A key or row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("a key of {size} bytes in table {table:#04x} cannot be read: {fault}")]
    Key { table: u8, size: usize, fault: Fault },
    #[error("row {key} cannot be read at byte {at}: {fault}")]
    Row { key: String, at: usize, fault: Fault },
}

/// What is wrong with the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it ends too early")]
    Short,
    #[error("bytes follow its end")]
    Trailing,
    #[error("its {0} is not a legal value")]
    Value(&'static str),
    #[error("there is no such table")]
    Table,
    #[error("it has layout version {seen} and this build reads {known}")]
    Version { seen: u8, known: u8 },
}
