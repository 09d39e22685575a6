//! The producer's one task: owns every lane, sends what may leave, acts on what is answered.
//!
//! Owns: which batches share a request, leaders, epochs of an idempotent producer, when a flush is done. Leaves to
//! others: the order within a partition (`lane`), transactions (`transaction`).
//!
//! Invariants:
//! 1. Only this task touches a lane; it waits for one event, applies it without I/O, then does the I/O that follows.
//! 2. In a transaction the first batch given up closes the producer: whatever waits fails, nothing new leaves, until
//!    the transaction is aborted and a new epoch given ([`Command::Renew`]).
//! 3. A fenced producer sends nothing any more.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_env::Instant;
use forebay_types::ProducerEpoch;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::ProduceResponse;
use forebay_wire::kafka::messages::produce_response::PartitionProduceResponse;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::lane::{Batch, Lane, Verdict};
use super::{Identity, ProducerConfig, ack, init_producer_id, missing, produce_request, refusal};
use crate::error::{is_retriable, is_stale_leader};
use crate::kafka::{Partition, code};
use crate::{Client, ClientError, Kind, Outcome};

pub(super) enum Command {
    Send(Partition, Batch),
    /// Answered once nothing is on its way, with the first failure.
    Flush(oneshot::Sender<Result<(), ClientError>>),
    /// Gives up what waits; answered once nothing is in flight, with whether another epoch is needed to go on.
    Discard(oneshot::Sender<bool>),
    /// After an abort: a new epoch, every sequence from 0.
    Renew(Identity),
}

/// Batches of one request: where they belong, their numbers.
type Sent = Vec<(Partition, u64)>;
type Answer = (Sent, Result<ProduceResponse, ClientError>);

pub(super) struct Sender {
    client: Client,
    config: ProducerConfig,
    identity: Identity,
    commands: mpsc::Receiver<Command>,
    lanes: BTreeMap<Partition, Lane>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    flushes: Vec<oneshot::Sender<Result<(), ClientError>>>,
    discards: Vec<oneshot::Sender<bool>>,
    /// The first failure since the last flush, or since the transaction began.
    failed: Option<ClientError>,
    /// Fenced: for good.
    fenced: Option<ClientError>,
}

