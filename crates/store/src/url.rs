//! Where a bucket is, as a person writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{KeyError, Prefix};

/// The address of a bucket: `s3://bucket/prefix`, `file:///folder`, `file://relative/folder` or `memory:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketUrl {
    /// Endpoint and keys come from the usual `AWS_…` environment variables.
    S3 {
        bucket: String,
        prefix: Prefix,
    },
    File(PathBuf),
    Memory,
}

const ACCEPTED: &str = "a bucket is written s3://bucket/prefix, file:///folder, file://relative/folder or memory:";

/// Why a text is not a bucket's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketUrlError {
    #[error("{0:?} is no bucket: {ACCEPTED}")]
    Scheme(String),
    #[error("{0:?} names no folder: {ACCEPTED}")]
    Folder(String),
    #[error("{url:?} has no S3 bucket's name, which is 3 to 63 of a-z, 0-9, '.' and '-': {ACCEPTED}")]
    Bucket { url: String },
    #[error("{url:?} has a prefix that cannot be used: {source}")]
    Prefix { url: String, source: KeyError },
}

impl FromStr for BucketUrl {
    type Err = BucketUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = || text.to_owned();
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
            if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(legal) {
                return Err(BucketUrlError::Bucket { url: url() });
            }
            let prefix = Prefix::new(prefix).map_err(|source| BucketUrlError::Prefix { url: url(), source })?;
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix });
        }
        if let Some(folder) = text.strip_prefix("file://") {
            return if folder.is_empty() {
                Err(BucketUrlError::Folder(url()))
            } else {
                Ok(Self::File(PathBuf::from(folder)))
            };
        }
        match text {
            "memory:" => Ok(Self::Memory),
            _ => Err(BucketUrlError::Scheme(url())),
        }
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_all() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{}", prefix.as_str()),
            Self::File(folder) => write!(f, "file://{}", folder.display()),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_written() {
        for text in ["s3://logs", "s3://my.logs-2/a/b", "file:///var/lib/x", "file://data", "memory:"] {
            assert_eq!(text.parse::<BucketUrl>().expect(text).to_string(), text);
        }
        assert_eq!("s3://logs/a/".parse::<BucketUrl>().expect("legal").to_string(), "s3://logs/a");
        assert_eq!("file://data".parse(), Ok(BucketUrl::File("data".into())));
    }

    #[test]
    fn a_wrong_address_is_told_what_is_accepted() {
        let told = |text: &str| text.parse::<BucketUrl>().expect_err(text).to_string();
        for text in ["", "data", "/data", "gs://x", "memory", "file://", "s3://", "s3://A_B/x"] {
            assert!(told(text).contains("s3://bucket/prefix, file:///folder"), "{}", told(text));
        }
        assert_eq!(
            told("s3://logs/a//b"),
            "\"s3://logs/a//b\" has a prefix that cannot be used: the object name \"a//b\" has an empty part, or one that \
             begins with a dot"
        );
    }
}
