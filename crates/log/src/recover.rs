//! The takeover of oneself: what earlier lives of this broker left in their WALs goes to the bucket before any
//! partition is opened (D1, D6).
//!
//! Per life, oldest first: mark it sealed in the metadata, seal its WAL, move what is not committed into data objects
//! (`disk`) or only commit the objects that are there (`object`), then close it. Each step may be repeated after a crash.
//!
//! Owns: that order. Leaves to others: what is torn and what is corrupt (`wal`), whether a commit counts (`metadata`).
//!
//! Invariants:
//! 1. A life is closed only when all that it acknowledged is committed, or named as lost.
//! 2. Offsets that a corrupt WAL block took stay taken: they are covered by the upload of what follows them.

use std::sync::Arc;

use forebay_env::{Env, FailPoint};
use forebay_format::ObjectName;
use forebay_metadata::command::{CommitUpload, Registered, Unclosed};
use forebay_metadata::state::{WalEpochState, WalKind};
use forebay_metadata::{BrokerLife, Command, Metadata, Reply, SubmitError};
use forebay_store::{Body, Store};
use forebay_types::{ByteSize, ClusterId, Offset, OffsetRange, WalSequence};
use forebay_wal::{OffsetGap, Replay, SealError, Sealed, SealedContents, Sealer, WrittenObject};

use crate::upload::{EncodedUpload, Gathered, UploadError, commit_upload, create_object, encode, object_head};

/// Why an earlier life could not be taken over. Nothing is lost; starting again goes on from here.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("could not seal the WAL of {life}")]
    Seal {
        life: BrokerLife,
        #[source]
        source: SealError,
    },
    #[error("could not record the takeover of {life}")]
    Metadata {
        life: BrokerLife,
        #[source]
        source: SubmitError,
    },
    #[error("could not move what {life} left in its WAL to the bucket")]
    Upload {
        life: BrokerLife,
        #[source]
        source: UploadError,
    },
    #[error("no sealer for the WAL of {life}, which is of another kind or on another disk: {wal:?}")]
    NoSealer { life: BrokerLife, wal: WalKind },
}

/// Finds the sealer for a life's WAL: that of its kind, on its disk.
pub trait Sealers: Send + Sync {
    /// `None` where that WAL cannot be reached from here.
    fn sealer(&self, wal: WalKind) -> Option<Arc<dyn Sealer>>;
}

/// What recovery did, for the log and for the report of a drill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Earlier lives closed.
    pub lives: usize,
    /// Batches that were in a WAL only.
    pub batches: u64,
    pub bytes: u64,
    /// What corrupt WAL blocks took, in words.
    pub lost: Vec<String>,
    /// Data objects made, and so the first free number of this life.
    pub next_sequence: WalSequence,
}

/// Everything recovery works with.
pub struct Recovery {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub metadata: Arc<dyn Metadata>,
    pub cluster: ClusterId,
    /// The life that takes over.
    pub life: BrokerLife,
    pub size_target: ByteSize,
}

impl Recovery {
    /// Closes every earlier life that registration named.
    pub async fn run(&self, registered: &Registered, sealers: &dyn Sealers) -> Result<Recovered, RecoverError> {
        let mut recovered = Recovered::default();
        for unclosed in &registered.unclosed {
            self.close(unclosed, sealers, &mut recovered).await?;
            recovered.lives += 1;
        }
        Ok(recovered)
    }

