//! The broker under test: ours, or Apache Kafka's for the baseline. Its folder is fresh and goes with it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::Jars;
use crate::{shell, workspace};

/// How long a broker may take until it is ready: Apache Kafka needs most of it on a loaded machine.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a broker that starts or stops, and so the error of the times that are told.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_millis(200);

/// Where our broker keeps what it has acknowledged and not yet uploaded.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Wal {
    #[default]
    Disk,
    Object,
}

impl Wal {
    /// As `--wal` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Object => "object",
        }
    }
}

/// How a running broker is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGTERM, and it drains.
    Stop,
    /// SIGKILL.
    Kill,
}

/// By what a broker shows that it serves.
#[derive(Clone, Copy)]
enum Sign {
    /// It opens its port when it is ready.
    Port(SocketAddr),
    /// It opens its ports first and says over HTTP when it is ready.
    Http(SocketAddr),
}

pub struct Broker {
    /// Starts it, each time on the same folder.
    command: Command,
    process: Child,
    sign: Sign,
    bootstrap: String,
    folder: PathBuf,
    /// Whether what it left stays to be looked at where something failed.
    keeps_remains: bool,
    /// From start to the sign that it is ready.
    ready: Duration,
}

/// Broker configs by their names in Kafka.
pub type Configs<'a> = &'a [(&'a str, &'a str)];

/// Builds the release binary.
pub fn build() -> Result<()> {
    shell::say("build the release binary");
    shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "forebay-cli"]))
}

impl Broker {
    /// Our release binary on a fresh data folder.
    pub fn forebay(wal: Wal) -> Result<Self> {
        build()?;
        Self::forebay_as_built(wal)
    }

    /// As [`Self::forebay`], with the binary that is there.
    pub fn forebay_as_built(wal: Wal) -> Result<Self> {
        Self::forebay_as_built_with(wal, &[])
    }

    /// As [`Self::forebay_as_built`], with broker configs that differ from the defaults.
    pub fn forebay_as_built_with(wal: Wal, configs: Configs<'_>) -> Result<Self> {
        let binary = workspace::release_binary("forebay");
        let folder = fresh_folder("forebay")?;
        let (kafka, admin) = (free_port()?, free_port()?);
        let mut command = shell::command(binary);
        command.args(["dev", "--wal", wal.name(), "--data"]).arg(folder.join("data"));
        command.args(["--kafka", &format!("127.0.0.1:{kafka}"), "--admin", &format!("127.0.0.1:{admin}")]);
        // Told, as Kafka is told below: a config that is set says so where it is described.
        command.env("FOREBAY_ADVERTISED_LISTENERS", format!("PLAINTEXT://127.0.0.1:{kafka}"));
        command.envs(configs.iter().map(|(key, value)| (environment_name(key), value)));
        Self::start(command, folder, kafka, Sign::Http(loopback(admin)))
    }

    /// Apache Kafka, set up so that only its protocol can differ from ours.
    pub fn kafka(jars: &Jars) -> Result<Self> {
        Self::kafka_with(jars, &[])
    }

    /// As [`Self::kafka`], with broker configs that differ from the defaults.
    pub fn kafka_with(jars: &Jars, configs: Configs<'_>) -> Result<Self> {
        let folder = fresh_folder("kafka")?;
        let (port, controller) = (free_port()?, free_port()?);
        let config = folder.join("server.properties");
        let mut properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             transaction.max.timeout.ms=86400000\n",
            folder.join("log").display()
        );
        properties.extend(configs.iter().map(|(key, value)| format!("{key}={value}\n")));
        fs::write(&config, properties).with_context(|| format!("write {}", config.display()))?;
        let config = config.to_str().context("the path of the configuration is not UTF-8")?;
        let id = shell::output(&mut jars.tool("kafka.tools.StorageTool", &["random-uuid"]))?;
        // Transactions V1, which is what we speak.
        let format = ["format", "-t", id.trim(), "-c", config, "--feature", "transaction.version=0"];
        shell::output(&mut jars.tool("kafka.tools.StorageTool", &format))?;
        let mut command = jars.java(1024);
        command.arg("kafka.Kafka").arg(config);
        Self::start(command, folder, port, Sign::Port(loopback(port)))
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn ready(&self) -> Duration {
        self.ready
    }

    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Nothing of it stays, also where something fails: for folders too large to be left lying about.
    pub fn without_remains(mut self) -> Self {
        self.keeps_remains = false;
        self
    }

