//! Entry points for fuzzing: bytes of no origin are read or refused, and never panic. Run over the kept corpus by a test.

use bytes::Bytes;

use crate::codec;
use crate::journal;

/// One target: a function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: &[(&str, Target)] = &[("metadata_row", fuzz_row), ("metadata_journal", fuzz_journal)];

/// A key, and behind its first `data[0]` bytes a row that stands there. What is read is written as it was.
///
/// # Panics
/// A row that was read is not written back as it was.
pub fn fuzz_row(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (key, row) = rest.split_at(usize::from(*length).min(rest.len()));
    let Ok(key) = codec::decode_key(key) else { return };
    if let Ok(read) = codec::decode_row(&key, row) {
        let again = codec::decode_row(&key, &codec::encode_row(&read));
        assert_eq!(again.as_ref(), Ok(&read), "a row reads back as written");
    }
}

/// A journal of one entry.
pub fn fuzz_journal(data: &[u8]) {
    // Most are refused; what counts is that the rest neither panics nor takes memory beyond what was given.
    drop(journal::fold([Bytes::copy_from_slice(data)]));
}
