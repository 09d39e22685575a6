//! A producer that writes transactions over several partitions, and commits or aborts them.

use std::time::Duration;

use bytes::Bytes;
use forebay_client::{ClientError, GroupMembership, Producer, ProducerConfig, Record};
use forebay_types::{Offset, TopicName};

use super::{Worker, partition, place};
use crate::history::Ended;

pub async fn transactional_producer(worker: Worker, name: &str) {
    let topic = worker.topic("transactions").await;
    let config = ProducerConfig {
        transactional_id: Some(name.to_owned()),
        transaction_timeout: Duration::from_secs(5),
        delivery_deadline: Duration::from_secs(8),
        ..ProducerConfig::default()
    };
    let mut number = 0_u64;
    while !worker.is_over() {
        // Taking the id over ends what an earlier producer of ours left open.
        let Ok(mut producer) = Producer::new(&worker.client, config.clone()).await else {
            worker.pause(200).await;
            continue;
        };
        while !worker.is_over() {
            number += 1;
            if transaction(&worker, &mut producer, &topic, name, number).await.is_err() {
                break;
            }
            worker.pause(60).await;
        }
    }
    // Whatever is open now would hold back readers for ever.
    while Producer::new(&worker.client, config.clone()).await.is_err() {
        worker.pause(200).await;
    }
}

async fn transaction(
    worker: &Worker,
    producer: &mut Producer,
    topic: &TopicName,
    name: &str,
    number: u64,
) -> Result<(), ClientError> {
    let history = &worker.history;
    let this = history.begin();
    producer.begin()?;
    for index in 0..=worker.random.below(3) {
        let partition = worker.any_partition(topic);
        let value = format!("{name}-{number}.{index}");
        history.sending(&value, &place(&partition), worker.env.now(), Some(this));
        let ack = producer.send_to(&partition, vec![Record::new(None, Bytes::from(value.clone()))]).await?.await?;
        history.acked(&value, ack.base_offset);
    }
    if worker.random.below(4) == 0 {
        let offsets = [(partition(topic, 0), Offset::new(i64::try_from(number).unwrap_or(0)).unwrap_or_default())];
        producer.send_offsets(&GroupMembership::alone(name), &offsets).await?;
    }
    if worker.random.below(3) == 0 {
        producer.abort().await?;
        history.ended(this, Ended::Aborted);
    } else {
        producer.commit().await?;
        history.ended(this, Ended::Committed);
    }
    Ok(())
}
