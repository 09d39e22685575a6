//! What Flink's source asks a broker before it reads: ends, offsets by time, a group's offsets, topics by pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, ensure};

use super::flights::Flights;
use super::topics::{Isolation, Record, Topics};
use crate::rigs::flink::Cluster;
use crate::workspace;

const PARTITIONS: u32 = 3;

/// Where the group stands in each partition.
const COMMITTED: i64 = 700;
/// The range of the query by offsets, in each partition.
const RANGE: (i64, i64) = (11, 2222);
/// In milliseconds since 1970: the year 2100.
const FUTURE: i64 = 4_102_444_800_000;

pub(super) fn run(cluster: &Cluster, topics: &Topics<'_>, flights: &Flights) -> Result<()> {
    let prefix = format!("sources-{}", cluster.flink().release());
    let (topic, second, group) = (format!("{prefix}-a"), format!("{prefix}-b"), format!("{prefix}-group"));
    topics.create(&topic, PARTITIONS)?;
    topics.create(&second, 1)?;
    // Pieces by producers of their own, one after the other: their times differ.
    let pieces = 4;
    for piece in 0..pieces {
        let (from, to) = (flights.len() * piece / pieces, flights.len() * (piece + 1) / pieces);
        topics.append(&topic, flights.records(from, to))?;
    }
    topics.append(&second, flights.records(0, 100))?;
    topics.commit(&group, &topic, COMMITTED)?;
    let records = topics.read(&topic, Isolation::Uncommitted)?;
    ensure!(records.len() == flights.len(), "{} of {} rows were written", records.len(), flights.len());
    let mut times: Vec<_> = records.iter().map(|record| record.timestamp).collect();
    times.sort_unstable();
    let (from_time, to_time) = (times[times.len() / 4], times[times.len() * 3 / 4]);

    let everywhere = |offset: i64| {
        (0..PARTITIONS).map(|part| format!("partition:{part},offset:{offset}")).collect::<Vec<_>>().join(";")
    };
    let script = workspace::read(Path::new("xtask/rigs/flink/sources.sql"))?
        .replace("{bootstrap}", &topics.bootstrap)
        .replace("{topic}", &topic)
        .replace("{pattern}", &format!("{}-.", prefix.replace('.', "\\.")))
        .replace("{group}", &group)
        .replace("{from-offsets}", &everywhere(RANGE.0))
        .replace("{to-offsets}", &everywhere(RANGE.1))
        .replace("{from-time}", &from_time.to_string())
        .replace("{to-time}", &to_time.to_string())
        .replace("{future}", &FUTURE.to_string());
    let printed = cluster.sql(&script)?;
    let found: BTreeSet<_> = printed.lines().filter_map(row).collect();

    let mut expected = BTreeSet::new();
    let parts = partitions(&records);
    for (part, records) in &parts {
        let end = i64::try_from(records.len())?;
        let at = |time: i64| records.iter().find(|record| record.timestamp >= time).map_or(end, |record| record.offset);
        let ranges = [
            ("whole", 0, end),
            ("offsets", RANGE.0, RANGE.1),
            ("times", at(from_time), at(to_time)),
            ("group", COMMITTED, end),
            ("up to", 0, COMMITTED),
        ];
        for (query, low, high) in ranges {
            ensure!(low < high, "{query} would read nothing of partition {part}");
            expected.insert(format!("{query},{part},{},{low},{}", high - low, high - 1));
        }
    }
    let (all, carriers) = (records.len(), flights.totals().len());
    expected.insert("future,0".to_owned());
    expected.insert(format!("reset,{all}"));
    expected.insert(format!("columns,{topic},CreateTime,{all},0,{all},{carriers},TRUE"));
    expected.insert(format!("pattern,{topic},{all}"));
    expected.insert(format!("pattern,{second},100"));
    let (missing, strange): (Vec<_>, Vec<_>) =
        (expected.difference(&found).collect(), found.difference(&expected).collect());
    ensure!(missing.is_empty() && strange.is_empty(), "{missing:?} instead of {strange:?} in\n{printed}");
    Ok(())
}

/// A row of a table that the SQL client drew, without the head's.
fn row(line: &str) -> Option<String> {
    let cells = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<_> = cells.split('|').map(str::trim).collect();
    (cells.first() != Some(&"query")).then(|| cells.join(","))
}

/// Records by partition, in order; offsets count from nothing without gaps.
fn partitions(records: &[Record]) -> BTreeMap<u32, Vec<&Record>> {
    let mut parts: BTreeMap<u32, Vec<&Record>> = BTreeMap::new();
    for record in records {
        parts.entry(record.partition).or_default().push(record);
    }
    parts
}
