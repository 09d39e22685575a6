//! Side by side with Apache Kafka: same client, same disk, same records, in turns.
//!
//! Both brokers run the whole time; each round measures one, then the other, after a round that only warms up. A figure
//! is the median over rounds with the lowest and highest; the ratio is taken round by round.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{build_load, load, resident_mib};
use crate::rigs::{Broker, Jars, Wal};
use crate::shell;

/// Rounds below which a spread says little.
const ROUNDS_MIN: u32 = 5;

#[derive(Args)]
// Its name is another group's already.
#[group(skip)]
pub(super) struct Options {
    /// Measured rounds, at least 5.
    #[arg(long, default_value_t = ROUNDS_MIN)]
    rounds: u32,
    /// MiB produced and consumed in each round.
    #[arg(long, default_value_t = 512)]
    mib: u32,
}

/// What a round measures, in order.
const MEASURES: [(&str, &str); 9] = [
    ("produce", "MiB/s"),
    ("produce, user time", "CPU s/GiB"),
    ("produce, system time", "CPU s/GiB"),
    ("consume", "MiB/s"),
    ("consume, user time", "CPU s/GiB"),
    ("consume, system time", "CPU s/GiB"),
    ("ack p50 at 1,000 records/s", "µs"),
    ("ack p99 at 1,000 records/s", "µs"),
    ("resident after load", "MiB"),
];

type Figures = [f64; MEASURES.len()];

pub(super) fn run(wal: Wal, options: &Options) -> Result<()> {
    ensure!(options.rounds >= ROUNDS_MIN, "--rounds {}: fewer than {ROUNDS_MIN} tell no spread", options.rounds);
    let program = build_load()?;
    let ours = Broker::forebay(wal)?;
    let theirs = Broker::kafka(&Jars::fetch()?)?;
    let idle = [resident_mib(&ours)?, resident_mib(&theirs)?];
    let mut rounds: Vec<[Figures; 2]> = Vec::new();
    for number in 0..=options.rounds {
        shell::say(&if number == 0 { "warm up".to_owned() } else { format!("round {number}") });
        let figures = [round(&program, &ours, number, options.mib)?, round(&program, &theirs, number, options.mib)?];
        if number > 0 {
            rounds.push(figures);
        }
    }
    println!();
    println!(
        "{} rounds, {} MiB each; records of 1 KiB, 6 partitions, acks=all, no compression, librdkafka with",
        options.rounds, options.mib
    );
    println!("linger 5 ms and batches of up to 1 MB. Forebay syncs before each ack, Apache Kafka does not sync.");
    println!(
        "ready after {} ms and {} ms; resident idle {:.0} MiB and {:.0} MiB",
        ours.ready().as_millis(),
        theirs.ready().as_millis(),
        idle[0],
        idle[1]
    );
    println!();
    println!("{:<28} {:>26} {:>26} {:>22}", "", "Forebay", "Apache Kafka", "ratio");
    for (place, (name, unit)) in MEASURES.iter().enumerate() {
        let column = |broker: usize| rounds.iter().map(|round| round[broker][place]).collect::<Vec<_>>();
        let ratios = rounds.iter().map(|round| round[0][place] / round[1][place]).collect();
        println!(
            "{:<28} {:>26} {:>26} {:>22}",
            format!("{name}, {unit}"),
            spread(column(0)),
            spread(column(1)),
            spread(ratios)
        );
    }
    ours.stop()?;
    theirs.stop()
}

fn round(program: &Path, broker: &Broker, number: u32, mib: u32) -> Result<Figures> {
    let (topic, mib_text) = (format!("bench-{number}"), mib.to_string());
    let run = |what: &str, amount: &str| load(program, broker, what, &[&topic, amount]);
    let gib = f64::from(mib) / 1024.0;
    let before = cpu_seconds(broker)?;
    let produced = run("produce", &mib_text)?;
    let between = cpu_seconds(broker)?;
    let consumed = run("consume", &mib_text)?;
    let after = cpu_seconds(broker)?;
    let latency = run("latency", "10")?;
    let [Some(produced), Some(consumed)] = [produced.first(), consumed.first()] else { bail!("a run printed nothing") };
    let [p50, p99] = latency[..] else { bail!("the latency run printed {latency:?}") };
    Ok([
        *produced,
        (between[0] - before[0]) / gib,
        (between[1] - before[1]) / gib,
        *consumed,
        (after[0] - between[0]) / gib,
        (after[1] - between[1]) / gib,
        p50,
        p99,
        resident_mib(broker)?,
    ])
}

/// User and system time of a broker so far.
fn cpu_seconds(broker: &Broker) -> Result<[f64; 2]> {
    let path = format!("/proc/{}/stat", broker.process());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}: benchmarks need Linux"))?;
    // The second field, in parentheses, may hold anything; fields 14 and 15 are the two times in ticks.
    let rest = text.rsplit_once(')').context("a process has a name")?.1;
    let field = |number: usize| rest.split_whitespace().nth(number - 3).and_then(|field| field.parse::<f64>().ok());
    let ticks: f64 = shell::output(shell::command("getconf").arg("CLK_TCK"))?.trim().parse()?;
    let [Some(user), Some(system)] = [field(14), field(15)] else { bail!("no times in {path}") };
    Ok([user / ticks, system / ticks])
}

/// Median, and in brackets the lowest and highest.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (values.first(), values.last()) else { return String::new() };
    let middle = values.len() / 2;
    let median =
        if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] };
    format!("{median:.2} [{low:.2}, {high:.2}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median is the middle value, or between the two middle ones, whatever the order.
    #[test]
    fn the_spread_is_told_with_the_median() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), "2.00 [1.00, 3.00]");
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), "2.50 [1.00, 4.00]");
    }
}
