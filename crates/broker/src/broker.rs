//! The broker as one process: it starts, serves broker epochs one after the other, drains, ends.
//!
//! Owns: the order of starting and stopping, beginning again after the WAL has failed, and telling how it ended. Leaves
//! to others: how an epoch starts (`start`), serves (`listener`) and drains (`epoch`).
//!
//! Beginning again: a WAL whose medium failed ends its broker epoch (D1). The process drops that epoch with all its
//! connections and begins the next, by the same steps as at its start. Sockets stay open meanwhile, and clients wait in
//! their backlog. After [`EPOCHS_LOST_MAX`] such ends in [`EPOCHS_LOST_WINDOW`], or any other end, the process ends with
//! an error: what broke is not mended by trying.
//!
//! Invariants:
//! 1. Of two broker epochs in one process, the first serves nothing and nobody any more when the second is registered.
//! 2. The data folder's lock is held from before anything is read until after the last task has ended.
//! 3. Sockets are bound early, so that a taken port fails the start at once, and accepted from only while an epoch serves.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::HostPort;
use forebay_env::{Env, Instant, Listener, Shutdown, Task};
use forebay_log::Recovered;
use forebay_metadata::BrokerLife;
use forebay_types::ClusterId;
use forebay_wal::WalKind;
use tokio::sync::watch;

use crate::admin;
use crate::base::Base;
use crate::bind::bind;
use crate::connection::Serving;
use crate::data::DataFolder;
use crate::epoch::{Epoch, EpochEnd};
use crate::listener;
use crate::options::BrokerOptions;
use crate::start::StartError;
use crate::status::{Phase, Status};

/// How long requests in progress may take once the broker drains: Kafka's clients ask for long polls of half a second.
const REQUESTS_DRAIN_TIME_MAX: Duration = Duration::from_secs(3);

/// How long closing the metadata may take.
const METADATA_STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Broker epochs that may be lost to a failed WAL in one window before the process gives up.
const EPOCHS_LOST_MAX: usize = 3;
const EPOCHS_LOST_WINDOW: Duration = Duration::from_mins(5);

/// A running broker. Dropping it ends it where it stands, as a crash does; [`Broker::stop`] drains.
#[must_use = "a broker ends when it is dropped"]
pub struct Broker {
    kafka: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    advertised: HostPort,
    report: StartReport,
    stopping: Shutdown,
    outcome: watch::Receiver<Option<Result<(), Ended>>>,
    _tasks: [Task<()>; 2],
}

/// What the start has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReport {
    /// From the call to the moment when clients were served.
    pub ready_in: Duration,
    pub cluster: ClusterId,
    pub life: BrokerLife,
    /// What earlier lives had left in their WALs.
    pub recovered: Recovered,
    pub wal: WalKind,
    /// What is lost together with the WAL.
    pub fault_domain: String,
    /// The bucket as a person knows it.
    pub bucket: String,
}

/// Why a broker ended by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Ended {
    #[error(
        "the metadata's writer has ended ({0}): another process may have taken over this bucket; if none has, start again"
    )]
    Metadata(Arc<str>),
    #[error("the broker epoch has ended for good: {0}")]
    Epoch(Arc<str>),
    #[error("the write-ahead log failed {times} times in {} s, the last time so: {last}", EPOCHS_LOST_WINDOW.as_secs())]
    Failing { times: usize, last: Arc<str> },
    #[error("the write-ahead log failed ({why}), and the next broker epoch could not begin")]
    Next { why: Arc<str>, source: Arc<StartError> },
    #[error("a task of the broker panicked")]
    Panicked,
}

