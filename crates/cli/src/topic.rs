//! `forebay topic`: make, show, change and delete topics; write and read what is in them.
//!
//! Owns: the commands and their output. Leaves to others: every call (`client::Admin`), producing and consuming
//! (`topic::produce`, `topic::consume`). Undelete is not in Kafka's protocol and goes to the admin address.

mod consume;
mod produce;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use forebay_client::{
    Admin, Client, ClientError, ConfigChange, ConfigEntry, ConfigResource, ConfigSource, ErrorCode, Isolation,
    NewTopic, OffsetAt, Partition, TopicDescription,
};
use forebay_env::Env;
use forebay_types::{Offset, TopicName};
use serde_json::Value;

use crate::connect::Connection;
use crate::exit::{Exit, usage};
use crate::http;
use crate::output::{self, Format, json, plural};

#[derive(Debug, Args)]
pub struct TopicArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Create a topic
    Create(Create),
    /// List topics
    List {
        /// Internal topics too
        #[arg(long)]
        all: bool,
    },
    /// Show a topic: partitions, offsets, configs
    Describe {
        /// The topic's name
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// Every config, those at their default too
        #[arg(long)]
        all: bool,
    },
    /// Change configs, or add partitions
    Alter(Alter),
    /// Delete a topic; it can be brought back for a while
    Delete {
        /// The topic's name
        #[arg(value_parser = topic_name)]
        topic: TopicName,
    },
    /// Bring a deleted topic back
    Undelete {
        /// The topic's name
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// The broker's admin address, as `forebay dev` prints it
        #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9640")]
        admin: String,
    },
    /// Write lines of standard input to a topic
    Produce(produce::Produce),
    /// Print a topic's records
    Consume(consume::Consume),
}

