//! Apache Kafka's own jars, fetched once by Maven from `xtask/rigs/kafka.pom.xml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{shell, workspace};

#[derive(Clone)]
pub struct Jars {
    folder: PathBuf,
}

impl Jars {
    /// The newest release known; tools and clients of this version are what is compared with.
    pub const VERSION: &str = "4.3.1";

    pub fn fetch() -> Result<Self> {
        let folder = workspace::cache(&format!("kafka-{}", Self::VERSION))?;
        let done = folder.join("complete");
        if !done.exists() {
            for program in ["java", "mvn"] {
                if shell::find(program).is_none() {
                    bail!("{program} is not installed: Apache Kafka's tools need a JDK (17 or later) and Maven");
                }
            }
            shell::say("Apache Kafka's jars, by Maven");
            let mut maven = shell::command("mvn");
            maven.args(["--quiet", "--batch-mode", "--file", "xtask/rigs/kafka.pom.xml"]);
            maven.arg(format!("-Dkafka.version={}", Self::VERSION));
            maven.arg(format!("-DoutputDirectory={}", folder.display()));
            maven.args(["-DincludeScope=runtime", "dependency:copy-dependencies"]);
            shell::run(&mut maven)?;
            fs::write(&done, Self::VERSION).with_context(|| format!("write {}", done.display()))?;
        }
        Ok(Self { folder })
    }

    /// Where they lie, with all that they need.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A Java program over these jars.
    pub fn java(&self, heap_mib: u32) -> Command {
        let mut java = shell::command("java");
        java.arg(format!("-Xmx{heap_mib}m"));
        // Short runs: the second compiler would only take the processor from the broker.
        java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]);
        java.arg("-cp").arg(self.folder.join("*"));
        java
    }

    /// One of Kafka's tools.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Command {
        let mut java = self.java(256);
        java.arg(class).args(arguments);
        java
    }
}
