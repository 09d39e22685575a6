//! Waiting for what partitions are opened from, as long as it is the bucket that does not answer and not one object.
//!
//! A bucket that is away as a whole is waited for: it takes every partition alike, and nothing could be served without it.
//! One object that stays silent while the bucket answers (a sector that cannot be read, a key that a store stumbles over)
//! must not hold up what does not need it. Each try is already many attempts (`store`), so the second is the last.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::Env;
use forebay_store::{Key, Store};
use parking_lot::Mutex;

use super::ColdError;

/// Between tries.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// Why a partition cannot be opened for now.
#[derive(Debug)]
pub(crate) enum Unread {
    /// This does not answer, though the bucket does. It was said once, for all partitions that need it.
    Silent(String),
    Cold(ColdError),
}

impl From<ColdError> for Unread {
    fn from(error: ColdError) -> Self {
        Self::Cold(error)
    }
}

/// What did not answer in one round of opening. Others that need it then are not held up by it again.
pub(crate) struct Patience {
    env: Env,
    store: Arc<dyn Store>,
    missed: Mutex<BTreeMap<String, Missed>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Missed {
    /// It did not answer, and the bucket did after that.
    Once,
    /// It did not answer again.
    Silent,
}

impl Patience {
    pub fn new(env: &Env, store: &Arc<dyn Store>) -> Self {
        Self { env: env.clone(), store: Arc::clone(store), missed: Mutex::default() }
    }

    /// What `read` gives, which reads `what`: again and again while the bucket is away.
    ///
    /// # Errors
    /// Every error but that, at once.
    pub async fn read<T, F>(&self, what: &str, read: impl Fn() -> F) -> Result<T, Unread>
    where
        F: Future<Output = Result<T, Unread>>,
    {
        loop {
            // Only a read that began after the bucket's answer tells of the object alone.
            let missed = self.check(what)?;
            let error = match read().await {
                Err(Unread::Cold(error)) if error.is_transient() => error,
                other => return other,
            };
            if missed {
                self.missed.lock().insert(what.to_owned(), Missed::Silent);
                tracing::error!(what, error = &error as &dyn Error, "it does not answer though the bucket does");
                return Err(Unread::Silent(what.to_owned()));
            }
            tracing::warn!(
                what,
                error = &error as &dyn Error,
                "what partitions are opened from will be asked for again"
            );
            if self.bucket_answers().await {
                self.missed.lock().entry(what.to_owned()).or_insert(Missed::Once);
            }
            self.env.sleep(RETRY_WAIT).await;
        }
    }

    /// Whether it did not answer once, while the bucket did.
    ///
    /// # Errors
    /// It was silent before: whoever waited in line for it need not ask.
    pub fn check(&self, what: &str) -> Result<bool, Unread> {
        match self.missed.lock().get(what) {
            Some(Missed::Silent) => Err(Unread::Silent(what.to_owned())),
            Some(Missed::Once) => Ok(true),
            None => Ok(false),
        }
    }

    /// Asked for something that is not there, a bucket that is not away says so.
    async fn bucket_answers(&self) -> bool {
        let nothing = Key::new("probe/none").expect("a legal name");
        !matches!(self.store.head(&nothing).await, Err(error) if error.is_transient())
    }
}
