//! The lives of brokers: who is current, whose WAL is sealed or closed (D1, D6), and what a broker is given.

use forebay_types::{BrokerEpoch, BrokerId, WalSequence};

use super::term::cluster;
use super::{Changes, Stop, View};
use crate::command::{ConfigChange, PRODUCER_IDS_PER_BLOCK, Refusal, Registered, Reply, Sealed, Unclosed};
use crate::config;
use crate::state::{Broker, BrokerLife, Cluster, ConfigScope, Key, Row, Tables, WalEpoch, WalEpochState, WalKind};

pub(super) fn register(view: View<'_>, id: BrokerId, incarnation: u128, wal: WalKind) -> Result<Changes, Stop> {
    let tables = view.tables;
    let before = tables.broker(id);
    if let Some(broker) = before.filter(|b| b.incarnation == incarnation) {
        let registered = Registered { epoch: broker.epoch, unclosed: unclosed(tables, id, broker.epoch) };
        return Ok(Changes::nothing(Reply::Registered(registered)));
    }
    let last = before.map_or(BrokerEpoch::ZERO, |b| b.epoch);
    let epoch = last.next().ok_or(Refusal::Exhausted("broker epoch"))?;
    let life = BrokerLife { broker: id, epoch };
    // An epoch used twice would let a zombie write under the names of its successor (D6).
    assert!(tables.wal_epoch(life).is_none(), "{life} is new");
    let rows = [
        (Key::Broker(id), Some(Row::Broker(Broker { epoch, incarnation }))),
        (Key::WalEpoch(life), Some(Row::WalEpoch(WalEpoch { wal, state: WalEpochState::Open, indexed_through: None }))),
    ];
    let reply = Reply::Registered(Registered { epoch, unclosed: unclosed(tables, id, epoch) });
    Ok(Changes { rows: rows.into(), reply })
}

/// A broker's lives before `epoch` whose WAL is not closed, oldest first.
fn unclosed(tables: &Tables, broker: BrokerId, epoch: BrokerEpoch) -> Vec<Unclosed> {
    let lives = BrokerLife { broker, epoch: BrokerEpoch::ZERO }..BrokerLife { broker, epoch };
    tables
        .wal_epochs()
        .range(lives)
        .filter(|(_, row)| !matches!(row.state, WalEpochState::Closed { .. }))
        .map(|(life, row)| Unclosed { life: *life, wal: row.wal, committed_through: tables.committed_through(*life) })
        .collect()
}

/// Refuses a life that is not its broker's current one, or whose WAL is sealed.
pub(super) fn require_current(tables: &Tables, life: BrokerLife) -> Result<(), Refusal> {
    let broker = tables.broker(life.broker).ok_or(Refusal::UnknownBroker(life.broker))?;
    if broker.epoch != life.epoch {
        return Err(Refusal::StaleBrokerEpoch { life, current: broker.epoch });
    }
    match wal_epoch(tables, life)?.state {
        WalEpochState::Open => Ok(()),
        WalEpochState::Sealed { by } => Err(Refusal::EpochSealed { life, by }),
        WalEpochState::Closed { end } => Err(Refusal::EpochClosed { life, end }),
    }
}

pub(super) fn wal_epoch(tables: &Tables, life: BrokerLife) -> Result<&WalEpoch, Refusal> {
    tables.wal_epoch(life).ok_or(Refusal::UnknownEpoch { life })
}

pub(super) fn seal(view: View<'_>, life: BrokerLife, by: BrokerLife) -> Result<Changes, Stop> {
    let row = wal_epoch(view.tables, life)?;
    require_current(view.tables, by)?;
    if life == by {
        return Err(Refusal::SealsItself { life }.into());
    }
    let state = match row.state {
        // A sealer that died is followed by another, which starts over.
        WalEpochState::Open | WalEpochState::Sealed { .. } => WalEpochState::Sealed { by },
        closed @ WalEpochState::Closed { .. } => closed,
    };
    let sealed = Sealed { wal: row.wal, state, committed_through: view.tables.committed_through(life) };
    let reply = Reply::Sealed(sealed);
    if state == row.state {
        return Ok(Changes::nothing(reply));
    }
    Ok(Changes::one(Key::WalEpoch(life), Row::WalEpoch(WalEpoch { state, ..row.clone() }), reply))
}

pub(super) fn close(view: View<'_>, life: BrokerLife, end: WalSequence, by: BrokerLife) -> Result<Changes, Stop> {
    let row = wal_epoch(view.tables, life)?;
    match row.state {
        WalEpochState::Closed { end: held } if held == end => return Ok(Changes::nothing(Reply::Done)),
        WalEpochState::Closed { end } => return Err(Refusal::EpochClosed { life, end }.into()),
        WalEpochState::Open => return Err(Refusal::EpochNotSealed { life }.into()),
        WalEpochState::Sealed { by: sealer } if sealer != by => {
            return Err(Refusal::EpochSealed { life, by: sealer }.into());
        }
        WalEpochState::Sealed { .. } => {}
    }
    require_current(view.tables, by)?;
    if let Some(committed) = view.tables.committed_through(life).filter(|committed| *committed >= end) {
        return Err(Refusal::EndBelowCommitted { life, end, committed }.into());
    }
    let closed = WalEpoch { state: WalEpochState::Closed { end }, ..row.clone() };
    Ok(Changes::one(Key::WalEpoch(life), Row::WalEpoch(closed), Reply::Done))
}

/// A repetition takes another block: ids are plenty, and one given twice would mix two producers.
pub(super) fn allocate_producer_ids(view: View<'_>, life: BrokerLife) -> Result<Changes, Stop> {
    require_current(view.tables, life)?;
    let held = cluster(view);
    let first = held.next_producer_id;
    let next = first.get().checked_add(PRODUCER_IDS_PER_BLOCK).ok_or(Refusal::Exhausted("producer id"))?;
    let next = forebay_types::ProducerId::new(next).map_err(|_| Refusal::Exhausted("producer id"))?;
    let row = Row::Cluster(Cluster { next_producer_id: next, ..held.clone() });
    Ok(Changes::one(Key::Cluster, row, Reply::ProducerIds(first)))
}

pub(super) fn alter_config(view: View<'_>, scope: ConfigScope, change: &ConfigChange) -> Changes {
    let held = view.tables.broker_config(scope).cloned().unwrap_or_default();
    let config = config::change_map(&held, change);
    let reply = Reply::Config(config.clone());
    if config == held {
        return Changes::nothing(reply);
    }
    Changes::one(Key::BrokerConfig(scope), Row::BrokerConfig(config), reply)
}
