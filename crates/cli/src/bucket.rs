//! `forebay bucket`: what is in a bucket, and whether all of it can be read. No broker need be running.
//!
//! Owns: finding the bucket and the data folder, the folder's lock, the output, the progress bar. Leaves to others: reading
//! and checking (`upkeep`).

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use forebay_env::Env;
use forebay_metadata::state::TopicState;
use forebay_store::{Bucket, BucketUrl, Purpose};
use forebay_types::TopicName;
use forebay_upkeep::fsck::{self, CheckOptions, Counts, Finding, Report, Tally, WalFolder};
use forebay_upkeep::ls::{self, Listing, TopicListing};
use serde_json::Value;

use crate::exit::{Exit, usage};
use crate::output::{self, Format, count, json, plural, size};
use crate::progress;
use crate::topic::topic_name;

#[derive(Debug, Args)]
pub struct BucketArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: BucketCommand,
}

#[derive(Debug, Args)]
struct Place {
    /// The data folder: its embedded bucket is meant unless --bucket names one, and its write-ahead log is checked too
    /// [default: ./forebay-data; with --bucket none]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// The bucket: s3://NAME/PREFIX or file:///FOLDER [default: the one in the data folder]
    #[arg(long, value_name = "URL", env = "FOREBAY_BUCKET", global = true)]
    bucket: Option<String>,
}

impl Place {
    /// The data folder that is meant, if one is. Another cluster's, which happens to lie here, is not that of a bucket
    /// which somebody names.
    fn data(&self) -> Option<PathBuf> {
        match (&self.data, &self.bucket) {
            (Some(data), _) => Some(data.clone()),
            (None, None) => Some(PathBuf::from("forebay-data")),
            (None, Some(_)) => None,
        }
    }
}

#[derive(Debug, Subcommand)]
enum BucketCommand {
    /// List topics, logs and objects
    Ls {
        /// This topic only
        #[arg(value_parser = topic_name)]
        topic: Option<TopicName>,
        /// Every object, and which records are where
        #[arg(long)]
        objects: bool,
        /// Internal topics too
        #[arg(long)]
        all: bool,
    },
    /// Check that every record can be read; names the object, the block and the records behind what cannot
    Fsck {
        /// The checksum and the offsets of every record batch too
        #[arg(long)]
        deep: bool,
    },
}

pub async fn run(env: &Env, args: BucketArgs, format: Format) -> Result<Exit> {
    let url = url(&args.place)?;
    let bucket = Bucket::open(env, &url).await.with_context(|| format!("open the bucket {url}"))?;
    let store = bucket.store(Purpose::Check);
    match args.command {
        BucketCommand::Ls { topic, objects, all } => {
            let spinner = progress::spinner("reading the metadata");
            spinner.set_style(progress::style("{spinner} {msg} ({elapsed})"));
            let listed = ls::list(env, &store, topic.as_ref()).await;
            spinner.finish_and_clear();
            let mut listing = listed.with_context(|| format!("list {url}"))?;
            // A hundred partitions that nobody has made; named, they are meant.
            listing.topics.retain(|found| all || topic.is_some() || !found.name.is_internal());
            output::show(format, &listing_text(&listing, objects), &listing_json(&listing, objects))?;
            Ok(Exit::Good)
        }
        BucketCommand::Fsck { deep } => {
            let wal_folder = wal_folder(env, &args.place).await;
            let options = CheckOptions { deep, wal_folder };
            let bar = progress::bar(0, "checking");
            bar.set_style(progress::style("{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}"));
            let advance = |done: fsck::Progress| {
                bar.set_length(done.bytes_total);
                bar.set_position(done.bytes_done);
            };
            let checked = fsck::check(env, &store, options, &advance).await;
            bar.finish_and_clear();
            let report = checked.with_context(|| format!("check {url}"))?;
            output::show(format, &report_text(&report), &report_json(&report))?;
            Ok(if report.is_clean() { Exit::Good } else { Exit::Unhealthy })
        }
    }
}

/// The bucket that is meant. A folder that is not there is not made: there would be nothing in it.
fn url(place: &Place) -> Result<BucketUrl> {
    let url = match &place.bucket {
        Some(text) => text.parse().map_err(|error| usage(format!("--bucket: {error}")))?,
        None => BucketUrl::File(place.data().unwrap_or_default().join("bucket")),
    };
    match &url {
        BucketUrl::Memory => Err(usage("a bucket in memory is gone with its broker: there is nothing to look at")),
        BucketUrl::File(folder) if !folder.is_dir() => Err(usage(missing(place, folder))),
        _ => Ok(url),
    }
}