impl Sender {
    pub(super) fn new(
        client: Client,
        config: ProducerConfig,
        identity: Identity,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            client,
            config,
            identity,
            commands,
            lanes: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            flushes: Vec::new(),
            discards: Vec::new(),
            failed: None,
            fenced: None,
        }
    }

    /// Until the producer is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.send_all().await;
            self.tell_waiters();
            let wake = self.lanes.values().filter_map(Lane::wakes_at).min();
            let env = self.client.env().clone();
            tokio::select! {
                biased;
                Some((sent, result)) = self.answers.next(), if !self.answers.is_empty() => self.answered(&sent, result),
                command = self.commands.recv() => match command {
                    Some(command) => self.commanded(command),
                    None => return,
                },
                () = sleep_until(&env, wake), if wake.is_some() => {}
            }
        }
    }

    fn transactional(&self) -> bool {
        self.config.transactional_id.is_some()
    }

    /// Why nothing may leave now, if so.
    fn closed(&self) -> Option<ClientError> {
        if let Some(fenced) = &self.fenced {
            return Some(fenced.clone());
        }
        let cause = self.failed.clone().filter(|_| self.transactional())?;
        Some(ClientError::MustAbort { what: "produce".to_owned(), cause: Box::new(cause) })
    }

    fn commanded(&mut self, command: Command) {
        match command {
            Command::Send(partition, batch) => {
                if let Some(error) = self.closed() {
                    return batch.finish(Err(error));
                }
                let epoch = self.identity.epoch;
                self.lanes.entry(partition).or_insert_with(|| Lane::new(epoch)).push(batch);
            }
            Command::Flush(done) => self.flushes.push(done),
            Command::Discard(done) => {
                let error = ClientError::Misuse { what: "produce".to_owned(), reason: "the transaction was aborted" };
                for lane in self.lanes.values_mut() {
                    lane.fail_waiting(&error);
                }
                self.discards.push(done);
            }
            Command::Renew(identity) => {
                assert!(self.lanes.values().all(Lane::is_empty), "an epoch is renewed when nothing is on its way");
                self.identity = identity;
                self.lanes.clear();
                self.failed = None;
            }
        }
    }

    fn tell_waiters(&mut self) {
        if !self.discards.is_empty() && self.lanes.values().all(Lane::is_settled) {
            // What came back from flight while the discard waited is not tried again.
            let error = ClientError::Misuse { what: "produce".to_owned(), reason: "the transaction was aborted" };
            for lane in self.lanes.values_mut() {
                lane.fail_waiting(&error);
            }
            let spent = self.failed.is_some() || self.lanes.values().any(Lane::has_gap);
            for done in self.discards.drain(..) {
                let _ = done.send(spent);
            }
        }
        if !self.flushes.is_empty() && self.lanes.values().all(Lane::is_empty) {
            let failed = if self.transactional() { self.failed.clone() } else { self.failed.take() };
            let failed = self.fenced.clone().or(failed);
            for done in self.flushes.drain(..) {
                let _ = done.send(failed.clone().map_or(Ok(()), Err));
            }
        }
    }

    /// Sends until no lane has a batch that may leave.
    async fn send_all(&mut self) {
        loop {
            self.renew_epochs().await;
            if let Some(error) = self.closed() {
                for lane in self.lanes.values_mut() {
                    lane.fail_waiting(&error);
                }
                return;
            }
            let now = self.client.env().monotonic();
            let ready = self.ready(now);
            let Some(ready) = ready else { continue };
            if ready.is_empty() || !self.discards.is_empty() {
                return;
            }
            let mut by_node: BTreeMap<i32, Vec<Partition>> = BTreeMap::new();
            let mut leaderless = BTreeSet::new();
            for partition in ready {
                match self.client.cached_leader(&partition) {
                    Some(leader) => by_node.entry(leader.node).or_default().push(partition),
                    None => {
                        leaderless.insert(partition.topic);
                    }
                }
            }
            for (node, partitions) in by_node {
                self.send(node, partitions).await;
            }
            if !leaderless.is_empty() {
                self.find_leaders(leaderless).await;
            }
        }
    }

    /// Partitions with a batch that may leave; `None` where a batch ran out of time, which may change everything.
    fn ready(&mut self, now: Instant) -> Option<Vec<Partition>> {
        let limit = self.config.delivery_deadline;
        let mut expired = None;
        for lane in self.lanes.values_mut() {
            expired = expired.or(lane.expire(now, limit));
        }
        if let Some(error) = expired {
            self.failed.get_or_insert(error);
            return None;
        }
        let ready = self.lanes.iter().filter(|(_, lane)| lane.may_send(now));
        Some(ready.map(|(partition, _)| partition.clone()).collect())
    }

    async fn find_leaders(&mut self, topics: BTreeSet<forebay_types::TopicName>) {
        let asked: Vec<_> = topics.iter().cloned().collect();
        if let Err(error) = self.client.refresh(&asked).await {
            tracing::debug!(%error, "no metadata for the producer");
        }
        let env = self.client.env().clone();
        for (partition, lane) in &mut self.lanes {
            if topics.contains(&partition.topic) && self.client.cached_leader(partition).is_none() {
                lane.hold(&env);
            }
        }
    }

    /// One request to one node, with one batch of each partition.
    async fn send(&mut self, node: i32, partitions: Vec<Partition>) {
        let (codec, transactional) = (self.config.codec, self.transactional());
        let mut sent: Sent = Vec::new();
        let mut batches: Vec<Bytes> = Vec::new();
        for partition in partitions {
            let lane = self.lanes.get_mut(&partition).expect("a ready partition has a lane");
            let Some((number, bytes)) = lane.take_up(self.identity.id, codec, transactional) else { continue };
            sent.push((partition, number));
            batches.push(bytes);
        }
        let request = produce_request(
            self.config.transactional_id.as_deref(),
            self.client.config().answer_limit,
            sent.iter().map(|(partition, _)| partition).zip(batches),
        );
        let started = async {
            let connection = self.client.connect(node).await?;
            let version = connection.version::<forebay_wire::kafka::messages::ProduceRequest>("produce", i16::MAX)?;
            connection.start("produce", &request, version).await
        };
        match started.await {
            Ok(pending) => self.answers.push(Box::pin(async move { (sent, pending.answer().await) })),
            Err(error) => self.answered(&sent, Err(error)),
        }
    }

    fn answered(&mut self, sent: &Sent, result: Result<ProduceResponse, ClientError>) {
        match result {
            Err(error) => {
                for (partition, number) in sent {
                    self.client.forget_topic(&partition.topic);
                    let verdict = match error.kind() {
                        Kind::Retry => Verdict::Again(error.outcome()),
                        _ => Verdict::Failed(error.clone()),
                    };
                    self.settle(partition, *number, verdict);
                }
            }
            Ok(response) => {
                let mut found: BTreeMap<(String, i32), PartitionProduceResponse> = BTreeMap::new();
                for topic in response.responses {
                    for answer in topic.partition_responses {
                        found.insert((topic.name.to_string(), answer.index), answer);
                    }
                }
                for (partition, number) in sent {
                    let key = (partition.topic.as_str().to_owned(), partition.index.get());
                    self.judge(partition, *number, found.get(&key));
                }
            }
        }
    }

    /// Decides what the broker's answer means for one batch, as Kafka's `TransactionManager.canRetry` does.
    fn judge(&mut self, partition: &Partition, number: u64, found: Option<&PartitionProduceResponse>) {
        let what = format!("produce to {partition}");
        let Some(lane) = self.lanes.get_mut(partition) else { return };
        let Some(batch) = lane.in_flight(number) else { return };
        let Some(found) = found else {
            return self.settle(partition, number, Verdict::Failed(missing(&what, partition)));
        };
        let verdict = match code(found.error_code) {
            ErrorCode::None => {
                let count = u32::try_from(batch.records.len()).expect("a batch within the buffer");
                match ack(&what, partition.clone(), found, count, batch.crc()) {
                    Ok(ack) => Verdict::Done(ack),
                    Err(error) => Verdict::Failed(error),
                }
            }
            refused @ (ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId) => {
                if !lane.is_oldest(number) {
                    // An earlier batch is missing there: in order, both will fit.
                    Verdict::Again(Outcome::DidNotHappen)
                } else if self.config.transactional_id.is_none() && !batch.unsure {
                    // The broker has forgotten this producer: from 0 under a new epoch, as Kafka's client does.
                    let env = self.client.env().clone();
                    return lane.renumber(&env, number);
                } else {
                    Verdict::Failed(refusal(&what, refused, found))
                }
            }
            refused if is_retriable(refused) => {
                if is_stale_leader(refused) {
                    self.client.forget_topic(&partition.topic);
                }
                Verdict::Again(ClientError::refused(&what, refused).outcome())
            }
            refused => Verdict::Failed(refusal(&what, refused, found)),
        };
        self.settle(partition, number, verdict);
    }

    fn settle(&mut self, partition: &Partition, number: u64, verdict: Verdict) {
        let env = self.client.env().clone();
        let Some(lane) = self.lanes.get_mut(partition) else { return };
        let Some(error) = lane.answered(&env, number, verdict) else { return };
        if error.kind() == Kind::Fenced {
            self.fenced.get_or_insert(error.clone());
        }
        self.failed.get_or_insert(error);
    }

    /// Gives lanes that lost a batch a new epoch: one more than any so far, or a new id after the last. In a
    /// transaction the coordinator does that, after the abort.
    async fn renew_epochs(&mut self) {
        if self.transactional() || self.fenced.is_some() {
            return;
        }
        let needy: Vec<_> = self.lanes.iter().filter(|(_, l)| l.needs_epoch()).map(|(p, _)| p.clone()).collect();
        for partition in needy {
            let Some(epoch) = self.next_epoch().await else { return };
            let lane = self.lanes.get_mut(&partition).expect("just seen");
            if let Some(error) = lane.begin_epoch(epoch) {
                self.failed.get_or_insert(error);
            }
        }
    }

    async fn next_epoch(&mut self) -> Option<ProducerEpoch> {
        if let Some(epoch) = self.identity.epoch.next() {
            self.identity.epoch = epoch;
            return Some(epoch);
        }
        // A new id is new to every lane: those in flight must come back first.
        if !self.lanes.values().all(Lane::is_settled) {
            return None;
        }
        match init_producer_id(&self.client, &self.config, None).await {
            Ok(identity) => {
                self.identity = identity;
                for lane in self.lanes.values_mut() {
                    if let Some(error) = lane.begin_epoch(identity.epoch) {
                        self.failed.get_or_insert(error);
                    }
                }
                Some(identity.epoch)
            }
            Err(error) => {
                self.fenced.get_or_insert(error);
                None
            }
        }
    }
}

async fn sleep_until(env: &forebay_env::Env, at: Option<Instant>) {
    if let Some(at) = at {
        env.sleep_until(at).await;
    }
}
