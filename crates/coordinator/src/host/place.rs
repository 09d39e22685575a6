//! Which partition of an internal topic a group or a transactional id belongs to. Tools compute it too.
//!
//! Sources: Kafka's `GroupMetadataManager.partitionFor`, `TransactionStateManager.partitionFor`, `Utils.abs`;
//! `java.lang.String.hashCode`.

use forebay_types::PartitionIndex;

/// # Panics
/// Without partitions: a topic has at least one.
pub(super) fn of(key: &str, partitions: i32) -> PartitionIndex {
    // Kafka's `abs` makes 0 of the one number that has no positive counterpart.
    let hash = java_hash(key).checked_abs().unwrap_or(0);
    PartitionIndex::new(hash % partitions).expect("the remainder of a number that is not negative")
}

/// Java's hash of a string, over its UTF-16 units.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are Java's own, as documented or as jshell prints them.
    #[test]
    fn hashes_are_those_of_java() {
        for (text, hash) in [
            ("", 0),
            ("a", 97),
            ("Aa", 2112),
            ("BB", 2112),
            ("hello", 99_162_322),
            ("polygenelubricants", i32::MIN),
            ("é", 233),
            ("😀", 1_772_899),
        ] {
            assert_eq!(java_hash(text), hash, "{text:?}");
        }
    }

    #[test]
    fn places_are_within_the_topic_also_for_the_lowest_hash() {
        assert_eq!(of("hello", 50).get(), 22);
        assert_eq!(of("polygenelubricants", 50).get(), 0, "as in Kafka");
        for n in 0..1000 {
            assert!((0..7).contains(&of(&format!("group-{n}"), 7).get()));
        }
    }
}
