//! Why bytes are no message, or a message has no bytes.

/// Bytes that are not what they should be. There is no way to tell where the next message's fields are, so the
/// caller closes the connection.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{what} needs {need} bytes at position {at}, {left} are left")]
    Short { what: &'static str, at: usize, need: usize, left: usize },
    #[error("{what} at position {at} has the impossible length {length}")]
    Length { what: &'static str, at: usize, length: i64 },
    #[error("{what} at position {at} is a variable-length integer of more than {bytes_max} bytes")]
    Varint { what: &'static str, at: usize, bytes_max: usize },
    #[error("{what} at position {at} is not UTF-8")]
    Utf8 { what: &'static str, at: usize },
    #[error("{what} is followed by {bytes} bytes that belong to nothing")]
    Trailing { what: &'static str, bytes: usize },
    #[error("no API has the key {api_key} (request version {api_version})")]
    UnknownApi { api_key: i16, api_version: i16 },
    #[error("{what} of {bytes} bytes is larger than the {limit} bytes allowed")]
    Size { what: &'static str, bytes: usize, limit: usize },
    #[error("{what} has no version {version}")]
    Version { what: &'static str, version: i16 },
    #[error("cannot decode {what} of version {version}")]
    Message { what: &'static str, version: i16, source: Box<dyn std::error::Error + Send + Sync> },
}

/// A message that has no form in the version asked for: the caller filled in a field that this version lacks, or the
/// message is too large.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("{what} has no version {version}")]
    Version { what: &'static str, version: i16 },
    #[error("{what} takes {bytes} bytes, more than the protocol can say")]
    Size { what: &'static str, bytes: usize },
    #[error("cannot encode {what} in version {version}")]
    Message { what: &'static str, version: i16, source: Box<dyn std::error::Error + Send + Sync> },
}
