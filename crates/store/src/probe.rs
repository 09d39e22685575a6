//! The check at start that a store does what everything rests on: some accept a condition and ignore it.

use forebay_env::Env;

use crate::retry::Backoff;
use crate::{Body, CreateError, Key, Store, StoreError, StoreErrorKind, Version, create_exact};

/// Why a store must not be written to.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "{store} created an object where there was one already: it ignores create-if-absent (If-None-Match), and two \
         brokers could overwrite each other's records"
    )]
    IgnoresCreateIfAbsent { store: String },
    #[error(
        "{store} replaced an object of another version than the one named: it ignores If-Match, and the metadata could \
         be overwritten"
    )]
    IgnoresReplaceIfMatch { store: String },
    #[error("{store} gave back other bytes than it was given for {key}")]
    OtherBytes { store: String, key: Key },
    #[error("could not check {store}")]
    Unreachable { store: String, source: StoreError },
}

/// Creates one name twice and, where the store can replace, replaces a version that never was. Both must be refused.
///
/// # Errors
/// The store ignores a condition, or could not be asked.
pub async fn probe(env: &Env, store: &dyn Store) -> Result<(), ProbeError> {
    let key = Key::new(&format!("probe/{:016x}", env.random_u64())).expect("hex digits are legal");
    let verdict = check(env, store, &key).await;
    if let Err(error) = store.delete(&key).await {
        tracing::warn!(%error, "the object of the check at start stays behind");
    }
    verdict
}

async fn check(env: &Env, store: &dyn Store, key: &Key) -> Result<(), ProbeError> {
    let name = || store.name().to_owned();
    let unreachable = |source| ProbeError::Unreachable { store: name(), source };
    let first = Body::from(b"first".as_slice());

    match create_exact(env, store, key, first.clone()).await {
        Ok(_) => {}
        Err(CreateError::Theirs { key, .. }) => return Err(ProbeError::OtherBytes { store: name(), key }),
        Err(CreateError::Store(error)) => return Err(unreachable(error)),
    }
    match refusal(env, || store.create(key, Body::from(b"second".as_slice()))).await {
        Some(StoreErrorKind::AlreadyExists) => {}
        None => return Err(ProbeError::IgnoresCreateIfAbsent { store: name() }),
        Some(kind) => return Err(unreachable(StoreError::new(crate::Operation::Create, key, kind))),
    }
    // A repeat of the second create may have been refused for what the first attempt of it did.
    let found = store.get(key).await.map_err(unreachable)?;
    if *found == *b"second" {
        return Err(ProbeError::IgnoresCreateIfAbsent { store: name() });
    }
    if !first.equals(&found) {
        return Err(ProbeError::OtherBytes { store: name(), key: key.clone() });
    }

    if store.can_replace() {
        let never = Version::new("\"00000000000000000000000000000000\"");
        match refusal(env, || store.replace(key, Body::from(b"third".as_slice()), &never)).await {
            Some(StoreErrorKind::Changed) => {}
            None => return Err(ProbeError::IgnoresReplaceIfMatch { store: name() }),
            Some(kind) => return Err(unreachable(StoreError::new(crate::Operation::Replace, key, kind))),
        }
    }
    Ok(())
}

/// The store's final word on a request: `None` where it did it, else the kind of its refusal.
async fn refusal<T, R>(env: &Env, request: impl Fn() -> R) -> Option<StoreErrorKind>
where
    R: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::start(env);
    loop {
        let error = request().await.err()?;
        if !error.is_transient() || !backoff.pause(env).await {
            return Some(error.kind());
        }
    }
}
