//! The pin rule (D10), in its one place: what a pin binds, and when it ends.
//!
//! Owns: whether history or bytes may be released. Leaves to others: who asks (time and size retention, DeleteRecords,
//! topic deletion and purge, garbage collection all do), and taking or renewing a pin (`apply::pin`).
//!
//! Invariants:
//! 1. A pin's row stands until the pin is released, or until a command that it would have bound finds it expired and
//!    removes it. So what a standing pin holds is always there: a pin never comes back to life over a hole.
//! 2. Time counts only while a renewal could be answered: after a takeover a pin is live for a full renewal period more.
//! 3. A pin of either kind holds bytes; only one that holds history binds the log start.

use std::collections::BTreeMap;

use forebay_types::{Offset, Timestamp, TopicPartition};

use crate::state::{Cluster, Holds, Key, Pin, PinId, Row, Tables};

/// Longest that a takeover prolongs a trash window: nobody renews it, but somebody may be waiting to undelete.
pub const TRASH_RENEWAL_MS_MAX: i64 = 60 * 60 * 1_000;

/// When a pin ends, unless it is renewed. Exclusive.
pub fn live_until(pin: &Pin, cluster: &Cluster) -> Timestamp {
    pin.expires_at.max(cluster.answerable_since.saturating_add(pin.renewal_ms))
}

pub fn is_live(pin: &Pin, cluster: &Cluster, now: Timestamp) -> bool {
    now < live_until(pin, cluster)
}

/// Whether what was asked may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Free,
    /// The pin that holds the lowest offset.
    Held {
        pin: PinId,
        from: Offset,
    },
}

/// Whether readers of `partition` may lose everything below `to` (everything at all where `None`). Pins in the way that
/// have expired are removed in `rows`.
pub(crate) fn may_release_history(
    tables: &Tables,
    partition: TopicPartition,
    to: Option<Offset>,
    now: Timestamp,
    rows: &mut BTreeMap<Key, Option<Row>>,
) -> Verdict {
    may_release(tables, partition, to, now, rows, |pin| pin.holds == Holds::History)
}

/// Whether the bytes of `partition` below `to` (all of them where `None`) may go from the bucket.
pub(crate) fn may_release_bytes(
    tables: &Tables,
    partition: TopicPartition,
    to: Option<Offset>,
    now: Timestamp,
    rows: &mut BTreeMap<Key, Option<Row>>,
) -> Verdict {
    may_release(tables, partition, to, now, rows, |_| true)
}

fn may_release(
    tables: &Tables,
    partition: TopicPartition,
    to: Option<Offset>,
    now: Timestamp,
    rows: &mut BTreeMap<Key, Option<Row>>,
    binds: impl Fn(&Pin) -> bool,
) -> Verdict {
    let mut verdict = Verdict::Free;
    for (id, pin) in tables.pins_of(partition) {
        let from = *pin.scope.get(&partition).expect("a pin is indexed by the partitions it names");
        if !binds(pin) || to.is_some_and(|to| to <= from) || rows.get(&Key::Pin(id)) == Some(&None) {
            continue;
        }
        let cluster = tables.cluster().expect("pins are taken in a term");
        if !is_live(pin, cluster, now) {
            rows.insert(Key::Pin(id), None);
        } else if !matches!(verdict, Verdict::Held { from: lowest, .. } if lowest <= from) {
            verdict = Verdict::Held { pin: id, from };
        }
    }
    verdict
}
