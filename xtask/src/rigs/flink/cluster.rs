//! A session cluster on loopback: one JobManager, some TaskManagers, each a process of its own.
//!
//! 1. Every process is known by its id, and none outlives the cluster.
//! 2. A killed JobManager comes back under the same addresses, so that TaskManagers find it; they keep nothing of its jobs.
//! 3. Checkpoints and savepoints lie in the cluster's folder and outlive any process. The folder goes when the cluster
//!    stops, and stays where a run failed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Flink, Rest};
use crate::rigs::{free_port, fresh_folder, wait_for};
use crate::shell;

/// How long the cluster may take to be whole: three JVMs on a loaded machine.
const START_LIMIT: Duration = Duration::from_mins(4);

pub const TASKMANAGERS: usize = 2;
pub const SLOTS_PER_TASKMANAGER: usize = 2;

/// A TaskManager's heap in MiB: what the configuration gives to framework and tasks together.
const TASKMANAGER_HEAP_MIB: u32 = 448;

pub struct Cluster {
    flink: Flink,
    folder: PathBuf,
    rest: Rest,
    jobmanager: Process,
    taskmanagers: Vec<Process>,
    /// Processes started so far: each has a log of its own.
    started: u32,
    keep: bool,
}

impl Cluster {
    /// A whole cluster in a fresh folder.
    pub fn start(flink: &Flink) -> Result<Self> {
        // A kept folder of an earlier cluster must not be written over.
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let folder = fresh_folder(&format!("flink-{}-{number}", flink.release()))?;
        for part in ["conf", "checkpoints", "savepoints", "tmp"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("create {part} in {}", folder.display()))?;
        }
        let (rest_port, rpc_port) = (free_port()?, free_port()?);
        write(&folder.join("conf").join("config.yaml"), &configuration(&folder, rest_port, rpc_port))?;
        write(&folder.join("conf").join("log.properties"), &logging("INFO"))?;
        write(&folder.join("conf").join("client-log.properties"), &logging("OFF"))?;
        let jobmanager = Process::start(jobmanager(flink, &folder), &folder, "jobmanager-1")?;
        let mut cluster = Self {
            flink: flink.clone(),
            folder,
            rest: Rest::new(rest_port),
            jobmanager,
            taskmanagers: Vec::new(),
            started: 1,
            keep: false,
        };
        for _ in 0..TASKMANAGERS {
            cluster.add_taskmanager()?;
        }
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    pub fn flink(&self) -> &Flink {
        &self.flink
    }

