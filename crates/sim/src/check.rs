//! The promises that are checked at the end of a run, against what the clients wrote down.
//!
//! `tests/planted.rs` plants bugs and shows which checks they turn red.

use std::collections::BTreeMap;

use forebay_types::{Offset, Timestamp};

use crate::history::{Ended, Fate, History, Leave, Seen, Sent, Violation};
use crate::workload::Audit;

/// Everything that the history and the audit contradict, sorted.
pub fn check(history: &History, audit: &Audit) -> Vec<Violation> {
    history.with(|seen| {
        let mut violations = seen.violations.clone();
        nothing_acknowledged_is_lost(seen, audit, &mut violations);
        nothing_goes_that_should_stay(seen, audit, &mut violations);
        nothing_is_there_twice(seen, audit, &mut violations);
        nothing_aborted_was_seen(seen, audit, &mut violations);
        transactions_are_whole(seen, audit, &mut violations);
        nothing_appears_from_nowhere(seen, audit, &mut violations);
        violations.sort();
        violations.dedup();
        violations
    })
}

/// Whether a value's place tells nothing about it any more: its topic is gone, or it lies, or may lie, below the log start.
fn is_out_of_sight(audit: &Audit, sent: &Sent) -> bool {
    match audit.log_starts.get(&sent.place) {
        None => true,
        Some(start) => *start > sent.acked_at.unwrap_or(Offset::ZERO),
    }
}

fn nothing_acknowledged_is_lost(seen: &Seen, audit: &Audit, violations: &mut Vec<Violation>) {
    for (value, sent) in &seen.sent {
        let Fate::Acked(offset) = sent.fate else { continue };
        let there = audit.committed.get(value).is_some_and(|places| places.contains(&(sent.place.clone(), offset)));
        if !there && !is_out_of_sight(audit, sent) {
            let (topic, index) = &sent.place;
            let places = audit.all.get(value).map(Vec::as_slice).unwrap_or_default();
            let what = format!("{value} was acknowledged in {topic}-{index} at offset {offset}, and is at {places:?}");
            violations.push(Violation { check: "nothing acknowledged is lost", what });
        }
    }
}

/// A topic is gone only where it was deleted, and a log start has risen only as far as somebody asked, or past what was old
/// by the time that it was first seen there.
fn nothing_goes_that_should_stay(seen: &Seen, audit: &Audit, violations: &mut Vec<Violation>) {
    let check = "nothing goes that should stay";
    for (value, sent) in seen.sent.iter().filter(|(_, sent)| sent.acked_at.is_some() && is_out_of_sight(audit, sent)) {
        let (topic, index) = &sent.place;
        let old = match seen.leaves.get(topic) {
            Some(Leave::All) => true,
            Some(Leave::Older(ms)) => gone_by(seen, audit, sent).millis_since(sent.at) >= *ms,
            None => false,
        };
        let cut = seen.cuts.get(&sent.place).is_some_and(|cut| sent.acked_at < Some(*cut));
        if !old && !cut {
            let start = audit.log_starts.get(&sent.place);
            let what = format!("{value} was in {topic}-{index} at {:?}, whose log starts at {start:?}", sent.acked_at);
            violations.push(Violation { check, what });
        }
    }
}

/// By when at the latest a value lay below its log start, as the brokers' clocks may have shown it.
fn gone_by(seen: &Seen, audit: &Audit, sent: &Sent) -> Timestamp {
    let starts = seen.starts.get(&sent.place).map(Vec::as_slice).unwrap_or_default();
    let first = starts.iter().find(|(start, _)| Some(*start) > sent.acked_at);
    first.map_or(audit.clocks_highest, |(_, at)| *at)
}

fn nothing_is_there_twice(seen: &Seen, audit: &Audit, violations: &mut Vec<Violation>) {
    // A transaction that was aborted may have been written again by the next: only what is visible counts there.
    for (value, places) in &audit.all {
        let transactional = seen.sent.get(value).is_some_and(|sent| sent.transaction.is_some());
        let places = if transactional { audit.committed.get(value).unwrap_or(places) } else { places };
        if places.len() > 1 {
            let what = format!("{value} is there {} times: {places:?}", places.len());
            violations.push(Violation { check: "no duplicate from an idempotent producer", what });
        }
    }
}

fn nothing_aborted_was_seen(seen: &Seen, audit: &Audit, violations: &mut Vec<Violation>) {
    for (value, sent) in seen.sent.iter().filter(|(_, sent)| sent.fate == Fate::Aborted) {
        if audit.committed.contains_key(value) || seen.committed.contains(value) {
            let what = format!("{value} of aborted transaction {:?} was given to a reader", sent.transaction);
            violations.push(Violation { check: "read_committed shows nothing aborted", what });
        }
    }
}

fn transactions_are_whole(seen: &Seen, audit: &Audit, violations: &mut Vec<Violation>) {
    let mut counts: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for (value, sent) in &seen.sent {
        let Some(transaction) = sent.transaction else { continue };
        let visible = audit.committed.contains_key(value);
        if !visible && is_out_of_sight(audit, sent) {
            continue;
        }
        let (sent, shown) = counts.entry(transaction).or_default();
        *sent += 1;
        *shown += usize::from(visible);
    }
    for (transaction, (sent, visible)) in counts {
        let ended = seen.transactions.get(&transaction).copied().unwrap_or(Ended::Unknown);
        let whole = match ended {
            Ended::Committed => visible == sent,
            Ended::Aborted => visible == 0,
            Ended::Unknown => visible == 0 || visible == sent,
        };
        if !whole {
            let what =
                format!("{visible} of {sent} records of transaction {transaction} are visible, it ended {ended:?}");
            violations.push(Violation { check: "transactions are whole or not there", what });
        }
    }
}

fn nothing_appears_from_nowhere(seen: &Seen, audit: &Audit, violations: &mut Vec<Violation>) {
    for (value, places) in &audit.all {
        let from_here = seen.sent.get(value).is_some_and(|sent| places.iter().all(|(place, _)| *place == sent.place));
        if !from_here {
            let what = format!("{value} at {places:?} was never sent there");
            violations.push(Violation { check: "what is read was sent", what });
        }
    }
}
