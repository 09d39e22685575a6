//! The term of a controller: the first command of every process that opens the metadata for writing.

use forebay_types::{ClusterId, LogId, ProducerId, Timestamp};

use super::{Changes, Stop, View};
use crate::command::{Refusal, Reply};
use crate::state::{Cluster, Key, PinId, Row};

pub(super) fn begin(view: View<'_>, id: &ClusterId, now: Timestamp) -> Result<Changes, Stop> {
    let cluster = match view.tables.cluster() {
        None => Cluster {
            id: id.clone(),
            term: 1,
            answerable_since: now,
            next_log: LogId::ZERO,
            next_pin: PinId::FIRST,
            next_producer_id: ProducerId::ZERO,
        },
        Some(held) if held.id != *id => {
            return Err(Refusal::OtherCluster { held: held.id.to_string(), asked: id.to_string() }.into());
        }
        Some(held) => Cluster { term: held.term + 1, answerable_since: now, ..held.clone() },
    };
    Ok(Changes::one(Key::Cluster, Row::Cluster(cluster), Reply::Done))
}

/// The cluster's row, which the first term wrote.
pub(super) fn cluster(view: View<'_>) -> &Cluster {
    view.tables.cluster().expect("the host begins a term before it takes any other command")
}
