//! The key that somebody probably meant.

/// The candidate with the fewest edits from `name`, if these are few for its length.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = name.len() / 4;
    candidates.map(|c| (distance(name, c), c)).filter(|(d, _)| *d <= far).min().map(|(_, c)| c)
}

pub(super) fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// How many bytes to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = last[0];
        last[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = before + usize::from(x != y);
            before = last[j + 1];
            last[j + 1] = replaced.min(last[j] + 1).min(before + 1);
        }
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slip finds its key; another word finds none.
    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let names = || ["node.id", "listeners", "log.dirs"].into_iter();
        assert_eq!(nearest("listener", names()), Some("listeners"));
        assert_eq!(nearest("node-id", names()), Some("node.id"));
        assert_eq!(nearest("broker.rack", names()), None);
        assert_eq!((distance("ab", "ba"), distance("", "abc"), distance("abc", "ac")), (2, 3, 1));
    }
}
