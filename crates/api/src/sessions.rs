//! Fetch sessions (KIP-227): what a client asked for is kept here, so that its next fetch names only what has changed and
//! its answer holds only what is new.
//!
//! Owns: which sessions there are, their partitions and epochs, which partitions an answer may leave out. Leaves to
//! others: reading (`handlers::fetch`).
//!
//! ```text
//!  session id, epoch     is
//!  any, -1               a full fetch without a session; one named ends
//!  any, 0                a full fetch that asks for a session; one named ends
//!  id, n                 the n-th fetch in the session
//! ```
//!
//! Invariants:
//! 1. A fetch in a session is answered only if its epoch is the session's, which moves with each: a repeated or lost
//!    request is told, and the client begins anew.
//! 2. A partition is left out of an answer only where that would say what the client has been told.
//! 3. Sessions and their partitions are bounded; who finds no room is served without a session.
//!
//! A session lives in one broker epoch. A partition that had records goes to the end of its session, so that with more to
//! read than an answer takes each has its turn.
//!
//! Sources: KIP-227, KIP-516; Kafka's `FetchSession.scala` (3.9).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use forebay_env::{Env, Instant};
use forebay_types::TopicName;
use forebay_wire::kafka::messages::FetchRequest;
use forebay_wire::{ErrorCode, FetchPartition, FetchResponse};
use parking_lot::Mutex;
use uuid::Uuid;

/// The first version that names topics by id.
pub(crate) const TOPIC_ID_VERSION: i16 = 13;

/// A session that was used since is not given up for another that is not larger, as in Kafka
/// (`min.incremental.fetch.session.eviction.ms`).
const KEPT_FOR: Duration = Duration::from_mins(2);

/// Partitions in all sessions: some 200 bytes each, and their topics' names.
const PARTITIONS_MAX: usize = 100_000;

const NO_SESSION: i32 = 0;
const FIRST_EPOCH: i32 = 0;
const LAST_EPOCH: i32 = -1;

/// A topic as a client names it: by its name, or, where that is empty, by its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AskedTopic {
    pub name: Arc<str>,
    pub id: Uuid,
}

impl AskedTopic {
    /// A name that no topic can have is not kept: it may be of any length.
    fn may_be_kept(&self) -> bool {
        self.name.is_empty() || TopicName::new(&self.name).is_ok()
    }
}

/// What a client asks of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub topic: AskedTopic,
    pub index: i32,
    pub from: i64,
    pub bytes_max: i32,
    pub current_epoch: i32,
    pub last_fetched_epoch: i32,
}

/// A fetch that was let in: what it asks for, in the order in which it is read and answered.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub asked: Vec<Asked>,
    by_id: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    /// A session is begun with its answer.
    First,
    /// The session, and its epoch after this fetch.
    Next {
        id: i32,
        session: Arc<Mutex<Session>>,
        epoch: i32,
    },
}

/// All sessions of one broker epoch.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    state: Mutex<State>,
}

/// What an operator is told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCounts {
    pub sessions: u64,
    /// In all of them together.
    pub partitions: u64,
    /// Given up for others.
    pub evicted: u64,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<i32, Slot>,
    partitions: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    begun: Instant,
    used: Instant,
    /// Partitions in it.
    size: usize,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    /// Whether it names topics by id.
    by_id: bool,
    /// In their order.
    partitions: BTreeMap<u64, Kept>,
    places: BTreeMap<(AskedTopic, i32), u64>,
    next_place: u64,
}

#[derive(Debug)]
struct Kept {
    asked: Asked,
    /// What the client was told last; -1 makes the next answer tell it again.
    high_watermark: i64,
    log_start: i64,
}

impl Session {
    fn new(by_id: bool) -> Self {
        Self { epoch: 1, by_id, partitions: BTreeMap::new(), places: BTreeMap::new(), next_place: 0 }
    }

    fn put(&mut self, asked: Asked) -> &mut Kept {
        let key = (asked.topic.clone(), asked.index);
        let place = *self.places.entry(key).or_insert_with(|| {
            self.next_place += 1;
            self.next_place
        });
        let untold = Kept { asked: asked.clone(), high_watermark: -1, log_start: -1 };
        let kept = self.partitions.entry(place).or_insert(untold);
        kept.asked = asked;
        kept
    }

