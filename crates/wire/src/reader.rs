//! Reads Kafka's primitive types from a slice, one after the other, each length checked before it is used.
//!
//! Owns: positions in errors, and the two spellings of lengths (fixed before a message's first flexible version,
//! "compact" from it). Leaves to others: what the fields mean.
//!
//! Invariant: `at` never passes the end of `bytes`, and no method reserves memory.

use std::ops::Range;

use crate::DecodeError;

#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { bytes, at: 0, flexible }
    }

    /// The same place, read on in the spelling of another version: a header and its body may differ.
    pub(crate) fn with_flexible(self, flexible: bool) -> Self {
        Self { flexible, ..self }
    }

    /// Where the next field begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn take(&mut self, what: &'static str, need: usize) -> Result<&'a [u8], DecodeError> {
        match self.bytes[self.at..].get(..need) {
            Some(taken) => {
                self.at += need;
                Ok(taken)
            }
            None => Err(DecodeError::Short { what, at: self.at, need, left: self.remaining() }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        Ok(self.take(what, N)?.try_into().expect("`take` gave as many bytes as asked for"))
    }

    pub(crate) fn i8(&mut self, what: &'static str) -> Result<i8, DecodeError> {
        self.array(what).map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self, what: &'static str) -> Result<i16, DecodeError> {
        self.array(what).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self, what: &'static str) -> Result<uuid::Uuid, DecodeError> {
        self.array(what).map(uuid::Uuid::from_bytes)
    }

    /// An unsigned variable-length integer. Bits beyond the 32nd are dropped, as Kafka drops them; a fifth byte that
    /// asks for a sixth is an error, as there.
    pub(crate) fn unsigned_varint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        const BYTES_MAX: usize = 5;
        let start = self.at;
        let mut value = 0;
        for i in 0..BYTES_MAX {
            let [byte] = self.array(what)?;
            value |= u32::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint { what, at: start, bytes_max: BYTES_MAX })
    }

    /// A signed (zigzag) variable-length integer of 32 bits.
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        let zigzag = self.unsigned_varint(what)?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// A signed (zigzag) variable-length integer of 64 bits.
    pub(crate) fn varlong(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        const BYTES_MAX: usize = 10;
        let start = self.at;
        let mut zigzag = 0;
        for i in 0..BYTES_MAX {
            let [byte] = self.array(what)?;
            zigzag |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        Err(DecodeError::Varint { what, at: start, bytes_max: BYTES_MAX })
    }

    /// A length that is `i16` in old versions (strings), compact in flexible ones. `None` is null.
    fn string_length(&mut self, what: &'static str) -> Result<Option<usize>, DecodeError> {
        if self.flexible { self.compact_length(what) } else { self.fixed_length(what, Self::i16) }
    }

    /// A length that is `i32` in old versions (bytes, arrays), compact in flexible ones. `None` is null.
    fn long_length(&mut self, what: &'static str) -> Result<Option<usize>, DecodeError> {
        if self.flexible { self.compact_length(what) } else { self.fixed_length(what, Self::i32) }
    }

    fn compact_length(&mut self, what: &'static str) -> Result<Option<usize>, DecodeError> {
        let raw = self.unsigned_varint(what)?;
        Ok(raw.checked_sub(1).map(|n| usize::try_from(n).expect("32 bits fit a usize here")))
    }

    fn fixed_length<T: Into<i64>>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Result<T, DecodeError>,
    ) -> Result<Option<usize>, DecodeError> {
        let at = self.at;
        let length: i64 = read(self, what)?.into();
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::Length { what, at, length }),
        }
    }

    pub(crate) fn nullable_string(&mut self, what: &'static str) -> Result<Option<&'a str>, DecodeError> {
        let Some(length) = self.string_length(what)? else { return Ok(None) };
        let at = self.at;
        let bytes = self.take(what, length)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| DecodeError::Utf8 { what, at })
    }

    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.at;
        self.nullable_string(what)?.ok_or(DecodeError::Length { what, at, length: -1 })
    }

    /// Where a byte field lies, and steps over it.
    pub(crate) fn nullable_bytes_range(&mut self, what: &'static str) -> Result<Option<Range<usize>>, DecodeError> {
        let Some(length) = self.long_length(what)? else { return Ok(None) };
        let start = self.at;
        self.take(what, length)?;
        Ok(Some(start..self.at))
    }

    /// How many items follow; null is an error. Each item takes at least `item_bytes_min` bytes, so more items than
    /// the bytes left can hold are an error here, before anybody reserves room for them.
    pub(crate) fn array_length(&mut self, what: &'static str, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        let count = self.long_length(what)?.ok_or(DecodeError::Length { what, at, length: -1 })?;
        if count > self.remaining() / item_bytes_min {
            let need = count.saturating_mul(item_bytes_min);
            return Err(DecodeError::Short { what, at: self.at, need, left: self.remaining() });
        }
        Ok(count)
    }

    /// Steps over the tagged fields of a flexible version; older ones have none.
    pub(crate) fn skip_tagged_fields(&mut self, what: &'static str) -> Result<(), DecodeError> {
        if self.flexible {
            for _ in 0..self.unsigned_varint(what)? {
                let _tag = self.unsigned_varint(what)?;
                let size = self.unsigned_varint(what)?;
                self.take(what, usize::try_from(size).expect("32 bits fit a usize here"))?;
            }
        }
        Ok(())
    }

    /// The end of a message: whatever is left belongs to nothing.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { what, bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::varint;

    #[test]
    fn a_length_is_checked_before_it_is_believed() {
        let mut reader = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 1, 2], false);
        let error = reader.array_length("topics", 1).unwrap_err();
        assert_eq!(error.to_string(), "topics needs 2147483647 bytes at position 4, 2 are left");
        let error = Reader::new(&[0xff, 0xfe], false).nullable_string("name").unwrap_err();
        assert_eq!(error.to_string(), "name at position 0 has the impossible length -2");
        let error = Reader::new(&[0x80; 6], true).unsigned_varint("tag").unwrap_err();
        assert_eq!(error.to_string(), "tag at position 0 is a variable-length integer of more than 5 bytes");
    }

    #[test]
    fn null_is_told_from_empty_in_both_spellings() {
        assert_eq!(Reader::new(&[0xff, 0xff], false).nullable_string("s").expect("legal"), None);
        assert_eq!(Reader::new(&[0, 0], false).nullable_string("s").expect("legal"), Some(""));
        assert_eq!(Reader::new(&[0], true).nullable_string("s").expect("legal"), None);
        assert_eq!(Reader::new(&[1], true).nullable_string("s").expect("legal"), Some(""));
        assert!(Reader::new(&[0], true).string("s").is_err(), "null where a string must be");
    }

    proptest! {
        /// Every integer reads back as it was written, in as many bytes as foretold where that is asked.
        #[test]
        fn variable_length_integers_round_trip(a in any::<u32>(), b in any::<i32>(), c in any::<i64>()) {
            let mut bytes = Vec::new();
            varint::put_unsigned(&mut bytes, a);
            let start = bytes.len();
            varint::put(&mut bytes, b);
            varint::put_long(&mut bytes, c);
            prop_assert_eq!(bytes.len() - start, varint::size(b) + varint::long_size(c));
            let mut reader = Reader::new(&bytes, true);
            prop_assert_eq!(reader.unsigned_varint("a").expect("written above"), a);
            prop_assert_eq!(reader.varint("b").expect("written above"), b);
            prop_assert_eq!(reader.varlong("c").expect("written above"), c);
            prop_assert!(reader.finish("all").is_ok());
        }
    }
}
