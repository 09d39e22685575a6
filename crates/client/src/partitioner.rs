//! Which partition a key belongs to: Kafka's `DefaultPartitioner`, so that our records join those of other clients.

use forebay_types::PartitionIndex;

/// The partition of a key among `count`: `toPositive(murmur2(key)) % count`.
///
/// # Panics
/// Where `count` is 0: no topic has no partitions.
pub fn partition_for_key(key: &[u8], count: u32) -> PartitionIndex {
    let positive = murmur2(key).cast_unsigned() & 0x7fff_ffff;
    let index = positive.checked_rem(count).expect("a topic has at least one partition");
    PartitionIndex::new(index.cast_signed()).expect("below 2^31 after the mask")
}

/// Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`): its seed, its way of mixing the tail.
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // The length takes part modulo 2^32, as in Java, where an array is never longer.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of four")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Kafka's own test of `Utils.murmur2` expects.
    #[test]
    fn the_hash_is_kafkas() {
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (data, expected) in cases {
            assert_eq!(murmur2(data), expected, "{}", String::from_utf8_lossy(data));
        }
    }

    /// A negative hash still gives a partition of the topic.
    #[test]
    fn every_key_has_a_partition() {
        assert_eq!(partition_for_key(b"21", 6).get(), 1_173_551_340 % 6, "-973932308 without its sign bit");
        assert_eq!(partition_for_key(b"foobar", 1).get(), 0);
    }
}
