//! The journal: what no footer can tell (topic names and configs, log starts, pins, epochs, id blocks), as small
//! numbered objects that are created once and never changed, so that a lost metadata database can be built again (D5).
//!
//! What a change means is the metadata's: here it is a kind, a key and a value.

use bytes::Bytes;
use forebay_types::{ClusterId, Timestamp};

use crate::cursor::{Reader, Writer, bad};
use crate::envelope::{ENVELOPE_SIZE, Envelope};
use crate::error::{Fault, FormatError};

pub(crate) const ENVELOPE: Envelope = Envelope { magic: *b"FOREBAYJ", version: 1, layout: "journal entry" };

/// Bytes of a change besides its key and value.
const CHANGE_SIZE_MIN: usize = 12;

/// One journal object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub cluster: ClusterId,
    /// Dense from 0 and part of the object's name.
    pub number: u64,
    pub written_at: Timestamp,
    /// In the order in which they took effect.
    pub changes: Vec<JournalChange>,
}

/// One row of the metadata that was set or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalChange {
    /// Which table, by the metadata's own numbering.
    pub kind: u16,
    pub key: Bytes,
    /// `None`: the row was removed.
    pub value: Option<Bytes>,
}

impl JournalEntry {
    /// # Panics
    /// Where a key or value reaches 4 GiB.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.cluster(&self.cluster);
        w.u16(0); // reserved
        w.u64(self.number);
        w.timestamp(self.written_at);
        w.count(self.changes.len());
        for change in &self.changes {
            w.u16(change.kind);
            w.u16(u16::from(change.value.is_some()));
            w.count(change.key.len());
            w.count(change.value.as_ref().map_or(0, Bytes::len));
            w.bytes(&change.key);
            w.bytes(change.value.as_deref().unwrap_or_default());
        }
        ENVELOPE.wrap(w.written())
    }

    /// Keys and values share `bytes`.
    pub fn parse(bytes: &Bytes) -> Result<Self, FormatError> {
        let body = ENVELOPE.open(bytes)?;
        Self::parse_body(&body).map_err(|(at, fault)| {
            FormatError::new(ENVELOPE.layout, if at == 0 { 0 } else { (ENVELOPE_SIZE + at) as u64 }, fault)
        })
    }

    /// An error comes with the place in the body of the change that it is about.
    fn parse_body(body: &Bytes) -> Result<Self, (usize, Fault)> {
        let mut r = Reader::new(body, "body");
        let mut head = || -> Result<_, Fault> {
            let cluster = r.cluster()?;
            r.reserved(2)?;
            Ok((cluster, r.u64()?, r.timestamp()?, r.count(CHANGE_SIZE_MIN)?))
        };
        let (cluster, number, written_at, count) = head().map_err(|fault| (0, fault))?;
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            let at = r.position();
            changes.push(Self::parse_change(&mut r, body).map_err(|fault| (at, fault))?);
        }
        r.end().map_err(|fault| (r.position(), fault))?;
        Ok(Self { cluster, number, written_at, changes })
    }

    fn parse_change(r: &mut Reader<'_>, body: &Bytes) -> Result<JournalChange, Fault> {
        let (kind, present) = (r.u16()?, r.u16()?);
        let (key_size, value_size) = (r.size()?, r.size()?);
        let key = body.slice_ref(r.bytes(key_size)?);
        let value = body.slice_ref(r.bytes(value_size)?);
        let value = match (present, value.len()) {
            (1, _) => Some(value),
            (0, 0) => None,
            (other, _) => return Err(bad("value flag", other)),
        };
        Ok(JournalChange { kind, key, value })
    }
}
