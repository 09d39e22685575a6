//! What a seed means: the kind of WAL, the faults and when they strike, and how much the clients do.

use std::time::Duration;

use forebay_env::FailPoint;
use forebay_env::simulated::SimRandom;

/// A bug put in on purpose, to show that a checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The disk says that it synced, and did not. A process that is only killed would never notice.
    MissingSync,
    /// Acks leave before the WAL has written.
    AckBeforeWrite,
    /// A restart forgets producers and open transactions.
    ForgetProducerState,
    /// Readers of committed data are given what was aborted.
    IgnoreAborts,
    /// Garbage collection does not ask whether something still reaches an object.
    CollectReachable,
}

impl Plant {
    pub const ALL: [Self; 5] = [
        Self::MissingSync,
        Self::AckBeforeWrite,
        Self::ForgetProducerState,
        Self::IgnoreAborts,
        Self::CollectReachable,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::MissingSync => "missing-sync",
            Self::AckBeforeWrite => "ack-before-write",
            Self::ForgetProducerState => "forget-producer-state",
            Self::IgnoreAborts => "ignore-aborts",
            Self::CollectReachable => "collect-reachable",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalKind {
    Disk,
    Object,
}

/// Something that goes wrong at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The broker's host loses power, and comes back after this long.
    Crash { down: Duration },
    /// The same, at the next passage of a fail point.
    CrashAt { point: FailPoint, down: Duration },
    /// The bucket answers nothing for a while.
    StoreOutage { lasts: Duration },
    /// The bucket has a bad day for a while.
    StoreStorm { lasts: Duration },
    /// The network between broker and clients is cut for a while.
    Partition { lasts: Duration },
    /// Nothing moves between broker and clients for a while, then everything at once: a paused process.
    Pause { lasts: Duration },
    /// The broker's wall clock jumps.
    ClockJump { millis: i64 },
    /// A sync fails once: the WAL ends.
    SyncFails,
    /// The disk is full for a while.
    DiskFull { lasts: Duration },
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub wal: WalKind,
    /// In order of time from the start.
    pub events: Vec<(Duration, Event)>,
    /// How long clients go on.
    pub lasts: Duration,
    pub plant: Option<Plant>,
}

/// How long clients work in a run, in simulated time.
const LASTS: Duration = Duration::from_secs(20);

impl Plan {
    pub fn of_seed(seed: u64) -> Self {
        let random = SimRandom::new(seed ^ 0x05ee_d0fc_4a05);
        let wal = if random.below(2) == 0 { WalKind::Disk } else { WalKind::Object };
        let mut events = Vec::new();
        let mut at = Duration::from_millis(1_500);
        while at + Duration::from_secs(2) < LASTS {
            events.push((at, event(&random, wal)));
            at += Duration::from_millis(500 + random.below(4_000));
        }
        Self { seed, wal, events, lasts: LASTS, plant: None }
    }

    /// The seed's plan with a bug put in, and with crashes enough to bring it to light.
    pub fn planted(seed: u64, plant: Plant) -> Self {
        let mut plan = Self::of_seed(seed);
        plan.plant = Some(plant);
        if plant == Plant::MissingSync {
            plan.wal = WalKind::Disk;
        }
        plan.events.retain(|(_, event)| !matches!(event, Event::SyncFails | Event::DiskFull { .. }));
        for second in [3, 6, 9, 12, 15] {
            let event = match plant {
                Plant::AckBeforeWrite => Event::CrashAt { point: FailPoint::WalBeforeWrite, down: short() },
                _ => Event::Crash { down: short() },
            };
            plan.events.push((Duration::from_secs(second), event));
        }
        plan.events.sort_by_key(|(at, _)| *at);
        plan
    }
}

const fn short() -> Duration {
    Duration::from_millis(200)
}

fn event(random: &SimRandom, wal: WalKind) -> Event {
    let down = Duration::from_millis(50 + random.below(1_000));
    let lasts = Duration::from_millis(100 + random.below(2_500));
    match (random.below(16), wal) {
        (0..=3, _) => Event::Crash { down },
        (4..=8, _) => {
            let points = FailPoint::ALL;
            let point = points[usize::try_from(random.below(points.len() as u64)).expect("an index")];
            Event::CrashAt { point, down }
        }
        (9, _) => Event::StoreOutage { lasts },
        (10, _) => Event::StoreStorm { lasts },
        (11, _) => Event::Partition { lasts },
        (12, _) => Event::Pause { lasts },
        (13, _) => {
            let millis = i64::try_from(random.below(20_000)).expect("small") - 10_000;
            Event::ClockJump { millis }
        }
        (14, WalKind::Disk) => Event::SyncFails,
        (_, WalKind::Disk) => Event::DiskFull { lasts },
        (_, WalKind::Object) => Event::StoreStorm { lasts },
    }
}
