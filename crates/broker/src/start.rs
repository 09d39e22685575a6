//! Starting a broker epoch: every start is a takeover of oneself (D1, D6).
//!
//! 1. Register: a new broker epoch, and the list of earlier lives whose WAL is not closed.
//! 2. Recover: seal each of these, move what is in its WAL only to the bucket, close it.
//! 3. Open this epoch's WAL, then all partitions under new leader epochs.
//! 4. Start the coordinators, which open their partitions as they are asked for, and upkeep.
//!
//! The folder, the bucket and the metadata were opened before (`base`); connections come after (`listener`).
//!
//! Owns: that order, and what is tried again. Leaves to others: each step.
//!
//! Crash: at any point; the next start finds this epoch among those to recover. Retries: what the store or the metadata
//! did not answer, a few times; each step may be repeated. Cancellation: as a crash.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::counters::Counters;
use forebay_api::memory::Memory;
use forebay_api::sessions::FetchSessions;
use forebay_api::{Context, HostPort};
use forebay_coordinator::Coordinators;
use forebay_coordinator::host::{HostParts, LocalMarkers};
use forebay_env::Env;
use forebay_format::DiskId;
use forebay_log::{Owner, OwnerParts, RecoverError, Recovered, Recovery, Sealers};
use forebay_metadata::command::Registered;
use forebay_metadata::service::ErrorKind;
use forebay_metadata::state::{WalEpochState, WalKind};
use forebay_metadata::{BrokerLife, Command, OpenError as MetadataError, SubmitError};
use forebay_store::{OpenError as BucketError, ProbeError, Store, StoreError};
use forebay_types::{BrokerEpoch, BrokerId};
use forebay_upkeep::UpkeepParts;
use forebay_wal::providers::disk::{DiskProvider, DiskSealer};
use forebay_wal::providers::object::{ObjectProvider, ObjectSealer};
use forebay_wal::{Provider, SealErrorKind, Sealer, WalError, WalOwner};

use crate::base::Base;
use crate::bind::BindError;
use crate::data::{DataError, disk_number};
use crate::epoch::Epoch;
use crate::options::{OptionsError, WalSetup};

