//! The topics of a case, through clients that are neither ours nor Flink's: kcat, and Apache Kafka's tool to create one.

use std::fmt::Write;

use anyhow::{Context, Result, bail};

use crate::clients::kcat::Kcat;
use crate::rigs::Jars;
use crate::shell;

/// What a reader sees of transactions.
#[derive(Clone, Copy)]
pub(super) enum Isolation {
    Uncommitted,
    Committed,
}

pub(super) struct Record {
    pub(super) partition: u32,
    pub(super) offset: i64,
    /// Milliseconds since 1970.
    pub(super) timestamp: i64,
    pub(super) key: String,
    pub(super) value: String,
}

pub(super) struct Topics<'a> {
    pub(super) kcat: &'a Kcat,
    pub(super) jars: &'a Jars,
    pub(super) bootstrap: String,
}

impl Topics<'_> {
    pub(super) fn create(&self, topic: &str, partitions: u32) -> Result<()> {
        let partitions = partitions.to_string();
        let arguments =
            ["--bootstrap-server", &self.bootstrap, "--create", "--topic", topic, "--partitions", &partitions];
        shell::output(&mut self.jars.tool("org.apache.kafka.tools.TopicCommand", &arguments))?;
        Ok(())
    }

    /// Appends records by an idempotent producer and returns when all are acknowledged. Records of a key share a
    /// partition and keep their order.
    pub(super) fn append<'r>(&self, topic: &str, records: impl Iterator<Item = (&'r str, &'r str)>) -> Result<()> {
        self.produce(topic, records, &[])
    }

    /// As [`Self::append`], all to one partition.
    pub(super) fn append_to(&self, topic: &str, partition: u32, record: (&str, &str)) -> Result<()> {
        self.produce(topic, [record].into_iter(), &["-p", &partition.to_string()])
    }

    fn produce<'r>(
        &self,
        topic: &str,
        records: impl Iterator<Item = (&'r str, &'r str)>,
        arguments: &[&str],
    ) -> Result<()> {
        let mut input = String::new();
        for (key, value) in records {
            writeln!(input, "{key}\t{value}").context("write into a string")?;
        }
        let idempotent = ["-P", "-b", &self.bootstrap, "-t", topic, "-K", "\t", "-X", "enable.idempotence=true"];
        shell::output_with_input(&mut self.kcat.command(&[&idempotent[..], arguments].concat()), &input)?;
        Ok(())
    }

    /// Has a group stand at this offset in every partition of a topic.
    pub(super) fn commit(&self, group: &str, topic: &str, offset: i64) -> Result<()> {
        let offset = offset.to_string();
        let to = ["--reset-offsets", "--group", group, "--topic", topic, "--to-offset", &offset, "--execute"];
        self.groups(&to)?;
        Ok(())
    }

    fn groups(&self, arguments: &[&str]) -> Result<String> {
        let arguments = [&["--bootstrap-server", &self.bootstrap], arguments].concat();
        let tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        shell::output(&mut self.jars.tool(tool, &arguments))
    }

    /// How many records of its topics a group has not committed; nothing where it has not committed in each partition.
    pub(super) fn lag(&self, group: &str, partitions: u32) -> Result<Option<u64>> {
        let text = self.groups(&["--describe", "--group", group])?;
        let mut lags = Vec::new();
        for line in text.lines().filter(|line| line.starts_with(group)) {
            let columns: Vec<_> = line.split_whitespace().collect();
            // … LAG CONSUMER-ID HOST CLIENT-ID; what stands before them differs from release to release.
            let lag = columns.len().checked_sub(4).and_then(|place| columns[place].parse::<u64>().ok());
            lags.extend(lag);
        }
        Ok((lags.len() == partitions as usize).then(|| lags.iter().sum()))
    }

    /// Everything that a reader sees of a topic now, in order within each partition.
    pub(super) fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<Record>> {
        let level = match isolation {
            Isolation::Uncommitted => "isolation.level=read_uncommitted",
            Isolation::Committed => "isolation.level=read_committed",
        };
        let format = "%p\\t%o\\t%T\\t%k\\t%s\\n";
        let arguments = ["-C", "-b", &self.bootstrap, "-t", topic, "-o", "beginning", "-e", "-q", "-f", format];
        // The end of a partition is seen by a fetch that finds nothing, which need not wait for more.
        let options = ["-X", level, "-X", "check.crcs=true", "-X", "fetch.wait.max.ms=10"];
        let text = shell::output(&mut self.kcat.command(&[&arguments[..], &options[..]].concat()))?;
        let record = |line: &str| {
            let fields: Vec<_> = line.splitn(5, '\t').collect();
            let [partition, offset, timestamp, key, value] = fields[..] else { bail!("no record: {line:?}") };
            let (key, value) = (key.to_owned(), value.to_owned());
            let number = |text: &str| text.parse::<i64>().with_context(|| format!("no record: {line:?}"));
            let partition = u32::try_from(number(partition)?).context("a partition is not negative")?;
            Ok(Record { partition, offset: number(offset)?, timestamp: number(timestamp)?, key, value })
        };
        text.lines().map(record).collect()
    }
}
