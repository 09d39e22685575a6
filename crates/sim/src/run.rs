//! One run of a plan: the hosts, the faults in their time, and what came of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use forebay_client::{Admin, Isolation};
use forebay_env::simulated::{DiskFault, Trace};
use forebay_store::{FaultRates, Prefix, Store, StoreError};
use forebay_upkeep::ToolError;
use forebay_upkeep::fsck::{self, CheckOptions, Severity};
use parking_lot::Mutex;
use turmoil::Sim;

use crate::broker;
use crate::bucket::SimBucket;
use crate::check;
use crate::history::{History, Violation};
use crate::machine::Machine;
use crate::plan::{Event, Plan, Plant};
use crate::workload::{Audit, Worker, audit, group_member, idempotent_producer, reader, transactional_producer};

/// One step of the simulation: the finest time that messages and timers are told apart by.
const TICK: Duration = Duration::from_millis(1);

/// The longest that a run may take in simulated time: far more than its clients work, for what a bad day delays.
const RUN_MAX: Duration = Duration::from_mins(15);

/// With a bug put in the broker may not come back at all, which shows soon.
const PLANTED_RUN_MAX: Duration = Duration::from_mins(1);

fn run_max(plan: &Plan) -> Duration {
    if plan.plant.is_some() { PLANTED_RUN_MAX } else { RUN_MAX }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    /// Over every message, I/O and fault in its order: two runs of a plan have the same.
    pub digest: u64,
    pub events: u64,
    /// How often the broker lost power.
    pub crashes: u64,
    /// Values acknowledged, and values read in the audit.
    pub acked: usize,
    pub read: usize,
    pub simulated: Duration,
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
    let machine = Machine::new("broker", plan.seed, trace);
    let history = History::default();
    let bucket: Arc<Mutex<Option<SimBucket>>> = Arc::default();
    let lives = Arc::new(AtomicU64::new(0));
    let audited: Arc<Mutex<Option<Audit>>> = Arc::default();
    let calm = Arc::new(AtomicBool::new(false));

    if plan.plant == Some(Plant::MissingSync) {
        machine.disk.inject(DiskFault::SyncLies);
    }
    let host = {
        let (machine, bucket, lives, plan, trace) =
            (machine.clone(), Arc::clone(&bucket), Arc::clone(&lives), plan.clone(), trace.clone());
        move || {
            let life = lives.fetch_add(1, Ordering::Relaxed);
            let env = machine.env(life);
            let bucket =
                bucket.lock().get_or_insert_with(|| SimBucket::new(&env, plan.seed, &trace, &machine.power)).clone();
            broker::serve(env, bucket, plan.clone())
        }
    };
    sim.host("broker", host);

    let clients = Clients { plan, trace, history: &history, calm: &calm };
    clients.start(&mut sim, "plain-a", |worker| async move { idempotent_producer(worker, "a").await });
    clients.start(&mut sim, "plain-b", |worker| async move { idempotent_producer(worker, "b").await });
    clients.start(&mut sim, "txn-c", |worker| async move { transactional_producer(worker, "c").await });
    clients.start(&mut sim, "txn-d", |worker| async move { transactional_producer(worker, "d").await });
    clients.start(&mut sim, "member-e", group_member);
    clients.start(&mut sim, "member-f", group_member);
    let seen_as = match plan.plant {
        Some(Plant::IgnoreAborts) => Isolation::ReadUncommitted,
        _ => Isolation::ReadCommitted,
    };
    clients.start(&mut sim, "reader-g", move |worker| reader(worker, "transactions", seen_as, true));
    clients.start(&mut sim, "reader-h", |worker| reader(worker, "plain", Isolation::ReadUncommitted, false));
    clients.audit(&mut sim, &bucket, &audited);

    let mut nemesis = Nemesis::new(plan, &machine, &bucket, trace);
    loop {
        let done = sim.step().map_err(|error| anyhow::anyhow!("the simulation stopped: {error}"))?;
        let now = sim.elapsed();
        nemesis.act(&mut sim, now);
        if now >= plan.lasts && !calm.load(Ordering::Relaxed) {
            nemesis.heal_all(&mut sim);
            calm.store(true, Ordering::Relaxed);
        }
        if done {
            break;
        }
        if now + TICK * 2 >= run_max(plan) {
            let what = format!("after {} s of simulated time", now.as_secs());
            history.violation("every client is done in the end", what);
            return Ok(Outcome {
                violations: history.with(|seen| seen.violations.clone()),
                digest: trace.digest(),
                events: trace.events(),
                crashes: nemesis.crashes,
                simulated: now,
                ..Outcome::default()
            });
        }
    }
    let audit = audited.lock().take().context("the audit has ended")?;
    let acked = history.with(|seen| seen.sent.values().filter(|sent| sent.acked_at.is_some()).count());
    if acked == 0 || (audit.all.is_empty() && plan.plant != Some(Plant::CollectReachable)) {
        bail!("a run in which nothing is acknowledged and read shows nothing");
    }
    let violations = match plan.plant {
        // Nothing was read after the bug had struck: only what was found at once counts.
        Some(Plant::CollectReachable) => history.with(|seen| seen.violations.clone()),
        _ => check::check(&history, &audit),
    };
    Ok(Outcome {
        violations,
        digest: trace.digest(),
        events: trace.events(),
        crashes: nemesis.crashes,
        acked,
        read: audit.all.len(),
        simulated: sim.elapsed(),
    })
}

