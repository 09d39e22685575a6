//! What the process is doing, for whoever asks: readiness, metrics, and those who wait for its end.

use std::fmt;
use std::sync::{Arc, Weak};

use forebay_env::{Env, Instant};
use forebay_store::Meter;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::counters::Counters;
use crate::epoch::Epoch;

/// What the process is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    /// A broker epoch ended and the next one is not there yet.
    BeginningAgain(Arc<str>),
    Draining,
    Stopped,
    Failed(Arc<str>),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ready => f.write_str("ready"),
            Self::BeginningAgain(why) => write!(f, "beginning again: {why}"),
            Self::Draining => f.write_str("draining"),
            Self::Stopped => f.write_str("stopped"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// Shared by all that run in the process.
pub(crate) struct Status {
    pub env: Env,
    pub started: Instant,
    pub counters: Arc<Counters>,
    phase: watch::Sender<Phase>,
    /// For metrics only, which must not keep an epoch that ended.
    epoch: Mutex<Weak<Epoch>>,
    meter: Mutex<Option<Arc<Meter>>>,
}

impl Status {
    pub fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            started: env.monotonic(),
            counters: Arc::default(),
            phase: watch::Sender::new(Phase::Starting),
            epoch: Mutex::default(),
            meter: Mutex::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub fn set_meter(&self, meter: &Arc<Meter>) {
        *self.meter.lock() = Some(Arc::clone(meter));
    }

    pub fn meter(&self) -> Option<Arc<Meter>> {
        self.meter.lock().clone()
    }

    pub fn set_epoch(&self, epoch: &Arc<Epoch>) {
        *self.epoch.lock() = Arc::downgrade(epoch);
    }

    pub fn epoch(&self) -> Option<Arc<Epoch>> {
        self.epoch.lock().upgrade()
    }
}
