//! The client's view of the cluster, and the one loop that every call goes through: find the broker, ask, try again.
//!
//! Owns: bootstrap, cached metadata (brokers, leaders, coordinators), routing, bounded retries. Leaves to others: what
//! is asked (`admin`, `producer`, `consumer`, `group`) and the socket (`connection`).
//!
//! Retries: an attempt is repeated after 20 ms, doubling to one second, half of it drawn at random, until
//! [`ClientConfig::deadline`] has passed since the first. What may have happened is repeated only where the caller says
//! that repeating changes nothing ([`Repeat::Harmless`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Env, Instant};
use forebay_types::TopicName;
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use forebay_wire::kafka::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse};
use forebay_wire::kafka::protocol::Request;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::connection::{Connection, Pool};
use crate::error::{is_retriable, is_stale_leader};
use crate::kafka::{Partition, code, text, wire_topic};
use crate::{ClientError, Outcome};

/// First and longest pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of brokers to begin with, tried in order.
    pub bootstrap: Vec<String>,
    /// Kafka's `client.id`.
    pub client_id: String,
    /// How long one answer may take before its connection is given up (Kafka's `request.timeout.ms`).
    pub answer_limit: Duration,
    /// How long one call may take with all its retries (Kafka's `default.api.timeout.ms`, `delivery.timeout.ms`).
    pub deadline: Duration,
}

impl ClientConfig {
    pub fn new(bootstrap: &str) -> Self {
        Self {
            bootstrap: bootstrap.split(',').map(|address| address.trim().to_owned()).collect(),
            client_id: "forebay".to_owned(),
            answer_limit: Duration::from_secs(30),
            deadline: Duration::from_mins(1),
        }
    }
}

/// A handle on a cluster. Cheap to clone; clones share metadata and connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

struct Shared {
    env: Env,
    config: ClientConfig,
    cluster: Mutex<Cluster>,
}

#[derive(Default)]
struct Cluster {
    brokers: BTreeMap<i32, String>,
    controller: Option<i32>,
    topics: BTreeMap<TopicName, TopicView>,
    coordinators: BTreeMap<(CoordinatorKind, String), i32>,
}

#[derive(Clone, Default)]
struct TopicView {
    id: Uuid,
    leaders: BTreeMap<i32, Leader>,
}

