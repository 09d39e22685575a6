//! What a seed means: the kind of WAL, the faults and when they strike, and how much the clients do.

use std::time::Duration;

use forebay_env::FailPoint;
use forebay_env::simulated::SimRandom;

/// A bug put in on purpose, to show that a checker finds it. All but the first are switches of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The disk says that it synced, and did not. A process that is only killed would never notice.
    MissingSync,
    /// Acks leave before the WAL has written.
    AckBeforeWrite,
    /// Readers are given what is not durable yet.
    ServeBeforeDurable,
    /// A restart forgets producers and open transactions.
    ForgetProducerState,
    /// Readers of committed data are not told what was aborted.
    IgnoreAborts,
    /// Of each transaction only the first partition gets its marker.
    HalfMarkers,
    /// A writer that meets a fence acknowledges all the same.
    IgnoreFence,
    /// Garbage collection goes by an object's age and does not ask whether something still reaches it.
    CollectByAge,
    /// Deleted topics leave the trash before their window is over.
    PurgeEarly,
    /// A rebalance does not begin a new generation.
    KeepGeneration,
    /// Retention lets go of records after half of their time.
    RetireEarly,
    /// DeleteRecords deletes more than it was asked to.
    CutTooFar,
    /// Readers of history are given records of other partitions.
    StrayRecords,
    /// A restart forgets transactions whose markers were not all written yet: they never end.
    ForgetPrepared,
}

impl Plant {
    pub const ALL: [Self; 14] = [
        Self::MissingSync,
        Self::AckBeforeWrite,
        Self::ServeBeforeDurable,
        Self::ForgetProducerState,
        Self::IgnoreAborts,
        Self::HalfMarkers,
        Self::IgnoreFence,
        Self::CollectByAge,
        Self::PurgeEarly,
        Self::KeepGeneration,
        Self::RetireEarly,
        Self::CutTooFar,
        Self::StrayRecords,
        Self::ForgetPrepared,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::MissingSync => "missing-sync",
            Self::AckBeforeWrite => "ack-before-write",
            Self::ServeBeforeDurable => "serve-before-durable",
            Self::ForgetProducerState => "forget-producer-state",
            Self::IgnoreAborts => "ignore-aborts",
            Self::HalfMarkers => "half-markers",
            Self::IgnoreFence => "ignore-fence",
            Self::CollectByAge => "collect-by-age",
            Self::PurgeEarly => "purge-early",
            Self::KeepGeneration => "keep-generation",
            Self::RetireEarly => "retire-early",
            Self::CutTooFar => "cut-too-far",
            Self::StrayRecords => "stray-records",
            Self::ForgetPrepared => "forget-prepared",
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
    /// The broker is asked to stop, drains, and is started again.
    Drain,
    /// Another host starts as the same broker on the same bucket (`object` WAL). The one before is cut off from bucket and
    /// clients for so long, then goes on where it was.
    Usurp { cut_off: Duration },
    /// The bucket answers nothing for a while.
    StoreOutage { lasts: Duration },
    /// The bucket has a bad day for a while.
    StoreStorm { lasts: Duration },
    /// Some of what is read from the bucket has a bit turned over on its way, for a while.
    StoreLies { lasts: Duration },
    /// The network between broker and clients is cut for a while.
    Partition { way: Way, lasts: Duration },
    /// Nothing leaves or reaches the broker for a while, then everything at once: a paused process.
    Pause { lasts: Duration },
    /// The broker's wall clock jumps.
    ClockJump { millis: i64 },
    /// A sync fails once: the WAL ends.
    SyncFails,
    /// From here on no sync does what it says.
    SyncLies,
    /// The disk is full for a while.
    DiskFull { lasts: Duration },
}

/// Which way nothing gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Both,
    ToBroker,
    FromBroker,
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
    /// Whether the beginnings of the topics that all clients share are deleted now and then.
    pub cuts: bool,
    pub plant: Option<Plant>,
}

/// How long clients work in a run, in simulated time.
const LASTS: Duration = Duration::from_secs(20);

