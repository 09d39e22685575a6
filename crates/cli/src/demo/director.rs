//! Runs the schedule: lets the feed go on, kills, starts again, and holds everything against what must be true.
//!
//! One kill after the other: the feed stops at the kill's position with everything acknowledged, the point is armed, the
//! feed goes on up to the next kill, the process dies, is started on the same port and the same folder, and both topics
//! are read again from their beginning while the feed and the pipeline go on.
//!
//! Where something fails, the checks are made once more before it is told: a lost record explains more than the error of
//! whoever met it first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use forebay_client::{Admin, Client, ClientConfig, ClientError, ErrorCode, Isolation, NewTopic};
use forebay_env::Env;
use forebay_types::TopicName;

use super::checks::{self, Broken, Check, Reading, broken, still_seen};
use super::departures::{Departure, Truth};
use super::feed::Feed;
use super::plan::{Blow, Kill};
use super::process::{Child, Death};
use super::report::{Done, Proof};
use super::tally::{Due, Tally};
use super::track::Track;
use super::watcher::{Alarm, Watcher};
use super::{DEPARTURES, DEPARTURES_PARTITIONS, GROUP, STATS, STATS_PARTITIONS, Sabotage, reader};
use crate::output::count;
use crate::settings::Wal;

/// Ports to choose from: below those that the system gives to clients, as one of which our own connection attempts could
/// take the port of a broker that is down.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const PORT_TRIES: usize = 100;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// After so long without any progress the demo gives up.
const STALL_LIMIT: Duration = Duration::from_mins(1);
/// How long an armed point may stay unpassed.
const POINT_LIMIT: Duration = Duration::from_secs(20);
/// How long what the dead pipeline has sent may keep the broker busy.
const QUIET: Duration = Duration::from_millis(200);
/// How long the checks may take that look for a reason.
const REASON_LIMIT: Duration = Duration::from_secs(15);

/// Why the demo ends early.
#[derive(Debug)]
pub enum Ended {
    Broken(Broken),
    Failed(anyhow::Error),
    /// Somebody asked for it.
    Interrupted,
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.into())
    }
}

/// The processes, and what they are started with.
pub struct Stage {
    env: Env,
    port: u16,
    folder: PathBuf,
    wal: Wal,
    sabotage: Option<Sabotage>,
    broker: Child,
    pipeline: Option<Child>,
}

impl Stage {
    /// Starts the broker on a free port.
    pub async fn new(env: &Env, folder: &Path, wal: Wal, sabotage: Option<Sabotage>) -> Result<Self> {
        let port = free_port(env).await?;
        let broker = start_broker(env, folder, port, wal, sabotage).await?;
        Ok(Self { env: env.clone(), port, folder: folder.to_owned(), wal, sabotage, broker, pipeline: None })
    }

    fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How long it took until it answered.
    async fn restart_broker(&mut self) -> Result<Duration> {
        let began = self.env.monotonic();
        self.broker = start_broker(&self.env, &self.folder, self.port, self.wal, self.sabotage).await?;
        Ok(self.env.monotonic() - began)
    }

    /// How long it took until the state was back.
    async fn restart_pipeline(&mut self) -> Result<Duration> {
        let began = self.env.monotonic();
        let arguments = ["demo-pipeline".to_owned(), "--bootstrap".to_owned(), self.bootstrap()];
        let pipeline = Child::start("pipeline", &arguments, &self.folder.join("pipeline.log"))?;
        self.pipeline.insert(pipeline).expect(&self.env, "ready").await?;
        Ok(self.env.monotonic() - began)
    }

    fn pipeline(&mut self) -> Result<&mut Child> {
        self.pipeline.as_mut().context("the pipeline is started before the first kill")
    }

