//! Byte counts that a person reads and writes: `64 MiB`, `10GiB`, `1048588`.

use std::fmt;
use std::str::FromStr;

use crate::OutOfRange;

/// A number of bytes. Shown in binary units; read from a plain number or one with a binary unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = UNITS.into_iter().find(|(_, scale)| self.0 >= *scale).unwrap_or(("B", 1));
        if self.0.is_multiple_of(scale) {
            write!(f, "{} {unit}", self.0 / scale)
        } else {
            // One decimal is for reading only: f64 is exact enough at every size we can store.
            #[allow(clippy::cast_precision_loss)]
            let value = self.0 as f64 / scale as f64;
            write!(f, "{value:.1} {unit}")
        }
    }
}

impl FromStr for ByteSize {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || OutOfRange::new("size", "a whole number of bytes, or one with B, KiB, MiB, GiB or TiB", text);
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].trim();
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let scale = if unit.is_empty() { 1 } else { scale.ok_or_else(bad)? };
        let count: u64 = digits.parse().map_err(|_| bad())?;
        count.checked_mul(scale).map(Self).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_shown() {
        for (bytes, shown) in
            [(0, "0 B"), (1023, "1023 B"), (1 << 20, "1 MiB"), (1536, "1.5 KiB"), (10 << 30, "10 GiB")]
        {
            assert_eq!(ByteSize::new(bytes).to_string(), shown);
        }
        assert_eq!("64MiB".parse(), Ok(ByteSize::mib(64)));
        assert_eq!("64 MiB".parse(), Ok(ByteSize::mib(64)));
        assert_eq!("1048588".parse(), Ok(ByteSize::new(1_048_588)));
        for bad in ["", "MiB", "-1", "1.5 GiB", "9999999999999 TiB", "3 MB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} is no size");
        }
    }
}