    pub fn rest(&self) -> Rest {
        self.rest
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a script with the SQL client, as `sql-client.sh -f` does; returns what it printed. The client does not fail
    /// where a statement does.
    pub fn sql(&self, script: &str) -> Result<String> {
        let file = self.folder.join("script.sql");
        write(&file, script)?;
        let mut client = self.flink.sql_client();
        client.env("FLINK_CONF_DIR", self.folder.join("conf"));
        client.env("JAVA_TOOL_OPTIONS", log_option(&self.folder, "client-log.properties"));
        shell::output(client.arg("embedded").arg("-f").arg(&file))
    }

    /// `kill -9` of a TaskManager that runs a task of this job, and a new one in its place.
    pub fn kill_taskmanager(&mut self, job: &str) -> Result<()> {
        let vertices = self.job(job)?["vertices"].clone();
        let last = vertices.as_array().and_then(|all| all.last()).and_then(|last| last["id"].as_str());
        let last = last.with_context(|| format!("job {job} has no vertices"))?;
        let subtasks = self.rest.get(&format!("/jobs/{job}/vertices/{last}"))?["subtasks"].clone();
        let name = subtasks[0]["taskmanager-id"].as_str().with_context(|| format!("nobody runs {subtasks}"))?;
        let place = self.taskmanagers.iter().position(|process| process.name == name);
        let mut process = self.taskmanagers.remove(place.with_context(|| format!("{name} is none of ours"))?);
        process.kill()?;
        self.add_taskmanager()
    }

    /// `kill -9` of every process, and new ones at their addresses; jobs are forgotten.
    pub fn kill_all(&mut self) -> Result<()> {
        for mut process in std::mem::take(&mut self.taskmanagers) {
            process.kill()?;
        }
        self.jobmanager.kill()?;
        for _ in 0..TASKMANAGERS {
            self.add_taskmanager()?;
        }
        self.start_jobmanager()
    }

    /// `kill -9` of the JobManager, which forgets every job, and a new one at its address; returns when the TaskManagers
    /// have found it.
    pub fn kill_jobmanager(&mut self) -> Result<()> {
        self.jobmanager.kill()?;
        self.start_jobmanager()
    }

    fn start_jobmanager(&mut self) -> Result<()> {
        let name = self.next_name("jobmanager");
        self.jobmanager = Process::start(jobmanager(&self.flink, &self.folder), &self.folder, &name)?;
        self.wait_until_whole()
    }

    /// Whether every TaskManager has joined and all their slots are free or used by jobs that the JobManager knows.
    fn wait_until_whole(&mut self) -> Result<()> {
        let slots = (TASKMANAGERS * SLOTS_PER_TASKMANAGER) as u64;
        wait_for("every TaskManager to join", START_LIMIT, || {
            for process in self.taskmanagers.iter_mut().chain([&mut self.jobmanager]) {
                process.ensure_alive()?;
            }
            // Its port is shut at first.
            let Ok(overview) = self.rest.get("/overview") else { return Ok(None) };
            Ok((overview["slots-total"].as_u64() == Some(slots)).then_some(()))
        })
    }

    fn add_taskmanager(&mut self) -> Result<()> {
        let name = self.next_name("taskmanager");
        let mut java = self.flink.java(TASKMANAGER_HEAP_MIB);
        java.arg(format!("-Xms{TASKMANAGER_HEAP_MIB}m")).arg(log_option(&self.folder, "log.properties"));
        java.arg("org.apache.flink.runtime.taskexecutor.TaskManagerRunner");
        java.arg("--configDir").arg(self.folder.join("conf"));
        // By which the JobManager names it.
        java.arg(format!("-Dtaskmanager.resource-id={name}"));
        self.taskmanagers.push(Process::start(java, &self.folder, &name)?);
        Ok(())
    }

    fn next_name(&mut self, kind: &str) -> String {
        self.started += 1;
        format!("{kind}-{}", self.started)
    }

    /// The newest whole checkpoint of a job, which its end left behind.
    pub fn last_checkpoint(&self, job: &str) -> Result<String> {
        let folder = self.folder.join("checkpoints").join(job);
        let mut newest: Option<(u64, PathBuf)> = None;
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(number) = name.strip_prefix("chk-").and_then(|number| number.parse().ok()) else { continue };
            // The metadata is written last: without it the checkpoint was not finished.
            if path.join("_metadata").exists() && newest.as_ref().is_none_or(|(best, _)| number > *best) {
                newest = Some((number, path));
            }
        }
        let (_, path) = newest.with_context(|| format!("no whole checkpoint in {}", folder.display()))?;
        Ok(format!("file://{}", path.display()))
    }

    /// What a job's REST page says of it.
    pub fn job(&self, job: &str) -> Result<Value> {
        self.rest.get(&format!("/jobs/{job}"))
    }

    /// How much each log holds so far, for [`Self::logged_since`].
    pub fn log_mark(&self) -> Result<Vec<(PathBuf, u64)>> {
        logs(&self.folder)
    }

    /// Lines logged by any process since the mark that hold `part`.
    pub fn logged_since(&self, mark: &[(PathBuf, u64)], part: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (path, _) in logs(&self.folder)? {
            let before = mark.iter().find(|(marked, _)| *marked == path).map_or(0, |(_, length)| *length);
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let new = bytes.get(usize::try_from(before)?..).unwrap_or_default();
            found.extend(String::from_utf8_lossy(new).lines().filter(|line| line.contains(part)).map(str::to_owned));
        }
        Ok(found)
    }