/// Tries of a step whose outcome is unknown. The store has repeated each request before that.
const TRIES_MAX: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Why a broker did not start. Nothing is lost by any of these; starting again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("the bucket cannot be used")]
    Probe(#[from] ProbeError),
    #[error("the bucket could not be listed")]
    List(#[from] StoreError),
    #[error("could not open the metadata in the bucket")]
    Metadata(#[from] MetadataError),
    #[error("could not register broker {broker} in the metadata")]
    Register { broker: BrokerId, source: SubmitError },
    #[error(
        "could not recover what an earlier life of this broker left; a write-ahead log on a disk is recovered where that \
         disk is, with its data folder"
    )]
    Recover(#[from] RecoverError),
    #[error("could not open the write-ahead log")]
    Wal(#[from] WalError),
    #[error("the broker was asked to stop while it started")]
    Stopped,
}

impl Epoch {
    /// Begins a broker epoch, up to where connections may be served.
    pub async fn start(base: &Base, advertised: &HostPort) -> Result<Self, StartError> {
        let (life, recovered) = take_over(base).await?;
        log_recovered(&recovered);

        let provider = provider(base, wal_owner(base, life)).await?;
        let config = &base.options.config;
        let owner = Owner::start(OwnerParts {
            env: base.env.clone(),
            store: Arc::clone(&base.stores.log),
            metadata: Arc::clone(&base.metadata),
            cluster: base.cluster.clone(),
            life,
            provider,
            next_sequence: recovered.next_sequence,
            topic_defaults: config.topic_defaults(),
            config: base.options.log,
        })
        .await;

        let (partitions, wal) = (Arc::clone(&owner.partitions), owner.wal.clone());
        let coordinators = Coordinators::start(HostParts {
            env: base.env.clone(),
            store: Arc::clone(&base.stores.snapshot),
            metadata: Arc::clone(&base.metadata),
            life,
            partitions: Arc::clone(&partitions),
            wal: wal.clone(),
            markers: Arc::new(LocalMarkers::new(base.env.clone(), Arc::clone(&partitions), wal.clone())),
            config: base.options.coordinators.clone(),
        });

        let upkeep = forebay_upkeep::start(UpkeepParts {
            env: base.env.clone(),
            store: Arc::clone(&base.stores.collect),
            metadata: Arc::clone(&base.metadata),
            partitions: Arc::clone(&partitions),
            life,
            config: base.options.upkeep,
        });

        let context = Context {
            env: base.env.clone(),
            cluster: base.cluster.clone(),
            life,
            advertised: advertised.clone(),
            metadata: Arc::clone(&base.metadata),
            partitions,
            coordinators,
            wal,
            config: Arc::clone(config),
            counters: Counters::default(),
            memory: Memory::new(config),
            sessions: FetchSessions::new(config.fetch_session_cache_slots()),
            sabotage_cut_too_far: base.options.sabotage_cut_too_far,
        };
        Ok(Self { context: Arc::new(context), owner, recovered, upkeep })
    }
}

/// A new life under a new epoch. Asking again with the same incarnation gives the same epoch.
async fn register(base: &Base) -> Result<Registered, StartError> {
    let broker = base.options.broker;
    let mut incarnation = [0; 16];
    base.env.fill_random(&mut incarnation);
    let command =
        Command::RegisterBroker { broker, incarnation: u128::from_le_bytes(incarnation), wal: wal_kind(base) };
    let mut tries = 1;
    loop {
        match base.metadata.submit(command.clone()).await {
            Ok(reply) => return Ok(reply.into_registered()),
            Err(error) if error.kind() == ErrorKind::Retry && tries < TRIES_MAX => {
                tracing::warn!(error = &error as &dyn std::error::Error, "registering will be tried again");
            }
            Err(source) => return Err(StartError::Register { broker, source }),
        }
        tries += 1;
        base.env.sleep(RETRY_WAIT).await;
    }
}

fn wal_kind(base: &Base) -> WalKind {
    match &base.options.wal {
        WalSetup::Disk(_) => WalKind::Disk { disk: disk_number(base.disk) },
        WalSetup::Object(config) => {
            let in_flight_max = u32::try_from(config.groups_in_flight_max.get()).unwrap_or(u32::MAX);
            WalKind::Object { in_flight_max }
        }
    }
}

/// Steps 1 and 2. A recovery that broke off is gone on with by another life: some of the first one's object names may be
/// taken.
async fn take_over(base: &Base) -> Result<(BrokerLife, Recovered), StartError> {
    let mut tries = 1;
    loop {
        let registered = register(base).await?;
        let life = BrokerLife::new(base.options.broker, registered.epoch);
        match recover(base, life, &registered).await {
            Ok(recovered) => return Ok((life, recovered)),
            Err(error) if is_transient(&error) && tries < TRIES_MAX => {
                tracing::warn!(error = &error as &dyn std::error::Error, "recovery will be tried again");
            }
            Err(error) => return Err(error.into()),
        }
        tries += 1;
        base.env.sleep(RETRY_WAIT).await;
    }
}

/// Closes earlier lives, oldest first.
async fn recover(base: &Base, life: BrokerLife, registered: &Registered) -> Result<Recovered, RecoverError> {
    let sealers = Reach {
        env: base.env.clone(),
        store: Arc::clone(&base.stores.wal),
        by: wal_owner(base, life),
        disk: base.disk,
        wal_folder: base.wal_folder.clone(),
    };
    let recovery = Recovery {
        env: base.env.clone(),
        store: Arc::clone(&base.stores.log),
        metadata: Arc::clone(&base.metadata),
        cluster: base.cluster.clone(),
        life,
        size_target: base.options.log.upload.size_target,
    };
    recovery.run(registered, &sealers).await
}

fn is_transient(error: &RecoverError) -> bool {
    match error {
        RecoverError::Seal { source, .. } => source.kind() == SealErrorKind::Retry,
        RecoverError::Metadata { source, .. } => source.kind() == ErrorKind::Retry,
        RecoverError::Upload { .. } | RecoverError::NoSealer { .. } => false,
    }
}

fn wal_owner(base: &Base, life: BrokerLife) -> WalOwner {
    WalOwner { cluster: base.cluster.clone(), broker: life.broker, epoch: life.epoch }
}

/// WALs that can be sealed from here: those in the bucket, and those on this very disk (D3).
struct Reach {
    env: Env,
    store: Arc<dyn Store>,
    by: WalOwner,
    disk: DiskId,
    wal_folder: PathBuf,
}

impl Sealers for Reach {
    fn sealer(&self, wal: WalKind) -> Option<Arc<dyn Sealer>> {
        match wal {
            WalKind::Disk { disk } if disk == disk_number(self.disk) => {
                Some(Arc::new(DiskSealer::new(&self.env, self.wal_folder.clone(), self.by.cluster.clone())))
            }
            WalKind::Object { in_flight_max } => {
                let in_flight = NonZeroUsize::new(usize::try_from(in_flight_max).ok()?)?;
                Some(Arc::new(ObjectSealer::new(&self.env, Arc::clone(&self.store), self.by.clone(), in_flight)))
            }
            WalKind::Disk { .. } | WalKind::Memory => None,
        }
    }
}

/// This epoch's WAL.
async fn provider(base: &Base, owner: WalOwner) -> Result<Box<dyn Provider>, StartError> {
    match &base.options.wal {
        WalSetup::Object(config) => {
            Ok(Box::new(ObjectProvider::new(&base.env, Arc::clone(&base.stores.wal), owner, *config)))
        }
        WalSetup::Disk(limits) => {
            let disk = base.env.disk();
            let folder = base.wal_folder.clone();
            let made = folder.clone();
            base.env
                .blocking("wal-folder", move || disk.create_dir_all(&made))
                .await
                .map_err(|source| DataError::Io { what: "make the folder", path: folder.clone(), source })?;
            let config = limits.in_folder(folder);
            let (cluster, closed) = (base.cluster.clone(), closed_lives(base));
            let is_closed = move |of: &_, broker, epoch| *of == cluster && closed.contains(&(broker, epoch));
            Ok(Box::new(DiskProvider::open(&base.env, config, owner, is_closed).await?))
        }
    }
}

/// Lives whose records are all in committed data objects, so that their segments may be written over.
fn closed_lives(base: &Base) -> BTreeSet<(BrokerId, BrokerEpoch)> {
    let closed = |(life, epoch): (BrokerLife, forebay_metadata::state::WalEpoch)| {
        matches!(epoch.state, WalEpochState::Closed { .. }).then_some((life.broker, life.epoch))
    };
    base.metadata.wal_epochs().into_iter().filter_map(closed).collect()
}

fn log_recovered(recovered: &Recovered) {
    let Recovered { lives, batches, bytes, lost, .. } = recovered;
    if *lives > 0 {
        tracing::info!(lives, batches, bytes, "recovered what earlier lives of this broker left");
    }
    for lost in lost {
        tracing::error!("lost by a corrupt write-ahead log: {lost}");
    }
}
