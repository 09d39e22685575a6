//! Fetch, key 1, versions 4 to 17. KIP-74 (size limits), KIP-98 (isolation), KIP-110 (zstd), KIP-227 (sessions), KIP-320
//! and KIP-595 (epochs), KIP-516 (topic ids).
//!
//! A fetch that finds too little hangs its bell at every partition and looks again when one moves: there is no sleep
//! loop. Offsets, records and aborted transactions of a partition are of one moment.
//!
//! What is read is taken of a budget that all connections share, and held until the answer is sent. A fetch never waits for
//! it: where little is left the answer is smaller, and one batch is always in it. While it waits for records it holds
//! nothing.
//!
//! A partition that a request names twice is read once, as it is named last, as in Kafka.
//!
//! Differs from Kafka: there are no followers: a replica id is not looked at.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_env::Instant;
use forebay_log::{Bell, Isolation, LogError, Partition, ReadBatches, ReadRequest};
use forebay_types::{LeaderEpoch, Offset};
use forebay_wire::fetch::EpochEndOffset;
use forebay_wire::kafka::messages::FetchRequest;
use forebay_wire::{BatchHeader, Codec, ErrorCode, FetchPartition, FetchResponse, FetchTopic, encode_fetch};

use crate::call::{Call, CallError, Reply};
use crate::context::Context;
use crate::counters::OffsetApi;
use crate::errors;
use crate::lookup::{self, Topic};
use crate::memory::Held;
use crate::out_of_range::Asker;
use crate::sessions::{Asked, AskedTopic, TOPIC_ID_VERSION};

/// The first Fetch version whose client knows zstd (KIP-110).
const ZSTD_FETCH_VERSION: i16 = 10;

/// The longest a client may be made to wait for records, whatever it asks: below the idle limit of connections.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// One partition of the request.
struct Wanted {
    index: i32,
    target: Result<Arc<Partition>, ErrorCode>,
    from: i64,
    bytes_max: usize,
    current_epoch: i32,
    last_fetched_epoch: i32,
}

struct WantedTopic {
    asked: AskedTopic,
    open: Topic,
    partitions: Vec<Wanted>,
}

/// How the whole request reads.
#[derive(Clone, Copy)]
struct Terms {
    version: i16,
    isolation: Isolation,
    bytes_max: usize,
}

pub(crate) async fn handle(context: &Context, mut call: Call<'_>) -> Result<Reply, CallError> {
    let request: FetchRequest = call.decode()?;
    let (version, correlation_id) = (call.version(), call.header.correlation_id);
    let encode = |response: &FetchResponse| encode_fetch(correlation_id, version, response);
    let fetching = match context.sessions.begin(&request, version, context.env.monotonic()) {
        Ok(fetching) => fetching,
        Err(code) => {
            let refused = FetchResponse { error_code: code.code(), ..FetchResponse::default() };
            return Ok(Reply::Now(encode(&refused)?));
        }
    };
    let terms = Terms {
        version,
        isolation: if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(context.config.fetch_max_bytes()),
    };
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(terms.bytes_max);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = context.env.monotonic() + wait;
    let wanted = wanted(context, &fetching.asked, version);
    let asker = Asker::new(context, &call, OffsetApi::Fetch);
    let (response, held) = poll(asker, &wanted, terms, bytes_min, deadline).await;
    let response = context.sessions.end(&context.env, fetching, response);
    Ok(Reply::Records(encode(&response)?, held))
}

/// Reads until there is enough, something to tell at once, or no time left.
async fn poll(
    asker: Asker<'_>,
    wanted: &[WantedTopic],
    terms: Terms,
    bytes_min: usize,
    deadline: Instant,
) -> (FetchResponse, Held) {
    let context = asker.context();
    let partitions = || wanted.iter().flat_map(|topic| &topic.partitions);
    let bytes_wanted = partitions().map(|partition| partition.bytes_max).sum::<usize>().min(terms.bytes_max);
    loop {
        let bell = Bell::default();
        for partition in partitions() {
            // Hung before reading: what moves in between rings it.
            if let Ok(target) = &partition.target {
                target.hang(&bell);
            }
        }
        let mut held = context.memory.answers.take_some(bytes_wanted);
        let room = held.bytes();
        let terms = if room < bytes_wanted { Terms { bytes_max: room, ..terms } } else { terms };
        let read = read_all(asker, wanted, terms).await;
        // Where there was no room for what the client waits for, whatever came is enough.
        let enough = read.bytes >= bytes_min || (read.bytes > 0 && room < bytes_min.min(bytes_wanted));
        let over = context.env.monotonic() >= deadline || context.env.shutdown().is_triggered();
        if enough || read.urgent || over || wanted.is_empty() {
            held.shrink_to(read.bytes);
            return (read.response, held);
        }
        drop((read, held));
        tokio::select! {
            biased;
            () = bell.rung() => {}
            () = context.env.sleep_until(deadline) => {}
            () = context.env.shutdown().triggered() => {}
        }
    }
}

struct ReadAll {
    response: FetchResponse,
    bytes: usize,
    /// Some partition has an error or a diverging epoch: the client is told at once (semantic 24).
    urgent: bool,
}

