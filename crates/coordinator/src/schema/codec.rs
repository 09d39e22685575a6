//! Big-endian reading and writing by Kafka's rules, flexible and not.
//!
//! Invariants:
//! 1. A reader never moves past its end and never allocates more than the bytes in front of it could hold.
//! 2. A writer is only given strings that fit: who takes them from clients checks them against [`STRING_BYTES_MAX`].

use bytes::{BufMut, Bytes};
use forebay_types::{TopicName, TopicNameError};

/// Longest string Kafka's encoding holds, in bytes.
pub const STRING_BYTES_MAX: usize = 0x7fff;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {field} at byte {position}: {problem}")]
pub struct SchemaError {
    what: &'static str,
    field: &'static str,
    position: usize,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("{wanted} bytes wanted, {left} left")]
    Short { wanted: usize, left: usize },
    #[error("length {0} is not one")]
    Length(i64),
    #[error("not UTF-8")]
    Utf8,
    #[error("a number of more than 64 bits")]
    Varint,
    #[error("version {0} is not known")]
    Version(i16),
    #[error("value {0} is not one")]
    Value(i64),
    #[error(transparent)]
    Topic(TopicNameError),
    #[error("{0} bytes left over")]
    Trailing(usize),
}

/// Reads one record's key or value.
#[derive(Debug)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, position: 0 }
    }

    fn error(&self, field: &'static str, problem: Problem) -> SchemaError {
        SchemaError { what: self.what, field, position: self.position, problem }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], SchemaError> {
        let left = self.left();
        if length > left {
            return Err(self.error(field, Problem::Short { wanted: length, left }));
        }
        let taken = &self.bytes[self.position..self.position + length];
        self.position += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], SchemaError> {
        Ok(self.take(field, N)?.try_into().expect("take gave N bytes"))
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, SchemaError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub fn i8(&mut self, field: &'static str) -> Result<i8, SchemaError> {
        self.array(field).map(i8::from_be_bytes)
    }

    pub fn i16(&mut self, field: &'static str) -> Result<i16, SchemaError> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub fn i32(&mut self, field: &'static str) -> Result<i32, SchemaError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub fn i64(&mut self, field: &'static str) -> Result<i64, SchemaError> {
        self.array(field).map(i64::from_be_bytes)
    }

    pub fn uvarint(&mut self, field: &'static str) -> Result<u64, SchemaError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(field, Problem::Varint))
    }

    fn text(&mut self, field: &'static str, length: usize) -> Result<String, SchemaError> {
        let position = self.position;
        let bytes = self.take(field, length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| SchemaError {
            what: self.what,
            field,
            position,
            problem: Problem::Utf8,
        })
    }

    /// The length after a signed prefix; -1 is null.
    fn length(&self, field: &'static str, raw: i64) -> Result<Option<usize>, SchemaError> {
        match usize::try_from(raw) {
            Ok(length) => Ok(Some(length)),
            Err(_) if raw == -1 => Ok(None),
            Err(_) => Err(self.error(field, Problem::Length(raw))),
        }
    }

    /// The length after a compact prefix: one more than the length, 0 for null.
    fn compact_length(&mut self, field: &'static str) -> Result<Option<usize>, SchemaError> {
        match self.uvarint(field)? {
            0 => Ok(None),
            more => usize::try_from(more - 1).map(Some).map_err(|_| self.error(field, Problem::Varint)),
        }
    }

    pub fn nullable_string(&mut self, field: &'static str, flexible: bool) -> Result<Option<String>, SchemaError> {
        let length = if flexible {
            self.compact_length(field)?
        } else {
            let raw = self.i16(field)?;
            self.length(field, i64::from(raw))?
        };
        match length {
            None => Ok(None),
            Some(length) if length > STRING_BYTES_MAX => {
                // The flexible form could hold more, but Kafka refuses it, and we could not write it.
                Err(self.error(field, Problem::Length(i64::try_from(length).unwrap_or(i64::MAX))))
            }
            Some(length) => self.text(field, length).map(Some),
        }
    }

    pub fn string(&mut self, field: &'static str, flexible: bool) -> Result<String, SchemaError> {
        self.nullable_string(field, flexible)?.ok_or_else(|| self.error(field, Problem::Length(-1)))
    }

    /// Copied, so that the record's batch is not kept for a few bytes of it.
    pub fn bytes(&mut self, field: &'static str, flexible: bool) -> Result<Bytes, SchemaError> {
        let length = if flexible {
            self.compact_length(field)?
        } else {
            let raw = self.i32(field)?;
            self.length(field, i64::from(raw))?
        };
        let length = length.ok_or_else(|| self.error(field, Problem::Length(-1)))?;
        self.take(field, length).map(Bytes::copy_from_slice)
    }

    /// How many elements follow, each of at least one byte; `None` for a null array.
    pub fn count(&mut self, field: &'static str, flexible: bool) -> Result<Option<usize>, SchemaError> {
        let count = if flexible {
            self.compact_length(field)?
        } else {
            let raw = self.i32(field)?;
            self.length(field, i64::from(raw))?
        };
        match count {
            Some(count) if count > self.left() => {
                Err(self.error(field, Problem::Short { wanted: count, left: self.left() }))
            }
            count => Ok(count),
        }
    }

    /// Passes over tagged fields, giving each to `known`.
    pub fn tagged(
        &mut self,
        mut known: impl FnMut(u64, &mut Self) -> Result<(), SchemaError>,
    ) -> Result<(), SchemaError> {
        for _ in 0..self.uvarint("tagged fields")? {
            let tag = self.uvarint("tag")?;
            let length = self.uvarint("length of a tagged field")?;
            let length =
                usize::try_from(length).map_err(|_| self.error("length of a tagged field", Problem::Varint))?;
            let bytes = self.take("tagged field", length)?;
            known(tag, &mut Self::new(self.what, bytes))?;
        }
        Ok(())
    }

    /// The version in front, if it is one of `0..=newest`.
    pub fn version(&mut self, newest: i16) -> Result<i16, SchemaError> {
        let version = self.i16("version")?;
        if (0..=newest).contains(&version) {
            Ok(version)
        } else {
            Err(self.error("version", Problem::Version(version)))
        }
    }

    /// A value outside of what `field` may be.
    pub fn refuse(&self, field: &'static str, value: i64) -> SchemaError {
        self.error(field, Problem::Value(value))
    }

    /// A topic's name, which comes in the form that is not flexible.
    pub fn topic(&mut self, field: &'static str) -> Result<TopicName, SchemaError> {
        let name = self.string(field, false)?;
        TopicName::new(&name).map_err(|problem| self.error(field, Problem::Topic(problem)))
    }

    pub fn end(&self) -> Result<(), SchemaError> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.error("end", Problem::Trailing(left))),
        }
    }
}

/// Writes one record's key or value, in the forms that are not flexible.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub fn i8(&mut self, value: i8) {
        self.0.put_i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.0.put_i16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.0.put_i32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.0.put_i64(value);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    /// # Panics
    /// Past [`STRING_BYTES_MAX`]: a string cut short here would be another group or topic.
    pub fn string(&mut self, text: &str) {
        assert!(text.len() <= STRING_BYTES_MAX, "a string of {} bytes was let in", text.len());
        self.i16(i16::try_from(text.len()).expect("at most 0x7fff"));
        self.raw(text.as_bytes());
    }

    pub fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.i16(-1),
        }
    }

    /// # Panics
    /// Past 2 GiB, twenty times the largest request.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// # Panics
    /// Past 2³¹ elements, more than any request holds.
    pub fn count(&mut self, count: usize) {
        self.i32(i32::try_from(count).expect("no request holds 2^31 elements"));
    }

    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}