/// Who serves a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: i32,
    pub(crate) epoch: i32,
    pub(crate) topic_id: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CoordinatorKind {
    Group,
    Transaction,
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Any,
    Controller,
    Node(i32),
    Leader(&'a Partition),
    Coordinator(CoordinatorKind, &'a str),
}

/// What doing it twice would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The same as once: reads, and writes that set a state.
    Harmless,
    /// Another thing: repeated only where it did not happen.
    Harmful,
}

impl Client {
    /// Nothing is sent before the first call.
    pub fn new(env: Env, config: ClientConfig) -> Self {
        let pool = Pool::new(env.clone(), config.client_id.clone(), config.answer_limit);
        Self { shared: Arc::new(Shared { env, config, cluster: Mutex::default() }), pool: Arc::new(pool) }
    }

    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// The same cluster over connections of its own. A broker answers a connection's requests in order, so a long poll
    /// or a join would hold up everything behind it.
    pub(crate) fn with_own_connections(&self) -> Self {
        let config = &self.shared.config;
        let pool = Pool::new(self.shared.env.clone(), config.client_id.clone(), config.answer_limit);
        Self { shared: Arc::clone(&self.shared), pool: Arc::new(pool) }
    }

    /// The partitions of a topic, in order; asks the broker where the topic is not known yet.
    pub async fn partitions(&self, topic: &TopicName) -> Result<Vec<Partition>, ClientError> {
        let mut retry = self.retry();
        loop {
            if let Some(view) = self.shared.cluster.lock().topics.get(topic).filter(|view| !view.leaders.is_empty()) {
                let index = |raw: &i32| forebay_types::PartitionIndex::new(*raw).expect("checked when cached");
                return Ok(view
                    .leaders
                    .keys()
                    .map(|raw| Partition { topic: topic.clone(), index: index(raw) })
                    .collect());
            }
            let last = match self.refresh(std::slice::from_ref(topic)).await {
                Ok(()) if self.shared.cluster.lock().topics.contains_key(topic) => continue,
                Ok(()) => ClientError::refused(format!("partitions of {topic}"), ErrorCode::UnknownTopicOrPartition),
                Err(error) => error,
            };
            retry.pause(last).await?;
        }
    }

    /// The leader of a partition, from the cache or from one look-up; `None` where there is none right now.
    pub(crate) async fn leader(&self, partition: &Partition) -> Result<Option<Leader>, ClientError> {
        if let Some(leader) = self.cached_leader(partition) {
            return Ok(Some(leader));
        }
        self.refresh(std::slice::from_ref(&partition.topic)).await?;
        Ok(self.cached_leader(partition))
    }

    pub(crate) fn cached_leader(&self, partition: &Partition) -> Option<Leader> {
        let cluster = self.shared.cluster.lock();
        cluster
            .topics
            .get(&partition.topic)?
            .leaders
            .get(&partition.index.get())
            .copied()
            .filter(|leader| leader.node >= 0)
    }

    /// Forgets the leaders of a topic: an answer showed that they are not what they were.
    pub(crate) fn forget_topic(&self, topic: &TopicName) {
        self.shared.cluster.lock().topics.remove(topic);
    }

    /// The name of a topic id, as far as known.
    pub(crate) fn topic_of_id(&self, id: Uuid) -> Option<TopicName> {
        let cluster = self.shared.cluster.lock();
        cluster.topics.iter().find(|(_, view)| view.id == id).map(|(name, _)| name.clone())
    }

    /// Asks for the metadata of `topics` and puts it in the cache. One attempt over every broker known.
    pub(crate) async fn refresh(&self, topics: &[TopicName]) -> Result<(), ClientError> {
        let asked =
            topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(wire_topic(name)))).collect();
        let request = MetadataRequest::default().with_topics(Some(asked)).with_allow_auto_topic_creation(true);
        let response = self.metadata(&request).await?;
        let mut cluster = self.shared.cluster.lock();
        // A topic that the answer leaves out or refuses has no leader that we know.
        for topic in topics {
            cluster.topics.remove(topic);
        }
        cluster.learn_topics(&response);
        Ok(())
    }

    /// Sends one metadata request to the first broker that answers, and learns the brokers from it.
    pub(crate) async fn metadata(&self, request: &MetadataRequest) -> Result<MetadataResponse, ClientError> {
        let what = "metadata";
        let mut last = None;
        for address in self.addresses() {
            let attempt = async {
                let connection = self.pool.get(&address).await?;
                ask(&connection, what, i16::MAX, |_| request.clone()).await
            };
            match attempt.await {
                Ok(response) => {
                    self.shared.cluster.lock().learn_brokers(&response);
                    return Ok(response);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ClientError::Misuse { what: what.to_owned(), reason: "no bootstrap address is given" }))
    }

    /// Brokers known, in an order that spreads over them, then the bootstrap addresses.
    fn addresses(&self) -> Vec<String> {
        let mut known: Vec<String> = self.shared.cluster.lock().brokers.values().cloned().collect();
        if !known.is_empty() {
            let count = known.len();
            let first = self.shared.env.random_below(count as u64);
            known.rotate_left(usize::try_from(first).expect("below the count"));
        }
        for address in &self.shared.config.bootstrap {
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        known
    }

    /// A connection to a node, whose address is looked up where it is not known.
    pub(crate) async fn connect(&self, node: i32) -> Result<Arc<Connection>, ClientError> {
        let known = self.shared.cluster.lock().brokers.get(&node).cloned();
        let address = if let Some(address) = known {
            address
        } else {
            self.metadata(&MetadataRequest::default().with_topics(Some(Vec::new()))).await?;
            let address = self.shared.cluster.lock().brokers.get(&node).cloned();
            address.ok_or_else(|| ClientError::refused(format!("find broker {node}"), ErrorCode::BrokerNotAvailable))?
        };
        let connection = self.pool.get(&address).await;
        if connection.is_err() {
            // The node may have come back elsewhere: the next attempt looks it up.
            self.shared.cluster.lock().brokers.remove(&node);
        }
        connection
    }

    /// Asks until there is an answer that `again` lets stand, or until the deadline.
    ///
    /// `build` makes the request for the version agreed on. `again` names the code for which a repeat makes sense; any
    /// other answer is returned as it is, its codes unread.
    pub(crate) async fn call<R: Request>(
        &self,
        what: &str,
        target: Target<'_>,
        repeat: Repeat,
        build: impl Fn(i16) -> R,
        again: impl Fn(&R::Response) -> Option<ErrorCode>,
    ) -> Result<R::Response, ClientError> {
        let mut retry = self.retry();
        loop {
            let attempt = async {
                let connection = self.route(what, target).await?;
                ask(&connection, what, i16::MAX, &build).await
            };
            let last = match attempt.await {
                Ok(response) => match again(&response) {
                    None => return Ok(response),
                    Some(code) => ClientError::refused(what, code),
                },
                Err(error) => error,
            };
            let safe = repeat == Repeat::Harmless || last.outcome() == Outcome::DidNotHappen;
            if !safe || last.kind() != crate::Kind::Retry {
                return Err(last);
            }
            self.unlearn(target, &last);
            retry.pause(last).await?;
        }
    }

    async fn route(&self, what: &str, target: Target<'_>) -> Result<Arc<Connection>, ClientError> {
        let node = match target {
            Target::Node(node) => node,
            Target::Leader(partition) => match self.leader(partition).await? {
                Some(leader) => leader.node,
                None => return Err(ClientError::refused(what, ErrorCode::LeaderNotAvailable)),
            },
            Target::Coordinator(kind, key) => self.coordinator(kind, key).await?,
            Target::Any | Target::Controller => {
                let known = {
                    let cluster = self.shared.cluster.lock();
                    let controller = cluster.controller.filter(|node| cluster.brokers.contains_key(node));
                    let any = cluster.brokers.keys().next().copied();
                    if matches!(target, Target::Controller) { controller } else { any }
                };
                if let Some(node) = known {
                    node
                } else {
                    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
                    let response = self.metadata(&request).await?;
                    let any = response.brokers.first().map(|broker| broker.node_id.0);
                    let controller = Some(response.controller_id.0).filter(|node| *node >= 0);
                    let node = if matches!(target, Target::Controller) { controller.or(any) } else { any };
                    node.ok_or_else(|| ClientError::refused(what, ErrorCode::BrokerNotAvailable))?
                }
            }
        };
        self.connect(node).await
    }

    /// The coordinator of a group or transactional id, from the cache or from one look-up.
    async fn coordinator(&self, kind: CoordinatorKind, key: &str) -> Result<i32, ClientError> {
        let cached = self.shared.cluster.lock().coordinators.get(&(kind, key.to_owned())).copied();
        if let Some(node) = cached {
            return Ok(node);
        }
        let what = format!("find the coordinator of {key}");
        let key_type = match kind {
            CoordinatorKind::Group => 0,
            CoordinatorKind::Transaction => 1,
        };
        let build = |version: i16| {
            let request = FindCoordinatorRequest::default();
            let request = if version >= 1 { request.with_key_type(key_type) } else { request };
            if version >= 4 { request.with_coordinator_keys(vec![text(key)]) } else { request.with_key(text(key)) }
        };
        // Any broker knows; a failure is the caller's to repeat.
        let node = self.shared.cluster.lock().brokers.keys().next().copied();
        let connection = match node {
            Some(node) => self.connect(node).await?,
            None => Box::pin(self.route(&what, Target::Any)).await?,
        };
        let response = ask(&connection, &what, i16::MAX, build).await?;
        let (found, node, host, port) = match response.coordinators.into_iter().next() {
            Some(one) => (one.error_code, one.node_id.0, one.host, one.port),
            None => (response.error_code, response.node_id.0, response.host, response.port),
        };
        match code(found) {
            ErrorCode::None => {
                let mut cluster = self.shared.cluster.lock();
                cluster.brokers.insert(node, format!("{host}:{port}"));
                cluster.coordinators.insert((kind, key.to_owned()), node);
                Ok(node)
            }
            code => Err(ClientError::refused(what, code)),
        }
    }

    /// Drops from the cache what an answer showed to be stale.
    fn unlearn(&self, target: Target<'_>, error: &ClientError) {
        let unreachable = matches!(error, ClientError::NotSent { .. } | ClientError::NoAnswer { .. });
        let code = error.code();
        let mut cluster = self.shared.cluster.lock();
        match target {
            Target::Coordinator(kind, key) => {
                let moved = matches!(code, Some(ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable));
                if unreachable || moved {
                    cluster.coordinators.remove(&(kind, key.to_owned()));
                }
            }
            Target::Leader(partition) => {
                if unreachable || code.is_some_and(is_stale_leader) {
                    cluster.topics.remove(&partition.topic);
                }
            }
            Target::Controller => {
                if unreachable || code == Some(ErrorCode::NotController) {
                    cluster.controller = None;
                }
            }
            Target::Any | Target::Node(_) => {}
        }
    }

    pub(crate) fn retry(&self) -> Retry<'_> {
        Retry {
            env: &self.shared.env,
            since: self.shared.env.monotonic(),
            limit: self.shared.config.deadline,
            pause: PAUSE_MIN,
            unsure: false,
        }
    }
}