    /// Fails if a child has ended that nobody killed; else returns after a look's time.
    async fn look(&mut self) -> Result<()> {
        let Self { env, broker, pipeline, .. } = self;
        let pipeline_ended = async {
            match pipeline.as_mut() {
                Some(pipeline) => (pipeline.ended().await, pipeline.last_words()),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            death = broker.ended() => bail!("the broker ended by itself ({}){}", death?.status, broker.last_words()),
            (death, words) = pipeline_ended => bail!("the pipeline ended by itself ({}){words}", death?.status),
            () = env.sleep(LOOK) => Ok(()),
        }
    }

    /// Ends every process.
    pub async fn end(mut self) {
        if let Some(mut pipeline) = self.pipeline.take() {
            let killed = async {
                pipeline.kill()?;
                pipeline.ended().await
            };
            if let Err(error) = killed.await {
                tracing::debug!(%error, "the pipeline was gone already");
            }
        }
        if let Err(error) = self.broker.stop(&self.env).await {
            tracing::debug!(%error, "the broker was gone already");
        }
    }
}

async fn start_broker(env: &Env, folder: &Path, port: u16, wal: Wal, sabotage: Option<Sabotage>) -> Result<Child> {
    let data = folder.join("broker");
    let data = data.to_str().context("the folder's name is not UTF-8")?;
    let mut arguments: Vec<String> = ["demo-broker", "--data", data, "--wal", wal.name()].map(str::to_owned).into();
    arguments.extend(["--port".to_owned(), port.to_string()]);
    if let Some(sabotage) = sabotage {
        arguments.extend(["--sabotage".to_owned(), sabotage.name().to_owned()]);
    }
    let mut broker = Child::start("broker", &arguments, &folder.join("broker.log"))?;
    broker.expect(env, "ready").await?;
    Ok(broker)
}

async fn free_port(env: &Env) -> Result<u16> {
    for _ in 0..PORT_TRIES {
        let offset = env.random_below(u64::from(PORTS.end - PORTS.start));
        let port = PORTS.start + u16::try_from(offset).expect("within the range of ports");
        if env.network().listen(([127, 0, 0, 1], port).into()).await.is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port was found between {} and {}", PORTS.start, PORTS.end)
}

/// Everything between the start and the report.
pub struct Director<'a> {
    env: Env,
    stage: &'a mut Stage,
    client: Client,
    kills: Vec<Kill>,
    rows: Arc<Vec<Departure>>,
    truth: Arc<Truth>,
    /// How the result is read: committed, unless that is the planted fault.
    isolation: Isolation,
    departures: TopicName,
    stats: TopicName,
    running: Option<(Feed, Watcher)>,
    /// The input as it was read last.
    input_seen: Reading,
    track: Track,
    done: Vec<Done>,
    readings: u64,
    /// Of the last reading, once the pipeline is through.
    tally: Option<Tally>,
}

impl<'a> Director<'a> {
    pub fn new(
        env: &Env,
        stage: &'a mut Stage,
        kills: Vec<Kill>,
        rows: Vec<Departure>,
        sabotage: Option<Sabotage>,
    ) -> Result<Self> {
        let client = Client::new(env.clone(), ClientConfig::new(&stage.bootstrap()));
        let track = Track::new(rows.len(), &kills);
        let isolation = match sabotage {
            Some(Sabotage::IgnoreAborts) => Isolation::ReadUncommitted,
            _ => Isolation::ReadCommitted,
        };
        Ok(Self {
            env: env.clone(),
            stage,
            client,
            kills,
            rows: Arc::new(rows),
            truth: Arc::new(Truth::of_file()?),
            isolation,
            departures: reader::topic(DEPARTURES)?,
            stats: reader::topic(STATS)?,
            running: None,
            input_seen: Reading::new(),
            track,
            done: Vec::new(),
            readings: 0,
            tally: None,
        })
    }

    /// What was done and proved so far. What a failed proof has lost is counted by one more reading, checks or no checks.
    pub async fn close(mut self) -> Proof {
        self.track.close();
        let (fed, batches) = match &self.running {
            Some((feed, _)) => (feed.acknowledged(), feed.ledger().batches()),
            None => (0, 0),
        };
        if self.tally.is_none() && self.running.is_some() {
            let env = self.env.clone();
            self.tally = env.timeout(REASON_LIMIT, self.count()).await.and_then(Result::ok);
        }
        let file = self.truth.table().collect();
        Proof { fed, batches, readings: self.readings, kills: self.done, tally: self.tally, file }
    }

    /// Counts both topics as they are now, wherever the pipeline is.
    async fn count(&self) -> Result<Tally, Ended> {
        let (acknowledged, seen) = (self.feed().ledger().rows(), self.watcher().seen());
        let input = self.read(&self.departures, Isolation::ReadUncommitted).await?;
        let output = self.read(&self.stats, self.isolation).await?;
        Ok(Tally::of(&input, &acknowledged, &output, Due::Seen(&seen), &self.truth))
    }

    /// The whole schedule and the final checks.
    pub async fn direct(&mut self) -> Result<(), Ended> {
        self.open().await?;
        match self.schedule().await {
            Err(Ended::Failed(error)) => Err(self.reason(error).await),
            other => other,
        }
    }

