//! Whoever wants to know of timers.

use crate::Instant;

/// Is told of the sleeps and time-outs of an [`crate::Env`]. One whose future was dropped before its time has not fired.
pub trait Timers: Send + Sync {
    /// The time of a sleep is over, or that of a future which had no output by then. Called by the task that waited.
    fn fired(&self, deadline: Instant);
}
