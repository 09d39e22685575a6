//! Apache Kafka's own command-line tools, as its documentation uses them.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::{Report, lines, same};
use crate::rigs::Jars;
use crate::{shell, workspace};

const TOPIC: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIG: &str = "kafka.admin.ConfigCommand";
const PRODUCE: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUME: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";

/// Records of a round trip.
const RECORDS: usize = 300;

struct Tools<'a> {
    jars: &'a Jars,
    bootstrap: &'a str,
}

impl Tools<'_> {
    fn run(&self, class: &str, arguments: &[&str]) -> Result<String> {
        self.feed(class, arguments, "")
    }

    fn feed(&self, class: &str, arguments: &[&str], input: &str) -> Result<String> {
        let all = [&["--bootstrap-server", self.bootstrap], arguments].concat();
        shell::output_with_input(&mut self.jars.tool(class, &all), input)
    }

    /// Offsets of a topic as `index:offset`, one a line.
    fn offsets(&self, topic: &str, time: &str) -> Result<String> {
        let text = self.run(OFFSETS, &["--topic", topic, "--time", time])?;
        Ok(text
            .lines()
            .map(|line| line.trim_start_matches(topic).trim_start_matches(':'))
            .collect::<Vec<_>>()
            .join(" "))
    }

    /// A group's lines by partition: current offset, end offset, lag.
    fn group(&self, group: &str) -> Result<String> {
        let text = self.run(GROUPS, &["--describe", "--group", group])?;
        let mut lines = BTreeSet::new();
        for line in text.lines() {
            let columns: Vec<_> = line.split_whitespace().collect();
            // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …, in 4.x with LEADER-EPOCH before CURRENT-OFFSET.
            let partition = columns.iter().skip(2).find_map(|c| c.parse::<u32>().ok());
            if let Some(partition) = partition
                && columns.first() == Some(&group)
            {
                let numbers = columns[columns.len() - 6..columns.len() - 3].join(" ");
                lines.insert(format!("{partition}: {numbers}"));
            }
        }
        Ok(lines.into_iter().collect::<Vec<_>>().join(", "))
    }
}

pub(super) fn run(jars: &Jars, report: &mut Report, bootstrap: &str) {
    report.suite("kafka tools");
    let tools = Tools { jars, bootstrap };
    topics(&tools, report);
    records(&tools, report);
    groups(&tools, report);
    transactions(&tools, report);
    measures(&tools, report);
    report.case("kafka-topics deletes a topic", || {
        tools.run(TOPIC, &["--delete", "--topic", "tools-admin"])?;
        let listed = tools.run(TOPIC, &["--list"])?;
        ensure!(!listed.lines().any(|line| line == "tools-admin"), "it is still listed");
        Ok(())
    });
}

