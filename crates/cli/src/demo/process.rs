//! A child process: started, given orders, killed, seen to be dead.
//!
//! Invariants: 1. A child is never left running: it is killed when its handle is dropped, and it ends by itself when this
//! process does. 2. It is in a process group of its own, so that Ctrl-C reaches us alone and we decide.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use forebay_env::Env;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::broker::BrokerArgs;
use super::pipeline::PipelineArgs;

/// How long a child may take over an order, or to be ready.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// How long a child that was asked to stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a child is started with: the first word says which it is.
#[derive(Debug, clap::Parser)]
pub enum ChildArguments {
    DemoBroker(BrokerArgs),
    DemoPipeline(PipelineArgs),
}

impl ChildArguments {
    /// `None` where this process was started by somebody else.
    pub fn of_this_process() -> Option<Self> {
        let ours = |word: std::ffi::OsString| word == "demo-broker" || word == "demo-pipeline";
        std::env::args_os().nth(1).is_some_and(ours).then(<Self as clap::Parser>::parse)
    }
}

pub struct Child {
    name: &'static str,
    log: PathBuf,
    process: tokio::process::Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// The point at which it said that it kills itself.
    killed_at: Option<String>,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    pub status: ExitStatus,
    /// The point at which it killed itself, where it did.
    pub killed_at: Option<String>,
}

impl Death {
    /// Whether it died by SIGKILL, its own or ours.
    pub fn by_kill(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw())
    }
}

impl Child {
    /// Starts this program with other arguments; its standard error goes to the end of `log`.
    pub fn start(name: &'static str, arguments: &[String], log: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let stderr = OpenOptions::new().create(true).append(true).open(log);
        let stderr = stderr.with_context(|| format!("open the log {}", log.display()))?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start the {name}"))?;
        let orders = process.stdin.take().context("a piped standard input")?;
        let lines = BufReader::new(process.stdout.take().context("a piped standard output")?).lines();
        Ok(Self { name, log: log.to_owned(), process, orders, lines, killed_at: None })
    }

    /// Waits for a line.
    pub async fn expect(&mut self, env: &Env, wanted: &str) -> Result<()> {
        let name = self.name;
        let waited = env.timeout(ANSWER_LIMIT, async {
            loop {
                match self.lines.next_line().await {
                    Ok(Some(line)) if line == wanted => return Ok(()),
                    Ok(Some(line)) => self.note(&line),
                    Ok(None) | Err(_) => {
                        let status = self.process.wait().await?;
                        let told = self.last_words();
                        bail!("the {name} ended ({status}) before it said {wanted:?}{told}")
                    }
                }
            }
        });
        match waited.await {
            Some(result) => result,
            None => bail!("the {name} did not say {wanted:?} within {} s", ANSWER_LIMIT.as_secs()),
        }
    }

    fn note(&mut self, line: &str) {
        if let Some(point) = line.strip_prefix("killed ") {
            self.killed_at = Some(point.to_owned());
        }
    }

    /// Makes the child kill itself at the n-th pass of a point from now on.
    pub async fn arm(&mut self, env: &Env, point: &str, passes: u64) -> Result<()> {
        let order = format!("arm {point} {passes}\n");
        self.orders.write_all(order.as_bytes()).await.with_context(|| format!("give the {} an order", self.name))?;
        self.expect(env, &format!("armed {point}")).await
    }

    /// SIGKILL, from outside.
    pub fn kill(&mut self) -> Result<()> {
        self.process.start_kill().with_context(|| format!("kill the {}", self.name))
    }

    /// Waits until the child is dead. Cancel safe.
    pub async fn ended(&mut self) -> Result<Death> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            self.note(&line);
        }
        let status = self.process.wait().await.with_context(|| format!("wait for the {}", self.name))?;
        Ok(Death { status, killed_at: self.killed_at.clone() })
    }

    /// Asks the child to stop, and kills it if it does not.
    pub async fn stop(&mut self, env: &Env) -> Result<()> {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // Gone already is as good as asked.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        if env.timeout(STOP_LIMIT, self.ended()).await.is_none() {
            tracing::warn!("the {} does not stop: killed", self.name);
            self.kill()?;
            self.ended().await?;
        }
        Ok(())
    }

    /// The end of the child's log, for an error.
    pub fn last_words(&self) -> String {
        const LINES: usize = 5;
        let Ok(log) = std::fs::read_to_string(&self.log) else { return String::new() };
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        if last.is_empty() { String::new() } else { format!("; its log ends with\n  {}", last.join("\n  ")) }
    }
}
