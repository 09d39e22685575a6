//! The time, where it may be acted on (D10).

use forebay_env::Env;
use forebay_store::{Prefix, Store, StoreError, clocks_agree};
use forebay_types::Timestamp;

/// The time, if this clock and the store's agree on it.
pub(crate) async fn agreed_time(env: &Env, store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    if store.now().is_none() {
        // Some stores tell the time only with an answer.
        store.list(&Prefix::all(), None, 1).await?;
    }
    let ours = env.now();
    Ok(match clocks_agree(ours, store.now()) {
        Ok(()) => Some(ours),
        Err(why) => {
            tracing::warn!(store = store.name(), %why, "nothing is retired or collected");
            None
        }
    })
}
