//! Every crate we build on has a licence that `deny.toml` allows.
//!
//! What `cargo deny` checks of this, with nothing that a fresh machine lacks.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{list, text};
use crate::workspace;

pub(super) fn check(metadata: &Value) -> Result<Vec<String>> {
    let allowed = allowed(&workspace::read("deny.toml".as_ref())?)?;
    let mut breaches = Vec::new();
    for package in list(metadata, "packages")? {
        let (name, version, licence) = (text(package, "name"), text(package, "version"), text(package, "license"));
        if !is_allowed(licence, &allowed) {
            let licence = if licence.is_empty() { "no licence" } else { licence };
            breaches.push(format!("{name} {version} has {licence:?}, which deny.toml does not allow"));
        }
    }
    Ok(breaches)
}

/// The list `allow` of the section `[licenses]`.
fn allowed(config: &str) -> Result<Vec<String>> {
    let section = config.split_once("[licenses]").context("deny.toml has no section [licenses]")?.1;
    let list = section.split_once("allow = [").context("deny.toml allows no licences")?.1;
    let list = list.split_once(']').context("the list of licences in deny.toml has no end")?.0;
    Ok(list.split(',').map(|item| item.trim().trim_matches('"').to_owned()).filter(|item| !item.is_empty()).collect())
}

/// Whether an SPDX expression can be met from the list: one side of an `OR`, both sides of an `AND`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut met = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    match words.next() {
        Some("(") => {
            let met = any(words, allowed);
            met && words.next() == Some(")")
        }
        Some(licence) => {
            let name = match words.next_if_eq(&"WITH") {
                Some(_) => format!("{licence} WITH {}", words.next().unwrap_or_default()),
                None => licence.to_owned(),
            };
            allowed.contains(&name)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alternatives, conjunctions, exceptions and parentheses, as crates write them.
    #[test]
    fn expressions_are_met_from_the_list() {
        let allowed = allowed("[licenses]\nallow = [\n  \"MIT\",\n  \"Apache-2.0\",\n]\n").expect("a list");
        for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(MIT OR GPL-3.0) AND Apache-2.0", "MIT AND Apache-2.0"] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0 WITH LLVM-exception", "(MIT", "MIT MIT"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }
}
