//! The journal: every row that no footer in the bucket could tell, once more, as small objects that are created and
//! never changed. From them and the footers a lost database is built again (D5).
//!
//! Owns: what an entry holds, and folding entries to rows. Leaves to others: the objects' bytes (`format`), the
//! footers' part (extents, committed ends), raising counters above what footers show (`restore`).
//!
//! Consistency: an entry is created before the commit that it tells of, under the next number. So the journal is never
//! behind what was answered. It may be ahead by entries that were never committed. Each entry says where the term of its
//! writer went on in the journal, by what the database knew then: what older terms wrote from there on is void.
//!
//! Fencing: a term is committed to the database, which one writer at a time can do, before its first entry is created. What
//! an older writer creates meanwhile lies where the newer term went on, or behind it, and is void.
//!
//! Bound: [`ENTRIES_PER_FULL`] entries after the last one began, a full state begins: every row, in parts, one behind
//! each group of commands. No command waits for more than one part. Between the parts lie deltas; laid over each other by their numbers they
//! are the state. It counts once a commit has told that it is whole; until then, and if its writer ends before, the full
//! state before it counts. What lies further back is deleted, a few objects behind each commit.
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
#[cfg(test)]
pub(crate) use writer::{ROWS_PER_PART, entry_key};

/// Entries from one full state's first part to the next one's, at least.
pub const ENTRIES_PER_FULL: u64 = 512;
