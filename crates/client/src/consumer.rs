//! A consumer of partitions that its owner assigns: fetch, step over what must not be seen, keep the position.
//!
//! Owns: positions, isolation, aborted transactions, decompression. Leaves to others: groups (`group`), committed
//! offsets (`admin`).
//!
//! Invariants:
//! 1. Records of a partition come in offset order, each once, none below the position; the position steps over control
//!    batches, aborted records and compaction's gaps, so it reaches the end even where the end holds no record.
//! 2. With [`Isolation::ReadCommitted`] a record of an aborted transaction is never returned; the broker never sends what
//!    lies at or past the last stable offset.
//! 3. Every batch's checksum is checked before a record of it is returned.
//!
//! Cancel safety: a dropped [`Consumer::poll`] loses nothing; positions move only with what it returns.

mod decode;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use forebay_types::{LeaderEpoch, Offset, ProducerId, Timestamp, TopicName};
use forebay_wire::ErrorCode;
use forebay_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use forebay_wire::kafka::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use forebay_wire::kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use forebay_wire::kafka::messages::{self, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};
use futures::future::join_all;

use crate::cluster::{Leader, Repeat, Target, ask, pause_after, retriable};
use crate::error::is_stale_leader;
use crate::kafka::{Partition, by_topic, code, offset, wire_topic};
use crate::{Client, ClientError, Kind, PartitionOffset};

/// The last fetch version that names topics; later ones send ids.
const NAMED_VERSION_MAX: i16 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn raw(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub isolation: Isolation,
    /// How long the broker holds a fetch that has nothing to answer.
    pub wait_max: Duration,
    /// Bytes of one answer, soft: the first batch always comes whole.
    pub fetch_size_bytes_max: u32,
    /// Bytes of one partition in one answer, soft likewise.
    pub partition_size_bytes_max: u32,
    /// Where to go on in a partition whose position is out of range (Kafka's `auto.offset.reset`); an error where `None`.
    pub out_of_range: Option<StartAt>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            wait_max: Duration::from_millis(500),
            fetch_size_bytes_max: 16 << 20,
            partition_size_bytes_max: 1 << 20,
            out_of_range: None,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    /// What is appended from now on; with read-committed, from the last stable offset on.
    Latest,
    Offset(Offset),
    /// The first record with this timestamp or a later one; the end where there is none.
    Timestamp(Timestamp),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRecord {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The idempotent producer that wrote it.
    pub producer: Option<ProducerId>,
    /// The checksum of the batch it came in.
    pub batch_crc: u32,
}

/// What one poll found in one partition. `records` may be empty where only the position moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub partition: Partition,
    pub records: Vec<FetchedRecord>,
    /// The position after these records: where the next poll goes on.
    pub next_offset: Offset,
    pub log_start_offset: Option<Offset>,
    pub high_watermark: Option<Offset>,
    pub last_stable_offset: Option<Offset>,
}

pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    assigned: BTreeMap<Partition, Position>,
    /// Polls in a row that met an error worth another attempt.
    failures: u32,
    failing_since: Option<forebay_env::Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Position {
    /// Looked up at the next poll.
    Unresolved(StartAt),
    At(Offset),
}

impl Consumer {
    pub fn new(client: &Client, config: ConsumerConfig) -> Self {
        let client = client.with_own_connections();
        Self { client, config, assigned: BTreeMap::new(), failures: 0, failing_since: None }
    }

    /// Reads a partition from `start` on, anew where it was assigned before.
    pub fn assign(&mut self, partition: Partition, start: StartAt) {
        let position = match start {
            StartAt::Offset(offset) => Position::At(offset),
            other => Position::Unresolved(other),
        };
        self.assigned.insert(partition, position);
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, partition: &Partition) {
        self.assigned.remove(partition);
    }

    /// The offset of the next record to read; `None` before the first poll has found where to begin.
    pub fn position(&self, partition: &Partition) -> Option<Offset> {
        match self.assigned.get(partition)? {
            Position::At(offset) => Some(*offset),
            Position::Unresolved(_) => None,
        }
    }

