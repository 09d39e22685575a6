//! One run of a plan: the hosts, the faults in their time, and what came of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use forebay_client::{Admin, Isolation};
use forebay_env::simulated::Trace;
use forebay_store::Store;
use forebay_upkeep::ToolError;
use forebay_upkeep::fsck::{self, CheckOptions, Severity};
use parking_lot::Mutex;
use tokio::sync::watch;
use turmoil::Sim;

use crate::broker::{self, HOSTS};
use crate::bucket::SimBucket;
use crate::check;
use crate::history::{History, Violation};
use crate::machine::{BrokerClocks, Machine};
use crate::nemesis::Nemesis;
use crate::plan::Plan;
use crate::workload::{
    Audit, Worker, audit, group_member, idempotent_producer, janitor, reader, transactional_producer, watcher,
};

/// One step of the simulation: the finest time that messages and timers are told apart by.
const TICK: Duration = Duration::from_millis(1);

/// The longest that a run may take in simulated time: far more than its clients work, for what a bad day delays.
const RUN_MAX: Duration = Duration::from_mins(15);

/// With a bug put in the broker may not come back at all, which shows soon.
const PLANTED_RUN_MAX: Duration = Duration::from_mins(1);

/// The hosts that talk to the broker.
pub(crate) const CLIENTS: [&str; 11] = [
    "plain-a",
    "plain-b",
    "txn-c",
    "txn-d",
    "member-e",
    "member-f",
    "reader-g",
    "reader-h",
    "watcher-i",
    "janitor-j",
    "auditor",
];

/// Made when the first broker starts.
pub(crate) type SharedBucket = Arc<Mutex<Option<SimBucket>>>;

fn run_max(plan: &Plan) -> Duration {
    if plan.plant.is_some() { PLANTED_RUN_MAX } else { RUN_MAX }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    /// Over every message, I/O, timer and fault in its order: two runs of a plan have the same.
    pub digest: u64,
    pub events: u64,
    pub simulated: Duration,
    /// What happened how often, so that many runs together can be seen to have had some of everything.
    pub counts: BTreeMap<&'static str, u64>,
}

/// A run that a person looks at has its events kept.
pub fn run(plan: &Plan) -> Result<Outcome> {
    run_traced(plan, &Trace::default())
}

pub fn run_traced(plan: &Plan, trace: &Trace) -> Result<Outcome> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(4))
        .tcp_capacity(4096)
        .simulation_duration(RUN_MAX)
        .build();
    let hosts = if plan.has_usurper() { &HOSTS[..] } else { &HOSTS[..1] };
    let machines: Vec<Machine> =
        (0..).zip(hosts).map(|(at, name)| Machine::new(name, plan.seed.wrapping_add(at), trace)).collect();
    let history = History::default();
    let bucket = SharedBucket::default();
    let audited: Arc<Mutex<Option<Audit>>> = Arc::default();
    let (calm, working) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let appointed = watch::Sender::new(0);

    for (at, machine) in machines.iter().enumerate() {
        let (machine, bucket, plan) = (machine.clone(), Arc::clone(&bucket), plan.clone());
        let (appointed, lives) = (appointed.subscribe(), AtomicU64::new(0));
        sim.host(machine.name, move || {
            let env = machine.env(lives.fetch_add(1, Ordering::Relaxed));
            let bucket = {
                let mut bucket = bucket.lock();
                let of_run = || {
                    // A machine of its own, whose clock nobody moves.
                    SimBucket::new(&Machine::new("bucket", plan.seed, &machine.trace).env(0), plan.seed)
                };
                bucket.get_or_insert_with(of_run).seen_from(&machine)
            };
            let asked_to_stop = Arc::clone(&machine.asked_to_stop);
            broker::serve(env, bucket, plan.clone(), at, appointed.clone(), asked_to_stop)
        });
    }

    let clocks = BrokerClocks::new(machines.iter().map(|machine| machine.clock.clone()));
    let appointment = appointed.subscribe();
    let clients = Clients { plan, trace, history: &history, working: &working, clocks, appointed: appointment };
    clients.start(&mut sim, "plain-a", |worker| async move { idempotent_producer(worker, "a").await });
    clients.start(&mut sim, "plain-b", |worker| async move { idempotent_producer(worker, "b").await });
    clients.start(&mut sim, "txn-c", |worker| async move { transactional_producer(worker, "c").await });
    clients.start(&mut sim, "txn-d", |worker| async move { transactional_producer(worker, "d").await });
    clients.start(&mut sim, "member-e", group_member);
    clients.start(&mut sim, "member-f", group_member);
    clients.start(&mut sim, "reader-g", |worker| reader(worker, "transactions", Isolation::ReadCommitted));
    clients.start(&mut sim, "reader-h", |worker| reader(worker, "plain", Isolation::ReadUncommitted));
    clients.start(&mut sim, "watcher-i", watcher);
    clients.start(&mut sim, "janitor-j", janitor);
    clients.audit(&mut sim, &bucket, &audited, &calm);

    let mut nemesis = Nemesis::new(plan, &machines, appointed, &bucket, trace);
    let finished = loop {
        let done = sim.step().map_err(|error| anyhow::anyhow!("the simulation stopped: {error}"))?;
        let now = sim.elapsed();
        nemesis.act(&mut sim, now);
        if now >= plan.lasts && !calm.load(Ordering::Relaxed) {
            nemesis.heal_all(&mut sim);
            calm.store(true, Ordering::Relaxed);
        }
        if done {
            break true;
        }
        if now + TICK * 2 >= run_max(plan) {
            let what = format!("after {} s of simulated time", now.as_secs());
            history.violation("every client is done in the end", what);
            break false;
        }
    };
    let audit = audited.lock().take();
    let violations = match &audit {
        Some(audit) => check::check(&history, audit),
        None => history.with(|seen| seen.violations.clone()),
    };
    if finished && violations.is_empty() {
        let audit = audit.as_ref().context("the audit has ended")?;
        if audit.all.is_empty() || history.with(|seen| seen.acked()) == 0 {
            bail!("a run in which nothing is acknowledged and read shows nothing");
        }
    }
    let mut counts = history.with(|seen| seen.counts());
    let collected = bucket.lock().as_ref().map_or(0, SimBucket::collected);
    counts.extend([("crashes", nemesis.crashes), ("usurped", nemesis.usurped), ("collected", collected)]);
    counts.insert("read", audit.map_or(0, |audit| audit.all.len() as u64));
    let (digest, events, simulated) = (trace.digest(), trace.events(), sim.elapsed());
    Ok(Outcome { violations, digest, events, simulated, counts })
}

