//! Apache Flink: its distribution, fetched once by package name, and session clusters of real processes made from it.
//!
//! Flink publishes no archive to a package registry but the Python package `apache-flink-libraries`, which holds every jar
//! of a release; the Kafka connector and the SQL client's gateway come from Maven. Flink's start scripts are not used: each
//! process is one `java` whose id we know, so that a kill hits exactly one.

mod cluster;
mod rest;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub use cluster::Cluster;
pub use rest::Rest;

use crate::{shell, workspace};

/// A release of Flink, and the release of its Kafka connector made for it.
#[derive(Debug)]
struct Release {
    name: &'static str,
    flink: &'static str,
    connector: &'static str,
}

/// The last of the 1.x line, which many still run, and the newest.
static RELEASES: [Release; 2] = [
    Release { name: "Flink 1.20.3", flink: "1.20.3", connector: "3.4.0-1.20" },
    Release { name: "Flink 2.2.1", flink: "2.2.1", connector: "5.0.0-2.2" },
];

/// Packages of the JDK that Flink reaches into, which Java 17 allows only where it is told to.
const OPENED: [&str; 12] = [
    "java.lang",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
    "sun.net.util",
];

/// A release of Flink in the user's cache.
#[derive(Clone)]
pub struct Flink {
    release: &'static Release,
    folder: PathBuf,
}

impl Flink {
    /// The releases that can be fetched, oldest first.
    pub fn releases() -> impl Iterator<Item = &'static str> {
        RELEASES.iter().map(|release| release.flink)
    }

    pub fn fetch(release: &str) -> Result<Self> {
        let release = RELEASES.iter().find(|one| one.flink == release);
        let release = release.with_context(|| format!("this is none of {RELEASES:?}"))?;
        let folder = workspace::cache(&format!("flink-{}", release.flink))?;
        let done = folder.join("complete");
        if !done.exists() {
            for program in ["java", "javac", "mvn", "python3"] {
                ensure!(
                    shell::find(program).is_some(),
                    "{program} is not installed: Flink is fetched by pip and Maven, and runs on a JDK (17 or later)"
                );
            }
            fetch(release, &folder)?;
            fs::write(&done, release.flink).with_context(|| format!("write {}", done.display()))?;
        }
        Ok(Self { release, folder })
    }

    /// As `2.2.1`.
    pub fn release(&self) -> &'static str {
        self.release.flink
    }

    /// As `Flink 2.2.1`.
    pub fn name(&self) -> &'static str {
        self.release.name
    }

    /// Whether the Kafka sink can be told how to name its transactions and has its producer in public: from connector 4.0,
    /// which is Flink 2.0.
    pub fn names_transactions(&self) -> bool {
        !self.release.flink.starts_with("1.")
    }

    /// Compiles the Java sources of `folder` against this release and packs them into `jar`.
    pub fn compile(&self, folder: &Path, jar: &Path) -> Result<()> {
        let classes = jar.with_extension("classes");
        fs::create_dir_all(&classes).with_context(|| format!("create {}", classes.display()))?;
        let mut javac = shell::command("javac");
        // Warnings are about the releases between which a source must compile on both.
        javac
            .args(["-nowarn", "-Xlint:none", "--release", "17", "-proc:none", "-cp"])
            .arg(self.folder.join("lib").join("*"));
        javac.arg("-d").arg(&classes).args(files(folder, ".java")?);
        shell::output(&mut javac)?;
        let mut pack = shell::command("jar");
        shell::output(pack.arg("--create").arg("--file").arg(jar).arg("-C").arg(&classes).arg("."))?;
        Ok(())
    }

    /// A program over the distribution's own jars.
    fn java(&self, heap_mib: u32) -> Command {
        java(heap_mib, &self.folder.join("lib").join("*").into_os_string())
    }

    /// A Java program run from its source, against the connector's own classes.
    pub fn check(&self, source: &str) -> Command {
        let mut java = self.java(256);
        java.arg("-Dorg.apache.logging.log4j.level=OFF").arg(source);
        java
    }

    /// The SQL client, which wants more.
    fn sql_client(&self) -> Command {
        let mut paths = self.folder.join("lib").join("*").into_os_string();
        paths.push(":");
        paths.push(self.folder.join("client").join("*"));
        let mut client = java(512, &paths);
        client.arg("org.apache.flink.table.client.SqlClient");
        client
    }
}

