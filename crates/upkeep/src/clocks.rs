//! Whether time may be acted on: this clock against the store's (D10).

use forebay_env::Env;
use forebay_store::{Prefix, Store, StoreError};
use forebay_types::Timestamp;

/// Clocks that differ by more are not believed, in milliseconds.
pub(crate) const DIFFERENCE_MAX_MS: u64 = 60_000;

/// The time, if both clocks agree on it. A store that does not tell the time agrees with nobody.
pub(crate) async fn agreed_time(env: &Env, store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    if store.now().is_none() {
        // Some stores tell the time only with an answer.
        store.list(&Prefix::all(), None, 1).await?;
    }
    let ours = env.now();
    let Some(theirs) = store.now() else {
        tracing::warn!(store = store.name(), "nothing is retired or collected: the store does not tell the time");
        return Ok(None);
    };
    let difference_ms = ours.as_millis().abs_diff(theirs.as_millis());
    if difference_ms > DIFFERENCE_MAX_MS {
        tracing::warn!(%ours, %theirs, "nothing is retired or collected: this clock and the store's differ");
        return Ok(None);
    }
    Ok(Some(ours))
}
