//! One connection to one broker: requests pipelined in the order they are started, answers matched in that order.
//!
//! Owns: version negotiation, the in-flight queue, the time limit of an answer, what an early end means for each
//! request. Leaves to others: which broker, whether to try again.
//!
//! Invariants:
//! 1. Frames leave in the order in which [`Connection::start`] returned, and the broker answers in that order; an answer
//!    with another correlation id ends the connection.
//! 2. A request that ends without an answer is told apart: not a byte of it was written (`NotSent`), or some were
//!    (`NoAnswer`).
//! 3. A request without an answer within the limit ends the connection: what comes later on it would be late too.
//!
//! Cancel safety: dropping a [`Pending`] forgets the answer, not the request; the connection goes on.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_env::{Env, Stream, Task};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::{ApiVersionsRequest, ApiVersionsResponse};
use forebay_wire::kafka::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use forebay_wire::{decode_response, encode_request, peek_correlation_id, read_frame};
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::ClientError;
use crate::versions::{self, Versions};

/// Requests that may wait for their answers on one connection. Far above a producer's five per partition; it bounds
/// memory, not throughput.
const IN_FLIGHT_MAX: usize = 256;

/// Largest answer read: Kafka's `socket.request.max.bytes` default, which bounds what a fetch may ask for.
const RESPONSE_SIZE_MAX: usize = 100 << 20;

/// How long a connection attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Read-ahead that one read call may fill.
const READ_BUFFER_SIZE: usize = 64 << 10;

pub(crate) struct Connection {
    shared: Arc<Shared>,
    versions: Versions,
    /// The reader and the writer end with the connection.
    _tasks: [Task<()>; 2],
}

struct Shared {
    env: Env,
    address: String,
    client_id: String,
    answer_limit: Duration,
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    next_correlation_id: i32,
    /// Requests put in the queue and requests of which a byte may have left, since the beginning.
    started: u64,
    begun: u64,
    awaiting: VecDeque<Awaiting>,
    frames: mpsc::Sender<Bytes>,
    /// Why the connection has ended.
    ended: Option<String>,
}

struct Awaiting {
    number: u64,
    correlation_id: i32,
    what: String,
    answer: oneshot::Sender<Result<BytesMut, ClientError>>,
    _room: OwnedSemaphorePermit,
}

/// A request whose frame is in the queue.
pub(crate) struct Pending<T> {
    shared: Arc<Shared>,
    what: String,
    version: i16,
    answer: oneshot::Receiver<Result<BytesMut, ClientError>>,
    response: std::marker::PhantomData<fn() -> T>,
}

impl Connection {
    /// Connects and agrees on versions. Errors are `NotSent`: nothing of the caller's was sent yet.
    pub(crate) async fn open(
        env: &Env,
        address: &str,
        client_id: &str,
        answer_limit: Duration,
    ) -> Result<Self, ClientError> {
        let what = "connect";
        let stream = match env.timeout(CONNECT_LIMIT, env.network().connect(address)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(not_sent(what, address, error)),
            None => return Err(not_sent(what, address, io::Error::from(io::ErrorKind::TimedOut))),
        };
        let (frames, queue) = mpsc::channel(IN_FLIGHT_MAX);
        let state =
            State { next_correlation_id: 0, started: 0, begun: 0, awaiting: VecDeque::new(), frames, ended: None };
        let shared = Arc::new(Shared {
            env: env.clone(),
            address: address.to_owned(),
            client_id: client_id.to_owned(),
            answer_limit,
            room: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            state: Mutex::new(state),
        });
        let (reader, writer) = tokio::io::split(stream);
        let tasks = [
            env.spawn("client-write", Arc::clone(&shared).write(writer, queue)),
            env.spawn("client-read", Arc::clone(&shared).read(reader)),
        ];
        let mut connection = Self { shared, versions: Versions::unknown(), _tasks: tasks };
        connection.versions = connection.negotiate().await.map_err(|error| match error {
            // The caller's own request was never begun, whatever became of the negotiation.
            ClientError::NoAnswer { reason, .. } => not_sent(what, address, io::Error::other(reason)),
            other => other,
        })?;
        Ok(connection)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.shared.state.lock().ended.is_some()
    }

    /// The version to use for `R`: the highest that both sides speak, at most `at_most`.
    pub(crate) fn version<R: Request>(&self, what: &str, at_most: i16) -> Result<i16, ClientError> {
        self.versions.choose::<R>(at_most).map_err(|theirs| ClientError::NoCommonVersion {
            what: what.to_owned(),
            address: self.shared.address.clone(),
            key: R::KEY,
            theirs,
            ours: versions::ours::<R>(at_most).to_string(),
        })
    }

