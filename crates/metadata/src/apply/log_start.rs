//! The log start: it only rises, by its owner, and no further than the pins let it.

use std::collections::BTreeMap;

use forebay_types::{LeaderEpoch, Offset, Timestamp, TopicPartition};

use super::partition::{require_owner, trim_epochs};
use super::topic::live;
use super::{Changes, Stop, View};
use crate::command::{AdvanceReason, LogStart, Refusal, Reply};
use crate::pins::{self, Verdict};
use crate::state::{BrokerLife, Key, Partition, Row};

pub(super) fn advance(
    view: View<'_>,
    life: BrokerLife,
    (id, leader_epoch): (TopicPartition, LeaderEpoch),
    to: Offset,
    reason: AdvanceReason,
    now: Timestamp,
) -> Result<Changes, Stop> {
    live(view.tables, id.topic).map_err(|_| Refusal::UnknownPartition(id))?;
    let partition = require_owner(view.tables, life, id, leader_epoch)?;
    let mut rows = BTreeMap::new();
    let (to, stopped_by) = match pins::may_release_history(view.tables, id, Some(to), now, &mut rows) {
        Verdict::Free => (to, None),
        Verdict::Held { pin, from } => match reason {
            AdvanceReason::Retention => (from, Some(pin)),
            AdvanceReason::Request => return Err(Refusal::Pinned { pin, partition: id, from }.into()),
        },
    };
    let log_start = to.max(partition.log_start);
    if log_start > partition.log_start {
        let mut raised = Partition { log_start, ..partition.clone() };
        trim_epochs(&mut raised.epochs, log_start);
        rows.insert(Key::Partition(id), Some(Row::Partition(raised)));
    }
    Ok(Changes { rows, reply: Reply::LogStart(LogStart { log_start, stopped_by }) })
}