impl Broker {
    /// Starts a broker. Returns when it serves clients. Must run in a tokio runtime; `env.shutdown()` drains it.
    ///
    /// # Errors
    /// Says what could not be done and what to do about it. Everything that was taken is given back.
    pub async fn start(env: Env, options: BrokerOptions) -> Result<Self, StartError> {
        options.check()?;
        let options = Arc::new(options);
        let status = Arc::new(Status::new(&env));
        let folder = DataFolder::open(&env, &options.data).await?;
        let kafka = bind(&env, options.kafka).await?;
        let admin = bind(&env, options.admin).await?;
        let addresses = |of: &[Arc<dyn Listener>]| of.iter().map(|l| l.local_addr()).collect::<Vec<_>>();
        let (kafka_addresses, admin_addresses) = (addresses(&kafka), addresses(&admin));
        let advertised = options.advertised(kafka_addresses[0].port());
        // From here on it can be asked whether the broker is ready.
        let admin = env.spawn("admin", admin::serve(admin, Arc::clone(&status)));

        let begin = async {
            let base = Base::open(&env, Arc::clone(&options), folder).await?;
            status.set_meter(base.bucket.meter());
            let epoch = Epoch::start(&base, &advertised).await?;
            Ok((base, epoch))
        };
        let (base, epoch) = tokio::select! {
            biased;
            () = env.shutdown().triggered() => Err(StartError::Stopped),
            begun = begin => begun,
        }?;

        let report = StartReport {
            ready_in: env.monotonic().duration_since(status.started),
            cluster: base.cluster.clone(),
            life: epoch.context.life,
            recovered: epoch.recovered.clone(),
            wal: epoch.owner.wal.kind(),
            fault_domain: epoch.owner.wal.fault_domain(),
            bucket: base.bucket.name().to_owned(),
        };
        tracing::info!(
            kafka = ?kafka_addresses, advertised = %advertised, admin = ?admin_addresses, life = %report.life,
            wal = %report.wal, bucket = %report.bucket, ready_ms = report.ready_in.as_millis(), "ready"
        );
        let stopping = Shutdown::default();
        let (ended, outcome) = watch::channel(None);
        let process = Process {
            env: env.clone(),
            base,
            kafka,
            advertised: advertised.clone(),
            status,
            stopping: stopping.clone(),
            lost: VecDeque::new(),
        };
        let process = env.spawn("broker", async move {
            let result = process.run(epoch).await;
            ended.send_replace(Some(result));
        });
        Ok(Self {
            kafka: kafka_addresses,
            admin: admin_addresses,
            advertised,
            report,
            stopping,
            outcome,
            _tasks: [process, admin],
        })
    }

    /// Where Kafka clients may connect: one address, or both of localhost.
    pub fn kafka_addresses(&self) -> &[SocketAddr] {
        &self.kafka
    }

    /// Where health and metrics are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin[0]
    }

    /// What clients are told to connect to.
    pub fn advertised(&self) -> &HostPort {
        &self.advertised
    }

    pub fn report(&self) -> &StartReport {
        &self.report
    }

    /// Returns once the broker has ended: drained because it was asked to. Cancel safe.
    ///
    /// # Errors
    /// It ended by itself.
    pub async fn wait(&self) -> Result<(), Ended> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("just seen"),
            // The task that would say so is gone.
            Err(_) => Err(Ended::Panicked),
        }
    }

    /// Drains the broker and returns once it has ended. What it held is free then. Cancel safe: it goes on draining.
    ///
    /// # Errors
    /// It ended by itself before.
    pub async fn stop(&self) -> Result<(), Ended> {
        self.stopping.trigger();
        self.wait().await
    }
}

/// What runs from ready to the end.
struct Process {
    env: Env,
    base: Base,
    kafka: Vec<Arc<dyn Listener>>,
    advertised: HostPort,
    status: Arc<Status>,
    stopping: Shutdown,
    /// When epochs were lost to a failed WAL, within the window.
    lost: VecDeque<Instant>,
}

/// What ends the serving of an epoch.
enum Cause {
    Asked,
    Metadata(Arc<str>),
    Epoch(EpochEnd),
}

