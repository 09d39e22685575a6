//! One Kafka connection: requests in, answers out, in the same order.
//!
//! ```text
//!  socket ─▶ head ─▶ frame ─▶ api::handle ─▶ pending answers ─▶ socket
//!               (budget)   one at a time       (bounded)
//! ```
//!
//! Owns: the order, the bounds, and when a connection ends. Leaves to others: frames (`wire`), what a request means
//! (`api`), how many connections there are (`listener`).
//!
//! Invariants:
//! 1. Answers leave in the order of their requests. An answer that waits for the WAL holds back those behind it, not the
//!    requests behind it: these are taken and given their order meanwhile (D1).
//! 2. A request is taken only where there is room for its answer: a peer that does not read is not read from. At most
//!    `queued.max.requests` answers wait, and those that are whole hold at most [`PENDING_BYTES_MAX`] and one answer.
//! 3. A request over [`READ_AHEAD`] is read once its bytes are taken of a budget that all connections share. They are given
//!    back when it is handled: of Produce, when the write-ahead log counts its records. What else is still in progress
//!    after [`DECODE_TIME_MAX`] gives them back then.
//! 4. Nobody waits for memory that is held by who waits for him. Produce, which waits for the write-ahead log, has a budget
//!    of its own, and room in the log is opened by uploads, which need no request; what others wait for longer, such as
//!    each other in a rebalance, they wait for with nothing held.
//! 5. Whatever a peer sends ends its own connection at most. What was answered before is still sent.
//!
//! Cancellation: dropped at any point, as a broken connection: what was asked for may be done.
//!
//! Sources: Kafka's `Selector`, `SocketServer`, `KafkaChannel`; D1, D16.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use forebay_api::memory::{Held, OTHER_BYTES_MAX};
use forebay_api::{CallError, Connection, Context, Reply};
use forebay_env::{Env, Shutdown, Stream};
use forebay_wire::frame::READ_AHEAD;
use forebay_wire::{FrameError, FrameHead, peek_frame, read_frame};
use futures::future::BoxFuture;
use tokio::io::{AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::complaints::Complaints;
use crate::counters::{Closed, Counters};

/// Bytes of whole answers that wait for the socket. One more answer, of `fetch.max.bytes` at most, may wait beside them;
/// what all connections' Fetch answers hold has a budget besides.
const PENDING_BYTES_MAX: u32 = 1 << 20;

/// Pieces of an answer handed to the system in one call: a record batch each, and far from the system's limit of 1,024.
const PIECES_PER_WRITE: usize = 64;

/// Produce carries records, which are not decoded.
const PRODUCE_KEY: i16 = 0;

/// How long a peer may send nothing of a request that it has begun: it may hold what others wait for.
const UNFINISHED_TIME_MAX: Duration = Duration::from_secs(30);

/// A large request has to come at this rate on the whole, beside that time.
const BYTES_PER_SECOND_MIN: usize = 16 << 10;

/// A request without records that is still in progress after so long was decoded long ago and waits for something else: a
/// rebalance, a long poll.
const DECODE_TIME_MAX: Duration = Duration::from_secs(1);

/// What all connections of one broker epoch share.
pub(crate) struct Serving {
    pub env: Env,
    pub context: Arc<Context>,
    pub counters: Arc<Counters>,
    /// Asks connections to finish what is in progress and end.
    pub closing: Shutdown,
    /// One permit per connection, `max.connections` of them.
    pub seats: Arc<Semaphore>,
    pub complaints: Complaints,
}

impl Serving {
    pub fn new(env: &Env, context: Arc<Context>, counters: Arc<Counters>) -> Self {
        let seats = context.config.max_connections().min(Semaphore::MAX_PERMITS);
        Self {
            env: env.clone(),
            context,
            counters,
            closing: Shutdown::default(),
            seats: Arc::new(Semaphore::new(seats)),
            complaints: Complaints::new(env),
        }
    }

    fn idle_max(&self) -> Duration {
        Duration::from_millis(self.context.config.connections_max_idle_ms())
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The peer closed it between two requests.
    Peer,
    /// No request for `connections.max.idle.ms`.
    Idle,
    /// The peer took nothing of an answer for that long.
    Stalled,
    /// The peer sent nothing of a request that it had begun for [`UNFINISHED_TIME_MAX`].
    Unfinished,
    /// The broker epoch ends.
    Closing,
    Frame(FrameError),
    Call(CallError),
    Write(io::Error),
}

/// A request that was read.
struct Request {
    api_key: i16,
    frame: BytesMut,
    /// What it holds of its budget; `None` for a small one.
    held: Option<Held>,
}

/// An answer in its place in the order.
enum Pending {
    Whole { api_key: i16, frame: Vec<Bytes>, room: OwnedSemaphorePermit, held: Option<Held> },
    Waits { api_key: i16, frame: BoxFuture<'static, Result<Vec<Bytes>, CallError>> },
}

/// Serves one connection to its end.
pub(crate) async fn serve(serving: Arc<Serving>, stream: Box<dyn Stream>, peer: SocketAddr) {
    let (reader, writer) = tokio::io::split(stream);
    let places = serving.context.config.queued_max_requests().min(Semaphore::MAX_PERMITS);
    let (queue, pending) = mpsc::channel(places);
    let mut write = pin!(write_answers(&serving, writer, pending));
    let end = tokio::select! {
        biased;
        written = &mut write => written.err().unwrap_or(End::Peer),
        // The queue ends with this future, so the writer sends what is in it and returns.
        end = read_requests(&serving, peer, reader, queue) => match write.await {
            Ok(()) => end,
            Err(error) => error,
        },
    };
    report(&serving, peer, &end);
}

/// Takes requests, one after the other, until there are no more.
async fn read_requests(
    serving: &Serving,
    peer: SocketAddr,
    mut reader: ReadHalf<Box<dyn Stream>>,
    queue: mpsc::Sender<Pending>,
) -> End {
    let connection = Connection { peer };
    let held_bytes = Arc::new(Semaphore::new(PENDING_BYTES_MAX as usize));
    let mut buf = BytesMut::new();
    loop {
        let place = queue.reserve().await.expect("the writer ends this future with itself");
        let request = tokio::select! {
            biased;
            () = serving.closing.triggered() => return End::Closing,
            request = next_request(serving, &mut reader, &mut buf) => match request {
                Ok(request) => request,
                Err(end) => return end,
            },
        };
        let api_key = request.api_key;
        serving.counters.api(api_key).request(request.frame.len());
        let (frame, held) = match handle(serving, &connection, request).await {
            Err(error) => return End::Call(error),
            Ok(Reply::Nothing) => {
                drop(place);
                continue;
            }
            Ok(Reply::Later(frame)) => {
                place.send(Pending::Waits { api_key, frame });
                continue;
            }
            Ok(Reply::Now(frame)) => (frame, None),
            Ok(Reply::Records(frame, held)) => (frame, Some(held)),
        };
        let size = u32::try_from(frame_size(&frame)).unwrap_or(u32::MAX).min(PENDING_BYTES_MAX);
        let room = Arc::clone(&held_bytes).acquire_many_owned(size).await;
        let room = room.expect("the semaphore is never closed");
        place.send(Pending::Whole { api_key, frame, room, held });
    }
}

/// The next request. A large one is read once there is memory for it.
async fn next_request(
    serving: &Serving,
    reader: &mut ReadHalf<Box<dyn Stream>>,
    buf: &mut BytesMut,
) -> Result<Request, End> {
    let (env, size_max) = (&serving.env, serving.context.config.socket_request_max_bytes());
    let head = env.timeout(serving.idle_max(), peek_frame(reader, buf, size_max)).await.ok_or(End::Idle)?;
    let FrameHead { size, api_key } = head.map_err(End::Frame)?.ok_or(End::Peer)?;
    let memory = &serving.context.memory;
    let held = match api_key {
        _ if size <= READ_AHEAD => None,
        PRODUCE_KEY => Some(memory.produce.take(size).await),
        _ if size > OTHER_BYTES_MAX => {
            return Err(End::Frame(FrameError::RequestTooLarge { size, limit: OTHER_BYTES_MAX }));
        }
        _ => Some(memory.other.take(size).await),
    };
    // What others wait for is not held for a trickle.
    let time = UNFINISHED_TIME_MAX + Duration::from_secs((size / BYTES_PER_SECOND_MIN) as u64);
    let deadline = env.monotonic() + time;
    loop {
        let received = buf.len();
        match env.timeout(UNFINISHED_TIME_MAX, read_frame(reader, buf, size_max)).await {
            Some(frame) => {
                let frame = frame.map_err(End::Frame)?.ok_or(End::Peer)?;
                return Ok(Request { api_key, frame, held });
            }
            None if buf.len() == received => return Err(End::Unfinished),
            None if held.is_some() && env.monotonic() >= deadline => return Err(End::Unfinished),
            None => {}
        }
    }
}

/// Answers one request, and gives back what it holds as soon as its bytes are no longer needed.
async fn handle(serving: &Serving, connection: &Connection, request: Request) -> Result<Reply, CallError> {
    let Request { api_key, frame, held } = request;
    let mut handled = pin!(forebay_api::handle(&serving.context, connection, frame));
    let Some(held) = held else { return handled.await };
    if api_key == PRODUCE_KEY {
        let reply = handled.await;
        drop(held);
        return reply;
    }
    if let Some(reply) = serving.env.timeout(DECODE_TIME_MAX, &mut handled).await {
        return reply;
    }
    drop(held);
    handled.await
}

/// Sends answers in the order in which they were queued.
async fn write_answers(
    serving: &Serving,
    mut writer: WriteHalf<Box<dyn Stream>>,
    mut pending: mpsc::Receiver<Pending>,
) -> Result<(), End> {
    while let Some(answer) = pending.recv().await {
        let (api_key, frame, held) = match answer {
            Pending::Whole { api_key, frame, room, held } => (api_key, frame, Some((room, held))),
            Pending::Waits { api_key, frame } => (api_key, frame.await.map_err(End::Call)?, None),
        };
        serving.counters.api(api_key).response(frame_size(&frame));
        write_frame(&serving.env, &mut writer, frame, serving.idle_max()).await?;
        drop(held);
    }
    writer.shutdown().await.map_err(End::Write)
}

/// Sends the pieces of a frame without putting them together.
async fn write_frame(
    env: &Env,
    writer: &mut (impl AsyncWrite + Unpin),
    mut pieces: Vec<Bytes>,
    stalled_max: Duration,
) -> Result<(), End> {
    pieces.retain(|piece| !piece.is_empty());
    let mut rest = pieces.as_mut_slice();
    while !rest.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
        let count = rest.len().min(PIECES_PER_WRITE);
        for (slice, piece) in slices.iter_mut().zip(&*rest) {
            *slice = IoSlice::new(piece);
        }
        let written = env.timeout(stalled_max, writer.write_vectored(&slices[..count])).await;
        let mut written = written.ok_or(End::Stalled)?.map_err(End::Write)?;
        if written == 0 {
            return Err(End::Write(io::ErrorKind::WriteZero.into()));
        }
        while let Some(piece) = rest.first_mut() {
            if written < piece.len() {
                piece.advance(written);
                break;
            }
            written -= piece.len();
            // Records that were sent need not wait for the rest of the answer.
            *piece = Bytes::new();
            rest = &mut rest[1..];
        }
    }
    writer.flush().await.map_err(End::Write)
}

fn frame_size(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

fn report(serving: &Serving, peer: SocketAddr, end: &End) {
    let closed = match end {
        End::Peer => Closed::Peer,
        End::Idle => Closed::Idle,
        End::Stalled => Closed::Stalled,
        End::Unfinished => Closed::Unfinished,
        End::Closing => Closed::Closing,
        End::Frame(FrameError::Io(_)) | End::Write(_) => Closed::Broken,
        End::Frame(_) => Closed::BadFrame,
        End::Call(_) => Closed::BadRequest,
    };
    serving.counters.closed(closed);
    let error: &dyn std::error::Error = match end {
        End::Peer | End::Idle | End::Closing => return tracing::debug!(%peer, why = closed.name(), "connection closed"),
        End::Stalled => {
            return serving.complaints.log(|| tracing::warn!(%peer, "connection closed: the peer takes no answers"));
        }
        End::Unfinished => {
            let seconds = UNFINISHED_TIME_MAX.as_secs();
            let log =
                || tracing::warn!(%peer, seconds, "connection closed: the peer sends nothing of a request it began");
            return serving.complaints.log(log);
        }
        End::Frame(FrameError::Io(error)) | End::Write(error) => {
            return tracing::debug!(%peer, error = error as &dyn std::error::Error, "connection lost");
        }
        End::Frame(error) => error,
        End::Call(error) => error,
    };
    serving.complaints.log(|| tracing::warn!(%peer, error, "connection closed"));
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context as Poller, Poll};

    use forebay_env::simulated::{SimDisk, Trace, parts};

    use super::*;

    /// Takes at most so many bytes a call.
    struct Narrow {
        taken: Vec<u8>,
        width: usize,
        calls: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Poller<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Poller<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            let mut room = self.width;
            for slice in slices {
                let n = room.min(slice.len());
                self.taken.extend_from_slice(&slice[..n]);
                room -= n;
            }
            Poll::Ready(Ok(self.width - room))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn env() -> Env {
        Env::new(parts(1, &SimDisk::new(1, Trace::default())))
    }

    async fn written(pieces: Vec<Bytes>, width: usize) -> (Result<(), End>, Narrow) {
        let mut socket = Narrow { taken: Vec::new(), width, calls: 0 };
        let sent = write_frame(&env(), &mut socket, pieces, Duration::from_secs(1)).await;
        (sent, socket)
    }

    /// However little the socket takes at a time, and however many pieces there are, all bytes go out in order.
    #[tokio::test]
    async fn pieces_go_out_whole_and_in_order() {
        let pieces: Vec<Bytes> = (0..200_u8).map(|n| Bytes::from(vec![n; usize::from(n % 7)])).collect();
        let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
        for width in [1, 3, 50, 1_000_000] {
            let (sent, socket) = written(pieces.clone(), width).await;
            assert!(sent.is_ok() && socket.taken == whole, "{width} bytes at a time");
        }
        let (_, socket) = written(pieces, 1_000_000).await;
        assert_eq!(socket.calls, 3, "171 pieces with something in them, 64 a call");
    }

    /// A socket that takes nothing is broken, not asked for ever.
    #[tokio::test]
    async fn a_socket_that_takes_nothing_is_broken() {
        let (sent, _) = written(vec![Bytes::from_static(b"x")], 0).await;
        assert!(matches!(sent, Err(End::Write(error)) if error.kind() == io::ErrorKind::WriteZero));
    }

    /// A peer that stops reading is let go once it has taken nothing for the idle time.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_let_go() {
        let (mut near, _far) = tokio::io::duplex(10);
        let sent = write_frame(&env(), &mut near, vec![Bytes::from(vec![1; 100])], Duration::from_mins(10)).await;
        assert!(matches!(sent, Err(End::Stalled)));
    }
}
