//! What lookups show: the rows of every durable group, in the form that readers want them.
//!
//! Written by the writer alone, after each group; read by everybody. No lock is held across an await.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use forebay_types::{ClusterId, LogId, Offset, Timestamp, TopicId};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::topics::TopicRow;
use super::{LogSize, TopicsView};
use crate::pins;
use crate::state::{BrokerLife, CommitNumber, ConfigScope, Extent, Key, Pin, PinId, Row, Tables, Upload, WalEpoch};

pub(crate) struct Published {
    cluster: ClusterId,
    topics: TopicsView,
    commits: watch::Sender<CommitNumber>,
    logs: RwLock<Logs>,
    rest: RwLock<Rest>,
}

/// Uploads that are not yet extent rows, and where their ranges are.
#[derive(Default)]
struct Logs {
    uploads: BTreeMap<CommitNumber, Arc<Upload>>,
    objects: BTreeSet<String>,
    by_log: BTreeMap<LogId, Log>,
}

#[derive(Default)]
struct Log {
    indexed_end: Offset,
    indexed_bytes: u64,
    committed_end: Offset,
    /// Upload and index of its range, in offset order.
    unfolded: VecDeque<(CommitNumber, usize)>,
    unfolded_bytes: u64,
}

#[derive(Default)]
struct Rest {
    broker_configs: BTreeMap<ConfigScope, Arc<BTreeMap<String, String>>>,
    pins: BTreeMap<PinId, (Arc<Pin>, Timestamp)>,
    wal_epochs: BTreeMap<BrokerLife, WalEpoch>,
}

/// What memory knows of a log's extents.
pub(super) struct LogLookup {
    /// Extent rows lie below this.
    pub(super) indexed_end: Offset,
    pub(super) unfolded: Vec<Extent>,
}

impl Published {
    pub(crate) fn new(cluster: ClusterId, tables: &Tables) -> Self {
        let published = Self {
            cluster,
            topics: TopicsView::default(),
            commits: watch::Sender::new(tables.commit()),
            logs: RwLock::default(),
            rest: RwLock::default(),
        };
        for id in tables.topics().keys() {
            published.topics.set(*id, TopicRow::of(tables, *id));
        }
        {
            let mut logs = published.logs.write();
            for topic in tables.topics().keys() {
                for (_, partition) in tables.partitions(*topic) {
                    logs.tail(tables, partition.log);
                }
            }
            for (number, upload) in tables.uploads() {
                logs.upload(*number, Some(upload.clone()));
            }
        }
        let mut rest = published.rest.write();
        for id in tables.pins().keys() {
            rest.pin(tables, *id);
        }
        for life in tables.wal_epochs().keys() {
            rest.wal_epoch(tables, *life);
        }
        let brokers = tables.brokers().keys().map(|id| ConfigScope::Broker(*id));
        for scope in brokers.chain([ConfigScope::Cluster]) {
            rest.broker_config(tables, scope);
        }
        drop(rest);
        published
    }

    /// Shows a group that is durable; `tables` hold it.
    pub(crate) fn show(&self, tables: &Tables, rows: &BTreeMap<Key, Option<Row>>) {
        let mut topics: BTreeSet<TopicId> = BTreeSet::new();
        {
            let (mut logs, mut rest) = (self.logs.write(), self.rest.write());
            for (key, row) in rows {
                match key {
                    Key::Topic(id) => drop(topics.insert(*id)),
                    Key::Partition(id) => drop(topics.insert(id.topic)),
                    Key::LogTail(log) => logs.tail(tables, *log),
                    Key::Upload(number) => match row {
                        Some(Row::Upload(upload)) => logs.upload(*number, Some(upload.clone())),
                        _ => logs.upload(*number, None),
                    },
                    Key::BrokerConfig(scope) => rest.broker_config(tables, *scope),
                    Key::Pin(id) => rest.pin(tables, *id),
                    Key::WalEpoch(life) => rest.wal_epoch(tables, *life),
                    Key::Commit
                    | Key::Journal
                    | Key::Cluster
                    | Key::Broker(_)
                    | Key::Snapshots(_)
                    | Key::Extent(_)
                    | Key::Object(_)
                    | Key::Garbage(_) => {}
                }
            }
        }
        for id in topics {
            self.topics.set(id, TopicRow::of(tables, id));
        }
        self.commits.send_replace(tables.commit());
    }

