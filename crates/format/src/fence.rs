//! The fence: what a sealer plants under a WAL number so that the sealed epoch ends there (D6). It is kept for ever.

use bytes::Bytes;
use forebay_types::{BrokerEpoch, BrokerId, ClusterId, Timestamp, WalSequence};

use crate::cursor::{Reader, Writer};
use crate::envelope::Envelope;
use crate::error::{Fault, FormatError};

pub(crate) const ENVELOPE: Envelope = Envelope { magic: *b"FOREBAYF", version: 1, layout: "fence" };

/// The end of a WAL epoch: the lowest fence of an epoch is past its last record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub cluster: ClusterId,
    /// Whose WAL is fenced.
    pub broker: BrokerId,
    pub epoch: BrokerEpoch,
    /// The number that the fence takes.
    pub sequence: WalSequence,
    /// Who planted it.
    pub by_broker: BrokerId,
    pub by_epoch: BrokerEpoch,
    pub planted_at: Timestamp,
}

impl Fence {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(64);
        w.cluster(&self.cluster);
        w.u16(0); // reserved
        w.i32(self.broker.get());
        w.i32(self.by_broker.get());
        w.u64(self.epoch.get());
        w.u64(self.by_epoch.get());
        w.u64(self.sequence.get());
        w.timestamp(self.planted_at);
        ENVELOPE.wrap(w.written())
    }

    /// Whether an object under a WAL name is a fence rather than a data object, from its first bytes.
    pub fn is_fence(start: &[u8]) -> bool {
        start.starts_with(&ENVELOPE.magic)
    }

    pub fn parse(bytes: &Bytes) -> Result<Self, FormatError> {
        let body = ENVELOPE.open(bytes)?;
        Self::parse_body(&body).map_err(|fault| ENVELOPE.error(fault))
    }

    fn parse_body(body: &[u8]) -> Result<Self, Fault> {
        let mut r = Reader::new(body, "body");
        let cluster = r.cluster()?;
        r.reserved(2)?;
        let (broker, by_broker) = (r.broker()?, r.broker()?);
        let (epoch, by_epoch) = (r.broker_epoch()?, r.broker_epoch()?);
        let (sequence, planted_at) = (r.sequence()?, r.timestamp()?);
        r.end()?;
        Ok(Self { cluster, broker, epoch, sequence, by_broker, by_epoch, planted_at })
    }
}
