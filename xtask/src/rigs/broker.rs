//! The broker under test: ours, or Apache Kafka's for the baseline. Its folder is fresh and goes with it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::Jars;
use crate::{shell, workspace};

/// How long a broker may take to open its port: Apache Kafka needs most of it on a loaded machine.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Where our broker keeps what it has acknowledged and not yet uploaded.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Wal {
    #[default]
    Disk,
    Object,
}

pub struct Broker {
    process: Child,
    bootstrap: String,
    folder: PathBuf,
    /// From start to the open port.
    ready: Duration,
}

impl Broker {
    /// Our release binary on a fresh data folder.
    pub fn forebay(wal: Wal) -> Result<Self> {
        shell::say("build the release binary");
        shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "forebay-cli"]))?;
        let binary = workspace::target().join("release").join("forebay");
        let folder = fresh_folder("forebay")?;
        let (kafka, admin) = (free_port()?, free_port()?);
        let wal = match wal {
            Wal::Disk => "disk",
            Wal::Object => "object",
        };
        let mut command = shell::command(binary);
        command.args(["dev", "--wal", wal, "--data"]).arg(folder.join("data"));
        command.args(["--kafka", &format!("127.0.0.1:{kafka}"), "--admin", &format!("127.0.0.1:{admin}")]);
        Self::start(command, folder, kafka)
    }

    /// Apache Kafka, set up so that only its protocol can differ from ours.
    pub fn kafka(jars: &Jars) -> Result<Self> {
        let folder = fresh_folder("kafka")?;
        let (port, controller) = (free_port()?, free_port()?);
        let config = folder.join("server.properties");
        let properties = format!(
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
        fs::write(&config, properties).with_context(|| format!("write {}", config.display()))?;
        let config = config.to_str().context("the path of the configuration is not UTF-8")?;
        let id = shell::output(&mut jars.tool("kafka.tools.StorageTool", &["random-uuid"]))?;
        // Transactions V1, which is what we speak.
        let format = ["format", "-t", id.trim(), "-c", config, "--feature", "transaction.version=0"];
        shell::output(&mut jars.tool("kafka.tools.StorageTool", &format))?;
        let mut command = jars.java(1024);
        command.arg("kafka.Kafka").arg(config);
        Self::start(command, folder, port)
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

    /// Asks the broker to stop and waits; what it printed stays only where that fails.
    pub fn stop(mut self) -> Result<()> {
        let mut kill = shell::command("kill");
        shell::run(kill.arg(self.process.id().to_string()))?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if self.process.try_wait().context("wait for the broker")?.is_some() {
                return fs::remove_dir_all(&self.folder).context("remove the broker's folder");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the broker did not stop within {} s of SIGTERM", STOP_LIMIT.as_secs())
    }

    fn start(mut command: Command, folder: PathBuf, port: u16) -> Result<Self> {
        let output = folder.join("output");
        let file = File::create(&output).with_context(|| format!("create {}", output.display()))?;
        let other = file.try_clone().context("share the output file")?;
        let started = Instant::now();
        let process = command.stdin(Stdio::null()).stdout(file).stderr(other).spawn().context("start the broker")?;
        let mut broker = Self { process, bootstrap: format!("127.0.0.1:{port}"), folder, ready: Duration::ZERO };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            if let Some(status) = broker.process.try_wait().context("look after the broker")? {
                bail!("the broker ended with {status}:\n{}", fs::read_to_string(&output).unwrap_or_default());
            }
            if started.elapsed() > START_LIMIT {
                bail!("nothing listens on {address} after {} s", START_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        broker.ready = started.elapsed();
        println!("broker on {} after {} ms", broker.bootstrap, broker.ready.as_millis());
        Ok(broker)
    }
}

/// A broker never outlives the run, however it ends.
impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn fresh_folder(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("{name}-clients-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// A port that nobody listens on right now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}
