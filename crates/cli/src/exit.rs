//! How a command ends: its exit code, and what to do about an error.
//!
//! Owns: the mapping from errors to exit codes (0 good, 1 error, 2 usage, 10 unhealthy, 13 refused by policy) and to a
//! hint for the person who reads it. Leaves to others: the words of the error itself.

use std::process::ExitCode;

use forebay_client::{ClientError, ErrorCode, Outcome};

use crate::http::Unreached;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Good,
    Error,
    Usage,
    /// The command worked and what it looked at is not well.
    Unhealthy,
    /// Not allowed by a rule of the cluster.
    Refused,
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Unhealthy => 10,
            Self::Refused => 13,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The command line, or a file or variable in its place, cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// The exit code of an error: that of the first cause that has one.
pub fn of(error: &anyhow::Error) -> Exit {
    let of_cause = |cause: &(dyn std::error::Error + 'static)| {
        if cause.is::<Usage>() {
            return Some(Exit::Usage);
        }
        if is_broken_pipe(cause) {
            return Some(Exit::Good);
        }
        let code = cause.downcast_ref::<ClientError>()?.code()?;
        (code == ErrorCode::PolicyViolation).then_some(Exit::Refused)
    };
    error.chain().find_map(of_cause).unwrap_or(Exit::Error)
}

/// Whoever reads our output has gone (`forebay … | head`): nothing to say, nobody to say it to.
pub fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What to do next about an error, where there is something that helps.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if error.chain().find_map(|cause| cause.downcast_ref::<Unreached>()).is_some() {
        return Some(
            "is the broker running there? `forebay dev` starts one and prints the address; --admin names another",
        );
    }
    let client = error.chain().find_map(|cause| cause.downcast_ref::<ClientError>())?;
    match client.code() {
        Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId) => {
            return Some("`forebay topic list` shows the topics there are");
        }
        Some(ErrorCode::TopicAlreadyExists) => return Some("`forebay topic alter` changes a topic that is there"),
        Some(ErrorCode::InvalidConfig) => {
            return Some("`forebay topic describe --all` shows every config and its value");
        }
        Some(ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId | ErrorCode::RebalanceInProgress) => {
            return Some("stop the group's consumers first; `forebay group describe` shows them");
        }
        Some(ErrorCode::GroupIdNotFound) => return Some("`forebay group list` shows the groups there are"),
        Some(ErrorCode::OffsetOutOfRange) => {
            return Some("`forebay topic describe` shows the first and the last offset of each partition");
        }
        Some(ErrorCode::InvalidPartitions) => return Some("a topic's partitions can only become more"),
        _ => {}
    }
    match client {
        ClientError::NotSent { .. } => Some("is the broker running there? `forebay dev` starts one; -b names another"),
        ClientError::GaveUp { outcome: Outcome::DidNotHappen, .. } | ClientError::NoAnswer { .. } => {
            Some("is a Kafka broker listening there? -b names another")
        }
        ClientError::Corrupt { .. } => Some(
            "`forebay bucket fsck` names what is damaged; `topic consume -p N --offset M` reads what lies behind it",
        ),
        ClientError::GaveUp { .. } => Some("it may have taken effect: look before repeating it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn refused(code: ErrorCode) -> anyhow::Error {
        ClientError::Refused { what: "x".into(), code, message: None }.into()
    }

    /// The exit code is found below any context, and an error without one is 1.
    #[test]
    fn exit_codes_come_from_the_cause() {
        let wrapped = Err::<(), _>(usage("no such key")).context("read the file").expect_err("an error");
        assert_eq!(of(&wrapped).code(), 2);
        assert_eq!(of(&refused(ErrorCode::PolicyViolation)).code(), 13);
        assert_eq!(of(&refused(ErrorCode::TopicAlreadyExists)).code(), 1);
        assert_eq!(of(&anyhow::anyhow!("something")).code(), 1);
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(of(&anyhow::Error::from(pipe).context("print")).code(), 0);
    }

    /// An error that somebody can act on says how.
    #[test]
    fn errors_say_what_to_do_next() {
        let unreachable = ClientError::NotSent {
            what: "list topics".into(),
            address: "localhost:9092".into(),
            reason: std::sync::Arc::new(std::io::ErrorKind::ConnectionRefused.into()),
        };
        assert!(hint(&anyhow::Error::from(unreachable).context("topics")).is_some_and(|h| h.contains("forebay dev")));
        assert!(hint(&refused(ErrorCode::NonEmptyGroup)).is_some_and(|h| h.contains("stop the group's consumers")));
        assert_eq!(hint(&anyhow::anyhow!("something")), None);
    }
}