fn java(heap_mib: u32, class_path: &OsStr) -> Command {
    let mut java = shell::command("java");
    java.arg(format!("-Xmx{heap_mib}m"));
    // Short lives on few processors: the second compiler would take from the rest more than it gives.
    java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    for package in OPENED {
        java.arg(format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
    }
    java.arg("--add-exports=java.base/sun.net.util=ALL-UNNAMED");
    java.arg("-cp").arg(class_path);
    java
}

/// Fetches a release into `folder`: `lib` for every process, `client` for the SQL client alone.
fn fetch(release: &Release, folder: &Path) -> Result<()> {
    shell::say(&format!("Apache Flink {}, by pip and Maven (300 MB, once)", release.flink));
    let (unpacked, lib, client) = (folder.join("unpacked"), folder.join("lib"), folder.join("client"));
    for fresh in [&unpacked, &lib, &client] {
        if fresh.exists() {
            fs::remove_dir_all(fresh).with_context(|| format!("remove {}, left by an earlier try", fresh.display()))?;
        }
        fs::create_dir_all(fresh).with_context(|| format!("create {}", fresh.display()))?;
    }
    let mut pip = shell::command("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps", "--dest"]).arg(&unpacked);
    shell::run(pip.arg(format!("apache-flink-libraries=={}", release.flink)))?;
    for package in files(&unpacked, "")? {
        // A wheel is a zip archive, a source package a tar archive.
        let module = if package.extension().is_some_and(|ending| ending == "whl") { "zipfile" } else { "tarfile" };
        shell::run(shell::command("python3").args(["-m", module, "--extract"]).arg(&package).arg(&unpacked))?;
        fs::remove_file(&package).with_context(|| format!("remove {}", package.display()))?;
    }
    for jar in jars_below(&unpacked)? {
        let name = jar.file_name().context("a jar has a name")?.to_string_lossy().into_owned();
        let part = jar.parent().and_then(Path::file_name).context("a jar lies in a folder")?;
        let target = match part.to_str() {
            // The planner brings a Scala of its own.
            Some("lib") if !name.starts_with("flink-scala") => &lib,
            Some("opt") => &client,
            _ => continue,
        };
        fs::rename(&jar, target.join(&name)).with_context(|| format!("move {}", jar.display()))?;
    }
    fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))?;
    let mut maven = shell::command("mvn");
    maven.args(["--quiet", "--batch-mode", "--file", "xtask/rigs/flink.pom.xml"]);
    maven.args([format!("-Dflink.version={}", release.flink), format!("-Dconnector.version={}", release.connector)]);
    maven.arg(format!("-DoutputDirectory={}", lib.display()));
    maven.args(["-DincludeScope=runtime", "dependency:copy-dependencies"]);
    shell::run(&mut maven)?;
    for (place, start) in [(&lib, "flink-dist-"), (&lib, "flink-connector-kafka-"), (&client, "flink-sql-client-")] {
        let found = jars_below(place)?
            .iter()
            .any(|jar| jar.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
        ensure!(found, "no {start}*.jar came with the packages of Flink {}", release.flink);
    }
    Ok(())
}

/// The files of a folder whose names end so, sorted.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_string_lossy().ends_with(ending) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The jars of a folder and of those in it.
fn jars_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files(folder, ".jar")?;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(jars_below(&entry.path())?);
        }
    }
    Ok(found)
}
