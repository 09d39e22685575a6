//! A crate depends on lower layers only, never sideways (ARCHITECTURE.md).

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use super::{list, text};

/// Every crate and its layer. A new crate begins with its row here.
const LAYERS: [(&str, u8); 22] = [
    ("forebay-types", 0),
    ("forebay-env", 1),
    ("forebay-wire", 2),
    ("forebay-format", 2),
    ("forebay-store", 2),
    ("forebay-wal", 3),
    ("forebay-cache", 3),
    ("forebay-client", 3),
    ("forebay-metadata", 3),
    ("forebay-log", 4),
    ("forebay-coordinator", 5),
    ("forebay-upkeep", 5),
    ("forebay-flink", 5),
    ("forebay-registry", 5),
    ("forebay-table", 5),
    ("forebay-recovery", 6),
    ("forebay-link", 6),
    ("forebay-api", 6),
    ("forebay-broker", 7),
    ("forebay-console", 7),
    ("forebay-cli", 8),
    ("forebay-sim", 9),
];

/// Depends on nothing of ours: it must build where they do not.
const TOOL: &str = "xtask";

pub(super) fn check(metadata: &Value) -> Result<Vec<String>> {
    let layers: BTreeMap<_, _> = LAYERS.into();
    let members: Vec<&str> = list(metadata, "workspace_members")?.iter().filter_map(Value::as_str).collect();
    let mut breaches = Vec::new();
    for package in list(metadata, "packages")? {
        if !members.contains(&text(package, "id")) {
            continue;
        }
        let name = text(package, "name");
        let layer = match layers.get(name) {
            Some(layer) => *layer,
            None if name == TOOL => 0,
            None => {
                breaches.push(format!("{name} has no layer: give it a row in xtask/src/tidy/layers.rs"));
                continue;
            }
        };
        // Test dependencies too: a test that needs a higher layer belongs there.
        for dependency in list(package, "dependencies")? {
            let on = text(dependency, "name");
            if let Some(lower) = layers.get(on).filter(|lower| **lower >= layer) {
                breaches.push(format!("{name} (layer {layer}) depends on {on} (layer {lower}), which is not below it"));
            }
        }
    }
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn breaches(name: &str, on: &[&str]) -> String {
        let dependencies: Vec<_> = on.iter().map(|name| json!({ "name": name })).collect();
        let package = json!({ "id": "x", "name": name, "dependencies": dependencies });
        let metadata = json!({ "workspace_members": ["x"], "packages": [package] });
        check(&metadata).expect("metadata of the right shape").join("; ")
    }

    /// Down is fine; sideways, up, and a crate without a row are not.
    #[test]
    fn only_downwards() {
        assert_eq!(breaches("forebay-wal", &["forebay-store", "forebay-types", "bytes"]), "");
        let sideways = "forebay-wal (layer 3) depends on forebay-metadata (layer 3), which is not below it";
        assert_eq!(breaches("forebay-wal", &["forebay-metadata"]), sideways);
        let up = "forebay-env (layer 1) depends on forebay-log (layer 4), which is not below it";
        assert_eq!(breaches("forebay-env", &["forebay-log"]), up);
        assert!(breaches("forebay-new", &[]).starts_with("forebay-new has no layer"));
        assert!(breaches("xtask", &["forebay-types"]).starts_with("xtask (layer 0) depends on forebay-types"));
    }
}