async fn read_all(asker: Asker<'_>, wanted: &[WantedTopic], terms: Terms) -> ReadAll {
    let mut all = ReadAll { response: FetchResponse::default(), bytes: 0, urgent: false };
    for topic in wanted {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let room = terms.bytes_max.saturating_sub(all.bytes);
            let partition = match read_one(asker, topic, wanted, terms, room, all.bytes == 0).await {
                Ok(partition) => partition,
                Err(code) => FetchPartition::error(wanted.index, errors::fetch(code, terms.version).code()),
            };
            all.bytes += partition.records.iter().map(Bytes::len).sum::<usize>();
            all.urgent |= partition.error_code != 0 || partition.diverging_epoch.is_some();
            partitions.push(partition);
        }
        let AskedTopic { name, id } = &topic.asked;
        all.response.topics.push(FetchTopic { name: name.to_string(), topic_id: *id, partitions });
    }
    all
}

/// Reads one partition: at most `room` bytes, but at least one batch where nothing was read before (KIP-74).
async fn read_one(
    asker: Asker<'_>,
    topic: &WantedTopic,
    wanted: &Wanted,
    terms: Terms,
    room: usize,
    first: bool,
) -> Result<FetchPartition, ErrorCode> {
    let topic = topic.open.as_ref().map_err(|code| *code)?;
    let partition = wanted.target.as_ref().map_err(|code| *code)?;
    errors::check_leader_epoch(wanted.current_epoch, partition.leader_epoch())?;
    if let Some(diverging) = diverging_epoch(partition, wanted)? {
        let offsets = partition.offsets().map_err(|error| errors::log(&error))?;
        return Ok(FetchPartition {
            high_watermark: offsets.high_watermark.get(),
            last_stable_offset: offsets.last_stable.get(),
            log_start_offset: offsets.log_start.get(),
            diverging_epoch: Some(diverging),
            ..FetchPartition::error(wanted.index, 0)
        });
    }
    let Ok(from) = Offset::new(wanted.from) else {
        let offsets = partition.offsets().map_err(|error| errors::log(&error))?;
        return Err(asker.out_of_range(topic, partition, wanted.from, offsets.log_start..=offsets.high_watermark));
    };
    let request =
        ReadRequest { from, isolation: terms.isolation, bytes_max: wanted.bytes_max.min(room), at_least_one: first };
    let read = match partition.read(request).await {
        Ok(read) => read,
        Err(LogError::OffsetOutOfRange { start, end, .. }) => {
            return Err(asker.out_of_range(topic, partition, wanted.from, start..=end));
        }
        Err(error) => return Err(errors::log(&error)),
    };
    if terms.version < ZSTD_FETCH_VERSION && holds_zstd(&read) {
        return Err(ErrorCode::UnsupportedCompressionType);
    }
    let aborted = (terms.isolation == Isolation::ReadCommitted)
        .then(|| read.aborted.iter().map(|txn| (txn.producer.get(), txn.first_offset.get())).collect());
    Ok(FetchPartition {
        high_watermark: read.offsets.high_watermark.get(),
        last_stable_offset: read.offsets.last_stable.get(),
        log_start_offset: read.offsets.log_start.get(),
        aborted,
        records: read.batches,
        ..FetchPartition::error(wanted.index, 0)
    })
}

/// Where the client's log and this one part, if they do (KIP-595).
fn diverging_epoch(partition: &Partition, wanted: &Wanted) -> Result<Option<EpochEndOffset>, ErrorCode> {
    let Ok(last_fetched) = LeaderEpoch::new(wanted.last_fetched_epoch) else { return Ok(None) };
    let end = partition.end_offset_for_epoch(last_fetched).map_err(|error| errors::log(&error))?;
    Ok(match end {
        Some((epoch, end)) if epoch < last_fetched || end.get() < wanted.from => {
            Some(EpochEndOffset { epoch: epoch.get(), end_offset: end.get() })
        }
        Some(_) => None,
        // An epoch that has not been yet: the client has to look who is leader now.
        None => return Err(ErrorCode::UnknownLeaderEpoch),
    })
}

fn holds_zstd(read: &ReadBatches) -> bool {
    read.batches.iter().any(|run| {
        let mut at = 0;
        while let Ok(header) = BatchHeader::parse(&run[at..]) {
            if matches!(header.codec(), Ok(Codec::Zstd)) {
                return true;
            }
            at += header.size();
        }
        false
    })
}

/// What is asked for, with partitions of one topic that follow each other under one look-up.
fn wanted(context: &Context, asked: &[Asked], version: i16) -> Vec<WantedTopic> {
    let topic = |asked: &[Asked]| {
        let topic = asked[0].topic.clone();
        let open = if version < TOPIC_ID_VERSION {
            lookup::by_name(context, &topic.name)
        } else {
            lookup::by_id(context, topic.id)
        };
        let partitions = asked.iter().map(|asked| Wanted {
            index: asked.index,
            target: lookup::partition(&open, asked.index),
            from: asked.from,
            bytes_max: usize::try_from(asked.bytes_max).unwrap_or(0),
            current_epoch: asked.current_epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
        });
        let partitions = partitions.collect();
        WantedTopic { asked: topic, open, partitions }
    };
    asked.chunk_by(|one, next| one.topic == next.topic).map(topic).collect()
}
