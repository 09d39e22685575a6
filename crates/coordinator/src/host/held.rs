//! Replies that wait until what they rest on is durable (D1).
//!
//! One task per machine releases them in the order of the machine's outputs, so that the machine goes on meanwhile.
//!
//! Invariant: a reply that is never released is dropped, and its caller learns that the coordinator is gone.

use forebay_env::Task;
use forebay_types::WalPosition;
use forebay_wal::Wal;
use tokio::sync::mpsc;

use super::Shared;

/// Replies of one machine that wait for the WAL. Beyond it the machine waits too: the WAL is far behind.
const HELD_MAX: usize = 4_096;

struct Reply {
    position: WalPosition,
    send: Box<dyn FnOnce() + Send>,
}

pub(super) struct Held {
    wal: Wal,
    replies: mpsc::Sender<Reply>,
    task: Task<()>,
}

impl Held {
    pub fn start(shared: &Shared) -> Self {
        let (replies, mut waiting) = mpsc::channel::<Reply>(HELD_MAX);
        let wal = shared.wal.clone();
        let task = shared.env.spawn("coordinator-replies", {
            let wal = wal.clone();
            async move {
                while let Some(reply) = waiting.recv().await {
                    if wal.durable(reply.position).await.is_ok() {
                        (reply.send)();
                    }
                }
            }
        });
        Self { wal, replies, task }
    }

    /// Sends a reply once the WAL is durable up to `position`: at once, where it is already.
    pub async fn hold(&self, position: WalPosition, send: impl FnOnce() + Send + 'static) {
        if position <= self.wal.durable_position() {
            send();
        } else if self.replies.send(Reply { position, send: Box::new(send) }).await.is_err() {
            unreachable!("the task that releases replies ends after this sender");
        }
    }

    /// Returns when every reply was sent or dropped.
    pub async fn release(self) {
        drop(self.replies);
        self.task.await;
    }
}
