//! Tasks and threads with a name and an owner.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::Threads;

/// A running task. Dropping it aborts the task; awaiting it gives the output.
#[must_use = "a task is aborted when its handle is dropped"]
pub struct Task<T> {
    name: &'static str,
    handle: JoinHandle<T>,
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn<F>(name: &'static str, future: F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        Self { name, handle: tokio::spawn(future) }
    }
}

impl<T> Task<T> {
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn abort(&self) {
        self.handle.abort();
    }

    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl<T> Future for Task<T> {
    /// `None` where the task was aborted.
    type Output = Option<T>;

    /// # Panics
    /// Passes on the task's own panic: an invariant that broke in a task is the owner's to see.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.handle).poll(cx)) {
            Ok(output) => Some(output),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        })
    }
}

pub(crate) async fn blocking<T, F>(threads: Threads, name: &'static str, work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match threads {
        Threads::One => work(),
        Threads::Many => match tokio::task::spawn_blocking(work).await {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => unreachable!("blocking work {name} cannot be aborted once it runs"),
            },
        },
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that wait for a [`Worker`]'s thread. The callers bound what they have in flight (a WAL its groups), so this
/// only has to be larger than that.
const WORKER_QUEUE_MAX: usize = 256;

/// A thread that runs jobs in the order they were handed over. Ends when dropped, after the jobs it holds.
pub struct Worker {
    name: &'static str,
    jobs: Option<mpsc::Sender<Job>>,
}

impl Worker {
    pub(crate) fn start(threads: Threads, name: &'static str) -> io::Result<Self> {
        if threads == Threads::One {
            return Ok(Self { name, jobs: None });
        }
        let (sender, mut receiver) = mpsc::channel::<Job>(WORKER_QUEUE_MAX);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = receiver.blocking_recv() {
                job();
            }
        })?;
        Ok(Self { name, jobs: Some(sender) })
    }

    /// Runs `job` after those handed over before. Once handed over, a job runs even if this future is dropped.
    ///
    /// # Panics
    /// Where the thread has ended, which only a panic in a job brings about.
    pub async fn run<T, F>(&self, job: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(jobs) = &self.jobs else { return job() };
        let (done, output) = oneshot::channel();
        let boxed: Job = Box::new(move || {
            // The caller may have gone: the job's effect counts, not its answer.
            let _ = done.send(job());
        });
        let handed_over = jobs.send(boxed).await.is_ok();
        assert!(handed_over, "worker {} has ended: a job before this one panicked", self.name);
        output.await.unwrap_or_else(|_| panic!("worker {}: the job panicked", self.name))
    }
}
