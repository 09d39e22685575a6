//! What a check found, as data: `cli` prints it.

use std::fmt;

use forebay_types::{ClusterId, Offset, PartitionIndex, TopicName};

/// Findings kept; a bucket that lost a thousand objects needs no longer list.
pub const FINDINGS_MAX: usize = 10_000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Nothing that a reader may ask for is lost, but this should not be so.
    Warning,
    /// Acknowledged records cannot be read, or could not be after the next failure.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A partition as people name it: `orders-0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub topic: TopicName,
    pub partition: PartitionIndex,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// The object's key in the bucket, or the path of a WAL segment.
    pub object: Option<String>,
    /// Where in the object the damaged block begins, in bytes.
    pub block: Option<u64>,
    /// Whose records are behind it.
    pub partition: Option<Place>,
    /// Which records are behind it: first and last offset, inclusive.
    pub offsets: Option<(Offset, Offset)>,
    pub what: String,
}

impl Finding {
    pub(crate) fn new(severity: Severity, what: impl Into<String>) -> Self {
        Self { severity, object: None, block: None, partition: None, offsets: None, what: what.into() }
    }

    pub(crate) fn in_object(self, object: &str) -> Self {
        Self { object: Some(object.to_owned()), ..self }
    }

    pub(crate) fn at_block(self, position: u64) -> Self {
        Self { block: Some(position), ..self }
    }

    pub(crate) fn of(self, partition: Option<Place>) -> Self {
        Self { partition, ..self }
    }

    /// First and last offset, inclusive.
    pub(crate) fn with_offsets(self, first: Offset, last: Offset) -> Self {
        Self { offsets: Some((first, last)), ..self }
    }
}

/// One line: `error: 3f/data/0/…: block at byte 0: orders-0, offsets 0 to 41: …`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(block) = self.block {
            write!(f, "block at byte {block}: ")?;
        }
        match (&self.partition, self.offsets) {
            (Some(place), Some((first, last))) => write!(f, "{place}, offsets {first} to {last}: ")?,
            (Some(place), None) => write!(f, "{place}: ")?,
            (None, Some((first, last))) => write!(f, "offsets {first} to {last}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.what)
    }
}

/// Objects of a kind, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    pub objects: u64,
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// In the trash included.
    pub topics: u64,
    pub partitions: u64,
    /// Objects that uploads, extents or snapshots name.
    pub reached: Tally,
    pub blocks: u64,
    pub records: u64,
    /// Batches whose own checksum was checked (`deep`), those in the WAL included.
    pub batches_checked: u64,
    pub journal_entries: u64,
    /// Objects that nothing reaches any more and that wait to be deleted.
    pub garbage: Tally,
    /// Objects that no row names and none ever will: left by a crash, to be collected.
    pub orphans: Tally,
    /// Objects that a life which is not closed may still commit.
    pub uncommitted: Tally,
    pub fences: u64,
    /// Batches that are in a WAL and not yet in committed objects.
    pub wal_batches: u64,
    pub wal_bytes: u64,
    /// WALs on a local disk that may hold acknowledged records and that nobody could look into.
    pub wals_not_checked: u64,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub cluster: ClusterId,
    /// In the order in which things were looked at; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings beyond that.
    pub findings_left_out: u64,
    pub counts: Counts,
}

impl Report {
    /// Whether every record can be read: there may be notes and warnings.
    pub fn is_clean(&self) -> bool {
        self.findings_left_out == 0 && self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }

    pub(crate) fn add(&mut self, found: impl IntoIterator<Item = Finding>) {
        for finding in found {
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(finding);
            } else {
                self.findings_left_out += 1;
            }
        }
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    pub objects_done: u64,
    pub objects_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
}
