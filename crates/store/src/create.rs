//! Winning a name exactly once (D6).
//!
//! A create that answers is easy. Three things seen in the field are not, and each has its place below:
//! 1. a repeat of our own create may answer "already exists" for what our own first attempt did;
//! 2. a time-out means that the first attempt happened, did not happen, or will happen yet;
//! 3. "already exists" (S3's 409 too) may be said of a name under which nothing is.
//!
//! So an unknown outcome is met by sending the same bytes again, and "already exists" by reading the name. Whose the
//! object is, its bytes tell: the caller sees to it that nobody else would write the same ones (broker, epoch and
//! sequence stand in all that a broker writes).
//!
//! Cancellation: dropping the future leaves the outcome unknown; calling again with the same bytes settles it.

use bytes::Bytes;
use forebay_env::Env;

use crate::retry::Backoff;
use crate::{Body, Key, Operation, Span, Store, StoreError, StoreErrorKind, Version};

/// A name that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// This call's last attempt created the object.
    New,
    /// The object was there with our bytes: an earlier attempt, of this call or an earlier one, created it.
    Mine,
}

/// A name that is not ours, or not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// Somebody else has the name for good.
    #[error("could not create {key}: somebody else's object of {} bytes has that name", found.len())]
    Theirs { key: Key, found: Bytes },
    /// Unsettled. Where the kind is `MayHaveHappened` only the same bytes may be tried again under the name.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates `key` with exactly `body`, or learns whose it is. Repeats within the bounds of [`crate::Retrying`].
///
/// # Errors
/// See [`CreateError`].
pub async fn create_exact(env: &Env, store: &dyn Store, key: &Key, body: Body) -> Result<Created, CreateError> {
    create_versioned(env, store, key, body).await.map(|(created, _)| created)
}

/// As [`create_exact`], with the version written where the store has versions.
pub(crate) async fn create_versioned(
    env: &Env,
    store: &dyn Store,
    key: &Key,
    body: Body,
) -> Result<(Created, Option<Version>), CreateError> {
    let mut backoff = Backoff::start(env);
    // Whether an attempt, of this call or of one that the store reminds us of, may have left its mark.
    let mut unknown = false;
    loop {
        let error = match store.create(key, body.clone()).await {
            Ok(version) => return Ok((Created::New, version)),
            Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {
                match read_back(store, key, &body).await {
                    Ok(Found::Mine(version)) => return Ok((Created::Mine, version)),
                    Ok(Found::Theirs(found)) => return Err(CreateError::Theirs { key: key.clone(), found }),
                    // Trap 3. Nothing is there, so nothing was refused: create again.
                    Ok(Found::Nothing) => StoreError::new(Operation::Create, key, StoreErrorKind::DidNotHappen)
                        .because("the store says that the name is taken, and nothing is there"),
                    Err(error) => {
                        unknown = true;
                        error
                    }
                }
            }
            Err(error) => error,
        };
        unknown |= error.kind() == StoreErrorKind::MayHaveHappened;
        if !error.is_transient() || !backoff.pause(env).await {
            // The result is that of all attempts: a refusal now does not undo what an earlier one may have done.
            let kind = if unknown { StoreErrorKind::MayHaveHappened } else { error.kind() };
            return Err(error.of_kind(kind).into());
        }
    }
}

enum Found {
    Nothing,
    Mine(Option<Version>),
    Theirs(Bytes),
}

async fn read_back(store: &dyn Store, key: &Key, body: &Body) -> Result<Found, StoreError> {
    let mut before: Option<Bytes> = None;
    // A read that lies must not turn a name that we won into one that we lost: theirs is what two reads agree on.
    for _ in 0..READS_MAX {
        let found = match store.read(key, Span::All).await {
            Ok(found) => found,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        if body.equals(&found.bytes) {
            return Ok(Found::Mine(found.meta.version));
        }
        if before.as_ref() == Some(&found.bytes) {
            return Ok(Found::Theirs(found.bytes));
        }
        before = Some(found.bytes);
    }
    let lies = StoreError::new(Operation::Read, key, StoreErrorKind::DidNotHappen);
    Err(lies.because(format!("{READS_MAX} reads of one object gave different bytes")))
}

/// Reads that look for two that agree: one flipped bit in one of them is survived.
const READS_MAX: usize = 4;