/// One request, one answer.
pub(crate) async fn ask<R: Request>(
    connection: &Connection,
    what: &str,
    at_most: i16,
    build: impl Fn(i16) -> R,
) -> Result<R::Response, ClientError> {
    let version = connection.version::<R>(what, at_most)?;
    connection.start(what, &build(version), version).await?.answer().await
}

impl Cluster {
    fn learn_brokers(&mut self, response: &MetadataResponse) {
        let address = |b: &forebay_wire::kafka::messages::metadata_response::MetadataResponseBroker| {
            (b.node_id.0, format!("{}:{}", b.host, b.port))
        };
        self.brokers = response.brokers.iter().map(address).collect();
        self.controller = Some(response.controller_id.0).filter(|node| *node >= 0);
    }

    fn learn_topics(&mut self, response: &MetadataResponse) {
        for topic in &response.topics {
            let Some(name) = topic.name.as_ref().and_then(|name| TopicName::new(name.as_str()).ok()) else { continue };
            if topic.error_code != 0 {
                continue;
            }
            let mut view = TopicView { id: topic.topic_id, leaders: BTreeMap::new() };
            for partition in &topic.partitions {
                // A partition without a leader stays in the count of partitions, with a node that nobody is.
                if partition.partition_index >= 0 {
                    let leader =
                        Leader { node: partition.leader_id.0, epoch: partition.leader_epoch, topic_id: topic.topic_id };
                    view.leaders.insert(partition.partition_index, leader);
                }
            }
            self.topics.insert(name, view);
        }
    }
}