    async fn open(&mut self) -> Result<(), Ended> {
        let admin = Admin::new(&self.client);
        for (name, partitions) in [(&self.departures, DEPARTURES_PARTITIONS), (&self.stats, STATS_PARTITIONS)] {
            admin.create_topic(&NewTopic::new(name.clone(), partitions)).await?;
        }
        self.stage.restart_pipeline().await?;
        let feed = Feed::start(&self.env, &self.client, self.departures.clone(), Arc::clone(&self.rows));
        let truth = Arc::clone(&self.truth);
        let watcher = Watcher::start(&self.env, &self.client, self.stats.clone(), self.isolation, truth);
        self.running = Some((feed, watcher));
        Ok(())
    }

    fn feed(&self) -> &Feed {
        &self.running.as_ref().expect("opened before the schedule begins").0
    }

    fn watcher(&self) -> &Watcher {
        &self.running.as_ref().expect("opened before the schedule begins").1
    }

    async fn schedule(&mut self) -> Result<(), Ended> {
        let kills = self.kills.clone();
        let total = self.rows.len();
        self.feed().allow(kills.first().map_or(total, |kill| kill.at));
        for (number, kill) in kills.iter().enumerate() {
            self.until(|fed, _| fed >= kill.at).await?;
            let next = kills.get(number + 1).map_or(total, |next| next.at);
            let done = self.strike(kill, next).await?;
            self.track.killed();
            self.track.say(&done.line());
            self.done.push(done.clone());
            self.verify().await?;
            checks::passed(&done)?;
        }
        self.until(|fed, _| fed >= total).await?;
        self.track
            .say(&format!("{:>7} events  all acknowledged; the pipeline goes on to the end", count(total as u64)));
        self.until(|_, rows| rows >= total).await?;
        let (input, output) = self.verify().await?;
        let tally = Tally::of(&input, &self.feed().ledger().rows(), &output, Due::All, &self.truth);
        self.tally.insert(tally).check(&self.truth)?;
        self.offsets_are_at_the_end().await
    }

    /// Waits for progress of the feed and of the committed rows.
    async fn until(&mut self, reached: impl Fn(usize, usize) -> bool) -> Result<(), Ended> {
        let mut last = (0, 0);
        let mut moved_at = self.env.monotonic();
        loop {
            self.alarms()?;
            let now = (self.feed().acknowledged(), self.watcher().rows());
            self.track.at(now.0, now.1);
            if reached(now.0, now.1) {
                return Ok(());
            }
            if now != last {
                (last, moved_at) = (now, self.env.monotonic());
            } else if self.env.monotonic() - moved_at >= STALL_LIMIT {
                let (fed, rows) = now;
                let limit = STALL_LIMIT.as_secs();
                return Err(anyhow!("nothing has moved for {limit} s: {fed} events acknowledged, {rows} rows").into());
            }
            self.stage.look().await?;
        }
    }

    /// What the tasks beside have met.
    fn alarms(&self) -> Result<(), Ended> {
        match self.watcher().alarm() {
            Some(Alarm::Broken(broken)) => return Err(broken.into()),
            Some(Alarm::Failed(error)) => return Err(anyhow::Error::from(error).context("read the result").into()),
            None => {}
        }
        match self.feed().failure() {
            Some(error) => Err(anyhow::Error::from(error).context("feed the events").into()),
            None => Ok(()),
        }
    }

    /// One kill and the restart after it. The feed goes on meanwhile, up to `next`.
    async fn strike(&mut self, kill: &Kill, next: usize) -> Result<Done, Ended> {
        let env = self.env.clone();
        let mut done = Done { at: kill.at, blow: kill.blow, reached: true, broker: None, pipeline: None };
        match kill.blow {
            Blow::Broker { point, passes } => {
                self.stage.broker.arm(&env, point.name(), passes).await?;
                self.feed().allow(next);
                done.reached = dies(&env, &mut self.stage.broker, "broker").await?;
                done.broker = Some(self.stage.restart_broker().await?);
            }
            Blow::BrokerAnytime { after_ms } => {
                self.feed().allow(next);
                env.sleep(Duration::from_millis(after_ms)).await;
                self.stage.broker.kill()?;
                killed(&self.stage.broker.ended().await?, &self.stage.broker, "broker")?;
                done.broker = Some(self.stage.restart_broker().await?);
            }
            Blow::Pipeline { point, passes } => {
                self.stage.pipeline()?.arm(&env, point.name(), passes).await?;
                self.feed().allow(next);
                done.reached = dies(&env, self.stage.pipeline()?, "pipeline").await?;
                done.pipeline = Some(self.stage.restart_pipeline().await?);
            }
            Blow::PipelineAnytime { after_ms } => {
                self.feed().allow(next);
                env.sleep(Duration::from_millis(after_ms)).await;
                self.kill_pipeline().await?;
                done.pipeline = Some(self.stage.restart_pipeline().await?);
            }
            Blow::Both { point } => {
                self.kill_pipeline().await?;
                env.sleep(QUIET).await;
                self.stage.broker.arm(&env, point.name(), 1).await?;
                self.feed().allow(next);
                done.reached = dies(&env, &mut self.stage.broker, "broker").await?;
                done.broker = Some(self.stage.restart_broker().await?);
                done.pipeline = Some(self.stage.restart_pipeline().await?);
            }
        }
        Ok(done)
    }

