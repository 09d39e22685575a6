//! Every checker finds the bug that was planted for it, and finds nothing where nothing was planted.

use std::collections::BTreeSet;

use forebay_sim::plan::{Plan, Plant};
use forebay_sim::run;

/// Seeds tried before a planted bug counts as not found.
const SEEDS: u64 = 12;

/// The checks that a planted bug makes red over some seeds.
fn found(plant: Plant) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let outcome =
            run(&Plan::planted(seed, plant)).unwrap_or_else(|error| panic!("{plant:?}, seed {seed}: {error}"));
        found.extend(outcome.violations.iter().map(|violation| violation.check));
        if !found.is_empty() {
            break;
        }
    }
    found
}

fn is_found(plant: Plant, checks: &[&str]) {
    let found = found(plant);
    assert!(
        checks.iter().any(|check| found.contains(check)),
        "{plant:?} should turn one of {checks:?} red, seen: {found:?}"
    );
}

#[test]
fn a_missing_sync_is_found_by_what_is_lost() {
    is_found(
        Plant::MissingSync,
        &[
            "nothing acknowledged is lost",
            "offsets never diverge",
            "nothing acknowledged is out of range",
            "every client is done in the end",
        ],
    );
}

#[test]
fn an_ack_before_the_write_is_found_by_what_is_lost() {
    is_found(
        Plant::AckBeforeWrite,
        &["nothing acknowledged is lost", "offsets never diverge", "nothing acknowledged is out of range"],
    );
}

#[test]
fn forgotten_producers_are_found_by_what_is_there_twice_or_seen() {
    is_found(
        Plant::ForgetProducerState,
        &[
            "no duplicate from an idempotent producer",
            "read_committed shows nothing aborted",
            "transactions are whole or not there",
        ],
    );
}

#[test]
fn ignored_aborts_are_found_by_what_was_seen() {
    is_found(Plant::IgnoreAborts, &["read_committed shows nothing aborted"]);
}

#[test]
fn a_collector_that_does_not_ask_is_found_by_what_is_missing() {
    is_found(Plant::CollectReachable, &["nothing reachable was collected or damaged"]);
}

/// The program runs each seed twice, in processes of their own, and compares their digests over every event.
#[test]
fn a_sound_broker_breaks_no_promise_and_repeats_itself() {
    let program =
        std::process::Command::new(env!("CARGO_BIN_EXE_forebay-sim")).args(["--seed", "1", "--seeds", "2"]).output();
    let output = program.expect("the simulation starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.ends_with("2 passed, 0 failed\n"), "{printed}");
}