    /// All positions known, for a commit.
    pub fn positions(&self) -> Vec<(Partition, Offset)> {
        let known = self.assigned.iter().filter_map(|(partition, position)| match position {
            Position::At(offset) => Some((partition.clone(), *offset)),
            Position::Unresolved(_) => None,
        });
        known.collect()
    }

    /// The next records of all assigned partitions: one fetch to each leader. Returns nothing where nothing came within
    /// the wait, or where a leader was not to be found this time.
    ///
    /// # Errors
    /// A code that no repeat will change, OFFSET_OUT_OF_RANGE among them where the configuration does not say where to go
    /// on; records that are corrupt, here or at the broker; or [`ClientError::GaveUp`] after failing for the client's
    /// deadline. What other partitions gave comes first: an error of one is told by the poll that has nothing else.
    pub async fn poll(&mut self) -> Result<Vec<Fetched>, ClientError> {
        match self.try_poll().await {
            Ok((fetched, None)) => {
                self.failures = 0;
                self.failing_since = None;
                Ok(fetched)
            }
            // Some leaders answered: what came counts, the rest is tried again with the next poll.
            Ok((fetched, Some(last))) => {
                self.failed(last).await?;
                Ok(fetched)
            }
            Err(error) if error.kind() == Kind::Retry => {
                self.failed(error).await?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn failed(&mut self, last: ClientError) -> Result<(), ClientError> {
        let env = self.client.env();
        let now = env.monotonic();
        let after = now - *self.failing_since.get_or_insert(now);
        if after >= self.client.config().deadline {
            let outcome = last.outcome();
            return Err(ClientError::GaveUp { after, outcome, last: Box::new(last) });
        }
        env.sleep(pause_after(env, self.failures)).await;
        self.failures += 1;
        Ok(())
    }

    async fn try_poll(&mut self) -> Result<(Vec<Fetched>, Option<ClientError>), ClientError> {
        self.resolve().await?;
        let mut by_node: BTreeMap<i32, Vec<(Partition, Offset, Leader)>> = BTreeMap::new();
        for (partition, offset) in self.positions() {
            let leader = self.client.leader(&partition).await?;
            let leader = leader.ok_or_else(|| {
                ClientError::refused(format!("fetch from {partition}"), ErrorCode::LeaderNotAvailable)
            })?;
            by_node.entry(leader.node).or_default().push((partition, offset, leader));
        }
        let fetches = by_node.iter().map(|(node, wanted)| self.fetch(*node, wanted));
        let mut fetched = Vec::new();
        let mut failures = Failures::default();
        let answers = join_all(fetches).await;
        for (answer, wanted) in answers.into_iter().zip(by_node.values()) {
            match answer {
                Ok(response) => self.take(response, wanted, &mut fetched, &mut failures),
                Err(error) => {
                    if error.kind() == Kind::Retry {
                        for (partition, ..) in wanted {
                            self.client.forget_topic(&partition.topic);
                        }
                    }
                    failures.add(error);
                }
            }
        }
        let Failures { again: failed, refused, out_of_range } = failures;
        if let Some(error) = refused.filter(|_| fetched.is_empty()) {
            return Err(error);
        }
        // Only now do positions move: whatever failed above is fetched again.
        for one in &fetched {
            self.assigned.insert(one.partition.clone(), Position::At(one.next_offset));
        }
        for (partition, start) in out_of_range {
            self.assign(partition, start);
        }
        Ok((fetched, failed))
    }

    /// Finds the offsets of partitions that begin at an end or at a time.
    async fn resolve(&mut self) -> Result<(), ClientError> {
        let unresolved: Vec<_> = self
            .assigned
            .iter()
            .filter_map(|(partition, position)| match position {
                Position::Unresolved(start) => Some((partition.clone(), *start)),
                Position::At(_) => None,
            })
            .collect();
        for (partition, start) in unresolved {
            let isolation = self.config.isolation;
            let found = match start {
                StartAt::Offset(offset) => offset,
                StartAt::Earliest => required(&partition, list_offset(&self.client, &partition, -2, isolation).await?)?,
                StartAt::Latest => required(&partition, list_offset(&self.client, &partition, -1, isolation).await?)?,
                StartAt::Timestamp(at) => {
                    // The end first: a record that arrives between the two questions is not skipped.
                    let end = required(&partition, list_offset(&self.client, &partition, -1, isolation).await?)?;
                    let at = at.as_millis().max(0);
                    list_offset(&self.client, &partition, at, isolation).await?.map_or(end, |found| found.offset)
                }
            };
            self.assigned.insert(partition, Position::At(found));
        }
        Ok(())
    }

    async fn fetch(&self, node: i32, wanted: &[(Partition, Offset, Leader)]) -> Result<FetchResponse, ClientError> {
        let what = "fetch";
        // Versions from 13 on name topics by id alone; one without an id keeps the whole request on names.
        let ids = wanted.iter().all(|(_, _, leader)| !leader.topic_id.is_nil());
        let at_most = if ids { i16::MAX } else { NAMED_VERSION_MAX };
        let size = |bytes: u32| i32::try_from(bytes).unwrap_or(i32::MAX);
        let build = |version: i16| {
            let all = wanted.iter().map(|(partition, offset, leader)| (partition.clone(), (*offset, *leader)));
            let topics = by_topic(all).into_iter().map(|(topic, partitions)| {
                let id = partitions.first().map_or_else(uuid::Uuid::nil, |(_, (_, leader))| leader.topic_id);
                let partition = |(index, (offset, leader)): (i32, (Offset, Leader))| {
                    let partition = FetchPartition::default()
                        .with_partition(index)
                        .with_fetch_offset(offset.get())
                        .with_partition_max_bytes(size(self.config.partition_size_bytes_max));
                    if version >= 9 { partition.with_current_leader_epoch(leader.epoch) } else { partition }
                };
                let partitions = partitions.into_iter().map(partition).collect();
                let request = FetchTopic::default().with_partitions(partitions);
                if version > NAMED_VERSION_MAX {
                    request.with_topic_id(id)
                } else {
                    request.with_topic(wire_topic(&topic))
                }
            });
            let request = FetchRequest::default()
                .with_max_wait_ms(i32::try_from(self.config.wait_max.as_millis()).unwrap_or(i32::MAX))
                .with_min_bytes(1)
                .with_max_bytes(size(self.config.fetch_size_bytes_max))
                .with_isolation_level(self.config.isolation.raw())
                .with_topics(topics.collect());
            // No fetch session: every request says all it wants.
            if version >= 7 { request.with_session_epoch(-1) } else { request }
        };
        let connection = self.client.connect(node).await?;
        let response = ask(&connection, what, at_most, build).await?;
        match code(response.error_code) {
            ErrorCode::None => Ok(response),
            code => Err(ClientError::refused(what, code)),
        }
    }

    fn take(
        &self,
        response: FetchResponse,
        wanted: &[(Partition, Offset, Leader)],
        fetched: &mut Vec<Fetched>,
        failures: &mut Failures,
    ) {
        for topic in response.responses {
            let Some(name) = self.name_of(&topic) else { continue };
            for data in topic.partitions {
                let asked = wanted.iter().find(|(p, ..)| p.topic == name && p.index.get() == data.partition_index);
                let Some((partition, position, _)) = asked else { continue };
                match (self.take_partition(partition, *position, data), self.config.out_of_range) {
                    (Err(error), Some(start)) if error.code() == Some(ErrorCode::OffsetOutOfRange) => {
                        failures.out_of_range.push((partition.clone(), start));
                    }
                    (Ok(one), _) => fetched.extend(one),
                    (Err(error), _) => {
                        if error.code().is_some_and(is_stale_leader) {
                            self.client.forget_topic(&partition.topic);
                        }
                        failures.add(error);
                    }
                }
            }
        }
    }

    fn name_of(&self, topic: &FetchableTopicResponse) -> Option<TopicName> {
        if topic.topic_id.is_nil() {
            TopicName::new(topic.topic.as_str()).ok()
        } else {
            self.client.topic_of_id(topic.topic_id)
        }
    }

    /// What a partition's part of the answer holds, or `None` where it holds nothing new.
    fn take_partition(
        &self,
        partition: &Partition,
        position: Offset,
        data: PartitionData,
    ) -> Result<Option<Fetched>, ClientError> {
        let what = format!("fetch from {partition} at offset {position}");
        match code(data.error_code) {
            ErrorCode::None => {}
            // Retriable where something is written; what is stored does not mend itself.
            code @ ErrorCode::CorruptMessage => {
                return Err(ClientError::Corrupt {
                    what,
                    reason: format!("the broker cannot read its records ({code})"),
                });
            }
            code => return Err(ClientError::refused(what, code)),
        }
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborted = match self.config.isolation {
            Isolation::ReadCommitted => aborted.iter().map(|a| (a.producer_id.0, a.first_offset)).collect(),
            Isolation::ReadUncommitted => Vec::new(),
        };
        let records = data.records.unwrap_or_default();
        let decoded = decode::decode(&records, position, aborted)
            .map_err(|error| ClientError::Corrupt { what, reason: error.to_string() })?;
        if decoded.next_offset == position {
            return Ok(None);
        }
        Ok(Some(Fetched {
            partition: partition.clone(),
            records: decoded.records,
            next_offset: decoded.next_offset,
            log_start_offset: offset(data.log_start_offset),
            high_watermark: offset(data.high_watermark),
            last_stable_offset: offset(data.last_stable_offset),
        }))
    }
}

/// What went wrong in one round of fetches.
#[derive(Default)]
struct Failures {
    /// May go well the next time: the last one.
    again: Option<ClientError>,
    /// Will not: the first one.
    refused: Option<ClientError>,
    /// Go on elsewhere, as the configuration says.
    out_of_range: Vec<(Partition, StartAt)>,
}

impl Failures {
    fn add(&mut self, error: ClientError) {
        if error.kind() == Kind::Retry {
            self.again = Some(error);
        } else {
            self.refused.get_or_insert(error);
        }
    }
}

/// What ListOffsets says of one partition; `None` where no record fits. `timestamp` may be one of Kafka's sentinels.
pub(crate) async fn list_offset(
    client: &Client,
    partition: &Partition,
    timestamp: i64,
    isolation: Isolation,
) -> Result<Option<PartitionOffset>, ClientError> {
    let what = format!("list offsets of {partition}");
    let build = |version: i16| {
        let one = ListOffsetsPartition::default().with_partition_index(partition.index.get()).with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(wire_topic(&partition.topic)).with_partitions(vec![one]);
        let request = ListOffsetsRequest::default().with_replica_id(messages::BrokerId(-1)).with_topics(vec![topic]);
        if version >= 2 { request.with_isolation_level(isolation.raw()) } else { request }
    };
    let again = |r: &ListOffsetsResponse| {
        retriable(r.topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| partition.error_code)))
    };
    let response = client.call(&what, Target::Leader(partition), Repeat::Harmless, build, again).await?;
    let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let Some(found) = found else {
        let reason = "the answer leaves the partition out".to_owned();
        return Err(ClientError::Malformed { what, address: format!("the leader of {partition}"), reason });
    };
    match code(found.error_code) {
        ErrorCode::None => {
            let timestamp = Some(found.timestamp).filter(|ms| *ms >= 0).map(Timestamp::from_millis);
            let leader_epoch = LeaderEpoch::new(found.leader_epoch).ok();
            Ok(offset(found.offset).map(|offset| PartitionOffset { offset, timestamp, leader_epoch }))
        }
        code => Err(ClientError::refused(what, code)),
    }
}

fn required(partition: &Partition, found: Option<PartitionOffset>) -> Result<Offset, ClientError> {
    found.map(|found| found.offset).ok_or_else(|| ClientError::Malformed {
        what: format!("list offsets of {partition}"),
        address: format!("the leader of {partition}"),
        reason: "an end of the log without an offset".to_owned(),
    })
}
