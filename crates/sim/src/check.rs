//! The promises that are checked at the end of a run, against what the clients wrote down.
//!
//! `tests/planted.rs` plants bugs and shows which checks they turn red.

use std::collections::BTreeMap;

use crate::history::{Ended, Fate, History, Seen, Violation};
use crate::workload::Audit;

/// Everything that the history and the audit contradict, sorted.
pub fn check(history: &History, audit: &Audit) -> Vec<Violation> {
    history.with(|seen| {
        let mut violations = seen.violations.clone();
        nothing_acknowledged_is_lost(seen, audit, &mut violations);
        nothing_is_there_twice(seen, audit, &mut violations);
        nothing_aborted_was_seen(seen, audit, &mut violations);
        transactions_are_whole(seen, audit, &mut violations);
        nothing_appears_from_nowhere(seen, audit, &mut violations);
        violations.sort();
        violations.dedup();
        violations
    })
}

fn nothing_acknowledged_is_lost(seen: &Seen, audit: &Audit, violations: &mut Vec<Violation>) {
    for (value, sent) in &seen.sent {
        let Fate::Acked(offset) = sent.fate else { continue };
        let there = audit.committed.get(value).is_some_and(|places| places.contains(&(sent.place.clone(), offset)));
        if !there {
            let what = format!("{value} was acknowledged in {}-{} at offset {offset}", sent.place.0, sent.place.1);
            violations.push(Violation { check: "nothing acknowledged is lost", what });
        }
    }
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
        let (sent, visible) = counts.entry(transaction).or_default();
        *sent += 1;
        *visible += usize::from(audit.committed.contains_key(value));
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
