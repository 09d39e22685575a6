//! Taking, renewing and releasing pins (D10). The rule that they stand for is in `pins`.

use std::collections::BTreeMap;

use forebay_types::{Offset, Timestamp, TopicPartition};

use super::term::cluster;
use super::topic::live;
use super::{Changes, Stop, View};
use crate::command::{ENTITIES_PER_COMMAND_MAX, Refusal, Reply};
use crate::state::{Cluster, Holds, Key, Pin, PinId, PinKind, Row};

/// What makes a pin the same one when it is asked for again.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub kind: PinKind,
    pub holds: Holds,
    pub owner: &'a str,
    pub reason: &'a str,
    pub scope: &'a BTreeMap<TopicPartition, Offset>,
}

impl Claim<'_> {
    fn is_made_by(&self, pin: &Pin) -> bool {
        (pin.kind, pin.holds, &*pin.owner, &*pin.reason, &pin.scope)
            == (self.kind, self.holds, self.owner, self.reason, self.scope)
    }
}

/// The same claim made again is a renewal: the answer to the first may have been lost.
pub(super) fn create(view: View<'_>, claim: &Claim<'_>, renewal_ms: i64, now: Timestamp) -> Result<Changes, Stop> {
    let Some((first, _)) = claim.scope.first_key_value() else { return Err(Refusal::PinInvalid.into()) };
    if claim.kind == PinKind::Trash || renewal_ms <= 0 {
        return Err(Refusal::PinInvalid.into());
    }
    if claim.scope.len() > ENTITIES_PER_COMMAND_MAX {
        let (count, max) = (claim.scope.len(), ENTITIES_PER_COMMAND_MAX);
        return Err(Refusal::TooMany { what: "partitions", count, max }.into());
    }
    for (id, from) in claim.scope {
        live(view.tables, id.topic).map_err(|_| Refusal::UnknownPartition(*id))?;
        let partition = view.tables.partition(*id).ok_or(Refusal::UnknownPartition(*id))?;
        let log_start = partition.log_start;
        if *from < log_start {
            return Err(Refusal::PinBelowLogStart { partition: *id, from: *from, log_start }.into());
        }
    }
    let expires_at = now.saturating_add(renewal_ms);
    if let Some((id, held)) = view.tables.pins_of(*first).find(|(_, pin)| claim.is_made_by(pin)) {
        let renewed = Pin { expires_at: expires_at.max(held.expires_at), renewal_ms, ..held.clone() };
        return Ok(change(id, held, renewed));
    }
    let held = cluster(view);
    let id = held.next_pin;
    let pin = Pin {
        kind: claim.kind,
        holds: claim.holds,
        owner: claim.owner.to_owned(),
        reason: claim.reason.to_owned(),
        scope: claim.scope.clone(),
        expires_at,
        renewal_ms,
    };
    let rows = [
        (Key::Pin(id), Some(Row::Pin(pin))),
        (Key::Cluster, Some(Row::Cluster(Cluster { next_pin: id.next(), ..held.clone() }))),
    ];
    Ok(Changes { rows: rows.into(), reply: Reply::Pinned(id) })
}

/// A standing pin can be renewed even when it has expired: what it holds is still there (`pins`, invariant 1).
pub(super) fn renew(view: View<'_>, id: PinId, now: Timestamp) -> Result<Changes, Stop> {
    let held = owned(view, id)?;
    let expires_at = now.saturating_add(held.renewal_ms).max(held.expires_at);
    Ok(change(id, held, Pin { expires_at, ..held.clone() }))
}

fn change(id: PinId, held: &Pin, renewed: Pin) -> Changes {
    if *held == renewed {
        return Changes::nothing(Reply::Pinned(id));
    }
    Changes::one(Key::Pin(id), Row::Pin(renewed), Reply::Pinned(id))
}

pub(super) fn release(view: View<'_>, id: PinId) -> Result<Changes, Stop> {
    match owned(view, id) {
        Ok(_) => Ok(Changes { rows: BTreeMap::from([(Key::Pin(id), None)]), reply: Reply::Done }),
        Err(Refusal::UnknownPin(_)) => Ok(Changes::nothing(Reply::Done)),
        Err(refusal) => Err(refusal.into()),
    }
}

/// A pin that its owner may handle: the trash's own is bound to its topic.
fn owned(view: View<'_>, id: PinId) -> Result<&Pin, Refusal> {
    let pin = view.tables.pin(id).ok_or(Refusal::UnknownPin(id))?;
    if pin.kind == PinKind::Trash { Err(Refusal::PinOfTrash(id)) } else { Ok(pin) }
}