impl Plan {
    pub fn of_seed(seed: u64) -> Self {
        let random = SimRandom::new(seed ^ 0x05ee_d0fc_4a05);
        let wal = if random.below(2) == 0 { WalKind::Disk } else { WalKind::Object };
        let cuts = random.below(2) == 0;
        let mut events = Vec::new();
        let mut at = Duration::from_millis(1_500);
        while at + Duration::from_secs(2) < LASTS {
            events.push((at, event(&random, wal)));
            at += Duration::from_millis(500 + random.below(4_000));
        }
        Self { seed, wal, events, lasts: LASTS, cuts, plant: None }
    }

    /// The seed's plan with a bug put in, and with what it takes to bring it to light.
    pub fn planted(seed: u64, plant: Plant) -> Self {
        let mut plan = Self::of_seed(seed);
        plan.plant = Some(plant);
        match plant {
            Plant::MissingSync => {
                plan.wal = WalKind::Disk;
                // The data folder is written at the first start: without it the broker has nothing to come back to.
                plan.events.push((Duration::from_millis(2_500), Event::SyncLies));
            }
            // What is reserved and not durable lives for as long as a group waits, which only one in the bucket does.
            Plant::ServeBeforeDurable | Plant::IgnoreFence | Plant::ForgetPrepared => plan.wal = WalKind::Object,
            Plant::CutTooFar => plan.cuts = true,
            // A coordinator that opens reads history too, and would stay closed over what it finds there.
            Plant::StrayRecords => {
                plan.events.clear();
                return plan;
            }
            _ => {}
        }
        if plan.wal == WalKind::Disk {
            plan.events.retain(|(_, event)| !matches!(event, Event::Usurp { .. }));
        }
        plan.events.retain(|(_, event)| !matches!(event, Event::SyncFails | Event::DiskFull { .. }));
        for second in [3, 6, 9, 12, 15] {
            let down = Duration::from_millis(200);
            let event = match plant {
                Plant::AckBeforeWrite | Plant::ServeBeforeDurable => {
                    Event::CrashAt { point: FailPoint::WalBeforeWrite, down }
                }
                Plant::ForgetPrepared => Event::CrashAt { point: FailPoint::PreparedNotMarked, down },
                Plant::IgnoreFence => Event::Usurp { cut_off: down },
                _ => Event::Crash { down },
            };
            plan.events.push((Duration::from_secs(second), event));
        }
        plan.events.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Whether another host may start as the same broker.
    pub fn has_usurper(&self) -> bool {
        self.events.iter().any(|(_, event)| matches!(event, Event::Usurp { .. }))
    }
}

fn event(random: &SimRandom, wal: WalKind) -> Event {
    let down = Duration::from_millis(50 + random.below(1_000));
    let lasts = Duration::from_millis(100 + random.below(2_500));
    match (random.below(20), wal) {
        (0..=2, _) => Event::Crash { down },
        (3, _) => Event::Drain,
        (4..=8, _) => {
            let points = FailPoint::ALL;
            let point = points[usize::try_from(random.below(points.len() as u64)).expect("an index")];
            Event::CrashAt { point, down }
        }
        (9, _) => Event::StoreOutage { lasts },
        (10, _) => Event::StoreStorm { lasts },
        (11, _) => Event::StoreLies { lasts },
        (12, _) => {
            let ways = [Way::Both, Way::ToBroker, Way::FromBroker];
            Event::Partition { way: ways[usize::try_from(random.below(3)).expect("an index")], lasts }
        }
        (13, _) => Event::Pause { lasts },
        (14, _) => {
            // Now and then so far that the broker must not believe it.
            let furthest_millis: u32 = if random.below(4) == 0 { 300_000 } else { 10_000 };
            let millis = random.below(2 * u64::from(furthest_millis));
            Event::ClockJump { millis: i64::try_from(millis).expect("small") - i64::from(furthest_millis) }
        }
        (15, WalKind::Disk) => Event::SyncFails,
        (16..=18, WalKind::Object) => {
            Event::Usurp { cut_off: if random.below(3) == 0 { Duration::ZERO } else { lasts } }
        }
        (_, WalKind::Disk) => Event::DiskFull { lasts },
        (_, WalKind::Object) => Event::StoreStorm { lasts },
    }
}
