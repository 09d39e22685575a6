//! A store that goes wrong on demand: what S3 and the networks before it have been seen to do, by script or by chance.
//!
//! Owns: when which fault strikes. Each request meets at most one; a scripted one goes before chance.
//! Chance comes from a seed, so one seed and one order of requests give the same faults.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_env::Env;
use forebay_env::simulated::SimRandom;
use forebay_types::Timestamp;
use parking_lot::Mutex;

use crate::{Body, Key, Object, ObjectMeta, Operation, Prefix, Span, Store, StoreError, StoreErrorKind, Version};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused for now (503 SlowDown): nothing is done.
    Unavailable,
    /// Refused until somebody changes something (403): nothing is done.
    Refused,
    /// Done, and the connection is lost before the answer.
    LostAnswer,
    /// Not done, and no answer for [`SILENCE`].
    TimeoutBefore,
    /// Done, and no answer for [`SILENCE`].
    TimeoutAfter,
    /// Done and answered, after this long.
    Slow(Duration),
    /// A create is told that the name is taken, and nothing is done (S3's 409 while another create runs).
    FalseConflict,
    /// A read gives one byte with a bit flipped.
    Corrupt,
}

impl Fault {
    /// A fault that an operation cannot meet leaves it alone.
    fn concerns(self, operation: Operation) -> bool {
        match self {
            Self::FalseConflict => operation == Operation::Create,
            Self::Corrupt => operation == Operation::Read,
            _ => true,
        }
    }
}

/// How long a request that is not answered stays so: longer than anybody should wait.
pub const SILENCE: Duration = Duration::from_mins(2);

/// How many of a thousand requests meet each fault. All together at most a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    pub unavailable: u64,
    pub lost_answer: u64,
    pub timeout_before: u64,
    pub timeout_after: u64,
    pub slow: u64,
    /// A slow request takes up to this long.
    pub slow_max: Duration,
    pub false_conflict: u64,
    pub corrupt: u64,
}

impl FaultRates {
    /// A bad day: one request in ten meets trouble, none of it lies.
    pub const STORMY: Self = Self {
        unavailable: 40,
        lost_answer: 20,
        timeout_before: 5,
        timeout_after: 5,
        slow: 20,
        slow_max: Duration::from_secs(2),
        false_conflict: 10,
        corrupt: 0,
    };
}

struct State {
    random: SimRandom,
    rates: FaultRates,
    script: VecDeque<(Operation, Fault)>,
    /// What every request meets.
    outage: Option<Fault>,
    ignores_conditions: bool,
    requests: u64,
}

/// A store between the caller and `inner` that goes wrong.
pub struct Faulty {
    env: Env,
    inner: Arc<dyn Store>,
    state: Mutex<State>,
}

impl Faulty {
    /// A store that does as `inner` until told otherwise; its chance comes from `env`.
    pub fn new(env: &Env, inner: Arc<dyn Store>) -> Self {
        Self::with_seed(env, inner, env.random_u64())
    }

    pub fn with_seed(env: &Env, inner: Arc<dyn Store>, seed: u64) -> Self {
        let state = State {
            random: SimRandom::new(seed),
            rates: FaultRates::default(),
            script: VecDeque::new(),
            outage: None,
            ignores_conditions: false,
            requests: 0,
        };
        Self { env: env.clone(), inner, state: Mutex::new(state) }
    }

    /// Lets the next request of `operation` that no earlier script names meet `fault`.
    ///
    /// # Panics
    /// Where an operation cannot meet the fault: such a script would test nothing.
    pub fn script(&self, operation: Operation, fault: Fault) {
        assert!(fault.concerns(operation), "{operation} cannot meet {fault:?}");
        self.state.lock().script.push_back((operation, fault));
    }

    /// Whether every scripted fault has struck.
    pub fn script_is_done(&self) -> bool {
        self.state.lock().script.is_empty()
    }

    pub fn set_rates(&self, rates: FaultRates) {
        self.state.lock().rates = rates;
    }

    /// While set, every request is refused as [`Fault::Unavailable`].
    pub fn set_outage(&self, outage: bool) {
        self.state.lock().outage = outage.then_some(Fault::Unavailable);
    }

    /// While set, every request meets [`Fault::Refused`], as after a change of keys.
    pub fn set_refusal(&self, refuses: bool) {
        self.state.lock().outage = refuses.then_some(Fault::Refused);
    }

    /// While set, creates and replaces are done whatever is there, as by a store that does not know their conditions.
    pub fn set_ignores_conditions(&self, ignores: bool) {
        self.state.lock().ignores_conditions = ignores;
    }

