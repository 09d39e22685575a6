//! Where and when: offsets in a log, positions in a WAL, points in time.

use std::fmt;

use crate::OutOfRange;

/// The place of a record in its partition. An `end`, `next` or `start` offset is what its name says; a `last` offset is inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(i64);

impl Offset {
    pub const ZERO: Self = Self(0);

    /// # Errors
    /// A negative number is no offset: Kafka's sentinels (-1 latest, -2 earliest …) are not values of this type.
    pub fn new(raw: i64) -> Result<Self, OutOfRange> {
        if raw < 0 { Err(OutOfRange::new("offset", "0 or more", raw)) } else { Ok(Self(raw)) }
    }

    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `count` records further on, or `None` past the end of the range.
    #[must_use]
    pub fn checked_add(self, count: i64) -> Option<Self> {
        self.0.checked_add(count).filter(|o| *o >= 0).map(Self)
    }

    /// The offset right after this one.
    ///
    /// # Panics
    /// At `i64::MAX`, which no log reaches: a producer that claims so many records is refused when its batch is read.
    #[must_use]
    pub fn next(self) -> Self {
        self.checked_add(1).expect("an offset below i64::MAX: batches that would pass it are refused")
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Offsets from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    start: Offset,
    end: Offset,
}

impl OffsetRange {
    /// # Errors
    /// `end` below `start` is no range.
    pub fn new(start: Offset, end: Offset) -> Result<Self, OutOfRange> {
        if end < start {
            return Err(OutOfRange::new("offset range", "start at or below its end", format!("[{start}, {end})")));
        }
        Ok(Self { start, end })
    }

    pub const fn start(self) -> Offset {
        self.start
    }

    pub const fn end(self) -> Offset {
        self.end
    }

    pub fn contains(self, offset: Offset) -> bool {
        self.start <= offset && offset < self.end
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// How many offsets the range spans.
    pub fn len(self) -> u64 {
        self.end.0.abs_diff(self.start.0)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// The number of one durable write in one WAL epoch: dense from 0, names the object or block that holds it (D6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WalSequence(u64);

impl WalSequence {
    pub const ZERO: Self = Self(0);

    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// # Panics
    /// At `u64::MAX`, 58 billion years of ten writes a second.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a WAL sequence below u64::MAX"))
    }
}

impl fmt::Display for WalSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many batches this broker epoch has handed to its WAL, in order: what an ack, a reply or a publish waits for.
/// A batch at position `p` is durable once the WAL's durable position is `p` or higher; 0 is durable from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WalPosition(u64);

impl WalPosition {
    pub const START: Self = Self(0);

    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// # Panics
    /// At `u64::MAX`, which no process lives to see.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a WAL position below u64::MAX"))
    }
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since 1970-01-01 UTC, as in a Kafka record. May lie before 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_millis(raw: i64) -> Self {
        Self(raw)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    #[must_use]
    pub fn saturating_add(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this, 0 where the clock has gone backwards.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_half_open() {
        let o = |raw| Offset::new(raw).expect("not negative");
        let range = OffsetRange::new(o(3), o(5)).expect("in order");
        assert!(range.contains(o(3)) && range.contains(o(4)) && !range.contains(o(5)));
        assert_eq!((range.len(), range.to_string()), (2, "[3, 5)".to_owned()));
        assert!(OffsetRange::new(o(5), o(3)).is_err());
    }

    #[test]
    fn sentinels_are_no_offsets() {
        assert!(Offset::new(-1).is_err() && Offset::new(-2).is_err());
        assert_eq!(Offset::new(i64::MAX).expect("the largest").checked_add(1), None);
    }
}
