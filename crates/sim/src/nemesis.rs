//! Everything that goes wrong, in its time, and its end.
//!
//! Owns: striking the plan's events and healing them. A fault of the broker's strikes the host that shall run it now; one
//! that another host has replaced is left alone until all is calm, when it is switched off.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_env::simulated::{DiskFault, Trace};
use forebay_store::{FaultRates, Faulty};
use tokio::sync::watch;
use turmoil::Sim;

use crate::broker::HOSTS;
use crate::machine::Machine;
use crate::plan::{Event, Plan, Way};
use crate::run::{CLIENTS, SharedBucket};

/// A bucket, or a way to it, that turns bits over: one read in thirty.
const LYING: FaultRates = FaultRates {
    unavailable: 0,
    lost_answer: 0,
    timeout_before: 0,
    timeout_after: 0,
    slow: 0,
    slow_max: Duration::ZERO,
    false_conflict: 0,
    corrupt: 33,
};

pub struct Nemesis<'a> {
    /// Those of [`HOSTS`] that there are.
    hosts: Vec<Host>,
    appointed: watch::Sender<usize>,
    bucket: &'a SharedBucket,
    trace: Trace,
    /// What is still to come, soonest last.
    events: Vec<(Duration, Event)>,
    /// What ends again, by when.
    heals: BTreeMap<Duration, Vec<Heal>>,
    /// How long the host stays down after the armed fail point.
    down_at_point: Duration,
    pub crashes: u64,
    pub usurped: u64,
}

struct Host {
    machine: Machine,
    is_down: bool,
}

/// Something that ends; a host by its place in [`HOSTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heal {
    Bounce(usize),
    Store,
    Network(usize),
    Pause(usize),
    Disk(usize),
}

impl<'a> Nemesis<'a> {
    pub fn new(
        plan: &Plan,
        machines: &[Machine],
        appointed: watch::Sender<usize>,
        bucket: &'a SharedBucket,
        trace: &Trace,
    ) -> Self {
        let mut events = plan.events.clone();
        events.reverse();
        let hosts = machines.iter().map(|machine| Host { machine: machine.clone(), is_down: false }).collect();
        Self {
            hosts,
            appointed,
            bucket,
            trace: trace.clone(),
            events,
            heals: BTreeMap::new(),
            down_at_point: Duration::ZERO,
            crashes: 0,
            usurped: 0,
        }
    }

    pub fn act(&mut self, sim: &mut Sim<'_>, now: Duration) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].machine.power.is_frozen() {
                self.crash(sim, now, host, self.down_at_point);
            }
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
        let host = *self.appointed.borrow();
        let machine = self.hosts[host].machine.clone();
        match event {
            Event::Crash { down } => self.crash(sim, now, host, down),
            Event::CrashAt { point, down } => {
                machine.power.arm(point);
                self.down_at_point = down;
            }
            Event::Drain => machine.asked_to_stop.notify_one(),
            Event::Usurp { cut_off } => {
                if !cut_off.is_zero() {
                    self.pause(sim, now, host, cut_off);
                }
                machine.power.reset();
                self.appointed.send_replace((host + 1) % self.hosts.len());
                self.usurped += 1;
            }
            Event::StoreOutage { lasts } => {
                self.faults(|faults| faults.set_outage(true));
                self.heal_at(now + lasts, Heal::Store);
            }
            Event::StoreStorm { lasts } => {
                self.faults(|faults| faults.set_rates(FaultRates::STORMY));
                self.heal_at(now + lasts, Heal::Store);
            }
            Event::StoreLies { lasts } => {
                self.faults(|faults| faults.set_rates(LYING));
                self.heal_at(now + lasts, Heal::Store);
            }
            Event::Partition { way, lasts } => {
                for client in CLIENTS {
                    match way {
                        Way::Both => sim.partition(client, HOSTS[host]),
                        Way::ToBroker => sim.partition_oneway(client, HOSTS[host]),
                        Way::FromBroker => sim.partition_oneway(HOSTS[host], client),
                    }
                }
                self.heal_at(now + lasts, Heal::Network(host));
            }
            Event::Pause { lasts } => self.pause(sim, now, host, lasts),
            Event::ClockJump { millis } => machine.clock.jump(millis),
            Event::SyncFails => machine.disk.inject(DiskFault::SyncFails { after: 0 }),
            Event::SyncLies => machine.disk.inject(DiskFault::SyncLies),
            Event::DiskFull { lasts } => {
                machine.disk.inject(DiskFault::Capacity(0));
                self.heal_at(now + lasts, Heal::Disk(host));
            }
        }
    }

    fn pause(&mut self, sim: &Sim<'_>, now: Duration, host: usize, lasts: Duration) {
        for client in CLIENTS {
            sim.hold(client, HOSTS[host]);
        }
        self.hosts[host].machine.gate.close();
        self.heal_at(now + lasts, Heal::Pause(host));
    }

    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration, host: usize, down: Duration) {
        let Host { machine, is_down } = &mut self.hosts[host];
        if *is_down {
            return;
        }
        sim.crash(HOSTS[host]);
        machine.disk.crash();
        machine.power.reset();
        *is_down = true;
        self.crashes += 1;
        self.heal_at(now + down, Heal::Bounce(host));
    }

    fn heal_at(&mut self, at: Duration, heal: Heal) {
        self.heals.entry(at).or_default().push(heal);
    }

    fn heal(&mut self, sim: &mut Sim<'_>, heal: Heal) {
        self.trace.observe("heal", &format!("{heal:?}"), b"");
        match heal {
            Heal::Bounce(host) => {
                if std::mem::take(&mut self.hosts[host].is_down) {
                    sim.bounce(HOSTS[host]);
                }
            }
            Heal::Store => self.faults(|faults| {
                faults.set_outage(false);
                faults.set_rates(FaultRates::default());
            }),
            Heal::Network(host) => CLIENTS.into_iter().for_each(|client| sim.repair(client, HOSTS[host])),
            Heal::Pause(host) => {
                for client in CLIENTS {
                    sim.release(client, HOSTS[host]);
                }
                self.hosts[host].machine.gate.open();
            }
            Heal::Disk(host) => self.hosts[host].machine.disk.inject(DiskFault::Capacity(u64::MAX)),
        }
    }

    /// From here on nothing goes wrong, and the broker runs on one host only.
    pub fn heal_all(&mut self, sim: &mut Sim<'_>) {
        self.events.clear();
        for host in &self.hosts {
            host.machine.power.reset();
        }
        let heals: Vec<Heal> = std::mem::take(&mut self.heals).into_values().flatten().collect();
        for heal in heals {
            self.heal(sim, heal);
        }
        for host in (0..self.hosts.len()).filter(|host| *host != *self.appointed.borrow()) {
            sim.crash(HOSTS[host]);
        }
    }

    fn faults(&self, change: impl FnOnce(&Faulty)) {
        if let Some(bucket) = &*self.bucket.lock() {
            change(&bucket.faults);
        }
    }
}