    async fn kill_pipeline(&mut self) -> Result<()> {
        let pipeline = self.stage.pipeline()?;
        pipeline.kill()?;
        killed(&pipeline.ended().await?, pipeline, "pipeline")
    }

    /// Reads both topics from the beginning and holds them against the ledger, the file, and what was read before. Gives
    /// both readings.
    async fn verify(&mut self) -> Result<(Reading, Reading), Ended> {
        // Taken before the reading: all of it must be in there.
        let ledger = self.feed().ledger();
        let rows_seen = self.watcher().seen();
        let input = self.read(&self.departures, Isolation::ReadUncommitted).await?;
        ledger.check(&input)?;
        checks::once(&input, &self.rows)?;
        still_seen(DEPARTURES, &self.input_seen, &input)?;
        self.input_seen.clone_from(&input);
        let output = self.read(&self.stats, self.isolation).await?;
        checks::rows(&output, &self.truth)?;
        still_seen(STATS, &rows_seen, &output)?;
        self.readings += 1;
        Ok((input, output))
    }

    async fn read(&self, topic: &TopicName, isolation: Isolation) -> Result<Reading, Ended> {
        let reading = self.env.timeout(STALL_LIMIT, reader::read(&self.client, topic, isolation)).await;
        match reading {
            None => Err(anyhow!("{topic} could not be read to its end within {} s", STALL_LIMIT.as_secs()).into()),
            Some(Ok(reading)) => Ok(reading),
            // The end was asked for just now: what lies below it is not there.
            Some(Err(error)) if error.code() == Some(ErrorCode::OffsetOutOfRange) => {
                Err(broken(Check::Seen, format!("a reading of {topic} broke off: {error}")).into())
            }
            Some(Err(error)) => Err(anyhow::Error::from(error).context(format!("read {topic} again")).into()),
        }
    }

    /// The pipeline has committed offsets at the end of each partition of its input.
    async fn offsets_are_at_the_end(&self) -> Result<(), Ended> {
        let ends = reader::ends(&self.client, &self.departures, Isolation::ReadCommitted).await?;
        let committed = Admin::new(&self.client).committed_offsets(GROUP, None).await?;
        for (partition, end) in ends {
            let found = committed.iter().find(|one| one.partition == partition).map(|one| one.offset.get());
            if found.unwrap_or(0) != end.get() {
                let what = format!("{partition} ends at {end} and the pipeline's committed offset is {found:?}");
                return Err(broken(Check::Table, what).into());
            }
        }
        Ok(())
    }

    /// A failed check, where one explains an error.
    async fn reason(&mut self, error: anyhow::Error) -> Ended {
        if let Some(Alarm::Broken(broken)) = self.watcher().alarm() {
            return Ended::Broken(broken);
        }
        let env = self.env.clone();
        match env.timeout(REASON_LIMIT, self.verify()).await {
            Some(Err(Ended::Broken(broken))) => Ended::Broken(broken),
            _ => Ended::Failed(error),
        }
    }
}

/// Waits for the death that was ordered; kills where the point is not passed. Whether it was.
async fn dies(env: &Env, child: &mut Child, name: &str) -> Result<bool> {
    let death = if let Some(death) = env.timeout(POINT_LIMIT, child.ended()).await {
        death?
    } else {
        child.kill()?;
        child.ended().await?
    };
    killed(&death, child, name)?;
    Ok(death.killed_at.is_some())
}

fn killed(death: &Death, child: &Child, name: &str) -> Result<()> {
    if !death.by_kill() {
        bail!("the {name} ended otherwise than by the kill ({}){}", death.status, child.last_words());
    }
    Ok(())
}
