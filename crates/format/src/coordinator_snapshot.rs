//! The coordinator snapshot: a group or transaction coordinator's whole machine at an offset of its partition (D14).
//! What is inside is the coordinator's own encoding, under the version that it puts there.

use bytes::Bytes;
use forebay_types::{ClusterId, LeaderEpoch, Offset, Timestamp, TopicPartition};

use crate::cursor::{Reader, Writer, bad};
use crate::envelope::Envelope;
use crate::error::{Fault, FormatError};

pub(crate) const ENVELOPE: Envelope = Envelope { magic: *b"FOREBAYC", version: 1, layout: "coordinator snapshot" };

/// Bytes before the payload in the envelope's body.
const HEAD_SIZE: usize = 72;

/// Which machine the payload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorKind {
    Group,
    Transaction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorSnapshot {
    pub cluster: ClusterId,
    pub kind: CoordinatorKind,
    /// The internal topic's partition.
    pub partition: TopicPartition,
    /// The leader epoch of the coordinator that wrote the snapshot.
    pub leader_epoch: LeaderEpoch,
    /// The first offset that the snapshot does not contain: opening reads on from here.
    pub at: Offset,
    pub written_at: Timestamp,
    pub payload: Bytes,
}

impl CoordinatorSnapshot {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(HEAD_SIZE + self.payload.len());
        w.cluster(&self.cluster);
        w.u8(match self.kind {
            CoordinatorKind::Group => 1,
            CoordinatorKind::Transaction => 2,
        });
        w.u8(0); // reserved
        w.partition(self.partition);
        w.i32(self.leader_epoch.get());
        w.offset(self.at);
        w.timestamp(self.written_at);
        w.u64(self.payload.len() as u64);
        debug_assert_eq!(w.len(), HEAD_SIZE);
        w.bytes(&self.payload);
        ENVELOPE.wrap(w.written())
    }

    /// The payload shares `bytes`.
    pub fn parse(bytes: &Bytes) -> Result<Self, FormatError> {
        let body = ENVELOPE.open(bytes)?;
        Self::parse_body(&body).map_err(|fault| ENVELOPE.error(fault))
    }

    fn parse_body(body: &Bytes) -> Result<Self, Fault> {
        let mut r = Reader::new(body, "body");
        let cluster = r.cluster()?;
        let kind = match r.u8()? {
            1 => CoordinatorKind::Group,
            2 => CoordinatorKind::Transaction,
            other => return Err(bad("coordinator kind", other)),
        };
        r.reserved(1)?;
        let (partition, leader_epoch) = (r.partition()?, r.leader_epoch()?);
        let (at, written_at) = (r.offset("snapshot offset")?, r.timestamp()?);
        let length = r.u64()?;
        if length != r.left() as u64 {
            return Err(bad("payload length", format_args!("{length} with {} bytes left", r.left())));
        }
        let payload = body.slice(r.position()..);
        Ok(Self { cluster, kind, partition, leader_epoch, at, written_at, payload })
    }
}
