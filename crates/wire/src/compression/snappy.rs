//! Snappy as Kafka's clients write it: raw blocks in xerial's framing (a magic header, then blocks with their sizes).
//! Data without that header is one raw block, which some clients send.

use std::io;

use super::make_room;

/// Starts a stream; followed by a version and the oldest version that can read it, four bytes each.
const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";

const HEADER_BYTES: usize = MAGIC.len() + 8;

/// Uncompressed bytes in a block, the size that snappy-java writes.
const BLOCK_BYTES: usize = 32 * 1024;

/// A block's claim about its size is not believed beyond this many times what it takes: no element of the format
/// makes more than 64 bytes of two.
const RATIO_MAX: usize = 64;

pub(super) fn compress(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(HEADER_BYTES + input.len() / 2);
    output.extend_from_slice(MAGIC);
    output.extend_from_slice(&1_i32.to_be_bytes());
    output.extend_from_slice(&1_i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).expect("a block is far below snappy's limit of 4 GiB");
        let size = u32::try_from(packed.len()).expect("a block of 32 KiB grows by a sixth at most");
        output.extend_from_slice(&size.to_be_bytes());
        output.extend_from_slice(&packed);
    }
    output
}

/// The data, or `None` where it is more than `limit` bytes.
pub(super) fn decompress(input: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    if !input.starts_with(MAGIC) {
        return Ok(append_block(&mut output, input, limit)?.then_some(output));
    }
    let mut rest = input;
    while !rest.is_empty() {
        // Streams may follow one another, each with its own header.
        if rest.starts_with(MAGIC) {
            rest = rest.get(HEADER_BYTES..).ok_or_else(|| corrupt("the header is cut short"))?;
            continue;
        }
        let (size, after) = rest.split_first_chunk().ok_or_else(|| corrupt("a block's size is cut short"))?;
        let size = usize::try_from(u32::from_be_bytes(*size)).expect("32 bits fit a usize here");
        let (block, after) = after.split_at_checked(size).ok_or_else(|| corrupt("a block is cut short"))?;
        if !append_block(&mut output, block, limit)? {
            return Ok(None);
        }
        rest = after;
    }
    Ok(Some(output))
}

/// Whether the block fits `limit`.
fn append_block(output: &mut Vec<u8>, block: &[u8], limit: usize) -> io::Result<bool> {
    let size = snap::raw::decompress_len(block)?;
    if size > limit - output.len() {
        return Ok(false);
    }
    if size > block.len().saturating_mul(RATIO_MAX) {
        return Err(corrupt("a block claims more than it can hold"));
    }
    let start = output.len();
    make_room(output, start + size, limit);
    output.resize(start + size, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut output[start..])?;
    output.truncate(start + written);
    Ok(true)
}

fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_repeated_streams_are_read() {
        let raw = snap::raw::Encoder::new().compress_vec(b"raw block").expect("small");
        assert_eq!(decompress(&raw, 9).expect("legal").expect("fits"), b"raw block");
        let twice = [compress(b"one "), compress(b"two")].concat();
        assert_eq!(decompress(&twice, 7).expect("legal").expect("fits"), b"one two");
        assert_eq!(decompress(&twice, 6).expect("legal"), None);
    }

    #[test]
    fn a_claim_is_not_believed() {
        // A block of six bytes says it holds 1 GiB.
        let error = decompress(&[0x80, 0x80, 0x80, 0x80, 0x04, 0], usize::MAX).unwrap_err();
        assert_eq!(error.to_string(), "a block claims more than it can hold");
    }
}
