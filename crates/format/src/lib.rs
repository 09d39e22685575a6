//! Every byte that Forebay persists, written and read by hand. `docs/formats.md` shows each layout as a table.
//!
//! Owns: the layouts, their versions and checksums, and what can be said about a range of a log from its batches'
//! headers alone (the fold of producer state). Leaves to others: all I/O, retries, when to write what; Kafka's record
//! batches, which pass through as opaque bytes.
//!
//! Invariants:
//! 1. Integers are little-endian and of fixed width; positions and offsets have 64 bits.
//! 2. Whatever is persisted carries a magic number, a version and a CRC32C, and the header has a CRC32C of its own
//!    before its lengths are believed.
//! 3. Parsing never panics, never allocates more than a small multiple of the bytes given, and refuses what it does
//!    not know (version, codec, key id, reserved bits) instead of guessing.
//! 4. Encoding is a pure function of its input: the same object encodes to the same bytes (D6 repeats them in retries).
//!
//! Sources: RFC 3720 (CRC32C); Kafka's `ProducerStateEntry` and `ProducerAppendInfo` (the producer window).

mod batch;
mod block;
mod coordinator_snapshot;
mod crc;
mod cursor;
mod envelope;
mod error;
mod fence;
mod folder;
pub mod fuzz;
mod journal;
mod name;
mod object;
mod producer;
mod producer_snapshot;
mod tally;
mod trailer;
mod wal;

pub use batch::{AbortedTxn, BatchProducer, BatchSummary, MarkerKind, MarkerSummary, NO_SEQUENCE, PrepareRef};
pub use block::{BLOCK_HEADER_SIZE, Block};
pub use coordinator_snapshot::{CoordinatorKind, CoordinatorSnapshot};
pub use crc::{Crc32c, crc32c};
pub use error::{ErrorKind, Fault, FormatError};
pub use fence::Fence;
pub use folder::{DiskId, FOLDER_FORMAT, FolderMarker};
pub use journal::{JournalChange, JournalEntry};
pub use name::{NameError, ObjectName};
pub use object::{
    BLOCK_SIZE_TARGET, BlockIndex, EncodedObject, Footer, FooterParse, NO_TIMESTAMP, ObjectHead, ObjectRange,
    ObjectWriter, Section, SectionHead, WalObject, WalObjectParse,
};
pub use producer::{
    BatchMeta, BatchWindow, ProducerChange, ProducerState, TxnChange, WINDOW_BATCHES_MAX, fold_changes,
};
pub use producer_snapshot::{
    EncodedSnapshot, PartitionProducers, ProducerSnapshotIndex, ProducerSnapshotWriter, SnapshotHead,
    SnapshotIndexParse, SnapshotRef,
};
pub use tally::{LogEnd, Tally};
pub use wal::{
    BlockClass, RecordKind, SECTOR_SIZE, SegmentHead, WAL_BLOCK_HEADER_SIZE, WalBlock, WalBlockHead, WalEntry,
    WalExpect, classify_wal_block, encode_wal_block, wal_block_padding, wal_block_size,
};