/// Starts clients, each on a host of its own.
struct Clients<'a> {
    plan: &'a Plan,
    trace: &'a Trace,
    history: &'a History,
    calm: &'a Arc<AtomicBool>,
}

impl Clients<'_> {
    fn start<F>(&self, sim: &mut Sim<'_>, name: &'static str, work: impl FnOnce(Worker) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let (machine, seed) = self.machine(name);
        let (history, lasts) = (self.history.clone(), self.plan.lasts);
        sim.client(name, async move {
            work(Worker::new(machine.env(0), history, seed, lasts)).await;
            Ok(())
        });
    }

    /// Reads everything once the faults are over and the others have had time to end.
    fn audit(&self, sim: &mut Sim<'_>, bucket: &Arc<Mutex<Option<SimBucket>>>, audited: &Arc<Mutex<Option<Audit>>>) {
        let (machine, seed) = self.machine("auditor");
        let (history, lasts, plant) = (self.history.clone(), self.plan.lasts, self.plan.plant);
        let (bucket, audited, calm) = (Arc::clone(bucket), Arc::clone(audited), Arc::clone(self.calm));
        sim.client("auditor", async move {
            let worker = Worker::new(machine.env(0), history, seed, lasts);
            while !calm.load(Ordering::Relaxed) {
                worker.pause(100).await;
            }
            wait_until_quiet(&worker).await;
            let bare = bucket.lock().as_ref().map(|bucket| Arc::clone(&bucket.bare)).expect("the broker has run");
            if plant == Some(Plant::CollectReachable) {
                collect_reachable(&*bare).await?;
            }
            fsck(&worker, &bare).await?;
            let found = match plant {
                // Reading would wait for ever for what was deleted.
                Some(Plant::CollectReachable) => Audit::default(),
                _ => audit(&worker, &["plain", "transactions"]).await,
            };
            *audited.lock() = Some(found);
            Ok(())
        });
    }

    fn machine(&self, name: &'static str) -> (Machine, u64) {
        let seed = name.bytes().fold(self.plan.seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        (Machine::new(name, seed, self.trace), seed)
    }
}

/// Everything that metadata names is in the bucket, whole.
async fn fsck(worker: &Worker, bucket: &Arc<dyn Store>) -> Result<(), ToolError> {
    let report = fsck::check(&worker.env, bucket, CheckOptions { deep: true, wal_folder: None }, &|_| {}).await?;
    for finding in report.findings.iter().filter(|finding| finding.severity == Severity::Error) {
        worker.history.violation("nothing reachable was collected or damaged", finding.to_string());
    }
    Ok(())
}

/// The planted bug of a collector that does not ask: one data object goes although it is reached.
async fn collect_reachable(bucket: &dyn Store) -> Result<(), StoreError> {
    let objects = bucket.list(&Prefix::all(), None, 100_000).await?;
    let data =
        objects.iter().filter(|object| ["/data/", "/wal/"].iter().any(|kind| object.key.as_str().contains(kind)));
    // The largest holds records for sure; a small one may be a fence.
    let data = data.max_by_key(|object| object.size);
    bucket.delete(&data.expect("a run leaves data objects").key).await
}

/// Waits until no transaction is open: their clients end them, or the coordinator does in their stead.
async fn wait_until_quiet(worker: &Worker) {
    let admin = Admin::new(&worker.client);
    let mut quiet = 0;
    // Quiet for a while: a client may be about to begin its last one.
    while quiet < 30 {
        worker.pause(200).await;
        let open = admin.list_transactions(&["Ongoing", "PrepareCommit", "PrepareAbort"]).await;
        quiet = if open.is_ok_and(|open| open.is_empty()) { quiet + 1 } else { 0 };
    }
}