    pub(super) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    pub(super) fn topics(&self) -> TopicsView {
        self.topics.clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<CommitNumber> {
        self.commits.subscribe()
    }

    /// The unfolded extents of a log that end above `from`.
    pub(super) fn extents(&self, log: LogId, from: Offset, limit: usize) -> LogLookup {
        let logs = self.logs.read();
        let Some(held) = logs.by_log.get(&log) else {
            return LogLookup { indexed_end: Offset::ZERO, unfolded: Vec::new() };
        };
        let extents = held.unfolded.iter().map(|(number, index)| {
            let upload = logs.uploads.get(number).expect("a range is indexed while its upload is there");
            Extent::of(upload, &upload.ranges[*index])
        });
        let unfolded = extents.filter(|extent| extent.range.end() > from).take(limit).collect();
        LogLookup { indexed_end: held.indexed_end, unfolded }
    }

    pub(super) fn has_upload_in(&self, object: &str) -> bool {
        self.logs.read().objects.contains(object)
    }

    pub(super) fn log_size(&self, log: LogId) -> LogSize {
        self.logs.read().by_log.get(&log).map_or_else(LogSize::default, |held| LogSize {
            committed_end: held.committed_end,
            bytes: held.indexed_bytes + held.unfolded_bytes,
        })
    }

    pub(super) fn broker_config(&self, scope: ConfigScope) -> Arc<BTreeMap<String, String>> {
        self.rest.read().broker_configs.get(&scope).cloned().unwrap_or_default()
    }

    pub(super) fn pins(&self) -> Vec<(PinId, Arc<Pin>, Timestamp)> {
        self.rest.read().pins.iter().map(|(id, (pin, until))| (*id, Arc::clone(pin), *until)).collect()
    }

    pub(super) fn wal_epochs(&self) -> Vec<(BrokerLife, WalEpoch)> {
        self.rest.read().wal_epochs.iter().map(|(life, epoch)| (*life, epoch.clone())).collect()
    }
}

impl Logs {
    fn tail(&mut self, tables: &Tables, log: LogId) {
        let tail = tables.tail(log);
        if tail == crate::state::LogTail::default() && self.by_log.get(&log).is_some_and(|l| l.unfolded.is_empty()) {
            // The partition is gone, or has nothing yet.
            self.by_log.remove(&log);
            return;
        }
        let held = self.by_log.entry(log).or_default();
        held.indexed_end = tail.indexed_end;
        held.indexed_bytes = tail.bytes;
        held.committed_end = tail.indexed_end.max(held.committed_end);
    }

    /// An upload was committed, or some of it was folded, or all.
    fn upload(&mut self, number: CommitNumber, upload: Option<Upload>) {
        let before = self.uploads.get(&number).cloned();
        match (&before, &upload) {
            (None, Some(upload)) => {
                self.objects.insert(upload.object.clone());
                for (index, range) in upload.ranges.iter().enumerate().skip(count(upload.folded)) {
                    let held = self.by_log.entry(range.log).or_default();
                    held.unfolded.push_back((number, index));
                    held.unfolded_bytes += range.bytes;
                    held.committed_end = range.range.end().max(held.committed_end);
                }
            }
            (Some(before), after) => {
                let folded = after.as_ref().map_or(before.ranges.len(), |after| count(after.folded));
                for range in &before.ranges[count(before.folded)..folded] {
                    let Some(held) = self.by_log.get_mut(&range.log) else { continue };
                    if held.unfolded.front().is_some_and(|(first, _)| *first == number) {
                        held.unfolded.pop_front();
                        held.unfolded_bytes -= range.bytes;
                    }
                    // The log's partition is gone: its ranges were left out as they were folded.
                    if held.unfolded.is_empty() && held.indexed_end == Offset::ZERO {
                        self.by_log.remove(&range.log);
                    }
                }
                if after.is_none() {
                    self.objects.remove(&before.object);
                }
            }
            (None, None) => {}
        }
        match upload {
            Some(upload) => drop(self.uploads.insert(number, Arc::new(upload))),
            None => drop(self.uploads.remove(&number)),
        }
    }
}

fn count(folded: u32) -> usize {
    usize::try_from(folded).expect("a u32 fits")
}

impl Rest {
    fn broker_config(&mut self, tables: &Tables, scope: ConfigScope) {
        let config = tables.broker_config(scope).cloned().unwrap_or_default();
        self.broker_configs.insert(scope, Arc::new(config));
    }

    fn pin(&mut self, tables: &Tables, id: PinId) {
        match (tables.pin(id), tables.cluster()) {
            (Some(pin), Some(cluster)) => {
                self.pins.insert(id, (Arc::new(pin.clone()), pins::live_until(pin, cluster)));
            }
            _ => drop(self.pins.remove(&id)),
        }
    }

    fn wal_epoch(&mut self, tables: &Tables, life: BrokerLife) {
        if let Some(epoch) = tables.wal_epoch(life) {
            self.wal_epochs.insert(life, epoch.clone());
        }
    }
}
