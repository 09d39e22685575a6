//! Commands that become durable together.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::command::{Command, Reply};
use crate::service::SubmitError;
use crate::state::{Key, Row};

pub(crate) type Answer = Result<Reply, SubmitError>;

/// A command on its way to the writer.
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What was applied and is not yet durable.
#[derive(Default)]
pub(super) struct Group {
    pub(super) rows: BTreeMap<Key, Option<Row>>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

impl Group {
    /// Whether a read of the database could miss something that this group changes.
    pub(super) fn has_cold_rows(&self) -> bool {
        self.rows.keys().any(Key::is_cold)
    }

    pub(super) fn later(&mut self, to: oneshot::Sender<Answer>, answer: Answer) {
        self.answers.push((to, answer));
    }

    /// Sends the answers. A submitter that has gone learns the outcome when it asks again.
    pub(super) fn answer(self) {
        for (to, answer) in self.answers {
            let _ = to.send(answer);
        }
    }
}