    async fn close(
        &self,
        unclosed: &Unclosed,
        sealers: &dyn Sealers,
        recovered: &mut Recovered,
    ) -> Result<(), RecoverError> {
        let life = unclosed.life;
        let metadata = |source| RecoverError::Metadata { life, source };
        let reply = self.metadata.submit(Command::SealEpoch { life, by: self.life }).await.map_err(metadata)?;
        let Reply::Sealed(sealed) = reply else { unreachable!("sealing is answered with the seal, not {reply:?}") };
        if matches!(sealed.state, WalEpochState::Closed { .. }) {
            return Ok(());
        }
        let sealer = sealers.sealer(sealed.wal).ok_or(RecoverError::NoSealer { life, wal: sealed.wal })?;
        let contents = sealer.seal(life.broker, life.epoch, sealed.committed_through).await;
        let Sealed { end, contents, corrupt } = contents.map_err(|source| RecoverError::Seal { life, source })?;
        for range in &corrupt {
            tracing::error!(%life, first = %range.first, end = %range.end, committed = range.committed, "corrupt WAL: {}", range.what);
            recovered.lost.extend((!range.committed).then(|| range.what.clone()));
        }
        match contents {
            SealedContents::Objects(objects) => {
                for object in objects {
                    recovered.bytes += object.size;
                    let through = object.sequence;
                    self.commit(life, object, through).await?;
                }
            }
            SealedContents::Entries(replay) => {
                let gaps = corrupt.iter().filter(|range| !range.committed).flat_map(|range| range.gaps.iter().copied());
                self.replay(life, replay, gaps.collect(), recovered).await?;
            }
        }
        self.metadata.submit(Command::CloseEpoch { life, end, by: self.life }).await.map_err(metadata)?;
        Ok(())
    }

    /// Moves replayed entries into data objects of about the target size.
    async fn replay(
        &self,
        life: BrokerLife,
        mut replay: Replay,
        mut gaps: Vec<OffsetGap>,
        recovered: &mut Recovered,
    ) -> Result<(), RecoverError> {
        let mut gathered = Gathered::default();
        let mut bytes = 0;
        let mut through = None;
        loop {
            let group = replay.next().await.map_err(|source| RecoverError::Seal { life, source })?;
            let last = group.is_none();
            if let Some((sequence, entries)) = group {
                through = Some(sequence);
                for entry in entries {
                    recovered.batches += 1;
                    bytes += entry.records.len() as u64;
                    for gap in gaps.extract_if(.., |gap| gap.log == entry.log && gap.end <= entry.summary.base_offset) {
                        gathered.push_lost(&entry, self.lost_range(&gap));
                    }
                    gathered.push(entry);
                }
            }
            if let Some(through) = through
                && !gathered.is_empty()
                && (last || bytes >= self.size_target.get())
            {
                recovered.bytes += bytes;
                bytes = 0;
                self.upload(life, std::mem::take(&mut gathered), through, recovered).await?;
            }
            if last {
                return Ok(());
            }
        }
    }

    /// The offsets that a gap took.
    fn lost_range(&self, gap: &OffsetGap) -> OffsetRange {
        let from: Offset = gap.from.unwrap_or_else(|| self.metadata.log_size(gap.log).committed_end);
        OffsetRange::new(from, gap.end).expect("a gap ends where readable offsets go on, above what is committed")
    }

    async fn upload(
        &self,
        life: BrokerLife,
        gathered: Gathered,
        through: WalSequence,
        recovered: &mut Recovered,
    ) -> Result<(), RecoverError> {
        let sequence = recovered.next_sequence;
        recovered.next_sequence = sequence.next();
        let head = object_head(self.cluster.clone(), self.life, sequence, self.env.now());
        let EncodedUpload { object, .. } =
            self.env.blocking("encode-recovered", move || encode(head, &gathered, &|_| None)).await;
        let BrokerLife { broker, epoch } = self.life;
        let name = ObjectName::Data { broker, epoch, sequence }.to_string();
        let failed = |source| RecoverError::Upload { life, source };
        create_object(&self.env, &*self.store, &name, Body::from(object.chunks)).await.map_err(failed)?;
        self.env.fail_point(FailPoint::UploadedNotCommitted);
        let (size, footer_position, ranges) = (object.size, object.footer_position, object.ranges);
        self.commit(life, WrittenObject { sequence, name, size, footer_position, ranges }, through).await
    }

    async fn commit(&self, life: BrokerLife, object: WrittenObject, through: WalSequence) -> Result<(), RecoverError> {
        let command = Command::CommitUpload(CommitUpload {
            life,
            sealer: Some(self.life),
            through: Some(through),
            object: object.name.clone(),
            size: object.size,
            footer_position: object.footer_position,
            ranges: object.ranges,
        });
        commit_upload(&self.env, &*self.metadata, &object.name, command)
            .await
            .map_err(|source| RecoverError::Upload { life, source })
    }
}
