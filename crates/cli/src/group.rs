//! `forebay group`: consumer groups, how far behind they are, and setting them back.
//!
//! Owns: the commands and their output. Leaves to others: every call (`client::Admin`), and the rule that a group with
//! members is not moved (the broker's).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use forebay_client::{Admin, ClientError, ErrorCode, GroupDescription, Isolation, OffsetAt, Partition};
use forebay_env::Env;
use forebay_types::{Offset, Timestamp, TopicName};
use serde_json::Value;

use crate::connect::Connection;
use crate::exit::{Exit, usage};
use crate::output::{self, Format, json, parse_time, plural};
use crate::topic::{existing, topic_name};

#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List groups
    List,
    /// Show a group: members, offsets, lag
    Describe {
        /// The group's id
        group: String,
    },
    /// Set a group's offsets; it must have no members
    Seek(Seek),
    /// Delete a group and its offsets; it must have no members
    Delete {
        /// The group's id
        group: String,
    },
}

#[derive(Debug, Args)]
struct Seek {
    /// The group's id
    group: String,
    /// The topic, as often as there are [default: those that the group has offsets of]
    #[arg(long = "topic", value_parser = topic_name)]
    topics: Vec<TopicName>,
    /// This partition only
    #[arg(short, long, requires = "topics", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// earliest, latest, an offset, or @TIME (milliseconds since 1970, or like @2013-01-01T10:00:00Z)
    #[arg(long, value_parser = parse_target, value_name = "WHERE")]
    to: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(Offset),
    Time(Timestamp),
}

fn parse_target(text: &str) -> Result<Target, String> {
    match text {
        "earliest" => return Ok(Target::Earliest),
        "latest" => return Ok(Target::Latest),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return parse_time(time).map(Target::Time);
    }
    let offset = text.parse().ok().and_then(|raw| Offset::new(raw).ok());
    offset.map(Target::Offset).ok_or_else(|| format!("{text:?} is not earliest, latest, an offset or @TIME"))
}

pub async fn run(env: &Env, args: GroupArgs, format: Format) -> Result<Exit> {
    let client = args.connection.client(env).await?;
    let admin = Admin::new(&client);
    match args.command {
        GroupCommand::List => list(&admin, format).await?,
        GroupCommand::Describe { group } => describe(&admin, &group, format).await?,
        GroupCommand::Seek(seek_args) => {
            seek(&admin, &client, seek_args, format).await?;
        }
        GroupCommand::Delete { group } => {
            admin.delete_group(&group).await?;
            output::show(format, &format!("deleted group {group}"), &json!({ "group": group, "deleted": true }))?;
        }
    }
    Ok(Exit::Good)
}

async fn list(admin: &Admin, format: Format) -> Result<()> {
    let groups = admin.list_groups().await?;
    let rows = groups.iter().map(|group| {
        let state = group.state.clone().unwrap_or_default();
        let kind = if group.protocol_type.is_empty() { "offsets only" } else { group.protocol_type.as_str() };
        [group.group.clone(), state, kind.to_owned()]
    });
    let text = if groups.is_empty() { "no groups".to_owned() } else { output::table(["group", "state", "kind"], rows) };
    let value: Vec<_> = groups
        .iter()
        .map(|group| json!({ "group": group.group, "state": group.state, "protocolType": group.protocol_type }))
        .collect();
    output::show(format, &text, &Value::from(value))
}

async fn describe(admin: &Admin, group: &str, format: Format) -> Result<()> {
    let found = admin.describe_group(group).await?;
    let committed = admin.committed_offsets(group, None).await?;
    if found.state == "Dead" && committed.is_empty() {
        let what = format!("describe group {group}");
        return Err(ClientError::Refused { what, code: ErrorCode::GroupIdNotFound, message: None }.into());
    }
    let owners = owners(&found);
    let mut rows = Vec::new();
    let mut offsets = Vec::new();
    let mut lag_total = 0;
    for one in &committed {
        // Against what a consumer of committed records can reach, as for one of all records it is the same in the end.
        let end = admin.list_offset(&one.partition, OffsetAt::Latest, Isolation::ReadUncommitted).await?;
        let end = end.map(|end| end.offset.get());
        let lag = end.map(|end| (end - one.offset.get()).max(0));
        lag_total += lag.unwrap_or(0);
        let owner = owners.get(&one.partition).copied().unwrap_or("-");
        let text = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        rows.push([one.partition.to_string(), one.offset.to_string(), text(end), text(lag), owner.to_owned()]);
        offsets.push(json!({
            "topic": one.partition.topic.as_str(), "partition": one.partition.index.get(),
            "offset": one.offset.get(), "endOffset": end, "lag": lag, "member": owners.get(&one.partition),
        }));
    }
    let members = found.members.len();
    let mut text = format!("{group}   {}   {members} member{}   lag {lag_total}", found.state, plural(members as u64));
    if !rows.is_empty() {
        text += "\n\n";
        text += &output::table(["partition", "#offset", "#end", "#lag", "member"], rows);
    }
    let members: Vec<_> = found
        .members
        .iter()
        .map(|member| {
            json!({ "member": member.member, "instance": member.instance, "clientId": member.client_id,
                    "host": member.host, "assigned": member.assigned.iter().map(ToString::to_string).collect::<Vec<_>>() })
        })
        .collect();
    let value = json!({ "group": group, "state": found.state, "assignor": found.protocol, "members": members,
                        "offsets": offsets, "lag": lag_total });
    output::show(format, &text, &value)
}

