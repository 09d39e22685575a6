//! Reading again what did not come as it was written.
//!
//! Bytes go wrong on their way, and in a cache, more often than in the bucket. A checksum that does not fit is therefore
//! met by reading the same bytes again, and only what stays wrong is called damaged: that answer is a client's last word
//! on those records.

use std::error::Error;
use std::future::Future;

use super::ColdError;

/// Times that the same bytes are read until they are called damaged, the first included.
pub(crate) const READS_MAX: u32 = 3;

/// What `read` gives, which fetches and parses: again where the bytes were not what was written.
///
/// # Errors
/// What the last read gave. Damage is an error at the last of [`READS_MAX`] reads, everything else at once.
pub(crate) async fn reread<T, F>(mut read: impl FnMut() -> F) -> Result<T, ColdError>
where
    F: Future<Output = Result<T, ColdError>>,
{
    let mut reads = 1;
    loop {
        match read().await {
            Err(error) if error.is_damage() && reads < READS_MAX => {
                tracing::warn!(
                    error = &error as &dyn Error,
                    reads,
                    "bytes from the bucket are wrong and are read again"
                );
                reads += 1;
            }
            other => return other,
        }
    }
}
