//! Starting: how soon an empty broker is ready and what it takes while idle; how soon one with many partitions and a long
//! history is, after it was stopped and after it was killed under load.
//!
//! A broker has opened its history when `/ready` says so and when a consumer has records from the beginning of
//! partitions all over the topic: those are in the bucket, and nothing of them in memory.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{build_load, load, resident_mib};
use crate::rigs::{Broker, End, Wal};
use crate::shell;

const TOPIC: &str = "history";

/// Of so many partitions one is read after a start.
const READ_EVERY: u32 = 100;

/// What is acknowledged between a start and the kill under load.
const LOAD_BEFORE_KILL_MIB: u64 = 256;

/// Bytes on the disk for each byte of history: what lies in the write-ahead log too, indexes, metadata, and room to spare.
const ROOM_PERCENT: u64 = 120;
const ROOM_BESIDES_GIB: u64 = 2;

#[derive(Args)]
// Its name is another group's already.
#[group(skip)]
pub(super) struct Options {
    /// GiB of history that a broker opens.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1024))]
    gib: u32,
    /// Partitions that the history is spread over.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    partitions: u32,
    /// KiB in one record batch of it: the smaller, the more ranges in each object.
    #[arg(long, default_value_t = 896, value_parser = clap::value_parser!(u32).range(1..=960))]
    batch_kib: u32,
}

/// Fails where the history would fill the disk.
pub(super) fn check_room(options: &Options) -> Result<()> {
    let folder = std::env::temp_dir();
    let (needed, free) = (room_needed_gib(options.gib), free_gib(&folder)?);
    ensure!(
        free >= needed,
        "{} GiB of history need {needed} GiB of room, and {} has {free}: --gib takes a smaller one, TMPDIR names another \
         folder",
        options.gib,
        folder.display()
    );
    Ok(())
}

fn room_needed_gib(gib: u32) -> u64 {
    (u64::from(gib) * ROOM_PERCENT).div_ceil(100) + ROOM_BESIDES_GIB
}

/// What `df` says is free where a folder is.
fn free_gib(folder: &Path) -> Result<u64> {
    let text = shell::output(shell::command("df").arg("-Pk").arg(folder))?;
    let kib = text.lines().last().and_then(|line| line.split_whitespace().nth(3)).and_then(|field| field.parse().ok());
    let kib: u64 = kib.with_context(|| format!("read what df printed: {text:?}"))?;
    Ok(kib >> 20)
}

pub(super) fn run(wal: Wal, options: &Options) -> Result<()> {
    let program = build_load()?;
    let mut broker = Broker::forebay(wal)?.without_remains();
    let (ready, idle) = (broker.ready(), resident_mib(&broker)?);
    shell::say(&format!("{} GiB over {} partitions", options.gib, options.partitions));
    let fill = |gib: u32| [gib, options.partitions, options.batch_kib].map(|number| number.to_string());
    let filled =
        load(&program, &broker, "fill", &[TOPIC, &fill(options.gib)[0], &fill(options.gib)[1], &fill(options.gib)[2]])?;
    let rate = filled.last().copied().context("the load generator printed nothing")?;
    let full = resident_mib(&broker)?;

    shell::say("SIGTERM, and start again");
    let drained = broker.restart(End::Stop)?;
    let stopped = Opened::measure(&program, &broker)?;

    shell::say("kill -9 under load, and start again");
    let arguments = fill(options.gib);
    let mut producer = Producer::start(&program, &broker, &arguments)?;
    producer.acknowledged(LOAD_BEFORE_KILL_MIB)?;
    broker.restart(End::Kill)?;
    drop(producer);
    let killed = Opened::measure(&program, &broker)?;
    broker.stop()?;

    println!();
    println!(
        "{} GiB in {} partitions of one topic, records of 1 KiB that do not compress in batches of {} KiB; librdkafka, acks=all",
        options.gib, options.partitions, options.batch_kib
    );
    println!("{:<34} {:>9} {:>16} {:>14}", "", "ready, ms", "all answer, ms", "resident, MiB");
    println!("{:<34} {:>9} {:>16} {:>14.1}", "empty", ready.as_millis(), "", idle);
    println!("{:<34} {:>9} {:>16} {:>14.1}", format!("full, at {rate:.0} MiB/s"), "", "", full);
    stopped.print(&format!("after SIGTERM (drained in {} ms)", drained.as_millis()));
    killed.print("after kill -9 under load");
    Ok(())
}

/// A broker that has just been started on its history.
struct Opened {
    ready: Duration,
    /// Until the last of the partitions that were asked has answered with a record, the consumer's own start included.
    answers: Duration,
    resident_mib: f64,
}

impl Opened {
    fn measure(program: &Path, broker: &Broker) -> Result<Self> {
        let (ready, idle) = (broker.ready(), resident_mib(broker)?);
        let asked = Instant::now();
        let read = load(program, broker, "first", &[TOPIC, &READ_EVERY.to_string()])?;
        let answers = ready + asked.elapsed();
        println!("{} partitions have answered", read.len());
        ensure!(!read.is_empty(), "no partition has answered");
        Ok(Self { ready, answers, resident_mib: idle })
    }

    fn print(&self, what: &str) {
        let Self { ready, answers, resident_mib } = self;
        println!("{what:<34} {:>9} {:>16} {resident_mib:>14.1}", ready.as_millis(), answers.as_millis());
    }
}

/// A load generator that goes on until it is dropped.
struct Producer {
    process: Child,
    printed: BufReader<std::process::ChildStdout>,
}

impl Producer {
    fn start(program: &Path, broker: &Broker, arguments: &[String; 3]) -> Result<Self> {
        let mut command = shell::command(program);
        command.args(["fill", broker.bootstrap(), TOPIC]).args(arguments);
        // What it says of its broker's death is of no interest.
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start the load")?;
        let printed = BufReader::new(process.stdout.take().expect("stdout was asked for"));
        Ok(Self { process, printed })
    }

    /// Waits until it has had so many MiB acknowledged.
    fn acknowledged(&mut self, mib: u64) -> Result<()> {
        for line in self.printed.by_ref().lines() {
            let line = line.context("read what the load generator prints")?;
            if line.trim().parse::<u64>().is_ok_and(|acknowledged| acknowledged >= mib) {
                return Ok(());
            }
        }
        bail!("the load has ended before {mib} MiB were acknowledged")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room is more than the history, and whole GiB.
    #[test]
    fn room_is_asked_for_generously() {
        assert_eq!([1, 2, 10].map(room_needed_gib), [4, 5, 14]);
        assert!(free_gib(Path::new("/")).is_ok_and(|gib| gib < 1 << 40));
    }
}
