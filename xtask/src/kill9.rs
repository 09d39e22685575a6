//! Many `kill -9` of the broker under transactional load: the demo again and again, its kills added up.
//!
//! Each run of the demo feeds the same departures through the exactly-once pipeline, kills broker and pipeline at the
//! points of its seed, and proves that nothing was lost or doubled. Then `forebay bucket fsck` has to find what is left
//! behind whole, and, after the last run, to name the damage that one flipped byte does. Seeds count up from the first, so
//! a failure names its own.

mod aftermath;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::rigs::Wal;
use crate::{shell, workspace};

/// Kills in one run of the demo, of broker and pipeline together.
const KILLS_PER_RUN: &str = "40";

#[derive(Args)]
pub struct Options {
    /// How often the broker is killed at least.
    #[arg(long, default_value_t = 200, requires = "long")]
    rounds: u64,
    /// The seed of the first run.
    #[arg(long, default_value_t = 1, requires = "long")]
    seed: u64,
    /// The broker's write-ahead log; both kinds, one after the other, where it is not given.
    #[arg(long, value_enum, requires = "long")]
    wal: Option<Wal>,
}

pub fn run(options: &Options) -> Result<()> {
    shell::say("build the demo");
    shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "forebay-cli"]))?;
    let kinds = options.wal.map_or(vec![Wal::Disk, Wal::Object], |kind| vec![kind]);
    let (mut passed, mut failed) = (0, 0);
    for kind in kinds.into_iter().map(Wal::name) {
        match kill(options, kind) {
            Ok(()) => passed += 1,
            Err(error) => {
                eprintln!("{kind}: {error:#}");
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("the proof failed");
    }
    Ok(())
}

fn kill(options: &Options, kind: &str) -> Result<()> {
    let started = Instant::now();
    let (mut brokers, mut pipelines, mut rows, mut seed) = (0, 0, 0, options.seed);
    let (mut lost, mut duplicated) = (0, 0);
    while brokers < options.rounds {
        let folder = fresh_folder(kind, seed)?;
        let kept = || format!("seed {seed}: what is left behind stays in {}", folder.display());
        let report = demo(kind, seed, &folder).with_context(kept)?;
        let number =
            |at: &str| report.pointer(at).and_then(Value::as_u64).with_context(|| format!("the report has no {at}"));
        if report["holds"] != true {
            let (why, again) = (&report["broken"]["what"], &report["again"]);
            bail!("seed {seed}: lost {}, duplicated {}: {why}; again: {again}", report["lost"], report["duplicated"]);
        }
        lost += number("/lost")?;
        duplicated += number("/duplicated")?;
        if lost > 0 || duplicated > 0 {
            bail!("seed {seed}: lost {lost}, duplicated {duplicated}, and the proof says that it holds");
        }
        brokers += number("/killed/broker")?;
        pipelines += number("/killed/pipeline")?;
        rows += number("/rows")?;
        let data = folder.join("broker");
        let looked = aftermath::is_clean(&data).with_context(kept)?;
        println!(
            "{kind} seed {seed}: {brokers} kills of the broker so far, {pipelines} of the pipeline; fsck: clean, {} records, \
             {} batches",
            looked.records, looked.batches
        );
        if brokers >= options.rounds {
            let named = aftermath::flipped_byte_is_named(&data).with_context(kept)?;
            println!("{kind} seed {seed}: fsck after a flipped byte: {named}");
        }
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        seed += 1;
    }
    println!(
        "{kind}: {brokers} kills of the broker and {pipelines} of the pipeline, seeds {} to {}, {rows} committed rows, \
         lost {lost}, duplicated {duplicated}, fsck clean each time, {} s",
        options.seed,
        seed - 1,
        started.elapsed().as_secs()
    );
    Ok(())
}

/// An empty folder for one run.
fn fresh_folder(kind: &str, seed: u64) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("forebay-kill9-{kind}-{seed}-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// The report of one run, of a proof that holds or of one that has failed.
fn demo(kind: &str, seed: u64, folder: &Path) -> Result<Value> {
    let mut command = shell::command(workspace::release_binary("forebay"));
    let seed = seed.to_string();
    command.args(["--format", "json", "demo", "--wal", kind, "--kills", KILLS_PER_RUN, "--seed", &seed, "--data"]);
    command.arg(folder);
    let done = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    let (printed, told) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    serde_json::from_str(&printed).with_context(|| format!("read the demo's report ({}): {printed}{told}", done.status))
}
