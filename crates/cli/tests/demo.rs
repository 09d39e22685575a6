//! The demo as a person runs it: its proof holds, and each planted fault turns a check of its own red.

use std::process::Command;

use serde_json::Value;

/// Exit code and report.
fn demo(arguments: &[&str]) -> (i32, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["demo", "--format", "json", "--seed", "1", "--data"])
        .arg(folder.path())
        .args(arguments)
        .output()
        .expect("the binary runs");
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {error}"));
    (output.status.code().unwrap_or(-1), report)
}

/// Nothing is lost or doubled, the table is the file's, and each kill was where it was to be.
fn holds(kills: usize, wal: &str) {
    let (code, report) = demo(&["--kills", &kills.to_string(), "--wal", wal]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["lost"], &report["duplicated"]), (&0.into(), &0.into()));
    assert!(report["table"].is_array() && report["table"] == report["file"], "{report:#}");
    assert_eq!((&report["rows"], &report["table"][0]["flights"]), (&27_004.into(), &1573.into()), "{report:#}");
    let carried_out = report["kills"].as_array().expect("a list");
    assert_eq!(carried_out.len(), kills);
    assert!(carried_out.iter().all(|kill| kill["pointPassed"] == true), "{report:#}");
}

/// A short schedule over all events.
#[test]
fn the_proof_holds() {
    holds(3, "disk");
}

/// The same where the write-ahead log is in the bucket.
#[test]
fn the_proof_holds_with_the_log_in_the_bucket() {
    holds(2, "object");
}

/// A fault, the check that must name it, and the count that must not be 0. One kill is enough: the schedule begins with the
/// one that shows it.
fn turns_red(wal: &str, sabotage: &str, check: &str, counted: &str) {
    let (code, report) = demo(&["--kills", "1", "--wal", wal, "--sabotage", sabotage]);
    assert_eq!((code, &report["broken"]["check"]), (10, &check.into()), "{report:#}");
    assert!(report["counted"][counted].as_u64().is_some_and(|count| count > 0), "{report:#}");
}

#[test]
fn acknowledging_before_writing_is_noticed() {
    turns_red("disk", "ack-before-write", "acknowledged-is-kept", "eventsLost");
}

#[test]
fn acknowledging_before_writing_is_noticed_with_the_log_in_the_bucket() {
    turns_red("object", "ack-before-write", "acknowledged-is-kept", "eventsLost");
}

#[test]
fn forgotten_sequences_are_noticed() {
    turns_red("disk", "forget-producer-state", "every-event-once", "eventsDuplicated");
}

#[test]
fn aborted_rows_taken_for_real_are_noticed() {
    turns_red("disk", "ignore-aborts", "committed-rows-count-on", "rowsDuplicated");
}
