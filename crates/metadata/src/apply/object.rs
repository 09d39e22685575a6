//! Garbage collection's two steps (D12): condemn what nothing reaches, then, after the grace, forget it.
//!
//! An object that was never committed is condemned only where its name proves that no command can ever refer to it:
//! age alone proves nothing.

use forebay_format::ObjectName;
use forebay_types::Timestamp;

use super::{Changes, Stop, View};
use crate::command::{Refusal, Reply};
use crate::state::{BrokerLife, Garbage, Key, Partition, Row, Tables, WalEpochState};

/// Refuses an object whose name does not say that one of `lives` wrote it: only then do the epochs fence it.
pub(super) fn require_written_by(object: &str, lives: [Option<BrokerLife>; 2]) -> Result<(), Refusal> {
    let foreign = || Refusal::ObjectForeign { object: object.to_owned() };
    let life = match object.parse::<ObjectName>().map_err(|_| foreign())? {
        ObjectName::Data { broker, epoch, .. }
        | ObjectName::Wal { broker, epoch, .. }
        | ObjectName::ProducerSnapshot { broker, epoch, .. } => BrokerLife { broker, epoch },
        // Fenced by the leader epoch in its name, which its command carries too.
        ObjectName::CoordinatorSnapshot { .. } => return Ok(()),
        ObjectName::Journal { .. } => return Err(foreign()),
    };
    if lives.contains(&Some(life)) { Ok(()) } else { Err(foreign()) }
}

pub(super) fn condemn(view: View<'_>, object: &str, size: u64, now: Timestamp) -> Result<Changes, Stop> {
    let (live, garbage) = (Key::Object(object.to_owned()), Key::Garbage(object.to_owned()));
    view.require([live.clone(), garbage.clone()])?;
    if view.tables.has_upload_in(object) || view.cold(live)?.is_some() {
        return Err(Refusal::ObjectReachable { object: object.to_owned() }.into());
    }
    let held = match view.cold(garbage.clone())? {
        Some(Row::Garbage(Garbage { condemned_at: Some(since), .. })) => {
            return Ok(Changes::nothing(Reply::Condemned(*since)));
        }
        Some(Row::Garbage(held)) => *held,
        Some(other) => panic!("row {garbage:?} holds {other:?}"),
        None => {
            prove_orphan(view.tables, object).map_err(|why| Refusal::NotAnOrphan { object: object.to_owned(), why })?;
            Garbage { size, condemned_at: None }
        }
    };
    let condemned = Garbage { condemned_at: Some(now), ..held };
    Ok(Changes::one(garbage, Row::Garbage(condemned), Reply::Condemned(now)))
}

/// Whether an object that no row names can never be named by one.
fn prove_orphan(tables: &Tables, object: &str) -> Result<(), &'static str> {
    let name: ObjectName = object.parse().map_err(|_| "its name is not one that Forebay gives")?;
    match name {
        ObjectName::Data { broker, epoch, .. } | ObjectName::ProducerSnapshot { broker, epoch, .. } => {
            closed_at(tables, BrokerLife { broker, epoch }).map(drop)
        }
        ObjectName::Wal { broker, epoch, sequence } => {
            let end = closed_at(tables, BrokerLife { broker, epoch })?;
            // At the end stands the fence, which is kept for ever; below it everything was committed.
            if sequence > end { Ok(()) } else { Err("its number does not lie past the end of its WAL") }
        }
        ObjectName::CoordinatorSnapshot { partition, leader_epoch, .. } => {
            let current = tables.partition(partition).map(Partition::leader_epoch);
            match current {
                None => Ok(()),
                Some(Some(current)) if leader_epoch < current => Ok(()),
                Some(_) => Err("its leader epoch may still refer to it"),
            }
        }
        ObjectName::Journal { .. } => Err("the journal is not collected this way"),
    }
}

fn closed_at(tables: &Tables, life: BrokerLife) -> Result<forebay_types::WalSequence, &'static str> {
    match tables.wal_epoch(life).map(|epoch| epoch.state) {
        Some(WalEpochState::Closed { end }) => Ok(end),
        Some(WalEpochState::Open | WalEpochState::Sealed { .. }) => Err("the broker epoch in its name is not closed"),
        None => Err("the broker epoch in its name never was"),
    }
}

pub(super) fn forget(view: View<'_>, object: &str) -> Result<Changes, Stop> {
    let key = Key::Garbage(object.to_owned());
    match view.cold(key.clone())? {
        None => Ok(Changes::nothing(Reply::Done)),
        Some(Row::Garbage(Garbage { condemned_at: Some(_), .. })) => {
            Ok(Changes { rows: [(key, None)].into(), reply: Reply::Done })
        }
        Some(_) => Err(Refusal::ObjectNotCondemned { object: object.to_owned() }.into()),
    }
}
