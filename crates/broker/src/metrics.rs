//! Metrics as Prometheus reads them, put together when they are asked for.
//!
//! Owns: their names. Leaves to others: the counting, which is done where things happen (D17).
//!
//! Counters of a broker epoch (WAL, cache) begin at zero with each epoch, as Prometheus expects of a restart.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_api::Context;
use forebay_api::counters::{Beyond, OffsetApi};
use forebay_api::sessions::SessionCounts;
use forebay_cache::CacheCounts;
use forebay_env::{Env, OpenMode};
use forebay_store::MeterRow;
use forebay_wal::{HistogramSnapshot, WalMetrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::counters::{ApiRow, Closed};
use crate::status::{Phase, Status};

/// What `show` gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as text.
pub(crate) async fn show(status: &Status) -> String {
    let scrape = Scrape {
        uptime_seconds: status.env.monotonic().duration_since(status.started).as_secs_f64(),
        resident_bytes: resident_bytes(&status.env).await,
        ready: status.phase() == Phase::Ready,
        connections_accepted: status.counters.accepted(),
        connections_refused: status.counters.refused(),
        connections_ended: status.counters.ends().collect(),
        apis: status.counters.rows(),
        store: status.meter().map(|meter| meter.rows()).unwrap_or_default(),
        epoch: epoch(status),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string cannot fail");
    text
}

/// Every number at about one moment.
#[derive(Debug)]
struct Scrape {
    uptime_seconds: f64,
    resident_bytes: Option<u64>,
    ready: bool,
    connections_accepted: u64,
    connections_refused: u64,
    connections_ended: Vec<(Closed, u64)>,
    apis: Vec<ApiRow>,
    store: Vec<MeterRow>,
    epoch: Option<EpochScrape>,
}

/// The numbers of a running broker epoch.
#[derive(Debug)]
struct EpochScrape {
    number: u64,
    topics: u64,
    partitions: u64,
    ack: HistogramSnapshot,
    write: HistogramSnapshot,
    groups: u64,
    entries: u64,
    batch_bytes: u64,
    written_bytes: u64,
    syncs: u64,
    /// `None` where the medium has no end.
    room_bytes: Option<u64>,
    stalled_seconds: f64,
    pending_bytes: u64,
    warm_bytes: u64,
    cache: CacheCounts,
    out_of_range: Vec<(OffsetApi, Beyond, u64)>,
    held_back: u64,
    held_back_seconds: f64,
    request_bytes: u64,
    requests_waited: u64,
    fetch_bytes: u64,
    sessions: SessionCounts,
}

fn epoch(status: &Status) -> Option<EpochScrape> {
    let epoch = status.epoch()?;
    let wal = &epoch.owner.wal;
    let metrics: &WalMetrics = wal.metrics();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let topics = epoch.context.partitions.all();
    let Context { counters, memory, sessions, .. } = &*epoch.context;
    Some(EpochScrape {
        number: epoch.context.life.epoch.get(),
        topics: topics.len() as u64,
        partitions: topics.iter().map(|topic| topic.partitions().count() as u64).sum(),
        ack: metrics.ack_latency.snapshot(),
        write: metrics.write_latency.snapshot(),
        groups: read(&metrics.groups),
        entries: read(&metrics.entries),
        batch_bytes: read(&metrics.batch_bytes),
        written_bytes: read(&metrics.written_bytes),
        syncs: read(&metrics.syncs),
        room_bytes: Some(wal.room()).filter(|room| *room < u64::MAX),
        stalled_seconds: wal.time_stalled(epoch.context.env.monotonic()).as_secs_f64(),
        pending_bytes: epoch.owner.pending_bytes() as u64,
        warm_bytes: epoch.owner.warm_bytes(),
        cache: epoch.owner.cache_counts(),
        out_of_range: counters.offsets_out_of_range().collect(),
        held_back: counters.produces_held_back(),
        held_back_seconds: counters.produce_time_held_back().as_secs_f64(),
        request_bytes: memory.produce.held() + memory.other.held(),
        requests_waited: memory.produce.waits() + memory.other.waits(),
        fetch_bytes: memory.answers.held(),
        sessions: sessions.counts(),
    })
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        out.gauge("forebay_uptime_seconds", "Time since the process started", self.uptime_seconds)?;
        out.gauge("forebay_ready", "1 while clients are served", u64::from(self.ready))?;
        if let Some(bytes) = self.resident_bytes {
            out.gauge("forebay_resident_memory_bytes", "Memory that the process holds", bytes)?;
        }
        self.connections(&mut out)?;
        self.requests(&mut out)?;
        self.store(&mut out)?;
        self.epoch.as_ref().map_or(Ok(()), |epoch| epoch.encode(&mut out))
    }
}

impl Scrape {
    fn connections(&self, out: &mut Out<'_>) -> fmt::Result {
        let ended: u64 = self.connections_ended.iter().map(|(_, count)| count).sum();
        let open = self.connections_accepted.saturating_sub(ended);
        out.gauge("forebay_connections", "Kafka connections open now", open)?;
        out.counter("forebay_connections_accepted", "Kafka connections accepted", self.connections_accepted)?;
        let refused = "Kafka connections closed at once, because max.connections were open";
        out.counter("forebay_connections_refused", refused, self.connections_refused)?;
        let ends = self.connections_ended.iter().map(|(why, count)| ([("reason", why.name())], *count));
        out.counters("forebay_connections_closed", "Kafka connections that ended, by why", ends)
    }

    fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let rows = |value: fn(&ApiRow) -> u64| self.apis.iter().map(move |row| ([("api", api_name(row))], value(row)));
        out.counters("forebay_requests", "Kafka requests", rows(|row| row.requests))?;
        out.counters("forebay_request_bytes", "Bytes of Kafka requests", rows(|row| row.request_bytes))?;
        out.counters("forebay_response_bytes", "Bytes of Kafka responses", rows(|row| row.response_bytes))
    }

    fn store(&self, out: &mut Out<'_>) -> fmt::Result {
        let asked = || self.store.iter().filter(|row| row.requests > 0);
        let rows = |value: fn(&MeterRow) -> u64| {
            asked().map(move |row| ([("operation", row.operation.name()), ("purpose", row.purpose.name())], value(row)))
        };
        out.counters("forebay_store_requests", "Requests to the bucket", rows(|row| row.requests))?;
        out.counters("forebay_store_failures", "Requests to the bucket that failed", rows(|row| row.failures))?;
        out.counters("forebay_store_sent_bytes", "Bytes written to the bucket", rows(|row| row.bytes_sent))?;
        out.counters("forebay_store_received_bytes", "Bytes read from the bucket", rows(|row| row.bytes_received))
    }
}

