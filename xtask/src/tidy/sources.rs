//! What a file of ours may hold: no leftovers, nothing of one machine, a head that says what it is for, one idea.

use std::path::{Component, Path};

use anyhow::Result;

use crate::workspace;

/// Lines at which a file surely holds two ideas.
const LINES_MAX: usize = 900;

/// A `main.rs` so short that its crate's documentation says it all.
const TRIVIAL_LINES: usize = 20;

/// What no file of ours holds, and why. Written in two halves, so that this file does not hold it either.
const FORBIDDEN: [(&str, &str, &str); 8] = [
    ("to", "do!(", "is not finished"),
    ("unimple", "mented!(", "is not finished"),
    ("FIX", "ME", "is not finished"),
    ("#[ig", "nore", "hides a test"),
    ("db", "g!(", "is for a moment's use"),
    ("/ro", "ot/", "is a path of one machine"),
    ("/ho", "me/", "is a path of one machine"),
    ("/Us", "ers/", "is a path of one machine"),
];

pub(super) fn check() -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for file in workspace::files(&[".rs", ".toml", ".md", ".sh", ".yml", ".java", "run"])? {
        let text = workspace::read(&file)?;
        let shown = file.display();
        breaches.extend(forbidden(&text).into_iter().map(|(line, why)| format!("{shown}:{line}: {why}")));
        if file.extension().is_some_and(|ending| ending == "rs") {
            breaches.extend(shape(&file, &text).map(|why| format!("{shown}: {why}")));
        }
        if file.ends_with("Cargo.toml") && is_member(&file) && !text.contains("[lints]\nworkspace = true") {
            breaches.push(format!("{shown}: the workspace's lints are not taken over"));
        }
    }
    Ok(breaches)
}

fn forbidden(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (one, two, why) in FORBIDDEN {
            let word = format!("{one}{two}");
            if line.contains(&word) {
                found.push((number + 1, format!("{word:?} {why}")));
            }
        }
    }
    found
}

fn shape(file: &Path, text: &str) -> Option<String> {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        return Some(format!("{lines} lines: one idea a file, at most {LINES_MAX}"));
    }
    let trivial = file.file_name().is_some_and(|name| name == "main.rs") && lines <= TRIVIAL_LINES;
    if is_member(file) && !text.starts_with("//!") && !trivial {
        return Some("does not begin with `//!`: what it owns, what it leaves, its invariants".to_owned());
    }
    None
}

/// Whether a file belongs to a crate of the workspace.
fn is_member(file: &Path) -> bool {
    let folder = file.components().next();
    [Component::Normal("crates".as_ref()), Component::Normal("xtask".as_ref())].map(Some).contains(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each rule has a breach and a case just inside it.
    #[test]
    fn every_rule_can_fail() {
        let shape = |file: &str, text: &str| shape(Path::new(file), text).is_some();
        assert!(shape("crates/x/src/lib.rs", "use std;") && !shape("crates/x/src/lib.rs", "//! Owns x."));
        assert!(!shape("crates/x/src/main.rs", "fn main() {}") && shape("crates/x/src/main.rs", &"\n".repeat(21)));
        assert!(!shape("fuzz/targets/x.rs", "#![no_main]"));
        assert!(shape("fuzz/x.rs", &"\n".repeat(901)) && !shape("fuzz/x.rs", &"\n".repeat(900)));
        for (one, two, _) in FORBIDDEN {
            assert_eq!(forbidden(&format!("a\nb {one}{two} c")).len(), 1);
        }
        assert_eq!(forbidden("a list of things to do! (later)"), []);
    }
}
