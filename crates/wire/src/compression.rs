//! The codecs of record batches.
//!
//! Owns: which bits name which codec, and the framing that Kafka's clients expect of each: a gzip stream, snappy blocks
//! in xerial's framing, an LZ4 frame of independent blocks (Java reads no others), a zstd frame. Leaves to others: what
//! a limit should be.
//!
//! Invariant: decompression ends with an error one byte past `limit`; memory grows with what has come out, to no more than
//! that, plus the codec's own window: 4 MiB for LZ4, up to 128 MiB for zstd (libzstd's default, which level 22 needs), of which only
//! what the data fills is ever touched.
//!
//! Sources: `org.apache.kafka.common.compress`, `xerial/snappy-java` (`SnappyOutputStream`).

mod snappy;

use std::fmt;
use std::io::{self, Read, Write};

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Bytes that are not what their codec says, or become too many.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    #[error("data compressed with {codec} is larger than the {limit} bytes allowed")]
    Limit { codec: Codec, limit: usize },
    #[error("cannot decompress with {codec}")]
    Corrupt { codec: Codec, source: io::Error },
}

impl Codec {
    /// The codec of the lowest three bits of a batch's attributes, if they name one.
    pub const fn from_attributes(attributes: i16) -> Option<Self> {
        match attributes & 0b111 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The lowest three bits of a batch's attributes.
    pub const fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name, as in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Compresses with the codec's default level.
    pub fn compress(self, input: &[u8]) -> Vec<u8> {
        const MEMORY: &str = "writing to memory does not fail";
        match self {
            Self::None => input.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(input).expect(MEMORY);
                encoder.finish().expect(MEMORY)
            }
            Self::Snappy => snappy::compress(input),
            Self::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(input).expect(MEMORY);
                encoder.finish().expect(MEMORY)
            }
            Self::Zstd => {
                zstd::bulk::compress(input, zstd::DEFAULT_COMPRESSION_LEVEL).expect("the output's room is its bound")
            }
        }
    }

    /// # Errors
    /// `input` is not this codec's, or holds more than `limit` bytes.
    pub fn decompress(self, input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
        let corrupt = |source| CompressionError::Corrupt { codec: self, source };
        match self {
            Self::None if input.len() > limit => Err(CompressionError::Limit { codec: self, limit }),
            Self::None => Ok(input.to_vec()),
            Self::Gzip => self.read_all(flate2::bufread::MultiGzDecoder::new(input), limit),
            Self::Snappy => match snappy::decompress(input, limit).map_err(corrupt)? {
                Some(output) => Ok(output),
                None => Err(CompressionError::Limit { codec: self, limit }),
            },
            Self::Lz4 => self.read_all(lz4_flex::frame::FrameDecoder::new(input), limit),
            Self::Zstd => self.read_all(zstd::stream::read::Decoder::with_buffer(input).map_err(corrupt)?, limit),
        }
    }

    fn read_all(self, mut reader: impl Read, limit: usize) -> Result<Vec<u8>, CompressionError> {
        let mut output = Vec::new();
        let mut filled = 0;
        loop {
            if filled == output.len() {
                let len = (2 * filled).max(FIRST_SIZE).min(limit.saturating_add(1));
                make_room(&mut output, len, limit);
                output.resize(len, 0);
            }
            match reader.read(&mut output[filled..]) {
                Err(source) => return Err(CompressionError::Corrupt { codec: self, source }),
                Ok(0) => break,
                Ok(read) => filled += read,
            }
            if filled > limit {
                return Err(CompressionError::Limit { codec: self, limit });
            }
        }
        output.truncate(filled);
        Ok(output)
    }
}

/// What decompression makes room for at first.
const FIRST_SIZE: usize = 8 << 10;

/// Gives `output` room for `len` bytes, which are one more than `limit` at most: twice what it had where that suffices, but
/// never more than the limit and one. A `Vec` left to itself doubles past it.
fn make_room(output: &mut Vec<u8>, len: usize, limit: usize) {
    if output.capacity() < len {
        let room = (2 * output.capacity()).max(len).min(limit.saturating_add(1));
        output.reserve_exact(room - output.len());
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn a_bomb_stops_at_the_limit() {
        // 2 MiB of zeros in a few KiB; a reader that allows 1 MiB gets an error that says so, one that allows 2 the data.
        let zeros = vec![0; 2 << 20];
        for codec in ALL {
            let bomb = codec.compress(&zeros);
            let error = codec.decompress(&bomb, 1 << 20).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("data compressed with {codec} is larger than the 1048576 bytes allowed")
            );
            assert!(codec.decompress(&bomb, 2 << 20).is_ok_and(|out| out == zeros));
        }
    }

    #[test]
    fn memory_stays_at_the_limit() {
        // Sizes that a doubling would take far past the limit.
        for size in [0, 1, 9_000, 70_000, 1_100_000] {
            let input: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
            for codec in ALL.into_iter().filter(|codec| *codec != Codec::None) {
                let packed = codec.compress(&input);
                let output = codec.decompress(&packed, size).expect("within the limit");
                assert_eq!(output, input, "{codec}");
                assert!(output.capacity() <= size + 1, "{codec}: {} for {size}", output.capacity());
            }
        }
    }

    #[test]
    fn bits_and_codecs_name_each_other() {
        for codec in ALL {
            assert_eq!(Codec::from_attributes(codec.attributes() | 0x38), Some(codec));
        }
        assert_eq!([5, 6, 7].map(Codec::from_attributes), [None; 3]);
    }

    fn any_codec() -> impl Strategy<Value = Codec> {
        prop::sample::select(&ALL[..])
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(codec in any_codec(), input in proptest::collection::vec(0..4u8, 0..20_000)) {
            let packed = codec.compress(&input);
            let output = codec.decompress(&packed, input.len()).expect("compressed above, within the limit");
            prop_assert_eq!(output, input);
        }

        /// Neither noise nor a damaged stream panics or passes the limit.
        #[test]
        fn damage_is_an_error_or_data_within_the_limit(
            codec in any_codec(),
            input in proptest::collection::vec(0..4u8, 0..2_000),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut packed = codec.compress(&input);
            for (at, byte) in damage {
                if !packed.is_empty() {
                    let at = at.index(packed.len());
                    packed[at] = byte;
                }
            }
            for bytes in [packed, noise] {
                if let Ok(output) = codec.decompress(&bytes, 1_000) {
                    prop_assert!(output.len() <= 1_000);
                }
            }
        }
    }
}