fn api_name(row: &ApiRow) -> &'static str {
    row.api_key.and_then(forebay_api::apis::find).map_or("unknown", |api| api.name)
}

impl EpochScrape {
    fn encode(&self, out: &mut Out<'_>) -> fmt::Result {
        out.gauge("forebay_broker_epoch", "This broker's current life", self.number)?;
        out.gauge("forebay_topics", "Topics open here", self.topics)?;
        out.gauge("forebay_partitions", "Partitions open here", self.partitions)?;
        out.histogram("forebay_wal_ack_seconds", "From append to durable, per batch", &self.ack)?;
        out.histogram("forebay_wal_write_seconds", "One durable write of a group of batches", &self.write)?;
        out.counter("forebay_wal_groups", "Groups of batches made durable", self.groups)?;
        out.counter("forebay_wal_batches", "Batches made durable", self.entries)?;
        out.counter("forebay_wal_batch_bytes", "Bytes of batches made durable", self.batch_bytes)?;
        out.counter("forebay_wal_written_bytes", "Bytes written for them", self.written_bytes)?;
        out.counter("forebay_wal_syncs", "Syncs of the disk, or objects created", self.syncs)?;
        out.counter(
            "forebay_wal_stalled_seconds",
            "Time in which somebody waited and nothing became durable, beyond a second each",
            self.stalled_seconds,
        )?;
        if let Some(room) = self.room_bytes {
            out.gauge("forebay_wal_room_bytes", "Bytes that can be written before an upload must free some", room)?;
        }
        out.gauge("forebay_upload_pending_bytes", "Bytes durable in the write-ahead log only", self.pending_bytes)?;
        out.gauge("forebay_tail_warm_bytes", "Bytes in memory although they are in the bucket", self.warm_bytes)?;
        out.gauge("forebay_cache_bytes", "Bytes of history in memory", self.cache.held)?;
        out.counter("forebay_cache_hits", "Reads of history answered from memory", self.cache.hits)?;
        out.counter("forebay_cache_misses", "Reads of history that asked the bucket", self.cache.misses)?;
        let offsets = self.out_of_range.iter();
        let offsets = offsets.map(|(api, beyond, n)| ([("api", api.name()), ("side", beyond.name())], *n));
        let help = "Offsets asked for that are not in the log; which ones, the log says";
        out.counters("forebay_offsets_out_of_range", help, offsets)?;
        out.counter("forebay_produce_held_back", "Produce requests that waited for room", self.held_back)?;
        let help = "Time for which Produce requests waited for room, all together";
        out.counter("forebay_produce_held_back_seconds", help, self.held_back_seconds)?;
        out.gauge(
            "forebay_request_held_bytes",
            "Bytes of large requests that are read or handled",
            self.request_bytes,
        )?;
        let help = "Large requests that were read only when others had given back memory";
        out.counter("forebay_requests_waited", help, self.requests_waited)?;
        let help = "Bytes of Fetch answers that are read or wait to be sent";
        out.gauge("forebay_fetch_pending_bytes", help, self.fetch_bytes)?;
        out.gauge("forebay_fetch_sessions", "Fetch sessions that are kept", self.sessions.sessions)?;
        let help = "Partitions in fetch sessions";
        out.gauge("forebay_fetch_session_partitions", help, self.sessions.partitions)?;
        let help = "Fetch sessions given up for others";
        out.counter("forebay_fetch_sessions_evicted", help, self.sessions.evicted)
    }
}

