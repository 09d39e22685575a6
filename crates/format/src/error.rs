//! What can be wrong with persisted bytes, said so that an operator can find them: which layout, in which object, at
//! which byte, and which records of which partition are behind it.

use std::fmt;

use forebay_types::{Offset, TopicPartition};

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes are not what was written. Reading them again from another copy may help, nothing else will.
    Corrupt,
    /// The bytes are sound as far as can be told, but from a newer version, or compressed or encrypted in a way that
    /// this version does not know. A newer Forebay reads them.
    Unsupported,
}

/// Persisted bytes that cannot be read, and where they are. One word wide, because results that carry it are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError(Box<Details>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    /// The layout, in the words of `docs/formats.md`.
    layout: &'static str,
    /// Where that layout begins, in bytes from the start of the object, segment or buffer.
    position: u64,
    object: Option<String>,
    partition: Option<TopicPartition>,
    offsets: Option<(Offset, Offset)>,
    fault: Fault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it begins with {seen:02x?} and should begin with {wanted:02x?}")]
    Magic { wanted: Vec<u8>, seen: Vec<u8> },
    #[error("it has format version {seen} and this build reads up to {known}")]
    Version { seen: u16, known: u16 },
    #[error("its {part} has checksum {seen:#010x} and was written with {wanted:#010x}")]
    Checksum { part: &'static str, wanted: u32, seen: u32 },
    #[error("it ends too early: {needed} bytes are needed for its {part}, {have} are left")]
    Short { part: &'static str, needed: u64, have: u64 },
    #[error("{extra} bytes follow its end")]
    Trailing { extra: u64 },
    #[error("{field} cannot be {value}")]
    Field { field: &'static str, value: String },
    #[error("it uses {feature} {value}, which this build does not know")]
    Unknown { feature: &'static str, value: u32 },
}

impl FormatError {
    pub(crate) fn new(layout: &'static str, position: u64, fault: Fault) -> Self {
        Self(Box::new(Details { layout, position, object: None, partition: None, offsets: None, fault }))
    }

    /// Names the object or file that the bytes came from.
    #[must_use]
    pub fn in_object(mut self, object: impl fmt::Display) -> Self {
        self.0.object = Some(object.to_string());
        self
    }

    /// Names the partition whose records are behind the bytes.
    #[must_use]
    pub fn of_partition(mut self, partition: TopicPartition) -> Self {
        self.0.partition = Some(partition);
        self
    }

    /// Names the records behind the bytes, both offsets inclusive.
    #[must_use]
    pub fn with_offsets(mut self, first: Offset, last: Offset) -> Self {
        self.0.offsets = Some((first, last));
        self
    }

    pub fn kind(&self) -> ErrorKind {
        match self.0.fault {
            Fault::Version { .. } | Fault::Unknown { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        }
    }

    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }

    pub fn layout(&self) -> &'static str {
        self.0.layout
    }

    pub fn position(&self) -> u64 {
        self.0.position
    }

    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    pub fn partition(&self) -> Option<TopicPartition> {
        self.0.partition
    }

    /// First and last offset behind the bytes, inclusive.
    pub fn offsets(&self) -> Option<(Offset, Offset)> {
        self.0.offsets
    }
}

impl std::error::Error for FormatError {}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.0.object {
            write!(f, "{object}: ")?;
        }
        write!(f, "the {} at byte {}", self.0.layout, self.0.position)?;
        match (self.0.partition, self.0.offsets) {
            (Some(p), Some((first, last))) => write!(f, " (partition {p}, offsets {first} to {last})")?,
            (Some(p), None) => write!(f, " (partition {p})")?,
            (None, Some((first, last))) => write!(f, " (offsets {first} to {last})")?,
            (None, None) => {}
        }
        write!(f, " cannot be read: {}", self.0.fault)
    }
}