fn topics(tools: &Tools<'_>, report: &mut Report) {
    report.case("kafka-topics creates, lists and describes a topic", || {
        let create = ["--create", "--topic", "tools-admin", "--partitions", "3", "--config", "retention.ms=3600000"];
        same(tools.run(TOPIC, &create)?.trim(), "Created topic tools-admin.")?;
        let listed = tools.run(TOPIC, &["--list"])?;
        ensure!(listed.lines().any(|line| line == "tools-admin"), "not in {listed:?}");
        let described = tools.run(TOPIC, &["--describe", "--topic", "tools-admin"])?;
        let head = described.lines().next().unwrap_or_default();
        for part in ["Topic: tools-admin\t", "PartitionCount: 3\t", "retention.ms=3600000"] {
            ensure!(head.contains(part), "no {part:?} in {head:?}");
        }
        let partitions = described.lines().skip(1);
        let shown: Vec<_> = partitions.map(|line| line.split('\t').nth(2).unwrap_or_default()).collect();
        same(&shown.join(", "), "Partition: 0, Partition: 1, Partition: 2")
    });
    report.case("kafka-topics is refused what is there, and what has no legal name", || {
        let again = tools.run(TOPIC, &["--create", "--topic", "tools-admin", "--partitions", "3"]);
        let text = format!("{:#}", again.err().context("a second creation succeeded")?);
        ensure!(text.contains("TopicExistsException"), "{text}");
        let missing = tools.run(TOPIC, &["--describe", "--topic", "tools-missing"]);
        let text = format!("{:#}", missing.err().context("a missing topic was described")?);
        ensure!(text.contains("does not exist as expected"), "{text}");
        Ok(())
    });
    report.case("kafka-topics adds partitions", || {
        tools.run(TOPIC, &["--alter", "--topic", "tools-admin", "--partitions", "5"])?;
        let described = tools.run(TOPIC, &["--describe", "--topic", "tools-admin"])?;
        ensure!(described.contains("PartitionCount: 5\t"), "{described}");
        let fewer = tools.run(TOPIC, &["--alter", "--topic", "tools-admin", "--partitions", "2"]);
        let text = format!("{:#}", fewer.err().context("partitions were taken away")?);
        ensure!(text.contains("InvalidPartitionsException"), "{text}");
        Ok(())
    });
    report.case("kafka-configs sets, shows and unsets a topic's config", || {
        let entity = ["--entity-type", "topics", "--entity-name", "tools-admin"];
        let show = || tools.run(CONFIG, &[&entity[..], &["--describe"]].concat());
        tools.run(
            CONFIG,
            &[&entity[..], &["--alter", "--add-config", "max.message.bytes=2000,cleanup.policy=compact"]].concat(),
        )?;
        let text = show()?;
        for set in [
            "max.message.bytes=2000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000",
            "cleanup.policy=compact ",
            "retention.ms=3600000 ",
        ] {
            ensure!(text.contains(set), "no {set:?} in {text}");
        }
        tools.run(
            CONFIG,
            &[&entity[..], &["--alter", "--delete-config", "max.message.bytes,cleanup.policy"]].concat(),
        )?;
        let text = show()?;
        ensure!(!text.contains("max.message.bytes") && text.contains("retention.ms=3600000 "), "{text}");
        let bad = tools.run(CONFIG, &[&entity[..], &["--alter", "--add-config", "retention.ms=soon"]].concat());
        let text = format!("{:#}", bad.err().context("a wrong value was accepted")?);
        ensure!(text.contains("InvalidConfigurationException"), "{text}");
        let all = tools.run(CONFIG, &[&entity[..], &["--describe", "--all"]].concat())?;
        ensure!(all.contains("min.insync.replicas=1 "), "no default in {all}");
        Ok(())
    });
    report.case("kafka-cluster and kafka-log-dirs answer", || {
        // This tool takes its subcommand first.
        let arguments = ["cluster-id", "--bootstrap-server", tools.bootstrap];
        let id = shell::output(&mut tools.jars.tool("org.apache.kafka.tools.ClusterTool", &arguments))?;
        ensure!(id.starts_with("Cluster ID: ") && id.trim().len() == "Cluster ID: ".len() + 22, "{id:?}");
        let dirs =
            tools.run("org.apache.kafka.tools.LogDirsCommand", &["--describe", "--topic-list", "tools-admin"])?;
        ensure!(dirs.contains("\"partition\":\"tools-admin-4\""), "{dirs}");
        Ok(())
    });
}