#[derive(Debug, Args)]
struct Create {
    /// The topic's name
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    /// How many partitions [default: the broker's]
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// A config, as often as there are
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct Alter {
    /// The topic's name
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    /// A config to set, as often as there are
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
    /// A config to set back to its default, as often as there are
    #[arg(long = "delete-config", value_name = "KEY")]
    deleted: Vec<String>,
    /// How many partitions there are to be, more than now
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
}

/// The partitions of a topic that is there. A look-up by the client would make one that is not, where the broker may.
pub async fn existing(client: &Client, topic: &TopicName) -> Result<Vec<Partition>, ClientError> {
    let found = Admin::new(client).describe_topic(topic).await?;
    let partition = |index| Partition { topic: topic.clone(), index };
    Ok(found.partitions.iter().map(|described| partition(described.index)).collect())
}

/// The partition of that number.
fn one_of(all: Vec<Partition>, topic: &TopicName, index: i32, what: &str) -> Result<Partition, ClientError> {
    let count = all.len();
    all.into_iter().find(|partition| partition.index.get() == index).ok_or_else(|| ClientError::Refused {
        what: format!("{what} partition {index} of {topic}"),
        code: ErrorCode::UnknownTopicOrPartition,
        message: Some(format!("it has {count} partition{}, counted from 0", plural(count as u64))),
    })
}

pub fn topic_name(text: &str) -> Result<TopicName, String> {
    TopicName::new(text).map_err(|error| error.to_string())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

pub async fn run(env: &Env, args: TopicArgs, format: Format) -> Result<Exit> {
    let connection = args.connection;
    match args.command {
        TopicCommand::Create(create_args) => create(&connection.admin(env).await?, create_args, format).await?,
        TopicCommand::List { all } => list(&connection.admin(env).await?, all, format).await?,
        TopicCommand::Describe { topic, all } => describe(&connection.admin(env).await?, &topic, all, format).await?,
        TopicCommand::Alter(alter_args) => alter(&connection.admin(env).await?, alter_args, format).await?,
        TopicCommand::Delete { topic } => delete(&connection.admin(env).await?, &topic, format).await?,
        TopicCommand::Undelete { topic, admin } => undelete(env, &topic, &admin, format).await?,
        TopicCommand::Produce(args) => produce::run(env, &connection.client(env).await?, args, format).await?,
        TopicCommand::Consume(args) => consume::run(env, &connection.client(env).await?, args, format).await?,
    }
    Ok(Exit::Good)
}

async fn create(admin: &Admin, args: Create, format: Format) -> Result<()> {
    let Create { topic, partitions, configs } = args;
    let new = NewTopic { name: topic.clone(), partitions, configs };
    let id = admin.create_topic(&new).await?;
    let partitions = admin.describe_topic(&topic).await?.partitions.len();
    let value = json!({ "topic": topic.as_str(), "id": id.map(|id| id.to_string()), "partitions": partitions });
    let text = format!("created {topic} with {partitions} partition{}", plural(partitions as u64));
    output::show(format, &text, &value)
}

async fn list(admin: &Admin, all: bool, format: Format) -> Result<()> {
    let topics = admin.list_topics().await?;
    let shown: Vec<_> = topics.into_iter().filter(|topic| all || !topic.is_internal).collect();
    let row = |topic: &TopicDescription| {
        let id = topic.id.map(|id| id.to_string()).unwrap_or_default();
        [topic.name.to_string(), topic.partitions.len().to_string(), id]
    };
    let text = if shown.is_empty() {
        "no topics; `forebay topic create NAME` makes one".to_owned()
    } else {
        output::table(["topic", "#partitions", "id"], shown.iter().map(row))
    };
    let value: Vec<_> = shown
        .iter()
        .map(|topic| {
            json!({ "topic": topic.name.as_str(), "partitions": topic.partitions.len(),
                    "id": topic.id.map(|id| id.to_string()), "internal": topic.is_internal })
        })
        .collect();
    output::show(format, &text, &Value::from(value))
}

async fn describe(admin: &Admin, topic: &TopicName, all: bool, format: Format) -> Result<()> {
    let found = admin.describe_topic(topic).await?;
    let configs = admin.describe_configs(&ConfigResource::Topic(topic.clone())).await?;
    let configs: Vec<_> = configs.into_iter().filter(|entry| all || entry.source != ConfigSource::Default).collect();
    let mut rows = Vec::new();
    let mut partitions = Vec::new();
    for partition in &found.partitions {
        let named = Partition { topic: topic.clone(), index: partition.index };
        let (start, end) = match partition.leader {
            Some(_) => ends(admin, &named).await?,
            None => (None, None),
        };
        let text = |offset: Option<Offset>| offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
        let records = match (start, end) {
            (Some(start), Some(end)) => (end.get() - start.get()).to_string(),
            _ => "?".to_owned(),
        };
        let leader = partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let epoch = partition.leader_epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        rows.push([partition.index.to_string(), leader, epoch, text(start), text(end), records]);
        partitions.push(json!({
            "partition": partition.index.get(), "leader": partition.leader.map(forebay_types::BrokerId::get),
            "leaderEpoch": partition.leader_epoch.map(forebay_types::LeaderEpoch::get),
            "startOffset": start.map(Offset::get), "endOffset": end.map(Offset::get),
        }));
    }
    let id = found.id.map(|id| id.to_string());
    let mut text = format!("{topic}   id {}\n\n", id.as_deref().unwrap_or("unknown"));
    text += &output::table(["#partition", "#leader", "#epoch", "#start", "#end", "#offsets"], rows);
    if !configs.is_empty() {
        text += "\n\n";
        text += &output::table(["config", "value", "from"], configs.iter().map(config_row));
    }
    let configs: Vec<_> = configs
        .iter()
        .map(|entry| json!({ "name": entry.name, "value": entry.value, "from": source_name(entry.source) }))
        .collect();
    let value = json!({ "topic": topic.as_str(), "id": id, "partitions": partitions, "configs": configs });
    output::show(format, &text, &value)
}

/// A partition's log start offset and high watermark.
async fn ends(admin: &Admin, partition: &Partition) -> Result<(Option<Offset>, Option<Offset>)> {
    let mut found = [None, None];
    for (found, at) in found.iter_mut().zip([OffsetAt::Earliest, OffsetAt::Latest]) {
        let offset = admin.list_offset(partition, at, Isolation::ReadUncommitted).await?;
        *found = offset.map(|found| found.offset);
    }
    Ok(found.into())
}

fn config_row(entry: &ConfigEntry) -> [String; 3] {
    let value = entry.value.clone().unwrap_or_else(|| if entry.is_sensitive { "(hidden)" } else { "" }.to_owned());
    [entry.name.clone(), value, source_name(entry.source).to_owned()]
}

const fn source_name(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Topic => "topic",
        ConfigSource::DynamicBroker => "broker (dynamic)",
        ConfigSource::StaticBroker => "broker",
        ConfigSource::Default => "default",
        ConfigSource::Other(_) => "other",
    }
}

async fn alter(admin: &Admin, args: Alter, format: Format) -> Result<()> {
    let Alter { topic, configs, deleted, partitions } = args;
    if configs.is_empty() && deleted.is_empty() && partitions.is_none() {
        return Err(usage("nothing to change: give --config KEY=VALUE, --delete-config KEY or --partitions N"));
    }
    let set = configs.into_iter().map(|(key, value)| (key, ConfigChange::Set(value)));
    let changes: Vec<_> = set.chain(deleted.into_iter().map(|key| (key, ConfigChange::Delete))).collect();
    if !changes.is_empty() {
        admin.alter_configs(&ConfigResource::Topic(topic.clone()), &changes).await?;
    }
    if let Some(total) = partitions {
        let changed = admin.create_partitions(&topic, total).await;
        if changes.is_empty() {
            changed?;
        } else {
            changed.context("the configs are changed, the partitions are not")?;
        }
    }
    let value = json!({ "topic": topic.as_str(), "configsChanged": changes.len(), "partitions": partitions });
    let mut said = Vec::new();
    if !changes.is_empty() {
        said.push(format!("changed {} config{}", changes.len(), plural(changes.len() as u64)));
    }
    said.extend(partitions.map(|total| format!("{total} partitions now")));
    output::show(format, &format!("{topic}: {}", said.join(", ")), &value)
}

async fn delete(admin: &Admin, topic: &TopicName, format: Format) -> Result<()> {
    admin.delete_topic(topic).await?;
    let text = format!("deleted {topic}; `forebay topic undelete {topic}` brings it back while it is in the trash");
    output::show(format, &text, &json!({ "topic": topic.as_str(), "deleted": true }))
}

async fn undelete(env: &Env, topic: &TopicName, admin: &str, format: Format) -> Result<()> {
    let answer = http::post(env, admin, &format!("/topics/undelete?name={}", http::escape(topic.as_str()))).await?;
    match answer.status {
        200 => output::show(format, &format!("{topic} is back"), &json!({ "topic": topic.as_str(), "deleted": false })),
        404 => bail!("no topic {topic} is in the trash: {}", answer.body),
        409 => bail!("{topic} cannot be brought back: {}", answer.body),
        status => bail!("{admin} answers {status}: {}", answer.body),
    }
}