    /// Asks the broker to stop and waits; what it printed stays only where that fails.
    pub fn stop(mut self) -> Result<()> {
        self.end(End::Stop)?;
        fs::remove_dir_all(&self.folder).context("remove the broker's folder")
    }

    /// Ends the broker and starts it again on what it left. Gives how long the end took; [`Self::ready`] is new.
    pub fn restart(&mut self, end: End) -> Result<Duration> {
        let asked = Instant::now();
        self.end(end)?;
        let ended = asked.elapsed();
        let started = Instant::now();
        self.process = self.command.spawn().context("start the broker again")?;
        self.await_ready(started)?;
        Ok(ended)
    }

    fn end(&mut self, end: End) -> Result<()> {
        match end {
            End::Kill => self.process.kill().context("kill the broker")?,
            End::Stop => shell::run(shell::command("kill").arg(self.process.id().to_string()))?,
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if self.process.try_wait().context("wait for the broker")?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        bail!("the broker did not stop within {} s", STOP_LIMIT.as_secs())
    }

    /// What the broker has printed, over all its lives.
    pub fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// Stops the process where it stands, as if the machine had paused: it answers nothing and closes nothing.
    pub fn freeze(&self) -> Result<()> {
        shell::run(shell::command("kill").args(["-STOP", &self.process.id().to_string()]))
    }

    fn start(mut command: Command, folder: PathBuf, port: u16, sign: Sign) -> Result<Self> {
        let output = folder.join("output");
        // Appended to: a killed broker's last words stay where the next one begins.
        let file = File::options().create(true).append(true).open(&output);
        let file = file.with_context(|| format!("create {}", output.display()))?;
        let other = file.try_clone().context("share the output file")?;
        command.stdin(Stdio::null()).stdout(file).stderr(other);
        let started = Instant::now();
        let process = command.spawn().context("start the broker")?;
        let (bootstrap, ready) = (loopback(port).to_string(), Duration::ZERO);
        let mut broker = Self { command, process, sign, bootstrap, folder, keeps_remains: true, ready };
        broker.await_ready(started)?;
        println!("broker on {} after {} ms", broker.bootstrap, broker.ready.as_millis());
        Ok(broker)
    }

    fn await_ready(&mut self, started: Instant) -> Result<()> {
        while !self.sign.is_given() {
            if let Some(status) = self.process.try_wait().context("look after the broker")? {
                let output = fs::read_to_string(self.output()).unwrap_or_default();
                bail!("the broker ended with {status}:\n{output}");
            }
            if started.elapsed() > START_LIMIT {
                bail!("the broker on {} is not ready after {} s", self.bootstrap, START_LIMIT.as_secs());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.ready = started.elapsed();
        Ok(())
    }
}

impl Sign {
    fn is_given(self) -> bool {
        match self {
            Self::Port(address) => TcpStream::connect_timeout(&address, LOOK_LIMIT).is_ok(),
            Self::Http(address) => says_ready(address).unwrap_or(false),
        }
    }
}

/// Whether `/ready` answers 200.
fn says_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, LOOK_LIMIT)?;
    stream.set_read_timeout(Some(LOOK_LIMIT))?;
    stream.write_all(format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status == *b"HTTP/1.1 200")
}

/// A broker never outlives the run, however it ends.
impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already, and its folder may be gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !self.keeps_remains {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Our broker takes a config from the environment too: `num.partitions` as `FOREBAY_NUM_PARTITIONS`.
fn environment_name(key: &str) -> String {
    format!("FOREBAY_{}", key.replace('.', "_").to_uppercase())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(super) fn fresh_folder(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("{name}-clients-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// A port that nobody listens on right now.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}
