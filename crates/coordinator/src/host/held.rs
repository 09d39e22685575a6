//! Replies that wait until what they rest on is durable (D1).
//!
//! One task per machine releases them, so that the machine goes on meanwhile: those that rest on less first.
//!
//! Invariant: a reply that is never released is dropped, and its caller learns that the coordinator is gone.

use std::collections::BTreeMap;

use forebay_env::{Env, Task};
use forebay_types::WalPosition;
use forebay_wal::Wal;
use tokio::sync::mpsc;

/// Replies of one machine that wait for the WAL. Beyond it the machine waits too: the WAL is far behind.
const HELD_MAX: usize = 4_096;

/// Replies on their way to the task.
const INBOX_MAX: usize = 64;

type Send = Box<dyn FnOnce() + std::marker::Send>;

struct Reply {
    position: WalPosition,
    send: Send,
}

pub(super) struct Held {
    wal: Wal,
    replies: mpsc::Sender<Reply>,
    task: Task<()>,
}

impl Held {
    pub fn start(env: &Env, wal: &Wal) -> Self {
        let (replies, inbox) = mpsc::channel(INBOX_MAX);
        let task = env.spawn("coordinator-replies", release(wal.clone(), inbox));
        Self { wal: wal.clone(), replies, task }
    }

    /// Sends a reply once the WAL is durable up to `position`: at once, where it is already.
    pub async fn hold(&self, position: WalPosition, send: impl FnOnce() + std::marker::Send + 'static) {
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

async fn release(wal: Wal, mut inbox: mpsc::Receiver<Reply>) {
    let mut waiting: BTreeMap<WalPosition, Vec<Send>> = BTreeMap::new();
    let (mut count, mut open) = (0, true);
    while open || count > 0 {
        let first = waiting.keys().next().copied();
        let durable = async {
            match first {
                Some(first) => wal.durable(first).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            durable = durable => {
                let through = wal.durable_position();
                let mut released = std::mem::take(&mut waiting);
                // Once the WAL has ended, what is not durable never will be.
                if durable.is_ok() {
                    waiting = released.split_off(&through.next());
                }
                count = waiting.values().map(Vec::len).sum();
                released.retain(|position, _| *position <= through);
                released.into_values().flatten().for_each(|send| send());
            }
            reply = inbox.recv(), if open && count < HELD_MAX => match reply {
                Some(Reply { position, send }) => {
                    waiting.entry(position).or_default().push(send);
                    count += 1;
                }
                None => open = false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_env::simulated::{SimDisk, Trace, parts};
    use forebay_wal::conformance::{Numbered, owner};
    use forebay_wal::providers::memory::MemoryWal;
    use forebay_wal::{DurableGroup, Publisher, WalConfig, WalError};
    use parking_lot::Mutex;

    use super::*;

    struct Nobody;

    impl Publisher for Nobody {
        fn publish(&self, _: DurableGroup) {}
        fn ended(&self, _: &WalError) {}
    }

    /// A reply that rests on less does not wait behind one that came before it; those on the same keep their order.
    #[tokio::test(start_paused = true)]
    async fn replies_leave_by_what_they_rest_on() {
        let env = Env::new(parts(1, &SimDisk::new(1, Trace::default())));
        let memory = MemoryWal::default();
        let wal = Wal::start(&env, Box::new(memory.provider(&env, &owner(1))), Arc::new(Nobody), WalConfig::default());
        memory.stall(true);
        let append = async |number| {
            let entry = Numbered { epoch: owner(1).epoch, number }.entry(10);
            let position = wal.append(&mut wal.admit_own(1_000).await.expect("running"), entry);
            // One group each: the first is being written, the second waits for it.
            env.sleep(std::time::Duration::from_millis(1)).await;
            position
        };
        let (low, high) = (append(0).await, append(1).await);
        let held = Held::start(&env, &wal);
        let sent = Arc::new(Mutex::new(Vec::new()));
        for (position, name) in [(high, "a"), (low, "b"), (low, "c"), (high, "d")] {
            let sent = Arc::clone(&sent);
            held.hold(position, move || sent.lock().push(name)).await;
        }
        assert!(sent.lock().is_empty());
        memory.stall(false);
        wal.durable(high).await.expect("running");
        let (now, never) = (Arc::clone(&sent), Arc::clone(&sent));
        held.hold(high, move || now.lock().push("e")).await;
        held.hold(high.next(), move || never.lock().push("f")).await;
        wal.stop().await.expect("all is written");
        held.release().await;
        assert_eq!(*sent.lock(), ["b", "c", "a", "d", "e"]);
    }
}
