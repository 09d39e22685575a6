//! Topics: create, grow, configure, delete to the trash, bring back, purge.

use std::collections::BTreeMap;

use forebay_types::{Offset, Timestamp, TopicId, TopicName, TopicPartition};

use super::term::cluster;
use super::{Changes, Stop, View};
use crate::command::{ConfigChange, PARTITIONS_PER_TOPIC_MAX, Refusal, Reply, TopicCreated, TopicDeleted};
use crate::config;
use crate::pins::{self, Verdict};
use crate::state::{Cluster, Holds, Key, Partition, Pin, PinKind, Row, Tables, Topic, TopicState, partition_of};

/// The topic, if it is live.
pub(super) fn live(tables: &Tables, id: TopicId) -> Result<&Topic, Refusal> {
    tables.topic(id).filter(|t| t.state == TopicState::Live).ok_or(Refusal::UnknownTopic(id))
}

fn require_free(tables: &Tables, name: &TopicName) -> Result<(), Refusal> {
    match tables.live_topic_like(name) {
        None => Ok(()),
        Some((id, other)) if other.name == *name => Err(Refusal::TopicExists { name: name.clone(), id }),
        Some((_, other)) => Err(Refusal::TopicCollides { name: name.clone(), with: other.name.clone() }),
    }
}

pub(super) fn create(
    view: View<'_>,
    name: &TopicName,
    id: TopicId,
    partitions: i32,
    config: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<Changes, Stop> {
    require_free(view.tables, name)?;
    if view.tables.topic(id).is_some() {
        return Err(Refusal::TopicIdUsed(id).into());
    }
    if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
        return Err(Refusal::PartitionCount { asked: partitions, max: PARTITIONS_PER_TOPIC_MAX }.into());
    }
    config::validate(config).map_err(Refusal::from)?;
    let mut rows = mint_partitions(view, id, 0..partitions)?;
    let topic =
        Topic { name: name.clone(), config: config.clone(), partitions, created_at: now, state: TopicState::Live };
    rows.insert(Key::Topic(id), Some(Row::Topic(topic)));
    let reply = Reply::TopicCreated(TopicCreated { topic: id, partitions, config: config.clone() });
    Ok(Changes { rows, reply })
}

/// New partitions, each with a log of its own, and the cluster's counter behind them.
fn mint_partitions(
    view: View<'_>,
    topic: TopicId,
    indexes: std::ops::Range<i32>,
) -> Result<BTreeMap<Key, Option<Row>>, Refusal> {
    let held = cluster(view);
    let mut next_log = held.next_log;
    let mut rows = BTreeMap::new();
    for index in indexes {
        let partition = Partition { log: next_log, owner: None, epochs: Vec::new(), log_start: Offset::ZERO };
        next_log = next_log.next().ok_or(Refusal::Exhausted("log id"))?;
        rows.insert(Key::Partition(partition_of(topic, index)), Some(Row::Partition(partition)));
    }
    rows.insert(Key::Cluster, Some(Row::Cluster(Cluster { next_log, ..held.clone() })));
    Ok(rows)
}

pub(super) fn create_partitions(view: View<'_>, id: TopicId, partitions: i32) -> Result<Changes, Stop> {
    let topic = live(view.tables, id)?;
    let created = TopicCreated { topic: id, partitions, config: topic.config.clone() };
    if partitions > PARTITIONS_PER_TOPIC_MAX {
        return Err(Refusal::PartitionCount { asked: partitions, max: PARTITIONS_PER_TOPIC_MAX }.into());
    }
    if partitions <= topic.partitions {
        let current = topic.partitions;
        return Err(Refusal::PartitionsNotMore { topic: id, current, asked: partitions }.into());
    }
    let mut rows = mint_partitions(view, id, topic.partitions..partitions)?;
    rows.insert(Key::Topic(id), Some(Row::Topic(Topic { partitions, ..topic.clone() })));
    Ok(Changes { rows, reply: Reply::TopicCreated(created) })
}

pub(super) fn alter_config(view: View<'_>, id: TopicId, change: &ConfigChange) -> Result<Changes, Stop> {
    let topic = live(view.tables, id)?;
    let config = config::change(&topic.config, change).map_err(Refusal::from)?;
    let reply = Reply::Config(config.clone());
    if config == topic.config {
        return Ok(Changes::nothing(reply));
    }
    Ok(Changes::one(Key::Topic(id), Row::Topic(Topic { config, ..topic.clone() }), reply))
}

