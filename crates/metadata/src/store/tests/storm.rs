//! A bad day: a store that errs, and a host that dies at any moment. Run by seed, each seed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_store::FaultRates;
use forebay_types::TopicId;
use tokio::runtime::{Builder, RngSeed};

use super::Rig;
use crate::Refusal;
use crate::command::{Command, PRODUCER_IDS_PER_BLOCK, Reply};
use crate::invariants;
use crate::journal;
use crate::service::{Metadata, SubmitError};
use crate::state::{BrokerLife, Key, Row, WalKind};
use crate::store::Host;
use crate::testing::{broker, create_topic, topic};

const SEEDS: u64 = 24;
const STEPS: u128 = 40;

/// Most requests take a while, so that a host can die in the middle of anything; one in ten meets worse.
const WEATHER: FaultRates = FaultRates { slow: 600, slow_max: Duration::from_millis(100), ..FaultRates::STORMY };

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    rows: BTreeMap<Key, Row>,
    requests: u64,
    crashes: u64,
}

/// Everything that was answered is there, nothing is there that was not asked for, no producer id is given twice, the
/// journal tells the same as the database. A seed run twice does the same, request by request.
#[test]
fn nothing_answered_is_lost_on_a_bad_day() {
    let mut crashes = 0;
    for seed in 0..SEEDS {
        let outcome = run(seed);
        assert_eq!(run(seed), outcome, "seed {seed} run twice");
        crashes += outcome.crashes;
    }
    assert!(crashes > SEEDS, "hosts die, {crashes} times in {SEEDS} seeds");
}

fn run(seed: u64) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime on this thread");
    runtime.block_on(day(seed))
}

async fn day(seed: u64) -> Outcome {
    let rig = Rig::new(seed);
    rig.faulty.set_rates(WEATHER);
    let mut sailor = Sailor { rig, host: None, answered: BTreeSet::new(), blocks: BTreeSet::new(), crashes: 0 };
    for number in 1..=STEPS {
        sailor.create(topic(number), &format!("t{number}")).await;
        if number % 4 == 0 {
            sailor.take_producer_ids().await;
        }
    }
    sailor.rig.faulty.set_rates(FaultRates::default());
    sailor.host().await;
    let host = sailor.host.take().expect("just opened");
    let metadata = host.metadata();
    let listed: BTreeSet<TopicId> = metadata.topics().list().iter().map(|row| row.id).collect();
    assert_eq!(listed, sailor.answered, "seed {seed}");
    // What the host opened with may be journalled under an entry that was never committed; this entry follows it.
    super::done(&metadata, create_topic(topic(9_999), "last", 1)).await;
    host.stop().await;

    let rows = sailor.rig.rows().await;
    assert_eq!(invariants::check(&rows), [], "seed {seed}");
    let folded = journal::fold(sailor.rig.journal().await).expect("the journal is whole");
    let journaled: BTreeMap<Key, Row> =
        rows.iter().filter(|(key, _)| key.is_journaled()).map(|(key, row)| (key.clone(), row.clone())).collect();
    assert_eq!(folded.rows, journaled, "seed {seed}");
    Outcome { rows, requests: sailor.rig.faulty.requests(), crashes: sailor.crashes }
}

/// Works through the day, with a new host whenever one is lost.
struct Sailor {
    rig: Rig,
    host: Option<Host>,
    answered: BTreeSet<TopicId>,
    blocks: BTreeSet<i64>,
    crashes: u64,
}

impl Sailor {
    async fn host(&mut self) -> &Host {
        while self.host.is_none() {
            let (env, store) = (self.rig.env.clone(), std::sync::Arc::clone(&self.rig.store));
            self.host = Host::open(&env, store, Some(crate::testing::cluster())).await.ok();
        }
        self.host.as_ref().expect("opened until one is")
    }

    /// `None` where the host died before it answered.
    async fn submit(&mut self, command: Command) -> Option<Result<Reply, SubmitError>> {
        let dies_after = match self.rig.env.random_below(4) {
            0 => Duration::from_millis(self.rig.env.random_below(400)),
            _ => Duration::from_hours(1),
        };
        let metadata = self.host().await.metadata();
        let answer = self.rig.env.timeout(dies_after, metadata.submit(command)).await;
        let ended = matches!(answer, Some(Err(SubmitError::Ended(_))));
        if answer.is_none() || ended {
            self.host = None;
            self.crashes += 1;
        }
        if ended { None } else { answer }
    }

    async fn create(&mut self, id: TopicId, name: &str) {
        loop {
            match self.submit(create_topic(id, name, 2)).await {
                Some(Ok(_)) => break,
                Some(Err(SubmitError::Refused(Refusal::TopicExists { id: held, .. }))) => {
                    assert_eq!(held, id, "our own earlier attempt");
                    break;
                }
                Some(Err(SubmitError::Refused(refusal))) => panic!("{refusal}"),
                Some(Err(_)) | None => {}
            }
        }
        assert!(self.answered.insert(id));
    }

    async fn take_producer_ids(&mut self) {
        let register = Command::RegisterBroker { broker: broker(1), incarnation: 5, wal: WalKind::Memory };
        let epoch = loop {
            if let Some(Ok(reply)) = self.submit(register.clone()).await {
                break reply.into_registered().epoch;
            }
        };
        let life = BrokerLife { broker: broker(1), epoch };
        let first = loop {
            if let Some(Ok(reply)) = self.submit(Command::AllocateProducerIds { life }).await {
                break reply.into_producer_ids().get();
            }
        };
        assert_eq!(first % PRODUCER_IDS_PER_BLOCK, 0);
        assert!(self.blocks.insert(first), "block {first} was given before");
    }
}
