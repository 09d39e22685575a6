//! Parts of an object.

use std::ops::Range;

/// The part of an object to read, given without knowing the object's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// The whole object, which may be empty.
    All,
    /// From `start` up to but not including `end`.
    Range(Range<u64>),
    /// From this offset to the end.
    From(u64),
    /// This many bytes at the end: a footer, in one request.
    Last(u64),
}

impl Span {
    /// The bytes named in an object of `size` bytes, cut at its end; `None` where there are none. The rules are those of
    /// an HTTP range request (RFC 9110 section 14.1.2), in which an empty range cannot be said.
    pub fn within(&self, size: u64) -> Option<Range<u64>> {
        match self {
            Self::All => Some(0..size),
            Self::Range(range) => Some(range.start..range.end.min(size)).filter(|r| !r.is_empty()),
            Self::From(start) => Some(*start..size).filter(|r| !r.is_empty()),
            Self::Last(count) => Some(size.saturating_sub(*count)..size).filter(|r| !r.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_at_the_objects_end() {
        assert_eq!(Span::All.within(0), Some(0..0));
        assert_eq!(Span::Range(2..5).within(10), Some(2..5));
        assert_eq!(Span::Range(2..50).within(10), Some(2..10));
        assert_eq!(Span::From(9).within(10), Some(9..10));
        assert_eq!(Span::Last(3).within(10), Some(7..10));
        assert_eq!(Span::Last(30).within(10), Some(0..10));
        for none in [Span::Range(10..11), Span::Range(3..3), Span::From(10), Span::Last(0)] {
            assert_eq!(none.within(10), None, "{none:?}");
        }
        assert_eq!(Span::Last(3).within(0), None);
    }
}
