//! Names of objects, and of the folders that they are listed by.
//!
//! Invariants:
//! 1. A key is legal, and means the same object, in every provider: a path of segments that a file system takes as they
//!    are and S3 needs no escaping for.
//! 2. No segment begins with a dot: such names in a folder are the provider's own (`.staging`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest key in bytes: S3 allows 1,024 with the bucket's own prefix in them.
const LENGTH_MAX: usize = 800;
/// Longest segment in bytes: file systems allow 255.
const SEGMENT_LENGTH_MAX: usize = 200;

/// The name of an object: segments of ASCII letters, digits, `.`, `_` and `-`, joined by `/`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an object's name cannot be empty")]
    Empty,
    #[error("an object's name of {0} bytes is longer than {LENGTH_MAX}")]
    Long(usize),
    #[error("the object name {0:?} has a part of more than {SEGMENT_LENGTH_MAX} bytes")]
    LongSegment(String),
    #[error("the object name {0:?} has an empty part, or one that begins with a dot")]
    Segment(String),
    #[error("the object name {0:?} has a character other than ASCII letters, digits and . _ - /")]
    Character(String),
}

fn check(text: &str) -> Result<(), KeyError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.len() > LENGTH_MAX {
        return Err(KeyError::Long(text.len()));
    }
    if !text.bytes().all(legal) {
        return Err(KeyError::Character(text.to_owned()));
    }
    for segment in text.split('/') {
        if segment.is_empty() || segment.starts_with('.') {
            return Err(KeyError::Segment(text.to_owned()));
        }
        if segment.len() > SEGMENT_LENGTH_MAX {
            return Err(KeyError::LongSegment(text.to_owned()));
        }
    }
    Ok(())
}

impl Key {
    /// # Errors
    /// Names the rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A folder of keys: whole leading segments, so `a/1` holds `a/1/x` and not `a/10`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// Every key.
    pub fn all() -> Self {
        Self(Arc::from(""))
    }

    /// The keys below the folder `text`; a `/` at its end is ignored, and an empty text is every key.
    ///
    /// # Errors
    /// Names the rule that `text` breaks: those of a key.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::all());
        }
        check(text)?;
        Ok(Self(text.into()))
    }

    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Without a `/` at its end; empty for [`Prefix::all`].
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every key below begins with: the folder and a `/`, or nothing.
    pub(crate) fn leading(&self) -> String {
        if self.is_all() { String::new() } else { format!("{}/", self.0) }
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.is_all() || key.0.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The key `name` below this folder.
    ///
    /// # Errors
    /// The two together are not a key.
    pub fn key(&self, name: &str) -> Result<Key, KeyError> {
        Key::new(&format!("{}{name}", self.leading()))
    }
}

impl FromStr for Prefix {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_legal_everywhere_or_refused() {
        for good in ["a", "0f/data/1/00000000000000000001/00000000000000000002", "manifest/0.manifest", "A.b/c_d-e.f"] {
            assert_eq!(Key::new(good).expect(good).as_str(), good);
        }
        let long = "x".repeat(201);
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "a/..",
            ".staging/x",
            "a b",
            "a=b",
            "a%20b",
            "é",
            "a\\b",
            "a\0",
            &long,
            &"a/".repeat(500),
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?} is no key");
        }
    }

    #[test]
    fn a_prefix_holds_whole_segments() {
        let one = Prefix::new("a/1/").expect("legal");
        let key = |text| Key::new(text).expect("legal");
        assert!(one.contains(&key("a/1/x")) && one.contains(&key("a/1/x/y")));
        assert!(!one.contains(&key("a/10/x")) && !one.contains(&key("a/1")) && !one.contains(&key("b/a/1/x")));
        assert!(Prefix::all().contains(&key("a")));
        assert_eq!(one.key("x").expect("legal"), key("a/1/x"));
        assert_eq!(Prefix::all().key("x").expect("legal"), key("x"));
    }
}
