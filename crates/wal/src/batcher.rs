//! The WAL's own task: forms groups, writes several at a time, and makes them known strictly in order.
//!
//! One owner: sequences, the groups in flight and the order of acks belong to this task. Appends reach it through the
//! [`Queue`], results through the in-order stream of writes.
//!
//! Crash: between a group's write and its publication it is durable and unknown; the sealer finds it. Cancellation:
//! dropping the task ends the WAL for all who wait; writes under way may happen or not. A failed write ends the loop;
//! groups below it were published before, because results are taken in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_env::{Env, FailPoint, Instant};
use forebay_format::WalEntry;
use forebay_types::{WalPosition, WalSequence};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{Notify, watch};

use crate::pace::{Pace, Turn};
use crate::queue::{Queue, Queued, Share};
use crate::tally::Recent;
use crate::waiters::Waiters;
use crate::{DurableGroup, Group, Provider, Publisher, WalError, WalMetrics, Written};

/// What the task and the handles on the WAL share.
pub(crate) struct Shared {
    pub queue: Queue,
    pub waiters: Waiters,
    pub metrics: WalMetrics,
    /// Wakes those who wait for room.
    pub room: Notify,
    /// True once the task has ended.
    pub finished: watch::Sender<bool>,
}

/// A group whose write has come to an end.
struct Settled {
    group: Group,
    underway: Vec<Underway>,
    last: WalPosition,
    started_at: Instant,
    result: Result<Written, WalError>,
}

/// What stays of a queued entry once it is in a group: its start, and its share of what may be in flight.
struct Underway {
    appended_at: Instant,
    _share: Share,
}

/// How long a sabotaged WAL keeps what it has already acknowledged: long enough that a kill meets it.
const SABOTAGE_WRITE_DELAY: Duration = Duration::from_millis(50);

pub(crate) struct Batcher {
    env: Env,
    shared: Arc<Shared>,
    provider: Arc<dyn Provider>,
    publisher: Arc<dyn Publisher>,
    pace: Pace,
    next: WalSequence,
    /// Exclusive: groups below this are published.
    published: WalSequence,
    /// Of the groups so far, for the tally of the next.
    recent: Recent,
    in_flight: FuturesOrdered<BoxFuture<'static, Settled>>,
    /// See [`crate::WalConfig::sabotage_ack_before_write`].
    ack_before_write: bool,
}

impl Batcher {
    pub fn new(
        env: Env,
        shared: Arc<Shared>,
        provider: Arc<dyn Provider>,
        publisher: Arc<dyn Publisher>,
        ack_before_write: bool,
    ) -> Self {
        let pace = Pace::new(provider.pacing());
        Self {
            env,
            shared,
            provider,
            publisher,
            pace,
            next: WalSequence::ZERO,
            published: WalSequence::ZERO,
            recent: Recent::default(),
            in_flight: FuturesOrdered::new(),
            ack_before_write,
        }
    }

    /// Runs until stopped and drained, or until a write fails for good.
    pub async fn run(mut self) {
        // Whatever ends this task, nobody is left waiting.
        let last_words = LastWords(Arc::clone(&self.shared));
        if let Err(error) = self.work().await {
            tracing::error!(%error, kind = %self.provider.kind(), "the WAL has ended");
            self.shared.queue.close();
            self.publisher.ended(&error);
            self.shared.end(error);
        } else {
            self.shared.queue.close();
            self.shared.end(WalError::Stopped);
        }
        drop(last_words);
    }

    async fn work(&mut self) -> Result<(), WalError> {
        loop {
            let turn = self.pace.turn(self.env.monotonic(), self.shared.queue.waiting(), self.in_flight.len());
            let wake_at = match turn {
                Turn::Start => {
                    self.start_group();
                    continue;
                }
                Turn::At(time) => Some(time),
                Turn::Idle => None,
            };
            if self.in_flight.is_empty() && self.shared.queue.is_drained() {
                return Ok(());
            }
            let timer = async {
                match wake_at {
                    Some(time) => self.env.sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(settled) = self.in_flight.next() => self.settle(settled)?,
                () = timer => {}
                () = self.shared.queue.changed.notified() => {}
            }
        }
    }

    fn start_group(&mut self) {
        let (taken, last) = self.shared.queue.take_group();
        assert!(!taken.is_empty(), "a group is started only when something is queued");
        let split = |queued: Queued| {
            let (entry, appended_at, share) = queued.split();
            (entry, Underway { appended_at, _share: share })
        };
        let (entries, underway): (Vec<WalEntry>, _) = taken.into_iter().map(split).unzip();
        let before = self.recent.push(&entries);
        let group = Group { sequence: self.next, acknowledged: self.published, before, entries: Arc::new(entries) };
        self.next = self.next.next();
        let started_at = self.env.monotonic();
        self.pace.started(started_at);
        let provider = Arc::clone(&self.provider);
        let sabotage = self.ack_before_write.then(|| self.env.clone());
        if sabotage.is_some() {
            self.shared.waiters.advance(last);
        }
        self.in_flight.push_back(Box::pin(async move {
            if let Some(env) = sabotage {
                env.sleep(SABOTAGE_WRITE_DELAY).await;
            }
            let result = provider.write(group.clone()).await;
            Settled { group, underway, last, started_at, result }
        }));
    }

    fn settle(&mut self, settled: Settled) -> Result<(), WalError> {
        let Settled { group, underway, last, started_at, result } = settled;
        let written = result?;
        assert_eq!(group.sequence, self.published, "groups are published in the order of their sequences");
        self.env.fail_point(FailPoint::DurableNotAcked);
        let now = self.env.monotonic();
        let metrics = &self.shared.metrics;
        metrics.write_latency.observe(now - started_at);
        for entry in &underway {
            metrics.ack_latency.observe(now - entry.appended_at);
        }
        let batch_bytes: usize = group.entries.iter().map(|e| e.records.len()).sum();
        metrics.groups.fetch_add(1, Ordering::Relaxed);
        metrics.entries.fetch_add(underway.len() as u64, Ordering::Relaxed);
        metrics.batch_bytes.fetch_add(batch_bytes as u64, Ordering::Relaxed);
        metrics.written_bytes.fetch_add(written.bytes, Ordering::Relaxed);
        metrics.syncs.fetch_add(written.syncs, Ordering::Relaxed);

        self.published = group.sequence.next();
        let entries = Arc::unwrap_or_clone(group.entries);
        self.publisher.publish(DurableGroup { sequence: group.sequence, entries, upload: written.object });
        self.shared.queue.published(last, now);
        if !self.ack_before_write {
            self.shared.waiters.advance(last);
        }
        Ok(())
    }
}

impl Shared {
    fn end(&self, error: WalError) {
        self.waiters.end(Arc::new(error));
        self.room.notify_waiters();
        self.finished.send_replace(true);
    }
}

/// Ends the WAL for those who wait when its task is dropped or panics.
struct LastWords(Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if self.0.waiters.ended().is_none() {
            self.0.queue.close();
            self.0.end(WalError::TaskGone);
        }
    }
}