fn records(tools: &Tools<'_>, report: &mut Report) {
    let lines: Vec<String> = (0..RECORDS).map(|i| format!("key-{i}\tvalue {i}")).collect();
    report.case(&format!("{RECORDS} records through the console producer and consumer"), || {
        tools.run(TOPIC, &["--create", "--topic", "tools", "--partitions", "3"])?;
        let keyed = ["--topic", "tools", "--reader-property", "parse.key=true"];
        tools.feed(PRODUCE, &keyed, &format!("{}\n", lines.join("\n")))?;
        let count = RECORDS.to_string();
        let arguments = ["--topic", "tools", "--from-beginning", "--max-messages", &count, "--timeout-ms", "30000"];
        let text = tools.run(CONSUME, &[&arguments[..], &["--formatter-property", "print.key=true"]].concat())?;
        let found: BTreeSet<_> = text.lines().collect();
        let sent: BTreeSet<_> = lines.iter().map(String::as_str).collect();
        ensure!(found == sent, "{} of {} records are as sent", found.intersection(&sent).count(), sent.len());
        Ok(())
    });
    report.case("kafka-get-offsets: end, beginning, highest timestamp", || {
        let offsets = tools.offsets("tools", "-1")?;
        let sum: usize = offsets.split(' ').filter_map(|one| one.split_once(':')?.1.parse::<usize>().ok()).sum();
        ensure!(sum == RECORDS, "ends {offsets} instead of {RECORDS} in all");
        same(&tools.offsets("tools", "-2")?, "0:0 1:0 2:0")?;
        // The last record of each partition has its highest timestamp or shares it.
        let highest = tools.offsets("tools", "-3")?;
        ensure!(highest.split(' ').count() == 3 && !highest.contains("-1"), "{highest}");
        Ok(())
    });
    report.case("kafka-delete-records moves the log start", || {
        let folder = workspace::cache("work")?;
        let file = folder.join("delete-records.json");
        let json = r#"{"partitions":[{"topic":"tools","partition":1,"offset":5}],"version":1}"#;
        fs::write(&file, json).with_context(|| format!("write {}", file.display()))?;
        let path = file.to_str().context("the cache's path is not UTF-8")?;
        let text = tools.run(DELETE_RECORDS, &["--offset-json-file", path])?;
        ensure!(text.contains("partition: tools-1\tlow_watermark: 5"), "{text}");
        same(&tools.offsets("tools", "-2")?, "0:0 1:5 2:0")
    });
}

fn groups(tools: &Tools<'_>, report: &mut Report) {
    report.case("a console consumer's group is described, moved and deleted", || {
        tools.run(TOPIC, &["--create", "--topic", "tools-group", "--partitions", "2"])?;
        for _ in 0..2 {
            tools.feed(PRODUCE, &["--topic", "tools-group"], "a\nb\nc\nd\n")?;
        }
        let arguments = ["--topic", "tools-group", "--from-beginning", "--max-messages", "8", "--timeout-ms", "30000"];
        let text = tools.run(CONSUME, &[&arguments[..], &["--group", "tools-g"]].concat())?;
        ensure!(text.lines().count() == 8, "{text:?}");
        let listed = tools.run(GROUPS, &["--list"])?;
        ensure!(listed.lines().any(|line| line == "tools-g"), "not in {listed:?}");
        let described = tools.group("tools-g")?;
        ensure!(described.split(", ").count() == 2 && described.split(", ").all(|l| l.ends_with(" 0")), "{described}");
        let state = tools.run(GROUPS, &["--describe", "--group", "tools-g", "--state"])?;
        ensure!(state.contains("Empty"), "{state}");
        let to = ["--reset-offsets", "--group", "tools-g", "--topic", "tools-group", "--to-earliest", "--execute"];
        tools.run(GROUPS, &to)?;
        let described = tools.group("tools-g")?;
        ensure!(described.split(", ").all(|line| line.contains(": 0 ")), "{described}");
        tools.run(GROUPS, &["--delete-offsets", "--group", "tools-g", "--topic", "tools-group:1"])?;
        let described = tools.group("tools-g")?;
        ensure!(described.starts_with("0: 0 ") && !described.contains(','), "{described}");
        let text = tools.run(GROUPS, &["--delete", "--group", "tools-g"])?;
        ensure!(text.contains("('tools-g') was successful"), "{text}");
        let listed = tools.run(GROUPS, &["--list"])?;
        ensure!(!listed.lines().any(|line| line == "tools-g"), "still in {listed:?}");
        Ok(())
    });
}

