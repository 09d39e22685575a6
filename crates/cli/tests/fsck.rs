//! `forebay bucket fsck` beside a running broker and after it: the real binary, under load, on a folder that is thrown
//! away.

// A test of processes: what feeds one of them is a thread of its own.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::Value;

fn forebay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.env_remove("FOREBAY_BUCKET").env_remove("FOREBAY_WAL");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A process of the binary; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already where the test killed it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A broker on `data`, and where it listens.
fn broker(data: &Path, wal: &str) -> (Running, String) {
    let mut command = forebay();
    command.args(["dev", "--format", "json", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--wal", wal]);
    let mut process = Running(command.arg("--data").arg(data).spawn().expect("the binary starts"));
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("what is ready, as JSON");
    (process, ready["kafka"].as_str().expect("an address").to_owned())
}

/// Writes records, each after the acknowledgement of the one before, until its input is closed.
fn producer(kafka: &str) -> (Running, ChildStdin) {
    let mut command = forebay();
    command.args(["topic", "produce", "orders", "-b", kafka]).stdin(Stdio::piped());
    let mut process = Running(command.spawn().expect("the binary starts"));
    let input = process.0.stdin.take().expect("piped");
    (process, input)
}

/// Exit code and report of a deep check.
fn fsck(arguments: &[&str]) -> (i32, Value) {
    let mut command = forebay();
    let done = command.args(["--format", "json", "bucket", "fsck", "--deep"]).args(arguments).output().expect("starts");
    let text = String::from_utf8_lossy(&done.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (done.status.code().expect("it ends by itself"), report)
}

fn findings(report: &Value) -> Vec<String> {
    let found = report["findings"].as_array().expect("a list");
    found.iter().map(|finding| format!("{}: {}", finding["severity"], finding["what"])).collect()
}

/// Beside a broker under load nothing is told as damage, and that its write-ahead log was not looked into is said; with
/// the broker gone it is.
#[test]
fn a_healthy_broker_is_not_told_to_be_damaged() {
    for wal in ["disk", "object"] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_str().expect("UTF-8");
        let (running, kafka) = broker(folder.path(), wal);
        let created = forebay().args(["topic", "create", "orders", "-b", &kafka]).status().expect("the binary starts");
        assert!(created.success());
        let (producing, mut input) = producer(&kafka);
        let load = std::thread::spawn(move || {
            let line = format!("{}\n", "x".repeat(64 << 10));
            // Until the producer is gone, which closes its input.
            while input.write_all(line.as_bytes()).is_ok() {}
        });
        for round in 0..4 {
            let (code, report) = fsck(&["--data", data]);
            let found = findings(&report);
            assert_eq!((code, &report["clean"]), (0, &Value::Bool(true)), "{wal}, round {round}: {found:?}");
            if wal == "disk" {
                let [note] = &found[..] else { panic!("one note: {found:?}") };
                assert!(note.contains("was not checked") && note.contains("in use by a running broker"), "{note}");
                assert_eq!((&report["walsNotChecked"], &report["walBatches"]), (&1.into(), &0.into()));
            } else {
                assert!(found.is_empty(), "{found:?}");
            }
        }
        // SIGKILL: what the write-ahead log holds is looked into now, and all of it is sound.
        drop(running);
        drop(producing);
        load.join().expect("it does not panic");
        let (code, report) = fsck(&["--data", data]);
        assert_eq!((code, &report["walsNotChecked"]), (0, &0.into()), "{wal}: {:?}", findings(&report));
        assert!(report["records"].as_u64().max(report["walBatches"].as_u64()) > Some(0), "{wal}: {report}");

        // By its own name the bucket has no data folder, and a folder of somebody else's is not taken for it.
        let bucket = format!("file://{}", folder.path().join("bucket").display());
        let (code, report) = fsck(&["--bucket", &bucket]);
        let unchecked = u64::from(wal == "disk");
        assert_eq!((code, &report["walsNotChecked"]), (0, &unchecked.into()), "{wal}: {:?}", findings(&report));
    }
}
