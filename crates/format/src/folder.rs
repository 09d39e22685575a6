//! The data folder's marker: which format the folder has, whose it is, and the disk's own id. It
//! is text, so that an operator can read it, and its last line is a checksum of the lines before.
//!
//! Source: D3 (a local disk is known by its own id).

use std::fmt;

use forebay_types::ClusterId;

use crate::crc::crc32c;
use crate::cursor::bad;
use crate::error::{Fault, FormatError};

/// The version of the folder's layout that this build writes and reads.
pub const FOLDER_FORMAT: u16 = 1;

const LAYOUT: &str = "data folder marker";
const FIRST_LINE: &str = "forebay data folder";

/// The id that a disk keeps for ever: a local WAL's partitions wait for it (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(u128);

impl DiskId {
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bits))
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderMarker {
    pub cluster: ClusterId,
    pub disk: DiskId,
}

impl FolderMarker {
    /// The marker's name in the data folder.
    pub const FILE_NAME: &str = "forebay-folder";

    pub fn encode(&self) -> String {
        let Self { cluster, disk } = self;
        let text = format!("{FIRST_LINE}\nformat {FOLDER_FORMAT}\ncluster {cluster}\ndisk {disk}\n");
        let crc = crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }

    /// A folder of another format is told by [`Fault::Version`], whatever the lines after that one are.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::parse_lines(bytes).map_err(|fault| FormatError::new(LAYOUT, 0, fault))
    }

    fn parse_lines(bytes: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|e| bad("text", e))?;
        let mut lines = text.split('\n');
        let first = lines.next().unwrap_or_default();
        if first != FIRST_LINE {
            let seen = first.as_bytes().iter().take(FIRST_LINE.len()).copied().collect();
            return Err(Fault::Magic { wanted: FIRST_LINE.as_bytes().to_vec(), seen });
        }
        let mut value = |key: &'static str| -> Result<&str, Fault> {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(' '));
            value.ok_or_else(|| bad(key, format_args!("read from {line:?}")))
        };
        let format = value("format")?;
        let format: u16 = format.parse().map_err(|_| bad("format", format_args!("{format:?}")))?;
        if format != FOLDER_FORMAT {
            return Err(Fault::Version { seen: format, known: FOLDER_FORMAT });
        }
        let cluster = value("cluster")?.parse().map_err(|e| bad("cluster", e))?;
        let disk = value("disk")?;
        let disk = DiskId(u128::from_str_radix(disk, 16).map_err(|e| bad("disk", e))?);
        let crc = value("crc32c")?;
        let wanted = u32::from_str_radix(crc, 16).map_err(|e| bad("crc32c", e))?;
        let checked = text.find("crc32c ").expect("its line was read");
        let seen = crc32c(&text.as_bytes()[..checked]);
        if seen != wanted {
            return Err(Fault::Checksum { part: "text", wanted, seen });
        }
        let marker = Self { cluster, disk };
        // One marker, one text: what follows the last line, or a number written another way, is not ours.
        if marker.encode() != text {
            return Err(bad("text", format_args!("{text:?}")));
        }
        Ok(marker)
    }
}