/// Which member reads which partition.
fn owners(group: &GroupDescription) -> BTreeMap<Partition, &str> {
    let of = |member: &'_ forebay_client::GroupMember| member.assigned.clone();
    group.members.iter().flat_map(|m| of(m).into_iter().map(|partition| (partition, m.member.as_str()))).collect()
}

async fn seek(admin: &Admin, client: &forebay_client::Client, args: Seek, format: Format) -> Result<()> {
    let Seek { group, topics, partition, to } = args;
    if partition.is_some() && topics.len() > 1 {
        return Err(usage("--partition goes with one --topic"));
    }
    let mut partitions = Vec::new();
    if topics.is_empty() {
        partitions.extend(admin.committed_offsets(&group, None).await?.into_iter().map(|one| one.partition));
        if partitions.is_empty() {
            return Err(usage(format!("group {group} has no offsets yet: name the topics with --topic")));
        }
    }
    for topic in &topics {
        partitions.extend(existing(client, topic).await?);
    }
    if let Some(index) = partition {
        partitions.retain(|partition| partition.index.get() == index);
        if partitions.is_empty() {
            bail!("there is no partition {index} in {}", topics.first().context("--partition requires --topic")?);
        }
    }
    let mut offsets = Vec::new();
    for partition in partitions {
        let offset = resolve(admin, &partition, to).await?;
        offsets.push((partition, offset));
    }
    admin.commit_offsets(&group, &offsets).await?;
    let rows = offsets.iter().map(|(partition, offset)| [partition.to_string(), offset.to_string()]);
    let text = format!("{group} goes on at\n\n{}", output::table(["partition", "#offset"], rows));
    let value: Vec<_> = offsets
        .iter()
        .map(|(partition, offset)| {
            json!({ "topic": partition.topic.as_str(), "partition": partition.index.get(), "offset": offset.get() })
        })
        .collect();
    output::show(format, &text, &json!({ "group": group, "offsets": value }))
}

/// The offset that `to` means in a partition.
async fn resolve(admin: &Admin, partition: &Partition, to: Target) -> Result<Offset> {
    let isolation = Isolation::ReadUncommitted;
    let end = |at| async move {
        let found = admin.list_offset(partition, at, isolation).await?;
        found.map(|found| found.offset).with_context(|| format!("{partition} has no such offset"))
    };
    match to {
        Target::Earliest => end(OffsetAt::Earliest).await,
        Target::Latest => end(OffsetAt::Latest).await,
        Target::Time(at) => match admin.list_offset(partition, OffsetAt::Timestamp(at), isolation).await? {
            Some(found) => Ok(found.offset),
            None => end(OffsetAt::Latest).await,
        },
        Target::Offset(offset) => {
            let (start, end) = (end(OffsetAt::Earliest).await?, end(OffsetAt::Latest).await?);
            if offset < start || offset > end {
                bail!("offset {offset} is not in {partition}, which goes from {start} to {end}");
            }
            Ok(offset)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        assert_eq!(parse_target("earliest"), Ok(Target::Earliest));
        assert_eq!(parse_target("12"), Ok(Target::Offset(Offset::new(12).expect("an offset"))));
        assert_eq!(parse_target("@1000"), Ok(Target::Time(Timestamp::from_millis(1000))));
        for text in ["-1", "oldest", "@noon", ""] {
            assert!(parse_target(text).is_err(), "{text:?}");
        }
    }
}
