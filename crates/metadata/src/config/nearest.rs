//! The name that somebody probably meant.

/// The candidate with the fewest edits from `name`, if these are few for its length.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let far = name.len() / 3;
    candidates.map(|c| (distance(name, c), c)).filter(|(d, _)| *d <= far).min().map(|(_, c)| c)
}

/// How many bytes to insert, delete, replace, or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let names = || ["retention.ms", "segment.ms", "retention.bytes"].into_iter();
        assert_eq!(nearest("retention.sm", names()), Some("retention.ms"));
        assert_eq!(nearest("retentions.bytes", names()), Some("retention.bytes"));
        assert_eq!(nearest("colour", names()), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
