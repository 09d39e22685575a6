//! Whether time may be acted on: this clock against the store's (D10).

use forebay_types::Timestamp;

/// Clocks that differ by more are not believed, in milliseconds.
pub const CLOCKS_DIFFERENCE_MAX_MS: u64 = 60_000;

/// Why nothing must be done because of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClocksDiffer {
    #[error("the store does not tell the time")]
    Untold,
    #[error("this clock says {ours} and the store's {theirs}: set the one that is wrong")]
    Apart { ours: Timestamp, theirs: Timestamp },
}

/// Whether `ours` and the store's time, as [`crate::Store::now`] tells it, are the same but for a minute. A store that does
/// not tell the time agrees with nobody.
///
/// # Errors
/// They are not.
pub fn clocks_agree(ours: Timestamp, theirs: Option<Timestamp>) -> Result<(), ClocksDiffer> {
    let theirs = theirs.ok_or(ClocksDiffer::Untold)?;
    let apart = ours.as_millis().abs_diff(theirs.as_millis()) > CLOCKS_DIFFERENCE_MAX_MS;
    if apart { Err(ClocksDiffer::Apart { ours, theirs }) } else { Ok(()) }
}