/// The segments of the write-ahead log in the data folder, where there are any, and the folder's lock: beside a running
/// broker they change under any reader. A check that cannot have the lock goes on without them: at three in the morning
/// what can be known of the bucket is wanted, and what was left out.
async fn wal_folder(env: &Env, place: &Place) -> Option<WalFolder> {
    let data = place.data()?;
    let wal = data.join("wal");
    if !wal.is_dir() {
        return place
            .data
            .is_some()
            .then(|| WalFolder::NotNow { why: format!("there is no folder {}", wal.display()) });
    }
    let (disk, path) = (env.disk(), data.join("lock"));
    let shown = data.display().to_string();
    let why = match env.blocking("fsck-lock", move || disk.lock(&path)).await {
        Ok(lock) => return Some(WalFolder::Held { data, wal, lock }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            format!("{shown} is in use by a running broker; stop it and check again to know")
        }
        Err(error) => format!("the lock of {shown} could not be taken: {error}"),
    };
    Some(WalFolder::NotNow { why })
}

fn missing(place: &Place, folder: &Path) -> String {
    let folder = folder.display();
    if place.bucket.is_some() {
        format!("there is no folder {folder}")
    } else {
        format!("there is no bucket at {folder}: --data names the data folder, --bucket a bucket elsewhere")
    }
}

fn listing_text(listing: &Listing, objects: bool) -> String {
    let bytes: u64 = listing.objects.iter().map(|object| object.size).sum();
    let number = listing.objects.len() as u64;
    let mut text =
        format!("cluster {}   {} in {} object{}", listing.cluster, size(bytes), count(number), plural(number));
    if listing.garbage.objects > 0 {
        text += &format!("   {} to be deleted", tally(&listing.garbage));
    }
    let rows = listing.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            [
                format!("{}-{}", topic.name, partition.partition),
                partition.log_start.to_string(),
                partition.committed_end.to_string(),
                size(partition.bytes),
                partition.extents.len().to_string(),
                state(topic).to_owned(),
            ]
        })
    });
    text += "\n\n";
    text += &output::table(["partition", "#start", "#end", "#size", "#extents", "state"], rows);
    if objects {
        let rows = listing.topics.iter().flat_map(|topic| {
            topic.partitions.iter().flat_map(move |partition| {
                partition.extents.iter().map(move |extent| {
                    let place = format!("{}-{}", topic.name, partition.partition);
                    [place, extent.range.start().to_string(), extent.range.end().to_string(), extent.object.to_string()]
                })
            })
        });
        text += "\n\n";
        text += &output::table(["partition", "#from", "#to", "object"], rows);
        let rows =
            listing.objects.iter().map(|object| [object.name.to_string(), size(object.size), object.uses.to_string()]);
        text += "\n\n";
        text += &output::table(["object", "#size", "#uses"], rows);
    }
    text
}

const fn state(topic: &TopicListing) -> &'static str {
    match topic.state {
        TopicState::Live => "live",
        TopicState::Trash { .. } => "trash",
        TopicState::Purging => "being purged",
    }
}

fn listing_json(listing: &Listing, objects: bool) -> Value {
    let topics: Vec<_> = listing
        .topics
        .iter()
        .map(|topic| {
            let partitions: Vec<_> = topic
                .partitions
                .iter()
                .map(|partition| {
                    let extents: Vec<_> = partition
                        .extents
                        .iter()
                        .map(|extent| {
                            json!({ "from": extent.range.start().get(), "to": extent.range.end().get(),
                                    "object": &*extent.object, "bytes": extent.bytes })
                        })
                        .collect();
                    json!({ "partition": partition.partition.get(), "log": partition.log.get(),
                            "startOffset": partition.log_start.get(), "endOffset": partition.committed_end.get(),
                            "bytes": partition.bytes, "extents": extents })
                })
                .collect();
            json!({ "topic": topic.name.as_str(), "id": topic.id.to_string(), "state": state(topic),
                    "partitions": partitions })
        })
        .collect();
    let mut value = json!({
        "cluster": listing.cluster.as_str(), "topics": topics,
        "garbage": { "objects": listing.garbage.objects, "bytes": listing.garbage.bytes },
    });
    if objects {
        let all = listing.objects.iter();
        value["objects"] =
            all.map(|object| json!({ "object": &*object.name, "bytes": object.size, "uses": object.uses })).collect();
    }
    value
}

