//! Many seeds: each twice, in processes of their own, as many at a time as there are processors.
//!
//! Processes of their own, because a library may count things for as long as its process lives.
//!
//! A batch also fails where something never happened in all of it that a checker looks for: then that checker has shown
//! nothing.

// Outside of every simulation: it starts them, on threads of the machine.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

/// What must happen somewhere in a batch.
const MUST_HAPPEN: [&str; 9] =
    ["acked", "read", "crashes", "collected", "deleted", "brought back", "retired", "cut", "usurped"];

/// Smaller batches may well have no case of each.
const LARGE: u64 = 20;

/// Runs seeds; whether all of them kept every promise, and the same way both times.
pub fn run(seeds: Range<u64>, jobs: Option<usize>, plant: Option<&str>) -> bool {
    let workers = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let next = AtomicU64::new(seeds.start);
    let batch = Mutex::new(Batch::default());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let seen = twice(seed, plant);
                    batch.lock().expect("no worker panics").take(seed, seen);
                }
            });
        }
    });
    batch.into_inner().expect("no worker panics").end()
}

#[derive(Default)]
struct Batch {
    passed: u64,
    failed: Vec<u64>,
    counts: BTreeMap<String, u64>,
}

impl Batch {
    /// Prints what came of a seed as soon as it is known: one line, and what was found.
    fn take(&mut self, seed: u64, seen: Result<Seen>) {
        let found = match seen {
            Ok(seen) => {
                println!("seed {seed}: {}", seen.line);
                for (what, count) in seen.counts {
                    *self.counts.entry(what).or_default() += count;
                }
                seen.found
            }
            Err(error) => vec![format!("{error:#}")],
        };
        for what in &found {
            println!("seed {seed}: {what}");
        }
        if found.is_empty() {
            self.passed += 1;
        } else {
            self.failed.push(seed);
        }
    }

    fn end(mut self) -> bool {
        let counts: Vec<_> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        println!("in all: {}", counts.join(", "));
        let mut holds = self.failed.is_empty();
        let seeds = self.passed + self.failed.len() as u64;
        for what in MUST_HAPPEN.into_iter().filter(|_| seeds >= LARGE) {
            if self.counts.get(what).is_none_or(|count| *count == 0) {
                println!("of {seeds} seeds none has anything {what}: what looks for it has shown nothing");
                holds = false;
            }
        }
        self.failed.sort_unstable();
        if !self.failed.is_empty() {
            let seeds: Vec<_> = self.failed.iter().map(u64::to_string).collect();
            println!("failed seeds: {}", seeds.join(" "));
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        holds
    }
}

/// What came of a seed.
struct Seen {
    line: String,
    /// Broken promises, a second run that went another way among them.
    found: Vec<String>,
    counts: BTreeMap<String, u64>,
}

fn twice(seed: u64, plant: Option<&str>) -> Result<Seen> {
    let first = once(seed, plant)?;
    let second = once(seed, plant)?;
    let mut seen = read(&first).with_context(|| format!("read what the run printed: {first}"))?;
    if first != second {
        seen.found.push(format!("the second run ended differently: {second}"));
    }
    Ok(seen)
}

/// One run in a process of its own: what it printed.
fn once(seed: u64, plant: Option<&str>) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--once", "--seed", &seed.to_string()]).stderr(Stdio::piped());
    if let Some(plant) = plant {
        command.args(["--plant", plant]);
    }
    let output = command.output()?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!("the run ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end())
    })
}

fn read(printed: &Value) -> Result<Seen> {
    let text = |value: &Value, at: &str| {
        value.get(at).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {at}"))
    };
    let violations = printed.get("violations").and_then(Value::as_array).context("no violations")?;
    let found = violations.iter().map(|one| Ok(format!("{}: {}", text(one, "check")?, text(one, "what")?)));
    let found = found.collect::<Result<_>>()?;
    let counts = printed.get("counts").and_then(Value::as_object).context("no counts")?;
    let counts: BTreeMap<_, _> =
        counts.iter().map(|(what, count)| (what.clone(), count.as_u64().unwrap_or(0))).collect();
    let number = |at| printed.get(at).and_then(Value::as_u64).unwrap_or(0);
    let happened: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    let line = format!(
        "{} WAL, {}, {} events, {} ms simulated, digest {}",
        text(printed, "wal")?,
        happened.join(", "),
        number("events"),
        number("simulated_ms"),
        text(printed, "digest")?
    );
    Ok(Seen { line, found, counts })
}