    /// Requests that came, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.state.lock().requests
    }

    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state.lock();
        state.requests += 1;
        if state.outage.is_some() {
            return state.outage;
        }
        if let Some(at) = state.script.iter().position(|(scripted, _)| *scripted == operation) {
            return state.script.remove(at).map(|(_, fault)| fault);
        }
        let rates = state.rates;
        if rates == FaultRates::default() {
            return None;
        }
        let slow = Fault::Slow(Duration::from_millis(
            state.random.below(u64::try_from(rates.slow_max.as_millis()).unwrap_or(u64::MAX).saturating_add(1)),
        ));
        let mut chance = state.random.below(1000);
        let shares = [
            (rates.unavailable, Fault::Unavailable),
            (rates.lost_answer, Fault::LostAnswer),
            (rates.timeout_before, Fault::TimeoutBefore),
            (rates.timeout_after, Fault::TimeoutAfter),
            (rates.slow, slow),
            (rates.false_conflict, Fault::FalseConflict),
            (rates.corrupt, Fault::Corrupt),
        ];
        for (share, fault) in shares {
            if chance < share {
                return Some(fault).filter(|fault| fault.concerns(operation));
            }
            chance -= share;
        }
        None
    }

    fn ignores_conditions(&self) -> bool {
        self.state.lock().ignores_conditions
    }

    /// Sends `request` through the fault that waits for it.
    async fn send<T: Send>(
        &self,
        operation: Operation,
        subject: &(impl ToString + Sync),
        request: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let fault = self.next_fault(operation);
        self.strike(fault, operation, subject, request).await
    }

    async fn strike<T: Send>(
        &self,
        fault: Option<Fault>,
        operation: Operation,
        subject: &(impl ToString + Sync),
        request: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let error = |kind, why: &str| Err(StoreError::new(operation, subject, kind).because(why));
        match fault {
            None | Some(Fault::Corrupt) => request.await,
            Some(Fault::Unavailable) => error(StoreErrorKind::DidNotHappen, "503 SlowDown"),
            Some(Fault::Refused) => error(StoreErrorKind::Refused, "403 Forbidden"),
            Some(Fault::FalseConflict) => error(StoreErrorKind::AlreadyExists, "409 Conflict"),
            Some(Fault::LostAnswer) => {
                // Whatever the store said, nobody heard it.
                let _ = request.await;
                error(operation.unanswered(), "the connection was lost before the answer")
            }
            Some(Fault::TimeoutBefore) => {
                self.env.sleep(SILENCE).await;
                error(operation.unanswered(), "no answer")
            }
            Some(Fault::TimeoutAfter) => {
                let _ = request.await;
                self.env.sleep(SILENCE).await;
                error(operation.unanswered(), "no answer")
            }
            Some(Fault::Slow(delay)) => {
                self.env.sleep(delay).await;
                request.await
            }
        }
    }

    /// `bytes` with one bit turned over.
    fn decay(&self, bytes: &Bytes) -> Bytes {
        let state = self.state.lock();
        let mut decayed = bytes.to_vec();
        let at = state.random.below(decayed.len() as u64);
        if let Some(byte) = usize::try_from(at).ok().and_then(|at| decayed.get_mut(at)) {
            *byte ^= 1 << state.random.below(8);
        }
        decayed.into()
    }
}

#[async_trait]
impl Store for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn create(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        let ignores = self.ignores_conditions();
        let done = async { if ignores { self.inner.put(key, body).await } else { self.inner.create(key, body).await } };
        self.send(Operation::Create, key, done).await
    }

    async fn put(&self, key: &Key, body: Body) -> Result<Option<Version>, StoreError> {
        self.send(Operation::Put, key, self.inner.put(key, body)).await
    }

    fn can_replace(&self) -> bool {
        self.inner.can_replace()
    }

    async fn replace(&self, key: &Key, body: Body, expected: &Version) -> Result<Option<Version>, StoreError> {
        let ignores = self.ignores_conditions();
        let done = async {
            if ignores { self.inner.put(key, body).await } else { self.inner.replace(key, body, expected).await }
        };
        self.send(Operation::Replace, key, done).await
    }

    async fn read(&self, key: &Key, span: Span) -> Result<Object, StoreError> {
        let fault = self.next_fault(Operation::Read);
        let mut object = self.strike(fault, Operation::Read, key, self.inner.read(key, span)).await?;
        if fault == Some(Fault::Corrupt) {
            object.bytes = self.decay(&object.bytes);
        }
        Ok(object)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.send(Operation::Head, key, self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        self.send(Operation::List, prefix, self.inner.list(prefix, start_after, limit)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.send(Operation::Delete, key, self.inner.delete(key)).await
    }

    fn now(&self) -> Option<Timestamp> {
        self.inner.now()
    }
}