fn tally(tally: &Tally) -> String {
    format!("{} object{} ({})", count(tally.objects), plural(tally.objects), size(tally.bytes))
}

fn report_text(report: &Report) -> String {
    let Counts { topics, partitions, reached, blocks, records, batches_checked, garbage, orphans, uncommitted, .. } =
        report.counts;
    let mut text = String::new();
    for finding in &report.findings {
        text += &format!("{finding}\n");
    }
    if report.findings_left_out > 0 {
        text += &format!("… and {} more\n", count(report.findings_left_out));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text += &format!(
        "cluster {}: {topics} topic{}, {} partition{}, {} record{} in {} block{} of {}\n",
        report.cluster,
        plural(topics),
        count(partitions),
        plural(partitions),
        count(records),
        plural(records),
        count(blocks),
        plural(blocks),
        tally(&reached),
    );
    let counts = &report.counts;
    let mut also = vec![format!("{} in the write-ahead log", size(counts.wal_bytes))];
    if batches_checked > 0 {
        also.push(format!("{} batches checked each by itself", count(batches_checked)));
    }
    for (what, number) in [("to be deleted", garbage), ("left by a crash", orphans), ("not committed yet", uncommitted)]
    {
        if number.objects > 0 {
            also.push(format!("{} {what}", tally(&number)));
        }
    }
    text += &format!("{}\n", also.join(", "));
    text += match (report.is_clean(), counts.wals_not_checked) {
        (true, 0) => "clean: everything can be read",
        (true, _) => "clean: everything in the bucket can be read; a write-ahead log was not checked",
        (false, _) => "DAMAGED: not everything can be read",
    };
    text
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.to_string(), "object": finding.object, "block": finding.block,
        "partition": finding.partition.as_ref().map(ToString::to_string),
        "firstOffset": finding.offsets.map(|(first, _)| first.get()),
        "lastOffset": finding.offsets.map(|(_, last)| last.get()), "what": finding.what,
    })
}

fn report_json(report: &Report) -> Value {
    let tally = |tally: Tally| json!({ "objects": tally.objects, "bytes": tally.bytes });
    let counts = &report.counts;
    json!({
        "cluster": report.cluster.as_str(), "clean": report.is_clean(),
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "findingsLeftOut": report.findings_left_out, "topics": counts.topics, "partitions": counts.partitions,
        "records": counts.records, "blocks": counts.blocks, "batchesChecked": counts.batches_checked,
        "reached": tally(counts.reached), "garbage": tally(counts.garbage), "orphans": tally(counts.orphans),
        "uncommitted": tally(counts.uncommitted), "walBytes": counts.wal_bytes, "walBatches": counts.wal_batches,
        "walsNotChecked": counts.wals_not_checked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket that cannot be is a usage error that says what to name, and nothing is made.
    #[test]
    fn a_bucket_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let place =
            |bucket: Option<&str>| Place { data: Some(folder.path().join("data")), bucket: bucket.map(str::to_owned) };
        let told = |place: Place| url(&place).expect_err("refused");
        let error = told(place(None));
        assert!(error.to_string().contains("--data names the data folder"), "{error}");
        assert_eq!(crate::exit::of(&error).code(), 2);
        assert!(told(place(Some("memory:"))).to_string().contains("gone with its broker"));
        assert!(told(place(Some("http://x"))).to_string().starts_with("--bucket: "));
        assert!(!folder.path().join("data").exists());
        assert!(url(&place(Some("s3://logs/a"))).is_ok());
    }

    /// A bucket elsewhere has nothing to do with a data folder that happens to lie here, unless somebody says so.
    #[test]
    fn a_bucket_elsewhere_has_the_data_folder_that_is_named() {
        let data = |data: Option<&str>, bucket: Option<&str>| {
            let place = Place { data: data.map(PathBuf::from), bucket: bucket.map(str::to_owned) };
            place.data().map(|data| data.display().to_string())
        };
        assert_eq!(data(None, None).as_deref(), Some("forebay-data"));
        assert_eq!(data(None, Some("s3://logs/a")), None);
        assert_eq!(data(Some("d"), Some("s3://logs/a")).as_deref(), Some("d"));
    }
}