    /// Leaves the folder with logs and checkpoints where it is.
    pub fn keep_folder(&mut self) {
        self.keep = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The processes first: they write into the folder.
        self.taskmanagers.clear();
        // It may have ended already.
        let _ = self.jobmanager.kill();
        if !self.keep {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A JVM that is killed where its owner goes.
struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(mut command: Command, folder: &Path, name: &str) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let err = out.try_clone().context("share the log file")?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    fn ensure_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look after a process of Flink")? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            bail!("ended with {status}:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill a process of Flink")?;
        self.child.wait().context("wait for a killed process")?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn jobmanager(flink: &Flink, folder: &Path) -> Command {
    let mut java = flink.java(512);
    java.arg(log_option(folder, "log.properties"));
    java.arg("org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint");
    java.arg("--configDir").arg(folder.join("conf")).args(["--executionMode", "cluster"]);
    java
}

fn log_option(folder: &Path, file: &str) -> String {
    format!("-Dlog4j2.configurationFile=file:{}", folder.join("conf").join(file).display())
}

/// Flink's own defaults but for addresses, sizes and haste: nothing here is about the broker.
fn configuration(folder: &Path, rest_port: u16, rpc_port: u16) -> String {
    let folder = folder.display();
    format!(
        "jobmanager.rpc.address: 127.0.0.1\n\
         jobmanager.bind-host: 127.0.0.1\n\
         jobmanager.rpc.port: {rpc_port}\n\
         jobmanager.memory.process.size: 1200m\n\
         rest.address: 127.0.0.1\n\
         rest.bind-address: 127.0.0.1\n\
         rest.port: {rest_port}\n\
         # Answers as of now, not of three seconds ago.\n\
         web.refresh-interval: 100\n\
         taskmanager.host: 127.0.0.1\n\
         taskmanager.bind-host: 127.0.0.1\n\
         taskmanager.numberOfTaskSlots: {SLOTS_PER_TASKMANAGER}\n\
         # A kill should hit some of a job's tasks and leave others.\n\
         taskmanager.load-balance.mode: SLOTS\n\
         # Without Flink's scripts a TaskManager wants every one of these.\n\
         taskmanager.cpu.cores: 1.0\n\
         taskmanager.memory.framework.heap.size: 128m\n\
         taskmanager.memory.framework.off-heap.size: 128m\n\
         taskmanager.memory.task.heap.size: 320m\n\
         taskmanager.memory.task.off-heap.size: 0\n\
         taskmanager.memory.network.min: 64m\n\
         taskmanager.memory.network.max: 64m\n\
         taskmanager.memory.managed.size: 64m\n\
         taskmanager.memory.jvm-metaspace.size: 256m\n\
         taskmanager.memory.jvm-overhead.min: 192m\n\
         taskmanager.memory.jvm-overhead.max: 192m\n\
         # After a kill the next attempt comes in seconds, not in a quarter of a minute; a loaded machine is no dead one.\n\
         cluster.registration.error-delay: 500 ms\n\
         heartbeat.interval: 1000\n\
         heartbeat.timeout: 15000\n\
         io.tmp.dirs: {folder}/tmp\n\
         web.tmpdir: {folder}/tmp\n\
         execution.checkpointing.interval: {CHECKPOINT_INTERVAL_MS} ms\n\
         execution.checkpointing.storage: filesystem\n\
         execution.checkpointing.dir: file://{folder}/checkpoints\n\
         execution.checkpointing.savepoint-dir: file://{folder}/savepoints\n\
         execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION\n\
         execution.target: remote\n"
    )
}

/// Short, so that a run of a minute has many; long enough to see a transaction open.
const CHECKPOINT_INTERVAL_MS: u32 = 1000;

fn logging(level: &str) -> String {
    format!(
        "rootLogger.level = {level}\n\
         rootLogger.appenderRef.console.ref = Console\n\
         appender.console.name = Console\n\
         appender.console.type = CONSOLE\n\
         appender.console.layout.type = PatternLayout\n\
         appender.console.layout.pattern = %d{{ABSOLUTE}} %-5p %c{{1}} %m%n\n"
    )
}

/// Every log of the cluster with its length, in the order of names.
fn logs(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for path in super::files(folder, ".log")? {
        let length = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?.len();
        found.push((path, length));
    }
    ensure!(!found.is_empty(), "no logs in {}", folder.display());
    Ok(found)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
