//! Java's `.properties` syntax, in which Kafka's configuration files are written.
//!
//! Owns: comments (`#`, `!`), the three separators (`=`, `:`, blank), lines that go on after a backslash, escapes
//! (`\t`, `\n`, `\r`, `\f`, `\uXXXX`, any other character for itself). Leaves to others: what the keys mean.
//!
//! Difference from `java.util.Properties`: a key that is set twice is an error here, as one of the two would silently not
//! count, and so is a broken escape.

use std::collections::BTreeMap;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PropertiesError {
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

/// Keys and values of a file.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, PropertiesError> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let first = first.trim_start_matches(BLANK);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while goes_on(&logical) {
            logical.pop();
            // Blanks that begin the next line are layout, not value.
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start_matches(BLANK)),
                None => break,
            }
        }
        let refuse = |what: String| PropertiesError { line: index + 1, what };
        let (key, value) = split(&logical);
        let key = unescape(key).map_err(refuse)?;
        let value = unescape(value).map_err(refuse)?;
        if key.is_empty() {
            return Err(refuse("there is no key before the separator".to_owned()));
        }
        if found.contains_key(&key) {
            return Err(refuse(format!("{key} was set before")));
        }
        found.insert(key, value);
    }
    Ok(found)
}

const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

/// Whether a line ends in an odd number of backslashes, so that the last one is not escaped itself.
fn goes_on(line: &str) -> bool {
    !line.bytes().rev().take_while(|byte| *byte == b'\\').count().is_multiple_of(2)
}

/// Key and value, both still escaped: the key ends at the first separator that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        let ends = !escaped && (matches!(c, '=' | ':') || BLANK.contains(c));
        escaped = !escaped && *c == '\\';
        ends
    });
    let Some((at, _)) = end else { return (line, "") };
    let rest = line[at..].trim_start_matches(BLANK);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..at], rest.trim_start_matches(BLANK))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => out.push(unicode(&mut chars)?),
            Some(other) => out.push(other),
            // The end of the file cut a continuation off.
            None => {}
        }
    }
    Ok(out)
}

/// The character of `XXXX`, or of two such escapes in a row where Java writes a surrogate pair.
fn unicode(chars: &mut std::str::Chars<'_>) -> Result<char, String> {
    let high = hex4(chars)?;
    let units = if (0xd800..0xdc00).contains(&high) {
        let rest = chars.as_str();
        let Some(low) = rest.strip_prefix("\\u") else {
            return Err(format!("\\u{high:04x} is half of a character and the other half is missing"));
        };
        *chars = low.chars();
        vec![high, hex4(chars)?]
    } else {
        vec![high]
    };
    match char::decode_utf16(units).next() {
        Some(Ok(c)) => Ok(c),
        _ => Err(format!("\\u{high:04x} is half of a character and the other half does not fit")),
    }
}

fn hex4(chars: &mut std::str::Chars<'_>) -> Result<u16, String> {
    let text = chars.as_str();
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let Some(digits) = digits else {
        return Err("\\u wants four hexadecimal digits".to_owned());
    };
    *chars = text[4..].chars();
    u16::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).expect(text).into_iter().collect()
    }

    fn one(text: &str) -> (String, String) {
        let found = pairs(text);
        assert_eq!(found.len(), 1, "{text:?} is one pair: {found:?}");
        found.into_iter().next().expect("just counted")
    }

    /// The cases of Java's documentation: `Truth = Beauty`, the fruits over several lines, a key alone, and comments.
    #[test]
    fn java_s_own_examples_are_read_as_java_reads_them() {
        for text in ["Truth = Beauty", "Truth:Beauty", " Truth                    :Beauty", "Truth Beauty"] {
            assert_eq!(one(text), ("Truth".into(), "Beauty".into()), "{text:?}");
        }
        let fruits =
            "fruits                           apple, banana, pear, \\\n    cantaloupe, watermelon, \\\n   kiwi, mango";
        assert_eq!(one(fruits).1, "apple, banana, pear, cantaloupe, watermelon, kiwi, mango");
        assert_eq!(one("cheeses\n"), ("cheeses".into(), String::new()));
        assert_eq!(pairs("# a comment\n! another\n\n   \t\n"), []);
        assert_eq!(one("# no continuation \\\nnode.id=1"), ("node.id".into(), "1".into()));
    }

    #[test]
    fn escapes_stand_for_their_characters() {
        assert_eq!(one(r"a\ b\=c = d\te"), ("a b=c".into(), "d\te".into()));
        assert_eq!(one(r"path = c:\\logs"), ("path".into(), r"c:\logs".into()));
        assert_eq!(one(r"name=\u00e9\uD83D\uDE00\q"), ("name".into(), "é😀q".into()));
        assert_eq!(one("value = keeps trailing blanks  ").1, "keeps trailing blanks  ");
        assert_eq!(one(r"even=two\\").1, r"two\", "an escaped backslash does not continue the line");
        assert_eq!(one("cut=off\\").1, "off");
    }

    /// Each error names its line.
    #[test]
    fn faults_name_their_line() {
        let told = |text: &str| parse(text).expect_err(text).to_string();
        assert_eq!(told("a=1\nb=2\na=3"), "line 3: a was set before");
        assert_eq!(told("a=\\u12"), "line 1: \\u wants four hexadecimal digits");
        assert_eq!(told("\n = 1"), "line 2: there is no key before the separator");
        assert_eq!(told("a=\\ud83d"), "line 1: \\ud83d is half of a character and the other half is missing");
    }
}
