//! The journal: every row that no footer in the bucket could tell, once more, as small objects that are created and
//! never changed. From them and the footers a lost database is built again (D5).
//!
//! Owns: what an entry holds, and folding entries to rows. Leaves to others: the objects' bytes (`format`), the
//! footers' part (extents, committed ends), raising counters above what footers show (`restore`).
//!
//! Consistency: an entry is created before the commit that it tells of, under the next number. So the journal is never
//! behind what was answered. It may be ahead by one entry that was never committed; the next term finds it by its
//! number and writes a full entry after it.
//!
//! Fencing: an entry carries the term of its writer. A term is committed to the database, which one writer at a time
//! can do, before its first entry is created; entries of an older term after those of a newer one do not count.
//!
//! Bound: after [`ENTRIES_PER_FULL`] entries comes a full one with every row, in parts; what lies before the last full
//! entry but one is deleted, a few objects behind each commit.
//!
//! Retries: an entry that cannot be created is tried again until the store takes it, with the same bytes: the commit
//! waits behind it, and so do callers until they give up. A store that refuses is waited for too: keys are changed and
//! put right again, and a broker that ended meanwhile would have taken its acknowledged tail offline for nothing.

mod entry;
mod fold;
mod writer;

pub use entry::JournalError;
pub use fold::{Folded, fold};
pub(crate) use writer::{JournalWriter, WriteError};

/// Entries between two full ones.
pub const ENTRIES_PER_FULL: u64 = 512;
