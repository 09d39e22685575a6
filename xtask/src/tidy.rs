//! The project's own rules, which no compiler checks.
//!
//! Owns: layers between crates, what a source file may hold and how it begins, links between documents, licences and
//! origins of what we build on. Not checked here or anywhere without `cargo deny`: security advisories and yanked versions,
//! whose list is fetched over the network.

mod layers;
mod licences;
mod links;
mod origins;
mod sources;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{shell, workspace};

/// Prints every breach; fails where there is one.
pub fn run() -> Result<()> {
    shell::say("tidy");
    let lock = workspace::root().join("Cargo.lock");
    let mut breaches = Vec::new();
    if !lock.is_file() {
        breaches.push("Cargo.lock is missing: builds must be the same everywhere".to_owned());
    }
    let metadata = metadata()?;
    breaches.extend(layers::check(&metadata)?);
    breaches.extend(licences::check(&metadata)?);
    breaches.extend(origins::check(&metadata)?);
    breaches.extend(sources::check()?);
    breaches.extend(links::check()?);
    if breaches.is_empty() {
        return Ok(());
    }
    for breach in &breaches {
        println!("{breach}");
    }
    bail!("{} breaches of the project's rules", breaches.len())
}

/// What cargo knows of our packages and of all they depend on.
fn metadata() -> Result<Value> {
    let text = shell::output(shell::cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    serde_json::from_str(&text).context("read what `cargo metadata` printed")
}

/// A field of text in the metadata, empty where it is null.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A list in the metadata.
fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value.get(field).and_then(Value::as_array).with_context(|| format!("`cargo metadata` has no list {field:?}"))
}
