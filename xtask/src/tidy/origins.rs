//! Where the crates come from that we build on: crates.io or this repository, and none that `deny.toml` bans.
//!
//! What `cargo deny` checks of this, with nothing that a fresh machine lacks.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{list, text};
use crate::workspace;

/// How cargo writes crates.io, whichever mirror it fetches from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(metadata: &Value) -> Result<Vec<String>> {
    let banned = banned(&workspace::read("deny.toml".as_ref())?)?;
    let root = workspace::root().to_str().context("the workspace's path is not UTF-8")?;
    breaches(metadata, &banned, root)
}

fn breaches(metadata: &Value, banned: &[String], root: &str) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for package in list(metadata, "packages")? {
        let (name, version, source) = (text(package, "name"), text(package, "version"), text(package, "source"));
        if banned.iter().any(|banned| banned == name) {
            breaches.push(format!("{name} {version} is banned by deny.toml"));
        }
        // Without a source it is a folder.
        let ours = source.is_empty() && text(package, "manifest_path").starts_with(root);
        if !ours && source != CRATES_IO {
            let from = if source.is_empty() { text(package, "manifest_path") } else { source };
            breaches.push(format!("{name} {version} comes from {from}, neither crates.io nor this repository"));
        }
    }
    Ok(breaches)
}

/// The crates named in the list `deny` of the section `[bans]`.
fn banned(config: &str) -> Result<Vec<String>> {
    let section = config.split_once("[bans]").context("deny.toml has no section [bans]")?.1;
    let list = section.split_once("\ndeny = [").context("deny.toml bans nothing")?.1;
    let list = list.split_once("\n]").context("the list of banned crates in deny.toml has no end")?.0;
    let names = list.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// crates.io and our own folders are fine; another registry, a git repository, a folder elsewhere and a banned crate
    /// are not.
    #[test]
    fn each_crate_has_a_known_origin() {
        let banned = banned("[bans]\ndeny = [\n  # Why.\n  { crate = \"native-tls\" },\n]\n").expect("a list");
        assert_eq!(banned, ["native-tls"]);
        let found = |name: &str, source: Option<&str>, path: &str| {
            let package = json!({ "name": name, "version": "1.0.0", "source": source, "manifest_path": path });
            breaches(&json!({ "packages": [package] }), &banned, "/here")
                .expect("metadata of the right shape")
                .join("; ")
        };
        assert_eq!(found("x", Some(CRATES_IO), "/cache/x/Cargo.toml"), "");
        assert_eq!(found("x", None, "/here/vendor/x/Cargo.toml"), "");
        assert!(found("x", None, "/other/x/Cargo.toml").contains("comes from /other/x"));
        assert!(found("x", Some("git+https://example.org/x"), "/cache/x/Cargo.toml").contains("comes from git+"));
        assert!(found("x", Some("registry+https://example.org/index"), "").contains("comes from registry+"));
        assert_eq!(found("native-tls", Some(CRATES_IO), ""), "native-tls 1.0.0 is banned by deny.toml");
    }
}
