//! Reads a topic from its beginning to its end as it is now.

use anyhow::Context;
use forebay_client::{
    Admin, Client, ClientError, Consumer, ConsumerConfig, ErrorCode, Isolation, OffsetAt, Partition, StartAt,
};
use forebay_types::{Offset, TopicName};

use super::checks::{Reading, take_up};

/// The offset after the last readable record of each partition.
pub async fn ends(
    client: &Client,
    topic: &TopicName,
    isolation: Isolation,
) -> Result<Vec<(Partition, Offset)>, ClientError> {
    let admin = Admin::new(client);
    let mut ends = Vec::new();
    for partition in client.partitions(topic).await? {
        let end = admin.list_offset(&partition, OffsetAt::Latest, isolation).await?;
        let what = || ClientError::Refused {
            what: format!("the end of {partition}"),
            code: ErrorCode::UnknownServerError,
            message: Some("the log has no end".to_owned()),
        };
        let end = end.ok_or_else(what)?.offset;
        ends.push((partition, end));
    }
    Ok(ends)
}

/// Everything from the oldest record to the end as it was when this was called, and what came meanwhile.
pub async fn read(client: &Client, topic: &TopicName, isolation: Isolation) -> Result<Reading, ClientError> {
    let ends = ends(client, topic, isolation).await?;
    let mut consumer = Consumer::new(client, ConsumerConfig { isolation, ..ConsumerConfig::default() });
    for (partition, end) in &ends {
        // An empty partition is read already, and polling it would wait.
        if *end > Offset::ZERO {
            consumer.assign(partition.clone(), StartAt::Earliest);
        }
    }
    let mut left: Vec<_> = ends.into_iter().filter(|(_, end)| *end > Offset::ZERO).collect();
    let mut reading = Reading::new();
    while !left.is_empty() {
        for fetched in consumer.poll().await? {
            take_up(&mut reading, &fetched);
        }
        left.retain(|(partition, end)| {
            let reached = consumer.position(partition).is_some_and(|position| position >= *end);
            if reached {
                consumer.unassign(partition);
            }
            !reached
        });
    }
    Ok(reading)
}

/// A name that is written in this program.
pub fn topic(name: &str) -> anyhow::Result<TopicName> {
    TopicName::new(name).with_context(|| format!("the topic {name}"))
}
