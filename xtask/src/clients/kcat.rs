//! kcat, which is librdkafka's command line: what a new user tries first.
//!
//! The one in the path is used; else Debian's package and the libraries it wants are unpacked into the user's cache,
//! which needs no rights.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Report, debian, lines, same};
use crate::{shell, workspace};

/// kcat and what a bare Debian or Ubuntu lacks of its libraries.
const PACKAGES: [&str; 5] = ["kcat", "librdkafka1", "libyajl2", "libsasl2-2", "liblz4-1"];

/// Records of a round trip: enough for several batches and fetches.
const RECORDS: usize = 2000;

pub(super) struct Kcat {
    program: PathBuf,
    libraries: Option<PathBuf>,
}

impl Kcat {
    pub(super) fn fetch() -> Result<Self> {
        if let Some(program) = shell::find("kcat") {
            return Ok(Self { program, libraries: None });
        }
        let folder = workspace::cache("kcat")?;
        let program = folder.join("usr/bin/kcat");
        if !program.exists() {
            shell::say("kcat, by apt-get download");
            let advice =
                "install kcat by hand (apt-get install kcat, brew install kcat), or run `apt-get update` first";
            debian::unpack(&PACKAGES, &folder, advice)?;
        }
        let machine = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        Ok(Self { program, libraries: Some(folder.join(machine)) })
    }

    pub(super) fn run(&self, report: &mut Report, bootstrap: &str) -> Result<()> {
        report.suite("kcat");
        println!("{}", shell::output(self.command(&[]).arg("-V"))?.trim());
        let kcat = |input: &str, arguments: &[&str]| {
            shell::output_with_input(self.command(&["-b", bootstrap]).args(arguments), input)
        };
        let lines = lines(RECORDS, |i| format!("key-{i}:value {i}"));
        report.case("the first record makes the topic", || {
            kcat("hello\n", &["-P", "-t", "kcat-auto"])?;
            same(&kcat("", &["-C", "-t", "kcat-auto", "-o", "beginning", "-e", "-q"])?, "hello\n")
        });
        report.case("metadata names the topic and its leader", || {
            let text = kcat("", &["-L", "-J", "-t", "kcat-auto"])?;
            let json: serde_json::Value = serde_json::from_str(&text).context("kcat's metadata is JSON")?;
            let topic = json.pointer("/topics/0").context("one topic")?;
            let leader = json.pointer("/brokers/0/id").context("one broker")?;
            ensure!(topic.pointer("/topic") == Some(&"kcat-auto".into()), "topic {topic}");
            ensure!(topic.pointer("/partitions/0/leader") == Some(leader), "leader of {topic}");
            ensure!(topic.pointer("/partitions/1").is_none(), "one partition by default, not {topic}");
            Ok(())
        });
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            report.case(&format!("{RECORDS} records there and back, {codec}"), || {
                let topic = format!("kcat-{codec}");
                kcat(&lines, &["-P", "-t", &topic, "-K", ":", "-z", codec])?;
                let format = ["-C", "-t", &topic, "-o", "beginning", "-e", "-q", "-f", "%k:%s\\n"];
                same(&kcat("", &format)?, &lines)
            });
        }
        report.case("an idempotent producer", || {
            let idempotent = ["-P", "-t", "kcat-idempotent", "-K", ":", "-X", "enable.idempotence=true"];
            kcat(&lines, &idempotent)?;
            let format = ["-C", "-t", "kcat-idempotent", "-o", "beginning", "-e", "-q", "-f", "%k:%s\\n"];
            same(&kcat("", &format)?, &lines)
        });
        report.case("offsets: from one, from the end, of a time", || {
            let read = |from: &[&str]| kcat("", &[&["-C", "-t", "kcat-none", "-q", "-f", "%o %s\\n"], from].concat());
            same(&read(&["-o", "500", "-c", "2"])?, "500 value 500\n501 value 501\n")?;
            same(&read(&["-o", "-2", "-e"])?, "1998 value 1998\n1999 value 1999\n")?;
            same(&kcat("", &["-Q", "-t", "kcat-none:0:-1"])?, "kcat-none [0] offset 2000\n")?;
            same(&kcat("", &["-Q", "-t", "kcat-none:0:-2"])?, "kcat-none [0] offset 0\n")?;
            same(&kcat("", &["-Q", "-t", "kcat-none:0:1"])?, "kcat-none [0] offset 0\n")?;
            let first = read(&["-o", "0", "-c", "1", "-f", "%T"])?;
            same(&kcat("", &["-Q", "-t", &format!("kcat-none:0:{first}")])?, "kcat-none [0] offset 0\n")
        });
        report.case("headers, and a value that is null", || {
            kcat("k:\n", &["-P", "-t", "kcat-null", "-K", ":", "-Z", "-H", "a=1", "-H", "b=two"])?;
            let format = ["-C", "-t", "kcat-null", "-o", "beginning", "-e", "-q", "-f", "%h|%k|%S\\n"];
            same(&kcat("", &format)?, "a=1,b=two|k|-1\n")
        });
        report.case("a group reads once, and goes on where it was", || {
            let group =
                ["-q", "-e", "-f", "%k:%s\\n", "-X", "auto.offset.reset=earliest", "-G", "kcat-group", "kcat-none"];
            same(&kcat("", &group)?, &lines)?;
            kcat("key-x:later\n", &["-P", "-t", "kcat-none", "-K", ":"])?;
            same(&kcat("", &group)?, "key-x:later\n")
        });
        Ok(())
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = shell::command(&self.program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.args(arguments);
        command
    }
}
