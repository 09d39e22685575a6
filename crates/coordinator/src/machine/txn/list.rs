//! ListTransactions and DescribeTransactions.
//!
//! Owns: the filters. Leaves to others: which ids the asker may see (`api`).
//!
//! Invariants:
//! 1. A listing of what is open or ending costs what is open or ending, not a million idle ids: Flink's sink asks
//!    every broker for it at each restore (POOLING).
//! 2. As in Kafka, a state filter that names no known state lets nothing pass, and the duration filter lets an id
//!    without a transaction pass.

use forebay_types::Timestamp;

use super::super::Now;
use super::TxnMachine;
use super::entry::Entry;
use super::io::{Description, List, Listed, Listing, Refusal, TxnStatus};

/// Names of states that Kafka knows and that no id is ever seen in.
const NEVER_SEEN: [&str; 2] = ["Dead", "PrepareEpochFence"];

impl List {
    /// Names among the state filters that are none of Kafka's states.
    pub fn unknown_states(&self) -> Vec<String> {
        let known =
            |name: &str| TxnStatus::ALL.into_iter().any(|status| status.name() == name) || NEVER_SEEN.contains(&name);
        self.states.iter().filter(|name| !known(name)).cloned().collect()
    }
}

impl TxnMachine {
    pub(super) fn list(&self, now: Now, request: &List) -> Listing {
        let named = |name: &str| TxnStatus::ALL.into_iter().find(|status| status.name() == name);
        let statuses: Vec<TxnStatus> = request.states.iter().filter_map(|name| named(name)).collect();
        let passes = |entry: &Entry| {
            let id = entry.producer().id.get();
            let began = |started: Option<Timestamp>| started.unwrap_or(Timestamp::from_millis(-1));
            (request.producer_ids.is_empty() || request.producer_ids.contains(&id))
                && (request.states.is_empty() || statuses.contains(&entry.status()))
                && request.longer_than_ms.is_none_or(|ms| ms < 0 || now.wall.millis_since(began(entry.started())) > ms)
        };
        let listed = |entry: &Entry| Listed {
            transactional_id: entry.id.to_string(),
            producer_id: entry.producer().id,
            status: entry.status(),
        };
        let only_busy = !request.states.is_empty() && statuses.iter().all(|status| !status.is_idle());
        let mut transactions: Vec<Listed> = if only_busy {
            let slots = self.timers.timeouts.iter().map(|(_, slot)| slot).chain(&self.timers.ending);
            slots.map(|slot| self.table.get(*slot)).filter(|entry| passes(entry)).map(listed).collect()
        } else {
            self.table.iter().map(|(_, entry)| entry).filter(|entry| passes(entry)).map(listed).collect()
        };
        transactions.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        Listing { transactions, unknown_states: request.unknown_states() }
    }

    pub(super) fn describe(&self, id: &str) -> Result<Description, Refusal> {
        if id.is_empty() {
            return Err(Refusal::TransactionalId);
        }
        let entry = self.table.get(self.table.find(id).ok_or(Refusal::NotFound)?);
        Ok(Description {
            producer: entry.producer(),
            status: entry.status(),
            timeout_ms: entry.timeout_ms,
            started: entry.started(),
            partitions: entry.partitions().into_iter().flatten().cloned().collect(),
        })
    }
}