impl Process {
    async fn run(mut self, first: Epoch) -> Result<(), Ended> {
        let mut epoch = first;
        let result = loop {
            let cause = self.serve(epoch).await;
            epoch = match self.next(cause).await {
                Next::Epoch(epoch) => epoch,
                Next::End(result) => break result,
            };
        };
        if self.env.timeout(METADATA_STOP_TIME_MAX, self.base.host.stop()).await.is_none() {
            tracing::warn!("the metadata did not close in time; the next start reads what it left");
        }
        match &result {
            Ok(()) => self.status.enter(Phase::Stopped),
            Err(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "the broker has ended");
                self.status.enter(Phase::Failed(error.to_string().into()));
            }
        }
        result
    }

    /// Serves an epoch to its end. Nothing of it is left when this returns.
    async fn serve(&self, epoch: Epoch) -> Cause {
        let epoch = Arc::new(epoch);
        let serving = Serving::new(&self.env, Arc::clone(&epoch.context), Arc::clone(&self.status.counters));
        let serving = Arc::new(serving);
        let accept = |listener: &Arc<dyn Listener>| {
            self.env.spawn("kafka-listener", listener::accept(Arc::clone(listener), Arc::clone(&serving)))
        };
        let mut listeners: Vec<Task<()>> = self.kafka.iter().map(accept).collect();
        self.status.set_epoch(&epoch);
        self.status.enter(Phase::Ready);
        let cause = tokio::select! {
            biased;
            () = self.env.shutdown().triggered() => Cause::Asked,
            () = self.stopping.triggered() => Cause::Asked,
            why = self.base.host.ended() => Cause::Metadata(why),
            end = epoch.ended() => Cause::Epoch(end),
            // A listener returns only where it was asked to, or panics.
            () = any(&mut listeners) => unreachable!("listeners run until they are closed"),
        };
        serving.closing.trigger();
        if matches!(cause, Cause::Asked) {
            self.status.enter(Phase::Draining);
            tracing::info!("draining");
            let finished = async {
                for listener in &mut listeners {
                    listener.await;
                }
            };
            if self.env.timeout(REQUESTS_DRAIN_TIME_MAX, finished).await.is_none() {
                tracing::info!("requests in progress were cut off");
            }
            epoch.drain(&self.env).await;
        }
        for mut listener in listeners {
            if !listener.is_finished() {
                listener.abort();
                (&mut listener).await;
            }
        }
        cause
    }

    async fn next(&mut self, cause: Cause) -> Next {
        let end = match cause {
            Cause::Asked => return Next::End(Ok(())),
            Cause::Metadata(why) => return Next::End(Err(Ended::Metadata(why))),
            Cause::Epoch(end) => end,
        };
        let why: Arc<str> = end.to_string().into();
        if !end.may_begin_again() {
            return Next::End(Err(Ended::Epoch(why)));
        }
        let now = self.env.monotonic();
        self.lost.push_back(now);
        self.lost.retain(|lost| now.duration_since(*lost) < EPOCHS_LOST_WINDOW);
        if self.lost.len() > EPOCHS_LOST_MAX {
            return Next::End(Err(Ended::Failing { times: self.lost.len(), last: why }));
        }
        tracing::error!(error = %why, "the write-ahead log has failed: beginning another broker epoch");
        self.status.enter(Phase::BeginningAgain(Arc::clone(&why)));
        tokio::select! {
            biased;
            // Nothing runs that could be drained.
            () = self.env.shutdown().triggered() => Next::End(Ok(())),
            () = self.stopping.triggered() => Next::End(Ok(())),
            begun = Epoch::start(&self.base, &self.advertised) => match begun {
                Ok(epoch) => Next::Epoch(epoch),
                Err(source) => Next::End(Err(Ended::Next { why, source: Arc::new(source) })),
            },
        }
    }
}

enum Next {
    Epoch(Epoch),
    End(Result<(), Ended>),
}

/// Returns when one of the tasks has, and passes on its panic.
async fn any(tasks: &mut [Task<()>]) {
    futures::future::select_all(tasks.iter_mut()).await;
}