fn transactions(tools: &Tools<'_>, report: &mut Report) {
    report.case("the transactional copier copies each record once", || {
        tools.run(TOPIC, &["--create", "--topic", "tools-from", "--partitions", "1"])?;
        tools.run(TOPIC, &["--create", "--topic", "tools-to", "--partitions", "1"])?;
        let lines = lines(100, |i| i.to_string());
        tools.feed(PRODUCE, &["--topic", "tools-from"], &lines)?;
        let arguments = [
            "--broker-list",
            tools.bootstrap,
            "--input-topic",
            "tools-from",
            "--input-partition",
            "0",
            "--output-topic",
            "tools-to",
            "--consumer-group",
            "tools-copier",
            "--transactional-id",
            "tools-copier",
            "--transaction-size",
            "7",
            "--max-messages",
            "100",
        ];
        shell::output(&mut tools.jars.tool("org.apache.kafka.tools.TransactionalMessageCopier", &arguments))?;
        let committed = ["--isolation-level", "read_committed", "--max-messages", "100", "--timeout-ms", "30000"];
        let text = tools.run(CONSUME, &[&["--topic", "tools-to", "--from-beginning"], &committed[..]].concat())?;
        same(&text, &lines)
    });
    report.case("kafka-transactions lists and describes what the copier left", || {
        let listed = tools.run(TRANSACTIONS, &["list"])?;
        let line = listed.lines().find(|line| line.starts_with("tools-copier")).context("the id is not listed")?;
        ensure!(line.contains("CompleteCommit"), "{line}");
        let described = tools.run(TRANSACTIONS, &["describe", "--transactional-id", "tools-copier"])?;
        ensure!(described.contains("CompleteCommit"), "{described}");
        let producers = tools.run(TRANSACTIONS, &["describe-producers", "--topic", "tools-to", "--partition", "0"])?;
        let last = producers.lines().last().unwrap_or_default();
        ensure!(last.split_whitespace().last() == Some("None"), "an open transaction in {producers}");
        Ok(())
    });
}

fn measures(tools: &Tools<'_>, report: &mut Report) {
    report.case("kafka-producer-perf-test and kafka-consumer-perf-test move 20,000 records", || {
        tools.run(TOPIC, &["--create", "--topic", "tools-perf", "--partitions", "2"])?;
        let properties = format!("bootstrap.servers={}", tools.bootstrap);
        let arguments = [
            "--topic",
            "tools-perf",
            "--num-records",
            "20000",
            "--record-size",
            "512",
            "--throughput",
            "-1",
            "--producer-props",
            &properties,
            "compression.type=lz4",
        ];
        let text = shell::output(&mut tools.jars.tool("org.apache.kafka.tools.ProducerPerformance", &arguments))?;
        ensure!(text.contains("20000 records sent"), "{text}");
        let arguments = ["--topic", "tools-perf", "--messages", "20000", "--timeout", "30000"];
        let text = tools.run("org.apache.kafka.tools.ConsumerPerformance", &arguments)?;
        let last = text.lines().last().unwrap_or_default();
        let count = last.split(',').nth(4).map(str::trim);
        ensure!(count == Some("20000"), "{last:?}");
        Ok(())
    });
    report.case("the verifiable producer has 500 records acknowledged", || {
        let arguments = ["--topic", "tools-verifiable", "--max-messages", "500", "--acks", "-1"];
        let text = tools.run("org.apache.kafka.tools.VerifiableProducer", &arguments)?;
        let acked = text.lines().filter(|line| line.contains("\"name\":\"producer_send_success\"")).count();
        ensure!(acked == 500, "{acked} acknowledged");
        same(&tools.offsets("tools-verifiable", "-1")?, "0:500")
    });
}