    fn forget(&mut self, key: &(AskedTopic, i32)) {
        if let Some(place) = self.places.remove(key) {
            self.partitions.remove(&place);
        }
    }

    /// Whether the answer must hold the partition. What it then says is taken as told.
    fn tell(&mut self, asked: &Asked, answer: &FetchPartition) -> bool {
        let key = (asked.topic.clone(), asked.index);
        let Some(place) = self.places.get_mut(&key) else { return true };
        let kept = self.partitions.get_mut(place).expect("a place has its partition");
        let moved = kept.high_watermark != answer.high_watermark || kept.log_start != answer.log_start_offset;
        (kept.high_watermark, kept.log_start) = (answer.high_watermark, answer.log_start_offset);
        let urgent = answer.error_code != 0 || answer.diverging_epoch.is_some();
        if urgent {
            kept.high_watermark = -1;
        }
        let has_records = !answer.records.is_empty();
        if has_records {
            self.next_place += 1;
            let kept = self.partitions.remove(place).expect("just seen");
            *place = self.next_place;
            self.partitions.insert(*place, kept);
        }
        moved || urgent || has_records
    }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(FIRST_EPOCH + 1)
}

impl FetchSessions {
    pub fn new(slots: usize) -> Self {
        Self { slots, state: Mutex::default() }
    }

    pub fn counts(&self) -> SessionCounts {
        let state = self.state.lock();
        SessionCounts {
            sessions: state.sessions.len() as u64,
            partitions: state.partitions as u64,
            evicted: state.evicted,
        }
    }

