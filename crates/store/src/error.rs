//! What can go wrong with a request, told by what the caller has to do about it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Create,
    Put,
    Replace,
    Read,
    Head,
    List,
    Delete,
}

impl Operation {
    pub const ALL: [Self; 7] =
        [Self::Create, Self::Put, Self::Replace, Self::Read, Self::Head, Self::List, Self::Delete];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Put => "put",
            Self::Replace => "replace",
            Self::Read => "read",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }

    /// Whether the bucket is another after it.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Put | Self::Replace | Self::Delete)
    }

    /// What an operation without an answer has come to: a read has done nothing, a write is unknown.
    pub const fn unanswered(self) -> StoreErrorKind {
        if self.writes() { StoreErrorKind::MayHaveHappened } else { StoreErrorKind::DidNotHappen }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a request, and so what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// Final for a read. Of an object that metadata names it is a loss to report.
    #[error("there is no such object")]
    NotFound,
    /// The store says that the name is taken: read it before believing it ([`crate::create_exact`] does).
    #[error("an object of that name exists already")]
    AlreadyExists,
    /// A replace found another version than the expected one: read and decide again.
    #[error("the object is not the version expected")]
    Changed,
    /// The caller's idea of the object is wrong.
    #[error("the range lies outside the object, which has {size} bytes")]
    OutOfRange { size: u64 },
    /// Nothing was done: try again later.
    #[error("it did not happen")]
    DidNotHappen,
    /// It was done, or was not, or still will be: repeat the very same, never something else under that name.
    #[error("it may have happened")]
    MayHaveHappened,
    /// It will be refused again until a person changes something: credentials, the bucket's name, its policy.
    #[error("the store refuses it")]
    Refused,
    /// The answer makes no sense: report it with its name.
    #[error("the store's answer makes no sense")]
    Corrupt,
    /// No room: press back on whoever writes, and say so.
    #[error("the store is full")]
    Full,
}

/// A request that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not {operation} {subject}: {kind}")]
pub struct StoreError {
    operation: Operation,
    /// A key, or the prefix of a list.
    subject: Arc<str>,
    kind: StoreErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    pub fn new(operation: Operation, subject: &impl ToString, kind: StoreErrorKind) -> Self {
        Self { operation, subject: subject.to_string().into(), kind, source: None }
    }

    /// The same, with what brought it about.
    #[must_use]
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(Arc::from(source.into())), ..self }
    }

    /// The same, of another kind: after several attempts the result is that of all of them.
    #[must_use]
    pub(crate) fn of_kind(self, kind: StoreErrorKind) -> Self {
        Self { kind, ..self }
    }

    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// The key, or the prefix of a list.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether the same request may succeed later without anybody doing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::DidNotHappen | StoreErrorKind::MayHaveHappened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    #[test]
    fn an_error_says_what_was_tried_on_what_and_what_became_of_it() {
        let key = Key::new("a/b").expect("legal");
        let error =
            StoreError::new(Operation::Create, &key, Operation::Create.unanswered()).because("no answer in 30 s");
        assert_eq!(error.to_string(), "could not create a/b: it may have happened");
        assert_eq!(error.source().expect("given").to_string(), "no answer in 30 s");
        assert!(error.is_transient());
        assert_eq!(Operation::Read.unanswered(), StoreErrorKind::DidNotHappen);
        let past = StoreError::new(Operation::Read, &key, StoreErrorKind::OutOfRange { size: 7 });
        assert_eq!(past.to_string(), "could not read a/b: the range lies outside the object, which has 7 bytes");
    }
}
