//! Links between our documents lead somewhere.

use std::path::Path;

use anyhow::Result;

use crate::workspace;

pub(super) fn check() -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for file in workspace::files(&[".md"])? {
        let text = workspace::read(&file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        for (number, line) in text.lines().enumerate() {
            for target in targets(line) {
                let path = target.split('#').next().unwrap_or_default();
                let outside = target.contains("://") || target.starts_with("mailto:");
                if !outside && !path.is_empty() && !workspace::root().join(folder).join(path).exists() {
                    breaches.push(format!("{}:{}: the link to {target} leads nowhere", file.display(), number + 1));
                }
            }
        }
    }
    Ok(breaches)
}

/// What `[text](target)` points at, for each such link of a line that is not code.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((target, more)) = after.split_once(')') else { break };
        if before.matches('`').count().is_multiple_of(2) && !target.contains(char::is_whitespace) {
            found.push(target);
        }
        rest = more;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every link of a line, but not what only looks like one in code.
    #[test]
    fn links_are_found() {
        assert_eq!(targets("see [a](docs/a.md) and [b](#b), `x[i](j)`"), ["docs/a.md", "#b"]);
        assert_eq!(targets("none [here] (at all)"), Vec::<&str>::new());
    }
}
