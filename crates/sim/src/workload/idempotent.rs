//! A producer that writes numbered values, several batches in flight, and writes down every ack.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use forebay_client::{Delivery, Producer, ProducerConfig, Record};
use forebay_types::Offset;

use super::{Worker, place};

/// Batches that wait for their acks: as many as a client has in flight, so that a crash meets all of them.
const IN_FLIGHT_MAX: usize = 5;

pub async fn idempotent_producer(worker: Worker, name: &str) {
    let topic = worker.topic("plain").await;
    let config = ProducerConfig { delivery_deadline: Duration::from_secs(8), ..ProducerConfig::default() };
    let mut number = 0_u64;
    while !worker.is_over() {
        let Ok(mut producer) = Producer::new(&worker.client, config.clone()).await else {
            worker.pause(200).await;
            continue;
        };
        let mut waiting: VecDeque<(Vec<String>, Delivery)> = VecDeque::new();
        while !worker.is_over() {
            let partition = worker.any_partition(&topic);
            let values: Vec<String> = (0..=worker.random.below(4))
                .map(|_| {
                    number += 1;
                    format!("{name}-{number}")
                })
                .collect();
            for value in &values {
                worker.history.sending(value, &place(&partition), worker.env.now(), None);
            }
            let records = values.iter().map(|value| Record::new(None, Bytes::from(value.clone()))).collect();
            let Ok(delivery) = producer.send_to(&partition, records).await else { break };
            waiting.push_back((values, delivery));
            if waiting.len() >= IN_FLIGHT_MAX {
                let (values, delivery) = waiting.pop_front().expect("just filled");
                if !settle(&worker, &values, delivery).await {
                    break;
                }
            }
            worker.pause(40).await;
        }
        for (values, delivery) in waiting {
            settle(&worker, &values, delivery).await;
        }
    }
}

/// Waits for an ack; false where the producer cannot go on.
async fn settle(worker: &Worker, values: &[String], delivery: Delivery) -> bool {
    let Ok(ack) = delivery.await else { return false };
    for (index, value) in (0..).zip(values) {
        let offset = ack.base_offset.checked_add(index).unwrap_or(Offset::ZERO);
        worker.history.acked(value, offset);
    }
    true
}