pub(super) fn delete(view: View<'_>, id: TopicId, now: Timestamp, trash_ms: i64) -> Result<Changes, Stop> {
    let topic = view.tables.topic(id).ok_or(Refusal::UnknownTopic(id))?;
    match topic.state {
        TopicState::Live => {}
        // Deleted by an earlier attempt whose answer was lost.
        TopicState::Trash { purge_at, .. } => {
            return Ok(Changes::nothing(Reply::TopicDeleted(TopicDeleted { purge_at })));
        }
        TopicState::Purging => return Err(Refusal::UnknownTopic(id).into()),
    }
    let mut rows = BTreeMap::new();
    for (partition, _) in view.tables.partitions(id) {
        // From the first offset on: whatever a pin holds of the history, deletion would pass it.
        if let Verdict::Held { pin, from } = pins::may_release_history(view.tables, partition, None, now, &mut rows) {
            return Err(Refusal::Pinned { pin, partition, from }.into());
        }
    }
    let held = cluster(view);
    let trash_ms = trash_ms.max(0);
    let purge_at = now.saturating_add(trash_ms);
    let pin = held.next_pin;
    let scope = view.tables.partitions(id).map(|(key, partition)| (key, partition.log_start)).collect();
    let trash = Pin {
        kind: PinKind::Trash,
        holds: Holds::Bytes,
        owner: "forebay".to_owned(),
        reason: format!("topic {} was deleted", topic.name),
        scope,
        expires_at: purge_at,
        renewal_ms: trash_ms.min(pins::TRASH_RENEWAL_MS_MAX),
    };
    let state = TopicState::Trash { deleted_at: now, purge_at, pin };
    rows.insert(Key::Pin(pin), Some(Row::Pin(trash)));
    rows.insert(Key::Cluster, Some(Row::Cluster(Cluster { next_pin: pin.next(), ..held.clone() })));
    rows.insert(Key::Topic(id), Some(Row::Topic(Topic { state, ..topic.clone() })));
    Ok(Changes { rows, reply: Reply::TopicDeleted(TopicDeleted { purge_at }) })
}

pub(super) fn undelete(view: View<'_>, id: TopicId) -> Result<Changes, Stop> {
    let topic = view.tables.topic(id).ok_or(Refusal::UnknownTopic(id))?;
    let pin = match topic.state {
        TopicState::Live => return Ok(Changes::nothing(Reply::Done)),
        TopicState::Trash { pin, .. } => pin,
        TopicState::Purging => return Err(Refusal::NotInTrash(id).into()),
    };
    require_free(view.tables, &topic.name)?;
    let rows =
        [(Key::Pin(pin), None), (Key::Topic(id), Some(Row::Topic(Topic { state: TopicState::Live, ..topic.clone() })))];
    Ok(Changes { rows: rows.into(), reply: Reply::Done })
}

pub(super) fn purge(view: View<'_>, id: TopicId, now: Timestamp) -> Result<Changes, Stop> {
    let topic = view.tables.topic(id).ok_or(Refusal::UnknownTopic(id))?;
    let (pin, purge_at) = match topic.state {
        TopicState::Trash { pin, purge_at, .. } => (pin, purge_at),
        TopicState::Purging => return Ok(Changes::nothing(Reply::Done)),
        TopicState::Live => return Err(Refusal::NotInTrash(id).into()),
    };
    let trash = view.tables.pin(pin).expect("a topic in the trash has its pin");
    if pins::is_live(trash, cluster(view), now) {
        let purge_at = pins::live_until(trash, cluster(view)).max(purge_at);
        return Err(Refusal::TrashWindowOpen { topic: id, purge_at }.into());
    }
    let mut rows = BTreeMap::from([(Key::Pin(pin), None)]);
    let partitions: Vec<TopicPartition> = view.tables.partitions(id).map(|(key, _)| key).collect();
    for partition in partitions {
        if let Verdict::Held { pin, from } = pins::may_release_bytes(view.tables, partition, None, now, &mut rows) {
            return Err(Refusal::Pinned { pin, partition, from }.into());
        }
    }
    rows.insert(Key::Topic(id), Some(Row::Topic(Topic { state: TopicState::Purging, ..topic.clone() })));
    Ok(Changes { rows, reply: Reply::Done })
}