    /// Finds out what a fetch asks for.
    ///
    /// # Errors
    /// The code of the whole answer.
    pub(crate) fn begin(&self, request: &FetchRequest, version: i16, now: Instant) -> Result<Fetching, ErrorCode> {
        let by_id = version >= TOPIC_ID_VERSION;
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == FIRST_EPOCH || epoch == LAST_EPOCH {
            if id != NO_SESSION {
                self.state.lock().remove(id);
            }
            let kind = if epoch == FIRST_EPOCH { Kind::First } else { Kind::Sessionless };
            return Ok(Fetching { asked: distinct(asked(request)), by_id, kind });
        }
        let session = {
            let state = self.state.lock();
            let slot = state.sessions.get(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
            Arc::clone(&slot.session)
        };
        if !asked(request).all(|asked| asked.topic.may_be_kept()) {
            self.state.lock().remove(id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        let (asked, epoch) = {
            let mut session = session.lock();
            if session.epoch != epoch {
                return Err(ErrorCode::InvalidFetchSessionEpoch);
            }
            if session.by_id != by_id {
                return Err(ErrorCode::FetchSessionTopicIdError);
            }
            for asked in asked(request) {
                session.put(asked);
            }
            for topic in &request.forgotten_topics_data {
                let name = AskedTopic { name: topic.topic.as_str().into(), id: topic.topic_id };
                for index in &topic.partitions {
                    session.forget(&(name.clone(), *index));
                }
            }
            session.epoch = next_epoch(epoch);
            let asked: Vec<Asked> = session.partitions.values().map(|kept| kept.asked.clone()).collect();
            (asked, session.epoch)
        };
        let mut state = self.state.lock();
        state.used(id, asked.len(), now);
        if asked.is_empty() {
            state.remove(id);
            return Ok(Fetching { asked, by_id, kind: Kind::Sessionless });
        }
        while state.partitions > PARTITIONS_MAX {
            if !state.evict_idle(now) {
                state.remove(id);
                return Err(ErrorCode::FetchSessionIdNotFound);
            }
        }
        drop(state);
        Ok(Fetching { asked, by_id, kind: Kind::Next { id, session, epoch } })
    }

    /// Takes out of the answer what the client knows, and says which session it is in. The answer's partitions are those
    /// asked for, in their order.
    pub(crate) fn end(&self, env: &Env, fetching: Fetching, mut answer: FetchResponse) -> FetchResponse {
        match fetching.kind {
            Kind::Sessionless => answer,
            Kind::First => {
                let told = fetching.asked.iter().zip(answer.topics.iter().flat_map(|topic| &topic.partitions));
                answer.session_id = self.start(env, fetching.by_id, told);
                answer
            }
            Kind::Next { id, session, epoch } => {
                let mut session = session.lock();
                if session.epoch != epoch {
                    let error_code = ErrorCode::InvalidFetchSessionEpoch.code();
                    return FetchResponse { error_code, session_id: id, ..FetchResponse::default() };
                }
                let mut asked = fetching.asked.iter();
                for topic in &mut answer.topics {
                    topic.partitions.retain(|partition| {
                        let asked = asked.next().expect("each partition of an answer was asked for");
                        session.tell(asked, partition)
                    });
                }
                answer.topics.retain(|topic| !topic.partitions.is_empty());
                answer.session_id = id;
                answer
            }
        }
    }

    /// Begins a session, if there is room for one.
    fn start<'a>(&self, env: &Env, by_id: bool, told: impl Iterator<Item = (&'a Asked, &'a FetchPartition)>) -> i32 {
        let mut session = Session::new(by_id);
        for (asked, answer) in told {
            if !asked.topic.may_be_kept() {
                return NO_SESSION;
            }
            session.put(asked.clone());
            session.tell(asked, answer);
        }
        let (size, now) = (session.partitions.len(), env.monotonic());
        let mut state = self.state.lock();
        if self.slots == 0 || size > PARTITIONS_MAX {
            return NO_SESSION;
        }
        while state.sessions.len() >= self.slots || state.partitions + size > PARTITIONS_MAX {
            if !state.evict_idle(now) && !state.evict_smaller(size, now) {
                return NO_SESSION;
            }
        }
        let id = loop {
            let id = i32::try_from(env.random_below(i32::MAX as u64)).expect("below the largest");
            if id != NO_SESSION && !state.sessions.contains_key(&id) {
                break id;
            }
        };
        state.partitions += size;
        state.sessions.insert(id, Slot { session: Arc::new(Mutex::new(session)), begun: now, used: now, size });
        id
    }
}

impl State {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.sessions.remove(&id) {
            self.partitions -= slot.size;
        }
    }

    fn used(&mut self, id: i32, size: usize, now: Instant) {
        if let Some(slot) = self.sessions.get_mut(&id) {
            self.partitions = self.partitions - slot.size + size;
            (slot.size, slot.used) = (size, now);
        }
    }

    /// Gives up the one that nobody has used for longest, if that is long.
    fn evict_idle(&mut self, now: Instant) -> bool {
        let idle = self.sessions.iter().min_by_key(|(_, slot)| slot.used);
        let idle = idle.filter(|(_, slot)| now.saturating_duration_since(slot.used) > KEPT_FOR);
        self.evict(idle.map(|(id, _)| *id))
    }

    /// Gives up the smallest of those that are not new for one of `size`, where it is not larger than that.
    fn evict_smaller(&mut self, size: usize, now: Instant) -> bool {
        let old = self.sessions.iter().filter(|(_, slot)| now.saturating_duration_since(slot.begun) > KEPT_FOR);
        let smallest = old.min_by_key(|(_, slot)| slot.size).filter(|(_, slot)| slot.size <= size);
        self.evict(smallest.map(|(id, _)| *id))
    }

    fn evict(&mut self, id: Option<i32>) -> bool {
        let Some(id) = id else { return false };
        self.remove(id);
        self.evicted += 1;
        true
    }
}

/// Each partition once, where it comes first and as it is asked for last.
fn distinct(asked: impl Iterator<Item = Asked>) -> Vec<Asked> {
    let mut places = BTreeMap::new();
    let mut distinct: Vec<Asked> = Vec::new();
    for asked in asked {
        match places.entry((asked.topic.clone(), asked.index)) {
            Entry::Occupied(place) => {
                let place: &usize = place.get();
                distinct[*place] = asked;
            }
            Entry::Vacant(place) => {
                place.insert(distinct.len());
                distinct.push(asked);
            }
        }
    }
    distinct
}

fn asked(request: &FetchRequest) -> impl Iterator<Item = Asked> + '_ {
    request.topics.iter().flat_map(|topic| {
        let name = AskedTopic { name: topic.topic.as_str().into(), id: topic.topic_id };
        topic.partitions.iter().map(move |partition| Asked {
            topic: name.clone(),
            index: partition.partition,
            from: partition.fetch_offset,
            bytes_max: partition.partition_max_bytes,
            current_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        })
    })
}