/// Everything that goes wrong, in its time.
struct Nemesis<'a> {
    machine: Machine,
    bucket: &'a Arc<Mutex<Option<SimBucket>>>,
    trace: Trace,
    /// What is still to come, soonest last.
    events: Vec<(Duration, Event)>,
    /// What ends again, by when.
    heals: BTreeMap<Duration, Vec<Heal>>,
    /// How long the host stays down after the armed fail point.
    down_at_point: Duration,
    is_down: bool,
    crashes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heal {
    Bounce,
    Store,
    Network,
    Pause,
    Disk,
}

impl<'a> Nemesis<'a> {
    fn new(plan: &Plan, machine: &Machine, bucket: &'a Arc<Mutex<Option<SimBucket>>>, trace: &Trace) -> Self {
        let mut events = plan.events.clone();
        events.reverse();
        Self {
            machine: machine.clone(),
            bucket,
            trace: trace.clone(),
            events,
            heals: BTreeMap::new(),
            down_at_point: Duration::ZERO,
            is_down: false,
            crashes: 0,
        }
    }

    fn act(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if self.machine.power.is_frozen() {
            self.crash(sim, now, self.down_at_point);
        }
        while self.heals.first_key_value().is_some_and(|(at, _)| *at <= now) {
            let (_, heals) = self.heals.pop_first().expect("just seen");
            for heal in heals {
                self.heal(sim, heal);
            }
        }
        while self.events.last().is_some_and(|(at, _)| *at <= now) {
            let (_, event) = self.events.pop().expect("just seen");
            self.trace.observe("event", &format!("{event:?}"), b"");
            self.strike(sim, now, event);
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, now: Duration, event: Event) {
        match event {
            Event::Crash { down } => self.crash(sim, now, down),
            Event::CrashAt { point, down } => {
                self.machine.power.arm(point);
                self.down_at_point = down;
            }
            Event::StoreOutage { lasts } => {
                self.faults(|faults| faults.set_outage(true));
                self.heal_at(now + lasts, Heal::Store);
            }
            Event::StoreStorm { lasts } => {
                self.faults(|faults| faults.set_rates(FaultRates::STORMY));
                self.heal_at(now + lasts, Heal::Store);
            }
            Event::Partition { lasts } => {
                for client in CLIENTS {
                    sim.partition(client, "broker");
                }
                self.heal_at(now + lasts, Heal::Network);
            }
            Event::Pause { lasts } => {
                for client in CLIENTS {
                    sim.hold(client, "broker");
                }
                self.heal_at(now + lasts, Heal::Pause);
            }
            Event::ClockJump { millis } => self.machine.clock.jump(millis),
            Event::SyncFails => self.machine.disk.inject(DiskFault::SyncFails { after: 0 }),
            Event::DiskFull { lasts } => {
                self.machine.disk.inject(DiskFault::Capacity(0));
                self.heal_at(now + lasts, Heal::Disk);
            }
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration, down: Duration) {
        if self.is_down {
            return;
        }
        sim.crash("broker");
        self.machine.disk.crash();
        self.machine.power.reset();
        self.is_down = true;
        self.crashes += 1;
        self.heal_at(now + down, Heal::Bounce);
    }

    fn heal_at(&mut self, at: Duration, heal: Heal) {
        self.heals.entry(at).or_default().push(heal);
    }

    fn heal(&mut self, sim: &mut Sim<'_>, heal: Heal) {
        self.trace.observe("heal", &format!("{heal:?}"), b"");
        match heal {
            Heal::Bounce if self.is_down => {
                sim.bounce("broker");
                self.is_down = false;
            }
            Heal::Bounce => {}
            Heal::Store => self.faults(|faults| {
                faults.set_outage(false);
                faults.set_rates(FaultRates::default());
            }),
            Heal::Network => CLIENTS.into_iter().for_each(|client| sim.repair(client, "broker")),
            Heal::Pause => CLIENTS.into_iter().for_each(|client| sim.release(client, "broker")),
            Heal::Disk => self.machine.disk.inject(DiskFault::Capacity(u64::MAX)),
        }
    }

    /// From here on nothing goes wrong.
    fn heal_all(&mut self, sim: &mut Sim<'_>) {
        self.events.clear();
        self.machine.power.reset();
        let heals: Vec<Heal> = std::mem::take(&mut self.heals).into_values().flatten().collect();
        for heal in heals {
            self.heal(sim, heal);
        }
    }

    fn faults(&self, change: impl FnOnce(&forebay_store::Faulty)) {
        if let Some(bucket) = &*self.bucket.lock() {
            change(&bucket.faults);
        }
    }
}

/// The hosts that talk to the broker.
const CLIENTS: [&str; 9] =
    ["plain-a", "plain-b", "txn-c", "txn-d", "member-e", "member-f", "reader-g", "reader-h", "auditor"];