/// Writes one metric after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge<N>(&mut self, name: &str, help: &str, value: N) -> fmt::Result
    where
        ConstGauge<N>: EncodeMetric,
    {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter<N>(&mut self, name: &str, help: &str, value: N) -> fmt::Result
    where
        ConstCounter<N>: EncodeMetric,
    {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, seen: &HistogramSnapshot) -> fmt::Result {
        let bound = |bound: Option<std::time::Duration>| bound.map_or(f64::INFINITY, |b| b.as_secs_f64());
        let buckets: Vec<(f64, u64)> = seen.buckets.iter().map(|(b, count)| (bound(*b), *count)).collect();
        let mut out = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        out.encode_histogram::<NoLabelSet>(seen.sum.as_secs_f64(), seen.count, &buckets, None)
    }
}

/// The process's memory as Linux counts it; `None` elsewhere.
async fn resident_bytes(env: &Env) -> Option<u64> {
    /// Of Linux on x86-64, and on ARM as most distributions build it.
    const PAGE_SIZE: u64 = 4096;
    let disk = env.disk();
    let statm = env.blocking("read-statm", move || read_proc(&*disk, Path::new("/proc/self/statm"))).await.ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_SIZE)
}

/// The text of a file whose size the system does not tell: byte by byte to its end.
fn read_proc(disk: &dyn forebay_env::Disk, path: &Path) -> io::Result<String> {
    const SIZE_MAX: u64 = 256;
    let file = disk.open(path, OpenMode::Read)?;
    let mut text = String::new();
    for at in 0..SIZE_MAX {
        let mut byte = [0];
        match file.read_exact_at(&mut byte, at) {
            Ok(()) => text.push(char::from(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}