/// Starts clients, each on a host of its own.
struct Clients<'a> {
    plan: &'a Plan,
    trace: &'a Trace,
    history: &'a History,
    /// Clients that have not ended.
    working: &'a Arc<AtomicUsize>,
    clocks: BrokerClocks,
    appointed: watch::Receiver<usize>,
}

impl Clients<'_> {
    fn start<F>(&self, sim: &mut Sim<'_>, name: &'static str, work: impl FnOnce(Worker) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let (worker, working) = (self.worker(name), Arc::clone(self.working));
        working.fetch_add(1, Ordering::Relaxed);
        sim.client(name, async move {
            work(worker()).await;
            working.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        });
    }

    /// Reads everything once the faults are over and the others have ended.
    fn audit(
        &self,
        sim: &mut Sim<'_>,
        bucket: &SharedBucket,
        audited: &Arc<Mutex<Option<Audit>>>,
        calm: &Arc<AtomicBool>,
    ) {
        let worker = self.worker("auditor");
        let (bucket, audited) = (Arc::clone(bucket), Arc::clone(audited));
        let (calm, working) = (Arc::clone(calm), Arc::clone(self.working));
        sim.client("auditor", async move {
            let worker = worker();
            while !calm.load(Ordering::Relaxed) || working.load(Ordering::Relaxed) > 0 {
                worker.pause(100).await;
            }
            wait_until_quiet(&worker).await;
            let bare = bucket.lock().as_ref().map(|bucket| Arc::clone(&bucket.bare)).expect("the broker has run");
            // What is damaged might be read for ever, and what it costs is told already.
            if fsck(&worker, &bare).await? {
                *audited.lock() = Some(audit(&worker).await);
            }
            Ok(())
        });
    }

    /// What makes the client's tools, on its host.
    fn worker(&self, name: &'static str) -> impl FnOnce() -> Worker + use<> {
        let seed = name.bytes().fold(self.plan.seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let machine = Machine::new(name, seed, self.trace);
        let (plan, history) = (self.plan.clone(), self.history.clone());
        let (clocks, appointed) = (self.clocks.clone(), self.appointed.clone());
        move || Worker::new(machine.env(0), &plan, history, seed, clocks, appointed)
    }
}

/// Everything that metadata names is in the bucket, whole; whether that holds.
async fn fsck(worker: &Worker, bucket: &Arc<dyn Store>) -> Result<bool, ToolError> {
    let report = fsck::check(&worker.env, bucket, CheckOptions { deep: true, wal_folder: None }, &|_| {}).await?;
    let mut whole = true;
    for finding in report.findings.iter().filter(|finding| finding.severity == Severity::Error) {
        worker.history.violation("nothing reachable was collected or damaged", finding.to_string());
        whole = false;
    }
    Ok(whole)
}

/// Waits until no transaction is open: their clients have ended them, or the coordinator does in their stead.
async fn wait_until_quiet(worker: &Worker) {
    let admin = Admin::new(&worker.client);
    let states = ["Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"];
    while !admin.list_transactions(&states).await.is_ok_and(|open| open.is_empty()) {
        worker.pause(200).await;
    }
}