/// The pauses between the attempts of one call, and its deadline.
pub(crate) struct Retry<'a> {
    env: &'a Env,
    since: Instant,
    limit: Duration,
    pause: Duration,
    /// Some attempt may have happened.
    unsure: bool,
}

impl Retry<'_> {
    /// Waits before the next attempt, or says that the time is up.
    pub(crate) async fn pause(&mut self, last: ClientError) -> Result<(), ClientError> {
        self.unsure |= last.outcome() == Outcome::MayHaveHappened;
        let spent = self.env.monotonic() - self.since;
        if spent >= self.limit {
            let outcome = if self.unsure { Outcome::MayHaveHappened } else { Outcome::DidNotHappen };
            return Err(ClientError::GaveUp { after: spent, outcome, last: Box::new(last) });
        }
        tracing::debug!(%last, "trying again");
        self.env.sleep(jittered(self.env, self.pause).min(self.limit.saturating_sub(spent))).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Between half of `pause` and all of it, so that clients that failed together do not come back together.
pub(crate) fn jittered(env: &Env, pause: Duration) -> Duration {
    let half = pause / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
    half + Duration::from_micros(env.random_below(span.saturating_add(1)))
}

/// The pause after the `attempt`-th failure in a row, counted from 0.
pub(crate) fn pause_after(env: &Env, attempt: u32) -> Duration {
    jittered(env, PAUSE_MIN.saturating_mul(1 << attempt.min(10)).min(PAUSE_MAX))
}

/// Codes worth another attempt, as [`Client::call`] wants them.
pub(crate) fn retriable(raw: impl Iterator<Item = i16>) -> Option<ErrorCode> {
    crate::kafka::first_code(raw, is_retriable)
}