    /// Queues a request; on return its place in the order is fixed. Waits while [`IN_FLIGHT_MAX`] are unanswered.
    pub(crate) async fn start<R: Request>(
        &self,
        what: &str,
        request: &R,
        version: i16,
    ) -> Result<Pending<R::Response>, ClientError> {
        let room = Arc::clone(&self.shared.room).acquire_owned().await.expect("the semaphore is never closed");
        let (sender, answer) = oneshot::channel();
        self.shared.enqueue(what, request, version, sender, room)?;
        Ok(Pending {
            shared: Arc::clone(&self.shared),
            what: what.to_owned(),
            version,
            answer,
            response: std::marker::PhantomData,
        })
    }

    /// Asks for the broker's versions in our newest form; a broker that does not know that form says which it knows.
    async fn negotiate(&self) -> Result<Versions, ClientError> {
        let what = "api versions";
        let mut version = versions::ours::<ApiVersionsRequest>(i16::MAX).max;
        loop {
            let request = ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("forebay-client"))
                .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
            let pending = self.start(what, &request, version).await?;
            let body = pending.body().await?;
            // In every version the error code follows the correlation id, and "unsupported version" is answered in version 0.
            let code = body.get(4..6).map(|code| i16::from_be_bytes([code[0], code[1]]));
            let unsupported = code == Some(ErrorCode::UnsupportedVersion as i16);
            let spoken = if unsupported { 0 } else { version };
            let (_, response) = decode_response::<ApiVersionsResponse>(body.freeze(), spoken)
                .map_err(|error| self.shared.malformed(what, &error.to_string()))?;
            if !unsupported {
                return match response.error_code {
                    0 => Ok(Versions::of(&response)),
                    code => Err(self.shared.malformed(what, &format!("error code {code}"))),
                };
            }
            let theirs = response.api_keys.iter().find(|key| key.api_key == ApiVersionsRequest::KEY);
            let next = theirs.map_or(0, |key| key.max_version);
            if next >= version {
                return Err(self.shared.malformed(what, &format!("refuses version {version} and offers {next}")));
            }
            version = next.max(0);
        }
    }
}

impl<T: Decodable + HeaderVersion> Pending<T> {
    /// The answer. Errors: `NotSent`, `NoAnswer`, `Malformed`.
    pub(crate) async fn answer(self) -> Result<T, ClientError> {
        let (shared, what, version) = (Arc::clone(&self.shared), self.what.clone(), self.version);
        let body = self.body().await?;
        match decode_response(body.freeze(), version) {
            Ok((_, response)) => Ok(response),
            Err(error) => Err(shared.malformed(&what, &error.to_string())),
        }
    }

    /// The answer as a frame without its size.
    async fn body(self) -> Result<BytesMut, ClientError> {
        let Self { shared, what, answer, .. } = self;
        let env = shared.env.clone();
        match env.timeout(shared.answer_limit, answer).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(shared.no_answer(&what, "the connection was dropped")),
            None => {
                let reason = format!("nothing within {} ms", shared.answer_limit.as_millis());
                shared.end(&reason);
                Err(shared.no_answer(&what, &reason))
            }
        }
    }
}

impl Shared {
    fn enqueue<R: Request>(
        &self,
        what: &str,
        request: &R,
        version: i16,
        answer: oneshot::Sender<Result<BytesMut, ClientError>>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), ClientError> {
        let correlation_id = {
            let mut state = self.state.lock();
            let id = state.next_correlation_id;
            state.next_correlation_id = id.wrapping_add(1);
            id
        };
        // Encoding copies the records, so it happens outside the lock; ids only have to match, not to grow.
        let frame = encode_request(correlation_id, Some(&self.client_id), version, request)
            .map_err(|error| ClientError::Unencodable { what: what.to_owned(), reason: error.to_string() })?;
        let mut state = self.state.lock();
        if let Some(reason) = &state.ended {
            return Err(not_sent(what, &self.address, io::Error::other(reason.clone())));
        }
        // The queue has a place for every permit; only a writer that has ended can refuse.
        if state.frames.try_send(frame.freeze()).is_err() {
            return Err(not_sent(what, &self.address, io::Error::from(io::ErrorKind::BrokenPipe)));
        }
        let number = state.started;
        state.started += 1;
        state.awaiting.push_back(Awaiting { number, correlation_id, what: what.to_owned(), answer, _room: room });
        Ok(())
    }

