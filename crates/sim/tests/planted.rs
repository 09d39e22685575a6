//! Every checker finds the bug that was planted for it, and finds nothing where nothing was planted.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use forebay_sim::plan::Plant;
use serde_json::Value;

/// Seeds tried before a planted bug counts as not found.
const SEEDS: u64 = 12;

/// Runs seeds with the bug until each of `checks` has turned red.
fn is_found(plant: Plant, checks: &[&str]) {
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let output = simulation(&["--once", "--seed", &seed.to_string(), "--plant", plant.name()]);
        // An assertion of the broker's may be what finds it: no outcome then, and another seed.
        let Ok(outcome) = serde_json::from_slice::<Value>(&output.stdout) else {
            found.insert(format!("seed {seed} ended with {}", output.status));
            continue;
        };
        let violations = outcome.get("violations").and_then(Value::as_array).expect("an outcome lists violations");
        found.extend(violations.iter().map(|one| one["check"].as_str().expect("a check has a name").to_owned()));
        if checks.iter().all(|check| found.contains(*check)) {
            return;
        }
    }
    panic!("{plant:?} should turn all of {checks:?} red within {SEEDS} seeds, seen: {found:?}");
}

/// In a process of its own, which a bug may well end.
fn simulation(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay-sim")).args(arguments).output().expect("the simulation starts")
}

/// What is lost lies at the end of the log, so that it is out of range, or other records have its offsets.
#[test]
fn a_missing_sync_is_found_by_what_is_lost() {
    is_found(Plant::MissingSync, &["nothing acknowledged is out of range", "offsets never diverge"]);
}

#[test]
fn an_ack_before_the_write_is_found_by_what_is_lost() {
    is_found(Plant::AckBeforeWrite, &["nothing acknowledged is lost"]);
}

#[test]
fn records_served_before_they_are_durable_are_found_by_offsets_that_go_back() {
    is_found(Plant::ServeBeforeDurable, &["offsets only grow", "offsets never diverge"]);
}

#[test]
fn forgotten_producers_are_found_by_what_is_there_twice() {
    is_found(Plant::ForgetProducerState, &["no duplicate from an idempotent producer"]);
}

#[test]
fn ignored_aborts_are_found_by_what_was_seen() {
    is_found(Plant::IgnoreAborts, &["read_committed shows nothing aborted"]);
}

#[test]
fn missing_markers_are_found_by_transactions_that_are_not_whole() {
    is_found(Plant::HalfMarkers, &["transactions are whole or not there"]);
}

#[test]
fn a_writer_that_ignores_its_fence_is_found_by_what_is_lost() {
    is_found(Plant::IgnoreFence, &["nothing acknowledged is lost"]);
}

#[test]
fn a_collector_that_does_not_ask_is_found_by_what_is_missing() {
    is_found(Plant::CollectByAge, &["nothing reachable was collected or damaged"]);
}

#[test]
fn a_trash_that_is_emptied_early_is_found_by_who_comes_for_a_topic() {
    is_found(Plant::PurgeEarly, &["no schedule strands a live pin"]);
}

#[test]
fn a_generation_that_goes_on_is_found_by_its_two_owners() {
    is_found(Plant::KeepGeneration, &["one owner per generation"]);
}

#[test]
fn records_that_go_before_their_time_are_found_by_what_should_stay() {
    is_found(Plant::RetireEarly, &["nothing goes that should stay"]);
}

#[test]
fn records_that_nobody_asked_to_delete_are_found_by_what_should_stay() {
    is_found(Plant::CutTooFar, &["nothing goes that should stay", "nothing acknowledged is out of range"]);
}

#[test]
fn records_of_other_partitions_are_found_by_what_was_sent() {
    is_found(Plant::StrayRecords, &["what is read was sent"]);
}

#[test]
fn a_transaction_that_never_ends_is_found_by_who_waits_for_it() {
    is_found(Plant::ForgetPrepared, &["every client is done in the end"]);
}

/// The program runs each seed twice, in processes of their own, and compares their digests over every event.
#[test]
fn a_sound_broker_breaks_no_promise_and_repeats_itself() {
    let output = simulation(&["--seed", "1", "--seeds", "2"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.ends_with("2 passed, 0 failed\n"), "{printed}");
}