    async fn write(self: Arc<Self>, mut socket: WriteHalf<Box<dyn Stream>>, mut queue: mpsc::Receiver<Bytes>) {
        while let Some(frame) = queue.recv().await {
            {
                let mut state = self.state.lock();
                if state.ended.is_some() {
                    return;
                }
                state.begun += 1;
            }
            let written = async {
                socket.write_all(&frame).await?;
                socket.flush().await
            };
            if let Err(error) = written.await {
                return self.end(&format!("write failed: {error}"));
            }
        }
    }

    async fn read(self: Arc<Self>, mut socket: ReadHalf<Box<dyn Stream>>) {
        let mut buffer = BytesMut::with_capacity(READ_BUFFER_SIZE);
        let reason = loop {
            match read_frame(&mut socket, &mut buffer, RESPONSE_SIZE_MAX).await {
                Ok(Some(frame)) => {
                    if let Err(reason) = self.answered(frame) {
                        break reason;
                    }
                }
                Ok(None) => break "the broker closed the connection".to_owned(),
                Err(error) => break format!("read failed: {error}"),
            }
        };
        self.end(&reason);
    }

    /// Hands an answer to the oldest request.
    fn answered(&self, frame: BytesMut) -> Result<(), String> {
        let id = peek_correlation_id(&frame).map_err(|error| error.to_string())?;
        let awaiting = {
            let mut state = self.state.lock();
            match state.awaiting.pop_front() {
                Some(awaiting) => awaiting,
                None => return Err(format!("an answer to nothing (correlation id {id})")),
            }
        };
        if awaiting.correlation_id != id {
            let reason = format!("answers out of order: correlation id {id} in place of {}", awaiting.correlation_id);
            // Its own answer is lost like those behind it.
            let _ = awaiting.answer.send(Err(self.no_answer(&awaiting.what, &reason)));
            return Err(reason);
        }
        // The caller may have gone: the answer is forgotten.
        let _ = awaiting.answer.send(Ok(frame));
        Ok(())
    }

    /// Ends the connection: whoever waits is told, nobody new is let in. The first reason stays.
    fn end(&self, reason: &str) {
        let (awaiting, begun, reason) = {
            let mut state = self.state.lock();
            let reason = state.ended.get_or_insert_with(|| reason.to_owned()).clone();
            (std::mem::take(&mut state.awaiting), state.begun, reason)
        };
        for request in awaiting {
            let error = if request.number < begun {
                self.no_answer(&request.what, &reason)
            } else {
                not_sent(&request.what, &self.address, io::Error::other(reason.clone()))
            };
            let _ = request.answer.send(Err(error));
        }
    }

    fn no_answer(&self, what: &str, reason: &str) -> ClientError {
        ClientError::NoAnswer { what: what.to_owned(), address: self.address.clone(), reason: reason.to_owned() }
    }

    fn malformed(&self, what: &str, reason: &str) -> ClientError {
        ClientError::Malformed { what: what.to_owned(), address: self.address.clone(), reason: reason.to_owned() }
    }
}

fn not_sent(what: &str, address: &str, reason: io::Error) -> ClientError {
    ClientError::NotSent { what: what.to_owned(), address: address.to_owned(), reason: Arc::new(reason) }
}

/// The connections of one role, by address; one per broker.
pub(crate) struct Pool {
    env: Env,
    client_id: String,
    answer_limit: Duration,
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
}

impl Pool {
    pub(crate) fn new(env: Env, client_id: String, answer_limit: Duration) -> Self {
        Self { env, client_id, answer_limit, connections: Mutex::new(BTreeMap::new()) }
    }

    /// The connection to `address`, opened where there is none.
    pub(crate) async fn get(&self, address: &str) -> Result<Arc<Connection>, ClientError> {
        let open = self.connections.lock().get(address).filter(|c| !c.is_ended()).cloned();
        if let Some(connection) = open {
            return Ok(connection);
        }
        let opened = Connection::open(&self.env, address, &self.client_id, self.answer_limit).await?;
        // Two callers may have opened at once: both must use one, or a producer's batches could overtake each other.
        let mut connections = self.connections.lock();
        if let Some(other) = connections.get(address).filter(|c| !c.is_ended()) {
            return Ok(Arc::clone(other));
        }
        let opened = Arc::new(opened);
        connections.insert(address.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }
}
